"""`aot store verify`: compares every hash in a store, and repairs or sets aside what is damaged."""

from collections import Counter
from dataclasses import dataclass, field
from typing import get_args

from aot_core.contracts.artifact import StageName
from aot_core.store.protocol import Damage, Store


@dataclass
class Verification:
    """What was found."""

    whole: Counter[str] = field(default_factory=Counter[str])
    """Number of intact finished stages, by stage."""
    damaged: list[tuple[Damage, str]] = field(default_factory=list[tuple[Damage, str]])
    """The others, and what was done about each."""


def verify(store: Store) -> Verification:
    """Read every byte of every finished stage, and repair.

    What is no stage's, such as an entry of the ledger, is left where it is: no campaign can make it again.
    """
    found = Verification()
    for stage, key in sorted(store.keys()):
        standing = store.look(stage, key, thorough=True)
        if standing is None:
            continue  # unfinished
        if not isinstance(standing, Damage):
            found.whole[stage] += 1
        elif stage not in get_args(StageName) and not standing.mendable:
            found.damaged.append((standing, "no stage makes it again: restore it from the store's backup"))
        else:
            found.damaged.append((standing, store.repair(standing)))
    return found
