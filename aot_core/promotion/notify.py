"""Telling others about a ledger entry: a POST of its JSON. What nobody hears is said in the log and changes nothing."""

import logging
import time
from collections.abc import Callable

import httpx

from aot_core.contracts.promotion import LedgerEntry
from aot_core.contracts.secrets import SecretError, redacted, reveal

logger = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes every request's address, which may be secret

_TRIES = 3
_SECONDS = 5.0
"""For each try."""


def webhook(url: str | None, pause: float = 1.0) -> Callable[[LedgerEntry], None]:
    """What posts entries to `url`, an address or a reference to one; without one, what does nothing.

    Args:
        pause: seconds before the second try; twice as long before the third.
    """

    def post(entry: LedgerEntry) -> None:
        assert url is not None
        try:
            secret = reveal(url, "promotion.webhook")
        except SecretError as error:
            logger.warning("webhook: entry %d of %s was not posted: %s", entry.number, entry.model, error)
            return
        for attempt in range(_TRIES):
            try:
                answer = httpx.post(
                    secret.get_secret_value(),
                    content=entry.model_dump_json(),
                    headers={"Content-Type": "application/json", "X-AOT-Entry": entry.sha256},
                    timeout=_SECONDS,
                )
                if answer.status_code < 400:
                    return
                told = f"HTTP {answer.status_code}"
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                told = redacted(f"{type(error).__name__}: {error}", secret, url)
            if attempt + 1 < _TRIES:
                time.sleep(pause * 2**attempt)
        logger.warning("webhook %s did not take entry %d of %s (%s)", url, entry.number, entry.model, told)

    return post if url else lambda _: None
