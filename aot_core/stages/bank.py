"""`bank`: the bank so far and an edition's curated edits in; the bank with what fooled this edition's Defenders out."""

import logging

from aot_core.contracts.bank import VERSION as VERSION
from aot_core.contracts.bank import BankConfig, BankInputs, BankOutputs
from aot_core.data.bank import (
    Entry,
    bank_config,
    bounded,
    fooling_edits,
    read_bank,
    without_duplicates,
    write_bank,
)
from aot_core.engine.context import StageContext

logger = logging.getLogger(__name__)


def run_bank(config: BankConfig, inputs: BankInputs, context: StageContext) -> BankOutputs:
    """Take what fooled, leave out what looks the same, keep the hardest. An empty bank is a bank.

    Raises ValueError where the bank so far has another share held back, DataError where it is no bank or a curated
    picture cannot be read.
    """
    held, missing = _bank_so_far(config, inputs, context)
    attackers = inputs.attackers or (None,) * len(inputs.curated)
    fresh: list[Entry] = []
    for number, (curated, attacker) in enumerate(zip(inputs.curated, attackers, strict=True), start=1):
        fresh += fooling_edits(context.fetch(curated), curated, attacker, inputs.edition, number, config)
    all_, duplicates = without_duplicates(held, fresh, config)
    kept = bounded(all_, config)
    write_bank(context.output, kept, config)
    known = {entry.sample.sample_id for entry in held}
    suite = sum(entry.sample.split == "evaluate" for entry in kept)
    outputs = BankOutputs(
        lessons=len(kept) - suite,
        suite=suite,
        new=sum(entry.sample.sample_id not in known for entry in kept),
        duplicates=len(duplicates),
        dropped=len(all_) - len(kept),
        missing=missing,
    )
    context.tracker.log_metrics({f"bank/{name}": float(n) for name, n in outputs.model_dump().items()})
    return outputs


def _bank_so_far(config: BankConfig, inputs: BankInputs, context: StageContext) -> tuple[list[Entry], int]:
    """The entries that are whole, and how many are not."""
    if inputs.bank is None:
        return [], 0
    folder = context.fetch(inputs.bank)
    before = bank_config(folder).suite
    if before != config.suite:
        raise ValueError(
            f"bank.suite is {config.suite:g} and the bank so far was made with {before:g}: edits would change sides, "
            f"and the regression suite would ask what was trained on. Set bank.suite to {before:g}, or begin a new "
            "series"
        )
    entries, missing = read_bank(folder)
    if missing:
        logger.warning(
            "bank: %d of %d edits are left out, their pictures are gone or damaged: %s",
            len(missing),
            len(missing) + len(entries),
            ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else ""),
        )
    return entries, len(missing)
