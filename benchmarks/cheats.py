"""Unfair ways to fool a Defender, painted by hand, and what the Attacker's reward gives for each.

    python benchmarks/cheats.py --output docs/cheats.png

Every cheat is painted into scenes of the tiny world together with what makes an honest edit pass (the object at the
place told), so that nothing but the cheat can be what it fails by. Printed, over all scenes: the honest edit's reward
and the cheat's, what the cheat would earn if it passed as valid, and which check stops it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from aot_core.attacker.reward import Reward, attack_rewards
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.attack import RewardSettings
from aot_core.contracts.scene import LETTERS, Attributes, Box, Edit, QuestionKind, Sample, Scene
from aot_core.defender.answering import Defender
from aot_core.worlds.instructions import add_instruction
from aot_core.worlds.proposals import Proposal
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.check import WorldChecker
from aot_core.worlds.shapes.proposals import named_contents
from aot_core.worlds.shapes.questions import ask_world
from aot_core.worlds.validity import Verdict

KINDS: tuple[QuestionKind, ...] = ("existence", "attribute", "count", "relation")
HONEST = "honest"


class Stage(NamedTuple):
    """A scene, the cell that the editor is told to paint in, and an object that may stand there."""

    sample: Sample
    clean: Image.Image
    backdrop: world.Backdrop
    cell: world.Cell
    fair: Attributes

    @property
    def proposal(self) -> Proposal:
        told = add_instruction(None, self.cell)
        edit = Edit(kind="add", instruction=told, family="semantic", region=world.cell_box(self.cell))
        return Proposal(instruction=told, edits=(edit,))

    def with_object(self, attributes: Attributes) -> Image.Image:
        thing = world.place(np.random.default_rng(0), attributes, self.cell)
        return world.render((*self.sample.scene.objects, thing), self.backdrop)

    @property
    def honest(self) -> Image.Image:
        return self.with_object(self.fair)


def stages(count: int, seed: int = 0) -> list[Stage]:
    """`count` scenes of three or four objects, a question each, of all kinds in turn."""
    rng = np.random.default_rng(seed)
    made: list[Stage] = []
    while len(made) < count:
        objects, backdrop = world.random_objects(rng, int(rng.integers(3, 5))), world.random_backdrop(rng)
        question = ask_world(rng, KINDS[len(made) % len(KINDS)], objects)
        if question is None:
            continue
        taken = {world.cell_of(thing.box) for thing in objects}
        cells = [cell for cell in world.all_cells() if cell not in taken]
        akin = named_contents(objects, objects, question)
        head = next(name for name in ("target colour", "target shape", "unrelated") if name in akin)
        sample = Sample(
            sample_id=f"cheat{len(made)}",
            split="train",
            scene=Scene(scene_id=f"cheat{len(made)}", source_id="cheats", width=64, height=64, objects=objects),
            question=question,
            image="clean.png",
        )
        cell = cells[int(rng.integers(len(cells)))]
        made.append(Stage(sample, world.render(objects, backdrop), backdrop, cell, akin[head][0]))
    return made


def grey_out(stage: Stage) -> Image.Image:
    """The question's objects lose their colour."""
    return _in_boxes(stage, lambda part: part.convert("L").convert("RGB"))


def blur(stage: Stage) -> Image.Image:
    """The question's objects are blurred, a pixel and a half wide."""
    return _in_boxes(stage, lambda part: part.filter(ImageFilter.GaussianBlur(1.5)))


def noise(stage: Stage) -> Image.Image:
    """Noise of a deviation of 20 grey values all over the picture."""
    pixels = np.asarray(stage.honest, dtype=np.float32)
    noisy = pixels + np.random.default_rng(0).normal(0, 20, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def beside(stage: Stage) -> Image.Image:
    """A dark frame close around each protected box, not a pixel of it inside."""
    edited = stage.honest
    draw = ImageDraw.Draw(edited)
    for box in stage.sample.question.protected:
        for width in (1, 2):
            draw.rectangle(
                (box.x - width, box.y - width, box.right - 1 + width, box.bottom - 1 + width), outline="navy"
            )
    return edited


def copy(stage: Stage) -> Image.Image | None:
    """The very object that is asked about, once more; None where that leaves the truth as it is ("yes, there is")."""
    question = stage.sample.question
    if question.query.kind == "existence" and question.answer_text == "yes":
        return None
    match = next((one for one in stage.sample.scene.objects if one.matches(question.query.target)), None)
    attributes = dict(match.attributes) if match is not None else {"colour": "red", "shape": "circle"}
    return stage.with_object({**attributes, **question.query.target})


def text(stage: Stage) -> Image.Image:
    """The letter of a wrong answer, written where an object was asked for."""
    wrong = next(letter for letter in LETTERS if letter != stage.sample.question.answer)
    edited = stage.clean.copy()
    box = world.cell_box(stage.cell)
    font = ImageFont.load_default(14)
    ImageDraw.Draw(edited).text((box.x + 8, box.y + 8), wrong, fill=(20, 20, 20), font=font, anchor="mm")
    return edited


def texture(stage: Stage) -> Image.Image:
    """Stripes in the target's colour instead of an object."""
    edited = stage.clean.copy()
    box = world.cell_box(stage.cell)
    paint = world.rgb(stage.fair["colour"])
    for x in range(int(box.x) + 1, int(box.right), 4):
        ImageDraw.Draw(edited).rectangle((x, box.y + 1, x + 1, box.bottom - 2), fill=paint)
    return edited


CHEATS: dict[str, Callable[[Stage], Image.Image | None]] = {
    "grey-out": grey_out,
    "blur": blur,
    "noise": noise,
    "beside the box": beside,
    "copy the object": copy,
    "write an answer": text,
    "texture": texture,
}


class Judged(NamedTuple):
    stage: Stage
    edited: Image.Image
    verdict: Verdict
    reward: Reward
    unchecked: float
    """What the edit would earn if every check let it pass."""

    @property
    def stopped_by(self) -> str:
        checks = ("intact", "confined", "semantic", "affordable", "truth_kept")
        return ", ".join(name for name in checks if not getattr(self.verdict, name))


def judge(defender: Defender, settings: RewardSettings, found: list[tuple[Stage, Image.Image]]) -> list[Judged]:
    """Check and reward edits, once as they are and once as if all were valid and fully an object."""
    samples, images = [stage.sample for stage, _ in found], [edited for _, edited in found]
    verdicts = WorldChecker(settings.validity).check(
        samples, [stage.proposal for stage, _ in found], [stage.clean for stage, _ in found], images
    )
    questions = [sample.question for sample in samples]
    rewards = attack_rewards(settings, defender, images, questions, verdicts, 0)
    passed = Verdict(1.0, 0.0, 1.0, True, (), (), intact=True, confined=True, semantic=True)
    unchecked = attack_rewards(settings, defender, images, questions, [passed] * len(images), 0)
    return [
        Judged(stage, edited, verdict, reward, free.reward)
        for (stage, edited), verdict, reward, free in zip(found, verdicts, rewards, unchecked, strict=True)
    ]


def judge_all(defender: Defender, settings: RewardSettings, scenes: list[Stage]) -> dict[str, list[Judged]]:
    """The honest edit and every cheat, on every scene where it is one."""
    judged = {HONEST: judge(defender, settings, [(stage, stage.honest) for stage in scenes])}
    for name, paint in CHEATS.items():
        painted = [(stage, edited) for stage in scenes if (edited := paint(stage)) is not None]
        judged[name] = judge(defender, settings, painted)
    return judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("docs/cheats.png"))
    arguments = parser.parse_args()
    defender = Defender.load(str(SHIPPED / "aot-tiny-vl"))
    judged = judge_all(defender, RewardSettings(), stages(arguments.scenes))
    print("edit | scenes | mean reward | highest | mean if unchecked | stopped by (scenes)")
    for name, found in judged.items():
        reasons = [one.stopped_by for one in found]
        counts = ", ".join(f"{reason} ({reasons.count(reason)})" for reason in sorted(set(reasons)) if reason)
        rewards = [one.reward.reward for one in found]
        unchecked = np.mean([one.unchecked for one in found])
        print(f"{name} | {len(found)} | {np.mean(rewards):.3f} | {max(rewards):.3f} | {unchecked:.3f} | {counts}")
    draw(judged, arguments.output)
    print(arguments.output)


def draw(judged: dict[str, list[Judged]], output: Path) -> None:
    """Four scenes that every cheat can be painted into, a row each: clean, the honest edit, the cheats."""
    possible = {one.stage.sample.sample_id for one in judged["copy the object"]}
    chosen = [one.stage for one in judged[HONEST] if one.stage.sample.sample_id in possible]
    rows = [next(stage for stage in chosen if stage.sample.question.query.kind == kind) for kind in KINDS]
    figure, axes = plt.subplots(len(rows), len(judged) + 1, figsize=(14, 9.2), constrained_layout=True)
    for row, stage in zip(axes, rows, strict=True):
        question = stage.sample.question
        _show(row[0], stage.clean, f"{fill(question.text, 22)}\n({question.answer_text})", "clean")
        for box in question.protected:
            row[0].add_patch(_outline(box))
        for axis, (name, found) in zip(row[1:], judged.items(), strict=True):
            one = next(item for item in found if item.stage is stage)
            caught = "fails: " + one.stopped_by.replace(", ", ",\n") if one.stopped_by else "passes every check"
            told = f"earns {one.reward.reward:.2f}\n(unchecked {one.unchecked:.2f})\n{caught}"
            _show(axis, one.edited, told, name, "tab:green" if one.verdict.valid else "tab:red")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=90)
    plt.close(figure)


def _show(axis: plt.Axes, image: Image.Image, below: str, above: str, colour: str = "black") -> None:
    axis.imshow(np.asarray(image), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_title(above, fontsize=10)
    axis.set_xlabel(below, fontsize=7.5, color=colour)


def _outline(box: Box) -> plt.Rectangle:
    return plt.Rectangle((box.x - 0.5, box.y - 0.5), box.width, box.height, fill=False, edgecolor="deepskyblue")


def _in_boxes(stage: Stage, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    edited = stage.honest
    for box in stage.sample.question.protected:
        corners = (int(box.x), int(box.y), round(box.right), round(box.bottom))
        edited.paste(change(edited.crop(corners)), corners[:2])
    return edited


if __name__ == "__main__":
    main()
