"""`evaluate`: how often a Defender is right, clean and under attack, on the same held-out questions each
time.

Conditions: `clean`; `semantic`, `irrelevant` and `unseen` (the data set's procedural distractors of that
family); `attacker_1`, `attacker_2`, ... (the clean scenes as those rounds' Attackers edit them); `adversary_1`, ...
(the same of other campaigns' Attackers); `regression_suite` (what fooled earlier Defenders, by the bank). Every figure
comes with its n and its Wilson 95 % interval.
"""

from typing import Annotated

from pydantic import Field

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.attack import ProposalSettings, ValiditySettings
from aot_core.contracts.base import LATER, Frozen
from aot_core.contracts.benchmarks import BenchmarkSettings
from aot_core.contracts.learning import DType
from aot_core.contracts.stage import StageDeclaration
from aot_core.contracts.texts import StageSeed

VERSION = 7
"""Incremented by hand when the stage gives a different result for the same config and inputs."""
STAGE = StageDeclaration(promoted_with=True, same_in_all_rounds=True)

CLEAN = "clean"
"""The condition without any edit."""
REGRESSION_SUITE = "regression_suite"
"""The condition of the bank's held-back edits. It is no attack on the clean scenes: it has scenes of its own, and
counts neither in the worst case nor in "right under every attack"."""
FIXED_EXAM = "fixed_exam"
"""In the gate alone: the series' first exam, a question right where it is right in all of that exam's conditions."""
WORST_OF_N = "worst_of_n"
"""The condition that shows, of each scene, the edit that this Defender is least likely to answer right: of `worst_of`
edits by every Attacker. Each Defender meets a picture of its own choosing there, so it is no attack among the others
and counts neither in the worst case nor in "right under every attack"."""
APART = (CLEAN, REGRESSION_SUITE, FIXED_EXAM, WORST_OF_N)
"""The conditions that are no attack on the clean scenes, the same for every Defender."""
ITEMS_FILE = "items.parquet"
"""In the artifact: an answered question a row (`aot_core.evaluation.items`), for paired tests later."""
COMPLETIONS_FILE = "benchmarks.jsonl"
"""In the artifact, where benchmarks were asked: [question, sample, completion] a line, and behind a completion
that was cut off "length"."""


def attacker_condition(number: int) -> str:
    """The condition in which the Attacker of round `number` (from 1) has edited the clean scenes."""
    return f"attacker_{number}"


def adversary_condition(number: int) -> str:
    """The condition in which the `number`-th (from 1) of other campaigns' Attackers has edited the clean scenes."""
    return f"adversary_{number}"


def by_attacker(condition: str) -> bool:
    """Whether it was a trained Attacker that edited the scenes, of this campaign or of another."""
    return condition.startswith(("attacker_", "adversary_"))


class EvaluateConfig(Frozen):
    """How the Defender is evaluated."""

    samples: int = Field(default=3, ge=1, le=1024)
    """k: how often each question is asked. Strict accuracy counts it only if all k answers are right."""
    temperature: float = Field(default=1.0, ge=0, le=100)
    """Sampling temperature of the answers. 0 is greedy; strict accuracy then equals single-shot accuracy."""
    limit: int | None = Field(default=200, ge=1, le=100_000_000)
    """Questions per condition, the same in every condition if the data allows it. None: all."""
    proposals: ProposalSettings = ProposalSettings()
    """What the Attackers' policies start from; the same random numbers to each."""
    validity: ValiditySettings = ValiditySettings()
    """Only valid edits are asked about."""
    steps: int = Field(default=6, ge=1, le=1000)
    """Denoising steps of an edit."""
    worst_of: Annotated[int, LATER, Field(ge=0, le=1024)] = 0
    """n: edits per scene by every Attacker, of which the hardest is asked about (`worst_of_n`). 0: not measured."""
    dtype: DType = "float32"
    """Precision of the Defender's weights; Attackers compute in the precision that they were trained in."""
    max_new_tokens: Annotated[int, LATER, Field(ge=1, le=131_072)] = 16
    """Maximum number of tokens of an answer; a truncated answer counts as wrong. A Defender that reasons before it
    answers needs as many as `defender_round.max_completion_tokens`. Benchmarks have their own limit."""
    benchmarks: BenchmarkSettings = BenchmarkSettings()
    """Public benchmarks, asked `samples` times at the same temperature, if their folder is given."""
    gallery_rows: int = Field(default=8, ge=0, le=1000)
    """Images in a gallery, starting with those that turned a right answer wrong. 0: no galleries."""
    seed: StageSeed = 0
    """Seed of the choice of questions, of the edits and of the answers. The same in all rounds, so that the test is the
    same."""


class EvaluateInputs(Frozen):
    """Who is asked what, and by whom it is attacked."""

    dataset: ArtifactRef
    """Made by `prepare_data`; its `evaluate` split is used."""
    defender_base: ExternalRef
    defender: ArtifactRef | None = None
    """A trained Defender (`model/` or `adapter/`); None asks the base model as it is."""
    attacker_base: ExternalRef | None = None
    """Needed where there are attackers."""
    attackers: tuple[ArtifactRef, ...] = ()
    """The Attackers of rounds 1, 2, ... in order."""
    numbers: tuple[int, ...] = ()
    """The rounds that the Attackers are from, where they are not 1, 2, ..."""
    adversaries: tuple[ArtifactRef, ...] = ()
    """Attackers of other campaigns, in the config's order."""
    families: bool = True
    """Whether the procedural distractors are asked about too; a match of cross-play leaves them out."""
    benchmark_folder: ExternalRef | None = None
    """Holds the files of the benchmarks that the config names; None asks none of them."""
    judge: ExternalRef | None = None
    """`validity.judge`, pinned."""
    bank: Annotated[ArtifactRef | None, LATER] = None
    """What `bank` wrote: its split `evaluate` is asked, all of it, as `regression_suite`."""


class Changes(Frozen):
    """How answers changed under an edit, among the questions of one kind. Right means right every time."""

    flipped: float | None
    """Of those right on the clean picture, the share wrong on the edited one; None where none was right."""
    right: int
    """The n of `flipped`."""
    mended: float | None
    """Of those wrong on the clean picture, the share right on the edited one; None where none was wrong."""
    wrong: int
    """The n of `mended`."""


class EvaluateOutputs(Frozen):
    """Figures by condition. Shares are 0..1."""

    strict: dict[str, float]
    """Share of questions with all k answers right."""
    low: dict[str, float]
    """Lower end of the Wilson 95 % interval of `strict`."""
    high: dict[str, float]
    """Upper end of the same."""
    mean: dict[str, float]
    """Share of right answers, each counted alone."""
    n: dict[str, int]
    """Questions asked; under an Attacker only those whose edit was valid."""
    valid: dict[str, float]
    """Share of an Attacker's edits that were valid."""
    kinds: dict[str, float]
    """`strict` by kind of question: `clean/count`."""
    kinds_n: dict[str, int]
    """The n of `kinds`."""
    worst: float
    """The lowest `strict` over the attacks (the regression suite is none); the clean one where there is no attack."""
    worst_condition: str
    every_attack: float | None = None
    """Share of questions right under every attack that was asked about them; None without attacks."""
    flips: dict[str, float] = Field(default_factory=dict)
    """Of the questions right on the clean picture, the share wrong on the edited one, by attack."""
    mends: dict[str, float] = Field(default_factory=dict)
    """The reverse: of those wrong on the clean picture, the share right on the edited one."""
    changes_by_question: dict[str, Changes] = Field(default_factory=dict)
    """Both by attack and kind of question: `attacker_1/count`."""
    changes_by_edit: dict[str, Changes] = Field(default_factory=dict)
    """Both by attack and kind of edit: `attacker_1/add`, `semantic/add and replace`."""
    calibration_error: dict[str, float] = Field(default_factory=dict)
    """Expected calibration error by agreement of the k answers (`aot_core.evaluation.robustness`)."""
    hallucination: dict[str, float] = Field(default_factory=dict)
    """Of the answers to "is there ...?" where there is none, the share that says yes."""
    benchmarks: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Each benchmark's figures by its own rule (`aot_core.evaluation.benchmarks.scoring`): `strict/accuracy`, ..."""
