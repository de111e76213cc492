"""`aot`: a thin front. Commands validate, set the environment and hand over; heavy imports stay inside them.

Prefect is never imported here: `run` becomes `python -m flows.coevolution`, after the environment is set that Prefect
reads when it is imported.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aot_core.commands.cli_bench import bench_app
from aot_core.commands.cli_compare import app as compare_app
from aot_core.commands.cli_data import data_app
from aot_core.commands.cli_deploy import app as deploy_app
from aot_core.commands.errors import DEBUG, FOUND, Sentences, start
from aot_core.commands.options import (
    DEFAULT_HOME,
    MOST_SEED,
    ConfiguredStoreOption,
    Device,
    DeviceOption,
    DTypeOption,
    HomeOption,
    JsonOption,
    Launcher,
    ModelOption,
    PlaceOption,
    SetOption,
    StoreOption,
    print_version,
    store_uri,
)

if TYPE_CHECKING:
    from aot_core.promotion.transaction import Promoter

app = typer.Typer(
    cls=Sentences,
    help="Adversarial Opponent Training: an image editor and a multimodal LLM co-evolve.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")


@app.callback()
def every_command(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; AOT_DEBUG=1 does the same.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version and stop.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="A campaign, such as configs/tiny.toml.")],
    overrides: SetOption = None,
    launcher: Annotated[Launcher | None, typer.Option(help="How a stage gets its process.")] = None,
    device: Annotated[
        Device | None, typer.Option(help="Where stages compute; auto takes a GPU if there is one.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(parser=store_uri, metavar="URI", help="A folder or s3://BUCKET/PREFIX; HOME/store unless given."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    edition: Annotated[
        str | None,
        typer.Option(help="In a series: next, a number, or the scheduled start that was missed (2026-11-27T20:00)."),
    ] = None,
    restart: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STAGE[:ROUND]",
            help="Make this stage and what follows anew (curate, evaluate:2); what there was stays.",
        ),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it; user@machine unless given.")] = None,
    note: Annotated[str | None, typer.Option(help="What it is for: its description in MLflow.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A tag in MLflow; repeat it.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the config and which stages would run; run nothing.")
    ] = False,
) -> None:
    """Run a campaign, or go on with it where it stopped.

    Example: aot run configs/tiny.toml --set seed=1
    """
    from aot_core.commands.asked import pairs, toml_value, with_restart
    from aot_core.commands.handover import hand_over
    from aot_core.commands.places import demand_functions, demand_places, models_from_hub
    from aot_core.contracts.loading import load_campaign
    from aot_core.home import Home

    given = {
        "run.launcher": launcher,
        "run.device": device,
        "run.store": store,
        "run.owner": owner,
        "run.note": note,
        "run.tags": pairs(tag) if tag else None,
    }
    overrides = [
        *(overrides or []),
        *(f"{key}={toml_value(value)}" for key, value in given.items() if value is not None),
    ]
    campaign = with_restart(load_campaign(config, overrides), restart, edition)
    from_hub = models_from_hub(campaign)
    if campaign.series is not None and edition is None:
        edition = "next"
    if dry_run:
        from aot_core.commands.dry_run import stages_told

        typer.echo(campaign.model_dump_json(indent=2))
        typer.echo("\n".join(stages_told(campaign, Home(home))), err=True)
        return
    demand_places(campaign)
    demand_functions(campaign)
    place = Home(home)
    place.create()
    environment = place.environment()
    if from_hub and "HF_HUB_OFFLINE" in environment:
        # A campaign that names hub models may ask the hub for them; every other one stays off the network.
        del environment["HF_HUB_OFFLINE"]
    command = [sys.executable, "-m", "flows.coevolution", str(place.root), str(hand_over(campaign, place.root))]
    command += [edition] if edition else []
    os.execve(sys.executable, command, os.environ | environment)


@app.command()
def setup(
    gpus: Annotated[
        int | None,
        typer.Option(min=0, max=1024, help="GPUs of this machine; those that its kernel knows of unless given."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make a slot for each GPU on this home's Prefect, or on PREFECT_API_URL's: stages queue for them.

    Example: aot setup --gpus 2
    """
    from aot_core.home import Home

    place = Home(home)
    place.create()
    count = len(list(Path("/dev").glob("nvidia[0-9]*"))) if gpus is None else gpus
    command = [sys.executable, "-m", "flows.slots", str(count)]
    os.execve(sys.executable, command, os.environ | place.environment())


app.add_typer(deploy_app)
app.add_typer(compare_app)


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="A campaign, such as configs/paper.toml.")],
    overrides: SetOption = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(min=2, max=2**20, help="Tokens of a prompt, image and text; the longest allowed unless given."),
    ] = None,
    peak_tflops: Annotated[
        float | None,
        typer.Option(min=0.1, max=1e6, help="A GPU's peak in the config's precision; this CPU unless given."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate what a campaign's trainings will need: parameters, memory, time.

    Example: aot plan configs/paper.toml --peak-tflops 989
    """
    from aot_core.commands.estimate import print_plan
    from aot_core.contracts.loading import load_campaign

    print_plan(load_campaign(config, overrides), prompt_tokens, peak_tflops, as_json=as_json)


@app.command()
def status(as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Show every campaign of this home: what is done, when, and how it ended.

    Example: aot status --json
    """
    from aot_core.commands.status import print_status

    print_status(home, as_json=as_json)


@app.command()
def doctor(as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Say what this machine can run, what is missing, and how to get it.

    Example: aot doctor --home /data/aot
    """
    from aot_core.commands.doctor import print_diagnosis

    raise typer.Exit(print_diagnosis(home, as_json=as_json))


@app.command()
def ui(
    home: HomeOption = DEFAULT_HOME,
    mlflow_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="5000, or the next that is free, unless given.")
    ] = None,
    prefect_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="4200, or the next that is free, unless given.")
    ] = None,
) -> None:
    """Serve MLflow's and Prefect's pages on this home's data, on loopback, until Ctrl-C.

    Example: aot ui --home /data/aot
    """
    from aot_core.commands.ui import serve

    raise typer.Exit(serve(home, mlflow_port, prefect_port))


store_commands = typer.Typer(help="The artifact store.", no_args_is_help=True)
app.add_typer(store_commands, name="store")


@store_commands.command("gc")
def collect_garbage(
    config: Annotated[Path | None, typer.Argument(help="A campaign whose [run] names the store.")] = None,
    store: ConfiguredStoreOption = None,
    keep_days: Annotated[
        float, typer.Option(min=0, max=36_500, help="Keep every stage that was run so recently.")
    ] = 30,
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without, only say what would go.")] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Delete finished stages that no registered version, running campaign or recent record reaches.

    Example: aot store gc --keep-days 14 --delete
    """
    from aot_core.commands.housekeeping import collect_garbage
    from aot_core.contracts.campaign import RunSettings
    from aot_core.contracts.loading import load_campaign
    from aot_core.home import Home

    place = Home(home)
    place.create()
    os.environ.update(place.environment())
    settings = load_campaign(config).run if config else RunSettings()
    store = store or settings.store or os.environ.get("AOT_STORE") or str(place.store)
    collect_garbage(place, store, settings.s3, keep_days, delete=delete)


@store_commands.command("verify")
def verify_store(
    config: Annotated[Path | None, typer.Argument(help="A campaign whose [run] names the store.")] = None,
    store: ConfiguredStoreOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Compare every hash of the store; what is damaged is set aside, to be made again. Exit code 1 where any was.

    Example: aot store verify --store s3://bucket/aot
    """
    from aot_core.commands.housekeeping import verify_store
    from aot_core.contracts.campaign import RunSettings
    from aot_core.contracts.loading import load_campaign
    from aot_core.home import Home

    place = Home(home)
    os.environ.update(place.environment())
    settings = load_campaign(config).run if config else RunSettings()
    whole = verify_store(store or settings.store or os.environ.get("AOT_STORE") or str(place.store), settings.s3)
    raise typer.Exit(0 if whole else FOUND)


@app.command()
def attack(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    question: Annotated[str, typer.Option(help="What the Defender is asked.")],
    answer: Annotated[str, typer.Option(help="The right option, or its letter.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    option: Annotated[list[str] | None, typer.Option(help="An option; repeat it. yes and no unless given.")] = None,
    boxes: Annotated[
        list[str] | None, typer.Option(help="X,Y,WIDTH,HEIGHT of what the question is about; may be repeated.")
    ] = None,
    attacker: Annotated[str, typer.Option(help="An editor or an artifact: name or folder.")] = "aot-tiny-edit",
    attacker_base: Annotated[str | None, typer.Option(help="The editor that an adapter was trained on.")] = None,
    defender: Annotated[str, typer.Option(help="A model or an artifact: name or folder.")] = "aot-tiny-vl",
    defender_base: Annotated[str | None, typer.Option(help="The model that an adapter was trained on.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="A model that is asked whether a photograph's edits are fair.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1024, help="Edits made.")] = 8,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Answers sampled a picture.")] = 3,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps of an edit.")] = 6,
    resolution: Annotated[
        int | None, typer.Option(min=16, max=16_384, help="A big editor's frame, pixels a side: a multiple of 16.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED)] = 0,
    device: DeviceOption = "auto",
    dtype: DTypeOption = "float32",
) -> None:
    """Probe a model: edit a picture so that the answer should stay, and see whether it does. Nothing is trained.

    Example: aot attack scene.png --question "Is there a red ring?" --answer no --output probe
    """
    from aot_core.base_models.names import model_folder
    from aot_core.commands.attacking import AskedPicture, Match, Player, print_report
    from aot_core.commands.attacking import attack as attack_picture
    from aot_core.contracts.attack_report import ProbeSettings
    from aot_core.contracts.learning import EditorSettings

    named = [name for name in (attacker, attacker_base, defender, defender_base, judge) if name]
    if all(model_folder(name) for name in named):
        os.environ["HF_HUB_OFFLINE"] = "1"  # only a hub's name may ask the hub
    asked = AskedPicture(image, question, option or ["yes", "no"], answer, boxes or [])
    match = Match(
        Player(attacker, attacker_base),
        Player(defender, defender_base),
        EditorSettings(resolution=resolution) if resolution else None,
        device,
        dtype,
    )
    settings = ProbeSettings(count=count, samples=samples, steps=steps, seed=seed, judge=judge)
    report = attack_picture(asked, match, settings, output)
    print_report(report, output)


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="A new folder.")],
    version: Annotated[str, typer.Option(help="A version's number or alias.")] = "champion",
    model: ModelOption = "aot-defender",
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write a registered Defender as a plain transformers folder, for `transformers serve` or vLLM.

    Example: aot export defender --version champion
    """
    from aot_core.home import Home

    place = Home(home)
    os.environ.update(place.environment())
    from aot_core.commands.export import export_defender

    number = export_defender(place.mlflow_uri, model, version, output)
    typer.echo(f"{model} version {number} stands in {output}")


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
    from aot_core.commands.reevaluation import reevaluate as measure
    from aot_core.store import open_store

    kept = open_store(store or str(place.store))
    found = measure(place.mlflow_uri, model, version, kept, device, threads)
    typer.echo(f"{model} {found.told()}")
    raise typer.Exit(0 if found.same else 1)


@app.command()
def pool(store: PlaceOption = None, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """List every Attacker in the store, newest first: what `adversaries` of a campaign may name.

    Example: aot pool --store s3://bucket/aot
    """
    from aot_core.commands.status import print_pool
    from aot_core.home import Home
    from aot_core.store import open_store

    print_pool(open_store(store or str(Home(home).store)), as_json=as_json)


@app.command()
def trend(
    series: Annotated[str | None, typer.Argument(help="A series; may be left out where the store holds one.")] = None,
    as_json: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page with plots to this file instead of the table.")
    ] = None,
    store: PlaceOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show how a series has fared, an edition a line: what it began from, its figures, what became of it.

    Example: aot trend weekly --html trend.html
    """
    from aot_core.commands.trend import print_trend, write_trend
    from aot_core.home import Home
    from aot_core.store import open_store

    if html is not None:
        typer.echo(f"written: {write_trend(open_store(store or str(Home(home).store)), series, html)}")
        return
    print_trend(open_store(store or str(Home(home).store)), series, as_json=as_json)


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
    from aot_core.promotion import commands
    from aot_core.store import open_store

    if store is None and not place.store.is_dir():
        raise ValueError(f"{place.root} holds no store; name the home of a campaign with --home, or --store")
    told = act(commands.open_promoter(place, PromotionSettings(model=model), open_store(store) if store else None))
    if told:
        typer.echo(told)


def main() -> None:
    start(app)


if __name__ == "__main__":
    main()
