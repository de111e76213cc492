"""`aot webhook`: MLflow's own webhooks, which see alias moves that bypass `aot`."""

from typing import Annotated

import typer

from aot_core.commands.options import DEFAULT_HOME, HomeOption

app = typer.Typer()


@app.command()
def webhook(
    url: Annotated[str | None, typer.Argument(help='The receiver: "env:NAME", or an address without a token.')] = None,
    key: Annotated[str | None, typer.Option(help='The key that signs each post: "env:NAME".')] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the webhook.")] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Let MLflow's server post new versions and every move of an alias, whoever made it.

    The server is MLFLOW_TRACKING_URI's. A test message is posted at once, so that you see whether it arrives.

    Example: aot webhook env:AOT_RECEIVER --key env:AOT_WEBHOOK_KEY
    """
    from pydantic import TypeAdapter, ValidationError

    from aot_core.commands.errors import FOUND
    from aot_core.contracts.secrets import SecretKey, Webhook, reveal, reveal_key
    from aot_core.home import Home

    uri = Home(home).mlflow_uri
    if remove:
        from aot_core.tracking.webhooks import remove_webhook

        typer.echo("removed" if remove_webhook(uri) else "there is no webhook of aot's")
        return
    if url is None or key is None:
        raise ValueError("name the receiver and --key, or give --remove; `aot webhook --help` has an example")
    fields: tuple[tuple[str, TypeAdapter[str], str], ...] = (
        ("URL", TypeAdapter(Webhook), url),
        ("--key", TypeAdapter(SecretKey), key),
    )
    for field, kind, value in fields:
        try:
            kind.validate_python(value)
        except ValidationError as error:
            raise ValueError(f"{field}: {error.errors()[0]['msg']}") from None  # the input may be a secret
    from aot_core.tracking.webhooks import EVENTS, keep_webhook

    arrived, told = keep_webhook(uri, reveal(url, "URL"), reveal_key(key, "--key"))
    typer.echo(f"{url} is told of {', '.join(EVENTS)}; an example {'arrived' if arrived else 'did not arrive'}: {told}")
    if not arrived:
        raise typer.Exit(FOUND)
