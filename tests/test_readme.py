"""The README's map and pictures are there: a map that lies is worse than none."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_map_has_a_line_for_every_room() -> None:
    rooms = {f"aot_core/{path.parent.name}/" for path in (ROOT / "aot_core").glob("*/__init__.py")}
    named = set(re.findall(r"^\| `(aot_core/\w+/)` \|", README, re.MULTILINE))
    assert named == rooms


def test_every_file_and_folder_that_the_readme_names_is_there() -> None:
    named = re.findall(r"`((?:aot_core|flows|tests|benchmarks|configs|docker|docs|infra)/[\w./-]*)`", README)
    # `x` is the stage of the recipe "To add a stage".
    missing = [name for name in named if not (ROOT / name).exists() and Path(name).stem not in {"x", "test_x"}]
    assert named and not missing


def test_every_picture_of_the_readme_is_there() -> None:
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).is_file(), picture
