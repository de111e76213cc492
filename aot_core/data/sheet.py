"""A contact sheet of a data set's pairs: some of every kind of question, edit and family, as a picture or a page."""

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined

from aot_core.contracts.scene import Sample
from aot_core.data.card import edit_kind
from aot_core.data.dataset import load_image, tables_of
from aot_core.data.gallery import GalleryRow, gallery

_T = TypeVar("_T")


def chosen_pairs(folder: Path, rows: int) -> list[Sample]:
    """Up to `rows` pairs from all over the data set, in turn from every (question, edit, family) that occurs."""
    places: dict[tuple[str, str, str], list[tuple[Path, int]]] = defaultdict(list)
    for table in tables_of(folder):
        flat = pq.read_table(table, columns=["kind", "edit_kinds", "family"]).to_pylist()
        for number, row in enumerate(flat):
            if row["edit_kinds"]:
                places[row["kind"], edit_kind(row["edit_kinds"]), row["family"]].append((table, number))
    each = max(1, -(-rows // max(1, len(places))))
    by_edit: dict[str, list[list[tuple[Path, int]]]] = defaultdict(list)
    for (_, edit, _), found in sorted(places.items()):
        by_edit[edit].append([found[int(i)] for i in np.linspace(0, len(found) - 1, min(each, len(found)))])
    # Every combination once before any twice; every kind of edit in turn, each beginning with another kind of question,
    # so that few rows show most of what there is.
    staggered = [found[2 * n :] + found[: 2 * n] for n, (_, found) in enumerate(sorted(by_edit.items()))]
    spread = _in_turn(staggered)
    return [_sample(table, number) for table, number in _in_turn(spread)[:rows]]


def _in_turn(lists: Sequence[Sequence[_T]]) -> list[_T]:
    """The first of each list, then the second of each, and so on."""
    longest = max(map(len, lists), default=0)
    return [one[place] for place in range(longest) for one in lists if place < len(one)]


def contact_sheet(folder: Path, rows: int = 16) -> bytes:
    """The sheet as a PNG file. Raises ValueError where the data set holds no pairs."""
    buffer = io.BytesIO()
    gallery([gallery_row(folder, sample) for sample in chosen_pairs(folder, rows)], "Implantation pairs").save(
        buffer, format="PNG"
    )
    return buffer.getvalue()


def contact_page(folder: Path, rows: int = 64) -> str:
    """The sheet as one HTML file that needs nothing beside it: each pair with its question, edits and figures."""
    pairs = []
    for sample in chosen_pairs(folder, rows):
        images = [_inline(folder, str(name)) for name in (sample.image, sample.edited_image)]
        pairs.append({"sample": sample, "images": images, "kind": edit_kind([edit.kind for edit in sample.edits])})
    templates = Environment(
        loader=PackageLoader("aot_core.data", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return templates.get_template("sheet.html.j2").render(pairs=pairs)


def gallery_row(folder: Path, sample: Sample) -> GalleryRow:
    """A pair as a row of a gallery."""
    kind = edit_kind([edit.kind for edit in sample.edits])
    return GalleryRow(
        clean=load_image(folder, sample.image),
        edited=load_image(folder, str(sample.edited_image)),
        question=sample.question,
        caption=f"{sample.split}, {kind}, {sample.edits[0].family}: {sample.instruction} SSIM {sample.ssim:.3f}",
    )


def _sample(table: Path, number: int) -> Sample:
    with pq.ParquetFile(table) as file:
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number < first + rows:
                record = file.read_row_group(group, columns=["record"])["record"][number - first].as_py()
                return Sample.model_validate_json(record)
            first += rows
    raise IndexError(f"{table} has no row {number}")


def _inline(folder: Path, relative: str) -> str:
    buffer = io.BytesIO()
    load_image(folder, relative).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
