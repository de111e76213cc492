"""Every test runs off the network, without telemetry and on few threads."""

import os
from collections.abc import Iterator

import pytest

os.environ.update(
    HF_HUB_OFFLINE="1",
    DO_NOT_TRACK="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    OMP_NUM_THREADS="1",
    MKL_CBWR="AVX2,STRICT",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(autouse=True)
def environment_stays() -> Iterator[None]:
    """`aot` is a program: what it puts into its environment must not reach the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
