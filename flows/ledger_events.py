"""`python -m flows.ledger_events HOME FILE`: sends what `aot promote` and `aot rollback` have written as events.

FILE holds the ledger's entries and is removed once read (`aot_core.commands.handover`). A server that does not answer
within SECONDS hears of nothing.
"""

import argparse
import signal
from pathlib import Path

from prefect.settings import PREFECT_API_URL

from aot_core.commands.handover import take_entries
from aot_core.home import Home
from flows.events import tell_ledger

SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("entries", type=Path, help="What the command has written; removed once it is read.")
    arguments = parser.parse_args()
    signal.alarm(SECONDS)  # nobody watches this process, and Prefect's client tries again for long
    entries = take_entries(arguments.entries)
    if not PREFECT_API_URL.value():
        return  # else Prefect would start a server of its own for an event
    for entry in entries:
        tell_ledger(entry, Home(arguments.home))


if __name__ == "__main__":
    main()
