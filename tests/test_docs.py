"""README and docs tell the truth: every link, file, picture and command in them exists, and the short ones run."""

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import typer.main

from aot_core.commands.cli import app
from tests.docs_commands import PAGES, ROOT, commands

NAMED = re.compile(r"`((?:aot_core|flows|tests|benchmarks|configs|docker|docs|examples|infra)/[\w./-]*)`")
TEMPLATE = {"x", "test_x", "tally", "test_tally", "ours"}
"""Files that the pages on extending tell the reader to make."""


def pages() -> list[object]:
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES]


@pytest.mark.parametrize("page", pages())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    for link in local:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name}: {link} names a heading that is not there"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages())
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    missing = [
        name
        for name in NAMED.findall(page.read_text())
        if not (ROOT / name).exists() and Path(name).stem not in TEMPLATE
    ]
    assert not missing


def test_every_aot_command_in_the_pages_exists_with_its_options() -> None:
    """Each is parsed by the real command line, down to the names of its options."""
    found = 0
    for page in PAGES:
        for words in map(shlex.split, commands(page.read_text())):
            if words[0] != "aot":
                continue
            command: Any = typer.main.get_command(app)
            rest = words[1:]
            while hasattr(command, "commands") and rest:
                name = rest.pop(0)
                assert name in command.commands, f"{page.name}: {shlex.join(words)}: there is no command {name!r}"
                command = command.commands[name]
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            given = {word.split("=")[0] for word in rest if word.startswith("--")}
            assert given <= known | {"--help"}, (
                f"{page.name}: {shlex.join(words)}: {sorted(given - known)} do not exist"
            )
            found += 1
    assert found > 20


def test_every_make_target_in_the_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for target in re.findall(r"\bmake ([a-z][\w-]+)`|^make ([a-z][\w-]+)", page.read_text(), re.MULTILINE)
    }
    asked = {name for pair in named for name in pair if name}
    assert asked and asked <= targets


def test_every_benchmark_that_the_pages_run_exists() -> None:
    for page in PAGES:
        for script in re.findall(r"python ((?:benchmarks|examples)/\w+\.py)", page.read_text()):
            assert (ROOT / script).is_file(), f"{page.name} runs {script}"


def test_the_readme_is_short_and_its_map_complete() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    folders = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and tracked(path)}
    named = set(re.findall(r"`(\w+/)`", readme))
    assert folders <= named


@pytest.mark.parametrize("page", pages())
def test_sentences_are_short(page: Path) -> None:
    """25 words at most on average."""
    assert mean(len(sentence.split()) for sentence in sentences(page.read_text())) <= 25


def sentences(page: str) -> list[str]:
    """The prose of a page: no code, tables, headings, pictures or comments; an item of a list ends a sentence."""
    text = re.sub(r"^( *)```.*?^\1```$|<!--.*?-->", "", page, flags=re.DOTALL | re.MULTILINE)
    item = re.compile(r" *(?:[-*]|\d+\.) ")
    kept = [
        "\n\n" + item.sub("", line) if item.match(line) else line.strip()
        for line in text.splitlines()
        if not re.match(r" *(?:\||#|!\[|:::)", line)
    ]
    parts = re.split(r"\n\s*\n|(?<=[.!?:])[*_]*\s+(?=[A-Z`*\"\[(])", "\n".join(kept))
    return [" ".join(part.split()) for part in parts if len(part.split()) > 1]


def tracked(path: Path) -> bool:
    return (
        not path.name.startswith(".")
        and path.name not in {"build", "node_modules"}
        and not path.name.endswith(".egg-info")
    )


def test_the_design_page_has_a_line_for_every_room() -> None:
    rooms = {f"aot_core/{path.parent.name}/" for path in (ROOT / "aot_core").glob("*/__init__.py")}
    design = (ROOT / "docs" / "design.md").read_text()
    assert set(re.findall(r"^\| `(aot_core/\w+/)` \|", design, re.MULTILINE)) == rooms


@pytest.mark.parametrize("example", ["attack_your_model.py", "own_editor.py", "own_reward.py", "one_round.py --quick"])
def test_an_example_runs(example: str, tmp_path: Path) -> None:
    name, *options = example.split()
    done = run([sys.executable, str(ROOT / "examples" / name), *options], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_source_of_ones_own_becomes_a_data_set(tmp_path: Path) -> None:
    """The commands of `examples/own_source.py`, as it names them."""
    folder, data = tmp_path / "in", tmp_path / "out"
    assert run([sys.executable, str(ROOT / "examples" / "own_source.py"), str(folder)], tmp_path).returncode == 0
    config = str(ROOT / "examples" / "own_source.toml")
    built = run([*AOT, "data", "build", config, str(data), "--set", f"source_folder={folder}"], tmp_path)
    assert built.returncode == 0, built.stderr
    shown = run([*AOT, "data", "show", str(data), "--output", str(tmp_path / "pairs.html")], tmp_path)
    assert shown.returncode == 0 and (tmp_path / "pairs.html").is_file()


AOT = [sys.executable, "-m", "aot_core"]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the site needs mkdocs: pip install -e .[dev]")
def test_the_site_builds_strictly_and_asks_no_other_host(tmp_path: Path) -> None:
    """Every page, link and anchor, the configuration reference and the API pages; nothing is loaded from elsewhere."""
    built = run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "-f",
            str(ROOT / "mkdocs.yml"),
            "-d",
            str(tmp_path / "site"),
        ],
        ROOT,
    )
    assert built.returncode == 0, built.stderr
    configuration = (tmp_path / "site" / "configuration.html").read_text()
    assert "attacker_round.sampling" in configuration and "clean_margin" in configuration
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?://[^\"]+)", page.read_text())
        assert not loaded, f"{page.name} loads {loaded[0]}"
