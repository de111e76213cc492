"""A first champion may rest on a handful of questions, as in the smoke campaign; wherever it is shown, this is said."""

from aot_core.contracts.promotion import Decision
from aot_core.contracts.terminal import counted

_COMPARED = ("floor/", "not_worse/", "superior/")
"""The lines that a promotion rests on; a regression suite may be of any size."""


def smoke_size(decision: Decision) -> str:
    """A warning where a Defender may lead by fewer questions than `promotion.gate.min_items`; "" otherwise."""
    compared = [test for test in decision.tests if test.name.startswith(_COMPARED)]
    fewest = min(compared, key=lambda test: test.n, default=None)
    least = decision.settings.min_items
    if not decision.promote or fewest is None or fewest.n >= least:
        return ""
    return (
        f"Smoke-size decision: {fewest.name} rests on {counted(fewest.n, 'question')}, fewer than "
        f"promotion.gate.min_items ({least}). It shows that the pipeline works, not that the model is good."
    )
