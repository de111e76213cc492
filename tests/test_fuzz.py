"""Whatever is typed, it is told in a sentence: configs made from the schema, command lines from the commands.

A few dozen examples here; `make test-fuzz` tries a thousand of each, and prints how they ended.
"""

import json
import os
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.main import get_command
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.contracts.base import sha256_of
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.loading import ConfigError, load_campaign

SMOKE = Path(__file__).parents[1] / "configs" / "smoke.toml"
EXAMPLES = int(os.environ.get("AOT_FUZZ_EXAMPLES", "40"))
TRIED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="AOT_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
NO_TRACE = ("Traceback", "pydantic", "input_value", "fault of aot")

WEIRD_TEXT = st.sampled_from(
    [
        "", " ", ".", "..", "/", "/etc", "/etc/passwd", "../../x", "~no-such-user/x", "a\0b", "a\nb", "x" * 300,
        "s3:/b/x", "s3://", "s3://b", "ftp://a/b", "https://u:p@h/x", "http://", "http://[::1", "env:", "env:x", "ü…漢",
        "prefect-block:secret/", "aot://attacker_round/0", "os:system", "%s%n", "{0}", "[red]", "nan", "1e999", "-1",
        "--help", "env:HOME", "x" * 5000,
    ]
) | st.text(max_size=40)  # fmt: skip
WEIRD = st.one_of(
    WEIRD_TEXT,
    st.integers(),
    st.sampled_from([10**12, 10**20, -(10**20), 10**400, 2**32, 2**63]),
    st.floats(),
    st.booleans(),
    st.lists(st.integers() | WEIRD_TEXT, max_size=3),
    st.dictionaries(st.sampled_from(["type", "url", "model", "x", ""]), WEIRD_TEXT, max_size=2),
)


def plausible(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that a field of this type may have, as TOML writes them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return plausible(get_args(annotation)[0])
    if origin is Literal:
        return st.sampled_from(get_args(annotation))
    if origin in (Union, types.UnionType):
        return st.one_of([plausible(one) for one in get_args(annotation) if one is not type(None)])
    if origin is tuple:
        kinds = get_args(annotation)
        if kinds[-1] is Ellipsis:
            return st.lists(plausible(kinds[0]), max_size=4)
        return st.tuples(*(plausible(kind) for kind in kinds)).map(list)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), plausible(get_args(annotation)[1]), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return st.deferred(lambda: section(annotation))
    simple = {
        bool: st.booleans(),
        int: st.integers(-1, 2000),
        float: st.floats(-1, 100) | st.sampled_from([0.0, 0.5, 1.0]),
        str: st.sampled_from(["x", "aot-tiny-vl", "owner/model", "env:SOME_URL", "http://127.0.0.1:9/v1"]) | WEIRD_TEXT,
    }
    return simple.get(annotation, WEIRD)


@st.composite
def section(draw: st.DrawFn, model: type[BaseModel]) -> dict[str, Any]:
    """Some of a section's fields, most of them plausible; now and then one that it does not have."""
    names = draw(st.lists(st.sampled_from(sorted(model.model_fields)), max_size=3, unique=True))
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    values: dict[str, Any] = {}
    for name in {*names, *needed}:
        annotation = model.model_fields[name].annotation
        values[name] = draw(plausible(annotation) if draw(st.integers(0, 5)) else WEIRD)
    if not draw(st.integers(0, 15)):
        values[draw(WEIRD_TEXT)] = draw(WEIRD)
    return values


def toml(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return quoted(value)
    return str(value).lower() if isinstance(value, bool | float) else str(value)


def quoted(text: str) -> str:
    return json.dumps(text.encode("utf-8", "replace").decode()).replace("\x7f", "\\u007f")


def schema(draw: st.DrawFn) -> dict[str, Any]:
    values = draw(section(CampaignConfig))
    return values if draw(st.integers(0, 3)) == 0 else values | {"name": "fuzz", "seed": draw(st.integers(0, 9))}


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Counter[str]]:
    counted: Counter[str] = Counter()
    yield counted
    print(f"\n{counted.total()} inputs: {', '.join(f'{n} {what}' for what, n in sorted(counted.items()))}")


@TRIED
@given(data=st.data())
def test_any_config_is_loaded_or_told(
    data: st.DataObject, outcomes: Counter[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = data.draw(st.composite(schema)())
    text = "\n".join(f"{quoted(key)} = {toml(value)}" for key, value in values.items())
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(
        data.draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff"]) if len(text) % 7 == 0 else st.just(b""))
    )
    with path.open("ab") as stream:
        stream.write(text.encode())
    try:
        config = load_campaign(path)
    except ConfigError as error:
        told = str(error)
        assert str(path) in told and len(told) < 20_000 and not any(word in told for word in NO_TRACE), told
        assert ":p@" not in told
        outcomes["configs refused"] += 1
        return
    assert CampaignConfig.model_validate_json(config.model_dump_json()) == config
    assert sha256_of(config)
    outcomes["configs loaded"] += 1


@TRIED
@given(
    override=st.tuples(
        st.sampled_from([*CampaignConfig.model_fields, "x", ""]), WEIRD_TEXT, WEIRD_TEXT | WEIRD.map(toml)
    )
)
def test_any_override_is_loaded_or_told(override: tuple[str, str, str], outcomes: Counter[str]) -> None:
    field, inner, value = override
    for given_ in (f"{field}={value}", f"{field}.{inner}={value}"):
        try:
            load_campaign(SMOKE, [given_])
        except ConfigError as error:
            assert not any(word in str(error) for word in NO_TRACE) and ":p@" not in str(error).replace(inner, "")
            outcomes["overrides refused"] += 1
        else:
            outcomes["overrides loaded"] += 1


class StartedError(SystemExit):
    """Instead of becoming another program."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(get_command(app)))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of every kind. No benchmark, data set, picture or campaign: nothing that takes long to be right."""
    root = tmp_path_factory.mktemp("places")
    (root / "file").write_text("text")
    (root / "binary").write_bytes(bytes(range(256)))
    (root / "full").mkdir()
    (root / "full" / "x").write_text("x")
    (root / "bad.toml").write_text("name = ")
    return {name: str(root / name) for name in ("file", "binary", "full", "bad.toml", "absent", "home", "file/below")}


PLACED = {"home", "folder", "output", "image", "figures", "docs", "store", "config"}


@st.composite
def command_line(draw: st.DrawFn, places: dict[str, str]) -> list[str]:
    path = draw(st.sampled_from(sorted(COMMANDS)))
    arguments: list[str] = []
    for parameter in COMMANDS[path].params:
        needed = parameter.required or parameter.name in ("home", "output")
        if parameter.name == "help" or not (needed or draw(st.integers(0, 2)) == 0):
            continue
        option = next((one for one in parameter.opts if one.startswith("--")), None)
        if getattr(parameter, "is_flag", False):
            arguments.append(str(option))
            continue
        value = draw(value_of(path, parameter, places))
        arguments += [f"{option}={value}"] if option and draw(st.booleans()) else [*([option] if option else []), value]
    if not draw(st.integers(0, 9)):
        arguments.append(draw(WEIRD_TEXT.filter(lambda text: not text.startswith("-") or path != ("ui",))))
    return [*path, *arguments]


def value_of(path: tuple[str, ...], parameter: Any, places: dict[str, str]) -> st.SearchStrategy[str]:
    kinds = [parameter.type_descriptor.annotation, *get_args(parameter.type_descriptor.annotation)]
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices:
        return st.sampled_from([*choices, "tpu", ""])
    if parameter.name in ("mlflow_port", "prefect_port", "gpus", "workers", "limit"):
        return st.sampled_from(["0", "-1", "1e9", "x", "99999999"])
    if {int, float} & {kind for kind in kinds if isinstance(kind, type)}:
        return st.sampled_from(["0", "1", "2", "17", "-1", "1e12", "1000000000000", "nan", "inf", "", "x", "9" * 5000])
    if path == ("ui",) and parameter.name == "home":  # where it can start, it serves until Ctrl-C
        return st.sampled_from([places["file"], places["file/below"], "", "/etc/passwd", "x" * 300, "a\0b"])
    if parameter.name in PLACED:
        there = list(places.values())
        if parameter.name == "output":  # neither a page of a data set nor a built one comes of it
            there = [places["full"], places["file"], places["file/below"]]
        configs = [str(SMOKE)] if parameter.name == "config" and path != ("data", "build") else []
        return st.sampled_from(
            [*there, *configs, "", "/etc/passwd", "/proc/nope", "x" * 300, "~no-such-user/x", "a\0b"]
        )
    if parameter.name == "overrides":
        fields = st.sampled_from(["rounds", "seed", "curate", "run.store", "models.attacker", "promotion.webhook", "x"])
        return st.builds(lambda field, value: f"{field}={value}", fields, WEIRD_TEXT)
    return WEIRD_TEXT | st.sampled_from(["champion", "pope", "aot-tiny-vl", "http://127.0.0.1:1/v1", "1"])


@TRIED
@given(data=st.data())
def test_any_command_line_is_told(
    data: st.DataObject, places: dict[str, str], outcomes: Counter[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    arguments = data.draw(command_line(places))
    told, code = run(arguments, tmp_path_factory.getbasetemp())
    assert code in (0, 1, 2), (arguments, told)
    assert not any(word in told for word in NO_TRACE), (arguments, told)
    assert told.strip() or code == 0, arguments
    assert len(told.splitlines()) < 80 or "--json" in arguments, "an error is a sentence"
    outcomes[f"command lines ended with {code}"] += 1


def run(arguments: Sequence[str], folder: Path) -> tuple[str, int]:
    """A command line in this process, as far as where it would become another program: what it said, and its code."""

    def becomes(_program: str, command: Sequence[str], _environment: object) -> None:
        assert all("\0" not in part for part in command)
        raise StartedError(0)

    before = Path.cwd(), dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "execve", becomes)
        patch.chdir(folder)
        try:
            done = CliRunner().invoke(app, arguments)
        finally:
            os.environ.clear()
            os.environ.update(before[1])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise AssertionError((arguments, done.output)) from done.exception
    return done.output, done.exit_code


def test_every_number_and_text_of_a_config_has_a_bound() -> None:
    """What has none takes a count of 1e12, or a name of 300 letters."""
    loose = [where for where, model in models_of(CampaignConfig, "") for where in unbounded(where, model)]
    loose = [where for where in loose if not where.startswith("edition.")]  # pinned by the series, written by nobody
    assert not loose, loose


def models_of(model: type[BaseModel], where: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield where, model
    for name, field in model.model_fields.items():
        for inner in classes_in(field.annotation):
            yield from models_of(inner, f"{where}{name}.")


def classes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from classes_in(one)


def unbounded(where: str, model: type[BaseModel]) -> Iterator[str]:
    """Fields whose JSON schema lets a number or text be as large as it likes."""
    for name, field in model.model_fields.items():
        assert field.annotation is not PydanticUndefined
        shape = model.model_json_schema()["properties"][name]
        for one in [shape, *shape.get("anyOf", []), shape.get("items", {}), shape.get("additionalProperties") or {}]:
            kind = one.get("type") if isinstance(one, dict) else None
            if kind in ("integer", "number") and not {"maximum", "exclusiveMaximum"} & set(one):
                yield f"{where}{name}"
            if kind == "string" and not {"maxLength", "pattern", "enum", "const"} & set(one):
                yield f"{where}{name}"
