"""Curation: the new Attacker edits fresh scenes, and what is fair and hard becomes the Defender's next
lesson.

    targets -> edits -> checks (each counted: the funnel) -> the Defender's share of right answers
            -> hopeless | hard | trivial -> a mix

Hopeless edits (never answered right) and trivial ones (always) give flat groups and teach nothing today, but
a share of both keeps the lesson honest; how much, the config says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from aot_core.attacker.reward import answered_letters
from aot_core.attacker.scenes import AttackError, Target, propose_for
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.base import Frozen
from aot_core.contracts.curate import CurateConfig
from aot_core.contracts.protocols import Answerer, Editor
from aot_core.worlds.opening import world_of
from aot_core.worlds.proposals import Proposal
from aot_core.worlds.validity import Verdict


@dataclass(frozen=True)
class CuratedEdit:
    """A valid edit and how the Defender fares on it."""

    target: Target
    proposal: Proposal
    edited: Image.Image
    verdict: Verdict
    answers: tuple[str | None, ...]
    clean_answers: tuple[str | None, ...]

    @property
    def correct(self) -> float:
        """Share of right answers on the edited image."""
        return self._share(self.answers)

    @property
    def clean_correct(self) -> float:
        return self._share(self.clean_answers)

    def _share(self, answers: Sequence[str | None]) -> float:
        right = self.target.sample.question.answer
        return sum(letter == right for letter in answers) / len(answers)


ValidEdit: TypeAlias = tuple[Target, Proposal, Image.Image, Verdict]
"""The target, the proposal, the edited image, and what the checks found."""


class Funnel(Frozen):
    """How many edits passed each check; every number is a part of the one before it, down to `valid`."""

    edited: int
    intact: int
    confined: int
    semantic: int
    valid: int
    hopeless: int = 0
    trivial: int = 0
    hard: int = 0
    kept: int = 0


class NoValidEditError(AttackError):
    """Not one edit of an Attacker is valid."""

    def __init__(self, message: str, funnel: Funnel) -> None:
        super().__init__(message)
        self.funnel = funnel
        """What its edits failed by: where other Attackers go on, they still count as edited."""


def draw_shares(draw: str, successes: Sequence[float], form: Literal["success", "variance"] = "success") -> list[float]:
    """How likely each Attacker is to be given a scene, the newest last; adds up to 1.

    "prioritised" goes by success x (or, with `form` "variance", by x (1 - x)) and a twentieth more, so that one that
    never succeeded is not lost from sight.
    """
    if draw == "newest":
        return [0.0] * (len(successes) - 1) + [1.0]
    weights = [1.0 if draw == "uniform" else _priority(success, form) + 0.05 for success in successes]
    return [weight / sum(weights) for weight in weights]


def _priority(success: float, form: Literal["success", "variance"]) -> float:
    return success * (1 - success) if form == "variance" else success


def join_funnels(funnels: Sequence[Funnel]) -> Funnel:
    """The counts of several Attackers' edits, added up."""
    counts = [funnel.model_dump() for funnel in funnels]
    return Funnel(**{name: sum(count[name] for count in counts) for name in Funnel.model_fields})


def make_edits(
    editor: Editor,
    policy: AttackPolicy,
    targets: Sequence[Target],
    config: CurateConfig,
    rng: np.random.Generator,
    photo_judge: Answerer | None = None,
) -> tuple[list[ValidEdit], Funnel]:
    """Edit every target `edits_per_scene` times and check. Returns the valid edits and the funnel so far.

    Raises NoValidEditError where not one edit is valid, AttackError where no scene has room for any.
    """
    wanted = [
        (attempt.target, attempt.proposal)
        for target in targets
        for _ in range(config.edits_per_scene)
        if (attempt := propose_for(rng, target, config.proposals, policy)) is not None
    ]
    if not wanted:
        raise AttackError("curate: no scene has free cells for the edits; lower curate.proposals.edits")
    edited, verdicts = paint(editor, wanted, config, config.seed, photo_judge)
    funnel = count(verdicts)
    valid = [
        (target, proposal, image, verdict)
        for (target, proposal), image, verdict in zip(wanted, edited, verdicts, strict=True)
        if verdict.valid
    ]
    if not valid:
        raise NoValidEditError(
            f"curate: 0 of {len(wanted)} edits are valid ({funnel.intact} left the protected boxes intact, "
            f"{funnel.confined} of these changed nothing else, {funnel.semantic} of these show objects, "
            f"{funnel.valid} of these keep the truth); lower "
            "curate.validity.min_ssim or min_confidence, or train the Attacker with a higher attacker_round.kl",
            funnel,
        )
    return valid, funnel


def paint(
    editor: Editor,
    wanted: Sequence[tuple[Target, Proposal]],
    config: CurateConfig,
    seed: int,
    photo_judge: Answerer | None = None,
) -> tuple[list[Image.Image], list[Verdict]]:
    """Carry out proposals and check what came of them, in order."""
    images = [target.image for target, _ in wanted]
    edited = editor.edit(images, [proposal.instruction for _, proposal in wanted], seed=seed)
    samples = [target.sample for target, _ in wanted]
    proposals = [proposal for _, proposal in wanted]
    return edited, world_of(samples[0]).check(config.validity, samples, proposals, images, edited, photo_judge)


def count(verdicts: Sequence[Verdict]) -> Funnel:
    """How many edits passed each check, and all before it."""
    intact = [verdict for verdict in verdicts if verdict.intact]
    confined = [verdict for verdict in intact if verdict.confined]
    semantic = [verdict for verdict in confined if verdict.semantic]
    return Funnel(
        edited=len(verdicts),
        intact=len(intact),
        confined=len(confined),
        semantic=len(semantic),
        valid=sum(verdict.valid for verdict in verdicts),
    )


def ask_about(defender: Answerer, edits: Sequence[ValidEdit], config: CurateConfig) -> list[CuratedEdit]:
    """Ask the Defender k times about every valid edit, and about its clean scene."""
    questions = [target.sample.question for target, *_ in edits]
    settings = (config.samples, config.temperature)
    edited = answered_letters(defender, [image for *_, image, _ in edits], questions, *settings, config.seed)
    # A scene that was edited several times is asked about once.
    scenes = {target.sample.sample_id: target for target, *_ in edits}
    asked = list(scenes.values())
    clean = answered_letters(
        defender, [t.image for t in asked], [t.sample.question for t in asked], *settings, config.seed + 1
    )
    by_scene = dict(zip(scenes, clean, strict=True))
    return [
        CuratedEdit(*edit, answers=answers, clean_answers=by_scene[edit[0].sample.sample_id])
        for edit, answers in zip(edits, edited, strict=True)
    ]


def choose(
    edits: Sequence[CuratedEdit], funnel: Funnel, config: CurateConfig, rng: np.random.Generator
) -> tuple[list[CuratedEdit], Funnel]:
    """The mix: all hard edits, and of hopeless and trivial ones as many as their shares of the whole allow.

    With fewer than `minimum` of them, trivial and then hopeless edits fill up regardless. Order is random.
    """
    hopeless = [edit for edit in edits if edit.correct <= config.hopeless_below]
    trivial = [edit for edit in edits if edit.correct >= config.trivial_above]
    hard = [edit for edit in edits if config.hopeless_below < edit.correct < config.trivial_above]
    for group in (hopeless, trivial, hard):
        rng.shuffle(group)  # pyright: ignore[reportArgumentType]
    # With h hard edits and shares a, b of the result: h / (1 - a - b) in all.
    rest = max(1 - config.hopeless_share - config.trivial_share, 0.05)
    whole = len(hard) / rest
    some_hopeless = min(len(hopeless), round(whole * config.hopeless_share))
    some_trivial = min(len(trivial), round(whole * config.trivial_share))
    missing = max(0, config.minimum - len(hard) - some_hopeless - some_trivial)
    more_trivial = min(missing, len(trivial) - some_trivial)
    more_hopeless = min(missing - more_trivial, len(hopeless) - some_hopeless)
    kept = [*hard, *hopeless[: some_hopeless + more_hopeless], *trivial[: some_trivial + more_trivial]]
    kept = [kept[int(i)] for i in rng.permutation(len(kept))][: config.maximum]
    counts = {"hopeless": len(hopeless), "trivial": len(trivial), "hard": len(hard), "kept": len(kept)}
    return kept, funnel.model_copy(update=counts)
