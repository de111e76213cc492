"""GPU slots: a Prefect global concurrency limit a GPU, so that campaigns on one box queue and do not collide.

`aot setup` makes the limits; a stage holds one while it runs. A limit that is not there fails the stage (`strict`):
passing silently would put two trainings on one GPU. Prefect takes a slot back when its holder stops renewing it.
"""

import json
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from aot_core.contracts.errors import LauncherError, StageCancelledError
from flows.own_server import keep_own_server
from flows.sentences import run_flow

_TRY_SECONDS = 5.0
"""How long one slot is waited for before the next one is tried, and before anybody is asked whether to go on."""


@contextmanager
def gpu_slot(names: Sequence[str], stop_requested: Callable[[], bool]) -> Generator[str | None]:
    """Hold any one of the slots; yields the number of its GPU, None where there are no slots to hold."""
    with ExitStack() as held:
        yield _acquire(held, names, stop_requested) if names else None


def _acquire(held: ExitStack, names: Sequence[str], stop_requested: Callable[[], bool]) -> str | None:
    while True:
        for name in names:
            try:
                held.enter_context(concurrency(name, timeout_seconds=_TRY_SECONDS, strict=True))
            except ConcurrencySlotAcquisitionError as error:
                raise LauncherError(f"run.gpu_slots: {name!r}: {error}; `aot setup` makes the slots") from error
            except TimeoutError:
                if stop_requested():
                    raise StageCancelledError("cancelled while waiting for a GPU slot") from None
            else:
                number = re.search(r"\d+$", name)
                return number.group() if number else None


def make_slots(count: int, prefix: str = "aot-gpu-") -> list[str]:
    """Make `aot-gpu-0` .. `aot-gpu-N-1` on the Prefect server, each for one stage at a time; returns their names."""
    names = [f"{prefix}{number}" for number in range(count)]
    with get_client(sync_client=True) as client:
        for name in names:
            try:
                client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    return names


def _main() -> None:
    keep_own_server()
    made = make_slots(int(sys.argv[1]))
    print(
        f"run.gpu_slots = {json.dumps(made)}"
        if made
        else "no GPU was found, so no slots were made; --gpus N makes them anyway"
    )


if __name__ == "__main__":
    sys.exit(run_flow(None, _main))
