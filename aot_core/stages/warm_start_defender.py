"""`warm_start_defender`: base and data set in, warm Defender out (`model/` or `adapter/`)."""

import torch

from aot_core.contracts.warm_start_defender import (
    WarmStartDefenderConfig,
    WarmStartDefenderInputs,
    WarmStartDefenderOutputs,
)
from aot_core.data.bank import held_back
from aot_core.data.dataset import read_samples
from aot_core.defender.checkpoints import load_trainable
from aot_core.defender.warm_start import warm_start
from aot_core.engine.context import StageContext


def run_warm_start_defender(
    config: WarmStartDefenderConfig, inputs: WarmStartDefenderInputs, context: StageContext
) -> WarmStartDefenderOutputs:
    """Raises ValueError where there are no warm-start samples or all are held back, NonFiniteLossError where training
    diverges."""
    folder = context.fetch(inputs.dataset)
    samples = read_samples(folder, "warm_start")
    if not samples:
        raise ValueError("dataset: its split `warm_start` is empty; raise prepare_data.splits.warm_start")
    taught = [sample for sample in samples if not held_back(sample, config.held_back)]
    if not taught:
        raise ValueError(
            f"warm_start_defender.held_back {config.held_back:g} keeps all {len(samples)} samples out; lower it (and "
            "bank.suite), or raise prepare_data.splits.warm_start"
        )
    torch.manual_seed(config.seed)  # an adapter's first weights: not those of whatever ran before in this process
    model, processor = load_trainable(None, context.model(inputs.base), config.model, context.device)
    return warm_start(
        model,
        processor,
        taught,
        folder,
        config,
        scratch=context.scratch,
        device=context.device,
        tracker=context.tracker,
        output=context.output,
        base_name=inputs.base.name,
    )
