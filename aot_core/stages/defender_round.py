"""`defender_round`: the Defender so far and curated edits in; the trained Defender (`model/` or `adapter/`) and what
every answer earned (`rewards.parquet`) out."""

from aot_core.contracts.defender_round import DefenderRoundConfig, DefenderRoundInputs, DefenderRoundOutputs
from aot_core.data.dataset import read_samples
from aot_core.defender.checkpoints import load_trainable
from aot_core.defender.grpo import train_round
from aot_core.engine.context import StageContext


def run_defender_round(
    config: DefenderRoundConfig, inputs: DefenderRoundInputs, context: StageContext
) -> DefenderRoundOutputs:
    """Raises ValueError where nothing was curated, CheckpointError for a Defender that cannot be trained as the
    config says, NonFiniteLossError where training diverges; in each case nothing is written."""
    curated = context.fetch(inputs.curated)
    model, processor = load_trainable(
        context.fetch(inputs.defender), context.model(inputs.base), config.model, context.device
    )
    return train_round(
        model,
        processor,
        read_samples(curated),
        curated,
        config,
        progress=context.progress or context.scratch / "trainer",
        output=context.output,
        base_name=inputs.base.name,
        device=context.device,
        tracker=context.tracker,
    )
