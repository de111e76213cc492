"""What an attack is and when it counts: settings that the Attacker's round, curation and tests share."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aot_core.contracts.base import LATER, Frozen
from aot_core.contracts.functions import FUNCTION
from aot_core.contracts.learning import DType
from aot_core.contracts.scene import EditKind
from aot_core.contracts.texts import ModelName

Change = Literal["move", "content", "more", "fewer"]
"""The one thing in which a mutated edit differs from its parent: an added object stands elsewhere, an object has
another colour or shape (in photographs: is another thing), there is one more added object, or one edit less."""


class ProposalSettings(Frozen):
    """The Attacker's instructions."""

    edits: tuple[int, int] = (3, 3)
    """Minimum and maximum number of edits that an instruction asks for."""
    kinds: Annotated[tuple[EditKind, ...], Field(min_length=1)] = ("add", "add", "add", "replace")
    """The attack policy's prior: a kind named several times is drawn more often, an unnamed one never."""
    named_share: float = Field(default=0.5, ge=0, le=1)
    """Also part of the prior: how often an instruction names what to paint, which always preserves the true answer.
    Otherwise only the place is given, and the editor chooses what to paint."""
    show_question: bool = True
    """Whether the instruction ends with the question that the edit is meant to mislead about."""

    @model_validator(mode="after")
    def _range(self) -> "ProposalSettings":
        if not 1 <= self.edits[0] <= self.edits[1] <= 4:
            raise ValueError(f"edits is {self.edits}; give least <= most within 1..4")
        return self


class TacticsSettings(Frozen):
    """How the attack policy learns to instruct the editor (`aot_core.attacker.tactics`)."""

    learning_rate: float = Field(default=0.2, ge=0, le=10)
    """Adam's learning rate on the policy's logits. 0 leaves the policy unchanged."""
    kl: float = Field(default=0.1, ge=0, le=1000)
    """beta: weight of the KL (nats per decision) to the prior. It keeps every tactic possible."""
    start: Annotated[Literal["kept", "fresh"], LATER] = "kept"
    """"fresh": every round's policy starts from the prior, as AlphaStar's exploiters are reset, and learns anew what
    deceives the current Defender. "kept": it continues from the last round's."""


class ValiditySettings(Frozen):
    """When an edit is valid: the question's objects are intact, the true answer is unchanged, and an object was
    painted."""

    min_ssim: float = Field(default=0.95, ge=0, le=1)
    """Integrity: minimum localized SSIM on the protected boxes. The Attacker exploits whatever this allows: at 0.85 the
    tiny Attacker learned within three rounds to smear the question's object (mean SSIM 0.96). Perfect edits of the tiny
    world have 0.999, the shipped editor's 0.998."""
    min_confidence: float = Field(default=0.8, ge=0, le=1)
    """Semantics: minimum confidence of the parser that an object was painted in each edited region."""
    max_outside: float = Field(default=0.005, ge=0, le=1)
    """Maximum share of the image's pixels that may change visibly outside the edited regions."""
    max_changed: float = Field(default=1.0, gt=0, le=1)
    """Maximum share of the image's pixels that may change visibly in total. 1: no limit."""
    judge: ModelName | None = None
    """An image-text-to-text model (hub name or folder) that judges edited photographs: is the true answer unchanged,
    and was an object added, of the named class? None: photographs are checked only by geometry and pixels. It is not
    for the procedural world, which a parser reads. It should see better than the Defender: an edit that misleads the
    judge, too, counts as invalid."""
    judge_dtype: DType = "bfloat16"
    judge_tokens: int = Field(default=64, ge=1, le=65_536)
    """Maximum number of tokens of the judge's answer. An answer without a box by then counts against the edit."""


class AttackTerm(Frozen):
    """A part of the reward of your own (`aot_core.attacker.reward_terms`); valid edits alone are scored."""

    name: str = Field(pattern=rf"^{FUNCTION}$", max_length=255)
    """`package.module:function`, from a batch of `aot_core.attacker.round_state.ScoredEdit` to scores. It is
    imported and called: see `defender_round.rewards` for who may name one."""
    weight: float = Field(ge=-1_000_000, le=1_000_000)
    combine: Literal["multiply", "add"] = "multiply"
    """"multiply": reward x (1 - weight + weight x score), weight and score within 0..1; so the term by itself earns
    nothing. "add": reward + weight x score. Invalid edits earn 0, and valid ones should earn more."""

    @model_validator(mode="after")
    def _share(self) -> "AttackTerm":
        if self.combine == "multiply" and not 0 <= self.weight <= 1:
            raise ValueError(f'weight is {self.weight:g}; a factor takes 0..1: change it, or set combine = "add"')
        return self


class RewardSettings(Frozen):
    """reward = valid x confidence x (floor + (1 - floor) ((1 - dense) efficacy + dense margin)), times the diversity
    factor where there is one, changed by `terms`; 0 where invalid."""

    samples: int = Field(default=3, ge=1, le=1024)
    """k: sampled answers of the Defender an edit."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    efficacy: Literal["expected", "share", "consecutive"] = "expected"
    """"share": the share of wrong answers among the k. "consecutive" (the paper's): 1 only if all k are wrong.
    "expected": the mean of "share" over all answers that the Defender could give, from its letter probabilities at
    `temperature`. It needs no sampling, and is exact for a Defender that answers with the letter alone, but not for one
    that reasons first."""
    dense: float = Field(default=0.7, ge=0, le=1)
    """Weight of the Defender's margin (best wrong letter's log-probability minus the right one's, squashed to 0..1). It
    distinguishes edits that are all answered right, so that groups are not flat."""
    margin_scale: float = Field(default=2.0, gt=0, le=1000)
    """The margin (nats) is divided by this before the logistic function."""
    floor: float = Field(default=0.1, ge=0, lt=1)
    """Reward of a valid edit that misleads nobody. Invalid ones earn less."""
    learnability: Annotated[float, LATER, Field(ge=0, le=1)] = 0.0
    """w: efficacy is mixed with 4 p (1 - p), where p is the exact probability of a right answer: (1 - w) efficacy + w 4
    p (1 - p). With 1 (and `dense` 0) the Attacker is rewarded for learnable edits, and not for hopeless ones."""
    diversity: float = Field(default=0.0, ge=0, lt=1)
    """w: a valid edit's reward is multiplied by 1 - w + w d, where d in 0..1 measures its distance from the other valid
    edits of its group. It is a factor, so that difference alone earns nothing. 0: off."""
    diversity_scale: float = Field(default=0.25, gt=0, le=1)
    """Two edits differ completely (d = 1) if this share of their regions' pixels differs visibly. (In the tiny world,
    of a cell's pixels: two shapes of one colour differ in a third on average, two objects of other colour and shape in
    0.58.)"""
    validity: ValiditySettings = ValiditySettings()
    terms: Annotated[tuple[AttackTerm, ...], LATER] = ()
    """Your own reward terms, applied in this order."""
    term_seconds: Annotated[float, LATER, Field(gt=0, le=86_400)] = 300.0
    """Time-out in seconds of one of these terms. A time-out ends the stage."""

    @model_validator(mode="after")
    def _terms_differ(self) -> "RewardSettings":
        if len({term.name for term in self.terms}) < len(self.terms):
            raise ValueError("terms names a function twice; leave one out")
        return self
