"""`aot data`: from config to guarded folder, and back to what is in it."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from aot_core.commands.cli import app

CONFIG = """
name = "shapes"
[prepare_data.splits]
warm_start = 12
train = 4
evaluate = 2
[prepare_data.effectiveness]
enabled = false
"""


def aot(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "shapes.toml").write_text(CONFIG)
    result = aot("build", folder / "shapes.toml", folder / "made", "--set", "prepare_data.splits.train=6")
    assert result.exit_code == 0, result.output
    return folder / "made"


def test_build_leaves_a_data_set_and_nothing_beside_it(built: Path) -> None:
    names = {path.name for path in built.iterdir()}
    assert names == {"README.md", "card.json", "data", "guard", "manifest.json", "pictures", "rejections.parquet"}
    assert {path.name for path in built.parent.iterdir()} == {"shapes.toml", "made"}
    again = aot("build", built.parent / "shapes.toml", built)
    assert again.exit_code == 2 and "exists already" in again.stderr


def test_validate_tells_good_from_bad(built: Path, tmp_path: Path) -> None:
    result = aot("validate", built, "--no-photographs", "--docs", tmp_path / "docs")
    assert result.exit_code == 0 and "expectations hold" in result.stdout
    assert (tmp_path / "docs/index.html").is_file()
    picture = next((built / "data/train").rglob("*.png"))
    whole = picture.read_bytes()
    picture.write_bytes(b"spoilt")
    try:
        result = aot("validate", built, "--no-photographs")
        assert result.exit_code == 2 and "hashes_hold" in result.stderr and picture.stem in result.stderr
    finally:
        picture.write_bytes(whole)


def test_show_draws_a_sheet(built: Path, tmp_path: Path) -> None:
    assert aot("show", built, "--output", tmp_path / "sheet.png", "--rows", 5).exit_code == 0
    assert Image.open(tmp_path / "sheet.png").height > 5 * 192
    assert aot("show", built, "--output", tmp_path / "sheet.html", "--rows", 5).exit_code == 0
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("data:image/png;base64,") == 10 and "SSIM" in page
    assert aot("show", built, "--output", tmp_path / "sheet.gif").exit_code == 2


def test_card_says_what_is_in_it(built: Path) -> None:
    result = aot("card", built)
    card = json.loads(result.stdout)
    assert card["splits"] == {"evaluate": 8, "train": 6, "warm_start": 12}
    assert sum(card["kinds"].values()) == card["samples"] == 26
    assert sum(card["edits"].values()) == card["pairs"] == 12 + 6
    assert set(card["edits"]) <= {"add", "remove", "replace", "hybrid"}
    assert card["licences"] == {"generated": 26}
    assert card["funnel"]["ssim/accepted"] == 14
    readme = (built / "README.md").read_text()
    assert "path: data/warm_start/**" in readme and "| generated | 26 |" in readme


def test_a_card_of_another_data_set_is_refused(built: Path) -> None:
    path = built / "card.json"
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), "pairs": 99}))
    try:
        result = aot("card", built)
        assert result.exit_code == 2 and "about pairs" in result.stderr
    finally:
        path.write_text(whole)


def test_bad_input_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "coco.toml").write_text('name = "x"\n[prepare_data.source]\ntype = "coco"\n')
    result = aot("build", tmp_path / "coco.toml", tmp_path / "out")
    assert result.exit_code == 2 and "unseen" in result.stderr
    assert aot("validate", tmp_path).exit_code == 2
    assert not (tmp_path / "out").exists()
