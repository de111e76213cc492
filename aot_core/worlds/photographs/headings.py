"""Categories that stand over others, as an export's `supercategory` fields tell.

An exporter may put a category in front that all real ones name as their supercategory and that no box has: a heading,
and no thing. One that has boxes of its own is a thing, and may be seen wherever one of its kinds is.
"""

import re
from collections.abc import Collection, Mapping

_NOTHING = {"", "none", "null", "nan", "n/a", "na", "root", "all"}
"""What exporters write where there is no supercategory."""


def headings(parents: Mapping[str, str], annotated: Collection[str]) -> set[str]:
    """The names that stand over others and have no box.

    Args:
        parents: name to supercategory, as the file has it.
        annotated: the names that have boxes.
    """
    over = {_folded(parent) for name, parent in parents.items() if _folded(parent) != _folded(name)}
    return {name for name in parents if _folded(name) in over and name not in annotated}


def implied_headings(parents: Mapping[str, str], annotated: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Name to the names with boxes that stand over it, however far above."""
    by_fold = {_folded(name): name for name in parents}
    found: dict[str, tuple[str, ...]] = {}
    for name in parents:
        above: list[str] = []
        current = by_fold.get(_folded(parents[name]))
        while current is not None and current not in above and current != name:
            above.append(current)
            current = by_fold.get(_folded(parents[current]))
        if things := tuple(one for one in above if one in annotated):
            found[name] = things
    return found


def kinds_of(parents: Mapping[str, str]) -> dict[str, str]:
    """Name to supercategory, empty where it tells nothing: where there is none, or all names share the same."""
    told = {name: "" if _folded(parent) in _NOTHING else _folded(parent) for name, parent in parents.items()}
    shared = len(set(told.values())) == 1
    return {name: "" if shared or not told[name] else parents[name] for name in parents}


def _folded(name: str) -> str:
    """Case, blanks and the marks that stand for blanks do not tell names apart."""
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))
