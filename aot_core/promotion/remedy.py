"""What helps a challenger that the gate refused: not every refusal says that it is worse."""

import math

from aot_core.contracts.promotion import Decision, GateTest


def remedy(decision: Decision) -> str:
    """In words; "" where the reason itself says what to do."""
    if any(stop.stopped for stop in decision.stops):
        return ""
    failed = next((test for test in decision.tests if not test.passed), None)
    if failed is None:
        return ""
    asked, least = failed.n, decision.settings.min_items
    if asked < least:
        return (
            f"ask more questions and run its campaign again: {failed.name} has {asked} and needs {least} "
            "(evaluate.limit, and prepare_data.splits.evaluate, which it takes them from)"
        )
    if failed.difference is None or failed.difference <= (failed.margin or 0.0):
        return "on these questions it is not better; train it further (rounds): more questions will not help"
    needed = _questions(failed)
    about = (
        f"about {needed} would, if it is as good as it looks" if needed else "more would, if it is as good as it looks"
    )
    return (
        f"it looks good enough, and {asked} questions do not show it: {about} (evaluate.limit, and "
        "prepare_data.splits.evaluate, which it takes them from); then run its campaign again"
    )


def _questions(test: GateTest) -> int | None:
    """How many questions would lift the lower bound over the margin: an interval narrows with their square root."""
    if test.low is None or test.difference is None:
        return None
    room = test.difference - (test.margin or 0.0)
    return math.ceil(test.n * ((test.difference - test.low) / room) ** 2 / 10) * 10
