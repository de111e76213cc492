"""vLLM beside the trainer on a CPU, taking new weights while it runs.

TRL's colocated mode writes each update's weights into vLLM's parameters (`VLLMGeneration.sync_weights`). On a CPU vLLM
repacks every linear layer for its kernels when the model is loaded: the parameter is emptied, or stays and is not
read again. So the layers are left unpacked here. vLLM has a flag for it a layer (`_cpu_skip_gemm_dispatch`), but none
for the whole model; and TRL hands no options of the engine on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch


@contextmanager
def colocated_on_cpu(dtype: torch.dtype) -> Iterator[None]:
    """While the context lasts, TRL starts vLLM with linear layers that read their own parameters.

    Not compiled, for that takes minutes on a CPU; and without room for videos, which no prompt has. Needs vLLM's build
    for the CPU.

    Args:
        dtype: of the trained model. By itself vLLM would sample from float32 weights in bfloat16.
    """
    from trl.generation import vllm_generation
    from vllm.model_executor.layers import utils  # pyright: ignore[reportMissingImports]

    trl: Any = vllm_generation

    def plain(layer: Any, remove_weight: bool) -> None:
        del remove_weight
        layer.cpu_linear = torch.nn.functional.linear

    options = {"dtype": str(dtype).removeprefix("torch."), "enforce_eager": True, "limit_mm_per_prompt": {"video": 0}}
    packing, engine = utils.dispatch_cpu_unquantized_gemm, trl.LLM
    utils.dispatch_cpu_unquantized_gemm = plain
    trl.LLM = partial(engine, **options)
    try:
        yield
    finally:
        utils.dispatch_cpu_unquantized_gemm = packing
        trl.LLM = engine
