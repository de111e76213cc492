"""What decides whether a Defender may lead: the gate's settings, its decision, and the ledger of what was done.

evaluations of challenger and champion -> the rule (`aot_core.evaluation.gate`) -> `Decision` -> `LedgerEntry`s
(`aot_core.store.ledger`) -> the alias in MLflow.
"""

from typing import Annotated, Literal

from pydantic import Field

from aot_core.contracts.base import Frozen, sha256_of
from aot_core.contracts.benchmark_registry import margins
from aot_core.contracts.secrets import SecretKey, Webhook
from aot_core.contracts.texts import Name, StageSeed

BENCHMARK_PREFIX = "bench/"
"""A condition of this prefix is a benchmark's questions, without any edit."""


class GateSettings(Frozen):
    """The promotion rule. All margins and shares are fractions from 0 to 1."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Upper bound on the probability that a challenger that is no better is promoted."""
    clean_margin: float = Field(default=0.025, ge=0, le=1)
    """Non-inferiority margin on clean accuracy. The first champion may be this much below the base model. With 1,000
    questions, 2.5 points stop a loss of 3 points and pass a challenger that loses nothing; `benchmarks/gate.py`
    measures how often."""
    benchmark_margin: float = Field(default=0.03, ge=0, le=1)
    """The same for every benchmark without a margin of its own."""
    benchmark_margins: dict[Name, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=margins)
    """Margins by benchmark. A small benchmark can neither detect a small loss nor rule it out."""
    min_items: int = Field(default=100, ge=1, le=100_000_000)
    """Minimum number of common questions. With fewer, an attack is left out of the worst case, and a benchmark or the
    clean set stops the promotion."""
    max_unreadable: float = Field(default=0.05, ge=0, le=1)
    """Maximum share of the challenger's answers that name no option. More stops the promotion."""
    resamples: int = Field(default=4000, ge=200, le=1_000_000)
    """Bootstrap resamples of the questions."""
    seed: StageSeed = 0
    """Seed of the resampling, so that equal evaluations give equal decisions."""
    repeated_tries: Literal["spend", "ignore"] = "spend"
    """How repeated attempts are corrected for; otherwise one of them would eventually pass by chance. "spend" (alpha
    spending) tests the k-th challenger of one champion at alpha / (k (k + 1)), which sums to alpha. "ignore" tests each
    at alpha."""
    require_commit: bool = False
    """Whether a stage that ran without a known git commit (no checkout, or a modified one) counts as a gap in the
    lineage."""


class GateTest(Frozen):
    """One line of the gate's table. Differences are challenger minus champion."""

    name: str
    """`superior/worst_case`, `not_worse/clean`, `regression/attacker_2`, `regression/suite`,
    `regression/fixed_exam`, ...; without a champion `floor/clean` and `floor/worst_case`, whose difference is to the
    base model."""
    what: str
    """The claim in words."""
    passed: bool
    n: int
    champion: float | None = None
    challenger: float | None = None
    difference: float | None = None
    low: float | None = None
    """One-sided lower bound of the difference, at the level that the test was given."""
    margin: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    """After Holm's correction over the tests of its kind."""
    note: str = ""


class HardStop(Frozen):
    """A condition that rejects a challenger whatever its figures."""

    name: str
    stopped: bool
    told: str


class Decision(Frozen):
    """The gate's record: complete and without timestamps, so that deciding again gives the same bytes."""

    model: str
    challenger: str
    """The challenger's version."""
    challenger_sha256: str
    """Of its artifact."""
    champion: str = ""
    """The champion's version at the time of the decision. Empty if there was none."""
    champion_sha256: str = ""
    promote: bool
    reason: str
    """One sentence: the first criterion that failed, or what was shown."""
    attempt: int = Field(default=1, ge=1)
    """1-based index among the challengers of this champion."""
    alpha: float
    """The significance level of this attempt."""
    settings: GateSettings
    stops: tuple[HardStop, ...] = ()
    tests: tuple[GateTest, ...] = ()
    figures: dict[str, float] = Field(default_factory=dict)
    """Every figure of both models: `challenger/strict/clean`, `champion/mean/attacker_1`, ...; `base/...` if there was
    no champion."""
    lineage: dict[str, str] = Field(default_factory=dict)
    """Data manifest, commit, images, evaluations, parent version."""

    @property
    def rival(self) -> str:
        """What the challenger was compared with, in words."""
        if self.champion:
            return f"version {self.champion}"
        return "the base model" if any(name.startswith("base/") for name in self.figures) else "nobody"

    @property
    def sha256(self) -> str:
        return sha256_of(self)


LedgerKind = Literal["refused", "proposed", "declined", "expired", "intent", "done", "undone", "abandoned"]
"""refused: rejected by the gate or the smoke test; the alias did not move. proposed: passed, and a reviewer is asked.
declined, expired: rejected by the reviewer or by the time-out. intent: the alias is about to move. done: it moved, and
its target answers. undone: it moved, its target did not answer, and it was moved back. abandoned: a process died after
its intent, and the alias did not move."""

LedgerAction = Literal["promote", "force", "rollback"]
"""promote: approved by the gate. force: by a person, against the gate or without it. rollback: to an earlier version.
"""


class LedgerEntry(Frozen):
    """One entry of the ledger. Each contains the hash of the entry before it, so that none can be changed or removed
    unnoticed."""

    number: int = Field(ge=1)
    previous: str
    """sha256 of the previous entry; empty for the first."""
    kind: LedgerKind
    action: LedgerAction
    model: str
    from_version: str
    """The previous champion's version. Empty if there was none."""
    to_version: str
    """The version that was to become champion."""
    challenger_sha256: str = ""
    """sha256 of that version's artifact."""
    champion_sha256: str = ""
    """sha256 of the previous champion's artifact."""
    who: str
    when: str
    """UTC, ISO 8601."""
    why: str
    figures: dict[str, float] = Field(default_factory=dict)
    decision_sha256: str = ""
    """sha256 of the decision, which is stored beside the entry."""

    @property
    def sha256(self) -> str:
        return sha256_of(self)


class PromotionSettings(Frozen):
    """How a campaign's last Defender can become champion. Nothing in this section changes a stage's result."""

    model: str = Field(default="aot-defender", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    """The registered model's name in MLflow."""
    gate: GateSettings = GateSettings()
    approval: Literal["none", "human"] = "none"
    """"human" pauses the flow, without occupying a GPU, until somebody answers in Prefect (or by `aot promote`)."""
    approval_hours: float = Field(default=24.0, gt=0, le=8784)
    """Time-out of the approval in hours. A time-out rejects the challenger."""
    smoke_seconds: float = Field(default=900.0, gt=0, le=86_400)
    """Time-out in seconds for the registered model to load and answer once. A time-out counts as a failed smoke test.
    """
    webhook: Webhook | None = None
    """Every ledger entry of this model is posted there as JSON. A failed post changes nothing. An address that lets
    anybody post (Slack's, Teams') is a secret: write "env:NAME" or "prefect-block:secret/NAME"."""
    webhook_key: SecretKey | None = None
    """The key that signs each post (`X-AOT-Signature`): "env:NAME" or "prefect-block:secret/NAME"."""
    webhook_form: Literal["ledger", "slack"] = "ledger"
    """The post's JSON: the ledger entry, or a message in the format of Slack's and Mattermost's incoming webhooks."""
