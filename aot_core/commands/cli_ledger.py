"""Commands about registered versions: promote, rollback, reevaluate, export, and the ledger's history."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aot_core.commands.errors import FOUND
from aot_core.commands.options import (
    DEFAULT_HOME,
    DeviceOption,
    HomeOption,
    JsonOption,
    ModelOption,
    StoreOption,
)

if TYPE_CHECKING:
    from aot_core.promotion.transaction import Promoter

app = typer.Typer()

WhyOption = Annotated[str, typer.Option(help="The reason; kept in the ledger.")]


@app.command()
def promote(
    version: Annotated[
        str | None, typer.Option(help="The version; default: the one with the alias challenger.")
    ] = None,
    why: WhyOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Override the gate, or promote without one; needs --why.")
    ] = False,
    model: ModelOption = "aot-defender",
    store: StoreOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make a version the champion if it passed the gate; also approves a promotion that waits for a person.

    Example: aot promote --version 4 --why "checked by hand"
    """
    from aot_core.promotion import commands

    _promotion(home, store, model, lambda promoter: commands.promote(promoter, version, why, force=force))


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option(help="The version; default: the previous champion.")] = None,
    why: WhyOption = "",
    model: ModelOption = "aot-defender",
    store: StoreOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Restore an earlier champion.

    Example: aot rollback --to 3 --why "wrong on photographs"
    """
    from aot_core.promotion import commands

    _promotion(home, store, model, lambda promoter: commands.rollback(promoter, to, why))


@app.command()
def reevaluate(
    version: Annotated[str, typer.Option(help="A version's number or alias.")] = "champion",
    model: ModelOption = "aot-defender",
    store: StoreOption = None,
    device: DeviceOption = "auto",
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="CPU threads; use the campaign's number for identical results.")
    ] = 2,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Evaluate a registered version again; exit code 1 if a single answer differs.

    Example: aot reevaluate --version champion
    """
    from aot_core.home import Home

    place = Home(home)
    os.environ.update(place.environment())
    from aot_core.commands.looking import demand_home, existing_store
    from aot_core.commands.reevaluation import reevaluate as measure

    demand_home(place)
    kept = existing_store(place, store)

    def say(line: str) -> None:
        typer.echo(line, err=True)

    found = measure(place.mlflow_uri, model, version, kept, device, threads, say)
    typer.echo(f"{model} {found.told()}")
    raise typer.Exit(0 if found.same else 1)


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="A new folder.")],
    version: Annotated[str, typer.Option(help="A version's number or alias.")] = "champion",
    adapter: Annotated[
        bool,
        typer.Option("--adapter", help="Write the LoRA adapter alone, without its base; default: merged, float32."),
    ] = False,
    model: ModelOption = "aot-defender",
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write a registered Defender as a plain transformers folder, for `transformers serve` or vLLM.

    Example: aot export defender --version champion
    """
    from aot_core.commands.looking import demand_home
    from aot_core.home import Home

    place = Home(home)
    demand_home(place)
    os.environ.update(place.environment())
    from aot_core.commands.export import export_defender

    number, told = export_defender(place.mlflow_uri, model, version, output, adapter=adapter)
    typer.echo(f"{model} version {number} written to {output}: {told}")


@app.command()
def history(
    model: ModelOption = "aot-defender",
    store: StoreOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show the ledger of promotions: who, when, why, from, to, figures. Exit code 1 if the alias disagrees with it.

    Example: aot history --json
    """
    from aot_core.promotion import commands

    differs: list[str] = []
    _promotion(home, store, model, lambda promoter: differs.append(commands.print_history(promoter, as_json=as_json)))
    if told := "".join(differs):
        typer.secho(told, err=True, fg="red")
        raise typer.Exit(FOUND)


def _promotion(home: Path, store: str | None, model: str, act: "Callable[[Promoter], str | None]") -> None:
    """Act on the alias of a home's model, and report what happened."""
    from aot_core.contracts.promotion import PromotionSettings
    from aot_core.home import Home

    place = Home(home)
    os.environ.update(place.environment())
    from aot_core.commands.ledger_events import told_to_prefect
    from aot_core.commands.looking import existing_store
    from aot_core.promotion import commands

    opened = commands.open_promoter(place, PromotionSettings(model=model), existing_store(place, store))
    with told_to_prefect(opened, place) as promoter:
        told = act(promoter)
    if told:
        typer.echo(told)
