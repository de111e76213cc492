"""Telling others about a ledger entry: a POST of its JSON, signed where there is a key.

What nobody hears is said in the log and changes nothing.

    X-AOT-Signature: t=UNIX_SECONDS,v1=HEX        HEX = HMAC-SHA256(key, "UNIX_SECONDS." + body)

Whoever receives it computes the same over the bytes that came, compares with `hmac.compare_digest`, and refuses what is
older than a few minutes: a post that somebody recorded is then of no use.
"""

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable

import httpx

from aot_core.contracts.promotion import LedgerEntry, PromotionSettings
from aot_core.contracts.secrets import SecretError, redacted, reveal, reveal_key

logger = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes every request's address, which may be secret

SIGNATURE = "X-AOT-Signature"
_TRIES = 3
_SECONDS = 5.0
"""For each try."""


def signature(key: bytes, body: bytes, seconds: int) -> str:
    """The header's value: the time and the HMAC over time and body (RFC 2104, SHA-256)."""
    digest = hmac.new(key, f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


def message(entry: LedgerEntry) -> str:
    """An entry in a line for people."""
    told = {
        "done": f"version {entry.to_version} leads now, in place of {entry.from_version or 'none'}",
        "refused": f"version {entry.to_version} was refused",
        "proposed": f"version {entry.to_version} waits for a person's leave",
        "declined": f"version {entry.to_version} was declined",
        "expired": f"nobody answered about version {entry.to_version}",
        "undone": f"version {entry.to_version} did not answer; {entry.from_version or 'nobody'} leads again",
    }
    what = told.get(entry.kind, f"{entry.action} {entry.kind}, version {entry.to_version}")
    return f"{entry.model}: {what} ({entry.who}: {entry.why})"


def body_of(entry: LedgerEntry, form: str) -> bytes:
    """The post's JSON: the entry, or a Slack message with the entry's hash below it."""
    if form == "ledger":
        return entry.model_dump_json().encode()
    # Slack reads &, < and > as its own markup.
    text = message(entry).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.dumps({"text": text}).encode()


def webhook(settings: PromotionSettings, pause: float = 1.0) -> Callable[[LedgerEntry], None]:
    """What posts entries to `settings.webhook`, an address or a reference to one; without one, what does nothing.

    Args:
        pause: seconds before the second try; twice as long before the third.
    """
    url = settings.webhook

    def post(entry: LedgerEntry) -> None:
        assert url is not None
        try:
            secret = reveal(url, "promotion.webhook")
            key = reveal_key(settings.webhook_key, "promotion.webhook_key") if settings.webhook_key else None
        except SecretError as error:
            logger.warning("webhook: entry %d of %s was not posted: %s", entry.number, entry.model, error)
            return
        body = body_of(entry, settings.webhook_form)
        headers = {"Content-Type": "application/json", "X-AOT-Entry": entry.sha256}
        for attempt in range(_TRIES):
            if key is not None:
                headers[SIGNATURE] = signature(key.get_secret_value().encode(), body, int(time.time()))
            try:
                answer = httpx.post(
                    secret.get_secret_value(),
                    content=body,
                    headers=headers,
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
