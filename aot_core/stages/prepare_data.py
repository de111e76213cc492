"""prepare_data: a source, and the base Defender for its filter, to the campaign's data set, guarded.

The artifact is a data set (`aot_core.data.dataset`) with `guard/` (what was checked) and `pictures/`.
"""

from pathlib import Path

import numpy as np

from aot_core.contracts.prepare_data import PrepareDataConfig, PrepareDataInputs, PrepareDataOutputs
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import Sample
from aot_core.contracts.summary import PICTURES_FOLDER
from aot_core.data.dataset import load_image
from aot_core.data.domains import open_source
from aot_core.data.gallery import GalleryRow, gallery
from aot_core.data.guard import guard_dataset
from aot_core.data.pipeline import Pipeline
from aot_core.stages.context import StageContext

_GALLERY_ROWS = 16


def run_prepare_data(config: PrepareDataConfig, inputs: PrepareDataInputs, context: StageContext) -> PrepareDataOutputs:
    """Make, write and check the data set.

    Raises DataError (bad source, too few samples), DataGuardError (data that breaks an expectation) and
    ValueError (an input that the config needs is missing).
    """
    source = open_source(config, Path(inputs.source.name) if inputs.source else None)
    pipeline = Pipeline(config, source, _judge(config, inputs, context))
    samples = pipeline.write(context.output)
    guard_dataset(context.output, config.implantation.min_ssim, context.output / "guard")
    outputs = _summary(samples, dict(pipeline.funnel))
    context.tracker.log_metrics({f"data/{name}": count for name, count in outputs.funnel.items()})
    context.tracker.log_artifact(context.output / "guard", "data_guard")
    _log_gallery(samples, context)
    return outputs


def _judge(config: PrepareDataConfig, inputs: PrepareDataInputs, context: StageContext) -> Answerer | None:
    """The base Defender that the effectiveness filter asks, None where the filter is off."""
    if not config.effectiveness.enabled or config.splits.warm_start == 0:
        return None
    if inputs.defender is None:
        raise ValueError("effectiveness.enabled is true and no base Defender was given; name one, or set it to false")
    from aot_core.defender.answering import Defender

    return Defender.load(
        context.model(inputs.defender),
        device=context.device,
        dtype=config.effectiveness.dtype,
        max_new_tokens=config.effectiveness.max_new_tokens,
    )


def _summary(samples: list[Sample], funnel: dict[str, int]) -> PrepareDataOutputs:
    ssims = [sample.ssim for sample in samples if sample.ssim is not None]
    judged = sum(count for name, count in funnel.items() if name.startswith("effectiveness/"))
    splits = sorted({sample.split for sample in samples})
    return PrepareDataOutputs(
        samples={split: float(sum(sample.split == split for sample in samples)) for split in splits},
        pairs=len(ssims),
        sources=len({sample.scene.source_id for sample in samples}),
        funnel={name: float(count) for name, count in sorted(funnel.items())},
        mean_ssim=float(np.mean(ssims)) if ssims else 1.0,
        least_ssim=min(ssims, default=1.0),
        effective_share=funnel.get("effectiveness/effective", 0) / judged if judged else 0.0,
    )


def _log_gallery(samples: list[Sample], context: StageContext) -> None:
    """A contact sheet of pairs from all over the data set, into the artifact and to the tracker."""
    pairs = [sample for sample in samples if sample.edited_image is not None]
    if not pairs:
        return
    chosen = [pairs[int(i)] for i in np.linspace(0, len(pairs) - 1, min(_GALLERY_ROWS, len(pairs)))]
    rows = [
        GalleryRow(
            clean=load_image(context.output, sample.image),
            edited=load_image(context.output, str(sample.edited_image)),
            question=sample.question,
            caption=f"{sample.split}, {sample.edits[0].family}: {sample.instruction} SSIM {sample.ssim:.3f}",
        )
        for sample in chosen
    ]
    page = gallery(rows, "Implantation pairs")
    folder = context.output / PICTURES_FOLDER
    folder.mkdir(exist_ok=True)
    page.save(folder / "pairs.png")
    context.tracker.log_image("gallery/prepare_data.png", page)
