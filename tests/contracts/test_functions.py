from pathlib import Path

import pytest

from aot_core.contracts.functions import import_function


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def score(batch:\n", "cannot be imported: SyntaxError"),
        ("raise RuntimeError('no licence')\n", "cannot be imported: RuntimeError: no licence"),
        ("score = 3\n", "is not a function; name one as package.module:function"),
    ],
    ids=["syntax", "raises", "no function"],
)
def test_a_module_that_breaks_is_bad_input_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    """A crash would be tried again, and would name neither the field nor the function."""
    name = f"broken_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=f"defender_round.rewards: '{name}:score' {says}"):
        import_function(f"{name}:score", "defender_round.rewards")
