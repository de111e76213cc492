"""How an S3 store is reached. Credentials are never in here: boto3 finds them (environment, profile, instance role)."""

from typing import Any, Literal, cast

from pydantic import Field, model_validator

from aot_core.contracts.base import Frozen
from aot_core.contracts.secrets import Address
from aot_core.contracts.texts import Line, Name

_ATTEMPTS_OF_OLD = 8


class S3Settings(Frozen):
    """Access to an S3 bucket. Nothing in this section changes a result, so none of it is part of a key."""

    endpoint_url: Address | None = None
    """An S3-compatible server; None: AWS, or what `AWS_ENDPOINT_URL_S3` says."""
    region: Name | None = None
    """None: boto3's own choice (`AWS_REGION`, the profile), or else us-east-1."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """Servers without wildcard DNS need "path"."""
    encryption: Literal["", "AES256", "aws:kms"] = ""
    """Server-side encryption requested for every object. "" leaves it to the bucket's default."""
    kms_key: Line = ""
    """The key's id or ARN for "aws:kms"; "" is the account's default key."""
    multipart_mib: int = Field(default=64, ge=5, le=5120)
    """Files larger than this are uploaded in parts of this size, several at a time."""
    patience: float = Field(default=120, ge=0, le=86_400)
    """For how many seconds a request is retried when the server is unreachable, does not answer, or reports an error.
    """
    lease_seconds: float = Field(default=60, gt=0, le=86_400)
    """A lock that was not renewed for this long is free: its holder counts as dead."""

    @model_validator(mode="before")
    @classmethod
    def _attempts_of_old(cls, told: Any) -> Any:
        """Files that were written before `patience` hold `attempts`, mostly by its default."""
        if isinstance(told, dict) and "attempts" in told:
            told = dict(cast("dict[str, Any]", told))
            if told.pop("attempts") != _ATTEMPTS_OF_OLD:
                raise ValueError(
                    "attempts is no longer a setting; set patience, the seconds for which a request is retried"
                )
        return cast(Any, told)

    @model_validator(mode="after")
    def _key_needs_kms(self) -> "S3Settings":
        if self.kms_key and self.encryption != "aws:kms":
            raise ValueError(f'kms_key is set and encryption is "{self.encryption}"; set encryption = "aws:kms"')
        return self
