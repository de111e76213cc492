"""Whose runs are taken for dead: this home's alone. On a team's Prefect server every home sees every run."""

from pathlib import Path
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas import StateType
from prefect.runtime import flow_run
from prefect.states import Running
from prefect.testing.utilities import prefect_test_harness

from aot_core.home import Home
from flows.maintenance import crash_silent_runs, take_over

KEY = "c" * 64


@flow
def campaign(home: str) -> str:
    take_over(KEY, Home(home))
    return str(flow_run.get_id())


def left_running(home: Path) -> UUID:
    """A campaign's run whose process was killed: its server still says that it is Running."""
    killed = UUID(campaign(str(home)))
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(killed, Running(), force=True)
    return killed


def state_of(run: UUID) -> StateType | None:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run).state_type


def test_a_home_keeps_its_identity(tmp_path: Path) -> None:
    one, other = Home(tmp_path / "one"), Home(tmp_path / "other")
    assert one.identity == Home(tmp_path / "one").identity != other.identity
    assert [path.name for path in one.root.iterdir()] == ["identity"]


def test_another_homes_runs_are_left_alone(tmp_path: Path) -> None:
    with prefect_test_harness(server_startup_timeout=240):
        here, there = left_running(tmp_path / "here"), left_running(tmp_path / "there")
        assert crash_silent_runs(Home(tmp_path / "here"), lambda _: True) == [], "its campaign runs"
        assert crash_silent_runs(Home(tmp_path / "here"), lambda _: False) == [here]
        assert (state_of(here), state_of(there)) == (StateType.CRASHED, StateType.RUNNING)
        # The same campaign, started here again: what the other home runs of it is alive, for all that is known here.
        again = left_running(tmp_path / "here")
        campaign(str(tmp_path / "here"))
        assert (state_of(again), state_of(there)) == (StateType.CRASHED, StateType.RUNNING)
