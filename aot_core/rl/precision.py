"""Half precision and small learning rates: updates that are rounded away without a word."""

import logging

from aot_core.contracts.learning import DType, ModelSettings

logger = logging.getLogger(__name__)

_SMALLEST = {"bfloat16": 2**-8, "float16": 2**-11}
"""The share of a weight that an update must reach to change it: half the distance between neighbouring numbers."""


def warn_of_rounding(stage: str, model: ModelSettings, learning_rate: float) -> bool:
    """Log a warning, and return True, where all weights are trained in half precision without float32 copies.

    An optimizer's step moves a weight by about the learning rate. At 1e-6 no bfloat16 weight above 0.0003 ever moves.
    LoRA's factors are float32 whatever the model is; FSDP and DeepSpeed keep float32 copies: do not call it for them.
    """
    if model.lora is not None or model.dtype == "float32":
        return False
    logger.warning(
        "%s: all weights are trained in %s, where an update below %.2g of a weight is rounded away; with "
        "%s.learning_rate = %g that is nearly every update of a weight above %.2g. Set %s.model.lora, or "
        '%s.model.dtype = "float32"',
        stage,
        model.dtype,
        _SMALLEST[model.dtype],
        stage,
        learning_rate,
        learning_rate / _SMALLEST[model.dtype],
        stage,
        stage,
    )
    return True


def warn_of_merging(base: str, dtype: DType) -> None:
    """Log a warning where an adapter is merged into weights in half precision, which keep little of a small one."""
    if dtype != "float32":
        logger.warning(
            "the adapter is merged into the %s weights of %s: changes below %.2g of a weight are rounded away. Use "
            "float32, or keep the adapter beside the base",
            dtype,
            base,
            _SMALLEST[dtype],
        )
