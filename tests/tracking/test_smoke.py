"""What is read of a smoke test's answer: one line of JSON, and nothing else is taken for one."""

import pytest

from aot_core.tracking.smoke import SmokeError, read_answer


def test_an_answer_is_read() -> None:
    assert read_answer("models:/m@champion", '{"answer": "A"}\n') == "A"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"error": "ValueError: no weights"}', "ValueError: no weights"),
        ("Loading checkpoint shards: 100%\n", "wrote 'Loading checkpoint shards: 100%' where an answer was expected"),
        ('{"answer": "A', "where an answer was expected"),
        ("[1]", "where an answer was expected"),
    ],
)
def test_everything_else_is_a_failed_smoke_test(line: str, told: str) -> None:
    with pytest.raises(SmokeError, match=told):
        read_answer("models:/m@champion", line)
