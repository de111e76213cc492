"""How results are printed: tables of which nothing is cut, at 80 columns and in a pipe, and the same as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def table(title: str, *columns: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """A table whose cells are folded where they are too long.

    Args:
        right: columns of figures.
        whole: columns whose cells are never broken, such as dates; they have to be short.
    """
    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in whole)
    return made


def console() -> Console:
    """The standard output, without Rich's colouring of numbers and paths."""
    return Console(highlight=False)


def say(text: str, style: str | None = None) -> None:
    """A line that is broken where the window ends it, and nowhere in a pipe."""
    Console(highlight=False, soft_wrap=True).print(text, style=style, markup=False)


def counted(count: int, noun: str) -> str:
    """ "1 round", "2 rounds"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def when(iso: str) -> str:
    """ "2026-11-28T07:31:54+00:00" as "2026-11-28 07:31"."""
    return iso[:16].replace("T", " ")


def print_json(value: Any) -> None:
    """The value alone, for programs."""
    print(json.dumps(value, indent=1, ensure_ascii=False))
