"""What becomes of a decision, on a real Prefect: a person says yes, says no, says nothing; an asker that died."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun, StateType
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterTags,
)
from prefect.flow_runs import resume_flow_run
from prefect.settings import get_current_settings
from prefect.testing.utilities import prefect_test_harness

import flows.approval
from aot_core.contracts.campaign import RunSettings
from aot_core.contracts.promotion import Decision, PromotionSettings
from aot_core.home import Home
from aot_core.promotion.commands import promote
from aot_core.store import LocalStore
from aot_core.tracking import registry
from flows.promotion import act_on, promoter
from tests.promotion.conftest import decision
from tests.promotion.conftest import uri as uri

ROOT = Path(__file__).parents[2]
ASKED = PromotionSettings(approval="human", approval_hours=1.0, smoke_seconds=120)


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=600):
        yield


@pytest.fixture
def home(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Version 1 leads, nobody has challenged it yet, and the ledger is empty."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(flows.approval, "_POLL_SECONDS", 1)
    registry.set_alias(uri, "champion", "1")
    registry.remove_alias(uri, "challenger")
    return Home(tmp_path)


def act(home: Home, about: Decision, settings: PromotionSettings = ASKED, page: Path | None = None) -> str:
    return act_on(about, home, settings, LocalStore(home.store), RunSettings(), page)


def told(home: Home) -> list[tuple[str, str]]:
    """(kind, who) of the ledger's entries."""
    entries = promoter(home, ASKED, LocalStore(home.store), RunSettings()).ledger.entries()
    return [(entry.kind, entry.who) for entry in entries]


def leading(home: Home) -> str:
    champion = registry.get_champion(home.mlflow_uri)
    return champion[0] if champion else ""


def questions(about: Decision) -> list[FlowRun]:
    """The flow runs that ask about a decision."""
    with get_client(sync_client=True) as client:
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"decision:{about.sha256}"]))
        return client.read_flow_runs(flow_run_filter=tagged)


def wait_for_question(about: Decision, seconds: float = 90) -> UUID:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for run in questions(about):
            if run.state is not None and run.state.type == StateType.PAUSED:
                return run.id
        time.sleep(0.2)
    raise AssertionError("nobody was asked")


def answered(home: Home, about: Decision, **answer: object) -> str:
    """Act on a decision; answer its question as a person would, in Prefect."""
    outcome: list[str] = []
    asker = threading.Thread(target=lambda: outcome.append(act(home, about)))
    asker.start()
    resume_flow_run(wait_for_question(about), run_input=answer)
    asker.join(120)
    return outcome[0]


def test_with_a_persons_leave_it_is_promoted_and_they_saw_what_there_is_to_see(home: Home) -> None:
    about = decision(2, 1)
    page = home.root / "approval.md"
    page.write_text("# version 2\n\n![before](data:image/webp;base64,AAAA)")
    outcome: list[str] = []
    asker = threading.Thread(target=lambda: outcome.append(act(home, about, page=page)))
    asker.start()
    asked = wait_for_question(about)
    with get_client(sync_client=True) as client:
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[asked]))
        (artifact,) = client.read_artifacts(artifact_filter=mine)
        state = client.read_flow_run(asked).state
        assert state is not None and state.state_details.run_input_keyset
        question = client.read_flow_run_input(asked, state.state_details.run_input_keyset["description"])
    assert artifact.data == page.read_text() and artifact.key == "approval-aot-defender"
    assert page.read_text() in json.loads(question) and str(artifact.id) in question, "and leads to the wide page"
    resume_flow_run(asked, run_input={"promote": True, "who": "Ada", "why": "looks sound"})
    asker.join(120)
    assert outcome == ["approved by Ada, and promoted"]
    assert leading(home) == "2"
    assert [kind for kind, _ in told(home)] == ["proposed", "intent", "done"]
    last = promoter(home, ASKED, LocalStore(home.store), RunSettings()).ledger.entries()[-1]
    assert last.why == "Ada: looks sound; better"
    assert act(home, about) == "it leads already"


def test_a_no_stands_and_nobody_is_asked_again(home: Home) -> None:
    about = decision(3, 1)
    assert answered(home, about, promote=False, who="Ada", why="not before the holidays") == "declined by Ada"
    assert leading(home) == "1" and told(home)[-1] == ("declined", "Ada")
    assert act(home, about) == "declined by Ada; `aot promote` can still promote it"
    assert len(questions(about)) == 1 and len(told(home)) == 2
    # Whoever overrules it does so by name.
    assert "is the champion now" in promote(
        promoter(home, ASKED, LocalStore(home.store), RunSettings()), "3", "holidays are over", force=False
    )
    assert leading(home) == "3"


@pytest.mark.parametrize(
    ("version", "told_of"),
    [(2, "promoted by hand in the meantime"), (3, "not promoted: version 3 was made the champion in the meantime")],
)
def test_aot_promote_ends_the_wait(home: Home, version: int, told_of: str) -> None:
    """Whoever promotes by the command line, this version or another, answers the question too."""
    about, acting = decision(2, 1), promoter(home, ASKED, LocalStore(home.store), RunSettings())
    outcome: list[str] = []
    asker = threading.Thread(target=lambda: outcome.append(act(home, about)))
    asker.start()
    wait_for_question(about)
    acting.promote(decision(version, 1), "checked by hand")
    asker.join(120)
    assert outcome == [told_of] and leading(home) == str(version)
    kinds = [kind for kind, _ in told(home)]
    assert sorted(kinds) == ["done", "intent", "proposed"], "nobody declined it"
    assert all(run.state is not None and run.state.is_final() for run in questions(about))


def test_a_question_that_nobody_answers_counts_as_no(home: Home) -> None:
    about = decision(2, 1, reason="better by little")
    settings = ASKED.model_copy(update={"approval_hours": 3 / 3600})
    assert act(home, about, settings).startswith("nobody answered within 0.000833333 h")
    assert leading(home) == "1" and [kind for kind, _ in told(home)] == ["proposed", "expired"]
    (run,) = questions(about)
    assert run.state is not None and run.state.is_final(), "it waits for nobody any more"


def test_an_answer_without_a_name_is_refused(home: Home) -> None:
    about = decision(2, 1, reason="better, who says so?")
    outcome: list[str] = []
    asker = threading.Thread(target=lambda: outcome.append(act(home, about)))
    asker.start()
    asked = wait_for_question(about)
    with pytest.raises(RuntimeError, match="who"):
        resume_flow_run(asked, run_input={"promote": True, "who": ""})
    assert leading(home) == "1"
    assert act(home, about) == "another process is already waiting for approval"
    resume_flow_run(asked, run_input={"promote": False, "who": "Ada"})
    asker.join(120)
    assert outcome == ["declined by Ada"]


def test_without_approval_nobody_is_asked(home: Home) -> None:
    free = PromotionSettings(smoke_seconds=120)
    assert act(home, decision(2, 1, promote=False, reason="worse"), free) == "refused by the gate, the champion stays"
    assert leading(home) == "1"
    assert act(home, decision(3, 1), free) == "promoted"
    assert leading(home) == "3" and [kind for kind, _ in told(home)] == ["refused", "intent", "done"]


ASKER = """
import sys
from tests.flows.test_promotion import act, decision
from aot_core.home import Home
act(Home(sys.argv[1]), decision(2, 1, reason="asked by one that dies"))
"""


def test_a_question_whose_asker_was_killed_is_asked_again(home: Home) -> None:
    about = decision(2, 1, reason="asked by one that dies")
    server = str(get_current_settings().api.url)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_API_URL": server}
    asker = subprocess.Popen([sys.executable, "-c", ASKER, str(home.root)], cwd=ROOT, env=environment)
    first = wait_for_question(about)
    os.kill(asker.pid, signal.SIGKILL)
    asker.wait()
    assert leading(home) == "1"
    outcome: list[str] = []
    heir = threading.Thread(target=lambda: outcome.append(act(home, about)))
    heir.start()
    deadline = time.monotonic() + 60
    while (second := wait_for_question(about)) == first:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    states = {run.id: run.state.type for run in questions(about) if run.state}
    assert states == {first: StateType.CANCELLED, second: StateType.PAUSED}, "an answer to the first reaches nobody"
    resume_flow_run(second, run_input={"promote": False, "who": "Ada"})
    heir.join(120)
    assert outcome == ["declined by Ada"] and [kind for kind, _ in told(home)] == ["proposed", "declined"]
