"""The body of `aot compare`: two campaigns' last Defenders, side by side.

summaries --what differs--> config, data          last evaluations --paired by question--> differences in points
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aot_core.commands.status import read_summaries
from aot_core.contracts.artifact import StageRecord
from aot_core.contracts.evaluate import CLEAN, ITEMS_FILE, by_attacker
from aot_core.contracts.summary import CampaignSummary
from aot_core.contracts.terminal import console, print_json, say, table, when
from aot_core.evaluation.headline import spoken
from aot_core.evaluation.items import Item, read_items
from aot_core.evaluation.statistics import paired_difference, proportion
from aot_core.home import Home
from aot_core.store.protocol import Store


@dataclass(frozen=True)
class Row:
    """A figure of both; shares 0..1, differences second minus first."""

    name: str
    first: float
    second: float
    n: tuple[int, int]
    """Questions asked of each."""
    paired: int
    """Questions that both were asked; 0 where they share none, and nothing is tested."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval of the paired difference."""
    p_value: float | None = None

    @property
    def difference(self) -> float:
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """Two campaigns."""

    campaigns: tuple[str, str]
    config: dict[str, tuple[Any, Any]]
    """Dotted name to both values, where they differ."""
    data: tuple[str, str]
    """sha256 of the data sets."""
    figures: tuple[Row, ...]
    kinds: tuple[Row, ...]
    """By kind of question, over the clean scenes and the procedural distractors."""


def compare_campaigns(home: Home, store: Store, first: str, second: str) -> Comparison:
    """Compare two campaigns of a home.

    Args:
        first, second: a name, or the first digits of a key.

    Raises ValueError where there is no such campaign, several, or one without an evaluation; StoreError where the
    answers are no longer in the store.
    """
    pair = tuple(_find(home, asked) for asked in (first, second))
    records = tuple(_last_evaluation(summary) for summary in pair)
    items = tuple(_by_condition(read_items(store.fetch(record.artifact) / ITEMS_FILE)) for record in records)
    common = [name for name in items[0] if name in items[1] and not _other_attacker(name, records)]
    plain = [name for name in common if not by_attacker(name)]
    asked = [{item.kind for name in plain for item in side[name]} for side in items]
    kinds = sorted(asked[0] & asked[1])
    return Comparison(
        campaigns=(_named(pair[0]), _named(pair[1])),
        config=differing(pair[0].config, pair[1].config),
        data=(str(records[0].identity.inputs["dataset"]), str(records[1].identity.inputs["dataset"])),
        figures=tuple(compare_items(spoken(name), items[0][name], items[1][name]) for name in common),
        kinds=tuple(
            compare_items(kind, _of_kind(items[0], plain, kind), _of_kind(items[1], plain, kind)) for kind in kinds
        ),
    )


def compare_items(name: str, first: Sequence[Item], second: Sequence[Item]) -> Row:
    """Two groups of answered questions; tested on those that both hold. Raises ValueError for an empty group."""
    before, after = ({(item.condition, item.item_id): item.strict for item in group} for group in (first, second))
    shared = [key for key in before if key in after]
    shares = [proportion([item.strict for item in group]).value for group in (first, second)]
    counts = (len(first), len(second))
    if not shared:
        return Row(name, shares[0], shares[1], counts, 0)
    found = paired_difference([before[key] for key in shared], [after[key] for key in shared])
    return Row(name, shares[0], shares[1], counts, len(shared), found.low, found.high, found.p_value)


def differing(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted name to both values, where two nested mappings differ; None stands for what one of them lacks."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*first, *second]):
        one, other = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found |= differing(one, other, f"{prefix}{key}.")
        elif one != other:
            found[prefix + key] = (one, other)
    return found


def print_comparison(found: Comparison, *, as_json: bool) -> None:
    """Print it as tables, or whole as JSON."""
    if as_json:
        told = asdict(found)
        for name in ("figures", "kinds"):
            told[name] = [asdict(row) | {"difference": row.difference} for row in getattr(found, name)]
        print_json(told)
        return
    for number, name in enumerate(found.campaigns, start=1):
        say(f"{number}  {name}")
    same = found.data[0] == found.data[1]
    say(f"data: {'the same' if same else f'{found.data[0][:12]} and {found.data[1][:12]}'}")
    if found.config:
        config = table("config", "field", "1", "2")
        for name, (one, other) in found.config.items():
            config.add_row(name, _short(one), _short(other))
        console().print(config)
    else:
        say("config: the same")
    for title, rows in (
        ("strict accuracy in %", found.figures),
        ("by kind of question, without Attackers", found.kinds),
    ):
        figures = table(
            title, "", "1", "2", "points", "95 %", "paired n", "p", right=("1", "2", "points", "95 %", "paired n", "p")
        )
        for row in rows:
            interval = "" if row.low is None or row.high is None else f"{100 * row.low:+.1f}..{100 * row.high:+.1f}"
            p_value = "" if row.p_value is None else f"{row.p_value:.2g}"
            figures.add_row(
                row.name, f"{100 * row.first:.1f}", f"{100 * row.second:.1f}", f"{100 * row.difference:+.1f}", interval,
                str(row.paired or "none"), p_value,
            )  # fmt: skip
        console().print(figures)


def _short(value: Any) -> str:
    """A value as the table shows it: references by the first digits of their hash."""
    if isinstance(value, Mapping) and "sha256" in value:
        return str(value["sha256"])[:12]
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value) or "none"
    text = "none" if value is None else str(value)
    return f"{text[:-52]}" if text.startswith("aot://") else text


def _find(home: Home, asked: str) -> CampaignSummary:
    summaries, _ = read_summaries(home)
    found = [summary for summary in summaries if summary.key.startswith(asked)] or [
        summary for summary in summaries if summary.name == asked
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(_named(summary) for summary in found or summaries) or "none"
    trouble = "names several campaigns, give the key's first digits" if found else "is no campaign of this home"
    raise ValueError(f"campaign {asked!r} {trouble}; there are: {known}")


def _named(summary: CampaignSummary) -> str:
    return f"{summary.name} {summary.key[:12]} ({when(summary.started_at)})"


def _last_evaluation(summary: CampaignSummary) -> StageRecord:
    """The exam that the last Defender sat, with the clean scenes in it: matches of cross-play hold fewer conditions."""
    exams = [s for s in summary.steps if s.record.stage == "evaluate" and len(s.record.outputs["strict"]) > 1]
    if not exams:
        raise ValueError(f"{_named(summary)} has not been evaluated; run it to its end")
    last = max(step.round for step in exams)
    return max((s.record for s in exams if s.round == last), key=lambda record: len(record.outputs["strict"]))


def _by_condition(items: Sequence[Item]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {CLEAN: []}
    for item in items:
        groups.setdefault(item.condition, []).append(item)
    return {name: group for name, group in groups.items() if group}


def _other_attacker(condition: str, records: Sequence[StageRecord]) -> bool:
    """Whether a condition of both is another Attacker's in each."""
    if not by_attacker(condition):
        return False
    field = "attackers" if condition.startswith("attacker_") else "adversaries"
    number = int(condition.rpartition("_")[2]) - 1
    met = [record.identity.inputs.get(field) or [] for record in records]
    first, second = (list(one)[number : number + 1] for one in met)
    return first != second


def _of_kind(items: Mapping[str, Sequence[Item]], conditions: Sequence[str], kind: str) -> list[Item]:
    return [item for name in conditions for item in items[name] if item.kind == kind]
