"""The README names every file: a tree that lies is worse than none."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("aot_core", "flows", "configs", "benchmarks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".toml", ".j2"} and path.name != "__init__.py"
)


@pytest.mark.parametrize("source", SOURCES)
def test_the_readme_names_the_file(source: str) -> None:
    assert f" {Path(source).name} " in (ROOT / "README.md").read_text().replace("\n", " \n")


def test_every_picture_of_the_readme_is_there() -> None:
    import re

    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / picture).is_file(), picture
