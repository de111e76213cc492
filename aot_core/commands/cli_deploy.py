"""`aot deploy` and `aot worker`: scheduled campaigns. Prefect is not imported here; it is started."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aot_core.commands.options import DEFAULT_HOME, HomeOption, Launcher, SetOption
from aot_core.home import Home
from aot_core.loopback import announced_prefect

if TYPE_CHECKING:
    from aot_core.contracts.campaign import CampaignConfig

app = typer.Typer()

PoolOption = Annotated[str, typer.Option(help="The Prefect work pool that the runs wait in.")]


@app.command()
def deploy(
    config: Annotated[Path, typer.Argument(help="A campaign; the worker rereads the file at each run.")],
    pool: PoolOption = "aot",
    schedule: Annotated[
        str | None,
        typer.Option(metavar="CRON", help="When the campaign starts, in UTC; default: Fridays at 20:00."),
    ] = None,
    launcher: Annotated[Launcher | None, typer.Option(help="How a stage gets its process.")] = None,
    overrides: SetOption = None,
    gpus: Annotated[int, typer.Option(min=0, max=1024, help="GPU slots that the runs' stages queue for.")] = 0,
    tell: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE/NAME",
            help="A Prefect block that receives events: webhook/NAME, slack-webhook/NAME. May be repeated.",
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Schedule a campaign on the Prefect server, with its measurements, promotion and maintenance.

    The campaign, the champion's nightly measurement and weekly re-evaluation, promotion on demand, and maintenance;
    deploying again brings them up to date. The server is PREFECT_API_URL's, or the one that `aot ui` runs. Example:

        aot ui &
        aot deploy configs/tiny.toml --schedule "0 2 * * *" --launcher subprocess
        aot worker
    """
    from aot_core.contracts.loading import find_config, load_campaign

    overrides = [*(overrides or []), *([f'run.launcher="{launcher}"'] if launcher is not None else [])]
    campaign = load_campaign(config, overrides)
    place = Home(home)
    environment = _environment(place)
    command = [
        sys.executable,
        "-m",
        "flows.deployments",
        "--config",
        str(find_config(config).absolute()),
        "--home",
        str(place.root),
    ]
    command += ["--pool", pool, "--gpus", str(gpus)]
    command += [] if schedule is None else [f"--schedule={schedule}"]
    command += [f"--set={override}" for override in overrides]
    command += [f"--tell={block}" for block in tell or []]
    if _leans_on_this_folder(campaign):
        command.append(f"--working-folder={Path.cwd()}")
    os.execve(sys.executable, command, environment)


@app.command()
def worker(
    pool: PoolOption = "aot",
    limit: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Maximum number of concurrent runs; default: no limit.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Run scheduled flows until Ctrl-C: a Prefect worker for the pool, in this home's environment.

    Needs a Prefect server that keeps running: PREFECT_API_URL's, or the one that `aot ui` runs.

    Example: aot worker --limit 1
    """
    environment = _environment(Home(home))
    if not environment.get("PREFECT_API_URL"):
        fix = f"start `aot ui --home {home}` and keep it running, or set PREFECT_API_URL to a team's server"
        raise ValueError(f"there is no Prefect server to work for: {fix}")
    if "PREFECT_LOGGING_LEVEL" not in os.environ:
        environment["PREFECT_LOGGING_LEVEL"] = "INFO"  # shows what starts; the runs' own logs go to the server
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
    command += [] if limit is None else ["--limit", str(limit)]
    os.execve(sys.executable, command, environment)


def _environment(place: Home) -> dict[str, str]:
    """The home's environment, with the address of a Prefect server that outlives this command, if there is one."""
    place.create()
    environment = os.environ | place.environment()
    if not environment.get("PREFECT_API_URL") and (api := announced_prefect(place.prefect)):
        environment["PREFECT_API_URL"] = api
    return environment


def _leans_on_this_folder(campaign: "CampaignConfig") -> bool:
    """Whether a config names folders by paths from here, where its runs then have to work as well."""
    stores = [store for store in (campaign.run.store,) if store and "://" not in store]
    folders = [campaign.source_folder, campaign.benchmark_folder, *campaign.named_models]
    named = [*stores, *(folder for folder in folders if folder and Path(folder).is_dir())]
    return any(not Path(folder).is_absolute() for folder in named)
