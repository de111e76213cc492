"""Does self-play make a Defender more robust than the same training without an opponent? Several seeds, one table.

    python benchmarks/coevolution.py configs/tiny.toml --seeds 0 1 2 3 4 --home .aot-bench --output docs/coevolution

Each seed: data, warm starts and N rounds as in a campaign (`aot_1` .. `aot_N`), and, with the same number of updates
on the same number of images of the same scenes and questions:
- `clean_rl`: the Defender trained on the clean scenes that each round's Attacker edited (the paper's ablation);
- `picture_rl`: trained on as many scenes drawn at random, their pictures augmented (`benchmarks/rivals.py`);
- `static_rl`: trained on the same random scenes, with up to as many objects of any colour and shape added;
- `oracle_rl`: trained on the scenes that self-play's curation kept, with distractors of the very family that the exam
  draws. It is told what misleads: oracle augmentation, no fair rival;
- `sft` (the warm start) and `base`.
Every Defender is asked the same questions: clean, with procedural distractors (one family that no training draws),
and under every round's Attacker, and the last Attacker of the next seed's campaign, which it never met.

Everything goes through the stages and their store: killed and started again it goes on, a seed more costs that seed.
Writes OUTPUT.md (means over seeds, t intervals, paired tests over all items), OUTPUT.json, OUTPUT.png and
OUTPUT-rounds.png (each Attacker against the Defender before and after it).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
from by_seed import Answers, cell, conditions_of, difference, keep, missing, of, strict_shares
from rivals import oracle_lessons, picture_lessons, static_lessons

from aot_core.contracts.artifact import ArtifactRef, StageName, StageRecord
from aot_core.contracts.attacker_round import AttackerRoundInputs
from aot_core.contracts.base import Frozen
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.curate import CurateInputs
from aot_core.contracts.defender_round import DefenderRoundInputs
from aot_core.contracts.evaluate import ITEMS_FILE, WORST_OF_N, EvaluateInputs, attacker_condition
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.prepare_data import PrepareDataInputs
from aot_core.contracts.spec import Place
from aot_core.contracts.warm_start_attacker import WarmStartAttackerInputs
from aot_core.contracts.warm_start_defender import WarmStartDefenderInputs
from aot_core.data.dataset import read_samples
from aot_core.engine.identity import pin_model, stage_spec
from aot_core.engine.runner import execute, git_commit
from aot_core.evaluation.items import Item, read_items
from aot_core.home import Home
from aot_core.store import Store, open_store


class Seed:
    """One seed's campaign and its baselines. Every artifact is found in the store or made."""

    def __init__(self, config: CampaignConfig, home: Home, threads: int) -> None:
        self.config = config
        self.place = Place(store=str(home.store), device=config.run.device, threads=threads)
        self.store: Store = open_store(str(home.store))
        self.bases = pin_model(config.models.attacker), pin_model(config.models.defender)
        self.seconds: dict[str, float] = {}
        self.lessons: dict[str, list[StageRecord]] = {}
        """The Defender's rounds by arm."""
        self.edits = 0
        """What the Attackers sampled in training."""

    def run(self, stage: StageName, inputs: Frozen, round_index: int = 0, config: Frozen | None = None) -> StageRecord:
        section = cast("Frozen", getattr(self.config, stage)) if config is None else config
        seeded = self.config.seeded(section, 0 if stage == "evaluate" else round_index)
        print(f"seed {self.config.seed} round {round_index} {stage}", flush=True)
        record = execute(stage_spec(stage, seeded, inputs, self.place)).record
        assert record is not None, "execute returns a record or raises"
        self.seconds[stage] = self.seconds.get(stage, 0.0) + record.seconds
        return record

    def play(self) -> tuple[dict[str, ArtifactRef | None], list[ArtifactRef]]:
        """The Defenders by name (None: the base itself), and the Attackers of all rounds."""
        editor, model = self.bases
        judge = model if self.config.prepare_data.effectiveness.enabled else None
        self.data = self.run("prepare_data", PrepareDataInputs(source=None, defender=judge)).artifact
        self.start = self.run("warm_start_attacker", WarmStartAttackerInputs(dataset=self.data, base=editor)).artifact
        attacker = self.start
        warm = self.run("warm_start_defender", WarmStartDefenderInputs(dataset=self.data, base=model)).artifact
        players: dict[str, ArtifactRef | None] = {"base": None, "sft": warm}
        attackers: list[ArtifactRef] = []
        earlier: list[ArtifactRef] = []
        pool: list[StageRecord] = []
        defender = clean = static = pictures = oracle = warm
        for k in range(1, self.config.rounds + 1):
            match = {"dataset": self.data, "defender": defender, "attacker_base": editor, "defender_base": model}
            begins = self.start if self.config.attacker_rounds == "fresh" else attacker
            pool.append(self.run("attacker_round", AttackerRoundInputs(attacker=begins, **match), k))
            self.edits += int(pool[-1].outputs["edits"])
            attacker = pool[-1].artifact
            attackers.append(attacker)
            fresh = CurateInputs(attacker=attacker, **match)
            if self.config.curate.draw != "newest":
                ended = tuple(float(record.outputs["success_after"]) for record in pool)
                fresh = fresh.model_copy(update={"pool": tuple(attackers[:-1]), "successes": ended})
            if self.config.curate.replay is not None:
                fresh = fresh.model_copy(update={"earlier": tuple(earlier)})
            curated = self.run("curate", fresh, k).artifact
            earlier.append(curated)
            count, drawn = len(read_samples(self.store.fetch(curated))), 1000 * self.config.seed + k
            ablation = self.config.defender_round.model_copy(update={"clean_share": 1.0})
            defender = self.teach("aot", curated, defender, k)
            clean = self.teach("clean_rl", curated, clean, k, ablation)
            pictures = self.teach("picture_rl", picture_lessons(self.store, self.data, count, drawn), pictures, k)
            static = self.teach("static_rl", static_lessons(self.store, self.data, count, drawn), static, k)
            oracle = self.teach("oracle_rl", oracle_lessons(self.store, curated), oracle, k)
            players |= {"clean_rl": clean, "picture_rl": pictures, "static_rl": static, "oracle_rl": oracle}
            players[f"aot_{k}"] = defender
        return players, attackers

    def teach(
        self, arm: str, lessons: ArtifactRef, defender: ArtifactRef, k: int, config: Frozen | None = None
    ) -> ArtifactRef:
        inputs = DefenderRoundInputs(curated=lessons, defender=defender, base=self.bases[1])
        record = self.run("defender_round", inputs, k, config)
        self.lessons.setdefault(arm, []).append(record)
        return record.artifact

    def examine(self, defender: ArtifactRef | None, attackers: Sequence[ArtifactRef]) -> list[Item]:
        inputs = EvaluateInputs(
            dataset=self.data,
            defender=defender,
            defender_base=self.bases[1],
            attacker_base=self.bases[0],
            attackers=tuple(attackers),
        )
        return read_items(self.store.fetch(self.run("evaluate", inputs).artifact) / ITEMS_FILE)


Shares = dict[str, dict[str, dict[int, float]]]
"""Defender -> condition -> seed -> strict accuracy."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--home", type=Path, default=Path(".aot-bench"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("docs/coevolution"))
    arguments = parser.parse_args()
    home = Home(arguments.home.resolve())
    seeds = [
        Seed(load_campaign(arguments.config, [*arguments.overrides, f"seed={seed}"]), home, arguments.threads)
        for seed in arguments.seeds
    ]
    played = [seed.play() for seed in seeds]
    strangers = [played[(index + 1) % len(played)][1][-1:] if len(played) > 1 else [] for index in range(len(played))]
    answers: Answers = {}
    for seed, (players, attackers), stranger in zip(seeds, played, strangers, strict=True):
        for player, defender in players.items():
            keep(answers, player, seed.config.seed, seed.examine(defender, [*attackers, *stranger]))
    rounds = seeds[0].config.rounds
    seconds = {name: mean(s.seconds[name] for s in seeds) for name in seeds[0].seconds}
    defenders = {name: [ref.uri if (ref := players[name]) else "" for players, _ in played] for name in played[0][0]}
    write(arguments, answers, rounds, [*costs(seeds), "", seconds_told(seconds)], defenders)


def write(
    arguments: argparse.Namespace,
    answers: Answers,
    rounds: int,
    costs: Sequence[str],
    defenders: dict[str, list[str]],
) -> None:
    players = [
        "base",
        "sft",
        "clean_rl",
        "picture_rl",
        "static_rl",
        "oracle_rl",
        *(f"aot_{k}" for k in range(1, rounds + 1)),
    ]
    conditions = conditions_of(answers)
    shares: Shares = {p: {c: strict_shares(of(answers, p, c)) for c in conditions} for p in players}
    titles = {attacker_condition(k): f"Attacker {k}" for k in range(1, rounds + 1)}
    titles |= {attacker_condition(rounds + 1): "another seed's Attacker", WORST_OF_N: "worst of n"}
    lines = [
        f"`python benchmarks/coevolution.py {arguments.config} --seeds {' '.join(map(str, arguments.seeds))}"
        + "".join(f" --set {override}" for override in arguments.overrides)
        + f"` at {git_commit()[:12]}. Strict accuracy in %, mean over {len(arguments.seeds)} seeds "
        "(95 % t interval of the mean); every seed asks the same questions of every Defender.",
        "",
        "| Defender | " + " | ".join(titles.get(c, c) for c in conditions) + " |",
        "|---" * (len(conditions) + 1) + "|",
        *(f"| {p} | " + " | ".join(cell([*shares[p][c].values()]) for c in conditions) + " |" for p in players),
        *missing(answers, arguments.seeds, titles),
        "",
        f"Paired over all items of all seeds: aot_{rounds} minus the other Defender, in points "
        "(95 % interval, McNemar's p):",
        "",
        "| against | " + " | ".join(titles.get(c, c) for c in conditions) + " |",
        "|---" * (len(conditions) + 1) + "|",
    ]
    last = f"aot_{rounds}"
    lines += [
        f"| {p} | " + " | ".join(difference(of(answers, p, c), of(answers, last, c)) for c in conditions) + " |"
        for p in players
        if p != last
    ]
    lines += [
        "",
        "Self-play: each Attacker against the Defender it was trained against, and against the Defender trained on "
        "its edits.",
        "",
        "| Attacker | Defender before | after | gain (95 % interval, McNemar's p) |",
        "|---|---|---|---|",
        *(_match(k, shares, answers) for k in range(1, rounds + 1)),
    ]
    lines += ["", *costs, ""]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".md").write_text("\n".join(lines))
    by_seed = {p: {c: [shares[p][c].get(n) for n in arguments.seeds] for c in conditions} for p in players}
    told = {"strict": by_seed, "defenders": defenders}
    arguments.output.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
    draw(arguments.output.with_suffix(".png"), shares, players, conditions, titles)
    matches = arguments.output.with_name(f"{arguments.output.name}-rounds.png")
    draw_matches(matches, shares, rounds, arguments.seeds)
    print("\n".join(lines))


def costs(seeds: Sequence[Seed]) -> list[str]:
    """What each arm's Defender was trained with, and the Attackers' cost apart."""
    lines = [
        "Means a seed, all rounds together:",
        "",
        "| arm | updates | answers' tokens | different prompts | groups flat |",
    ]
    lines.append("|---" * 5 + "|")
    for arm in seeds[0].lessons:
        told = [[record.outputs for record in seed.lessons[arm]] for seed in seeds]
        sums = [
            f"{mean(sum(o[name] for o in of_seed) for of_seed in told):.0f}"
            for name in ("updates", "generated_tokens", "prompts")
        ]
        flat = mean(o["flat_groups"] for of_seed in told for o in of_seed)
        lines.append(f"| {arm} | " + " | ".join(sums) + f" | {100 * flat:.0f} % |")
    edits = mean(seed.edits for seed in seeds)
    apart = mean(seed.seconds["attacker_round"] + seed.seconds["curate"] for seed in seeds)
    lines += [
        "",
        f"Self-play alone pays for Attackers: {edits:.0f} edits in training, {apart:.0f} seconds with curation.",
    ]
    return lines


def seconds_told(seconds: dict[str, float]) -> str:
    arms = " ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    return f"Seconds per seed, all Defenders together: {arms}."


def draw(
    path: Path,
    shares: Shares,
    players: list[str],
    conditions: list[str],
    titles: dict[str, str],
) -> None:
    """A panel a condition, a point a seed, a bar their mean."""
    figure, axes = plt.subplots(1, len(conditions), figsize=(2.1 * len(conditions), 3.8), sharey=True)
    for axis, condition in zip(axes, conditions, strict=True):
        for x, player in enumerate(players):
            values = [100 * value for value in shares[player][condition].values()]
            if values:
                axis.bar(x, mean(values), color="C0" if player.startswith("aot") else "0.75")
                axis.plot([x] * len(values), values, "k.", markersize=4)
        axis.set_title(titles.get(condition, condition), fontsize=9)
        axis.set_xticks(range(len(players)), players, rotation=90, fontsize=8)
    lowest = min(value for by in shares.values() for values in by.values() for value in values.values())
    axes[0].set(ylim=(max(0, 100 * lowest - 10), 100), ylabel="strict accuracy (%)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def draw_matches(path: Path, shares: Shares, rounds: int, seeds: Sequence[int]) -> None:
    """The saw of self-play: each Attacker against the Defender before and after it; a line a seed, and their mean."""
    steps = [(f"Attacker {k}\n{when}", _defender(k - after), k) for k in range(1, rounds + 1) for after, when in PHASES]
    met = [shares[player].get(attacker_condition(k), {}) for _, player, k in steps]
    by_seed = np.array([[100 * found.get(seed, np.nan) for seed in seeds] for found in met])
    figure, axis = plt.subplots(figsize=(1.3 * len(steps) + 1, 3.6))
    axis.plot(by_seed, color="0.75", linewidth=1)
    means = [mean(found.values()) * 100 if found else np.nan for found in met]
    axis.plot(means, "C0o-", label=f"mean of {by_seed.shape[1]} seeds")
    axis.set_xticks(range(len(steps)), [name for name, _, _ in steps], fontsize=8)
    axis.set(ylabel="strict accuracy (%)")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


PHASES = ((1, "before"), (0, "after"))
"""How many rounds behind its Attacker a Defender is, and what that is called."""


def _defender(rounds: int) -> str:
    return f"aot_{rounds}" if rounds else "sft"


def _match(k: int, shares: Shares, answers: Answers) -> str:
    before, after, condition = _defender(k - 1), _defender(k), attacker_condition(k)
    cells = [cell([*shares[player].get(condition, {}).values()]) for player in (before, after)]
    gain = difference(of(answers, before, condition), of(answers, after, condition))
    return f"| {k} | {cells[0]} | {cells[1]} | {gain} |"


if __name__ == "__main__":
    main()
