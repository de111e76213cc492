"""`aot`: a thin front. Commands validate, set the environment and hand over; heavy imports stay inside them.

Prefect is never imported here: `run` becomes `python -m flows.coevolution`, after the environment is set that Prefect
reads when it is imported.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Adversarial Opponent Training: an image editor and a multimodal LLM co-evolve.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)

HomeOption = Annotated[Path, typer.Option(help="The folder that holds all state: store, MLflow, Prefect, reports.")]
DEFAULT_HOME = Path(".aot")


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="A campaign, such as configs/tiny.toml.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field: --set attacker_round.updates=10.")
    ] = None,
    launcher: Annotated[str | None, typer.Option(help="inprocess or subprocess.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    home: HomeOption = DEFAULT_HOME,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved campaign and stop.")] = False,
) -> None:
    """Run a campaign, or go on with it where it stopped."""
    from aot_core.contracts.loading import load_campaign
    from aot_core.home import Home
    from aot_core.models import model_folder

    given = {"run.launcher": launcher, "run.device": device}
    overrides = [*(overrides or []), *(f'{key}="{value}"' for key, value in given.items() if value is not None)]
    try:
        campaign = load_campaign(config, overrides)
        from_hub = [name for name in (campaign.models.attacker, campaign.models.defender) if not model_folder(name)]
    except ValueError as error:
        raise _refusal(error) from error
    if dry_run:
        typer.echo(campaign.model_dump_json(indent=2))
        return
    place = Home(home)
    place.create()
    environment = place.environment()
    if from_hub and "HF_HUB_OFFLINE" in environment:
        # A campaign that names hub models may ask the hub for them; every other one stays off the network.
        del environment["HF_HUB_OFFLINE"]
    command = [sys.executable, "-m", "flows.coevolution", str(place.root), campaign.model_dump_json()]
    os.execve(sys.executable, command, os.environ | environment)


@app.command()
def status(home: HomeOption = DEFAULT_HOME) -> None:
    """Show every campaign of this home: what is done, when, and how it ended."""
    from aot_core.status import print_status

    print_status(home)


@app.command()
def doctor(home: HomeOption = DEFAULT_HOME) -> None:
    """Say what this machine can run, what is missing, and how to get it."""
    from aot_core.doctor import print_diagnosis

    raise typer.Exit(print_diagnosis(home))


@app.command()
def ui(
    home: HomeOption = DEFAULT_HOME,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    prefect_port: Annotated[int, typer.Option(min=1, max=65535)] = 4200,
) -> None:
    """Serve MLflow's and Prefect's pages on this home's data, on loopback, until Ctrl-C."""
    from aot_core.ui import serve

    raise typer.Exit(serve(home, mlflow_port, prefect_port))


def _refusal(error: ValueError) -> typer.Exit:
    typer.secho(str(error), err=True, fg=typer.colors.RED)
    return typer.Exit(2)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
