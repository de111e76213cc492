"""`defender_round`: DAPO on the curated edits (arXiv 2602.22227, phase 2; DAPO: arXiv 2503.14476)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.base import LATER, Frozen
from aot_core.contracts.functions import FUNCTION
from aot_core.contracts.learning import DefenderModelSettings
from aot_core.contracts.secrets import PlainAddress
from aot_core.contracts.stage import StageDeclaration
from aot_core.contracts.texts import StageSeed

VERSION = 3
"""Incremented by hand when the stage gives a different result for the same config and inputs."""
STAGE = StageDeclaration(checkpoint="defender")


class RewardTerm(Frozen):
    """One term of the reward. An answer's reward is the sum of weight times score over all terms."""

    name: str = Field(pattern=rf"^(accuracy|format|length|overlong|{FUNCTION})$", max_length=255)
    """accuracy: 1 for the right option. format: 1 if it is right and in exactly the requested box. length: -1 times the
    share of `max_completion_tokens` used. overlong: DAPO's soft punishment. Or a function of your own,
    `package.module:function`, from a batch of `aot_core.defender.rewards.Answered` to scores. The function is imported
    and called, so the config's author can run code where the stage runs. On a shared machine, AOT_ALLOWED_CODE
    (`aot_core.contracts.code`) restricts which functions configs may name."""
    weight: float = Field(ge=-1_000_000, le=1_000_000)


class Vllm(Frozen):
    """Rollouts by vLLM instead of transformers, with TRL's importance correction; needs the package `vllm`. On a CPU it
    is run by this project's tests (`docs/serving.md`), on a GPU it never was."""

    mode: Literal["colocate", "server"] = "colocate"
    """colocate: in the trainer's own process, on its GPUs or its CPU; server: on GPUs alone, started beforehand with
    `trl vllm-serve`."""
    server: PlainAddress | None = None
    """`http://HOST:PORT` of the server. None: TRL's default, on this machine."""
    memory_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the GPU's memory for vLLM, if the GPU is shared with training. On a CPU, set the environment variable
    VLLM_CPU_KVCACHE_SPACE (GiB) instead."""


class DynamicSampling(Frozen):
    """Groups without a gradient are replaced by others (DAPO, arXiv 2503.14476, section 3.2)."""

    refills: int = Field(default=2, ge=0, le=1000)
    """Maximum number of times that other prompts are asked to replace groups without a gradient. Only as many prompts
    are asked as are missing."""
    low: float = Field(default=0.01, ge=-1_000_000, le=1_000_000)
    high: float = Field(default=0.99, ge=-1_000_000, le=1_000_000)
    """A group is useful if its mean reward lies between these (the paper: 0.01 and 0.99) and its rewards differ."""


class DefenderRoundConfig(Frozen):
    """Group-relative policy optimisation with an asymmetric clip, token-level loss and the paper's reward."""

    seed: StageSeed = 0
    model: DefenderModelSettings = DefenderModelSettings()
    freeze_vision: bool = True
    """Freeze the vision tower. A round teaches where to look, and noisy gradients would degrade the visual features."""
    clean_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the prompts that show the clean scene instead of the edited one, to preserve clean accuracy."""
    replay_share: Annotated[float, LATER, Field(ge=0, lt=1)] = 0.25
    """Share of the prompts on edited scenes that is drawn from the bank, if there is one: edits that fooled earlier
    Defenders, against forgetting. A smaller bank gives all it has."""
    held_back: Annotated[float, LATER, Field(ge=0, le=0.9)] = 0.0
    """Share of the questions that is excluded from training, clean versions too, because the bank's regression suite
    may ask them: `bank.suite`, in every edition of a series."""
    generations: int = Field(default=50, ge=1, le=10_000_000)
    """Number of times that new answers are sampled. Each is followed by `iterations` updates."""
    prompts: int = Field(default=32, ge=1, le=1_000_000)
    """P: prompts per generation."""
    group_size: int = Field(default=8, ge=2, le=1024)
    """G: answers per prompt (the paper: 5)."""
    iterations: int = Field(default=2, ge=1, le=1000)
    """Updates on the same answers. From the second on, the clip takes effect."""
    share_prompts: bool = True
    """Encode a group's image and question once instead of G times: the same figures, several times faster. False leaves
    everything to TRL."""
    processes: int = Field(default=1, ge=1, le=1024)
    """Number of training processes, each on a GPU of its own and with its share of the P prompts. `run.accelerate`
    decides whether they also shard the model's weights."""
    micro_batch: int | None = Field(default=None, ge=1, le=1_000_000)
    """Answers per device step. Gradients are accumulated over the rest of a process's share of P * G. None: all at
    once."""
    generation_prompts: int | None = Field(default=None, ge=1, le=1_000_000)
    """Prompts per generation call of a process, each with G answers; limits the memory. None: all at once."""
    vllm: Vllm | None = None
    dynamic_sampling: DynamicSampling | None = None
    """Dynamic sampling. None: off, all groups are used, with or without a gradient."""
    rewards: tuple[RewardTerm, ...] = Field(
        default=(RewardTerm(name="accuracy", weight=0.8), RewardTerm(name="format", weight=0.2)), min_length=1
    )
    """The default is the paper's: 0.8 for the right letter, 0.2 more if it is in exactly `\boxed{LETTER}`."""
    overlong_buffer: int = Field(default=4, ge=1, le=131_072)
    """Number of tokens before `max_completion_tokens` over which the reward term `overlong` falls from 0 to -1 (DAPO,
    equation 13: 4,096 of 20,480)."""
    reward_seconds: float = Field(default=300.0, gt=0, le=86_400)
    """Time-out in seconds of a reward term. A time-out ends the stage."""
    checkpoint_every: int = Field(default=10, ge=0, le=10_000_000)
    """Generations between two checkpoints, from which a killed round resumes. 0: none."""
    temperature: float = Field(default=1.5, gt=0, le=100)
    """Temperature of sampling and of the trained policy alike. Above 1 if a small model is too confident to explore
    (the paper: 1)."""
    learning_rate: float = Field(default=5e-5, gt=0, le=10)
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of the updates in which the learning rate rises."""
    schedule: Literal["constant", "linear"] = "constant"
    """The learning rate after warm-up: constant, or falling linearly to 0, so that the round does not end wherever the
    noise of its last updates points."""
    epsilon_low: float = Field(default=0.2, gt=0, lt=1)
    epsilon_high: float = Field(default=0.28, gt=0, le=1000)
    """The ratio is clipped to 1 - epsilon_low .. 1 + epsilon_high."""
    loss: Annotated[Literal["dapo", "dr_grpo", "cispo", "gspo", "sapo"], LATER] = "dapo"
    """The objective, computed by TRL's own code. "dapo" averages the clipped surrogate over the tokens of all answers
    (arXiv 2503.14476). "dr_grpo" divides by a constant, `max_completion_tokens`, instead (arXiv 2503.20783; advantages
    are scaled as for the others). "cispo" clips the importance weight at 1 + `epsilon_high` and stops no token's
    gradient (MiniMax-M1, arXiv 2506.13585; 4 is usual there). "gspo" clips one ratio per answer (arXiv 2507.18071;
    bounds of 3e-4 are usual there). "sapo" uses a smooth gate instead of a clip (arXiv 2511.20347) and ignores the
    epsilons."""
    clip_ratio_dual: Annotated[float | None, LATER, Field(gt=1, le=1_000_000)] = None
    """c: if the advantage is negative, the ratio is bounded by c (dual clip, arXiv 1912.09729; the paper's trainer has
    3). None: no such bound. For the losses that clip a ratio: dapo, dr_grpo, gspo."""
    beta: float = Field(default=0.0, ge=0, le=1000)
    """Weight of the KL to the policy at the start of the round. DAPO has none."""
    reference_on_cpu: bool = False
    """With `beta` and without LoRA: the reference weights stay in CPU memory while they are not used."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1_000_000)
    max_prompt_pixels: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Larger images are scaled down to this many pixels (the paper: 4,194,304). None: the processor decides."""
    max_prompt_tokens: int | None = Field(default=None, ge=1, le=1_048_576)
    """Maximum number of tokens of a prompt, image and text. A longer one is rejected before training starts (the paper:
    8,192)."""
    max_completion_tokens: int = Field(default=12, ge=1, le=131_072)

    @model_validator(mode="after")
    def _batches_divide(self) -> "DefenderRoundConfig":
        if self.prompts % self.processes:
            raise ValueError(
                f"processes {self.processes} does not divide prompts {self.prompts}; choose a divisor, so that every "
                "process asks as many"
            )
        answers = self.prompts // self.processes * self.group_size
        if self.micro_batch is not None and answers % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} does not divide prompts * group_size = {answers}"
                f"{' of a process' if self.processes > 1 else ''}; choose a divisor"
            )
        return self

    @model_validator(mode="after")
    def _a_dual_clip_is_for_a_clip(self) -> "DefenderRoundConfig":
        if self.clip_ratio_dual is None:
            return self
        if self.loss in ("cispo", "sapo"):
            raise ValueError(
                f'clip_ratio_dual bounds a clipped ratio, which loss = "{self.loss}" does not have; leave it out, or '
                "set loss to dapo, dr_grpo or gspo"
            )
        if self.clip_ratio_dual <= 1 + self.epsilon_high:
            raise ValueError(
                f"clip_ratio_dual {self.clip_ratio_dual:g} must be above 1 + epsilon_high = {1 + self.epsilon_high:g}; "
                "the paper's trainer has 3"
            )
        return self

    @model_validator(mode="after")
    def _a_reference_is_there(self) -> "DefenderRoundConfig":
        if self.reference_on_cpu and (not self.beta or self.model.lora is not None):
            raise ValueError(
                "reference_on_cpu: there is no reference model to move without beta, or with model.lora (the adapter "
                "is switched off instead); leave it out"
            )
        return self

    @model_validator(mode="after")
    def _buffer_fits(self) -> "DefenderRoundConfig":
        if any(term.name == "overlong" for term in self.rewards) and self.overlong_buffer > self.max_completion_tokens:
            raise ValueError(
                f"overlong_buffer {self.overlong_buffer} is longer than max_completion_tokens "
                f"{self.max_completion_tokens}; make it shorter"
            )
        return self


class DefenderRoundInputs(Frozen):
    curated: ArtifactRef
    """What `curate` wrote: samples with edited images."""
    defender: ArtifactRef
    """The Defender so far: the last round's, or the warm start's."""
    base: ExternalRef
    """The base Defender."""
    bank: Annotated[ArtifactRef | None, LATER] = None
    """What `bank` wrote: its split `train` is replayed."""


class DefenderRoundOutputs(Frozen):
    """The artifact holds `model/` (all weights) or `adapter/` (LoRA), and `rewards.parquet`, a row an answer."""

    prompts: int
    """Different prompts that were trained on."""
    updates: int
    first_reward: float
    """Mean reward over the first tenth of the generations (at least one)."""
    last_reward: float
    """The same over the last tenth."""
    flat_groups: float
    """Mean share of the groups first asked whose answers all earned the same, which teach nothing."""
    entropy: float
    """Mean entropy of the answer tokens (nats) over the last tenth of the generations."""
    clip_ratio: float
    """Mean share of tokens whose ratio was clipped."""
    useful_groups: float
    """Mean share of groups that were of use once flat ones had been replaced."""
    generated_tokens: int
    """Answer tokens that were generated, those of replaced groups included."""
    resumed_at: int
    """The update that the round went on from after its process had died; 0 where it ran through."""
    replayed: int = 0
    """Edits of the lesson that were drawn from the bank."""
    held_back: int = 0
    """Curated edits that were kept out of the lesson."""
