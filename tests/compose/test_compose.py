"""A team's day on infra/compose.yaml: up, a scheduled campaign while servers die, backup, loss of everything, restore.

The tests follow each other on one deployment, as the day does.
"""

import json
import socket
import ssl
import time
from pathlib import Path

import docker
import httpx
import psutil
import pytest

from tests.compose.conftest import AOT, EVERY_MINUTE, FRIDAY, LASTING, Deployment, until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(7200)]

OPEN = {"postgres": {5432}, "objects": {8333, 18333}, "mlflow": {5000}, "prefect": {4200}, "worker": set[int]()}
"""What each service's container may let others on its networks reach."""
STAGES = [
    "prepare_data", "warm_start_attacker", "warm_start_defender", "attacker_round", "curate", "defender_round",
]  # fmt: skip


STAYS_SECONDS = 20
"""A server that dies of a wrong setting does so within its first seconds of health, and is restarted."""


def test_everything_comes_up_healthy_and_stays(deployment: Deployment) -> None:
    assert deployment.healthy(*LASTING)
    time.sleep(STAYS_SECONDS)
    for service in LASTING:
        attributes = deployment.container(service).attrs
        assert attributes["RestartCount"] == 0 and attributes["State"]["Running"], service
    for service in ("certificate", "bucket"):
        assert deployment.container(service).attrs["State"]["ExitCode"] == 0, service
    user, password = deployment.secrets["PREFECT_AUTH"].split(":")
    page = httpx.get("http://127.0.0.1:4200/", auth=(user, password), follow_redirects=True)
    assert page.is_success and "<html" in page.text.lower(), "Prefect's pages, not its API alone"


def test_nothing_is_bound_beyond_loopback(deployment: Deployment) -> None:
    bound = set[tuple[str, str]]()
    for service in LASTING:
        found = deployment.container(service).attrs["NetworkSettings"]["Ports"]
        bound |= {(entry["HostIp"], entry["HostPort"]) for entries in found.values() for entry in entries or ()}
    assert bound == {("127.0.0.1", "5000"), ("127.0.0.1", "4200")}
    listening = [c.laddr for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening if address.port in (4200, 5000, 5432, 8333)} == {"127.0.0.1"}


def reachable(deployment: Deployment, service: str) -> set[int]:
    """The TCP ports of a service's container that listen on more than its own loopback (`/proc/net/tcp`, `tcp6`)."""
    found = set[int]()
    for kind in ("tcp", "tcp6"):
        table = deployment.compose("exec", "-T", service, "cat", f"/proc/net/{kind}")
        for line in table.splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, port = local.split(":")
            # 127.0.0.1, docker's own resolver on 127.0.0.11, and ::1.
            if state == "0A" and not address.endswith("7F") and address != f"{1:0>26}000000":
                found.add(int(port, 16))
    return found


@pytest.mark.parametrize("service", LASTING)
def test_a_container_offers_what_it_must_and_no_more(deployment: Deployment, service: str) -> None:
    assert reachable(deployment, service) == OPEN[service]


def test_nobody_is_let_in_without_a_password(deployment: Deployment) -> None:
    asked = [
        ("POST", "http://127.0.0.1:4200/api/flows/count", {}),
        ("GET", "http://127.0.0.1:4200/api/admin/settings", None),
        ("GET", "http://127.0.0.1:5000/", None),
        ("GET", "http://127.0.0.1:5000/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default", None),
        ("GET", "http://127.0.0.1:5000/api/2.0/mlflow-artifacts/artifacts", None),
        ("GET", f"http://{address(deployment, 'objects')}:8333/", None),
        ("PUT", f"http://{address(deployment, 'objects')}:8333/mine", None),
    ]
    for method, url, body in asked:
        for auth in (None, ("aot", "wrong-password")):
            status = httpx.request(method, url, json=body, auth=auth).status_code
            # 400: to S3 a name with a password is no signature.
            assert status in ({400, 403} if ":8333" in url else {401}), (method, url, auth, status)
    login = "import psycopg2; psycopg2.connect(host='postgres', user='aot', dbname='{}', password='{}')"
    for database in ("prefect", "mlflow", "mlflow_auth"):
        for password in ("", "wrong"):
            told = deployment.compose(
                "exec", "-T", "mlflow", "sh", "-c", f'python -c "{login.format(database, password)}" 2>&1', check=False
            )
            assert "no password supplied" in told or "password authentication failed" in told, told
        deployment.compose(
            "exec", "-T", "mlflow", "python", "-c", login.format(database, deployment.secrets["POSTGRES_PASSWORD"])
        )


def address(deployment: Deployment, service: str) -> str:
    """Where the stages' network reaches a service."""
    return deployment.container(service).attrs["NetworkSettings"]["Networks"]["aot-stages"]["IPAddress"]


def test_nobody_makes_himself_a_user_of_the_object_store(deployment: Deployment) -> None:
    """Its gRPC port takes users from whoever it lets in: without the certificate no one."""
    unknown = ssl.create_default_context()
    unknown.check_hostname, unknown.verify_mode = False, ssl.CERT_NONE
    unknown.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((address(deployment, "objects"), 18333), timeout=30) as plain,
        pytest.raises(ssl.SSLError, match="certificate required"),
        unknown.wrap_socket(plain) as connection,
    ):
        connection.recv(1)


def kill_and_wait(deployment: Deployment, service: str) -> None:
    """Kill a service, and wait until Docker has restarted it and it is healthy."""
    before = deployment.container(service).attrs["RestartCount"]
    deployment.kill(service)
    until(lambda: deployment.container(service).attrs["RestartCount"] > before, 300)
    until(lambda: deployment.healthy(service), 900)


def test_a_scheduled_campaign_outlives_the_death_of_every_server(deployment: Deployment) -> None:
    deployment.schedule(EVERY_MINUTE)
    deployment.compose("up", "-d", "--wait", "worker")
    for service in ("objects", "mlflow", "prefect", "postgres", "worker"):
        until(deployment.stages, 1200)
        kill_and_wait(deployment, service)
    ended = until(lambda: deployment.completed("coevolution"), 3600)
    deployment.schedule(FRIDAY)
    deployment.compose("up", "-d", "--wait", "worker")
    assert ended[0]["auto_scheduled"], "by the cron alone"
    assert [entry["kind"] for entry in deployment.ledger()][-1] == "done"
    (campaign,) = json.loads(deployment.ask(*AOT, "status", "--json", "--home", "/home/aot"))["campaigns"]
    assert campaign["status"] == "completed"
    assert set(STAGES) < {step["record"]["stage"] for step in campaign["steps"]}
    assert all(step["record"]["image_digest"].startswith("sha256:") for step in campaign["steps"])


def test_what_was_lost_comes_back_from_a_backup(deployment: Deployment, tmp_path: Path) -> None:
    ledger = deployment.ledger()
    answered = deployment.run_now("reevaluation", 1800)
    assert answered[0] == "COMPLETED" and "as they were" in answered[1], answered
    # Those that are to come are planned anew whenever the worker deploys.
    runs = [run["id"] for run in deployment.flow_runs("coevolution") if run["state_type"] != "SCHEDULED"]
    made = deployment.script("backup/backup.sh", str(tmp_path)).splitlines()[-1]
    assert {file.name for file in Path(made).iterdir()} == {
        "prefect.dump", "mlflow.dump", "mlflow_auth.dump", "objects.tar", "SHA256SUMS",
    }  # fmt: skip
    assert deployment.healthy("postgres", "mlflow", "prefect", "worker"), "a backup stops the object store alone"

    deployment.compose("down", "--volumes")
    left = {volume.name for volume in docker.from_env().volumes.list()}
    assert not left & {"aot-postgres", "aot-objects", "aot-home", "aot-tls"}

    deployment.script("backup/restore.sh", made, "--yes")
    assert deployment.healthy(*LASTING)
    assert deployment.ledger() == ledger, "`aot history` verifies the chain, and the alias against it"
    assert {run["id"] for run in deployment.flow_runs("coevolution")} >= set(runs)
    verified = deployment.ask(*AOT, "store", "verify", "--home", "/home/aot")
    assert set(STAGES) < set(verified.split()), "it looked into the team's store, by AOT_STORE"
    assert deployment.run_now("reevaluation", 1800) == answered, "the champion loads, and answers as it did"
    kind, told = deployment.run_now("evaluate-champion", 1800)
    assert kind == "COMPLETED" and "version 1: clean" in told, told


def test_a_backup_that_was_changed_is_refused(deployment: Deployment, tmp_path: Path) -> None:
    made = Path(deployment.script("backup/backup.sh", str(tmp_path)).splitlines()[-1])
    with (made / "mlflow.dump").open("ab") as file:
        file.write(b"x")
    with pytest.raises(AssertionError, match=r"mlflow\.dump"):
        deployment.script("backup/restore.sh", str(made), "--yes")
    until(lambda: deployment.healthy(*LASTING), 600)
