"""Options that several commands share; each refuses an impossible value at once."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from aot_core.contracts.errors import ToldError

Device = Literal["auto", "cpu", "cuda"]
Launcher = Literal["inprocess", "subprocess", "docker", "kubernetes"]
DType = Literal["float32", "bfloat16", "float16"]

MOST_SEED = 2**32 - 1
"""What NumPy and transformers take."""


class OptionError(ToldError):
    """An impossible value of an option. Not a ValueError: Typer would drop its message."""


def home_folder(value: str | Path) -> Path:
    """A parser for `--home`: a folder, or a path where one can be made."""
    from aot_core.home import Home

    try:
        return Home(value).root
    except (ValueError, OSError) as error:
        raise OptionError(f"--home: {error}") from error


def store_uri(value: str) -> str:
    """A parser for `--store`."""
    from aot_core.contracts.explaining import shown
    from aot_core.contracts.texts import check_store

    try:
        return check_store(value)
    except ValueError as error:
        raise OptionError(f"--store {shown(value)}: {error}") from error


def print_version(wanted: bool) -> None:
    """A callback for `--version`."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"aot {version('aot')}")
        raise typer.Exit


HomeOption = Annotated[
    Path,
    typer.Option(
        parser=home_folder, metavar="FOLDER", help="The folder that holds all state: store, MLflow, Prefect, reports."
    ),
]
DEFAULT_HOME = Path(".aot")
ModelOption = Annotated[str, typer.Option(help="The registered model's name.")]


def _store_option(what: str, default: str, envvar: str | None = "AOT_STORE") -> Any:
    """An option that names an artifact store. Where the config comes before the environment, the command reads
    `AOT_STORE` itself: Typer would put it first."""
    told = f"{what}, a folder or s3://BUCKET/PREFIX; default: {default}."
    return typer.Option(parser=store_uri, metavar="URI", envvar=envvar, help=told)


StoreOption = Annotated[str | None, _store_option("The store that holds the ledger", "HOME/store")]
PlaceOption = Annotated[str | None, _store_option("The store to read", "HOME/store")]
ConfiguredStoreOption = Annotated[
    str | None, _store_option("The store", "the config's, AOT_STORE, or HOME/store", envvar=None)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a field: --set attacker_round.updates=10.")
]
DeviceOption = Annotated[Device, typer.Option(help="Where models compute; auto uses a GPU if there is one.")]
DTypeOption = Annotated[DType, typer.Option(help="Precision of the models' weights.")]
SeedOption = Annotated[int, typer.Option(min=0, max=MOST_SEED)]
