"""From what happens to whoever is told: events, the automations that `aot deploy --tell` makes, a receiver of posts.

On a real Prefect server, which alone makes something of an event.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from aot_core.contracts.evaluate import EvaluateOutputs
from aot_core.home import Home
from flows.automations import OF_PREFECT, BlockError, tellers
from flows.events import EVENTS, fell
from tests.flows.test_deployments import CLEAN, ROOT, SMOKE, answers, aot, free_port, until

BEARER = "only-the-receiver-knows"
pytestmark = pytest.mark.timeout(1800)


@dataclass
class Server:
    """A Prefect server, and somebody who is told."""

    api: str
    home: Path
    received: list[dict[str, Any]]

    def ask(self, route: str, **wanted: Any) -> Any:
        return httpx.post(f"{self.api}/{route}", json=wanted).raise_for_status().json()

    def events(self, name: str) -> list[dict[str, Any]]:
        return self.ask("events/filter", filter={"event": {"name": [name]}})["events"]

    def automations(self) -> dict[str, Any]:
        return {automation["name"]: automation for automation in self.ask("automations/filter", limit=200)}

    def heard(self, event: str) -> list[dict[str, Any]]:
        return [post for post in self.received if post["event"] == event]

    def python(self, code: str) -> None:
        """Run a few lines as a flow's process would."""
        environment = CLEAN | {"PREFECT_API_URL": self.api, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address, and what was posted there by whoever knows the word."""
    posts: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Authorization"] == BEARER:
                posts.append(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", posts
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, received: tuple[str, list[dict[str, Any]]]) -> Iterator[Server]:
    home, log = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("logs") / "prefect.log"
    port = str(free_port())
    api = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    environment = CLEAN | {"PREFECT_HOME": str(home / "prefect"), "PREFECT_API_URL": api}
    with log.open("wb") as stream, subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=stream, stderr=stream
    ) as process:  # fmt: skip
        try:
            until(lambda: process.poll() is not None or answers(f"{api}/health"))
            assert process.poll() is None, log.read_text()
            yield Server(api, home, received[1])
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def told(server: Server, received: tuple[str, list[dict[str, Any]]]) -> Server:
    """The server, its block for a receiver, and what `aot deploy` makes of it."""
    server.python(
        "from prefect.blocks.webhook import Webhook\n"
        f"Webhook(url={received[0]!r}, headers={{'Authorization': {BEARER!r}}}).save('oncall')"
    )
    done = aot("deploy", str(SMOKE), "--tell", "webhook/oncall", "--home", str(server.home), PREFECT_API_URL=server.api)
    assert done.returncode == 0, done.stderr
    return server


def test_a_block_that_nobody_has_made_is_named(server: Server) -> None:
    with (
        temporary_settings({PREFECT_API_URL: server.api}),
        pytest.raises(BlockError, match="webhook/nobody: Prefect has"),
    ):
        tellers("webhook/nobody")


def test_an_automation_for_every_event_and_two_that_start_something_switched_off(told: Server) -> None:
    found = told.automations()
    telling = {name: found[name] for name in found if name.endswith("-> webhook/oncall")}
    assert {one["trigger"]["expect"][0] for one in telling.values()} == {*EVENTS, *OF_PREFECT}
    assert all(one["enabled"] for one in telling.values())
    starting = [one for one in found.values() if one["actions"][0]["type"] == "run-deployment"]
    assert len(starting) == 2 and not any(one["enabled"] for one in starting)
    assert BEARER not in json.dumps(found), "the word stays in the block"


def test_a_campaign_that_fails_reaches_the_receiver(told: Server) -> None:
    done = aot("run", str(SMOKE), "--set", "run.launcher=docker", "--home", str(told.home), PREFECT_API_URL=told.api,
               DOCKER_HOST="unix:///nowhere/docker.sock")  # fmt: skip
    assert done.returncode == 2, done.stderr
    (post,) = until(lambda: told.heard("aot.campaign.failed"))
    assert post["payload"]["campaign"] == "smoke" and "has failed: " in post["payload"]["message"]
    assert post["resource"] == "aot.campaign.smoke"


def test_a_fact_is_told_once(told: Server) -> None:
    two, three = (f"version {number} leads, by nobody's leave" for number in (2, 3))
    lines = "from flows.events import tell_astray; tell_astray('aot-defender', {!r})"
    told.python(lines.format(two))
    until(lambda: told.events("aot.champion.astray"))  # the server knows it before it is told again
    told.python(lines.format(two) + f"; tell_astray('aot-defender', {three!r})")
    until(lambda: len(told.heard("aot.champion.astray")) > 1)
    assert [post["payload"]["message"] for post in told.heard("aot.champion.astray")] == [two, three]
    until(lambda: len(told.events("aot.champion.astray")) == 2)


def test_a_terminals_promotion_is_told_as_a_flows_is(told: Server, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    home = Home(tmp_path / "home")
    home.create()
    client = MlflowClient(home.mlflow_uri)
    client.create_registered_model("aot-defender")
    client.create_model_version("aot-defender", str(tmp_path / "nowhere"))  # does not load: the smoke test refuses it
    words = ("promote", "--version", "1", "--force", "--why", "to see it", "--home", str(home.root))
    alone = aot(*words)
    assert alone.returncode != 0 and "Traceback" not in alone.stderr
    assert not [*home.prefect.iterdir()] and not (home.root / "handover").exists(), "without a server none is started"

    before = {event["id"] for event in told.events("aot.promotion.refused")}
    refused = aot(*words, PREFECT_API_URL=told.api)
    until(lambda: len(told.events("aot.promotion.refused")) > len(before))
    (event,) = (one for one in told.events("aot.promotion.refused") if one["id"] not in before)
    assert event["resource"]["prefect.resource.id"] == "aot.model.aot-defender"
    assert event["payload"]["action"] == "force" and event["payload"]["to_version"] == "1"
    assert not [*(home.root / "handover").iterdir()], "what was handed over was read"

    down = aot(*words, PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api")
    for done in (refused, down):
        assert (done.returncode, done.stderr) == (alone.returncode, alone.stderr), "whatever becomes of the event"


LABELS = """
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.errors import StageBadInputError
from aot_core.contracts.evaluate import EvaluateOutputs
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.series import EditionPlan
from aot_core.home import Home
from flows import series
from flows.campaign import OpenCampaign

def record(clean):
    figures = {"strict": {"clean": clean}, "low": {"clean": clean - 0.1}, "high": {"clean": clean + 0.1}}
    rest = {name: {} for name in ("mean", "valid", "kinds", "kinds_n")}
    outputs = EvaluateOutputs(**figures, **rest, n={"clean": 60}, worst=clean, worst_condition="clean")
    return SimpleNamespace(outputs=outputs.model_dump(mode="json"))

series.fixed_exam = lambda *_: record(0.9)  # what the Defender knows of the first edition's questions
reference = ArtifactRef(uri="aot://warm_start_defender/" + "a" * 64, sha256="b" * 64)
for action, clean in CASES:
    plan = EditionPlan(series="weekly", number=2, seed=1, defender=reference, exam=reference, reference=reference)
    config = load_campaign(Path("configs/smoke.toml"), ["series.name=weekly", f"series.on_drift={action}"])
    with suppress(StageBadInputError), OpenCampaign(config.model_copy(update={"edition": plan}), Home(HOME)) as opened:
        series.look_for_wrong_labels(opened, SimpleNamespace(evaluation=record(clean)))
"""


def test_doubtful_labels_are_told_once_an_edition(told: Server) -> None:
    def look(*cases: tuple[str, float]) -> None:
        told.python(f"HOME = {str(told.home)!r}\nCASES = {cases!r}\n{LABELS}")

    look(("warn", 0.85), ("ignore", 0.4), ("warn", 0.4))
    until(lambda: told.events("aot.data.drifted"))
    look(("warn", 0.4), ("stop", 0.4))  # a resumed edition, and another
    until(lambda: len(told.heard("aot.data.drifted")) > 1)
    posts = told.heard("aot.data.drifted")
    assert len({post["resource"] for post in posts}) == len(posts) == 2
    for post in posts:
        assert post["payload"]["message"].startswith("the Defender that this edition begins with is right on 40.0%")
        figures = {name: post["payload"][name] for name in ("series", "edition", "clean", "before")}
        assert figures == {"series": "weekly", "edition": 2, "clean": 0.4, "before": 0.9}


LEDGER = """
from aot_core.contracts.promotion import LedgerEntry
from aot_core.home import Home
from flows.events import tell_ledger
for number, action in enumerate(("rollback", "promote"), start=1):
    entry = LedgerEntry(number=number, previous="", kind="done", action=action, model="aot-defender", from_version="1",
                        to_version="2", who="Ada", when="2026-11-28T10:00:00+00:00", why="better")
    tell_ledger(entry, Home(HOME))
"""


def test_an_automation_that_is_switched_on_starts_its_deployment_at_a_promotion_alone(told: Server) -> None:
    (name,) = (name for name in told.automations() if name.endswith("-> evaluate-champion"))
    number = told.automations()[name]["id"]
    httpx.patch(f"{told.api}/automations/{number}", json={"enabled": True}).raise_for_status()
    again = aot("deploy", str(SMOKE), "--home", str(told.home), PREFECT_API_URL=told.api)
    assert again.returncode == 0 and told.automations()[name]["enabled"], "who switched it on keeps it"

    def started() -> int:
        runs = told.ask("flow_runs/filter", flows={"name": {"any_": ["evaluate-champion"]}})
        return sum(run["created_by"] is not None and run["created_by"]["type"] == "AUTOMATION" for run in runs)

    told.python(f"HOME = {str(told.home)!r}\n{LEDGER}")
    until(lambda: len(told.heard("aot.promotion.done")) == 2 and started())
    assert started() == 1
    (post,) = (post for post in told.heard("aot.promotion.done") if post["payload"]["action"] == "promote")
    assert post["payload"]["message"] == "aot-defender: version 2 leads now, in place of 1 (Ada: better)"
    assert post["payload"]["version"].endswith("/#/models/aot-defender/versions/2")


def test_a_fall_is_one_beyond_chance() -> None:
    figures = {name: {"attacker_1": value} for name, value in (("strict", 0.6), ("low", 0.5), ("high", 0.7))}
    rest = {name: {} for name in ("mean", "n", "valid", "kinds", "kinds_n")}
    now = EvaluateOutputs.model_validate({**figures, **rest, "worst": 0.6, "worst_condition": "attacker_1"})
    assert fell(0.75, now) and not fell(0.65, now) and not fell(None, now)
