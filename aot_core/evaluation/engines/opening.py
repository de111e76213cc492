"""Opening and closing the engine that answers.

settings -> an endpoint that stands already | vLLM, started on the Defender | the Defender in this process -> Engine
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from aot_core.contracts.benchmarks import BenchmarkSettings
from aot_core.evaluation.engines.openai_engine import OpenAIEngine
from aot_core.evaluation.engines.protocol import Engine
from aot_core.evaluation.engines.transformers_engine import TransformersEngine
from aot_core.evaluation.engines.vllm_server import vllm_server


class LoadedModel(Protocol):
    """A Defender in memory, as far as an engine is concerned."""

    @property
    def model(self) -> Any: ...

    @property
    def processor(self) -> Any: ...


@contextmanager
def open_engine(
    settings: BenchmarkSettings, defender: LoadedModel | None, name: str, temperature: float, seed: int, scratch: Path
) -> Iterator[Engine]:
    """Who answers benchmarks: the endpoint of the settings, vLLM started on the Defender, or the Defender itself.

    With vLLM the Defender's weights leave the device for good: the server needs the room.

    Args:
        name: tells the Defender's weights.
        scratch: where the weights are written for vLLM, and its messages.

    Raises EngineError where vLLM is wanted and does not start.
    """
    sampling: dict[str, Any] = {
        "max_new_tokens": settings.max_new_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    if settings.endpoint is not None:
        yield OpenAIEngine(settings.endpoint, **sampling)
        return
    assert defender is not None, "without an endpoint a Defender is loaded"
    if settings.vllm is None:
        yield TransformersEngine(
            defender.model, defender.processor, name=name, batch_size=settings.batch_size, **sampling
        )
        return
    folder = scratch / "served"
    # An adapter that stands beside weights in half precision: the server is given whole weights.
    adapted = hasattr(defender.model, "merge_and_unload")
    model = defender.model.merge_and_unload() if adapted else defender.model
    model.save_pretrained(folder)
    defender.processor.save_pretrained(folder)
    model.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    dtype = str(model.dtype).removeprefix("torch.")
    with vllm_server(folder, settings.vllm, scratch / "vllm.log", dtype) as endpoint:
        yield OpenAIEngine(endpoint, weights=name, **sampling)
