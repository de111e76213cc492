"""Asking: a condition's questions and pictures in, an answered item each out, kept as Parquet.

An item is identified by its question and scene (`item_id`), the same in every condition and for every Defender: two
files can be paired, question by question, long after the models that made them are gone.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL.Image import Image
from tqdm import tqdm

from aot_core.answers import letter_of
from aot_core.contracts.protocols import Answerer, is_cut_off
from aot_core.contracts.scene import DistractorFamily, Edit, Sample

_CHUNK = 64
"""Questions passed to the Defender at once: it bounds the pictures in memory, whatever the data set's size."""

SCHEMA = pa.schema(
    [
        ("condition", pa.string()),
        ("item_id", pa.string()),
        ("sample_id", pa.string()),
        ("kind", pa.string()),
        ("answer", pa.string()),
        ("letters", pa.list_(pa.string())),
        ("correct", pa.list_(pa.bool_())),
        ("strict", pa.bool_()),
        ("options", pa.list_(pa.string())),
        ("edit", pa.string()),
        ("cut_off", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Condition:
    """Questions, and the pictures that they are asked about."""

    name: str
    samples: Sequence[Sample]
    picture: Callable[[Sample], Image]
    """Opens a sample's picture as it is in this condition."""
    captions: Mapping[str, str] = field(default_factory=dict)
    """What was done to the picture, by sample_id."""
    edits: Mapping[str, str] = field(default_factory=dict)
    """The kind of what was done, by sample_id (`edit_kind`)."""


@dataclass(frozen=True)
class Item:
    """A question, asked k times."""

    condition: str
    item_id: str
    sample_id: str
    kind: str
    answer: str
    letters: tuple[str | None, ...]
    """What was answered, None where a completion names no option."""
    options: tuple[str, ...] = ()
    """The options' texts, A first; empty where they are of no further use."""
    edit: str = ""
    """The kind of edit that the picture has seen (`edit_kind`); empty where it saw none."""
    cut_off: int = 0
    """How many of the k completions the limit on new tokens cut off; their letters are None."""

    @property
    def correct(self) -> tuple[bool, ...]:
        return tuple(letter == self.answer for letter in self.letters)

    @property
    def strict(self) -> bool:
        """Whether all k answers are right."""
        return all(self.correct)


def item_id(sample: Sample) -> str:
    """16 hex digits that identify a question about a scene, however the scene is edited."""
    return hashlib.sha256(f"{sample.scene.scene_id}\n{sample.question.prompt}".encode()).hexdigest()[:16]


def edit_kind(edits: Iterable[Edit]) -> str:
    """The kinds of a picture's edits, each once: "add", "remove and replace"."""
    return " and ".join(sorted({edit.kind for edit in edits}))


def clean_samples(samples: Iterable[Sample]) -> list[Sample]:
    """Every question once, in order; a sample that is clean itself is taken rather than a pair's clean
    half."""
    chosen: dict[str, Sample] = {}
    for sample in samples:
        known = chosen.get(item_id(sample))
        if known is None or (known.edited_image is not None and sample.edited_image is None):
            chosen[item_id(sample)] = sample
    return list(chosen.values())


def family_samples(samples: Iterable[Sample], family: DistractorFamily) -> list[Sample]:
    """The pairs whose edits all belong to a family."""
    pairs = [sample for sample in samples if sample.edited_image is not None and sample.edits]
    return [sample for sample in pairs if {edit.family for edit in sample.edits} == {family}]


def choose(samples: Sequence[Sample], limit: int | None, seed: int) -> list[Sample]:
    """At most `limit` samples, in order. The choice goes by `item_id`, so conditions share their
    questions."""
    if limit is None or len(samples) <= limit:
        return list(samples)
    drawn = sorted(samples, key=lambda s: hashlib.sha256(f"{seed}:{item_id(s)}".encode()).digest())[:limit]
    kept = {sample.sample_id for sample in drawn}
    return [sample for sample in samples if sample.sample_id in kept]


def ask(defender: Answerer, condition: Condition, *, samples: int, temperature: float, seed: int) -> list[Item]:
    """Ask every question of a condition `samples` times. Equal arguments give equal items."""
    items: list[Item] = []
    starts = range(0, len(condition.samples), _CHUNK)
    for first in tqdm(starts, desc=f"evaluate {condition.name}", unit="batch", disable=None):
        chunk = condition.samples[first : first + _CHUNK]
        completions = defender.answer(
            [condition.picture(sample) for sample in chunk],
            [sample.question for sample in chunk],
            samples=samples,
            temperature=temperature,
            seed=seed + first,
        )
        for sample, answers in zip(chunk, completions, strict=True):
            items.append(
                Item(
                    condition=condition.name,
                    item_id=item_id(sample),
                    sample_id=sample.sample_id,
                    kind=sample.question.query.kind,
                    answer=sample.question.answer,
                    letters=tuple(letter_of(answer, sample.question.options) for answer in answers),
                    options=sample.question.options,
                    edit=condition.edits.get(sample.sample_id, ""),
                    cut_off=sum(map(is_cut_off, answers)),
                )
            )
    return items


def write_items(path: Path, items: Sequence[Item]) -> None:
    """Write the items as Parquet, a row each (`SCHEMA`). Equal items give equal bytes."""
    rows = [{name: getattr(item, name) for name in SCHEMA.names} for item in items]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def read_items(path: Path, condition: str | None = None) -> list[Item]:
    """The items of a file, of one condition if given. Raises FileNotFoundError."""
    rows = pq.read_table(path).to_pylist()
    return [
        Item(
            **{name: row[name] for name in SCHEMA.names[:5]},
            letters=tuple(row["letters"]),
            options=tuple(row["options"]),
            edit=row.get("edit", ""),  # written by version 5 of `evaluate` and later
            cut_off=row.get("cut_off", 0),  # by version 6
        )
        for row in rows
        if condition is None or row["condition"] == condition
    ]


def paired(first: Sequence[Item], second: Sequence[Item]) -> tuple[list[bool], list[bool]]:
    """Strict correctness of the questions that both hold, in the first's order: for `paired_difference`.

    Raises ValueError where a list holds a question twice (give one condition at a time) or none is common.
    """
    maps = [{item.item_id: item.strict for item in items} for items in (first, second)]
    if len(maps[0]) != len(first) or len(maps[1]) != len(second):
        raise ValueError("a question appears twice in one list; give the items of one condition at a time")
    common = [key for key in maps[0] if key in maps[1]]
    if not common:
        raise ValueError("the two lists have no question in common; they come from different data sets")
    return [maps[0][key] for key in common], [maps[1][key] for key in common]
