"""compare_data: two data sets to the divergence of each column; the artifact is `drift.html` and its picture."""

import logging

from aot_core.contracts.compare_data import CompareDataConfig, CompareDataInputs, CompareDataOutputs
from aot_core.contracts.summary import PICTURES_FOLDER
from aot_core.data.drift import compare, observe
from aot_core.data.drift_page import drift_page, drift_picture
from aot_core.engine.context import StageContext

PAGE = "drift.html"
PICTURE = f"{PICTURES_FOLDER}/drift.png"
logger = logging.getLogger(__name__)


def run_compare_data(config: CompareDataConfig, inputs: CompareDataInputs, context: StageContext) -> CompareDataOutputs:
    """Measure the drift. Whether it stops anybody is the caller's decision.

    Raises DataError for a folder that holds no data set, GuardBrokenError where the divergence cannot be measured.
    """
    reference = observe(context.fetch(inputs.reference), config.pictures, config.seed)
    now = observe(context.fetch(inputs.dataset), config.pictures, config.seed)
    drifts = compare(now, reference, config.limit)
    picture = drift_picture(drifts)
    (context.output / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    (context.output / PICTURE).write_bytes(picture)
    (context.output / PAGE).write_text(drift_page(drifts, picture), encoding="utf-8")
    outputs = CompareDataOutputs(
        divergence={drift.column: drift.divergence for drift in drifts},
        chance={drift.column: drift.chance for drift in drifts},
        unseen={drift.column: drift.unseen for drift in drifts if drift.unseen},
        drifted=tuple(drift.column for drift in drifts if drift.drifted),
    )
    logger.info("compare_data: %s", ", ".join(outputs.drifted) + " drifted" if outputs.drifted else "no drift")
    context.tracker.log_metrics({f"drift/{name}": value for name, value in outputs.divergence.items()})
    return outputs
