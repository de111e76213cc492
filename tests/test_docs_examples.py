"""The examples of the documentation run as they stand there, from any folder, and print what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PROMISED = {
    "learnability.md": r"\d+ valid edits, \d+ kept\ngroups of 8 that teach nothing: ([\d.]+) before, ([\d.]+) after",
    "exploitability.md": r"success on \d+ held-out scenes: [\d.]+ before, [\d.]+ after",
    "flow-rl.md": r"Flow-GRPO, update 1: mean redness -?[\d.]+\nDiffusionNFT, update 0",
}


@pytest.mark.parametrize("page", PROMISED)
def test_an_example_runs_and_is_short(page: str, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    statements = [line for line in code.splitlines() if line.strip() and not re.match(r"(from|import) ", line)]
    assert len(statements) <= 30
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = re.search(PROMISED[page], done.stdout)
    assert found, done.stdout
    if page == "learnability.md":
        assert float(found[2]) < float(found[1])


@pytest.mark.parametrize("page", PROMISED)
def test_the_configs_of_a_page_are_accepted(page: str) -> None:
    import tomllib

    from aot_core.contracts.campaign import CampaignConfig

    for table in re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
        CampaignConfig.model_validate({"name": "page", **tomllib.loads(table)})
