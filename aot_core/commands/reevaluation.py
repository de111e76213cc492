"""The body of `aot reevaluate`: a registered version is evaluated again, and every single answer is compared.

    version -> its evaluation's record and inputs (its tags, its campaign's run) -> the registry's weights are still
            the artifact's -> the same questions, edits and noise once more -> compared item by item

A figure that a version was promoted by is worth only as much as it can be reproduced: weekly, on a new machine, after
an upgrade. Imports torch only when it measures.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from aot_core.contracts.artifact import StageRecord, flat_numbers
from aot_core.contracts.evaluate import ITEMS_FILE, VERSION, EvaluateConfig, EvaluateInputs
from aot_core.contracts.spec import Place
from aot_core.engine.context import StageContext
from aot_core.engine.identity import check_model, stage_spec
from aot_core.evaluation.items import Item, read_items
from aot_core.store.manifest import manifest_of
from aot_core.store.protocol import Store
from aot_core.tracking import registry


class ReevaluationError(ValueError):
    """A version that cannot be measured again. The message says what is missing, and what to do."""


class Reevaluation(NamedTuple):
    """What came of it."""

    version: str
    items: int
    """Answered questions, over all conditions."""
    different: tuple[str, ...]
    """Those answered differently, in words."""
    figures: dict[str, tuple[float | None, float | None]]
    """The figures that differ: (then, now)."""

    @property
    def same(self) -> bool:
        return not self.different and not self.figures

    def told(self) -> str:
        """One line, and one more for each of the first ten that differ."""
        if self.same:
            return f"version {self.version}: all {self.items} items and every figure are unchanged"
        items, numbers = len(self.different), len(self.figures)
        head = (
            f"version {self.version}: {items} of {self.items} items {'is' if items == 1 else 'are'} answered "
            f"differently, {numbers} {'figure differs' if numbers == 1 else 'figures differ'}"
        )
        figures = [f"{name}: {then} then, {now} now" for name, (then, now) in self.figures.items()]
        return "\n".join([head, *self.different[:10], *figures[:10]])


def reevaluate(
    uri: str,
    model: str,
    version: str,
    store: Store,
    device: str,
    threads: int,
    say: Callable[[str], None] = lambda _: None,
) -> Reevaluation:
    """Evaluate a registered version again, and compare.

    Args:
        uri: MLflow's.
        version: a number, or an alias such as `champion`.
        store: holds the version's evaluation and all that it was asked about.
        say: told what is being done, a line each.

    Raises ReevaluationError, and StoreError where an artifact is missing or was changed.
    """
    found = (registry.get_version if version.isdigit() else registry.get_alias)(uri, version, model)
    if found is None:
        raise ReevaluationError(f"{model} has no version or alias {version!r}; `aot history` shows which lead")
    number, tags = found
    record, inputs = _evaluation(uri, model, number, tags, store)
    with TemporaryDirectory(prefix="aot-reevaluate-") as folder:
        scratch = Path(folder)
        then = read_items(store.fetch(record.artifact) / ITEMS_FILE)
        say(f"{model} version {number}: are the registry's weights those that were measured?")
        _same_weights(uri, model, number, store, inputs, scratch / "registered")
        output = scratch / "output"
        output.mkdir()
        config = EvaluateConfig.model_validate(record.identity.config)
        conditions = len({item.condition for item in then})
        say(f"asking {len(then)} questions again, in {conditions} conditions; it took {record.seconds:.0f} s then")
        outputs = _measure(config, inputs, StageContext(store, output, scratch, device, threads=threads))
        say("comparing answer by answer")
        now = read_items(output / ITEMS_FILE)
    before = record.metrics
    changed = {name: (before.get(name), outputs.get(name)) for name in {**before, **outputs}}
    figures = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
    return Reevaluation(number, len(then), tuple(differences(then, now)), figures)


def differences(then: Sequence[Item], now: Sequence[Item]) -> list[str]:
    """What differs between two evaluations of the same questions, an item a line; nothing where all is the same."""
    before, after = ({(item.condition, item.item_id): item for item in items} for items in (then, now))
    told: list[str] = []
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old != new:
            told.append(f"{key[0]} {key[1]}: {_said(old)} then, {_said(new)} now")
    return told


def _said(item: Item | None) -> str:
    return "not asked" if item is None else " ".join(letter or "-" for letter in item.letters)


def _evaluation(
    uri: str, model: str, number: str, tags: dict[str, str], store: Store
) -> tuple[StageRecord, EvaluateInputs]:
    """The record of a version's evaluation, and the inputs that it was made from."""
    address = tags.get(registry.EVALUATION_TAG, "")
    record = store.find("evaluate", address.rpartition("/")[2]) if address else None
    kept = registry.read_exam(uri, model, number)
    if record is None or kept is None:
        raise ReevaluationError(
            f"{model} version {number}: its evaluation ({address or 'none is named'}) is not in this store; give the "
            "store of its campaign with --store"
        )
    if record.identity.version != VERSION:
        raise ReevaluationError(
            f"{model} version {number} was evaluated by version {record.identity.version} of the stage, and this is "
            f"{VERSION}: its figures may differ; run its campaign again"
        )
    inputs = EvaluateInputs.model_validate_json(kept)
    config = EvaluateConfig.model_validate(record.identity.config)
    if stage_spec("evaluate", config, inputs, Place(store="")).key != record.key:
        raise ReevaluationError(f"{model} version {number}: the inputs that its run keeps are not its evaluation's")
    return record, inputs


def _same_weights(uri: str, model: str, number: str, store: Store, inputs: EvaluateInputs, into: Path) -> None:
    """The registry's copy of the weights must be the artifact that was measured, file by file."""
    packed = registry.download(uri, number, model, into)
    check_model(inputs.defender_base.name, inputs.defender_base.sha256)
    assert inputs.defender is not None, "what is registered was trained"
    measured = store.fetch(inputs.defender) / packed.config["kind"]
    if manifest_of(packed.weights).sha256 != manifest_of(measured).sha256:
        raise ReevaluationError(
            f"{model} version {number}: the registry's weights are not those that were measured; roll back, and find "
            "out who changed them"
        )


def _measure(config: EvaluateConfig, inputs: EvaluateInputs, context: StageContext) -> dict[str, float]:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ReevaluationError(
            "there is no torch here to ask a model with; run `aot reevaluate` where the stages run, or deploy with the "
            "docker launcher, which asks in a stage's container"
        ) from error

    from aot_core.engine.runner import resolve_device
    from aot_core.stages.evaluate import run_evaluate

    torch.set_num_threads(context.threads)
    context = replace(context, device=resolve_device(context.device))
    outputs = run_evaluate(config.model_copy(update={"gallery_rows": 0}), inputs, context)
    return flat_numbers(outputs.model_dump(mode="json"))
