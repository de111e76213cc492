"""The body of `aot attack`: one picture and question, any Attacker, any Defender, outside a campaign.

picture, question -> sample -> proposals -> edits -> verdicts, answers, rewards -> PNGs, report.json, index.html
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console

from aot_core.contracts.attack_report import AttackedEdit, AttackReport, ProbeSettings
from aot_core.contracts.learning import DType, EditorSettings
from aot_core.contracts.paths import local_path
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import LETTERS, Sample
from aot_core.contracts.terminal import table
from aot_core.worlds.opening import world_of
from aot_core.worlds.probe import sample_of
from aot_core.worlds.protocol import ProbeError

if TYPE_CHECKING:
    from PIL.Image import Image

    from aot_core.attacker.editing import Attacker
    from aot_core.attacker.reward import SureAnswerer
    from aot_core.attacker.scenes import Attempt
    from aot_core.attacker.tactics import AttackPolicy

REPORT, PAGE, SHEET, CLEAN = "report.json", "index.html", "sheet.png", "clean.png"
SHEET_ROWS = 12
"""The most successful edits, on the contact sheet and in the terminal."""
_DRAWN_SIZE = (64, 64)
"""Width and height of the drawn world's pictures."""
_FORMS = (
    "Is there a red ring?",
    "What colour is the ring?",
    "What shape is the red object?",
    "How many rings are there?",
    "How many red objects are there?",
    "Where is the red ring, seen from the blue square?",
)
"""A question of each form that the drawn world's parser reads."""


class Player(NamedTuple):
    """A model by name (shipped, folder or hub), or an artifact's folder with `model/` or `adapter/`."""

    name: str
    base: str | None = None
    """Where the folder holds an adapter: the model that it was trained on."""

    def artifact(self, field: str) -> Path | None:
        """The folder where it is an artifact. Raises ProbeError for an adapter whose base is not named."""
        folder = local_path(self.name)
        if not any((folder / part).is_dir() for part in ("model", "adapter")):
            return None
        if self.base is None and not (folder / "model").is_dir():
            raise ProbeError(f"{field} {self.name!r} holds an adapter; name its base model with --{field}-base")
        return folder


@dataclass(frozen=True)
class AskedPicture:
    """A picture from outside, and what the Defender is asked about it (see `sample_of`)."""

    image: Path
    question: str
    options: Sequence[str]
    answer: str
    """The right option, in its words or by its letter."""
    boxes: Sequence[str] = ()
    """"X,Y,WIDTH,HEIGHT" in pixels, of what the question is about."""


@dataclass(frozen=True)
class Match:
    """Who attacks whom, and how both are loaded."""

    attacker: Player
    defender: Player
    editor: EditorSettings | None = None
    """For the big editors; None is their defaults."""
    device: str = "auto"
    dtype: DType = "float32"


def attack(asked: AskedPicture, match: Match, settings: ProbeSettings, output: Path) -> AttackReport:
    """Attack one picture and write everything into the new folder `output`.

    Raises ValueError (ProbeError, UnknownModelError, ...) with the field and the fix; before any model is loaded where
    the picture, the question or a box is to blame.
    """
    sample, picture = sample_of(asked.image, asked.question, asked.options, asked.answer, asked.boxes)
    photograph = world_of(sample).photographs
    if settings.judge and not photograph:
        raise ProbeError(
            "judge: a parser reads this picture of the procedural world, which needs no judge; leave it out"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ProbeError(f"output {str(output)!r} exists already and is not empty; give a new folder")
    attacker, defender = match.attacker, match.defender
    places = attacker.artifact("attacker"), defender.artifact("defender")
    from aot_core.attacker.editing import Attacker
    from aot_core.attacker.tactics import AttackPolicy
    from aot_core.defender.checkpoints import load_defender
    from aot_core.engine.runner import resolve_device
    from aot_core.stages.helpers.judging import open_judge

    where = resolve_device(match.device)
    loaded = Attacker.load(
        attacker.base or attacker.name, places[0], where, match.dtype, steps=settings.steps, settings=match.editor
    )
    if photograph and loaded.adapter.settings is None:
        raise ProbeError(_not_its_world(attacker.name, asked.question, picture))
    policy = AttackPolicy.load(places[0]) if places[0] else AttackPolicy()
    answerer = load_defender(places[1], defender.base or defender.name, where, match.dtype)
    validity = settings.reward(photograph=photograph).validity
    judge = open_judge(validity.judge, validity, where) if validity.judge else None
    edits, clean = probe(loaded, policy, answerer, sample, picture, settings, judge)
    report = AttackReport(
        image=asked.image.name,
        question=sample.question,
        attacker=attacker.name,
        defender=defender.name,
        settings=settings,
        truth_by=("judge" if settings.judge else "regions") if photograph else "parser",
        clean_answers=clean,
        clean_right=_right(clean, sample),
        edits=tuple(edit for edit, _ in edits),
    )
    write(report, picture, [edited for _, edited in edits], output)
    return report


def probe(
    attacker: "Attacker",
    policy: "AttackPolicy",
    defender: "SureAnswerer",
    sample: Sample,
    picture: "Image",
    settings: ProbeSettings,
    judge: Answerer | None = None,
) -> tuple[list[tuple[AttackedEdit, "Image"]], tuple[str | None, ...]]:
    """The edits with their pictures, the most successful first, and the answers to the clean picture.

    Raises ProbeError where the picture has no room for an edit beside the protected boxes.
    """
    from aot_core.attacker.reward import answered_letters, attack_rewards

    attempts = _proposals(policy, sample, picture, settings)
    proposals = [attempt.proposal for attempt in attempts]
    pictures, samples = [picture] * len(attempts), [sample] * len(attempts)
    edited = attacker.edit(pictures, [proposal.instruction for proposal in proposals], seed=settings.seed)
    world = world_of(sample)
    reward = settings.reward(photograph=world.photographs)
    verdicts = world.check(reward.validity, samples, proposals, pictures, edited, judge)
    questions = [sample.question] * len(attempts)
    rewards = attack_rewards(reward, defender, edited, questions, verdicts, settings.seed)
    # Training does not ask about invalid edits; here their effect is of interest too.
    how = (settings.samples, settings.temperature, settings.seed)
    rest = [number for number, verdict in enumerate(verdicts) if not verdict.valid]
    others = answered_letters(defender, [edited[i] for i in rest], [questions[i] for i in rest], *how)
    answers = dict(zip(rest, others, strict=True))
    (clean,) = answered_letters(defender, [picture], [sample.question], *how)
    found = []
    for number, (proposal, verdict, earned) in enumerate(zip(proposals, verdicts, rewards, strict=True)):
        said = answers.get(number, earned.answers)
        edit = AttackedEdit(
            file="",
            instruction=proposal.instruction,
            answers=said,
            right=_right(said, sample),
            misled=verdict.valid and earned.success == 1.0 and _right(clean, sample) == 1.0,
            **{name: getattr(verdict, name) for name in ("valid", "intact", "confined", "semantic", "truth_kept")},
            **{name: getattr(verdict, name) for name in ("ssim", "outside", "confidence")},
            **{name: getattr(earned, name) for name in ("reward", "efficacy", "margin")},
        )
        found.append((edit, edited[number]))
    found.sort(key=lambda pair: (not pair[0].misled, not pair[0].valid, -pair[0].reward, pair[0].right))
    named = [edit.model_copy(update={"file": f"edit-{number:03d}.png"}) for number, (edit, _) in enumerate(found)]
    return [(edit, image) for edit, (_, image) in zip(named, found, strict=True)], clean


def write(report: AttackReport, picture: "Image", edited: Sequence["Image"], output: Path) -> None:
    """PNGs, `report.json`, `sheet.png` and `index.html` into a folder. The report is written last."""
    from aot_core.data.gallery import GalleryRow, gallery

    output.mkdir(parents=True, exist_ok=True)
    picture.save(output / CLEAN)
    rows = []
    for edit, image in zip(report.edits, edited, strict=True):
        image.save(output / edit.file)
        caption = f"{edit.instruction} SSIM {edit.ssim:.3f}, reward {edit.reward:.2f}"
        rows.append(GalleryRow(picture, image, report.question, report.clean_answers, edit.answers, caption))
    title = f"{report.defender} under {report.attacker}: {report.misled} of {report.valid} valid edits mislead"
    gallery(rows[:SHEET_ROWS], title).save(output / SHEET)
    templates = Environment(
        loader=PackageLoader("aot_core.commands", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = templates.get_template("attacking.html.j2").render(report=report, letters=LETTERS, clean=CLEAN)
    (output / PAGE).write_text(page, encoding="utf-8")
    (output / REPORT).write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")


def print_report(report: AttackReport, output: Path) -> None:
    """A row an edit, the most successful first, and the figures."""
    title = f"{report.question.text} ({report.question.answer}) clean: {_said(report.clean_answers)}"
    figures = ("SSIM", "reward")
    printed = table(title, "edit", "instruction", "answers", "SSIM", "valid", "reward", right=figures, whole=figures)
    for edit in report.edits[:SHEET_ROWS]:
        told = edit.instruction.partition(" Question: ")[0]
        colour = "red" if edit.misled else ""
        reasons = {"touched": edit.intact, "beside": edit.confined, "undone": edit.semantic, "untrue": edit.truth_kept}
        valid = "yes" if edit.valid else ", ".join(reason for reason, held in reasons.items() if not held)
        printed.add_row(
            edit.file, told, _said(edit.answers), f"{edit.ssim:.3f}", valid, f"{edit.reward:.2f}", style=colour
        )
    console = Console()
    console.print(printed)
    console.print(
        f"{len(report.edits)} edits, {report.valid} valid; {report.misled} mislead {report.defender} every time. "
        f"Wrong answers: {1 - report.clean_right:.0%} on the clean picture, {report.wrong:.0%} on valid edits. "
        f"Truth checked by the {report.truth_by}. Full report: {output / PAGE}"
    )
    if report.clean_right < 1:
        console.print("The clean picture is not always answered right, so no edit counts as misleading.")
    if len(report.edits) > SHEET_ROWS:
        console.print(f"The table shows the first {SHEET_ROWS} edits; – is an answer that names no option.")


def _proposals(policy: "AttackPolicy", sample: Sample, picture: "Image", settings: ProbeSettings) -> "list[Attempt]":
    import numpy as np

    from aot_core.attacker.scenes import AttackError, Target, draw
    from aot_core.contracts.attack import ProposalSettings

    rng = np.random.default_rng([settings.seed, 41])
    wanted = ProposalSettings(edits=settings.edits)
    try:
        return draw(rng, [Target(sample, picture)], wanted, policy, settings.count)
    except AttackError as error:
        raise ProbeError(
            "boxes: they leave no room for an edit; give the boxes of what the question is about alone, or a picture "
            "that shows more"
        ) from error


def _not_its_world(attacker: str, question: str, picture: "Image") -> str:
    """Why an editor of the drawn world cannot edit a picture: its size, or the question alone."""
    fix = "give --attacker a general editor, such as Qwen/Qwen-Image-Edit"
    if picture.size == _DRAWN_SIZE:
        return (
            f"question: {question!r} is not one of the forms that a parser reads, and attacker {attacker!r} edits the "
            f"drawn world alone; ask in one of these forms, or {fix}: {'; '.join(_FORMS)}"
        )
    width, height = _DRAWN_SIZE
    return (
        f"attacker {attacker!r} edits pictures of the drawn world alone ({width}x{height} pixels), and this one has "
        f"{picture.width}x{picture.height}; {fix}"
    )


def _right(answers: Sequence[str | None], sample: Sample) -> float:
    return sum(answer == sample.question.answer for answer in answers) / len(answers)


def _said(answers: Sequence[str | None]) -> str:
    return " ".join(answer or "–" for answer in answers)
