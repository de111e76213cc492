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
from aot_core.rl.adapters import write_for_server


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

    With vLLM the Defender's weights leave the device for good: the server needs the room. An adapter beside weights in
    half precision is served beside them, or, where it changes more than the language model, merged in float32.

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
    model = defender.model
    apart = hasattr(model, "merge_and_unload")
    adapter = write_for_server(model, folder, scratch / "adapter")
    defender.processor.save_pretrained(folder)
    model.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # What could not be kept apart was merged in float32, and would be rounded by a server in half precision.
    dtype = "float32" if apart and adapter is None else str(model.dtype).removeprefix("torch.")
    with vllm_server(folder, settings.vllm, scratch / "vllm.log", dtype, adapter) as endpoint:
        yield OpenAIEngine(endpoint, weights=name, **sampling)
