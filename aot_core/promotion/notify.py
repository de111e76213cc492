"""Telling others about a ledger entry: a POST of its JSON. What nobody hears is said in the log and changes nothing."""

import logging
import time
from collections.abc import Callable

import httpx

from aot_core.contracts.promotion import LedgerEntry

logger = logging.getLogger(__name__)

_TRIES = 3
_SECONDS = 5.0
"""For each try."""


def webhook(url: str | None, pause: float = 1.0) -> Callable[[LedgerEntry], None]:
    """What posts entries to `url`; without one, what does nothing.

    Args:
        pause: seconds before the second try; twice as long before the third.
    """

    def post(entry: LedgerEntry) -> None:
        assert url is not None
        for attempt in range(_TRIES):
            try:
                answer = httpx.post(
                    url,
                    content=entry.model_dump_json(),
                    headers={"Content-Type": "application/json", "X-AOT-Entry": entry.sha256},
                    timeout=_SECONDS,
                )
                if answer.status_code < 400:
                    return
                told = f"HTTP {answer.status_code}"
            except httpx.HTTPError as error:
                told = f"{type(error).__name__}: {error}"
            if attempt + 1 < _TRIES:
                time.sleep(pause * 2**attempt)
        logger.warning("webhook %s did not take entry %d of %s (%s)", url, entry.number, entry.model, told)

    return post if url else lambda _: None
