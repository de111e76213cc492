"""What fooled a Defender, to be looked at."""

from collections.abc import Sequence

from PIL.Image import Image

from aot_core.data.gallery import GalleryRow, gallery
from aot_core.evaluation.items import Condition, Item


def fooling_gallery(
    condition: Condition, answered: Sequence[Item], clean: Condition, clean_answered: Sequence[Item], rows: int
) -> Image:
    """A page of a condition's pictures beside the clean ones, with both answers.

    Questions whose right answers the edit turned wrong come first, the most wrong ones ahead; the rest
    follows in order. Raises ValueError where the condition has no items.
    """
    before = {item.item_id: item for item in clean_answered}
    samples = {sample.sample_id: sample for sample in condition.samples}
    clean_samples = {item.item_id: sample for item, sample in zip(clean_answered, clean.samples, strict=True)}
    shown = [item for item in answered if item.item_id in before]
    shown.sort(key=lambda item: (not (before[item.item_id].strict and not item.strict), sum(item.correct)))
    pictures = [
        GalleryRow(
            clean=clean.picture(clean_samples[item.item_id]),
            edited=condition.picture(samples[item.sample_id]),
            question=samples[item.sample_id].question,
            clean_answers=before[item.item_id].letters,
            edited_answers=item.letters,
            caption=condition.captions.get(item.sample_id, ""),
        )
        for item in shown[:rows]
    ]
    turned = sum(before[item.item_id].strict and not item.strict for item in shown)
    return gallery(pictures, f"{condition.name}: {turned} of {len(shown)} questions turned from right to wrong")
