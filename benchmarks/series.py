"""Does a series get anywhere? Editions of the tiny config: with and without replay, from the champion and the base.

    nice python benchmarks/series.py --seeds 0 1 --editions 6 --home .aot-bench --output docs/series

Arms, each a series with a book, a registry and a gate of its own:
- `champion`: an edition begins from the champion, a quarter of its lesson is replayed from the bank;
- `no_replay`: the same without replay; the bank is kept, and its suite asked, all the same;
- `base`: every edition begins from the base model and its warm start;
- `last`: an edition begins from the last one's Defender, promoted or not (only where `--arms` names it).
The arms of a seed draw the same scenes in the same edition, and an edition trains as long in every arm: equal cost, but
for the base's warm start.

Asked of every Defender, by the same noise: the fixed exam (the first edition's questions: clean, and with distractors),
and the union of the arms' regression suites as they are in the end, which no lesson of any arm may hold.

Stages lie in a store and editions in a book: killed and started again it goes on. `--table` writes what there is.
Writes OUTPUT.json, OUTPUT.png, and the table between two marks in OUTPUT.md.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import matplotlib.pyplot as plt

from aot_core.contracts.artifact import ArtifactRef, StageName
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.evaluate import CLEAN, ITEMS_FILE, REGRESSION_SUITE, EvaluateInputs
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.spec import Place
from aot_core.engine.identity import pin_model, stage_spec
from aot_core.engine.runner import execute, git_commit
from aot_core.evaluation.items import read_items
from aot_core.evaluation.regression_suite import suite_questions
from aot_core.evaluation.statistics import PairedDifference, holm, paired_difference
from aot_core.home import Home
from aot_core.series.book import Edition, SeriesBook
from aot_core.store import open_store

SERIES = "bench"
ARMS: dict[str, tuple[str, ...]] = {
    "champion": (),
    "no_replay": ("defender_round.replay_share=0",),
    "base": ("series.defender=base",),
    "last": ("series.defender=last",),
}
REDUCED = (
    f"series.name={SERIES}",
    "series.attacker=newest",
    "series.pool.rule=newest",
    "series.pool.count=1",
    "series.on_drift=ignore",
    "prepare_data.splits.warm_start=600",
    "prepare_data.splits.train=1200",
    "prepare_data.effectiveness.asked=60",
    "attacker_round.updates=4",
    "attacker_round.candidates=120",
    "attacker_round.probe=30",
    "curate.scenes=150",
    "defender_round.generations=16",
    "defender_round.learning_rate=5e-5",
    "defender_round.clean_share=0.5",
    "evaluate.limit=300",
    "promotion.gate.clean_margin=0.05",
)
"""What makes an edition of `configs/series.toml` one of two minutes. 300 questions cannot show a loss of less than the
gate's usual 2.5 points, whence the margin."""
_PER_ARM = ("edition", "promotion")
"""Folders of a store that each arm has for itself; all others are told by their contents, and shared."""
BEGIN, END = "<!-- benchmarks/series.py -->", "<!-- end -->"

Answers = dict[str, dict[str, bool]]
"""Exam (`clean`, `distractors`, `suite`) -> question -> right: every time it was asked, in all its edits."""


@dataclass
class Arm:
    """One series of one seed."""

    name: str
    config: CampaignConfig
    home: Home
    threads: int
    answers: dict[str, Answers] = field(default_factory=dict[str, Answers])
    """By the Defender's sha256."""

    @classmethod
    def of(cls, name: str, seed: int, arguments: argparse.Namespace, home: Home) -> "Arm":
        root = home.root / f"seed-{seed}"
        store = root / name
        store.mkdir(parents=True, exist_ok=True)
        for stage in (*get_args(StageName), *_PER_ARM):
            folder = (store if stage in _PER_ARM else root / "shared") / stage
            folder.mkdir(parents=True, exist_ok=True)
            if stage not in _PER_ARM and not (store / stage).exists():
                (store / stage).symlink_to(folder)
        told = [
            *REDUCED,
            *ARMS[name],
            *arguments.overrides,
            f"seed={seed}",
            f"run.threads={arguments.threads}",
            f"run.store={json.dumps(str(store))}",
            f"promotion.model=series-{name}-{seed}",
        ]
        return cls(name, load_campaign(arguments.config, told), home, arguments.threads)

    @property
    def editions(self) -> list[Edition]:
        """Those that have ended."""
        assert self.config.run.store is not None
        book = SeriesBook(open_store(self.config.run.store), SERIES)
        return [edition for edition in book.editions() if edition.end is not None]

    def play(self, number: int) -> None:
        """Run an edition to its end, unless it has ended."""
        if len(self.editions) >= number:
            return
        from flows.coevolution import coevolution
        from flows.sentences import value_of
        from flows.series import edition_of

        config = edition_of(self.config, self.home, str(number))
        value_of(coevolution(config, str(self.home.root), return_state=True))

    def defenders(self) -> list[tuple[ArtifactRef, ArtifactRef | None]]:
        """After each edition: the Defender that it trained, and the champion."""
        found: list[tuple[ArtifactRef, ArtifactRef | None]] = []
        champion: ArtifactRef | None = None
        for edition in self.editions:
            assert edition.end is not None and edition.end.defender is not None
            if edition.end.outcome.startswith("promoted"):
                champion = edition.end.defender
            found.append((edition.end.defender, champion))
        return found

    def ask(self, defender: ArtifactRef, banks: Sequence[ArtifactRef]) -> None:
        """Let a Defender sit the fixed exam, and the suites of these banks."""
        exam = self.editions[0].end
        assert exam is not None and exam.dataset is not None
        base = pin_model(self.config.models.defender)
        common: dict[str, Any] = {"dataset": exam.dataset, "defender": defender, "defender_base": base}
        exams = [EvaluateInputs(**common)]
        exams += [EvaluateInputs(**common, families=False, bank=bank) for bank in banks]
        answers: Answers = {CLEAN: {}, "distractors": {}, "suite": {}}
        for inputs in exams:
            for item, question in self._items(inputs):
                kind = {CLEAN: CLEAN, REGRESSION_SUITE: "suite"}.get(item.condition, "distractors")
                known = answers[kind].get(question, True)
                answers[kind][question] = known and item.strict
        self.answers[defender.sha256] = answers

    def _items(self, inputs: EvaluateInputs) -> Iterator[tuple[Any, str]]:
        assert self.config.run.store is not None
        store = open_store(self.config.run.store)
        config = self.config.stage_config("evaluate", of_series=True)
        if inputs.bank:  # whose suite is asked whole, whatever the limit
            config = config.model_copy(update={"limit": 1})
        place = Place(store=self.config.run.store, device=self.config.run.device, threads=self.threads)
        record = execute(stage_spec("evaluate", config, inputs, place)).record
        assert record is not None, "execute returns a record or raises"
        questions = suite_questions(store.fetch(inputs.bank)) if inputs.bank else {}
        for item in read_items(store.fetch(record.artifact) / ITEMS_FILE, REGRESSION_SUITE if inputs.bank else None):
            yield item, questions.get(item.sample_id, item.item_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/series.toml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--editions", type=int, default=6)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS)[:3])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--home", type=Path, default=Path(".aot-bench"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("docs/series"))
    parser.add_argument("--table", action="store_true", help="Run no edition: write the table of those that there are.")
    arguments = parser.parse_args()
    home = Home(arguments.home.resolve())
    home.create()
    os.environ.update(home.environment())  # before Prefect is imported
    from flows.own_server import keep_own_server

    keep_own_server()
    seeds = [[Arm.of(name, seed, arguments, home) for name in arguments.arms] for seed in arguments.seeds]
    if not arguments.table:
        for arms in seeds:
            for number in range(1, arguments.editions + 1):
                for arm in arms:
                    arm.play(number)
    # Editions that every arm of every seed has: what is compared is then equally long.
    common = min(len(arm.editions) for arms in seeds for arm in arms)
    if common == 0:
        raise SystemExit("no edition has ended in every arm yet; run without --table")
    for arms in seeds:
        banks = [bank for arm in arms if (end := arm.editions[common - 1].end) and (bank := end.bank)]
        banks = list({bank.sha256: bank for bank in banks}.values())
        for arm in arms:
            for defender in {one.sha256: one for pair in arm.defenders()[:common] for one in pair if one}.values():
                arm.ask(defender, banks)
    told = results(seeds, common)
    write(arguments, told)


def results(seeds: Sequence[Sequence[Arm]], editions: int) -> dict[str, Any]:
    """All figures: shares by arm, exam and edition, a value a seed; steps of the champions; arms against each other."""
    shares: dict[str, dict[str, dict[str, list[list[float | None]]]]] = {}
    steps: list[dict[str, Any]] = []
    for arms in seeds:
        for arm in arms:
            pairs = arm.defenders()[:editions]
            for who, chosen in (("newest", [new for new, _ in pairs]), ("champion", [lead for _, lead in pairs])):
                for exam in (CLEAN, "distractors", "suite"):
                    line = [_share(arm.answers[ref.sha256][exam]) if ref else None for ref in chosen]
                    shares.setdefault(arm.name, {}).setdefault(who, {}).setdefault(exam, []).append(line)
            steps += _steps(arm, [lead for _, lead in pairs])
    promoted = {
        arm.name: [sum(a.editions[k].end.outcome.startswith("promoted") for k in range(editions)) for a in column]  # pyright: ignore[reportOptionalMemberAccess]
        for arm, column in zip(seeds[0], zip(*seeds, strict=True), strict=True)
    }
    suites = [len(arms[0].answers[arms[0].defenders()[0][0].sha256]["suite"]) for arms in seeds]
    return {
        "commit": git_commit()[:12],
        "seeds": [arms[0].config.seed for arms in seeds],
        "editions": editions,
        "suite_questions": suites,
        "shares": shares,
        "steps": _corrected(steps),
        "against": [*_gained(seeds, editions), *_against(seeds, editions)],
        "promoted": promoted,
    }


def _steps(arm: Arm, champions: Sequence[ArtifactRef | None]) -> list[dict[str, Any]]:
    """Every change of an arm's champion, paired over the questions of each exam."""
    found: list[dict[str, Any]] = []
    for k in range(1, len(champions)):
        before, after = champions[k - 1], champions[k]
        if before is None or after is None or before == after:
            continue
        for exam in (CLEAN, "distractors", "suite"):
            told = _compare([(arm.answers[before.sha256][exam], arm.answers[after.sha256][exam])])
            if told is not None:
                step = {"arm": arm.name, "seed": arm.config.seed, "edition": k + 1, "exam": exam}
                found.append({**step, **told._asdict()})
    return found


def _corrected(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    adjusted = holm({str(i): step["p_value"] for i, step in enumerate(steps)})
    return [{**step, "p_adjusted": adjusted[str(i)]} for i, step in enumerate(steps)]


def _gained(seeds: Sequence[Sequence[Arm]], editions: int) -> list[dict[str, Any]]:
    """Every arm's last Defender less the first edition's, paired over all questions of all seeds."""
    found: list[dict[str, Any]] = []
    for column in zip(*seeds, strict=True):
        for exam in (CLEAN, "distractors", "suite"):
            ends = [(arm, arm.defenders()[0][0], arm.defenders()[editions - 1][0]) for arm in column]
            pairs = [(arm.answers[one.sha256][exam], arm.answers[two.sha256][exam]) for arm, one, two in ends]
            if (told := _compare(pairs)) is not None:
                who = f"{column[0].name}, newest"
                found.append({"against": "edition 1", "who": who, "exam": exam, "seeds": len(pairs), **told._asdict()})
    return found


def _against(seeds: Sequence[Sequence[Arm]], editions: int) -> list[dict[str, Any]]:
    """The last Defender of `champion` less that of every other arm, paired over all questions of all seeds."""
    found: list[dict[str, Any]] = []
    for name in (arm.name for arm in seeds[0] if arm.name != "champion"):
        for who, index in (("newest", 0), ("champion", 1)):
            for exam in (CLEAN, "distractors", "suite"):
                pairs: list[tuple[Mapping[str, bool], Mapping[str, bool]]] = []
                for arms in seeds:
                    by_name = {arm.name: arm for arm in arms}
                    if "champion" not in by_name:
                        continue
                    mine, its = (by_name[one].defenders()[editions - 1][index] for one in ("champion", name))
                    if mine and its:
                        pairs.append(
                            (by_name[name].answers[its.sha256][exam], by_name["champion"].answers[mine.sha256][exam])
                        )
                if (told := _compare(pairs)) is not None:
                    found.append(
                        {
                            "against": name,
                            "who": f"champion, {who}",
                            "exam": exam,
                            "seeds": len(pairs),
                            **told._asdict(),
                        }
                    )
    return found


def _compare(pairs: Sequence[tuple[Mapping[str, bool], Mapping[str, bool]]]) -> PairedDifference | None:
    """Second less first over all pairs of answers; None where no question was asked."""
    both = [(first[key], second[key]) for first, second in pairs for key in first]
    return paired_difference([a for a, _ in both], [b for _, b in both]) if both else None


def _share(answers: Mapping[str, bool]) -> float | None:
    return sum(answers.values()) / len(answers) if answers else None


def write(arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    """JSON, figure, and the table inside the page."""
    output: Path = arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
    draw(output.with_suffix(".png"), told)
    table = "\n".join(_table(told, arguments))
    page = output.with_suffix(".md")
    text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    head, _, rest = text.partition(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")
    print(table)


def _table(told: dict[str, Any], arguments: argparse.Namespace) -> Iterator[str]:
    seeds, editions = told["seeds"], told["editions"]
    yield (
        f"`python benchmarks/series.py --seeds {' '.join(map(str, seeds))} --editions {editions}"
        + "".join(f" --set {override}" for override in arguments.overrides)
        + f"` at {told['commit']}: {len(seeds)} seed{'s' * (len(seeds) > 1)}, "
        f"{editions} editions. Strict accuracy in %, mean over seeds; "
        f"suite: the union of the arms' last regression suites, n = {', '.join(map(str, told['suite_questions']))}."
    )
    yield ""
    yield "| arm | Defender | test set | " + " | ".join(f"edition {k}" for k in range(1, editions + 1)) + " |"
    yield "|---" * (editions + 3) + "|"
    for arm, by_who in told["shares"].items():
        for who, by_exam in by_who.items():
            for exam, lines in by_exam.items():
                yield (
                    f"| {arm} | {who} | {exam} | "
                    + " | ".join(_cell(column) for column in zip(*lines, strict=True))
                    + " |"
                )
    yield ""
    falls = [step for step in told["steps"] if step["difference"] < 0 and step["p_adjusted"] <= 0.05]
    worst = min(told["steps"], key=lambda step: step["difference"], default=None)
    if worst is None:
        yield "The champion was never replaced."
    else:
        yield (
            f"Changes of champion, each on three exams: {len(told['steps'])} paired tests, {len(falls)} significant "
            f"falls (McNemar, Holm, 5 %); the largest fall: {_difference(worst)} ({worst['arm']}, "
            f"seed {worst['seed']}, edition {worst['edition']}, {worst['exam']})."
        )
    yield ""
    yield f"Edition {editions}: the Defender minus the one under 'against', in points (95 % interval, McNemar's p):"
    yield ""
    yield "| Defender | against | clean | distractors | suite |"
    yield "|---|---|---|---|---|"
    rows = dict.fromkeys((line["against"], line["who"]) for line in told["against"])
    for against, who in rows:
        cells = {
            line["exam"]: f"{_difference(line)}, n {line['n']}"
            for line in told["against"]
            if (line["against"], line["who"]) == (against, who)
        }
        yield (
            f"| {who} | {against} | "
            + " | ".join(cells.get(exam, "") for exam in (CLEAN, "distractors", "suite"))
            + " |"
        )
    yield ""
    promoted = ", ".join(f"{arm} {' and '.join(map(str, counts))}" for arm, counts in told["promoted"].items())
    yield f"Promotions a seed: {promoted}."


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return (
        f"{100 * mean(known):.1f}" + ("" if len(known) == len(values) else f" (n = {len(known)})") if known else "none"
    )


def _difference(line: Mapping[str, Any]) -> str:
    low, high = 100 * line["low"], 100 * line["high"]
    return f"{100 * line['difference']:+.1f} ({low:+.1f}..{high:+.1f}), p {line['p_value']:.2g}"


def draw(path: Path, told: dict[str, Any]) -> None:
    """A panel an exam, a colour an arm: the champion solid, the newest Defender dotted; thin lines are the seeds."""
    exams = (CLEAN, "distractors", "suite")
    figure, axes = plt.subplots(1, len(exams), figsize=(3.9 * len(exams), 3.6))
    numbers = range(1, told["editions"] + 1)
    for axis, exam in zip(axes, exams, strict=True):
        for colour, (arm, by_who) in enumerate(told["shares"].items()):
            for who, style in (("champion", "-"), ("newest", ":")):
                lines = [[None if v is None else 100 * v for v in line] for line in by_who[who][exam]]
                means = [[v for v in column if v is not None] for column in zip(*lines, strict=True)]
                middle = [mean(column) if column else float("nan") for column in means]
                label = arm if who == "champion" else None
                axis.plot(numbers, middle, style, color=f"C{colour}", marker=".", label=label)
                if who == "champion":
                    for line in lines:
                        values = [float("nan") if v is None else v for v in line]
                        axis.plot(numbers, values, color=f"C{colour}", alpha=0.3, linewidth=0.8)
        axis.set(title={"suite": "regression suites"}.get(exam, f"fixed exam, {exam}"), xlabel="edition")
        axis.set_xticks(list(numbers))
    axes[0].set(ylabel="strict accuracy (%)")
    axes[-1].legend(
        title="champion solid,\nnewest dotted",
        fontsize=8,
        title_fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
