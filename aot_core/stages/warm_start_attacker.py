"""`warm_start_attacker`: data set and base editor in; an editor that has seen implantations out (`model/` or
`adapter/`)."""

import numpy as np
import torch

from aot_core.attacker.editing import Attacker
from aot_core.attacker.warm_start import fit_pairs, load_pairs
from aot_core.contracts.warm_start_attacker import (
    WarmStartAttackerConfig,
    WarmStartAttackerInputs,
    WarmStartAttackerOutputs,
)
from aot_core.engine.context import StageContext


def run_warm_start_attacker(
    config: WarmStartAttackerConfig, inputs: WarmStartAttackerInputs, context: StageContext
) -> WarmStartAttackerOutputs:
    """Fit the editor to the data set's pairs."""
    rng = np.random.default_rng([config.seed, 21])
    folder = context.fetch(inputs.dataset)
    pairs = load_pairs(folder, rng, config.pairs)
    torch.manual_seed(config.seed)  # an adapter's first weights: not those of whatever ran before in this process
    attacker = Attacker.load_trainable(context.model(inputs.base), None, config.model, context.device, config.editor)
    curve = fit_pairs(attacker, folder, pairs, config, rng, context.tracker)
    attacker.save(context.output)
    tenth = max(1, len(curve) // 10)
    return WarmStartAttackerOutputs(
        pairs=len(pairs),
        updates=len(curve),
        first_loss=float(np.mean(curve[:tenth])),
        last_loss=float(np.mean(curve[-tenth:])),
    )
