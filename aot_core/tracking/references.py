"""Which artifacts MLflow's registry still refers to: those must survive every garbage collection."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from aot_core.contracts.artifact import ArtifactRef
from aot_core.tracking.database import open_client
from aot_core.tracking.mlflow_tracking import ARTIFACT_SHA_TAG, ARTIFACT_URI_TAG


def registered_artifacts(uri: str) -> list[ArtifactRef]:
    """The artifacts that registered versions were made of, of every model, whatever their alias."""
    found: list[ArtifactRef] = []
    client, token = open_client(uri), None
    while True:
        page = client.search_model_versions(max_results=1000, page_token=token)
        for version in page:
            if ARTIFACT_URI_TAG in version.tags:
                found.append(ArtifactRef(uri=version.tags[ARTIFACT_URI_TAG], sha256=version.tags[ARTIFACT_SHA_TAG]))
        token = page.token
        if not token:
            return found
