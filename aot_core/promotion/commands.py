"""The bodies of `aot promote`, `aot rollback` and `aot history`: a home and options in, lines for the terminal out."""

from collections.abc import Mapping

from rich.table import Table

from aot_core.contracts.promotion import Decision, LedgerAction, LedgerEntry, PromotionSettings
from aot_core.contracts.terminal import console, print_json, table, when
from aot_core.home import Home
from aot_core.promotion.leaders import Leader, discrepancy, leaders, registered
from aot_core.promotion.notify import webhook
from aot_core.promotion.transaction import Promoter, PromotionError
from aot_core.store import Store, open_store
from aot_core.store.ledger import Ledger
from aot_core.tracking import registry
from aot_core.tracking.mlflow_tracking import ARTIFACT_SHA_TAG
from aot_core.tracking.smoke import SmokeTest


def open_promoter(home: Home, settings: PromotionSettings, store: Store | None = None) -> Promoter:
    """What moves a model's alias, with the home's registry, and the home's store unless another is given."""
    ledger = Ledger(store or open_store(str(home.store)), settings.model)
    uri = home.mlflow_uri
    return Promoter(uri, ledger, lambda: SmokeTest(uri, settings.smoke_seconds), notify=webhook(settings))


def promote(promoter: Promoter, version: str | None, why: str, *, force: bool) -> str:
    """Promote a version by the decision that the ledger holds of it, or by force; returns what happened.

    Args:
        version: the one with the alias `challenger` where it is None.
        force: whatever the gate said; the ledger says so too.

    Raises PromotionError, StaleDecisionError and SmokeError (`Promoter.promote`).
    """
    promoter.recover()
    if version is None:
        challenger = registry.get_alias(promoter.uri, registry.CHALLENGER, promoter.model)
        if challenger is None:
            raise PromotionError(f"{promoter.model} has no challenger; name a version with --version")
        version = challenger[0]
    if force and not why:
        raise PromotionError("--force needs --why TEXT; the ledger keeps it")
    decision = _forced(promoter, version) if force else decided(promoter, version)
    action: LedgerAction = "force" if force else "promote"
    entry = promoter.promote(decision, why or decision.reason, action)
    if entry is None:
        return f"{promoter.model} version {version} is the champion already"
    return f"{promoter.model} version {version} is the champion now{_replaced(entry)}"


def rollback(promoter: Promoter, to: str | None, why: str) -> str:
    """Restore an earlier champion; returns what happened. Raises PromotionError and SmokeError."""
    entry = promoter.rollback(to, why or "no reason given")
    return f"{promoter.model} version {entry.to_version} is the champion again{_replaced(entry)}"


def _replaced(entry: LedgerEntry) -> str:
    return f", replacing version {entry.from_version}" if entry.from_version else ""


def print_history(promoter: Promoter, *, as_json: bool = False) -> str:
    """The ledger as a table or as JSON, and who leads; returns where the two differ, "" where they do not."""
    entries = promoter.ledger.entries()
    if as_json:
        listed = [entry.model_dump(mode="json") for entry in entries]
        print_json({"model": promoter.model, "champion": promoter.champion(), "entries": listed})
        return discrepancy(promoter.uri, promoter.model, entries)
    printed = console()
    if not entries:
        printed.print(f"The ledger of {promoter.model} is empty: no version has been judged or promoted yet.")
    else:
        printed.print(_table(promoter.model, entries, _owners(promoter, entries)))
    leading = promoter.champion()
    printed.print(f"champion: {'version ' + leading if leading else 'none'}")
    if entries and entries[-1].kind == "intent":
        printed.print(
            "The last entry is an intent: a promotion is under way, or its process died. The next `aot promote` or "
            "`aot rollback` settles it.",
            style="yellow",
        )
    return discrepancy(promoter.uri, promoter.model, entries)


def champion_by(entries: list[LedgerEntry]) -> str:
    """Who leads by the ledger's own account; "" where nobody does."""
    led = leaders(entries)
    return led[-1].version if led else ""


def _owners(promoter: Promoter, entries: list[LedgerEntry]) -> dict[str, str]:
    """Version to the owner of the campaign that it came of, as far as the registry knows them."""
    found: dict[str, str] = {}
    for version in {entry.to_version for entry in entries}:
        known = registry.get_version(promoter.uri, version, promoter.model)
        found[version] = known[1].get(registry.OWNER_TAG, "") if known else ""
    return found


def _table(model: str, entries: list[LedgerEntry], owners: Mapping[str, str]) -> Table:
    right = ("n", "clean", "worst")
    columns = ("n", "when (UTC)", "what", "from, to", "who and why", "clean", "worst")
    ledger = table(f"{model}: ledger", *columns, right=right, whole=("when (UTC)", "from, to"))
    for entry in entries:
        figures = (entry.figures.get(f"challenger/{name}") for name in ("strict/clean", "worst"))
        owner = owners.get(entry.to_version, "")
        told = f"{entry.who}{f' (owner {owner})' if owner else ''}: {entry.why}"
        ledger.add_row(
            str(entry.number),
            when(entry.when),
            f"{entry.action} {entry.kind}",
            f"{entry.from_version or 'none'} -> {entry.to_version}",
            told,
            *("" if value is None else f"{100 * value:.1f}" for value in figures),
        )
    return ledger


def decided(promoter: Promoter, version: str) -> Decision:
    """The newest decision about a version that the ledger holds."""
    there = registered(promoter.uri, promoter.model, version)
    for entry in reversed(promoter.ledger.entries()):
        # Not of another artifact that had this number in a registry that was deleted since.
        about = there is None or there.same(Leader(entry.to_version, entry.challenger_sha256))
        if entry.to_version == version and entry.decision_sha256 and about:
            text = promoter.ledger.file(entry, "decision.json")
            if text is not None:
                return Decision.model_validate_json(text)
    raise PromotionError(
        f"no gate has judged version {version} of {promoter.model}; run its campaign again, or give --force --why TEXT"
    )


def _forced(promoter: Promoter, version: str) -> Decision:
    """A decision that nobody made but the person who forces it: against whoever leads now."""
    found = registry.get_version(promoter.uri, version, promoter.model)
    if found is None:
        raise PromotionError(f"{promoter.model} has no version {version}; MLflow's page of it shows which there are")
    leading = registry.get_champion(promoter.uri, promoter.model)
    settings = PromotionSettings().gate
    return Decision(
        model=promoter.model,
        challenger=version,
        challenger_sha256=found[1].get(ARTIFACT_SHA_TAG, ""),
        champion=leading[0] if leading else "",
        champion_sha256=leading[1].get(ARTIFACT_SHA_TAG, "") if leading else "",
        promote=False,
        reason="forced by hand",
        alpha=settings.alpha,
        settings=settings,
        figures=registry.gate_figures(found[1]),
    )
