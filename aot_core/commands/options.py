"""Options that several commands share; each refuses an impossible value at once."""

from pathlib import Path
from typing import Annotated, Literal

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
StoreOption = Annotated[
    str | None,
    typer.Option(
        parser=store_uri,
        metavar="URI",
        envvar="AOT_STORE",
        help="The store that holds the ledger, a folder or s3://BUCKET/PREFIX; default: HOME/store.",
    ),
]
PlaceOption = Annotated[
    str | None,
    typer.Option(
        parser=store_uri,
        metavar="URI",
        envvar="AOT_STORE",
        help="The store to read, a folder or s3://BUCKET/PREFIX; default: HOME/store.",
    ),
]
ConfiguredStoreOption = Annotated[
    str | None,
    typer.Option(
        parser=store_uri,
        metavar="URI",
        help="The store, a folder or s3://BUCKET/PREFIX; default: the config's, AOT_STORE, or HOME/store.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a field: --set attacker_round.updates=10.")
]
DeviceOption = Annotated[Device, typer.Option(help="Where models compute; auto uses a GPU if there is one.")]
DTypeOption = Annotated[DType, typer.Option(help="Precision of the models' weights.")]
SeedOption = Annotated[int, typer.Option(min=0, max=MOST_SEED)]
