"""A few kills for every day, on the first stage alone; `make test-chaos` gives a hundred over all stages."""

from pathlib import Path

import pytest

from tests.chaos.chaos import ROOT, Chaos


@pytest.mark.timeout(1200)
def test_killed_again_and_again_it_ends_as_undisturbed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "data.toml"
    smoke = (ROOT / "configs/smoke.toml").read_text(encoding="utf-8")
    config.write_text('stop_after = "prepare_data"\n' + smoke, encoding="utf-8")
    code = Chaos(tmp_path, kills=3, seed=1, config=str(config), a_home=2, young=2).run()
    said = capsys.readouterr().out
    assert code == 0 and "3 kills over 1 homes" in said, said
    assert "1 of 1 homes ended as undisturbed" in said, said
