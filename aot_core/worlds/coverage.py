"""What the annotations of a picture cover, where they do not cover everything (federated data sets such as LVIS).

There a picture names the categories that are surely absent, and those of which not every thing has a box. Of any other
name that has no box nobody knows anything. Source: Gupta et al. 2019 (LVIS), section 3.
"""

from typing import NamedTuple

from aot_core.contracts.scene import Query


class Coverage(NamedTuple):
    """Of one annotated picture."""

    present: frozenset[str]
    """Names that have boxes."""
    absent: frozenset[str]
    """Names that are surely absent (`neg_category_ids`)."""
    partial: frozenset[str]
    """Names of which some things may have no box (`not_exhaustive_category_ids`)."""

    def knows(self, name: str) -> bool:
        """Whether every thing of a name has its box, or surely none is there."""
        return name not in self.partial and (name in self.absent or name in self.present)


def all_know(coverages: tuple[Coverage, ...], name: str) -> bool:
    """Whether every part that a picture is composed of knows a name; without any coverage everything is annotated."""
    return all(coverage.knows(name) for coverage in coverages)


def leaves_open(coverages: tuple[Coverage, ...], query: Query, answer: str | None) -> bool:
    """Whether something without a box could change the answer: that there is one, a box proves all the same."""
    asked = [wanted["name"] for wanted in (query.target, query.reference) if "name" in wanted]
    proven = query.kind == "existence" and answer == "yes"
    return not proven and not all(all_know(coverages, name) for name in asked)
