"""Where every edit of a curated data set comes from, as a file beside it."""

from collections.abc import Sequence
from pathlib import Path

from aot_core.attacker.learnability import RatedEdit
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.curate import LINEAGE_FILE, Lineage


def write_lineage(folder: Path, kept: Sequence[RatedEdit], names: Sequence[str], pool: Sequence[ArtifactRef]) -> None:
    """Write `lineage.jsonl`: the kept edits by their `names` (`sample_id`), then the ancestors that were not kept.

    Args:
        pool: the Attackers that painted (`RatedEdit.painter`).
    """
    ids = {id(one): name for one, name in zip(kept, names, strict=True)}
    everyone = list(kept)
    for one in everyone:  # grows as it goes: an ancestor has a parent of its own
        if one.parent is not None and id(one.parent) not in ids:
            ids[id(one.parent)] = f"unkept-{len(ids) - len(kept):05d}"
            everyone.append(one.parent)
    lines = [
        Lineage(
            edit=ids[id(one)],
            kept=index < len(kept),
            generation=one.generation,
            parent=None if one.parent is None else ids[id(one.parent)],
            change=one.change,
            attacker=pool[one.painter] if one.origin is None else None,
            curated=one.origin.curated if one.origin is not None else None,
            replayed=one.origin.sample_id if one.origin is not None else None,
            instruction=" ".join(edit.instruction for edit in one.edit[1].edits),
            p=one.p,
        ).model_dump_json()
        + "\n"
        for index, one in enumerate(everyone)
    ]
    (folder / LINEAGE_FILE).write_text("".join(lines), encoding="utf-8")
