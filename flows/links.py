"""Addresses of the pages about a campaign: MLflow's, Prefect's, and the gate's decision."""

from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL

from aot_core.commands.ui import MLFLOW_PORT, PREFECT_PORT
from aot_core.tracking.pages import run_page, version_page
from flows.campaign import OpenCampaign

_DECISION = "decision.html"


def links_of(campaign: OpenCampaign) -> dict[str, str]:
    """Name to address. Where MLflow is a file, the address is the one that `aot ui` serves it at."""
    summary, uri = campaign.summary, campaign.home.mlflow_uri
    local = f"http://127.0.0.1:{MLFLOW_PORT}"
    links = {"MLflow run": run_page(uri, summary.mlflow_run_id, local)}
    if summary.registered_version:
        model = str(summary.config["promotion"]["model"])
        links[f"{model} version {summary.registered_version}"] = version_page(
            uri, model, summary.registered_version, local
        )
    if run_id := flow_run.get_id():
        links["Prefect flow run"] = f"{prefect_pages()}/runs/flow-run/{run_id}"
    if (campaign.folder / _DECISION).is_file():
        links["the gate's decision"] = _DECISION
    return links


def prefect_pages() -> str:
    """Where Prefect's pages are: the server's, or those that `aot ui` serves."""
    return (PREFECT_UI_URL.value() or f"http://127.0.0.1:{PREFECT_PORT}").rstrip("/")
