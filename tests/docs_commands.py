"""The commands of README and docs, and where each is run; `tests/test_docs_commands.py` compares both.

A command is written as on the page, without `.venv/bin/`, comment, variables and a final `&`.
"""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

IN_A_CHECKOUT = (
    "aot data build configs/photos.toml DATA --set source_folder=FOLDER",
    "aot data show DATA --output pairs.html",
    "aot data card DATA",
    "aot data validate DATA --docs DOCS",
    'aot attack docs/probe-scene.png --question "Is there a red ring?" --answer yes --count 64 --output probe',
    "aot run configs/tiny.toml --set attacker_round.updates=10 --set 'run.gpu_slots=[\"aot-gpu-0\"]' --dry-run",
    "aot run configs/tiny.toml --set rounds=1 --set attacker_round.updates=10 --dry-run",
    "cp infra/.env.example infra/.env",
)
"""Run in this order by `tests/test_docs_commands.py`. `FOLDER` is what `examples/own_source.py` writes."""

ON_A_FINISHED_CAMPAIGN = ("aot status", "aot history", "aot pool", "aot store gc", "aot store verify")
"""Run by `tests/flows/test_coevolution.py` on the home of a smoke campaign."""

ELSEWHERE = {
    # the same command on a smaller config or in pieces, on the real component
    "make lint": "tests/test_extending.py::test_the_lint_passes",
    "make ui": "tests/flows/test_deployments.py::test_prefects_page_asks_the_server_that_it_came_from",
    "aot ui": "tests/flows/test_deployments.py::test_prefects_page_asks_the_server_that_it_came_from",
    "aot worker": "tests/services/test_schedules.py::"
    "test_a_run_starts_by_itself_outlives_the_silence_limit_and_completes",
    'aot deploy configs/series.toml --schedule "0 20 * * 5"': "tests/services/test_series.py::"
    "test_four_editions_by_themselves_a_killed_fifth_and_a_missed_slot",
    'aot deploy configs/series.toml --schedule "0 20 * * 5" --launcher subprocess': "tests/flows/test_deployments.py::"
    "test_a_schedule_makes_runs_within_seconds",
    "aot deploy configs/series.toml --tell webhook/oncall --tell slack-webhook/team": "tests/flows/test_events.py::"
    "test_an_automation_for_every_event_and_two_that_start_something_switched_off",
    "aot webhook env:AOT_RECEIVER --key env:AOT_WEBHOOK_KEY": "tests/tracking/test_webhooks.py::"
    "test_an_alias_that_somebody_moves_by_hand_is_posted",
    "aot trend": "tests/flows/test_series.py::test_the_second_edition_goes_on_from_the_champion_within_its_budget",
    "aot run configs/series.toml": "tests/flows/test_series.py::"
    "test_the_second_edition_goes_on_from_the_champion_within_its_budget",
    "aot run configs/series.toml --edition 3": "tests/series/test_planning.py::test_editions_are_reproducible",
    "aot run configs/series.toml --edition 2026-11-27T20:00": "tests/services/test_series.py::"
    "test_four_editions_by_themselves_a_killed_fifth_and_a_missed_slot",
    "mlflow models serve -m models:/aot-defender@champion --env-manager local": "tests/tracking/test_serving.py::"
    "test_mlflow_serves_the_champion",
    "aot export FOLDER": "tests/tracking/test_serving.py::test_the_exported_folder_is_the_merged_model",
    "transformers serve FOLDER": "tests/tracking/test_serving.py::test_transformers_serves_what_was_exported",
    "aot reevaluate": "tests/flows/test_coevolution.py::test_a_version_is_measured_again_to_the_last_item",
    "aot promote --version 3": "tests/flows/test_coevolution.py::"
    "test_a_rival_campaign_is_refused_forced_and_rolled_back",
    'aot promote --version 3 --force --why "text"': "tests/flows/test_coevolution.py::"
    "test_a_rival_campaign_is_refused_forced_and_rolled_back",
    'aot rollback --why "text"': "tests/flows/test_coevolution.py::"
    "test_a_rival_campaign_is_refused_forced_and_rolled_back",
    "aot data build configs/photos.toml DATA --set source_folder=FOLDER --workers 8": "tests/data/test_growing.py::"
    "test_a_folder_that_grew_by_a_tenth_makes_the_new_shards_alone",
    "aot data build configs/photos.toml NEW --previous OLD --set prepare_data.growing=true "
    "--set source_folder=FOLDER": "tests/data/test_growing.py::"
    "test_a_folder_that_grew_by_a_tenth_makes_the_new_shards_alone",
    "aot run configs/photos.toml --set source_folder=FOLDER": "tests/flows/test_data.py::"
    "test_a_run_leads_to_its_data_docs_and_to_the_hashes_of_data_and_source",
    "aot bench verify FOLDER --pictures": "tests/commands/test_benchmarking.py::test_verify_tells_what_a_folder_holds",
    "aot bench run FOLDER --name pope --endpoint http://127.0.0.1:8000/v1 --model NAME": "tests/commands/"
    "test_benchmarking.py::test_the_commands",
    "aot bench second-opinion MODEL --name pope --figures figures.json": "tests/lmms/test_lmms.py::"
    "test_both_figures_stand_side_by_side",
    "pip install .": "tests/test_wheel.py::test_a_wheel_runs_a_shipped_campaign_in_an_empty_folder",
    "aot run smoke": "tests/test_wheel.py::test_a_wheel_runs_a_shipped_campaign_in_an_empty_folder",
    "aot bench verify FOLDER --name ours": "tests/evaluation/benchmarks/test_registry.py::"
    "test_an_entry_is_all_that_a_benchmark_takes",
    "aot bench run FOLDER --name ours --defender aot-tiny-vl": "tests/evaluation/benchmarks/test_registry.py::"
    "test_an_entry_is_all_that_a_benchmark_takes",
    "aot store verify --store s3://aot/team": "tests/store/test_damage.py::"
    "test_verify_reads_past_the_cache_and_the_buckets_own_notes",
    "docker/build.sh control stage-cpu": "tests/docker/test_launcher.py::"
    "test_a_stage_in_a_container_gives_the_same_bytes",
    "infra/backup/restore.sh FOLDER/20260101T000000Z": "tests/compose/test_compose.py::"
    "test_what_was_lost_comes_back_from_a_backup",
    "docker compose --env-file infra/.env -f infra/compose.yaml up -d --wait": "tests/compose/test_compose.py::"
    "test_everything_comes_up_healthy_and_stays",
    "infra/backup/backup.sh FOLDER": "tests/compose/test_compose.py::test_what_was_lost_comes_back_from_a_backup",
    "docker/build.sh": "tests/docker/test_launcher.py::test_a_stage_in_a_container_gives_the_same_bytes",
    "aot run configs/smoke.toml --launcher docker --home smoke-home": "tests/docker/test_campaign.py::"
    "test_a_campaign_in_containers_ends_as_in_one_process",
    "python -m pytest -n 0 tests/stages/test_tally.py tests/engine/test_identity.py": "tests/test_extending.py::"
    "test_the_new_stages_own_test_passes_and_released_keys_stay",
    "aot run configs/smoke.toml --home /tmp/tally --set stop_after=prepare_data": "tests/test_extending.py::"
    "test_a_campaign_runs_the_new_stage_and_its_spec_finds_the_record",
    "aot run configs/smoke.toml --home /tmp/tally --set stop_after=prepare_data --set tally.split=evaluate": "tests/"
    "test_extending.py::test_a_campaign_runs_the_new_stage_and_its_spec_finds_the_record",
}

NOT_RUN = {
    "make demo": "8 minutes; tests/flows/test_coevolution.py runs the same flow on configs/smoke.toml",
    "make test": "this test is a part of it",
    "aot run configs/tiny.toml --set rounds=1 --set attacker_round.updates=10": "minutes; see `make demo`",
    'aot attack photo.jpg --question "What is on the table?" --option "a cup" --option "a vase" --answer "a cup" '
    "--boxes 412,230,60,75 --attacker Qwen/Qwen-Image-Edit --resolution 512 --steps 20 "
    "--defender Qwen/Qwen2.5-VL-7B-Instruct --device cuda --dtype bfloat16 --output probe": "needs a GPU and the hub",
    "aot bench run FOLDER --name pope --name vstar --defender Qwen/Qwen2.5-VL-7B-Instruct --device cuda "
    "--dtype bfloat16": "needs a GPU, the hub and the published files",
    "aot bench run FOLDER --name pope --defender MODEL --vllm=--max-model-len=12288": "needs vLLM",
    "prefect work-pool create aot --type docker --base-job-template infra/pools/docker.json": "needs prefect-docker",
    "python benchmarks/headroom.py aot-tiny-vl --right 80": "minutes",
    "python benchmarks/headroom.py aot-tiny-vl --steps 250 --scenes 6 --crowds 1 --rate 0.3 --right 60 "
    "--output out/A": "minutes",
    "python benchmarks/headroom.py aot-tiny-vl --steps 240 --scenes 4 --crowds 2 --rate 0.5 --right 60 "
    '--looking "plain relation=2" where=0.5': "minutes",
    "python benchmarks/headroom.py out/A --steps 280 --scenes 3 --crowds 3 --lookalikes --rate 0.6 --right 60 "
    '--looking where=2 what=0.3 "plain relation=0.7"': "minutes",
}
"""Not runnable in the tests, and why."""

_FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_SHELL = {"bash", "console", "sh", "shell"}
_PROGRAM = re.compile(r"(?:\$ )?(?:\.venv/bin/)?(?:aot|make|python|pytest|mlflow|prefect|docker|transformers) \S")


def commands(page: str) -> list[str]:
    """The commands of a page's code blocks, each as the tables above write it.

    In a shell block every line is one; elsewhere (plain or indented code) each line that begins with a program.
    """
    lines = []
    for fence in _FENCE.finditer(page):
        block = fence[3].replace("\\\n", " ").splitlines()
        lines += [line for line in block if fence[2] in _SHELL or (not fence[2] and _PROGRAM.match(line.strip()))]
    rest = _FENCE.sub("", page)
    lines += [line for line in re.findall(r"^ {4,}(\S.*)$", rest, re.MULTILINE) if _PROGRAM.match(line)]
    return [command for line in lines if (command := normal(line))]


def normal(line: str) -> str:
    """A line without prompt, comment, variables, `.venv/bin/` and `&`; quoted as the shell would take it."""
    words = shlex.split(line.strip().removeprefix("$ "), comments=True)
    while words and (words[0] == "export" or re.match(r"[A-Z_]+=", words[0])):
        words = words[1:]
    if words and words[-1] == "&":
        words = words[:-1]
    if words:
        words[0] = words[0].removeprefix(".venv/bin/")
    return shlex.join(words)
