"""The Kubernetes launcher against a `kubectl` of two verbs: no API server can be had here."""

import os
import stat
from pathlib import Path

import pytest

from aot_core.contracts.artifact import ArtifactRef, StageRecord
from aot_core.contracts.errors import LauncherError
from aot_core.contracts.launch import KubernetesSettings
from aot_core.contracts.spec import StageSpec
from aot_core.launch.kubernetes import KubernetesLauncher
from tests.infra.test_schemas import spec_of

# Creating always fails; a Job is there once somebody has tried, where the file `rival` says so.
KUBECTL = """#!/bin/sh
case "$*" in
  *"create -f -"*) touch "$STATE/tried"; echo "AlreadyExists or forbidden" >&2; exit 1 ;;
  *"get job"*) [ -e "$STATE/rival" ] && [ -e "$STATE/tried" ] && \
    echo '{"status": {"conditions": [{"type": "Complete", "status": "True"}]}}'; exit 0 ;;
  *"get pods"*) echo '{"items": []}' ;;
esac
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "kubectl"
    program.write_text(KUBECTL)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("STATE", str(tmp_path))
    return tmp_path


def record_of(spec: StageSpec) -> StageRecord:
    return StageRecord(
        stage=spec.stage, key=spec.key, identity=spec.identity, outputs={}, seconds=1.0, device="cpu", git_commit="",
        artifact=ArtifactRef(uri=f"aot://{spec.stage}/{spec.key}", sha256="a" * 64), image_digest="", packages={},
        started_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def test_a_job_that_another_orchestrator_has_just_created_is_followed(state: Path) -> None:
    (state / "rival").touch()
    spec = spec_of()
    result = KubernetesLauncher(KubernetesSettings(), record_of).run(spec)
    assert result.record is not None and result.record.key == spec.key


def test_a_job_that_cannot_be_created_is_an_error(state: Path) -> None:
    with pytest.raises(LauncherError, match="AlreadyExists or forbidden"):
        KubernetesLauncher(KubernetesSettings(), record_of).run(spec_of())
    assert (state / "tried").exists()
