"""A few kills for every day; `make test-chaos` gives a hundred."""

from pathlib import Path

import pytest

from tests.chaos.chaos import Chaos


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_again_and_again_it_ends_as_undisturbed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = Chaos(tmp_path, kills=4, seed=1, config="configs/smoke.toml", a_home=2).run()
    said = capsys.readouterr().out
    assert code == 0 and "4 kills over 1 homes" in said, said
