"""A stage runs once, leaves its record last, and its process says how it failed."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from aot_core.contracts.errors import StageBadInputError
from aot_core.contracts.prepare_data import EffectivenessSettings, PrepareDataConfig, PrepareDataInputs, SplitSizes
from aot_core.contracts.spec import Place, StageResult, StageSpec
from aot_core.engine.identity import stage_spec
from aot_core.engine.runner import execute, progress_folder
from aot_core.launch.subprocess import SubprocessLauncher
from aot_core.store import LocalStore

SMALL = PrepareDataConfig(
    splits=SplitSizes(warm_start=12, train=8, evaluate=4), effectiveness=EffectivenessSettings(enabled=False)
)


def make_spec(store: Path, config: PrepareDataConfig = SMALL) -> StageSpec:
    return stage_spec("prepare_data", config, PrepareDataInputs(), Place(store=str(store), device="cpu", threads=1))


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    first = execute(make_spec(tmp_path))
    second = execute(make_spec(tmp_path))
    assert not first.reused and second.reused
    assert second.record == first.record


def test_where_a_stage_runs_is_no_part_of_its_key(tmp_path: Path) -> None:
    here = make_spec(tmp_path / "a")
    there = here.model_copy(update={"place": Place(store="/elsewhere", device="cuda", threads=9)})
    assert here.key == there.key
    assert make_spec(tmp_path, SMALL.model_copy(update={"seed": 1})).key != here.key


def test_the_same_stage_in_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    here = execute(make_spec(tmp_path / "a")).record
    there = SubprocessLauncher().run(make_spec(tmp_path / "b")).record
    assert here is not None and there is not None
    assert here.artifact == there.artifact
    assert here.outputs == there.outputs


def run_process(spec: dict[str, object], folder: Path) -> tuple[int, StageResult]:
    file = folder / "spec.json"
    file.write_text(json.dumps(spec))
    command = [sys.executable, "-m", "aot_core.stages", str(file)]
    code = subprocess.run(command, capture_output=True, check=False).returncode
    return code, StageResult.model_validate_json((folder / "result.json").read_bytes())


def test_bad_input_has_its_own_exit_code_and_words(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "store").model_dump(mode="json")
    spec["config"]["splits"]["train"] = -1
    code, result = run_process(spec, tmp_path)
    assert code == StageBadInputError.exit_code == 2
    assert result.error == "bad_input" and "splits.train" in result.message
    assert not list((tmp_path / "store").glob("prepare_data/*")), "nothing is half written"


def test_a_stage_killed_half_way_leaves_nothing_and_runs_again(tmp_path: Path) -> None:
    big = SMALL.model_copy(update={"splits": SplitSizes(warm_start=4000, train=8, evaluate=4)})
    spec = make_spec(tmp_path / "store", big)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "aot_core.stages", str(tmp_path / "spec.json")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    lock = tmp_path / "store" / ".locks" / f"prepare_data-{spec.key}.lock"
    deadline = time.monotonic() + 60
    while not lock.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, 9)
    assert process.wait() == -9, "it was killed while it worked"
    assert LocalStore(tmp_path / "store").find("prepare_data", spec.key) is None
    again = make_spec(tmp_path / "store")
    assert execute(again).record is not None


def test_progress_left_by_others_is_swept_and_a_stages_own_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(tmp_path / "store")
    progress = tmp_path / "store" / ".progress"
    names = (f"prepare_data/{spec.key}", "curate/abandoned", "curate/finished", "evaluate/running")
    own, left, gone, running = (progress / name for name in names)
    for folder in (own, left, gone, running):
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    (running / "answers.jsonl").touch()
    os.utime(running, (0, 0))
    plain = Path.stat

    def stat(path: Path, **kwargs: bool) -> os.stat_result:
        if path == gone:
            with suppress(FileNotFoundError):
                gone.rmdir()  # the stage that it belongs to has finished since the folder was listed
        return plain(path, **kwargs)

    monkeypatch.setattr(Path, "stat", stat)
    assert progress_folder(LocalStore(tmp_path / "store"), spec) == own
    assert own.is_dir(), "it is what this stage goes on from, however long ago it was killed"
    assert not left.exists()
    assert running.is_dir(), "it is written to, for longer than a week"


def test_an_input_that_is_not_in_the_store_is_named(tmp_path: Path) -> None:
    from aot_core.contracts.artifact import ArtifactRef, ExternalRef
    from aot_core.contracts.warm_start_defender import WarmStartDefenderConfig, WarmStartDefenderInputs

    missing = ArtifactRef(uri="aot://prepare_data/" + "0" * 64, sha256="0" * 64)
    inputs = WarmStartDefenderInputs(dataset=missing, base=ExternalRef(name="aot-tiny-vl"))
    spec = stage_spec("warm_start_defender", WarmStartDefenderConfig(), inputs, Place(store=str(tmp_path)))
    with pytest.raises(StageBadInputError, match="is not in"):
        execute(spec)
