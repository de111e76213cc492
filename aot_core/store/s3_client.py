"""boto3 as the S3 store uses it: one client a store, transfers in parallel and in parts, errors in people's words.

How long a request is tried says `s3_patience`. The checksums that travel with every request, and that the server
compares before it takes a part, are botocore's.
"""

# pyright: basic
# boto3 carries no types.

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError, NoCredentialsError

from aot_core.contracts.secrets import redacted, reveal
from aot_core.contracts.store import S3Settings
from aot_core.store.protocol import StoreError
from aot_core.store.s3_patience import Patience

_MIB = 2**20
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 60.0
_ADVICE = {
    "NoSuchBucket": "make the bucket (infra/terraform does), or correct the store's URI",
    "AccessDenied": "the credentials lack s3:GetObject, PutObject, DeleteObject or ListBucket on it",
    "403": "the credentials lack s3:GetObject, PutObject, DeleteObject or ListBucket on it",
    "InvalidAccessKeyId": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is not the one of AWS_ACCESS_KEY_ID",
}
_SKEWED = {"RequestTimeTooSkewed", "RequestExpired", "InvalidSignatureTime"}
_SKEW_SECONDS = 300.0
"""S3 bears 15 minutes; some servers less."""
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_PRECONDITION = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}


@dataclass(frozen=True)
class S3Object:
    """One object of a listing."""

    key: str
    bytes: int
    etag: str
    modified: datetime


class S3Bucket:
    """A bucket's objects below a prefix. Keys are relative to it."""

    def __init__(self, bucket: str, prefix: str, settings: S3Settings) -> None:
        self.bucket, self.prefix, self.settings = bucket, prefix.strip("/"), settings
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},  # `Patience` decides
            s3={"addressing_style": settings.addressing},
            connect_timeout=min(_CONNECT_SECONDS, max(settings.patience, 1)),
            read_timeout=min(_READ_SECONDS, max(settings.patience, 10)),
            max_pool_connections=32,
        )
        session = boto3.Session()
        self._endpoint = reveal(settings.endpoint_url, "run.s3.endpoint_url") if settings.endpoint_url else None
        endpoint = self._endpoint.get_secret_value() if self._endpoint else None
        region = settings.region or session.region_name or "us-east-1"
        self._client: Any = session.client("s3", endpoint_url=endpoint, region_name=region, config=config)
        self._patience = Patience(settings.patience, f"store {self}")
        self._patience.register(self._client)
        size = settings.multipart_mib * _MIB
        self._transfer = TransferConfig(multipart_threshold=size, multipart_chunksize=size, max_concurrency=16)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def _encryption(self) -> dict[str, str]:
        asked = {"ServerSideEncryption": self.settings.encryption, "SSEKMSKeyId": self.settings.kms_key}
        return {name: value for name, value in asked.items() if value}

    def get(self, key: str) -> tuple[bytes, str] | None:
        """An object's bytes and ETag, None where there is none."""
        with self._said() as absent:
            return self._patience.through(lambda: self._read(key))
        assert absent
        return None

    def put(self, key: str, body: bytes) -> str:
        """Write an object whole; returns its ETag."""
        with self._said():
            answer = self._client.put_object(
                Bucket=self.bucket, Key=self._key(key), Body=body, ChecksumAlgorithm="SHA256", **self._encryption
            )
            return answer["ETag"]
        raise StoreError(f"{self}: the object store answers a write of {key} with 404; is it S3?")

    def put_if(self, key: str, body: bytes, etag: str | None) -> str | None:
        """Write an object only if it is absent (`etag` None) or still the one with this ETag.

        Returns the new ETag, or None where the condition does not hold. Atomic on the server.
        """
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            with self._said():
                answer = self._client.put_object(
                    Bucket=self.bucket, Key=self._key(key), Body=body, **condition, **self._encryption
                )
                return answer["ETag"]
        except _PreconditionError:
            return None
        return None  # If-Match on an object that is gone: 404

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, a thousand a request; what is gone already is fine. Raises StoreError for the rest."""
        names = [{"Key": self._key(key)} for key in keys]
        for first in range(0, len(names), 1000):
            with self._said():
                answer = self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": names[first : first + 1000], "Quiet": True}
                )
                for error in answer.get("Errors", []):
                    raise StoreError(f"{self}: {error['Key']} cannot be deleted: {error['Code']}: {error['Message']}")

    def move(self, keys: Iterable[str], folder: str) -> None:
        """Move objects below a folder, by the server, one after another in the order given."""
        for key in keys:
            with self._said():
                source = {"Bucket": self.bucket, "Key": self._key(key)}
                self._client.copy(source, self.bucket, self._key(folder + key), ExtraArgs=self._encryption or None)
            self.delete([key])

    def list(self, prefix: str = "") -> Iterator[S3Object]:
        """Every object whose key begins so."""
        with self._said():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(prefix))
            for page in pages:
                for item in page.get("Contents", []):
                    yield S3Object(self._relative(item["Key"]), item["Size"], item["ETag"], item["LastModified"])

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The names of the folders right below a prefix that ends in "/" (or is empty)."""
        with self._said():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._key(prefix), Delimiter="/"
            )
            for page in pages:
                for item in page.get("CommonPrefixes", []):
                    yield self._relative(item["Prefix"]).removeprefix(prefix).rstrip("/")

    def upload(self, files: Iterable[tuple[Path, str]]) -> None:
        """Files to objects, in parallel, large ones in parts; the server compares a SHA-256 of every part."""
        extra = {"ChecksumAlgorithm": "SHA256", **self._encryption}
        with self._said(), self._transfers() as manager:
            futures = [manager.upload(str(file), self.bucket, self._key(key), extra_args=extra) for file, key in files]
            for future in futures:
                future.result()

    def download(self, files: Iterable[tuple[str, Path]]) -> bool:
        """Objects to files, in parallel; False where one is not what its checksum says. Raises StoreError for one
        that is gone."""
        with self._said() as absent, self._transfers() as manager:
            futures = [manager.download(self.bucket, self._key(key), str(file)) for key, file in files]
            try:
                for future in futures:
                    future.result()
            except FlexibleChecksumError:
                return False
            return True
        raise StoreError(f"{self}: an object of the artifact is gone ({absent[0]}); run the campaign again")

    def abort_uploads(self, before: datetime) -> None:
        """Give up multipart uploads that killed processes began before a time."""
        with self._said():
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self._key("")
            )
            for page in pages:
                for upload in page.get("Uploads", []):
                    if upload["Initiated"] < before:
                        self._client.abort_multipart_upload(
                            Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )

    def presign(self, key: str, seconds: int) -> str:
        """A link that reads one object, without credentials, until it expires."""
        parameters = {"Bucket": self.bucket, "Key": self._key(key)}
        return self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)

    def check(self) -> None:
        """Raises StoreError where the bucket is not there or may not be used."""
        with self._said() as absent:
            self._client.head_bucket(Bucket=self.bucket)
        if absent:
            raise StoreError(f"store {self}: there is no bucket {self.bucket!r}: {_ADVICE['NoSuchBucket']}")

    def _read(self, key: str) -> tuple[bytes, str]:
        answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
        return answer["Body"].read(), answer["ETag"]

    def _transfers(self) -> Any:
        """A context manager; leaving it waits for what it was given."""
        return create_transfer_manager(self._client, self._transfer)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _relative(self, key: str) -> str:
        return key.removeprefix(self.prefix + "/") if self.prefix else key

    @contextmanager
    def _said(self) -> "Generator[list[str]]":
        """Swallows "there is no such object" into the list it yields; turns the rest into StoreErrors with advice."""
        absent: list[str] = []
        try:
            yield absent
        except NoCredentialsError as error:
            raise StoreError(
                f"store {self}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from error
        except ClientError as error:
            said: Any = error.response
            code = said.get("Error", {}).get("Code", "")
            if code in _ABSENT:
                absent.append(str(error))
            elif code in _PRECONDITION:
                raise _PreconditionError from error
            else:
                status = said.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                advice = _clock_advice(said) or _ADVICE.get(code, "see the object store for why")
                if Patience.passing(status, code):
                    advice = f"so for {self.settings.patience:g} s (run.s3.patience); is the server's disk full?"
                raise StoreError(f"store {self}: {error}; {advice}") from error
        except BotoCoreError as error:
            told = (
                f"store {self}: {error}; tried for {self.settings.patience:g} s "
                f"(run.s3.patience); is {self._client.meta.endpoint_url} up, and does run.s3.endpoint_url name it?"
            )
            if self._endpoint is not None and self.settings.endpoint_url is not None:
                told = redacted(told, self._endpoint, self.settings.endpoint_url)
            raise StoreError(told) from error


def _clock_advice(said: Any) -> str:
    """What to do where this machine's clock is why a signature is refused; "" where it is not.

    A HEAD is refused by a bare 403: then the server's own clock, which comes with every answer, tells.
    """
    metadata = said.get("ResponseMetadata", {})
    date = metadata.get("HTTPHeaders", {}).get("date", "")
    code = said.get("Error", {}).get("Code", "")
    try:
        off = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a zone
        off = 0.0
    if code not in _SKEWED and not (metadata.get("HTTPStatusCode") == 403 and abs(off) > _SKEW_SECONDS):
        return ""
    told = (
        f"it is {abs(off) / 60:.0f} minutes {'ahead of' if off > 0 else 'behind'} the server's" if off else "it is off"
    )
    return f"this machine's clock is why the signature is refused: {told}; set it (timedatectl set-ntp true)"


class _PreconditionError(Exception):
    """A conditional write whose condition does not hold."""
