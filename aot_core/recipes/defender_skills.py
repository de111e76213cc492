"""What a Defender can do in the procedural world: accuracy on held-out scenes, clean and with distractors.

The same questions are asked about the clean scene and with 1, 2 and 3 distractors, semantic ones and, as the control
that tells how much is mere crowding, as many irrelevant ones; they leave the truth and the objects in question alone.
Answers are generated, greedily. The model card's table comes from here.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from PIL.Image import Image
from scipy.stats import binomtest

from aot_core.answers import is_exactly_boxed, letter_of
from aot_core.contracts.prepare_data import ImplantationSettings
from aot_core.contracts.scene import DistractorFamily, Question, QuestionKind, Scene
from aot_core.defender.answering import Defender
from aot_core.recipes.defender_lessons import KINDS
from aot_core.worlds.implantation import Implanted
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.implantation import implant_world
from aot_core.worlds.shapes.questions import ask_world
from aot_core.worlds.shapes.source import DrawnPicture

DISTRACTORS = (0, 1, 2, 3)
FAMILIES: tuple[DistractorFamily, ...] = ("semantic", "irrelevant")
MEASURE_SEED = 10_007


@dataclass(frozen=True)
class Skill:
    """A share with its Wilson 95 % interval."""

    right: int
    asked: int

    def __str__(self) -> str:
        low, high = binomtest(self.right, self.asked).proportion_ci(method="wilson")
        return f"{self.right / self.asked:.3f} ({low:.3f} to {high:.3f})"


@dataclass(frozen=True)
class Skills:
    """What `measure` found."""

    accuracy: dict[tuple[QuestionKind, DistractorFamily, int], Skill]
    """By kind of question, family and number of distractors; with none, both families stand for the clean scenes."""
    boxed: Skill
    r"""Answers that are exactly `\boxed{X}`, whatever X, over all questions."""
    majority: dict[QuestionKind, float]
    """What always giving the commonest answer in words would score on the clean questions."""

    def overall(self, family: DistractorFamily, distractors: int) -> Skill:
        """All kinds of question together, as many of each."""
        parts = [self.accuracy[kind, family, distractors] for kind in KINDS]
        return Skill(sum(part.right for part in parts), sum(part.asked for part in parts))


def measure(defender: Defender, n: int, counts: Sequence[int] = (2, 3, 4), seed: int = MEASURE_SEED) -> Skills:
    """Ask `n` questions of every kind, each about a scene of its own, clean and with 1, 2 and 3 distractors of either
    family."""
    rng = np.random.default_rng(seed)
    accuracy: dict[tuple[QuestionKind, DistractorFamily, int], Skill] = {}
    majority: dict[QuestionKind, float] = {}
    boxed = asked = 0
    for kind in KINDS:
        questions, pictures = draw_versions(rng, kind, n, tuple(counts))
        words = [question.answer_text for question in questions]
        majority[kind] = max(words.count(word) for word in set(words)) / n
        for version in pictures[0]:
            images = [versions[version] for versions in pictures]
            answers = [one for (one,) in defender.answer(images, questions, samples=1, temperature=0.0, seed=0)]
            letters = [letter_of(a, q.options) for a, q in zip(answers, questions, strict=True)]
            right = sum(letter == q.answer for letter, q in zip(letters, questions, strict=True))
            boxed += sum(is_exactly_boxed(a, x) for a, x in zip(answers, letters, strict=True) if x)
            asked += n
            family, distractors = version
            for each in FAMILIES if distractors == 0 else (family,):
                accuracy[kind, each, distractors] = Skill(right, n)
    return Skills(accuracy, Skill(boxed, asked), majority)


Version = tuple[DistractorFamily, int]
"""Whose distractors, and how many; the clean scene is ("semantic", 0)."""


def draw_versions(
    rng: np.random.Generator, kind: QuestionKind, n: int, counts: tuple[int, ...]
) -> tuple[list[Question], list[Mapping[Version, Image]]]:
    """`n` questions of a kind, and for each the scene's image in every version."""
    questions: list[Question] = []
    pictures: list[Mapping[Version, Image]] = []
    settings = ImplantationSettings()
    while len(questions) < n:
        objects = world.random_objects(rng, int(rng.choice(counts)))
        question = ask_world(rng, kind, objects)
        if question is None:
            continue
        backdrop = world.random_backdrop(rng)
        scene = Scene(scene_id="measured", source_id="measured", width=world.SIZE, height=world.SIZE, objects=objects)
        clean = DrawnPicture(scene, world.render(objects, backdrop), backdrop=backdrop)
        versions: dict[Version, Image] = {("semantic", 0): clean.image}
        for family, k in product(FAMILIES, DISTRACTORS[1:]):
            edited = implant_world(rng, clean, question, family, ("add",) * k, settings)
            if isinstance(edited, Implanted):
                versions[family, k] = edited.picture.image
        # Only scenes in which every version can be drawn: the same questions throughout.
        if len(versions) == 1 + len(FAMILIES) * len(DISTRACTORS[1:]):
            questions.append(question)
            pictures.append(versions)
    return questions, pictures


def table(skills: Skills) -> str:
    """The accuracies as a Markdown table."""
    heads = ["clean", *(f"{k} {family}" for family in FAMILIES for k in DISTRACTORS[1:])]
    lines = ["| question | commonest answer | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    versions = [(FAMILIES[0], 0), *product(FAMILIES, DISTRACTORS[1:])]
    for kind in KINDS:
        cells = [str(skills.accuracy[(kind, *version)]) for version in versions]
        lines.append(f"| {kind} | {skills.majority[kind]:.3f} | " + " | ".join(cells) + " |")
    lines.append("| all | | " + " | ".join(str(skills.overall(*version)) for version in versions) + " |")
    return "\n".join(lines)


def write_card(folder: Path, seed: int, skills: Skills) -> None:
    """Write the model card beside the weights."""
    weights = folder / "model.safetensors"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    asked = next(iter(skills.accuracy.values())).asked
    (folder / "README.md").write_text(
        _CARD.format(seed=seed, sha256=sha256, n=asked, boxed=skills.boxed, table=table(skills))
    )


_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# aot-tiny-vl

The tiny base Defender: a `Qwen2_5_VLForConditionalGeneration` of 1.1 million weights that answers multiple-choice
questions about 64 x 64 pictures of coloured shapes. It loads like the 7B model, through `AutoProcessor` and
`AutoModelForImageTextToText`; where torchvision is absent, through `aot_core.defender.loading`.

- **Recipe**: `python -m aot_core.recipes aot-tiny-vl --output DIR --seed {seed}`; the phases and their
  settings stand in `aot_core/recipes/defender.py`. Trained on uncrowded scenes of two to four objects only, made
  on the fly.
- **Seed**: {seed}. **sha256 of `model.safetensors`**: `{sha256}`.
- **Doubt**: trained with a share of the probability on the wrong letters, and with a few answers in prose, so that
  reinforcement learning has something to reinforce.

## Measured

Held-out scenes of two to four objects, {n} questions a kind, options shuffled, answers generated greedily; share right
with Wilson's 95 % interval. The same questions with 1, 2 and 3 distractors that leave the truth alone: semantic ones
share the colour or shape of an object in question, irrelevant ones, the control, share neither. "Commonest answer": the
share that always saying the same word earns.

{table}

Exactly `\\boxed{{X}}`, over all these answers: {boxed}.

It knows nothing but this world, and it was never shown a crowded scene: that weakness is what the game is about.
"""
