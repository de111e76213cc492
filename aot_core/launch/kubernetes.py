"""Runs every stage as a batch/v1 Job. Written to the API's schema; never run by this project on a cluster.

The spec travels in the Job's own environment, an error comes back as the container's termination message, and the
record of a stage that finished is read from the bucket. `kubectl` talks to the cluster, with the credentials it has.
"""

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from aot_core.contracts.artifact import StageRecord
from aot_core.contracts.errors import LauncherError, StageCrashedError, StageOutOfMemoryError
from aot_core.contracts.launch import KubernetesSettings
from aot_core.contracts.spec import Place, StageResult, StageSpec
from aot_core.launch.container import MODEL_CACHE, SCRATCH
from aot_core.launch.outcome import result_or_error
from aot_core.launch.protocol import Patience, StopRequested, never

_POLL_SECONDS = 3.0
_USER = 10001
_KEEP_SECONDS = 24 * 3600
"""How long a finished Job stays to be looked at."""


class KubernetesLauncher:
    """One Job a stage, named by its key: a second orchestrator finds the first one's."""

    def __init__(
        self,
        settings: KubernetesSettings,
        find: Callable[[StageSpec], StageRecord | None],
        stage_seconds: float | None = None,
        stop_requested: StopRequested = never,
    ) -> None:
        self.settings, self._find = settings, find
        self._stage_seconds, self._stop_requested = stage_seconds, stop_requested

    def check(self, place: Place) -> None:
        """See `Launcher.check`: kubectl, the namespace, and a store that the cluster's nodes can reach."""
        if not place.store.startswith("s3://"):
            raise LauncherError(f"run.store is {place.store!r}, which no pod sees; set it to s3://BUCKET/PREFIX")
        if place.tracking is not None and place.tracking.uri.startswith("sqlite:"):
            raise LauncherError("MLFLOW_TRACKING_URI is a file, which no pod sees; set it to an MLflow server")
        if shutil.which("kubectl") is None:
            raise LauncherError("run.launcher is 'kubernetes' and there is no kubectl; install it, with a context")
        self._kubectl(["get", "serviceaccount", self.settings.service_account])

    def run(self, spec: StageSpec) -> StageResult:
        """See `Launcher.run`."""
        patience = Patience(spec.stage, self._stage_seconds, self._stop_requested)
        name = job_name(spec)
        job = self._job(name)
        if job is not None and _ended(job) == "Failed":
            self._delete(name)
            job = None
        if job is None:
            self._create(name, spec)
        try:
            while (job := self._job(name)) is not None and _ended(job) is None:
                patience.demand()
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self._delete(name)
            raise
        if job is None:
            raise StageCrashedError(f"{spec.stage}: its Job {name} was deleted while it ran")
        state = self._terminated(name)
        if state.get("reason") == "OOMKilled":
            raise StageOutOfMemoryError(
                f"{spec.stage}: its pod hit the memory limit of {self.settings.memory}; raise run.kubernetes.memory"
            )
        record = self._find(spec)
        said = StageResult(record=record) if record is not None else _said(state)
        return result_or_error(spec.stage, said, int(state.get("exitCode", 1)))

    def _create(self, name: str, spec: StageSpec) -> None:
        """Create the Job. One that another orchestrator has just created is followed instead."""
        try:
            self._kubectl(["create", "-f", "-"], json.dumps(job_manifest(spec, self.settings, self._stage_seconds)))
        except LauncherError:
            if self._job(name) is None:
                raise

    def _job(self, name: str) -> dict[str, Any] | None:
        found = self._kubectl(["get", "job", name, "--ignore-not-found", "-o", "json"])
        return json.loads(found) if found.strip() else None

    def _terminated(self, name: str) -> dict[str, Any]:
        """How the stage's last container ended: exitCode, reason, message; {} where its pod is gone."""
        pods = json.loads(self._kubectl(["get", "pods", "-l", f"job-name={name}", "-o", "json"]))["items"]
        statuses = [s for pod in pods for s in pod.get("status", {}).get("containerStatuses", [])]
        ended: list[dict[str, Any]] = [s["state"]["terminated"] for s in statuses if "terminated" in s.get("state", {})]
        ended.sort(key=lambda state: state.get("finishedAt", ""))
        return ended[-1] if ended else {}

    def _delete(self, name: str) -> None:
        self._kubectl(["delete", "job", name, "--ignore-not-found", "--cascade=foreground", "--grace-period=15"])

    def _kubectl(self, arguments: Sequence[str], given: str | None = None) -> str:
        command = ["kubectl", "--namespace", self.settings.namespace, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LauncherError(f"`{' '.join(command)}` failed: {done.stderr.strip()}; see infra/kubernetes")
        return done.stdout


def job_name(spec: StageSpec) -> str:
    """A DNS label: the stage and a hash of store and key."""
    identity = hashlib.sha256(f"{spec.place.store}\n{spec.key}".encode()).hexdigest()
    return f"aot-{spec.stage.replace('_', '-')}-{identity[:20]}"


def job_manifest(spec: StageSpec, settings: KubernetesSettings, stage_seconds: float | None = None) -> dict[str, Any]:
    """The batch/v1 Job of a stage, as `kubectl create -f -` reads it."""
    gpus = settings.gpus and max(settings.gpus, spec.processes) if spec.place.device != "cpu" else 0
    limits = {"cpu": settings.cpus, "memory": settings.memory} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    labels = {
        "app.kubernetes.io/name": "aot",
        "app.kubernetes.io/component": spec.stage,
        "aot/key": spec.key[:63],
        "aot/campaign": spec.place.campaign[:63],
    }
    environment = {"AOT_SPEC": spec.model_dump_json(), "OMP_NUM_THREADS": str(spec.place.threads)}
    mounts: list[dict[str, Any]] = [
        {"name": "scratch", "mountPath": SCRATCH},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
    ]
    if settings.model_claim:
        environment["HF_HOME"] = MODEL_CACHE
        mounts.append({"name": "models", "mountPath": MODEL_CACHE, "readOnly": True})
        claim = {"claimName": settings.model_claim, "readOnly": True}
        volumes.append({"name": "models", "persistentVolumeClaim": claim})
    container = {
        "name": "stage",
        "image": settings.image,
        "args": ["env:AOT_SPEC", "/dev/termination-log", "--brief"],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "envFrom": [{"secretRef": {"name": settings.secret}}],
        "resources": {"requests": limits, "limits": limits},
        "volumeMounts": mounts,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 15,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    job: dict[str, Any] = {
        "backoffLimit": 0,  # Prefect decides what is tried again
        "ttlSecondsAfterFinished": _KEEP_SECONDS,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    if stage_seconds is not None:
        job["activeDeadlineSeconds"] = int(stage_seconds)
    metadata = {"name": job_name(spec), "namespace": settings.namespace, "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}


def _ended(job: dict[str, Any]) -> str | None:
    conditions = job.get("status", {}).get("conditions", [])
    return next((c["type"] for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None)


def _said(state: dict[str, Any]) -> StageResult | None:
    """The error in a termination message; None where the stage died before it could write one."""
    try:
        said = StageResult.model_validate_json(state.get("message", ""))
    except ValidationError:
        return None
    return said if said.error else None
