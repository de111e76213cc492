"""Answers by any OpenAI-compatible chat endpoint: vLLM, `transformers serve`, a hosted model.

Concurrency is bounded. Timeouts, broken connections, rate limits, server errors and malformed responses are retried
with exponential back-off. What the user must fix (a wrong key, an unknown model, a refused request) ends the run at
once. Whatever was answered by then is in the journal.
"""

import base64
import io
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx

from aot_core.contracts.benchmarks import EndpointSettings
from aot_core.contracts.protocols import Completion
from aot_core.contracts.secrets import redacted, reveal
from aot_core.evaluation.engines.protocol import Ask, EngineError, Journal, seed_of

_PASSING = {408, 409, 425, 429}
"""Refusals that are worth a retry; all other 4xx are not."""
_LONGEST_PAUSE = 60.0
logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes every request's address, which may be secret


class _TryAgainError(Exception):
    """A transient failure: worth a retry."""

    def __init__(self, told: str, pause: float | None = None) -> None:
        super().__init__(told)
        self.pause = pause


class OpenAIEngine:
    """An endpoint (implements `protocol.Engine`)."""

    def __init__(
        self, settings: EndpointSettings, *, max_new_tokens: int, temperature: float, seed: int, weights: str = ""
    ) -> None:
        """
        Args:
            weights: tells the weights that the endpoint serves, where that is known: the journal then goes by them, and
                not by the endpoint's address.

        Raises EngineError where the environment lacks the key that the settings name, SecretError where it lacks the
        address.
        """
        self._url = reveal(settings.url, "url")
        self.settings, self.max_new_tokens, self.weights = settings, max_new_tokens, weights
        self.temperature, self.seed = temperature, seed
        self._stopped = threading.Event()
        headers = {}
        if settings.api_key_env:
            key = os.environ.get(settings.api_key_env)
            if not key:
                raise EngineError(f"environment variable {settings.api_key_env} is empty; set it to the endpoint's key")
            headers["Authorization"] = f"Bearer {key}"
        limits = httpx.Limits(max_connections=settings.concurrency)
        self._client = httpx.Client(headers=headers, timeout=settings.timeout_seconds, limits=limits, trust_env=False)

    @property
    def identity(self) -> dict[str, object]:
        """See `Engine.identity`."""
        sampling = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "seed": self.seed}
        if self.weights:
            return {"engine": "served", "name": self.weights, **sampling}
        return {"engine": "openai", "url": self.settings.url, "model": self.settings.model, **sampling}

    def run(self, asks: Sequence[Ask], journal: Journal) -> None:
        """See `Engine.run`."""
        missing = [(ask, n) for ask in asks for n in range(ask.samples) if not journal.has(ask.key, n)]
        self._stopped.clear()
        with ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="ask") as pool:
            try:
                for done in as_completed([pool.submit(self._ask_or_stop, *one, journal) for one in missing]):
                    done.result()
            finally:  # the pool waits for what is in flight, which is recorded; whatever else there is returns at once
                self._stopped.set()

    def _ask_or_stop(self, ask: Ask, sample: int, journal: Journal) -> None:
        """Ask; the first permanent failure keeps the others from starting."""
        try:
            self._ask(ask, sample, journal)
        except BaseException:
            self._stopped.set()
            raise

    def _ask(self, ask: Ask, sample: int, journal: Journal) -> None:
        if self._stopped.is_set():
            return
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_uri(picture)}} for picture in ask.open()
        ]
        body = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": [*content, {"type": "text", "text": ask.prompt}]}],
            "temperature": self.temperature,
            "max_tokens": self.max_new_tokens,
            "seed": seed_of(self.seed, ask.key, sample),
        }
        for attempt in range(self.settings.retries + 1):
            try:
                journal.record(ask.key, sample, self._once(body))
                return
            except _TryAgainError as error:
                told = str(error)
                pause = error.pause if error.pause is not None else self.settings.pause_seconds * 2**attempt
            if attempt < self.settings.retries and self._stopped.wait(min(pause, _LONGEST_PAUSE)):
                return  # another question failed for good: its error is the one to tell
        raise EngineError(
            f"{self.settings.url}: question {ask.key} failed {_times(self.settings.retries + 1)}, the last time with "
            f"{told}; check the endpoint and start again: the answers so far are kept"
        )

    def _once(self, body: dict[str, Any]) -> Completion:
        """One request. Raises _TryAgainError or EngineError."""
        try:
            answer = self._client.post(f"{self._url.get_secret_value().rstrip('/')}/chat/completions", json=body)
        except httpx.HTTPError as error:
            raise _TryAgainError(self._redacted(f"{type(error).__name__}: {error}")) from error
        except httpx.InvalidURL as error:
            raise EngineError(
                f"url: {self.settings.url} is not a valid address: {self._redacted(str(error))}; correct it"
            ) from None
        code = answer.status_code
        if code in _PASSING or code >= 500:
            raise _TryAgainError(f"HTTP {code}", _retry_after(answer))
        if code >= 300:
            raise EngineError(
                f"{self.settings.url} refused the request with HTTP {code}: {self._redacted(answer.text)[:300]}"
            )
        try:
            choice = answer.json()["choices"][0]
            text = choice["message"].get("content")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise _TryAgainError(
                f"a response that is not a chat completion: {self._redacted(answer.text)[:100]!r}"
            ) from error
        if text is not None and not isinstance(text, str):
            raise _TryAgainError(f"a completion that is not text: {str(text)[:100]!r}")
        # A refusal has no content: it is an answer, and a wrong one.
        return Completion(text or "", cut_off=choice.get("finish_reason") == "length")

    def _redacted(self, text: str) -> str:
        return redacted(text, self._url, self.settings.url)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _retry_after(answer: httpx.Response) -> float | None:
    """The seconds that the server asks to wait; None where it does not say, or says a date."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None


def _data_uri(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
