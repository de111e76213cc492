"""How public benchmarks are asked: which, how many questions of each, and who answers."""

from pydantic import Field, field_validator, model_validator

from aot_core.contracts.base import Frozen
from aot_core.contracts.benchmark_registry import BENCHMARKS
from aot_core.contracts.secrets import Address, PublicArguments, VariableName
from aot_core.contracts.texts import Name


class EndpointSettings(Frozen):
    """An OpenAI-compatible chat endpoint: vLLM, `transformers serve`, a hosted model."""

    url: Address
    """Up to and including `/v1`. Write an address that is itself a secret as a reference
    (`aot_core.contracts.secrets`)."""
    model: Name
    """The endpoint's name for the model. It must serve exactly the weights that are evaluated (`aot export`), which
    cannot be checked from here."""
    api_key_env: VariableName = ""
    """The environment variable that holds the key. Never write the key itself into a config."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Requests in flight at once."""
    timeout_seconds: float = Field(default=300.0, gt=0, le=86_400)
    """Time-out in seconds of one request."""
    retries: int = Field(default=6, ge=0, le=100)
    """How often a request is retried."""
    pause_seconds: float = Field(default=1.0, ge=0, le=3600)
    """Pause in seconds before the first retry. It doubles each time, up to a minute; a server's Retry-After takes
    precedence."""


class VllmSettings(Frozen):
    """A vLLM server that the stage starts on the weights it evaluates. vLLM must be installed beside this project."""

    arguments: PublicArguments = ()
    """Arguments of `vllm serve`, besides model, host and port: ["--max-model-len", "12288", "--tensor-parallel-size",
    "2"]. The server computes in the Defender's dtype unless `--dtype` is given. Keys are rejected: every user of the
    machine sees a program's arguments."""
    start_seconds: float = Field(default=900.0, gt=0, le=86_400)
    """Time-out in seconds for loading the model."""
    concurrency: int = Field(default=64, ge=1, le=256)
    """Requests in flight at once."""
    timeout_seconds: float = Field(default=300.0, gt=0, le=86_400)
    """Time-out in seconds of one request."""


class BenchmarkSettings(Frozen):
    """The public benchmarks on which a campaign's last Defender and the champion are evaluated."""

    names: tuple[Name, ...] = ()
    """Names from `aot_core.contracts.benchmark_registry`. Their files are in the campaign's `benchmark_folder`."""
    limit: int | None = Field(default=None, ge=1, le=100_000_000)
    """Maximum number of questions per benchmark, drawn from the seed (HR-Bench: with all their cycles). None: all."""
    batch_size: int = Field(default=8, ge=1, le=1_000_000)
    """Questions per batch, without an endpoint."""
    max_new_tokens: int = Field(default=64, ge=1, le=131_072)
    """Maximum number of tokens of an answer."""
    endpoint: EndpointSettings | None = None
    """Use a running endpoint. Not in a campaign, where it would answer for every Defender alike."""
    vllm: VllmSettings | None = None
    """Use vLLM, started for the evaluation. Without either, transformers in the stage's own process."""

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
