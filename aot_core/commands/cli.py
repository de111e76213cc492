"""`aot`: a thin front. Commands validate, set the environment and hand over; heavy imports stay inside them.

Prefect is never imported here: `run` becomes `python -m flows.coevolution`, after the environment is set that Prefect
reads when it is imported.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from aot_core.commands.cli_bench import bench_app
from aot_core.commands.cli_compare import app as compare_app
from aot_core.commands.cli_data import data_app
from aot_core.commands.cli_deploy import app as deploy_app
from aot_core.commands.cli_ledger import app as ledger_app
from aot_core.commands.cli_webhook import app as webhook_app
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
    PlaceOption,
    SetOption,
    print_version,
    store_uri,
)

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
        Device | None, typer.Option(help="Where stages compute; auto uses a GPU if there is one.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(parser=store_uri, metavar="URI", help="A folder or s3://BUCKET/PREFIX; default: HOME/store."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    edition: Annotated[
        str | None,
        typer.Option(help="In a series: next, a number, or a missed scheduled start (2026-11-27T20:00)."),
    ] = None,
    restart: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STAGE[:ROUND]",
            help="Rerun from this stage on (curate, evaluate:2); earlier results are kept.",
        ),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Who is responsible for it; default: user@machine.")] = None,
    note: Annotated[str | None, typer.Option(help="Its purpose: the run's description in MLflow.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A tag in MLflow; repeat it.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the config and which stages would run; run nothing.")
    ] = False,
) -> None:
    """Run a campaign, or resume it where it stopped.

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
        typer.echo("\n".join(stages_told(campaign, Home(home), edition)), err=True)
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
        typer.Option(min=0, max=1024, help="GPUs of this machine; default: those that its kernel reports."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Create a slot for each GPU on this home's Prefect server, or PREFECT_API_URL's; stages queue for them.

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
app.add_typer(ledger_app)
app.add_typer(webhook_app)


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="A campaign, such as configs/paper.toml.")],
    overrides: SetOption = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(min=2, max=2**20, help="Tokens of a prompt, image and text; default: the longest allowed."),
    ] = None,
    peak_tflops: Annotated[
        float | None,
        typer.Option(min=0.1, max=1e6, help="A GPU's peak in the config's precision; default: this CPU, measured."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the cost of a campaign's training stages: parameters, memory, time.

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
    """Report what this machine can run, what is missing, and how to get it.

    Example: aot doctor --home /data/aot
    """
    from aot_core.commands.doctor import print_diagnosis

    raise typer.Exit(print_diagnosis(home, as_json=as_json))


@app.command()
def ui(
    home: HomeOption = DEFAULT_HOME,
    mlflow_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: 5000, or the next free port.")
    ] = None,
    prefect_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: 4200, or the next free port.")
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
        float, typer.Option(min=0, max=36_500, help="Keep stages that were run within this many days.")
    ] = 30,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; without it, only report what would be deleted.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Delete finished stages that no registered version, running campaign or recent record reaches.

    Example: aot store gc --keep-days 14 --delete
    """
    from aot_core.commands.housekeeping import collect_garbage
    from aot_core.commands.looking import demand_home, existing_store
    from aot_core.contracts.campaign import RunSettings
    from aot_core.contracts.loading import load_campaign
    from aot_core.home import Home

    place = Home(home)
    demand_home(place)
    os.environ.update(place.environment())
    settings = load_campaign(config).run if config else RunSettings()
    named = store or settings.store or os.environ.get("AOT_STORE")
    collect_garbage(place, existing_store(place, named, settings.s3), keep_days, delete=delete)


@store_commands.command("verify")
def verify_store(
    config: Annotated[Path | None, typer.Argument(help="A campaign whose [run] names the store.")] = None,
    store: ConfiguredStoreOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Check every hash in the store and quarantine damaged entries. Exit code 1 if there are any.

    Example: aot store verify --store s3://bucket/aot
    """
    from aot_core.commands.housekeeping import verify_store
    from aot_core.commands.looking import existing_store
    from aot_core.contracts.campaign import RunSettings
    from aot_core.contracts.loading import load_campaign
    from aot_core.home import Home

    place = Home(home)
    os.environ.update(place.environment())
    settings = load_campaign(config).run if config else RunSettings()
    named = store or settings.store or os.environ.get("AOT_STORE")
    whole = verify_store(existing_store(place, named, settings.s3))
    raise typer.Exit(0 if whole else FOUND)


@app.command()
def attack(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    question: Annotated[str, typer.Option(help="The question for the Defender.")],
    answer: Annotated[str, typer.Option(help="The right option, or its letter.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    option: Annotated[list[str] | None, typer.Option(help="An answer option; repeat it. Default: yes and no.")] = None,
    boxes: Annotated[
        list[str] | None, typer.Option(help="X,Y,WIDTH,HEIGHT of what the question is about; may be repeated.")
    ] = None,
    attacker: Annotated[str, typer.Option(help="An editor or an artifact: name or folder.")] = "aot-tiny-edit",
    attacker_base: Annotated[str | None, typer.Option(help="The editor that an adapter was trained on.")] = None,
    defender: Annotated[str, typer.Option(help="A model or an artifact: name or folder.")] = "aot-tiny-vl",
    defender_base: Annotated[str | None, typer.Option(help="The model that an adapter was trained on.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="A model that is asked whether a photograph's edits are valid.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1024, help="Number of edits.")] = 8,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Answers sampled per picture.")] = 3,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps of an edit.")] = 6,
    resolution: Annotated[
        int | None, typer.Option(min=16, max=16_384, help="A large editor's frame, pixels per side; a multiple of 16.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED)] = 0,
    device: DeviceOption = "auto",
    dtype: DTypeOption = "float32",
) -> None:
    """Probe a model: edit a picture without changing the right answer, and see whether the model changes its own.

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
def pool(store: PlaceOption = None, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """List every Attacker in the store, newest first, by the names that a campaign's `adversaries` takes.

    Example: aot pool --store s3://bucket/aot
    """
    from aot_core.commands.looking import existing_store
    from aot_core.commands.status import print_pool
    from aot_core.home import Home

    print_pool(existing_store(Home(home), store), as_json=as_json)


@app.command()
def trend(
    series: Annotated[str | None, typer.Argument(help="A series; may be omitted if the store holds only one.")] = None,
    as_json: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page with plots to this file instead of the table.")
    ] = None,
    store: PlaceOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show a series, one edition per line: its starting point, its figures, its outcome.

    Example: aot trend weekly --html trend.html
    """
    from aot_core.commands.looking import existing_store
    from aot_core.commands.trend import print_trend, write_trend
    from aot_core.home import Home

    kept = existing_store(Home(home), store)
    if html is not None:
        typer.echo(f"written: {write_trend(kept, series, html)}")
        return
    print_trend(kept, series, as_json=as_json)


def main() -> None:
    start(app)


if __name__ == "__main__":
    main()
