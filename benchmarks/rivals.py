"""What self-play is compared with: lessons made without an opponent, of as many scenes as with one.

- oracle: the scenes that self-play's curation kept, with procedural distractors of the very family that the exam draws:
  told what the question is about, and so what misleads (an upper bound of augmentation, not a fair rival);
- static: scenes and distractors drawn at random, without a look at the question; only what would change the truth is
  drawn again, so that no label is wrong;
- pictures: scenes drawn at random, changed as picture augmentation changes them (brightness, contrast, saturation,
  blur, noise, JPEG). No crops and no flips: the questions ask about places.
"""

import tempfile
from collections.abc import Callable
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.base import sha256_of
from aot_core.contracts.scene import Attributes, Edit, Sample, SceneObject
from aot_core.data.dataset import load_image, read_samples, save_image, write_dataset
from aot_core.store import Store
from aot_core.worlds.instructions import add_instruction
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.implantation import find_distractor, words_in_question
from aot_core.worlds.truth import truth

DISTRACTORS = 3
"""Procedural distractors a scene: as many as an Attacker may paint."""

Finder = Callable[[np.random.Generator, list[SceneObject], Sample], Attributes | None]
"""From the scene's objects so far and its sample to what is added next; None where there is nothing."""


def oracle_lessons(store: Store, curated: ArtifactRef) -> ArtifactRef:
    """The scenes of a curated set with misleading distractors in place of the Attacker's edits."""
    key = sha256_of({"static_lessons": curated.sha256, "distractors": DISTRACTORS})
    folder = store.fetch(curated)
    return _written(store, key, folder, read_samples(folder), with_distractors)


def static_lessons(store: Store, data: ArtifactRef, count: int, seed: int) -> ArtifactRef:
    """`count` scenes of the train split, drawn at random, with distractors that nobody chose."""
    key = sha256_of({"random_distractors": data.sha256, "count": count, "seed": seed, "distractors": DISTRACTORS})
    folder = store.fetch(data)
    return _written(store, key, folder, _random_scenes(folder, count, seed), with_random_objects)


def picture_lessons(store: Store, data: ArtifactRef, count: int, seed: int) -> ArtifactRef:
    """The same scenes, their pictures augmented."""
    key = sha256_of({"picture_augmentation": data.sha256, "count": count, "seed": seed})
    folder = store.fetch(data)
    return _written(store, key, folder, _random_scenes(folder, count, seed), with_another_look)


def _random_scenes(folder: Path, count: int, seed: int) -> list[Sample]:
    clean = [sample for sample in read_samples(folder, "train") if not sample.edits]
    return [clean[int(i)] for i in np.random.default_rng([seed, 51]).permutation(len(clean))[:count]]


def _written(
    store: Store,
    key: str,
    folder: Path,
    samples: list[Sample],
    change: Callable[[np.random.Generator, Sample, Path, Path], Sample | None],
) -> ArtifactRef:
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        made = [
            lesson
            for index, sample in enumerate(samples)
            if (lesson := change(np.random.default_rng([int(key[:8], 16), index]), sample, folder, output))
        ]
        write_dataset(output, made)
        return store.put("curate", key, output)


def with_distractors(rng: np.random.Generator, sample: Sample, folder: Path, output: Path) -> Sample | None:
    """A sample whose clean scene carries up to `DISTRACTORS` misleading objects; None where none fits."""
    words = words_in_question(sample.question.query, list(sample.scene.objects))

    def misleading(rng: np.random.Generator, objects: list[SceneObject], sample: Sample) -> Attributes | None:
        return find_distractor(rng, objects, objects, sample.question, words, "semantic")

    return _with_objects(rng, sample, folder, output, misleading)


def with_random_objects(rng: np.random.Generator, sample: Sample, folder: Path, output: Path) -> Sample | None:
    """A sample whose clean scene carries up to `DISTRACTORS` objects of any colour and shape."""
    return _with_objects(rng, sample, folder, output, any_object)


def any_object(rng: np.random.Generator, objects: list[SceneObject], sample: Sample) -> Attributes | None:
    """A colour and a shape, drawn alike; anew where that is there already or would change the truth."""
    palette = [{"colour": colour, "shape": shape} for colour, shape in product(world.COLOURS, world.SHAPES)]
    for index in rng.permutation(len(palette)):
        attributes = palette[int(index)]
        trial = SceneObject(box=world.cell_box((0, 0)), attributes=attributes)
        known = attributes in [thing.attributes for thing in objects]
        if not known and truth(sample.question.query, [*objects, trial]) == sample.question.answer_text:
            return dict(attributes)
    return None


def _with_objects(rng: np.random.Generator, sample: Sample, folder: Path, output: Path, find: Finder) -> Sample | None:
    objects, image = list(sample.scene.objects), load_image(folder, sample.image)
    edits: list[Edit] = []
    for _ in range(DISTRACTORS):
        taken = {world.cell_of(thing.box) for thing in objects}
        free = [cell for cell in world.all_cells(sample.scene.width) if cell not in taken]
        found = find(rng, objects, sample)
        if found is None or not free:
            break
        cell = free[int(rng.integers(len(free)))]
        thing = world.place(rng, found, cell)
        side = round(thing.box.width)
        paint = Image.new("RGB", (side, side), world.rgb(found["colour"]))
        image.paste(paint, (round(thing.box.x), round(thing.box.y)), world.stamp(found["shape"], side))
        told = add_instruction(found, cell)
        edits.append(
            Edit(
                kind="add", instruction=told, family="semantic", region=world.cell_box(cell), removed=None, added=thing
            )
        )
        objects.append(thing)
    if not edits:
        return None
    return sample.model_copy(
        update={
            "image": save_image(output, f"{sample.sample_id}-clean", load_image(folder, sample.image)),
            "edited_image": save_image(output, f"{sample.sample_id}-edited", image),
            "edits": tuple(edits),
            "edited_objects": tuple(objects),
        }
    )


def with_another_look(rng: np.random.Generator, sample: Sample, folder: Path, output: Path) -> Sample:
    """A sample whose edited picture shows the same scene in another light; its truth is the same."""
    clean = load_image(folder, sample.image)
    return sample.model_copy(
        update={
            "image": save_image(output, f"{sample.sample_id}-clean", clean),
            "edited_image": save_image(output, f"{sample.sample_id}-edited", augmented(rng, clean)),
            "edited_objects": sample.scene.objects,
        }
    )


def augmented(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Brightness, contrast and saturation by 0.7 to 1.3, and one of blur, noise and JPEG."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(rng.uniform(0.7, 1.3)))
    kind = int(rng.integers(3))
    if kind == 0:
        return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.8))))
    if kind == 1:
        pixels = np.asarray(image, dtype=np.float32)
        noisy = pixels + rng.normal(0, float(rng.uniform(2, 10)), pixels.shape)
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    packed = BytesIO()
    image.save(packed, "JPEG", quality=int(rng.integers(50, 95)))
    with Image.open(packed) as opened:
        return opened.convert("RGB")
