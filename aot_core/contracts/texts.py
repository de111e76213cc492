"""Texts that people write into a config: one line, not empty, of a length that every place which keeps them takes.

Bounds of numbers stand at their fields. They are there for slips (a count of 1e12, a name of 300 letters), and so wide
that no machine reaches them.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

_ONE_LINE = r"^[^\x00-\x1f\x7f]*$"

Line = Annotated[str, StringConstraints(max_length=255, pattern=_ONE_LINE)]
"""A name, or nothing."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_ONE_LINE)]

PathText = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_ONE_LINE)]
"""A path on this machine. Whether anything is there is looked at when it is used."""

ModelName = PathText
"""A shipped model's name, a folder, or a hub name."""

Prompt = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
"""What a model is told; it may have several lines, or none."""

StageSeed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What NumPy and transformers take."""


def check_store(value: str) -> str:
    """A store's address, as it is. Raises PydanticCustomError (a ValueError) where it is none."""
    if not value or not re.fullmatch(_ONE_LINE, value):
        raise PydanticCustomError("store", "give a folder or s3://BUCKET/PREFIX, on one line")
    scheme, separator, rest = value.partition("://")
    if not separator:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", value):
            raise PydanticCustomError("store", "write s3://BUCKET/PREFIX, with two slashes, or a folder without ':'")
        return value
    if scheme not in ("s3", "file"):
        raise PydanticCustomError("store", "give a folder, a file:// URI or s3://BUCKET/PREFIX")
    if scheme == "s3" and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#@]*)?", rest):
        raise PydanticCustomError(
            "store",
            "write s3://BUCKET/PREFIX; the endpoint belongs in run.s3.endpoint_url, keys in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY",
        )
    if scheme == "file" and not rest.startswith("/"):
        raise PydanticCustomError("store", "write file:///ABSOLUTE/FOLDER, with three slashes")
    return value


StoreUri = Annotated[
    str, StringConstraints(min_length=1, max_length=1024, pattern=_ONE_LINE), AfterValidator(check_store)
]
"""An artifact store: a folder, a `file://` URI or `s3://BUCKET/PREFIX`."""
