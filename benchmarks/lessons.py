"""Do lessons chosen by learnability teach more than today's mix? One Attacker's round, two lessons from it, one exam.

    python benchmarks/lessons.py configs/tiny.toml --seeds 0 1 --home .aot-bench --output docs/lessons.md

Each seed: data, warm starts and one Attacker's round are made once; from there every arm curates its own lesson with
that Attacker, trains the same warm-started Defender with as many updates on as many images, and sits the same exam:
clean, procedural distractors, the Attacker's edits, and the worst of `--worst-of` of its edits a scene.

- `mix`: two edits a scene, the config's shares of hopeless and trivial edits.
- `learnability`: `--edits` edits a scene, of which the one of the highest p (1 - p) is kept.
- `worst`: the same, but the one of the lowest p is kept.

Goes through the stages and their store: killed and started again it goes on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from by_seed import Answers, cell, conditions_of, difference, keep, missing, of, strict_shares
from coevolution import Seed

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.attacker_round import AttackerRoundInputs
from aot_core.contracts.curate import CurateConfig, CurateInputs, CurateOutputs, LearnabilitySettings
from aot_core.contracts.defender_round import DefenderRoundInputs, DefenderRoundOutputs
from aot_core.contracts.evaluate import attacker_condition
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.prepare_data import PrepareDataInputs
from aot_core.contracts.warm_start_attacker import WarmStartAttackerInputs
from aot_core.contracts.warm_start_defender import WarmStartDefenderInputs
from aot_core.engine.runner import git_commit
from aot_core.home import Home

Lessons = dict[str, list[tuple[CurateOutputs, DefenderRoundOutputs]]]
"""By arm, a pair a seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", choices=["mix", "learnability", "worst"], default=["mix", "learnability"])
    parser.add_argument("--edits", type=int, default=8, help="edits a scene to choose from (6 to 16)")
    parser.add_argument("--worst-of", type=int, default=4, help="edits of the Attacker a scene in the exam")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--home", type=Path, default=Path(".aot-bench"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("docs/lessons.md"))
    arguments = parser.parse_args()
    arms = ["warm start", *arguments.arms]
    answers: Answers = {}
    curated: Lessons = {arm: [] for arm in arguments.arms}
    home = Home(arguments.home.resolve())
    for number in arguments.seeds:
        sets = [*arguments.overrides, f"seed={number}", f"evaluate.worst_of={arguments.worst_of}"]
        seed = Seed(load_campaign(arguments.config, sets), home, arguments.threads)
        warm, attacker = begin(seed)
        for arm in arms:
            defender = warm if arm == "warm start" else taught(seed, arm, arguments.edits, warm, attacker, curated)
            keep(answers, arm, number, seed.examine(defender, [attacker]))
    text = report(arguments, answers, curated)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text)
    print(text)


def begin(seed: Seed) -> tuple[ArtifactRef, ArtifactRef]:
    """The warm-started Defender, and the first round's Attacker."""
    editor, model = seed.bases
    judge = model if seed.config.prepare_data.effectiveness.enabled else None
    seed.data = seed.run("prepare_data", PrepareDataInputs(source=None, defender=judge)).artifact
    start = seed.run("warm_start_attacker", WarmStartAttackerInputs(dataset=seed.data, base=editor)).artifact
    warm = seed.run("warm_start_defender", WarmStartDefenderInputs(dataset=seed.data, base=model)).artifact
    match = AttackerRoundInputs(
        dataset=seed.data, attacker=start, defender=warm, attacker_base=editor, defender_base=model
    )
    return warm, seed.run("attacker_round", match, 1).artifact


def lesson_config(config: CurateConfig, arm: str, edits: int) -> CurateConfig:
    if arm == "mix":
        return config
    choose = "worst" if arm == "worst" else "learnability"
    changed = {"edits_per_scene": edits, "learnability": LearnabilitySettings(choose=choose)}
    return config.model_copy(update=changed)


def taught(
    seed: Seed,
    arm: str,
    edits: int,
    warm: ArtifactRef,
    attacker: ArtifactRef,
    curated: Lessons,
) -> ArtifactRef:
    """The Defender that an arm's lesson makes of the warm start."""
    editor, model = seed.bases
    match = CurateInputs(dataset=seed.data, attacker=attacker, defender=warm, attacker_base=editor, defender_base=model)
    record = seed.run("curate", match, 1, lesson_config(seed.config.curate, arm, edits))
    lesson = DefenderRoundInputs(curated=record.artifact, defender=warm, base=model)
    learned = seed.run("defender_round", lesson, 1)
    outputs = CurateOutputs.model_validate(record.outputs), DefenderRoundOutputs.model_validate(learned.outputs)
    curated[arm].append(outputs)
    return learned.artifact


def report(
    arguments: argparse.Namespace,
    answers: Answers,
    curated: Lessons,
) -> str:
    """The tables, in Markdown."""
    conditions = conditions_of(answers)
    titles = {attacker_condition(1): "Attacker 1", "worst_of_n": f"worst of {arguments.worst_of}"}
    head = [titles.get(condition, condition) for condition in conditions]
    first, *others = arguments.arms
    command = f"{arguments.config} --seeds {' '.join(map(str, arguments.seeds))} --edits {arguments.edits}"
    command += "".join(f" --set {override}" for override in arguments.overrides)
    asked = mean(len(items) for items in answers["warm start"]["clean"].values())
    lines = [
        f"`python benchmarks/lessons.py {command}` at {git_commit()[:12]}. Strict accuracy in %, mean over "
        f"{len(arguments.seeds)} seeds (95 % t interval of the mean), {asked:.0f} questions a seed and condition "
        "(fewer where an edit was not valid).",
        "",
        "| Defender | " + " | ".join(head) + " |",
        "|---" * (len(head) + 1) + "|",
    ]
    for arm in answers:
        cells = [cell([*strict_shares(of(answers, arm, condition)).values()]) for condition in conditions]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += [
        *missing(answers, arguments.seeds, titles),
        "",
        f"Paired over all items of all seeds: the arm minus {first}, in points (95 % interval, McNemar's p). The worst "
        "of n is a picture of each Defender's own.",
        "",
        "| arm | " + " | ".join(head) + " |",
        "|---" * (len(head) + 1) + "|",
    ]
    for arm in others:
        cells = [difference(of(answers, first, condition), of(answers, arm, condition)) for condition in conditions]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += ["", "The lessons, means over the seeds:", ""]
    lines.append(
        "| arm | edits made | valid | kept | right on those kept | groups without a lesson, expected: all valid | "
        "kept | as trained |"
    )
    lines.append("|---" * 8 + "|")
    for arm, made in curated.items():
        counts = [f"{mean(getattr(o, name) for o, _ in made):.0f}" for name in ("edited", "valid", "kept")]
        right = f"{100 * mean(o.mean_correct for o, _ in made):.0f} %"
        flat = [_percent([getattr(o, name) for o, _ in made]) for name in ("flat_before", "flat_after")]
        trained = _percent([learned.flat_groups for _, learned in made])
        lines.append(f"| {arm} | " + " | ".join([*counts, right, *flat, trained]) + " |")
    return "\n".join([*lines, ""])


def _percent(shares: Sequence[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return f"{100 * mean(known):.0f} %" if known else ""


if __name__ == "__main__":
    main()
