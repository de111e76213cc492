"""Does mutation find more to learn than as many more proposals? One curation of the same scenes, at equal cost.

    python benchmarks/mutation.py configs/selfplay.toml --scenes 150

The shipped editor with the prior's tactics edits scenes for the shipped Defender, by the config's `[curate]`. One arm
makes `--edits` edits a scene; the others make a quarter less (rounded up) and paint the rest as mutations, whose
parents are chosen in three ways. Nothing is trained. The figures: learnability p (1 - p) of the best edit of each scene
(0 where no edit is valid), and of the edits that curation keeps.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import t as student

from aot_core.attacker.curation import Funnel, join_funnels, make_edits
from aot_core.attacker.editing import Attacker
from aot_core.attacker.learnability import RatedEdit, Taught, choose_learnable, rate
from aot_core.attacker.mutation import Evolved, evolve
from aot_core.attacker.scenes import load_targets
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.curate import CurateConfig, LearnabilitySettings, MutationSettings
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.prepare_data import EffectivenessSettings, SplitSizes
from aot_core.data.build import BuildJob, build_dataset
from aot_core.defender.answering import Defender
from aot_core.engine.runner import git_commit


class Arm(NamedTuple):
    """One way to spend the edits, over all seeds."""

    name: str
    best: list[float]
    """By scene: the learnability of its best edit."""
    taught: list[tuple[Funnel, Taught]]
    evolved: list[Evolved]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--edits", type=int, default=8, help="edits a scene, mutations included")
    parser.add_argument("--generations", type=int, default=2)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arms: dict[str, Arm] = {}
    for number in arguments.seeds:
        config = load_campaign(arguments.config, [*arguments.overrides, f"seed={number}"])
        with tempfile.TemporaryDirectory() as folder:
            measure(config, arguments, Path(folder), arms)
    print(report(arguments, list(arms.values())))


def measure(config: CampaignConfig, arguments: argparse.Namespace, folder: Path, arms: dict[str, Arm]) -> None:
    """One seed's scenes in every arm."""
    splits = SplitSizes(warm_start=0, train=arguments.scenes, evaluate=0)
    asked = {"splits": splits, "effectiveness": EffectivenessSettings(enabled=False)}
    recipe = config.seeded(config.prepare_data.model_copy(update=asked))
    (folder / "data").mkdir()
    build_dataset(BuildJob(recipe, None, folder / "work"), folder / "data")
    curate = config.seeded(config.curate, 1)
    targets = load_targets(folder / "data", np.random.default_rng([curate.seed, 31]), arguments.scenes)
    scenes = [target.sample.sample_id for target in targets]
    editor, defender = Attacker.load(config.models.attacker, steps=curate.steps), Defender.load(config.models.defender)

    def first(edits: int) -> tuple[list[RatedEdit], Funnel, CurateConfig]:
        mine = curate.model_copy(update={"edits_per_scene": edits})
        made, funnel = make_edits(editor, AttackPolicy(), targets, mine, np.random.default_rng([curate.seed, 34]))
        return rate(defender, made, curate.temperature), funnel, mine

    rated, funnel, mine = first(arguments.edits)
    _note(arms, f"{arguments.edits} proposals", scenes, rated, funnel, mine)
    fewer = ceil(0.75 * arguments.edits)
    spared = arguments.edits - fewer
    rated, funnel, mine = first(fewer)
    _note(arms, f"{fewer} proposals", scenes, rated, funnel, mine)
    for parents in ("learnable", "hardest", "lagging"):
        settings = MutationSettings(
            parents=parents, generations=arguments.generations, share=1 / arguments.generations, children=spared
        )
        evolved = evolve(rated, mine, settings, _always(editor), defender)
        everything, whole = [*rated, *evolved.children], join_funnels([funnel, evolved.funnel])
        _note(arms, f"{fewer} proposals and mutations, {parents}", scenes, everything, whole, mine, evolved)


def _always(editor: Attacker) -> Callable[[int], Attacker]:
    return lambda _: editor


def _note(
    arms: dict[str, Arm],
    name: str,
    scenes: Sequence[str],
    rated: Sequence[RatedEdit],
    funnel: Funnel,
    config: CurateConfig,
    evolved: Evolved | None = None,
) -> None:
    arm = arms.setdefault(name, Arm(name, [], [], []))
    best = dict.fromkeys(scenes, 0.0)
    for one in rated:
        best[one.scene] = max(best[one.scene], one.learnability)
    arm.best.extend(best.values())
    arm.taught.append((funnel, choose_learnable(rated, funnel, config, config.learnability or LearnabilitySettings())))
    arm.evolved.extend([evolved] if evolved is not None else [])


def report(arguments: argparse.Namespace, arms: Sequence[Arm]) -> str:
    """The tables, in Markdown."""
    seeds = " ".join(map(str, arguments.seeds))
    sets = "".join(f" --set {override}" for override in arguments.overrides)
    lines = [
        f"`python benchmarks/mutation.py {arguments.config} --scenes {arguments.scenes} --edits {arguments.edits} "
        f"--generations {arguments.generations} --seeds {seeds}{sets}` at {git_commit()[:12]}: {len(arms[0].best)} "
        "scenes. Intervals are 95 % t intervals over scenes; differences are paired with the first arm.",
        "",
        "| arm | painted | valid | kept | of them mutated | learnability: kept | best of each scene | difference |",
        "|---" * 8 + "|",
    ]
    for arm in arms:
        kept = [one for _, taught in arm.taught for one in taught.kept]
        counts = [sum(funnel.edited for funnel, _ in arm.taught), sum(funnel.valid for funnel, _ in arm.taught)]
        counts += [len(kept), sum(one.generation > 0 for one in kept)]
        mean_kept = float(np.mean([one.learnability for one in kept]))
        difference = "" if arm is arms[0] else _interval(np.subtract(arm.best, arms[0].best))
        cells = [*map(str, counts), f"{mean_kept:.4f}", f"{np.mean(arm.best):.4f}", difference]
        lines.append(f"| {arm.name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| arm | generation | painted | valid | better than the parent | parents | children |",
        "|---" * 7 + "|",
    ]
    for arm in arms:
        for number in range(arguments.generations):
            made = [evolved.generations[number] for evolved in arm.evolved if number < len(evolved.generations)]
            if made:
                sums = [sum(getattr(one, name) for one in made) for name in ("edited", "valid", "better")]
                parents = np.mean([one.parents for one in made])
                children = np.mean([one.children for one in made if one.children is not None])
                cells = [str(number + 1), *map(str, sums), f"{parents:.4f}", f"{children:.4f}"]
                lines.append(f"| {arm.name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _interval(differences: np.ndarray) -> str:
    mean, n = float(differences.mean()), len(differences)
    half = float(student.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5)
    return f"{mean:+.4f} ({mean - half:+.4f}..{mean + half:+.4f})"


if __name__ == "__main__":
    main()
