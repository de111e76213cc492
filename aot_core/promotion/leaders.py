"""Who led, by the ledger: versions by their number and their artifact's hash, so that a registry that was deleted and
made anew, and numbers its versions from 1 again, is not taken for the old one."""

from collections.abc import Sequence
from typing import NamedTuple

from aot_core.contracts.promotion import LedgerEntry
from aot_core.tracking import registry
from aot_core.tracking.mlflow_tracking import ARTIFACT_SHA_TAG


class Leader(NamedTuple):
    """A version as the ledger or the registry knows it."""

    version: str
    sha256: str
    """Of its artifact; empty where an early ledger, or a version registered by hand, does not say."""

    def same(self, other: "Leader") -> bool:
        """By the hash where both have one, else by the number."""
        return self.sha256 == other.sha256 if self.sha256 and other.sha256 else self.version == other.version


def leaders(entries: Sequence[LedgerEntry]) -> list[Leader]:
    """Who led and was not rolled back, the earliest first, whoever leads now last.

    A rollback takes those away that led after the one that it goes back to, so the next one goes further back.
    """
    led: list[Leader] = []
    for entry in entries:
        if entry.kind != "done":
            continue
        now = Leader(entry.to_version, entry.challenger_sha256)
        known = [index for index, one in enumerate(led) if one.same(now)]
        if entry.action == "rollback" and known:
            led = led[: known[-1]]
        led.append(now)
    return led


def has_led(entries: Sequence[LedgerEntry], version: Leader) -> bool:
    """Whether it ever led, also if it was rolled back since."""
    return any(
        entry.kind == "done" and Leader(entry.to_version, entry.challenger_sha256).same(version) for entry in entries
    )


def rolled_back(entries: Sequence[LedgerEntry], version: Leader) -> LedgerEntry | None:
    """The last rollback that took the alias from a version; None where there is none."""
    found: LedgerEntry | None = None
    leading: Leader | None = None
    for entry in entries:
        if entry.kind != "done":
            continue
        if entry.action == "rollback":
            before = Leader(entry.from_version, entry.champion_sha256)
            if not before.sha256 and leading is not None and leading.version == before.version:
                before = leading  # an early ledger's rollback names the number alone
            if before.same(version):
                found = entry
        leading = Leader(entry.to_version, entry.challenger_sha256)
    return found


def registered(uri: str, model: str, version: str) -> Leader | None:
    """A version as the registry has it, None where it has none of that number."""
    found = registry.get_version(uri, version, model) if version else None
    return Leader(found[0], found[1].get(ARTIFACT_SHA_TAG, "")) if found else None


def champion(uri: str, model: str) -> Leader | None:
    """Where the alias points."""
    found = registry.get_champion(uri, model)
    return Leader(found[0], found[1].get(ARTIFACT_SHA_TAG, "")) if found else None


def resolve(uri: str, model: str, leader: Leader) -> str | None:
    """The number that the registry has it under today; None where it is gone."""
    there = registered(uri, model, leader.version)
    if there is not None and there.same(leader):
        return there.version
    return registry.find_version(uri, leader.sha256, model) if leader.sha256 else None


def discrepancy(uri: str, model: str, entries: Sequence[LedgerEntry]) -> str:
    """How the alias and the ledger differ, and the way out; "" where they agree, or a promotion is under way."""
    led, pointed = leaders(entries), champion(uri, model)
    if entries and entries[-1].kind == "intent":
        return ""
    if not led:
        if pointed is None:
            return ""
        return (
            f"{model}: the alias points at version {pointed.version}, and by the ledger nothing ever led: it was set "
            "by other means; remove it on MLflow's pages, and set it with `aot promote`"
        )
    by_ledger = led[-1]
    if pointed is not None and pointed.same(by_ledger):
        return ""
    today = resolve(uri, model, by_ledger)
    if today is None:
        gone = f"{model}: version {by_ledger.version}, which leads by the ledger, is gone from MLflow's registry"
        now = f"the alias points at version {pointed.version}" if pointed else "nothing leads"
        return f"{gone}, and {now}; `aot rollback --to VERSION` restores an earlier champion"
    now = f"the alias points at version {pointed.version}" if pointed else "the alias is gone"
    return (
        f"{model}: by the ledger version {today} leads, and {now}: it was moved by other means; "
        f"`aot rollback --to {today} --why TEXT` puts it back"
    )
