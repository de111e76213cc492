"""What a command writes into the ledger becomes Prefect events, as it does in a flow.

A process of its own sends them (`flows.ledger_events`): the command neither waits for a server nor fails with it, and
starts none.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import typer

from aot_core.commands.handover import hand_over_entries
from aot_core.contracts.promotion import LedgerEntry
from aot_core.home import Home
from aot_core.loopback import announced_prefect
from aot_core.promotion.transaction import Promoter


@contextmanager
def told_to_prefect(promoter: Promoter, home: Home) -> Iterator[Promoter]:
    """A promoter whose entries are sent once the block has ended, also by an error: to PREFECT_API_URL's server, else
    to the one that `aot ui` runs, else to nobody."""
    written: list[LedgerEntry] = []

    def notify(entry: LedgerEntry) -> None:
        promoter.notify(entry)
        written.append(entry)

    try:
        yield replace(promoter, notify=notify)
    finally:
        api = os.environ.get("PREFECT_API_URL") or announced_prefect(home.prefect)
        if written and api:
            _send(written, home, api)


def _send(entries: list[LedgerEntry], home: Home, api: str) -> None:
    try:
        file = hand_over_entries(entries, home.root)
        subprocess.Popen(
            [sys.executable, "-m", "flows.ledger_events", str(home.root), str(file)],
            env=os.environ | {"PREFECT_API_URL": api},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it outlives the terminal
        )
    except OSError as error:  # the ledger has the entry, which is what counts
        typer.secho(f"no Prefect event is sent: {error.strerror}", err=True, fg="yellow")
