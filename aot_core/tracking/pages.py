"""Addresses of MLflow's own pages."""

from urllib.parse import quote

from aot_core.tracking.database import open_client


def run_page(uri: str, run_id: str, local: str) -> str:
    """A run's page.

    Args:
        local: the address that serves a database file; a server's own address is taken where `uri` is one.
    """
    experiment = open_client(uri).get_run(run_id).info.experiment_id
    return f"{_server(uri, local)}/#/experiments/{experiment}/runs/{run_id}"


def version_page(uri: str, model: str, version: str, local: str) -> str:
    """A registered version's page; `local` as in `run_page`."""
    return f"{_server(uri, local)}/#/models/{quote(model)}/versions/{version}"


def _server(uri: str, local: str) -> str:
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else local
