"""`warm_start_defender`: base and data set in, warm Defender out (`model/` or `adapter/`)."""

import torch

from aot_core.contracts.warm_start_defender import (
    WarmStartDefenderConfig,
    WarmStartDefenderInputs,
    WarmStartDefenderOutputs,
)
from aot_core.data.dataset import read_samples
from aot_core.defender.checkpoints import load_trainable
from aot_core.defender.warm_start import warm_start
from aot_core.engine.context import StageContext


def run_warm_start_defender(
    config: WarmStartDefenderConfig, inputs: WarmStartDefenderInputs, context: StageContext
) -> WarmStartDefenderOutputs:
    """Raises ValueError where the data set has no warm-start samples, NonFiniteLossError where training diverges."""
    folder = context.fetch(inputs.dataset)
    samples = read_samples(folder, "warm_start")
    if not samples:
        raise ValueError("dataset: its split `warm_start` is empty; raise prepare_data.splits.warm_start")
    torch.manual_seed(config.seed)  # an adapter's first weights: not those of whatever ran before in this process
    model, processor = load_trainable(None, context.model(inputs.base), config.model, context.device)
    return warm_start(
        model,
        processor,
        samples,
        folder,
        config,
        scratch=context.scratch,
        device=context.device,
        tracker=context.tracker,
        output=context.output,
        base_name=inputs.base.name,
    )
