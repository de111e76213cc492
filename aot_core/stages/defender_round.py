"""`defender_round`: the Defender so far, curated edits and the bank in; the trained Defender (`model/` or `adapter/`)
and what every answer earned (`rewards.parquet`) out."""

from aot_core.contracts.defender_round import DefenderRoundConfig, DefenderRoundInputs, DefenderRoundOutputs
from aot_core.data.lessons import draw_lesson
from aot_core.defender.checkpoints import load_trainable
from aot_core.defender.grpo import train_round
from aot_core.engine.context import StageContext


def run_defender_round(
    config: DefenderRoundConfig, inputs: DefenderRoundInputs, context: StageContext
) -> DefenderRoundOutputs:
    """Raises ValueError where nothing was curated or nothing is left of it, CheckpointError for a Defender that cannot
    be trained as the config says, NonFiniteLossError where training diverges; in each case nothing is written."""
    lesson = draw_lesson(
        context.fetch(inputs.curated),
        context.fetch(inputs.bank) if inputs.bank else None,
        config.replay_share,
        config.held_back,
        config.seed,
        context.scratch,
    )
    model, processor = load_trainable(
        context.fetch(inputs.defender), context.model(inputs.base), config.model, context.device
    )
    outputs = train_round(
        model,
        processor,
        lesson.samples,
        lesson.folder,
        config,
        progress=context.progress or context.scratch / "trainer",
        output=context.output,
        base_name=inputs.base.name,
        device=context.device,
        tracker=context.tracker,
    )
    return outputs.model_copy(update={"replayed": lesson.replayed, "held_back": lesson.held_back})
