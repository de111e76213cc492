"""`attacker_round`: Flow-GRPO against a frozen Defender (arXiv 2602.22227, phase 2; arXiv 2505.05470)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.attack import ProposalSettings, RewardSettings, TacticsSettings
from aot_core.contracts.base import LATER, Frozen
from aot_core.contracts.benchmarks import EndpointSettings
from aot_core.contracts.learning import DType, EditorSettings, ModelSettings
from aot_core.contracts.stage import StageDeclaration
from aot_core.contracts.texts import StageSeed

VERSION = 6
"""Incremented by hand when the stage gives a different result for the same config and inputs."""
STAGE = StageDeclaration(checkpoint="attacker")


class WindowSettings(Frozen):
    """A few neighbouring denoising steps that are stochastic and trained; all others follow the ODE (MixGRPO, arXiv
    2507.21802; Flow-GRPO-Fast). A group shares everything before its window, which is computed once."""

    start: int = Field(default=0, ge=0, le=1000)
    """The window's first step (from 0, the noisiest). If the window moves, the earliest first step."""
    size: int = Field(default=2, ge=1, le=1000)
    """Number of steps in the window."""
    move: Literal["fixed", "sliding", "sampled"] = "fixed"
    """"sliding": one step later every `every` updates; after the last position that spares the final step, back to
    `start`. "sampled": a random position every `every` updates, from the round's seed."""
    every: int = Field(default=1, ge=1, le=1_000_000)
    """Updates between two moves of the window."""
    finish: int | None = Field(default=None, ge=1, le=1000)
    """ODE steps from the window's end to the image (MixGRPO-Flash). Fewer than the schedule has left means an evenly
    spaced subset of its times. None: all that are left."""


class SamplingSettings(Frozen):
    """How edits are sampled in training: with noise at the first steps (or in a window), the ODE elsewhere."""

    steps: int = Field(default=6, ge=2, le=1000)
    """T: denoising steps."""
    sampler: Literal["sde", "cps"] = "sde"
    """Integrator of a stochastic step: Euler-Maruyama for Flow-GRPO's SDE, or coefficients-preserving sampling (arXiv
    2509.05952), which adds exactly the scheduled noise even with few steps."""
    sde_steps: int = Field(default=3, ge=1, le=1000)
    """Number of initial steps that are stochastic and trained. The last step never is: its noise alone breaks SSIM.
    Ignored if there is a `window`."""
    window: WindowSettings | None = None
    """Train these steps instead of the first `sde_steps`. The prefix shared by a group is computed once."""
    noise_level: float = Field(default=0.8, gt=0, le=100)
    """a of eta_t = a sqrt(t / (1 - t)). With "cps": eta, where 1 draws all noise afresh."""
    noise_cap: float = Field(default=3.0, gt=0, le=1000)
    """Upper bound of eta_t, which has a pole at t = 1. Ignored by "cps", which has none."""
    first_step: Annotated[Literal["cap", "level"], LATER] = "cap"
    """eta of "sde" at t = 1, where sampling starts. cap: `noise_cap`, whatever the level. level: a / sqrt(dt), as in
    Flow-GRPO's reference code; the step's deviation is then a."""
    shared_noise: bool = True
    """Whether a group starts from one initial noise, so that its edits differ only by the noise of the stochastic
    steps."""

    @model_validator(mode="after")
    def _last_step_is_deterministic(self) -> "SamplingSettings":
        window = self.window
        if window is None and self.sde_steps >= self.steps:
            raise ValueError(f"sde_steps {self.sde_steps} must be less than steps {self.steps}")
        if window is not None and window.start + window.size >= self.steps:
            raise ValueError(
                f"window.start {window.start} + window.size {window.size} must be less than steps {self.steps}: the "
                "last step is never stochastic"
            )
        return self

    @model_validator(mode="after")
    def _noise_fits(self) -> "SamplingSettings":
        if self.sampler == "cps" and self.noise_level > 1:
            raise ValueError(f"noise_level is {self.noise_level}; sampler cps takes 0..1, the share drawn afresh")
        if self.window is not None and not self.shared_noise:
            raise ValueError("a window's prefix is shared by the group; set shared_noise = true, or leave window out")
        return self


class PatienceSettings(Frozen):
    """Early stopping: train until the reward on held-out scenes has stopped rising, for at most `updates` updates, and
    keep the best Attacker. These scenes are neither trained on nor part of `probe`, on which the round's own figures
    are measured: the best of several measurements would bias them."""

    every: int = Field(default=5, ge=1, le=1_000_000)
    """Updates between two measurements. The first is before the first update."""
    looks: int = Field(default=3, ge=1, le=10_000)
    """Number of consecutive measurements without an improvement that ends the round."""
    rise: float = Field(default=0.005, ge=0, le=10)
    """A measurement is an improvement if its mean reward exceeds the best so far by more than this."""
    scenes: int = Field(default=60, ge=1, le=10_000_000)
    """Scenes per measurement (at most a third of what `probe` leaves), one edit each, with the same instructions and
    noise every time."""


class NftSettings(Frozen):
    """DiffusionNFT (arXiv 2509.16117): training on the forward process. Edits are sampled along the plain ODE and
    noised again. The velocity is drawn towards that of good edits and pushed away from that of bad ones. It needs no
    log-probabilities, so any solver and any number of steps work; `sampling.noise_level` and the clips are ignored."""

    beta: float = Field(default=1.0, gt=0, le=1000)
    """Distance of the implicit positive and negative policies from the old one: v+ = (1 - beta) v_old + beta v, v- = (1
    + beta) v_old - beta v."""
    times: int = Field(default=2, ge=1, le=1000)
    """Flow times, each with its own noise, at which an edit is trained in a pass."""
    old_rise: float = Field(default=0.001, ge=0, le=1)
    """The old policy, which samples, is an average of the weights: at each update it keeps the share eta = min(old_rise
    x update, old_most) of itself."""
    old_most: float = Field(default=0.5, ge=0, lt=1)
    """0: the old policy is always the last update's."""


class OpponentSettings(EndpointSettings):
    """A Defender behind an OpenAI-compatible endpoint. Its url and the model's name identify it, and nothing else: what
    is served there must not change while a campaign runs."""

    max_new_tokens: int = Field(default=64, ge=1, le=131_072)
    """Maximum number of tokens of an answer."""


class AttackerRoundConfig(Frozen):
    """Group-relative policy optimisation of the editor's denoising steps."""

    seed: StageSeed = 0
    model: ModelSettings = ModelSettings()
    editor: EditorSettings | None = None
    """Settings of the big editors. None: their defaults. The artifact records the settings that its Attacker was
    trained with; curation and evaluation use the same."""
    proposals: ProposalSettings = ProposalSettings()
    tactics: TacticsSettings = TacticsSettings()
    sampling: SamplingSettings = SamplingSettings()
    reward: RewardSettings = RewardSettings()
    opponent: OpponentSettings | None = None
    """Attack a Defender behind an endpoint (vLLM, a hosted model) instead of the campaign's own, whose weights are then
    not loaded. An endpoint gives no letter probabilities, so `reward.efficacy` must be "share" or "consecutive" and
    `reward.dense` 0. A killed round resumes, but bit for bit only if the endpoint is deterministic."""
    updates: int = Field(default=25, ge=1, le=10_000_000)
    """Number of times that new edits are sampled. Each batch is trained on `iterations` times."""
    candidates: int = Field(default=400, ge=1, le=10_000_000)
    """Scenes of the `train` split that the Defender is asked about at the start. Those that it answers right every time
    are attacked."""
    scenes: int = Field(default=12, ge=1, le=10_000_000)
    """Scenes per batch."""
    proposals_per_scene: int = Field(default=4, ge=1, le=1024)
    """Instructions per scene. The attack policy learns by comparing them; with 1 it learns nothing."""
    group_size: int = Field(default=4, ge=2, le=1024)
    """G: edits per instruction, which Flow-GRPO compares."""
    sampled_scenes: int | None = Field(default=None, ge=1, le=10_000_000)
    """Scenes whose edits are sampled at a time. None: the whole batch. Fewer need less memory, and an `opponent`
    answers about one part while the next is sampled. The noise of an edit depends on this value."""
    iterations: int = Field(default=2, ge=1, le=1000)
    """Passes over a batch. From the second on, the ratio differs from 1 and the clip takes effect."""
    micro_batch: int = Field(default=256, ge=1, le=1_000_000)
    """Edits per device step. Gradients are accumulated over the rest of the batch."""
    scaling: Literal["group", "batch", "none", "prompt"] = "batch"
    """Divisor of the centred rewards (`aot_core.rl.advantages`). "prompt": the spread of the scene's rewards in its
    latest groups, across updates."""
    remembered_groups: int = Field(default=8, ge=1, le=10_000)
    """Number of a scene's groups that `scaling = "prompt"` remembers."""
    clip_low: float = Field(default=0.01, gt=0, lt=1)
    clip_high: float = Field(default=0.014, gt=0, le=1000)
    """The ratio of per-dimension mean log-probabilities is clipped to 1 - clip_low .. 1 + clip_high."""
    ratio: Annotated[Literal["plain", "guard"], LATER] = "plain"
    """The importance ratio of a step. "plain": that of the two densities. "guard": GRPO-Guard's (arXiv 2510.22319). Its
    logarithm, (log r + KL) std, has mean 0 and one scale at every step, so that the clip stops good and bad edits
    alike; each step's gradient is weighted by 1 / dt. Multiply a plain clip by the steps' std to get its clip."""
    clip_ratio_dual: Annotated[float | None, LATER, Field(gt=1, le=1_000_000)] = None
    """c: if the advantage is negative, the ratio is bounded by c (dual clip, arXiv 1912.09729). None: no such bound."""
    nft: Annotated[NftSettings | None, LATER] = None
    """Train with DiffusionNFT. None: with Flow-GRPO."""
    least_deviation: Annotated[float, LATER, Field(ge=0, le=1000)] = 0.0
    """Groups whose rewards deviate by less than this are dropped, as flat ones are: their edits differ only by noise,
    which scaling would amplify."""
    kl: float = Field(default=0.05, ge=0, le=1000)
    """Weight of the KL to the Attacker at the start of the round. 0 saves the reference's forward passes. With `nft`:
    weight of the mean squared distance between both velocities."""
    learning_rate: float = Field(default=2e-4, gt=0, le=10)
    max_grad_norm: float = Field(default=1.0, gt=0, le=1_000_000)
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights (diffusers' EMAModel). Edits are sampled with the current
    weights; the average is probed at the end and saved. None: the last update's weights are."""
    checkpoint_every: int = Field(default=5, ge=0, le=10_000_000)
    """Updates between two checkpoints, from which a killed round resumes bit for bit. 0: none."""
    patience: Annotated[PatienceSettings | None, LATER] = None
    """Early stopping, before `updates` is reached. None: off."""
    defender_dtype: DType = "float32"
    defender_offload: Annotated[bool, LATER] = False
    """Keep the Defender's weights in CPU memory while the Attacker trains. The device then holds either the text
    encoder or the Defender beside the editor, never both, at the cost of moving them for every update."""
    max_new_tokens: Annotated[int, LATER, Field(ge=1, le=131_072)] = 16
    """Maximum number of tokens of an answer; a truncated answer counts as wrong. A Defender that reasons before it
    answers needs as many as `defender_round.max_completion_tokens`. An `opponent` has its own limit."""
    probe: int = Field(default=80, ge=1, le=10_000_000)
    """Scenes (at most a third of those attacked) held out of training. The Attacker is measured on them before and
    after, with the same instructions and noise."""
    gallery_rows: int = Field(default=8, ge=0, le=1000)
    """Edits in the gallery at the end of the round. 0: no gallery."""

    @model_validator(mode="after")
    def _forward_learning_has_its_own_noise(self) -> "AttackerRoundConfig":
        if self.nft is None:
            return self
        if self.sampling.shared_noise or self.sampling.window is not None:
            raise ValueError(
                "nft samples along the ODE, where edits differ by their initial noise alone; set sampling.shared_noise "
                "= false, and leave sampling.window out"
            )
        if self.clip_ratio_dual is not None:
            raise ValueError("clip_ratio_dual bounds a ratio, and nft has none; leave one of them out")
        return self

    @model_validator(mode="after")
    def _an_endpoint_tells_no_probabilities(self) -> "AttackerRoundConfig":
        reward = self.reward
        asks_for_letters = reward.efficacy == "expected" or reward.dense or reward.learnability
        if self.opponent is not None and asks_for_letters:
            raise ValueError(
                "opponent: an endpoint gives no letters' probabilities, which reward.efficacy = "
                f'"{self.reward.efficacy}" with reward.dense = {self.reward.dense:g} wants; set reward.efficacy = '
                '"share" or "consecutive", and reward.dense = reward.learnability = 0'
            )
        return self


class AttackerRoundInputs(Frozen):
    dataset: ArtifactRef
    """What `prepare_data` wrote; its `train` split is attacked."""
    attacker: ArtifactRef
    """The Attacker so far: the last round's, or the warm start's."""
    defender: ArtifactRef
    """The Defender to attack; it stays as it is. Not asked where the config names an `opponent`."""
    attacker_base: ExternalRef
    defender_base: ExternalRef
    judge: ExternalRef | None = None
    """`reward.validity.judge`, pinned."""


class AttackerRoundOutputs(Frozen):
    """The artifact holds `model/` (the whole pipeline) or `adapter/` (LoRA), `pictures/` and `curve.json`."""

    edits: int
    """Edits sampled in all."""
    probe: int
    """Held-out scenes, an edit each, in the next six figures."""
    reward_before: float
    """Mean reward on the held-out scenes before the round."""
    reward_after: float
    success_before: float
    """Share of edits that were valid and fooled every one of the k answers."""
    success_after: float
    valid_before: float
    valid_after: float
    first_reward: float
    """Mean reward over the first fifth of the updates (at least one)."""
    last_reward: float
    """The same over the last fifth."""
    first_success: float
    """Share of successful edits, first fifth."""
    last_success: float
    valid: float
    """Share of valid edits, last fifth."""
    ssim: float
    """Mean localized SSIM, last fifth."""
    kl: float
    """Mean KL to the round's first Attacker, per dimension and trained step (nats), last fifth."""
    clip_fraction: float
    """Mean over all optimisation passes."""
    flat_groups: float
    """Mean share of groups whose edits all earned the same, which are dropped."""
    tactics: dict[str, float] = Field(default_factory=dict)
    """The mix that the policy proposed in the last fifth: the share of every option among the decisions on its factor,
    as in "content/target colour"."""
    tactics_kl: float = 0.0
    """KL of the policy to its prior (nats a proposal), last fifth."""
    updates: int | None = None
    """Updates that were made: with `patience` fewer than the config's, perhaps."""
    best_update: int | None = None
    """With `patience`: the update whose Attacker was kept; 0 where none was better than the one before the round."""
