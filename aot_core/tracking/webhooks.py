"""MLflow's own webhooks: its server posts what happens to the registry, whoever did it and by whatever means.

    X-MLflow-Signature: v1,BASE64     BASE64 = HMAC-SHA256(key, "DELIVERY_ID.TIMESTAMP." + body)

The other two parts stand in `X-MLflow-Delivery-Id` and `X-MLflow-Timestamp`. The server alone posts: a registry that is
a file, opened without one, tells nobody.
"""

from typing import NamedTuple, cast

from mlflow.entities.webhook import Webhook
from mlflow.exceptions import MlflowException
from pydantic import SecretStr

from aot_core.tracking.database import open_client
from aot_core.tracking.protocol import TrackingError

NAME = "aot"
EVENTS = ("model_version.created", "model_version_alias.created", "model_version_alias.deleted")
"""A version is registered; an alias is set or moved; an alias is taken away."""


class Delivery(NamedTuple):
    """What came of a test post."""

    arrived: bool
    told: str


def keep_webhook(uri: str, url: SecretStr, key: SecretStr, name: str = NAME) -> Delivery:
    """Make the webhook of a name, or bring it up to date, and let the server post an example to it.

    Raises TrackingError where the server refuses it: a receiver without HTTPS, or at a private address.
    """
    _demand_server(uri)
    client = open_client(uri)
    fields = {"url": url.get_secret_value(), "events": list(EVENTS), "secret": key.get_secret_value()}
    try:
        known = _find(uri, name)
        if known is None:
            told = "alias moves and new versions, posted by aot webhook"
            number = client.create_webhook(name=name, description=told, **fields).webhook_id
        else:
            number = client.update_webhook(known.webhook_id, status="ACTIVE", **fields).webhook_id
        result = client.test_webhook(number, "model_version_alias.created")
    except MlflowException as error:
        raise TrackingError(f"{uri} refuses the webhook: {error.message}") from error
    answer = f"HTTP {result.response_status}" if result.response_status else str(result.error_message or "no answer")
    return Delivery(bool(result.success), answer)


def remove_webhook(uri: str, name: str = NAME) -> bool:
    """Delete the webhook of a name; returns whether there was one."""
    _demand_server(uri)
    known = _find(uri, name)
    if known is not None:
        open_client(uri).delete_webhook(known.webhook_id)
    return known is not None


def _find(uri: str, name: str) -> Webhook | None:
    client, token = open_client(uri), None
    while True:
        page = client.list_webhooks(page_token=token)
        for webhook in cast("list[Webhook]", page):
            if webhook.name == name:
                return webhook
        token = page.token
        if not token:
            return None


def _demand_server(uri: str) -> None:
    if not uri.startswith(("http://", "https://")):
        raise TrackingError(
            f"{uri} is a file, and MLflow's server alone posts webhooks; let MLFLOW_TRACKING_URI name one, such as the "
            "one that `aot ui` serves (http://127.0.0.1:5000)"
        )
