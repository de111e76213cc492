"""How long a request to an S3 server is tried: until `run.s3.patience` seconds are over, whatever ails the server.

A refused connection, silence, a dropped answer, a 5xx and "slow down" all count alike. Takes the place of botocore's
own retries, which count attempts: eight refusals are over in seconds, eight silences take minutes.
"""

# pyright: basic
# botocore carries no types.

import logging
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.exceptions import HTTPClientError, IncompleteReadError, SSLError

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0
_STATUSES = {429, 500, 502, 503, 504}
_CODES = {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"}
_BEGUN = "aot_begun"


class Patience:
    """A handler of botocore's `needs-retry` event."""

    def __init__(self, seconds: float, whom: str) -> None:
        """
        Args:
            whom: the store, as log lines name it.
        """
        self.seconds, self.whom = seconds, whom
        self._told = float("-inf")

    def register(self, client: Any) -> None:
        """Let it decide over a client's requests. The client's own retries must be off (one attempt)."""
        events = client.meta.events
        events.register("before-call.s3", self._begin, unique_id="aot-patience-begin")
        events.register("needs-retry.s3", self._delay, unique_id="aot-patience")

    def through(self, call: Callable[[], Answer]) -> Answer:
        """Call again while the answer is lost on its way. For what botocore does not try again: reading a body."""
        begun, attempts = time.monotonic(), 0
        while True:
            try:
                return call()
            except (BotoConnectionError, HTTPClientError, IncompleteReadError) as error:
                attempts += 1
                delay = self._wait(error, begun, attempts)
                if delay is None:
                    raise
            time.sleep(delay)

    @staticmethod
    def passing(status: int, code: str) -> bool:
        """Whether an error answer may pass by itself."""
        return status in _STATUSES or code in _CODES

    def _begin(self, params: dict[str, Any], **_: Any) -> None:
        params["context"][_BEGUN] = time.monotonic()

    def _delay(
        self, response: Any, attempts: int, caught_exception: Exception | None, request_dict: dict[str, Any], **_: Any
    ) -> float | None:
        """Seconds until the request is sent again, None where its fate is final."""
        trouble: object = caught_exception
        if response is not None:
            status, error = response[0].status_code, response[1].get("Error", {})
            trouble = f"{status} {error.get('Code', '')}" if self.passing(status, error.get("Code", "")) else None
        return self._wait(trouble, request_dict["context"].get(_BEGUN, time.monotonic()), attempts)

    def _wait(self, trouble: object, begun: float, attempts: int) -> float | None:
        if isinstance(trouble, Exception):
            lost = isinstance(trouble, BotoConnectionError | HTTPClientError | IncompleteReadError)
            trouble = trouble if lost and not isinstance(trouble, SSLError) else None
        left = begun + self.seconds - time.monotonic()
        if trouble is None or left <= 0:
            return None
        if time.monotonic() - self._told > 30:
            self._told = time.monotonic()
            logger.warning("%s: %s; trying again for up to %.0f s (run.s3.patience)", self.whom, trouble, left)
        # Jitter, so that a fleet does not come back as one; the last attempt falls on the deadline.
        delay = min(_FIRST_DELAY * 2 ** min(attempts - 1, 10), _LONGEST_DELAY) * random.uniform(0.5, 1)
        return min(delay, left)
