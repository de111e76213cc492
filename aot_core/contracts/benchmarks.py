"""How public benchmarks are asked: which, how many questions of each, and who answers."""

from pydantic import Field, field_validator, model_validator

from aot_core.contracts.base import Frozen
from aot_core.contracts.benchmark_registry import BENCHMARKS
from aot_core.contracts.secrets import Address, PublicArguments, VariableName
from aot_core.contracts.texts import Name


class EndpointSettings(Frozen):
    """An OpenAI-compatible chat endpoint: vLLM, `transformers serve`, a hosted model."""

    url: Address
    """Up to and with `/v1`; an address that is itself a secret as a reference (`aot_core.contracts.secrets`)."""
    model: Name
    """The name by which the endpoint knows the model. It must serve the very weights that are evaluated (`aot export`):
    nobody can check that from here."""
    api_key_env: VariableName = ""
    """The environment variable that holds the key; the key itself stands in no config."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Requests in flight at once."""
    timeout_seconds: float = Field(default=300.0, gt=0, le=86_400)
    """For one request."""
    retries: int = Field(default=6, ge=0, le=100)
    """How often one request is tried again."""
    pause_seconds: float = Field(default=1.0, ge=0, le=3600)
    """Before the first repetition; doubled each time, at most a minute; a server's Retry-After goes first."""


class VllmSettings(Frozen):
    """vLLM's server, started by the stage on the weights that it evaluates; needs vLLM beside this project."""

    arguments: PublicArguments = ()
    """Of `vllm serve`, besides model, host and port: ["--max-model-len", "12288", "--tensor-parallel-size", "2"]. It
    computes in the Defender's own dtype unless `--dtype` is given. Keys are refused: every user of the machine sees a
    program's arguments."""
    start_seconds: float = Field(default=900.0, gt=0, le=86_400)
    """How long loading may take."""
    concurrency: int = Field(default=64, ge=1, le=256)
    """Requests in flight at once."""
    timeout_seconds: float = Field(default=300.0, gt=0, le=86_400)
    """For one request."""


class BenchmarkSettings(Frozen):
    """The public benchmarks that the last Defender of a campaign, and the champion, are asked."""

    names: tuple[Name, ...] = ()
    """Which (`aot_core.contracts.benchmark_registry`); their files lie in the campaign's `benchmark_folder`."""
    limit: int | None = Field(default=None, ge=1, le=100_000_000)
    """Questions of each at most, drawn from the seed (HR-Bench: with all their cycles); None asks all."""
    batch_size: int = Field(default=8, ge=1, le=1_000_000)
    """Questions that are answered together, without an endpoint."""
    max_new_tokens: int = Field(default=64, ge=1, le=131_072)
    """Of an answer."""
    endpoint: EndpointSettings | None = None
    """Who answers: an endpoint that stands already. Not in a campaign: it would answer for every Defender alike."""
    vllm: VllmSettings | None = None
    """Who answers: vLLM, started for it. Without either, transformers in the stage's own process."""

    @field_validator("names")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in BENCHMARKS]
        if unknown or len(set(names)) < len(names):
            known = ", ".join(BENCHMARKS)
            raise ValueError(f"benchmarks {unknown or names} are unknown or repeat; give some of {known}")
        return names

    @model_validator(mode="after")
    def _one_engine(self) -> "BenchmarkSettings":
        if self.endpoint is not None and self.vllm is not None:
            raise ValueError("endpoint and vllm are both set; leave one out: one engine answers")
        return self
