"""Moving the `champion` alias so that it never points at a model that does not answer, and so that it is known who did.

    lock -> recover -> is the decision still about today's champion? -> smoke test of the version
         -> ledger: intent -> alias moves -> smoke test through the alias -> ledger: done (or alias back, undone)
         -> unlock -> whoever is to be told of the entries

The alias moves by one call, and only to a version that has just answered, so wherever a process dies the alias points
at a model that loads. What was left open is settled by whoever takes the lock next (`recover`): the ledger's last word
is then again where the alias points. Others are told without the lock: a receiver that is slow or down keeps nobody
from the ledger.
"""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from aot_core.contracts.promotion import Decision, LedgerAction, LedgerEntry, LedgerKind
from aot_core.promotion.leaders import Leader, champion, has_led, leaders, registered, resolve, rolled_back
from aot_core.promotion.remedy import remedy
from aot_core.store.ledger import Ledger
from aot_core.tracking import registry
from aot_core.tracking.smoke import SmokeError
from aot_core.tracking.story import user


class PromotionError(ValueError):
    """A promotion or rollback that may not be. The message says why, and what to do."""


class StaleDecisionError(PromotionError):
    """Somebody else leads by now."""


class Smoke(Protocol):
    """`aot_core.tracking.smoke.SmokeTest`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def check(self, address: str) -> str: ...


def whoami() -> str:
    """`AOT_ACTOR` where it is set (a service account's name), else user@machine."""
    return os.environ.get("AOT_ACTOR") or f"{user()}@{socket.gethostname()}"


@dataclass(frozen=True)
class Promoter:
    """Everything that moves the alias of one registered model."""

    uri: str
    """MLflow's."""
    ledger: Ledger
    smoke: Callable[[], Smoke]
    who: str = field(default_factory=whoami)
    notify: Callable[[LedgerEntry], None] = lambda _: None
    """Told of every entry after it stands in the ledger and the lock is let go, in the ledger's order. A process that
    is killed in between tells nobody of its last entry; an intent is told by whoever settles it (`recover`), so perhaps
    twice."""
    step: Callable[[str], None] = lambda _: None
    """Called between the steps: where tests kill the process."""
    _owed: list[LedgerEntry] = field(default_factory=list[LedgerEntry], init=False, repr=False, compare=False)
    """What was written under the present lock, for `notify`."""

    @property
    def model(self) -> str:
        return self.ledger.model

    def champion(self) -> str:
        """The version that leads, "" where none does."""
        found = champion(self.uri, self.model)
        return found.version if found else ""

    def promote(self, decision: Decision, why: str, action: LedgerAction = "promote") -> LedgerEntry | None:
        """Make the decision's challenger the champion. None where it leads already.

        Raises StaleDecisionError where another champion leads than the one that it was compared with, PromotionError
        where the gate refused or the version was rolled back before, SmokeError where it does not answer.
        """
        with self._held():
            self._recover()
            if self.champion() == decision.challenger:
                return None
            self._may(decision, action)
            return self._move(
                action,
                decision.champion,
                decision.challenger,
                why,
                files={"decision.json": decision.model_dump_json(indent=1)},
                challenger_sha256=decision.challenger_sha256,
                champion_sha256=decision.champion_sha256,
                figures=decision.figures,
                decision_sha256=decision.sha256,
            )

    def rollback(self, to: str | None, why: str) -> LedgerEntry:
        """Restore an earlier champion: `to`, or the one that led before the current one and was not rolled back
        itself.

        Raises PromotionError where there is none, it is gone, never led, or leads already; SmokeError where it does not
        answer, and then nothing has moved.
        """
        with self._held():
            self._recover()
            leading = champion(self.uri, self.model)
            target = to or self._before(leading)
            found = registered(self.uri, self.model, target)
            if found is None:
                raise PromotionError(f"{self.model} has no version {target}; `aot history` shows which there are")
            if leading is not None and target == leading.version:
                raise PromotionError(f"version {target} leads already; name another one with --to")
            if not has_led(self.ledger.entries(), found):
                raise PromotionError(
                    f"version {target} never led, so there is nothing to go back to: `aot promote --version {target}` "
                    "promotes it if it passed the gate; --force --why TEXT overrides the gate"
                )
            _, tags = registry.get_version(self.uri, target, self.model) or ("", {})
            return self._move(
                "rollback",
                leading.version if leading else "",
                target,
                why,
                challenger_sha256=found.sha256,
                champion_sha256=leading.sha256 if leading else "",
                figures=registry.gate_figures(tags),
            )

    def note(
        self,
        kind: LedgerKind,
        decision: Decision,
        why: str,
        files: Mapping[str, str] | None = None,
        who: str | None = None,
    ) -> LedgerEntry | None:
        """Write what became of a decision without a move (refused, proposed, declined, expired).

        None where the ledger says the same of this decision already: an orchestrator that starts again does not repeat
        itself.
        """
        with self._held():
            about = [e for e in self.ledger.entries() if e.decision_sha256 == decision.sha256]
            if any(entry.kind == kind for entry in about):
                return None
            return self._append(
                kind,
                "promote",
                decision.champion,
                decision.challenger,
                why,
                files={"decision.json": decision.model_dump_json(indent=1), **(files or {})},
                who=who,
                challenger_sha256=decision.challenger_sha256,
                champion_sha256=decision.champion_sha256,
                figures=decision.figures,
                decision_sha256=decision.sha256,
            )

    def recover(self) -> LedgerEntry | None:
        """Settle what a killed process left open; what was written for it, None where nothing was open."""
        with self._held():
            return self._recover()

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the ledger, and tell of what was written once others may have it again, whatever was raised."""
        try:
            with self.ledger.lock():
                yield
        finally:
            owed = [*self._owed]
            self._owed.clear()
            for entry in owed:
                self.notify(entry)

    def _may(self, decision: Decision, action: LedgerAction) -> None:
        leading = champion(self.uri, self.model) or Leader("", "")
        if not leading.same(Leader(decision.champion, decision.champion_sha256)):
            raise StaleDecisionError(
                f"version {decision.challenger} was compared with {_named(decision.champion)}, and by now "
                f"{_named(leading.version)} leads; run its campaign again, which compares the two"
            )
        challenger = Leader(decision.challenger, decision.challenger_sha256)
        there = registered(self.uri, self.model, decision.challenger)
        if there is not None and not there.same(challenger):
            raise StaleDecisionError(
                f"version {decision.challenger} is another artifact by now than the one that was judged: the registry "
                "was recreated; run its campaign again"
            )
        if action == "force":
            return
        if not decision.promote:
            told = "; ".join(filter(None, (decision.reason, remedy(decision))))
            raise PromotionError(
                f"the gate refused version {decision.challenger}: {told}. `--force --why TEXT` overrides the gate"
            )
        undone = rolled_back(self.ledger.entries(), challenger)
        if undone is not None:
            raise PromotionError(
                f"version {decision.challenger} was rolled back ({undone.when}, {undone.who}: {undone.why}); "
                "`--force --why TEXT` promotes it again"
            )

    def _move(
        self,
        action: LedgerAction,
        from_version: str,
        to_version: str,
        why: str,
        files: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> LedgerEntry:
        with self.smoke() as smoke:
            self.step("begun")
            try:
                smoke.check(f"models:/{self.model}/{to_version}")
            except SmokeError as error:
                self._append("refused", action, from_version, to_version, f"smoke test: {error}", files, **fields)
                raise
            self.step("answered")
            self._append("intent", action, from_version, to_version, why, files, **fields)
            self.step("intended")
            registry.set_alias(self.uri, registry.CHAMPION, to_version, self.model)
            self.step("moved")
            try:
                smoke.check(f"models:/{self.model}@{registry.CHAMPION}")
            except SmokeError as error:
                self._back(from_version)
                self.step("moved back")
                told = f"smoke test after the move: {error}"
                self._append("undone", action, from_version, to_version, told, **fields)
                raise
            self.step("answered again")
            return self._done(action, from_version, to_version, why, **fields)

    def _done(self, action: LedgerAction, from_version: str, to_version: str, why: str, **fields: Any) -> LedgerEntry:
        # The entry comes last: once it stands, nobody looks for what was left to do.
        challenger = registry.get_alias(self.uri, registry.CHALLENGER, self.model)
        if challenger is not None and challenger[0] == to_version:
            registry.remove_alias(self.uri, registry.CHALLENGER, self.model)
        entry = self._append("done", action, from_version, to_version, why, **fields)
        self.step("done")
        return entry

    def _back(self, version: str) -> None:
        if version:
            registry.set_alias(self.uri, registry.CHAMPION, version, self.model)
        else:
            registry.remove_alias(self.uri, registry.CHAMPION, self.model)

    def _recover(self) -> LedgerEntry | None:
        known = self.ledger.entries()
        if not known or known[-1].kind != "intent":
            return None
        last = known[-1]
        self._owed.append(last)  # its process died before it told anybody
        fields = last.model_dump(include={"challenger_sha256", "champion_sha256", "figures", "decision_sha256"})
        what = (last.action, last.from_version, last.to_version)
        if self.champion() != last.to_version:
            told = f"its process died, and the alias is where it was: {_named(self.champion())} leads"
            return self._append("abandoned", *what, told, **fields)
        with self.smoke() as smoke:
            try:
                smoke.check(f"models:/{self.model}@{registry.CHAMPION}")
            except SmokeError as error:
                self._back(last.from_version)
                return self._append("undone", *what, f"its process died, and afterwards: {error}", **fields)
        return self._done(*what, f"{last.why} (its process died after the move; settled later)", **fields)

    def _before(self, leading: Leader | None) -> str:
        """The registry's number of the version that led before; the ledger's last leader counts where nothing leads."""
        led = leaders(self.ledger.entries())
        now = led[-1:] if leading is None else [one for one in led if one.same(leading)]
        earlier = led[: led.index(now[-1])] if now else []
        if leading is None and now:
            there = resolve(self.uri, self.model, now[-1])
            if there is not None:
                raise PromotionError(
                    f"nothing leads, and by the ledger version {there} does: its alias was removed by other means; "
                    f"--to {there} restores it, --to another version goes back to that one"
                )
        if not earlier:
            told = _named(leading.version if leading else now[-1].version if now else "")
            raise PromotionError(
                f"the ledger knows of no version that led before {told} and was not rolled back; name one with --to"
            )
        before = resolve(self.uri, self.model, earlier[-1])
        if before is None:
            rest = [number for one in earlier[:-1] if (number := resolve(self.uri, self.model, one))]
            others = f"an earlier one ({', '.join(rest)}) with --to" if rest else "one with `aot promote`"
            raise PromotionError(
                f"version {earlier[-1].version}, which led before, is gone from MLflow's registry; choose {others}"
            )
        return before

    def _append(
        self,
        kind: LedgerKind,
        action: LedgerAction,
        from_version: str,
        to_version: str,
        why: str,
        files: Mapping[str, str] | None = None,
        who: str | None = None,
        **fields: Any,
    ) -> LedgerEntry:
        entry = self.ledger.append(
            files,
            kind=kind,
            action=action,
            from_version=from_version,
            to_version=to_version,
            who=who or self.who,
            why=why,
            **fields,
        )
        registry.show_ledger(self.uri, {f"{e.number:04d}": line(e) for e in self.ledger.entries()}, self.model)
        self._owed.append(entry)
        return entry


def line(entry: LedgerEntry) -> str:
    """An entry in a line, for people."""
    moved = f"{entry.from_version or 'none'} -> {entry.to_version}"
    return f"{entry.when} {entry.action} {entry.kind}: {moved} by {entry.who}: {entry.why}"


def attempt_number(entries: list[LedgerEntry], challenger_sha256: str, champion_sha256: str) -> int:
    """1-based index of this challenger among its champion's; one that was judged before keeps its number."""
    met = dict.fromkeys(
        entry.challenger_sha256
        for entry in entries
        if entry.decision_sha256 and entry.champion_sha256 == champion_sha256 and entry.challenger_sha256
    )
    order = list(met)
    return order.index(challenger_sha256) + 1 if challenger_sha256 in met else len(order) + 1


def _named(version: str) -> str:
    return f"version {version}" if version else "no version"
