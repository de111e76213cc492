"""The data card: what is in a data set, counted from its tables, for readers and for `datasets`.

    tables + funnel ----describe----> DataCard ----write_card----> README.md (its head names the splits), card.json

Counted as a stream, from what is on disk.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from aot_core.contracts.markdown import as_text
from aot_core.data.dataset import DATA, iter_rows, read_manifest, tables_of
from aot_core.worlds.images import DataError

CARD, CARD_JSON = "README.md", "card.json"


@dataclass(frozen=True)
class DataCard:
    """A data set in numbers. Every mapping is from a word to how many samples."""

    samples: int
    pairs: int
    sources: int
    """Source images used."""
    splits: dict[str, int]
    kinds: dict[str, int]
    """Of question."""
    families: dict[str, int]
    """Of the pairs' distractors."""
    edits: dict[str, int]
    """Pairs by what was done: add, remove, replace, or hybrid where a pair has edits of several kinds."""
    letters: dict[str, int]
    """Right answers, as "options/letter"."""
    licences: dict[str, int]
    """Of the source images, as their source says them."""
    asked: int
    """Pairs that the base Defender was asked about."""
    effective: int
    """Those of them that fooled it."""
    mean_ssim: float
    least_ssim: float
    manifest_sha256: str
    funnel: dict[str, int] = field(default_factory=dict)
    """`step/outcome` to how often it happened."""
    effective_by_kind: dict[str, str] = field(default_factory=dict)
    """Kind of question to "effective of asked", counted before the filter drops any."""
    growth: dict[str, int] = field(default_factory=dict)
    """Growing sources: what is new and what was taken from the previous data set. Left out of card.json elsewhere."""

    def as_json(self) -> dict[str, Any]:
        """`card.json`."""
        return {name: value for name, value in asdict(self).items() if name != "growth" or value}


def describe(folder: Path, manifest_sha256: str, funnel: dict[str, int] | None = None) -> DataCard:
    """Count a data set. Raises DataError where the folder holds none."""
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("splits", "kinds", "families", "edits", "letters", "licences")
    }
    sources: set[str] = set()
    asked = effective = pairs = 0
    total_ssim, least_ssim = 0.0, 1.0
    columns = ["split", "kind", "family", "edit_kinds", "options", "answer", "licence", "source_id", "ssim"]
    for rows in iter_rows(folder, [*columns, "clean_correct", "edited_correct"]):
        for row in rows:
            sources.add(row["source_id"])
            counts["splits"][row["split"]] += 1
            counts["kinds"][row["kind"]] += 1
            counts["letters"][f"{len(row['options'])}/{row['answer']}"] += 1
            counts["licences"][row["licence"] or "not said"] += 1
            if row["edit_kinds"]:
                pairs += 1
                counts["families"][row["family"]] += 1
                counts["edits"][edit_kind(row["edit_kinds"])] += 1
                total_ssim += row["ssim"]
                least_ssim = min(least_ssim, row["ssim"])
            if row["clean_correct"] is not None:
                asked += 1
                effective += row["clean_correct"] == 1 and row["edited_correct"] == 0
    funnel = funnel or {}
    return DataCard(
        samples=counts["splits"].total(),
        pairs=pairs,
        sources=len(sources),
        **{name: dict(sorted(count.items())) for name, count in counts.items()},
        asked=asked,
        effective=effective,
        mean_ssim=total_ssim / pairs if pairs else 1.0,
        least_ssim=least_ssim,
        manifest_sha256=manifest_sha256,
        funnel={name: n for name, n in sorted(funnel.items()) if not name.startswith("effectiveness_")},
        effective_by_kind=_by_kind(funnel),
    )


def edit_kind(kinds: list[str]) -> str:
    """What a pair's edits are called together."""
    return kinds[0] if len(set(kinds)) == 1 else "hybrid"


def write_card(folder: Path, card: DataCard, pictures: list[str]) -> None:
    """Write README.md and card.json. `pictures` are relative paths of galleries."""
    (folder / CARD_JSON).write_text(json.dumps(card.as_json(), indent=1) + "\n")
    templates = Environment(
        loader=PackageLoader("aot_core.data", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=as_text,
    )
    split_folders = [path.parent.name for path in tables_of(folder) if path.parent.parent.name == DATA]
    page = templates.get_template("card.md.j2").render(card=card, splits=split_folders, pictures=pictures)
    (folder / CARD).write_text(page, encoding="utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """card.json. Raises DataError where there is none or where it is of another data set."""
    path = folder / CARD_JSON
    if not path.is_file():
        raise DataError(f"{folder} holds no {CARD_JSON}; make it with `aot data build`")
    read_manifest(folder)
    return json.loads(path.read_text())


def _by_kind(funnel: dict[str, int]) -> dict[str, str]:
    totals: Counter[str] = Counter()
    for name, count in funnel.items():
        if name.startswith("effectiveness_"):
            totals[name.removeprefix("effectiveness_").split("/")[0]] += count
    return {
        kind: f"{funnel.get(f'effectiveness_{kind}/effective', 0)} of {total}" for kind, total in sorted(totals.items())
    }
