"""What Python's `json` reads is read as a stream, wherever the pieces are cut."""

import io
import json
from pathlib import Path
from typing import Any

import ijson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aot_core.worlds.photographs import lenient_json
from aot_core.worlds.photographs.lenient_json import open_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.sampled_from('aN"\\, {:]Infity-é'), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def told(value: Any) -> Any:
    """The value with what is no JSON as text."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return json.dumps(value)
    if isinstance(value, list):
        return [told(one) for one in value]
    return {key: told(one) for key, one in value.items()} if isinstance(value, dict) else value


@settings(max_examples=300, deadline=None, derandomize=True)
@given(value=VALUES, block=st.integers(1, 9), size=st.integers(1, 9), ascii_only=st.booleans())
def test_every_cut_gives_the_same(value: Any, block: int, size: int, ascii_only: bool) -> None:
    text = json.dumps([value], ensure_ascii=ascii_only).encode()
    before = lenient_json._BLOCK
    lenient_json._BLOCK = block
    try:
        reader = lenient_json._Quoting(io.BytesIO(text))
        read = b"".join(iter(lambda: reader.read(size), b""))
    finally:
        lenient_json._BLOCK = before
    assert json.loads(read) == [told(value)]


def test_a_strict_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, "x"]}')
    with open_json(path) as file:
        assert file.read() == b'{"a": [1, 2.5, "x"]}'


def test_numbers_beyond_64_bits_and_what_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": [2**70, float("nan")]}))
    with open_json(path) as file:
        assert list(ijson.items(file, "a.item")) == [2**70, "NaN"]
    path.write_text("[1, NaN", encoding="utf-16")
    with pytest.raises(ValueError, match="UTF-16"), open_json(path):
        pass
