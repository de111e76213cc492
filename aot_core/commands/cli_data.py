"""`aot data`: build, validate, show and describe a data set. Heavy imports stay inside the commands."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from aot_core.commands.options import DEFAULT_HOME, DeviceOption, HomeOption, SetOption

data_app = typer.Typer(help="Data sets on their own: build, validate, show, card.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(help="A data set: a folder with manifest.json.")]


@data_app.command()
def build(
    config: Annotated[Path, typer.Argument(help="A campaign; only its prepare_data section and source_folder matter.")],
    output: Annotated[Path, typer.Argument(help="A new folder for the data set.")],
    overrides: SetOption = None,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="Processes. The data set is the same for any number.")
    ] = 1,
    device: DeviceOption = "auto",
    previous: Annotated[
        Path | None, typer.Option(help="The data set from before the folder grew (prepare_data.growing).")
    ] = None,
) -> None:
    """Build a validated data set. A rerun resumes from the finished shards.

    Example: aot data build configs/tiny.toml data
    """
    from aot_core.contracts.loading import load_campaign
    from aot_core.contracts.prepare_data import PrepareDataInputs
    from aot_core.engine.context import StageContext
    from aot_core.engine.identity import pin_model, pin_source
    from aot_core.engine.runner import resolve_device
    from aot_core.stages.prepare_data import prepare
    from aot_core.store import open_store

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output {str(output)!r} exists already and is not empty; give a new folder")
    work = output.with_name(f".{output.name}.work")
    campaign = load_campaign(config, overrides)
    settings = campaign.seeded(campaign.prepare_data)
    filtering = settings.effectiveness.enabled and settings.splits.warm_start > 0
    inputs = PrepareDataInputs(
        source=pin_source(campaign.source_folder),
        defender=pin_model(campaign.models.defender) if filtering else None,
        editor=pin_model(settings.extension.editor) if settings.extension.editor else None,
        checker=pin_model(settings.extension.checker) if settings.extension.checker else None,
    )
    with tempfile.TemporaryDirectory(prefix="aot-data-") as scratch:
        made = work / "data"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        store = open_store(f"{scratch}/store")
        context = StageContext(
            store, made, Path(scratch), resolve_device(device), threads=workers, progress=work / "shards"
        )
        outputs = prepare(settings, inputs, context, previous)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.is_dir():
        output.rmdir()
    made.rename(output)
    shutil.rmtree(work, ignore_errors=True)
    if settings.growing:
        typer.echo(
            f"{outputs.shards_made} shards made, {outputs.shards_reused} reused; photographs: "
            f"{outputs.pictures_new} new, {outputs.pictures_gone} gone"
        )
    typer.echo(f"{output}: {outputs.pairs} pairs, manifest {outputs.manifest_sha256}")


@data_app.command("map")
def map_shards(
    config: Annotated[Path, typer.Argument(help="A campaign; it ends after its data.")],
    overrides: SetOption = None,
    runner: Annotated[
        Literal["threads", "processes", "dask", "ray"], typer.Option(help="What runs the shards' tasks.")
    ] = "processes",
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Shards built at a time.")] = 2,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Build a campaign's data set, one Prefect task per shard; `aot run` then finds it in the store. On a cluster, the
    home must be on a disk that all machines share.

    Example: aot data map configs/photos.toml
    """
    from aot_core.commands.handover import hand_over
    from aot_core.commands.places import demand_places
    from aot_core.contracts.loading import load_campaign
    from aot_core.home import Home

    campaign = load_campaign(config, overrides)
    demand_places(campaign)
    place = Home(home)
    place.create()
    command = [sys.executable, "-m", "flows.data", str(place.root), str(hand_over(campaign, place.root))]
    command += ["--runner", runner, "--workers", str(workers)]
    os.execve(sys.executable, command, os.environ | place.environment())


@data_app.command()
def validate(
    folder: FolderArgument,
    min_ssim: Annotated[float, typer.Option(min=-1, max=1, help="Minimum localized SSIM of a pair.")] = 0.85,
    photographs: Annotated[bool, typer.Option(help="Also look for near-duplicates across splits.")] = True,
    docs: Annotated[Path | None, typer.Option(help="Write Great Expectations' Data Docs into this folder.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024)] = 1,
) -> None:
    """Check a data set. Exit code 0: everything holds; 2: the data is bad; 1: the check itself failed.

    Example: aot data validate data
    """
    from aot_core.data.guard import guard_dataset

    with tempfile.TemporaryDirectory(prefix="aot-guard-") as report:
        verdicts = guard_dataset(folder, min_ssim, Path(report), photographs=photographs, docs=docs, workers=workers)
    typer.echo(f"{folder}: all {len(verdicts)} expectations hold")


@data_app.command()
def show(
    folder: FolderArgument,
    output: Annotated[Path, typer.Option(help="A .png or an .html file.")] = Path("pairs.png"),
    rows: Annotated[int, typer.Option(min=1, max=1000, help="Pairs shown, some of every kind.")] = 16,
) -> None:
    """Draw a contact sheet: clean, edited, difference, question and edit of some pairs of every kind.

    Example: aot data show data --output sheet.png
    """
    from aot_core.data.sheet import contact_page, contact_sheet

    if output.suffix not in (".png", ".html"):
        raise ValueError(f"--output {str(output)!r}: give a name that ends in .png or .html")
    content = contact_sheet(folder, rows) if output.suffix == ".png" else contact_page(folder, rows).encode()
    output.write_bytes(content)
    typer.echo(str(output))


@data_app.command()
def card(folder: FolderArgument) -> None:
    """Print a data set's card, recomputed from its tables.

    Example: aot data card data
    """
    import json

    from aot_core.data.card import describe, read_card
    from aot_core.data.dataset import MANIFEST, file_sha256

    known = read_card(folder)
    counted = describe(folder, file_sha256(folder / MANIFEST)).as_json()
    # The funnel and the growth cannot be recomputed from what was kept.
    counted |= {name: known[name] for name in ("funnel", "effective_by_kind", "growth") if name in known}
    if counted != known:
        different = ", ".join(name for name in counted if counted[name] != known.get(name))
        raise ValueError(f"{folder}: card.json and the tables disagree about {different}; build it again")
    typer.echo(json.dumps(counted, indent=1))
