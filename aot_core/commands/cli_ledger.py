"""`aot promote`, `aot rollback`, `aot reevaluate` and `aot history`: which version leads, and who decided it."""

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

WhyOption = Annotated[str, typer.Option(help="Kept in the ledger.")]


@app.command()
def promote(
    version: Annotated[str | None, typer.Option(help="The version; else the one with the alias challenger.")] = None,
    why: WhyOption = "",
    force: Annotated[bool, typer.Option("--force", help="Against the gate, or without it; wants --why.")] = False,
    model: ModelOption = "aot-defender",
    store: StoreOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make a version the champion, if the gate let it pass; also the answer where a promotion waits for a person.

    Example: aot promote --version 4 --why "checked by hand"
    """
    from aot_core.promotion import commands

    _promotion(home, store, model, lambda promoter: commands.promote(promoter, version, why, force=force))


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option(help="The version; else the one that led before.")] = None,
    why: WhyOption = "",
    model: ModelOption = "aot-defender",
    store: StoreOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Let an earlier champion lead again.

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
    threads: Annotated[int, typer.Option(min=1, max=1024, help="CPU threads; the campaign's for the same bits.")] = 2,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Ask a registered version everything again; the exit code is 1 where a single answer differs.

    Example: aot reevaluate --version champion
    """
    from aot_core.home import Home

    place = Home(home)
    os.environ.update(place.environment())
    from aot_core.commands.looking import demand_home, existing_store
    from aot_core.commands.reevaluation import reevaluate as measure

    demand_home(place)
    kept = existing_store(place, store)
    found = measure(place.mlflow_uri, model, version, kept, device, threads)
    typer.echo(f"{model} {found.told()}")
    raise typer.Exit(0 if found.same else 1)


@app.command()
def history(
    model: ModelOption = "aot-defender",
    store: StoreOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show the ledger of promotions: who, when, why, from, to, figures. Exit code 1 where the alias is elsewhere.

    Example: aot history --json
    """
    from aot_core.promotion import commands

    differs: list[str] = []
    _promotion(home, store, model, lambda promoter: differs.append(commands.print_history(promoter, as_json=as_json)))
    if told := "".join(differs):
        typer.secho(told, err=True, fg="red")
        raise typer.Exit(FOUND)


def _promotion(home: Path, store: str | None, model: str, act: "Callable[[Promoter], str | None]") -> None:
    """Do something with the alias of a home's model, and say what happened, or why it did not."""
    from aot_core.contracts.promotion import PromotionSettings
    from aot_core.home import Home

    place = Home(home)
    os.environ.update(place.environment())
    from aot_core.commands.looking import existing_store
    from aot_core.promotion import commands

    told = act(commands.open_promoter(place, PromotionSettings(model=model), existing_store(place, store)))
    if told:
        typer.echo(told)
