"""What a base Defender does among distractors, and how much better it could do: its headroom, in minutes.

    python benchmarks/headroom.py aot-tiny-vl --right 80
    python benchmarks/headroom.py aot-tiny-vl --steps 250 --scenes 6 --crowds 1 --rate 0.3 --output DIR --right 60

With `--steps` the recipe's last phase is gone on with first: that many steps of `--scenes` uncrowded scenes with the
phase's own lessons (multiple-choice questions among them), beside `--crowds` scenes of five to seven objects in which
only `--looking` lessons are taught. The learning rate falls from `--rate` times the recipe's to a twentieth of that.
OUTPUT keeps the model.

Prints, by kind of question, the share of right letters: clean, with 1, 2 and 3 semantic distractors and with 3
irrelevant ones. Then the same after `--right` steps in which its letters alone are taught, three quarters of them
about distracted scenes (`defender_ceiling.py`'s arm of that name, on scenes drawn here). "Sure" is the mean probability
of three right answers at temperature 0.5. `--places` asks the relation questions' parts instead: where either object
is, and the question plainly, without options. Fewer questions than `fragility.py` and no generation: for the search,
not for the record.
"""

import argparse
import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from defender_ceiling import CLEAN_SHARE, Arm, Asked, loss_of, sure
from PIL.Image import Image
from tqdm import trange

from aot_core.base_models.names import model_folder
from aot_core.contracts.scene import Box, Question, QuestionKind
from aot_core.defender.answering import Defender
from aot_core.recipes import defender as recipe
from aot_core.recipes.defender_lessons import KINDS, Lesson, draw_lessons
from aot_core.recipes.defender_packing import answer_loss, pack
from aot_core.recipes.defender_skills import MEASURE_SEED, Version, draw_versions
from aot_core.tracking.protocol import NullTracker
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.implantation import find_distractor, words_in_question
from aot_core.worlds.shapes.questions import ask_world

VERSIONS: tuple[Version, ...] = (
    ("semantic", 0), ("semantic", 1), ("semantic", 2), ("semantic", 3), ("irrelevant", 3),
)  # fmt: skip
COUNTS = (2, 3, 4)
CROWDED = (5, 6, 7)
RATE, PROMPTS = 1e-4, 64
"""Of the `right` arm, as in `defender_ceiling.py`."""

Shown = dict[QuestionKind, dict[Version, list[Asked]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("defender", help="shipped name or folder")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=6, help="uncrowded ones a step")
    parser.add_argument("--crowds", type=float, default=1.0, help="crowded ones a step; a fraction is a chance")
    parser.add_argument("--lookalikes", action="store_true", help="crowds of three colours and three shapes")
    parser.add_argument("--looking", nargs="+", default=["where=1.5", "what=0.7"], metavar="LESSON=WEIGHT")
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--right", type=int, default=0, metavar="STEPS")
    parser.add_argument("--places", action="store_true")
    parser.add_argument("--questions", type=int, default=150, help="of every kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = model_folder(arguments.defender)
    if folder is None:
        raise SystemExit(f"{arguments.defender!r} is no shipped model and no folder; give one of them")
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.steps:
            folder = go_on(folder, arguments, arguments.output or Path(scratch))
        base = Defender.load(str(folder), batch_size=100)
    exam = examination(arguments.questions)
    if arguments.places:
        show_places(base, exam)
        return
    heads = ("clean", *(f"{count} {family}" for family, count in VERSIONS[1:]))
    print("| model | CPU s | question | " + " | ".join((*heads, "sure, clean", "sure, 3 semantic")) + " |")
    print("|---" * (len(heads) + 5) + "|")
    show("as it is", time.process_time() - begun, base, exam)
    if arguments.right:
        begun = time.process_time()
        told = tell(base, arguments.right)
        show(f"told, {arguments.right} steps", time.process_time() - begun, told, exam)


def go_on(folder: Path, arguments: argparse.Namespace, output: Path) -> Path:
    """Teach the model in `folder` on; saved in `output`."""
    looking = {name: float(weight) for name, weight in (lesson.split("=") for lesson in arguments.looking)}
    phase = recipe.LanguagePhase(
        name="crowds",
        steps=arguments.steps,
        mixture=recipe.ASK.mixture,
        object_counts=COUNTS,
        final_rate=0.05,
        full_rate=arguments.rate,
        images=arguments.scenes,
        crowds=recipe.Scenes(
            mixture=looking,
            object_counts=CROWDED,
            images=arguments.crowds,
            lessons=14,
            lookalikes=arguments.lookalikes,
        ),
    )
    model, processor = recipe.teach(folder, phase, arguments.seed, NullTracker())
    model.save_pretrained(output)
    processor.save_pretrained(output)
    return output


def examination(questions: int) -> Shown:
    shown: Shown = {}
    for number, kind in enumerate(KINDS):
        asked, pictures = draw_versions(np.random.default_rng([MEASURE_SEED, number]), kind, questions, COUNTS)
        shown[kind] = {
            version: [(versions[version], question) for question, versions in zip(asked, pictures, strict=True)]
            for version in VERSIONS
        }
    return shown


def show(name: str, seconds: float, defender: Defender, exam: Shown) -> None:
    """A row a kind of question."""
    for kind, versions in exam.items():
        rights = [f"{_right(defender, versions[version]):.3f}" for version in VERSIONS]
        certain = [f"{np.mean(sure(defender, versions['semantic', count])):.3f}" for count in (0, 3)]
        print(f"| {name} | {seconds:.0f} | {kind} | " + " | ".join((*rights, *certain)) + " |", flush=True)


def _right(defender: Defender, asked: list[Asked]) -> float:
    letters = defender.letter_logprobs([image for image, _ in asked], [question for _, question in asked])
    pairs = zip(letters, asked, strict=True)
    return float(np.mean([max(known, key=lambda x: known[x]) == question.answer for known, (_, question) in pairs]))


def show_places(defender: Defender, exam: Shown) -> None:
    """Whether a wrong relation comes of a wrong place: a row a version of the relation questions' scenes."""
    print(
        "| version | target found | reference found | both | relation | where both | where not |\n" + "|---" * 7 + "|"
    )
    for version in (VERSIONS[0], VERSIONS[3]):
        asked = exam["relation"][version]
        rights = torch.cat([_parts_right(defender, asked[i : i + 50]) for i in range(0, len(asked), 50)])
        target, reference, relation = rights.T
        both = target & reference
        shares = (target, reference, both, relation, relation[both], relation[~both])
        cells = " | ".join(f"{share.float().mean():.3f}" for share in shares)
        print(f"| {version[1]} {version[0]} | {cells} |", flush=True)
    print(f"An object found among {CROWDED[0]} to {CROWDED[-1]} lookalikes: {_found_among_lookalikes(defender):.3f}")


def _found_among_lookalikes(defender: Defender, scenes: int = 64) -> float:
    """Share of 4 "where" lessons a scene that are answered rightly."""
    rng = np.random.default_rng(MEASURE_SEED)
    drawn = [recipe.lookalike_scene(rng, CROWDED) for _ in range(scenes)]
    lessons = [draw_lessons(rng, objects, {"where": 1.0}, 4) for objects, _ in drawn]
    return _lessons_right(defender, [image for _, image in drawn], lessons).float().mean().item()


def _parts_right(defender: Defender, asked: list[Asked]) -> torch.Tensor:
    """(questions, 3) bool: where the target is, where the reference is, and the relation of the two."""
    lessons = []
    for _, question in asked:
        target, reference = _target_first(question)
        query = question.query
        lessons.append(
            [
                Lesson(f"Where is the {' '.join(query.target.values())}?", _place(target)),
                Lesson(f"Where is the {' '.join(query.reference.values())}?", _place(reference)),
                Lesson(question.text, question.answer_text),
            ]
        )
    return _lessons_right(defender, [image for image, _ in asked], lessons).view(-1, 3)


@torch.no_grad()
def _lessons_right(defender: Defender, images: list[Image], lessons: list[list[Lesson]]) -> torch.Tensor:
    """(lessons of all images,) bool: every token of the answer right, teacher-forced."""
    features = recipe.visual_tokens(defender.model, defender.processor, images)
    packed = pack(defender.processor, defender.model, lessons, world.GRID)
    _, right = answer_loss(defender.model, packed, features)
    wrong = torch.zeros(sum(map(len, lessons))).index_add(0, packed.lesson, (~right).float())
    return wrong == 0


def _target_first(question: Question) -> list[Box]:
    """The two boxes of a relation question: its answer tells which is which."""
    axis = 0 if question.answer_text in ("left", "right") else 1
    return sorted(
        question.protected, key=lambda box: box.centre[axis], reverse=question.answer_text in ("right", "below")
    )


def _place(box: Box) -> str:
    row, column = world.cell_of(box)
    return f"row {row + 1}, column {column + 1}"


def tell(base: Defender, steps: int) -> Defender:
    """A copy of the base that was told the right letters about distracted scenes."""
    learner = Defender(copy.deepcopy(base.model), base.processor, batch_size=base.batch_size)
    for name, parameter in learner.model.named_parameters():
        parameter.requires_grad_(".visual." not in f".{name}")
    weights = [parameter for parameter in learner.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    rng = np.random.default_rng(1234)
    for _ in trange(steps, desc="told", disable=None):
        loss_of(Arm.parse("right"), learner, _distracted(rng)).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return learner


def _distracted(rng: np.random.Generator) -> list[Asked]:
    """`PROMPTS` questions, as many of every kind, most of them about scenes with up to three semantic distractors."""
    asked: list[Asked] = []
    while len(asked) < PROMPTS:
        objects = list(world.random_objects(rng, int(rng.choice(COUNTS))))
        question = ask_world(rng, KINDS[len(asked) % len(KINDS)], objects)
        if question is None:
            continue
        words = words_in_question(question.query, objects)
        for _ in range(3 if rng.random() > CLEAN_SHARE else 0):
            found = find_distractor(rng, objects, objects, question, words, "semantic")
            taken = {world.cell_of(thing.box) for thing in objects}
            free = [cell for cell in world.all_cells() if cell not in taken]
            if found is None or not free:
                break
            objects.append(world.place(rng, found, free[int(rng.integers(len(free)))]))
        asked.append((world.render(objects, world.random_backdrop(rng)), question))
    return asked


if __name__ == "__main__":
    main()
