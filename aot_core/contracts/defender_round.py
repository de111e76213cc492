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
"""Raised by hand when the stage gives another result for the same config and inputs."""
STAGE = StageDeclaration(checkpoint="defender")


class RewardTerm(Frozen):
    """One part of the reward; an answer earns the sum of weight times score over all terms."""

    name: str = Field(pattern=rf"^(accuracy|format|length|overlong|{FUNCTION})$", max_length=255)
    """accuracy: 1 for the right option; format: 1 where it is right and stands in exactly the box asked for; length: -1
    times the share of `max_completion_tokens` used; overlong: DAPO's soft punishment; or a function of your own,
    `package.module:function`, from a batch of `aot_core.defender.rewards.Answered` to scores. It is imported and
    called, so whoever writes the config has code run where the stage runs; on a shared machine AOT_ALLOWED_CODE
    (`aot_core.contracts.code`) says which functions configs may name."""
    weight: float = Field(ge=-1_000_000, le=1_000_000)


class Vllm(Frozen):
    """Rollouts by vLLM instead of transformers, with TRL's importance correction; needs the package `vllm`. On a CPU it
    is run by this project's tests (`docs/serving.md`), on a GPU it never was."""

    mode: Literal["colocate", "server"] = "colocate"
    """colocate: in the trainer's own process, on its GPUs or its CPU; server: on GPUs alone, started beforehand with
    `trl vllm-serve`."""
    server: PlainAddress | None = None
    """`http://HOST:PORT` of the server; None: TRL's default, on this machine."""
    memory_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Of a GPU's memory, where it is shared with training; on a CPU VLLM_CPU_KVCACHE_SPACE (GiB) says it."""


class DynamicSampling(Frozen):
    """Groups that teach nothing are filled up by others (DAPO, arXiv 2503.14476, section 3.2)."""

    refills: int = Field(default=2, ge=0, le=1000)
    """How often, at most, other prompts are asked in place of the groups that are still useless. Only so many prompts
    are asked as are missing."""
    low: float = Field(default=0.01, ge=-1_000_000, le=1_000_000)
    high: float = Field(default=0.99, ge=-1_000_000, le=1_000_000)
    """A group is of use if its mean reward lies between these (the paper: 0.01 and 0.99), and its rewards differ."""


class DefenderRoundConfig(Frozen):
    """Group-relative policy optimisation with an asymmetric clip, token-level loss and the paper's reward."""

    seed: StageSeed = 0
    model: DefenderModelSettings = DefenderModelSettings()
    freeze_vision: bool = True
    """Leave the vision tower as it is: a round teaches where to look, and noisy gradients would blur sight."""
    clean_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the prompts that show the clean scene instead of the edited one, so that clean accuracy is kept."""
    replay_share: Annotated[float, LATER, Field(ge=0, lt=1)] = 0.25
    """Share of the prompts on edited scenes that is drawn from the bank, where one is given: what fooled earlier
    Defenders, against forgetting. A bank that holds less gives all it has."""
    held_back: Annotated[float, LATER, Field(ge=0, le=0.9)] = 0.0
    """Share of the questions that is kept out of the lesson, clean halves too, as the bank's regression suite asks
    them: `bank.suite`, in every edition of a series."""
    generations: int = Field(default=50, ge=1, le=10_000_000)
    """How often new answers are sampled; each is followed by `iterations` updates."""
    prompts: int = Field(default=32, ge=1, le=1_000_000)
    """P: prompts a generation."""
    group_size: int = Field(default=8, ge=2, le=1024)
    """G: answers a prompt (the paper: 5)."""
    iterations: int = Field(default=2, ge=1, le=1000)
    """Updates on the same answers; from the second on the clip is alive."""
    share_prompts: bool = True
    """Encode a group's image and question once instead of G times: the same numbers, several times faster. False leaves
    everything to TRL."""
    processes: int = Field(default=1, ge=1, le=1024)
    """So many processes train together, each on a GPU of its own and with its share of the P prompts; `run.accelerate`
    says whether they share the model's weights out, too."""
    micro_batch: int | None = Field(default=None, ge=1, le=1_000_000)
    """Answers a device step; the rest of a process's share of P * G is accumulated. None: all at once."""
    generation_prompts: int | None = Field(default=None, ge=1, le=1_000_000)
    """Prompts that a process asks at a time, each for G answers; more would not fit into memory. None: all at once."""
    vllm: Vllm | None = None
    dynamic_sampling: DynamicSampling | None = None
    """None: as many groups as are asked, useful or not."""
    rewards: tuple[RewardTerm, ...] = Field(
        default=(RewardTerm(name="accuracy", weight=0.8), RewardTerm(name="format", weight=0.2)), min_length=1
    )
    """The paper's: 0.8 for the right letter, 0.2 more where it stands in exactly `\\boxed{LETTER}`."""
    overlong_buffer: int = Field(default=4, ge=1, le=131_072)
    """Tokens before `max_completion_tokens` over which the reward term `overlong` falls from 0 to -1 (DAPO, equation
    13: 4,096 of 20,480)."""
    reward_seconds: float = Field(default=300.0, gt=0, le=86_400)
    """A reward term that has not answered by then is taken to hang, and ends the stage."""
    checkpoint_every: int = Field(default=10, ge=0, le=10_000_000)
    """Generations between two checkpoints from which a killed round goes on; 0: none."""
    temperature: float = Field(default=1.5, gt=0, le=100)
    """Of sampling and of the trained policy alike. Above 1 where a small model is too sure of itself to explore (the
    paper: 1)."""
    learning_rate: float = Field(default=5e-5, gt=0, le=10)
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of the updates in which the learning rate rises."""
    schedule: Literal["constant", "linear"] = "constant"
    """What the learning rate does then: it stays, or falls to 0 in a line, so that a round does not end where the noise
    of its last updates happened to point."""
    epsilon_low: float = Field(default=0.2, gt=0, lt=1)
    epsilon_high: float = Field(default=0.28, gt=0, le=1000)
    """The ratio is clipped to 1 - epsilon_low .. 1 + epsilon_high."""
    loss: Annotated[Literal["dapo", "dr_grpo", "cispo", "gspo", "sapo"], LATER] = "dapo"
    """The objective, by TRL's own code: "dapo" averages the clipped surrogate over the tokens of all answers (arXiv
    2503.14476); "dr_grpo" divides by a constant, `max_completion_tokens`, instead (arXiv 2503.20783; advantages are
    scaled as for the others); "cispo" clips the importance weight at 1 + `epsilon_high` and stops no token's gradient
    (MiniMax-M1, arXiv 2506.13585; 4 is usual there); "gspo" clips one ratio an answer (arXiv 2507.18071; bounds of
    3e-4 are usual there); "sapo" gates smoothly in place of a clip (arXiv 2511.20347), the epsilons are not looked
    at."""
    clip_ratio_dual: Annotated[float | None, LATER, Field(gt=1, le=1_000_000)] = None
    """c: where the advantage is negative the ratio counts as c at most (dual clip, arXiv 1912.09729; the paper's
    trainer has 3). None: no such bound. For the losses that clip a ratio: dapo, dr_grpo, gspo."""
    beta: float = Field(default=0.0, ge=0, le=1000)
    """Weight of the KL to the round's first policy; DAPO has none."""
    reference_on_cpu: bool = False
    """With `beta` and without LoRA: the first policy's weights wait in the CPU's memory while they are not asked."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1_000_000)
    max_prompt_pixels: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Larger images are scaled down to this area (the paper: 4,194,304); None leaves it to the processor."""
    max_prompt_tokens: int | None = Field(default=None, ge=1, le=1_048_576)
    """A prompt of more tokens, image and text, is refused before anything is trained (the paper: 8,192)."""
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
                f'clip_ratio_dual bounds a clipped ratio, which loss = "{self.loss}" has not; leave it out, or set '
                "loss to dapo, dr_grpo or gspo"
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
