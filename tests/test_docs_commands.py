"""Every command that README and docs show is run by a test, or marked with the reason why it is not."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.docs_commands import ELSEWHERE, IN_A_CHECKOUT, NOT_RUN, ON_A_FINISHED_CAMPAIGN, PAGES, ROOT, commands, normal

KNOWN = [normal(line) for line in (*IN_A_CHECKOUT, *ON_A_FINISHED_CAMPAIGN, *ELSEWHERE, *NOT_RUN)]


def test_every_command_of_the_pages_is_run_or_says_why_not() -> None:
    shown = {command: page.name for page in PAGES for command in commands(page.read_text())}
    unknown = {page: command for command, page in shown.items() if command not in KNOWN}
    assert not unknown, f"say in tests/docs_commands.py where these are run, or why not: {unknown}"
    gone = [command for command in KNOWN if command not in shown]
    assert not gone, f"no page shows these any more; take them out of tests/docs_commands.py: {gone}"
    assert not [command for command, times in Counter(KNOWN).items() if times > 1]


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("```bash\nX=1 .venv/bin/aot ui &   # a server\n```", ["aot ui"]),
        ("1. so\n\n   ```bash\n   aot data build A \\\n     B\n   ```\n", ["aot data build A B"]),
        ("```\naot status\nprinted\n```", ["aot status"]),
        ("```python\naot = 1\n```\n\n    make lint\n    some output\n", ["make lint"]),
    ],
    ids=["variables", "continued, in a list", "no language", "indented"],
)
def test_commands_are_found_in_every_kind_of_block(page: str, found: list[str]) -> None:
    assert commands(page) == found


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_a_test_that_is_said_to_run_a_command_exists(test: str) -> None:
    path, name = test.split("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_the_short_ones_run(tmp_path: Path) -> None:
    """In a folder like a checkout, one after the other, as they stand on the pages."""
    for folder in ("configs", "docs", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    shutil.copytree(ROOT / "infra", tmp_path / "infra")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in ("python examples/own_source.py FOLDER", *IN_A_CHECKOUT):
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    for made in ("DATA/card.json", "pairs.html", "DOCS", "probe/index.html", "infra/.env"):
        assert (tmp_path / made).exists(), made
