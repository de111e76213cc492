"""`aot bench`: public benchmarks from local files. Heavy imports stay inside the commands."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from aot_core.commands.options import DEFAULT_HOME, DeviceOption, DTypeOption, HomeOption, SeedOption

bench_app = typer.Typer(help="Public benchmarks from local files.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(help="The folder that holds the published files.")]


@bench_app.command()
def verify(
    folder: FolderArgument,
    name: Annotated[list[str] | None, typer.Option(help="Only this benchmark; may be repeated.")] = None,
    pictures: Annotated[bool, typer.Option("--pictures", help="Also decode every picture.")] = False,
) -> None:
    """List the benchmarks in a folder: whether each is complete, and whether it is the published one.

    Example: aot bench verify benchmarks
    """
    from aot_core.commands.benchmarking import print_verified

    raise typer.Exit(print_verified(folder, name or [], pictures=pictures))


@bench_app.command()
def run(
    folder: FolderArgument,
    name: Annotated[list[str], typer.Option(help="A benchmark; may be repeated.")],
    defender: Annotated[str | None, typer.Option(help="A shipped model, a folder or a hub name.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible endpoint, up to and including /v1.")
    ] = None,
    model: Annotated[str, typer.Option(help="The endpoint's name for the model.")] = "",
    vllm: Annotated[
        list[str] | None, typer.Option(help="Start vLLM on --defender, with this argument; may be repeated, or empty.")
    ] = None,
    key_env: Annotated[str, typer.Option(help="The environment variable that holds the endpoint's key.")] = "",
    concurrency: Annotated[int, typer.Option(min=1, max=256)] = 8,
    samples: Annotated[int, typer.Option(min=1, max=1024, help="How often each question is asked.")] = 3,
    temperature: Annotated[float, typer.Option(min=0.0, max=100.0)] = 1.0,
    limit: Annotated[
        int | None, typer.Option(min=1, max=100_000_000, help="Maximum number of questions per benchmark.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1_000_000)] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=131_072)] = 64,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dtype: DTypeOption = "float32",
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Run benchmarks on a local model or an endpoint; a rerun resumes where it stopped.

    Example: aot bench run benchmarks --name pope --defender aot-tiny-vl
    """
    from aot_core.commands.benchmarking import run as run_benchmarks
    from aot_core.contracts.benchmarks import BenchmarkSettings, EndpointSettings, VllmSettings
    from aot_core.home import Home

    place = Home(home)
    os.environ.update(place.environment())
    if (defender is None) == (endpoint is None):
        raise ValueError("give either --defender or --endpoint")
    where = None
    if endpoint:
        where = EndpointSettings(url=endpoint, model=model, api_key_env=key_env, concurrency=concurrency)
    settings = BenchmarkSettings(
        names=tuple(name),
        limit=limit,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        endpoint=where,
        vllm=None if vllm is None else VllmSettings(arguments=tuple(argument for argument in vllm if argument)),
    )
    sampling: dict[str, Any] = {
        "samples": samples,
        "temperature": temperature,
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }
    run_benchmarks(folder, settings, defender, place.root / "benchmarks", **sampling)


@bench_app.command()
def second_opinion(
    model: Annotated[str, typer.Argument(help="A hub name or an exported folder.")],
    name: Annotated[list[str], typer.Option(help="A benchmark; may be repeated.")],
    figures: Annotated[Path | None, typer.Option(help="figures.json of `aot bench run`, to compare with.")] = None,
    adapter: Annotated[str, typer.Option(help="lmms-eval's name for the kind of model.")] = "qwen2_5_vl",
    adapter_arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="For the adapter (device=cpu); may be repeated.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder with data sets by their names on the hub, instead of the hub.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=100_000_000, help="Only the first N questions.")] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Evaluate a model with lmms-eval (installed separately; it downloads its data from the hub), and compare.

    Example: aot bench second-opinion exported --name mmstar
    """
    from aot_core.commands.benchmarking import print_second_opinion
    from aot_core.home import Home

    output = Home(home).root / "benchmarks" / "lmms-eval"
    asked: dict[str, Any] = {"adapter": adapter, "arguments": adapter_arg or [], "data": data, "limit": limit}
    print_second_opinion(model, name, output, figures, **asked)
