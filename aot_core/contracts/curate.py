"""`curate`: the new Attacker edits fresh scenes; what is valid, hard and not hopeless becomes the Defender's
lesson."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.attack import Change, ProposalSettings, ValiditySettings
from aot_core.contracts.base import LATER, Frozen
from aot_core.contracts.learning import DType
from aot_core.contracts.stage import StageDeclaration
from aot_core.contracts.texts import StageSeed

VERSION = 5
"""Incremented by hand when the stage gives a different result for the same config and inputs."""
STAGE = StageDeclaration(data_set=True)
LINEAGE_FILE = "lineage.jsonl"
"""In the artifact, with `mutation` or `replay`: where every edit comes from (`Lineage`), a line each."""


class LearnabilitySettings(Frozen):
    """Curation by learnability (SFL, arXiv 2408.15099): by p (1 - p), where p is the exact probability of a right
    answer at `temperature`. `edits_per_scene` should then be 6 to 16. `hopeless_below`, `trivial_above` and the two
    shares beside them are ignored."""

    choose: Literal["learnability", "worst"] = "learnability"
    """Which edits of a scene are kept: those of the highest p (1 - p), or of the lowest p (worst of n)."""
    per_scene: int = Field(default=1, ge=1, le=1024)
    """How many of a scene's edits are kept."""
    least: float = Field(default=0.05, ge=0, le=0.25)
    """An edit whose p (1 - p) is below this is trivial (p of at least a half) or hopeless. 0.05 is p = 0.95 or 0.05,
    where two groups of eight in three have no gradient."""
    trivial_share: float = Field(default=0.1, ge=0, lt=0.5)
    """Maximum share of trivial edits in the result."""
    hopeless_share: float = Field(default=0.05, ge=0, lt=0.5)
    """Maximum share of hopeless edits in the result."""
    group_size: int = Field(default=8, ge=2, le=1024)
    """G of `defender_round`, for the reported shares of groups without a gradient. It does not affect the selection."""


class MutationSettings(Frozen):
    """Edits are mutated: a child differs from its parent in one thing, is painted by the same Attacker, checked by the
    same rules and rated by the same p (ACCEL, arXiv 2203.01302). Children compete with all others for the places in the
    result. At most `generations` x `share` x scenes x `children` edits are painted in addition."""

    generations: int = Field(default=2, ge=1, le=64)
    """Number of generations. Children are candidate parents of the next one."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Share of the scenes from which a generation takes its parents, one parent a scene."""
    children: int = Field(default=1, ge=1, le=64)
    """Children per parent."""
    parents: Literal["learnable", "hardest", "lagging"] = "learnable"
    """A scene's parent is its edit of the highest p (1 - p), or ("hardest") of the lowest p. The scenes with the most
    learnable, or hardest, parents come first; with "lagging" those whose best edit has the lowest p (1 - p)."""
    changes: Annotated[tuple[Change, ...], Field(min_length=1)] = ("move", "content", "more", "fewer")
    """What may change; one is drawn per child, and one named several times is drawn more often. "move": an added object
    stands elsewhere. "content": an object has another colour or shape (in photographs: is another thing). "more": one
    more added object. "fewer": one edit less."""
    edits: tuple[int, int] = (1, 4)
    """Minimum and maximum number of edits of a child, for "fewer" and "more"."""

    @model_validator(mode="after")
    def _range(self) -> "MutationSettings":
        if not 1 <= self.edits[0] <= self.edits[1] <= 4:
            raise ValueError(f"edits is {self.edits}; give least <= most within 1..4")
        return self


class ReplaySettings(Frozen):
    """The most learnable edits of the campaign's earlier rounds are used again (PLR, arXiv 2010.03934). Their validity
    and their p are measured again, with the current settings and the current Defender: no score gets stale."""

    share: float = Field(default=0.25, gt=0, le=0.9)
    """Maximum share of the result that is replayed. Only learnable edits are (`learnability.least`)."""
    candidates: int = Field(default=1000, ge=1, le=1_000_000)
    """Maximum number of earlier edits that are measured again, the newest rounds first."""


class PrioritySettings(Frozen):
    """`draw = "prioritised"` by each Attacker's success against the current Defender, not by its success in its own
    round, against a Defender that has since learned (prioritised fictitious self-play: AlphaStar, Nature 575)."""

    form: Literal["success", "variance"] = "success"
    """Probability of drawing an Attacker of success x: proportional to x, or to x (1 - x), which prefers Attackers that
    are neither beaten nor out of reach."""
    scenes: int = Field(default=64, ge=1, le=1_000_000)
    """Scenes that each Attacker edits once, the same for all, to measure x: the mean over all edits of the probability
    that a valid edit is answered wrong."""


class CurateConfig(Frozen):
    """Curation: edit scenes, check validity, ask the Defender, select."""

    seed: StageSeed = 0
    """Also determines the scenes, so that every round sees different ones."""
    draw: Literal["newest", "uniform", "prioritised"] = "newest"
    """Which Attacker edits: the newest alone, or, for each scene, one drawn from all Attackers so far, uniformly or by
    its success (fictitious self-play: a Defender trained only against the newest may forget the older ones)."""
    proposals: ProposalSettings = ProposalSettings()
    validity: ValiditySettings = ValiditySettings()
    scenes: int = Field(default=300, ge=1, le=10_000_000)
    """Scenes of the `train` split that are edited (all, if there are fewer)."""
    edits_per_scene: int = Field(default=2, ge=1, le=1024)
    """Edits per scene, each with its own instruction."""
    steps: int = Field(default=6, ge=1, le=1000)
    """Denoising steps of an edit."""
    samples: int = Field(default=4, ge=1, le=1024)
    """k: answers of the Defender per edit, which estimate its difficulty."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    hopeless_below: float = Field(default=0.0, ge=0, le=1)
    """An edit whose share of right answers is at or below this is hopeless."""
    trivial_above: float = Field(default=1.0, ge=0, le=1)
    """An edit whose share of right answers is at or above this is trivial."""
    hopeless_share: float = Field(default=0.3, ge=0, lt=1)
    """Maximum share of hopeless edits in the result. Some become learnable as others are learned."""
    trivial_share: float = Field(default=0.4, ge=0, lt=1)
    """Maximum share of trivial edits in the result. They preserve what is known."""
    minimum: int = Field(default=64, ge=1, le=100_000_000)
    """Minimum number of samples. Below it, the maximum shares are relaxed: trivial, then hopeless edits fill up."""
    maximum: int | None = Field(default=None, ge=1, le=100_000_000)
    """Maximum number of samples."""
    learnability: Annotated[LearnabilitySettings | None, LATER] = None
    """Select edits by learnability. None: by the bounds and shares above."""
    priority: Annotated[PrioritySettings | None, LATER] = None
    """With `draw = "prioritised"`: measure the Attackers against the current Defender. None: use each Attacker's
    success at the end of its own round."""
    mutation: Annotated[MutationSettings | None, LATER] = None
    """Mutate the most learnable or the hardest edits; needs `learnability`. None: off."""
    replay: Annotated[ReplaySettings | None, LATER] = None
    """Use edits of the campaign's earlier rounds again; needs `learnability`. None: off. (`defender_round.replay_share`
    is for the bank of a series, which keeps the edits of earlier campaigns.)"""
    defender_dtype: DType = "float32"
    max_new_tokens: Annotated[int, LATER, Field(ge=1, le=131_072)] = 16
    """Maximum number of tokens of an answer; a truncated answer counts as wrong. A Defender that reasons before it
    answers needs as many as `defender_round.max_completion_tokens`."""
    gallery_rows: int = Field(default=8, ge=0, le=1000)

    @model_validator(mode="after")
    def _a_priority_is_for_draws(self) -> "CurateConfig":
        if self.priority is not None and self.draw != "prioritised":
            raise ValueError(
                f'priority is for draw = "prioritised", and draw is "{self.draw}"; set draw, or leave priority out'
            )
        return self

    @model_validator(mode="after")
    def _what_is_mutated_or_replayed_is_rated(self) -> "CurateConfig":
        wanted = [name for name in ("mutation", "replay") if getattr(self, name) is not None]
        if wanted and self.learnability is None:
            raise ValueError(
                f"{' and '.join(wanted)}: chosen by p (1 - p), and learnability is not set; add the section "
                f"[curate.learnability], or leave {' and '.join(wanted)} out"
            )
        return self

    @model_validator(mode="after")
    def _bounds(self) -> "CurateConfig":
        if self.hopeless_below >= self.trivial_above:
            raise ValueError(
                f"hopeless_below {self.hopeless_below} must be less than trivial_above {self.trivial_above}"
            )
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError(f"maximum {self.maximum} is less than minimum {self.minimum}")
        return self


class CurateInputs(Frozen):
    dataset: ArtifactRef
    attacker: ArtifactRef
    """The Attacker that this round has just trained."""
    pool: tuple[ArtifactRef, ...] = ()
    """The Attackers of earlier rounds, and of other campaigns; used where `draw` is not "newest"."""
    successes: tuple[float, ...] = ()
    """Share of successful edits of each of the pool, then of the newest: what "prioritised" goes by."""
    defender: ArtifactRef
    """The Defender that will be trained on the result."""
    attacker_base: ExternalRef
    defender_base: ExternalRef
    judge: ExternalRef | None = None
    """`validity.judge`, pinned."""
    earlier: Annotated[tuple[ArtifactRef, ...], LATER] = ()
    """What `curate` wrote in this campaign's earlier rounds, in their order; used with `replay`."""


class Lineage(Frozen):
    """Where an edit comes from. Edits that were kept come first, in the order of the data set; then the ancestors of
    these that were not kept."""

    edit: str
    """The `sample_id` of a kept edit; `unkept-NUMBER` of an ancestor that was not."""
    kept: bool
    generation: int = Field(ge=0)
    """0: proposed by the attack policy, or replayed. Otherwise a mutation, one generation after its parent."""
    parent: str | None = None
    """`edit` of the edit that was mutated."""
    change: Change | None = None
    """What was changed in the parent."""
    attacker: ArtifactRef | None = None
    """Who painted it; None for replayed edits, whose own `curate` artifact knows."""
    curated: ArtifactRef | None = None
    """The earlier round's artifact from which it was replayed."""
    replayed: str | None = None
    """Its `sample_id` there."""
    instruction: str
    """What the editor was told, without the question."""
    p: float
    """Probability of a right answer of the Defender that will be trained on it."""


class GenerationOutputs(Frozen):
    """One generation of mutations. Learnability is p (1 - p)."""

    edited: int
    """Children painted."""
    valid: int
    """... of which valid."""
    better: int
    """... of which more learnable than their parent."""
    kept: int
    """... of which in the result."""
    parents: float
    """Mean learnability of the parents, each counted once."""
    children: float | None = None
    """Mean learnability of the valid children; None if there are none."""


class ReplayOutputs(Frozen):
    """Replay of earlier rounds' edits."""

    candidates: int
    """Edits measured again."""
    valid: int
    """... of which still valid."""
    learnable: int
    """... of which p (1 - p) is at least `learnability.least` for the current Defender."""
    kept: int
    """... of which in the result."""
    learnability: float | None = None
    """Mean p (1 - p) of these; None if there are none."""


class CurateOutputs(Frozen):
    """The funnel. The artifact is a data set (`aot_core.data.dataset`) with `funnel.json` and `pictures/`."""

    edited: int
    """Number of edits, mutations included."""
    intact: int
    """... of which the protected boxes stand (SSIM)."""
    confined: int
    """... of which nothing changed outside the edited regions."""
    semantic: int
    """... of which the edited regions show objects."""
    valid: int
    """... of which the truth holds."""
    hopeless: int
    """Valid ones that the Defender never gets right."""
    trivial: int
    """Valid ones that it always gets right."""
    hard: int
    """The others."""
    kept: int
    """Samples in the result."""
    success: float
    """Share of the valid edits that fooled every answer."""
    mean_correct: float
    """Mean share of right answers on the kept edits."""
    flat_before: float | None = None
    """With `learnability`: the expected share of groups that teach nothing (p^G + (1 - p)^G), were all valid edits
    asked about."""
    flat_after: float | None = None
    """The same of the edits kept."""
    successes: dict[str, float] = Field(default_factory=dict)
    """With `priority`: each Attacker's success against the present Defender, numbered from 1, the newest last."""
    learnability: float | None = None
    """With `mutation` or `replay`: mean p (1 - p) of the edits kept."""
    mutation: dict[str, GenerationOutputs] = Field(default_factory=dict)
    """With `mutation`: each generation, numbered from 1."""
    replay: ReplayOutputs | None = None
    """With `replay`: what came of it."""
