"""The attacks of a campaign, to be browsed in its report: without a script, by mouse and by keyboard.

    what curation kept of a round -> a choice over kinds of question, of edit, and learnability -> `Attack`s -> the page

A choice is a radio button, so that the arrow keys go to the next and the previous one; filters are radio buttons too,
and the style sheet hides what they leave out, which the arrow keys then pass over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from aot_core.contracts.scene import LETTERS, Sample
from aot_core.contracts.summary import CampaignSummary
from aot_core.data.dataset import load_image, read_samples
from aot_core.evaluation.items import edit_kind
from aot_core.evaluation.web_pictures import data_uri, webp
from aot_core.worlds.images import DataError

PER_ROUND = 24
ALL = 120
"""Attacks shown, at most, a round and in all."""
_SIDE = 192
"""The longer side of a picture on the page; tiny ones stay as they are and are enlarged by the browser."""
_ENLARGED = 144
"""The longer side, at most, that a tiny picture is enlarged to for a page whose style is not ours."""

Learnability = Literal["never right", "seldom right", "half right", "mostly right"]
_STEPS: tuple[tuple[float, Learnability], ...] = (
    (0.0, "never right"), (0.4, "seldom right"), (0.6, "half right"), (1.0, "mostly right")
)  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """An edit that was kept as a lesson, and what it did."""

    round: int
    kind: str
    """Of the edit: "add", "remove and replace"."""
    question_kind: str
    learnable: Learnability
    """How often the Defender of the round before was right about it: what a lesson can still teach."""
    question: str
    options: tuple[tuple[str, str, bool], ...]
    """(letter, text, whether it is the truth)."""
    instruction: str
    clean_right: float
    """Share of right answers to the clean picture, 0..1."""
    edited_right: float
    """The same of the edited one."""
    ssim: float
    clean: str
    edited: str
    """WebP as data URIs."""

    @property
    def told(self) -> str:
        """In a line, for those who do not see the picture."""
        return f"round {self.round}: {self.instruction} {self.question} {self.learnable}"


@dataclass(frozen=True)
class Gallery:
    """The attacks, and the filters they can be browsed by."""

    attacks: tuple[Attack, ...]
    filters: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(name, heading, values) of those with more than one value."""
    kept: int
    """How many were kept as lessons in all."""


def gallery_of(summary: CampaignSummary) -> Gallery:
    """The attacks of a campaign's rounds; empty where no round has kept any, or the store no longer holds them."""
    attacks: list[Attack] = []
    kept = 0
    rounds = [step for step in summary.steps if step.record.stage == "curate" and step.pictures]
    each = min(PER_ROUND, ALL // max(len(rounds), 1))
    for step in rounds:
        folder = Path(step.pictures[0]).parent.parent
        try:
            samples = read_samples(folder)
            attacks += [_attack(step.round, folder, sample) for sample in _choice(samples, each)]
        except (DataError, OSError):
            continue  # `aot store gc` took it, or another machine holds it
        kept += len(samples)
    headings = {
        "round": [str(attack.round) for attack in attacks],
        "edit": [attack.kind for attack in attacks],
        "question": [attack.question_kind for attack in attacks],
        "answers": [name for _, name in _STEPS if any(attack.learnable == name for attack in attacks)],
    }
    filters = tuple((f"f-{name}", name, tuple(dict.fromkeys(values))) for name, values in headings.items())
    return Gallery(tuple(attacks), tuple(f for f in filters if len(f[2]) > 1), kept)


def examples(summary: CampaignSummary, count: int) -> list[Attack]:
    """So many attacks, at most, of the last round that has kept any, a scene once and of every kind in turn; their
    pictures are enlarged where they are tiny, for pages that cannot do that."""
    rounds = [step for step in summary.steps if step.record.stage == "curate" and step.pictures]
    for step in reversed(rounds):
        folder = Path(step.pictures[0]).parent.parent
        try:
            if chosen := _choice(read_samples(folder), count):
                return [_attack(step.round, folder, sample, enlarge=True) for sample in chosen]
        except (DataError, OSError):
            continue  # as in `gallery_of`
    return []


def attack_value(attack: Attack, heading: str) -> str:
    """What a filter of this heading goes by."""
    values = {"round": str(attack.round), "edit": attack.kind, "question": attack.question_kind}
    return values.get(heading, attack.learnable)


def _choice(samples: Sequence[Sample], count: int) -> list[Sample]:
    """So many samples, in turn from every kind of question, edit and learnability, a scene once: the commonest kind
    would else fill the page."""
    groups: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        if sample.edited_image is None or sample.edited_correct is None:
            continue
        key = (sample.question.query.kind, edit_kind(sample.edits), _learnable(sample.edited_correct))
        groups.setdefault(key, []).append(sample)
    chosen: list[Sample] = []
    seen: set[str] = set()
    queues = [sorted(group, key=lambda s: (s.edited_correct, s.sample_id)) for _, group in sorted(groups.items())]
    while queues and len(chosen) < count:
        for queue in queues:
            while queue and queue[0].scene.scene_id in seen:
                queue.pop(0)
            if queue and len(chosen) < count:
                seen.add(queue[0].scene.scene_id)
                chosen.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    return chosen


def _learnable(right: float) -> Learnability:
    return next(name for most, name in _STEPS if right <= most)


def _attack(round_index: int, folder: Path, sample: Sample, *, enlarge: bool = False) -> Attack:
    assert sample.edited_image is not None and sample.edited_correct is not None
    question = sample.question
    options = zip(LETTERS, question.options, strict=False)
    return Attack(
        round=round_index,
        kind=edit_kind(sample.edits) or "none",
        question_kind=question.query.kind,
        learnable=_learnable(sample.edited_correct),
        question=question.text,
        options=tuple((letter, text, letter == question.answer) for letter, text in options),
        instruction=sample.instruction,
        clean_right=sample.clean_correct or 0.0,
        edited_right=sample.edited_correct,
        ssim=sample.ssim or 0.0,
        clean=_uri(load_image(folder, sample.image), enlarge),
        edited=_uri(load_image(folder, sample.edited_image), enlarge),
    )


def _uri(image: Image.Image, enlarge: bool) -> str:
    small = max(image.size) <= _SIDE
    if enlarge and (factor := _ENLARGED // max(image.size)) > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if not small:
        image.thumbnail((_SIDE, _SIDE))
    return data_uri(webp(image, lossless=small))
