"""Which edition of a series is to run, and what it begins with.

    asked for: "next", a number, or a slot --find--> the plan that stands in the book, or a new one, pinned and entered

A plan is made once. What it names is pinned by content: a promotion while the edition runs changes nothing, and a run
that starts again, late or elsewhere, is the same edition. Only where the store has lost what an unfinished edition pins
is the plan changed: a lost bank must not block the series.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from aot_core.contracts.artifact import ArtifactRef, ExternalRef
from aot_core.contracts.base import sha256_of
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.series import EditionPlan, SeriesSettings
from aot_core.contracts.terminal import counted
from aot_core.series.book import Edition, SeriesBook, series_in
from aot_core.store.protocol import Store
from aot_core.tracking import registry
from aot_core.tracking.mlflow_tracking import ARTIFACT_SHA_TAG, ARTIFACT_URI_TAG

NEXT = "next"
_SEEDS = 1_000_000
_LONGEST_LINEAGE = 100
BEGUN_FROM_TAG = f"{registry.LINEAGE_TAG}begun_from"
"""A version's tag: `version 5`, `edition 4`, or the base's name."""


class SeriesError(ValueError):
    """An edition that cannot be planned. The message says why, and what to do."""


@dataclass(frozen=True)
class Surroundings:
    """What an edition's beginning is looked up in."""

    store: Store
    mlflow_uri: str
    attacker_base: ExternalRef
    defender_base: ExternalRef
    source: ExternalRef | None = None
    """`source_folder`, pinned; None for drawn scenes."""


def find_edition(config: CampaignConfig, asked: str, where: Surroundings) -> CampaignConfig:
    """The config of the edition asked for, its plan in it; a new edition is planned and entered into the book.

    Args:
        config: with a `[series]`.
        asked: "next" (the last edition where it has not ended, else a new one), an edition's number, or the slot that
            it was or should have been scheduled for (ISO 8601; UTC unless it says otherwise).

    Raises SeriesError where there is no such edition, or where it cannot begin as the config says.
    """
    settings = config.series
    if settings is None:
        raise SeriesError(
            'the config has no [series], so it has no editions; add one ([series] name = "..."), or leave --edition out'
        )
    book = SeriesBook(where.store, settings.name)
    with book.lock():
        known = book.editions()
        plan = _planned(config, settings, known, asked, where)
        if plan not in [edition.plan for edition in known]:
            book.write_plan(plan)
    return config.model_copy(update={"edition": plan})


def preview_edition(config: CampaignConfig, asked: str, where: Surroundings) -> CampaignConfig:
    """As `find_edition`, but nothing is entered into the book: what would run now. Raises SeriesError."""
    assert config.series is not None, "only a series has editions"
    known = SeriesBook(where.store, config.series.name).editions()
    return config.model_copy(update={"edition": _planned(config, config.series, known, asked, where)})


def unfinished(book: SeriesBook, before: int) -> list[EditionPlan]:
    """The editions before a number that were planned and have no end, the oldest first."""
    return [edition.plan for edition in book.editions() if edition.end is None and edition.plan.number < before]


def number_of(book: SeriesBook, asked: str) -> int:
    """The number of the edition asked for, or the one that it would be given. Raises SeriesError (`find_edition`)."""
    known = book.editions()
    plan = _known(known, asked, book.series)
    return len(known) + 1 if plan is None else plan.number


def slot_of(text: str) -> str:
    """A scheduled start as a plan keeps it: UTC, ISO 8601, to the minute. Raises SeriesError for no date and time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SeriesError(
            f"--edition {text!r} is no edition; give next, a number, or a scheduled start such as 2026-11-27T20:00"
        ) from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%MZ")


def _known(known: list[Edition], asked: str, series: str) -> EditionPlan | None:
    """The plan that is asked for, None where a new one is."""
    if asked == NEXT:
        return known[-1].plan if known and known[-1].end is None else None
    if asked.isdecimal():
        number = int(asked)
        if 1 <= number <= len(known):
            return known[number - 1].plan
        if number == len(known) + 1:
            return None
        raise SeriesError(
            f"--edition {asked}: series {series!r} has {len(known) or 'no'} editions, so the next is "
            f"{len(known) + 1}; ask for that one, or for `next`"
        )
    slot = slot_of(asked)
    return next((edition.plan for edition in known if edition.plan.slot == slot), None)


def _planned(
    config: CampaignConfig, settings: SeriesSettings, known: list[Edition], asked: str, where: Surroundings
) -> EditionPlan:
    """The plan in the book, without what the store has lost since; or a new one."""
    plan = _known(known, asked, settings.name)
    if plan is None:
        slot = "" if asked == NEXT or asked.isdecimal() else slot_of(asked)
        return _plan(config, settings, known, slot, where)
    return plan if known[plan.number - 1].end is not None else _without_lost(plan, settings, known, where)


def _without_lost(
    plan: EditionPlan, settings: SeriesSettings, known: list[Edition], where: Surroundings
) -> EditionPlan:
    """The plan of an unfinished edition without the artifacts that the store has lost; the same plan where it has lost
    none.

    Raises SeriesError where the Defender or the Attacker that it begins with is lost: with another one it would be
    another edition.
    """
    for what, ref in (("Defender", plan.defender), ("Attacker", plan.attacker)):
        if ref is not None and not _is_there(ref, where.store):
            raise SeriesError(
                f"edition {plan.number} was planned to begin with the {what} {ref.uri}, which is not in this store, or "
                f"is damaged; restore it from a backup, or plan the next edition with --edition {len(known) + 1}"
            )
    ended = [edition for edition in known[: plan.number - 1] if edition.end is not None]
    told: list[str] = []
    changes: dict[str, object] = {}
    if plan.bank is not None and not _is_there(plan.bank, where.store):
        changes["bank"] = _bank(settings, ended, where, told)
    if plan.reference is not None and not _is_there(plan.reference, where.store):
        changes["reference"] = _reference(ended, plan.defender_version, where, told)
    if plan.previous is not None and not _is_there(plan.previous, where.store):
        changes["previous"] = _data("the last edition's", ended[::-1], where, told)
    if plan.exam is not None and not _is_there(plan.exam, where.store):
        changes["exam"] = _data("the fixed exam's", ended, where, told)
    met = tuple(uri for uri in plan.pool if where.store.find("attacker_round", uri.rpartition("/")[2]) is not None)
    if met != plan.pool:
        changes["pool"] = met
        lost = counted(len(plan.pool) - len(met), "Attacker")
        told.append(f"gone or damaged, and not met: {lost} of earlier editions")
    if not changes:
        return plan
    told.append("the plan of this edition was changed accordingly")
    return plan.model_copy(update={**changes, "told": (*plan.told, *told)})


def _plan(
    config: CampaignConfig, settings: SeriesSettings, known: list[Edition], slot: str, where: Surroundings
) -> EditionPlan:
    number = len(known) + 1
    told: list[str] = []
    if not known and (others := series_in(where.store)):
        listed = ", ".join(f"{name!r} ({counted(count, 'edition')})" for name, count in sorted(others.items()))
        told.append(f"series {settings.name!r} is new here and begins with edition 1; this store also holds {listed}")
    slots = [edition.plan.slot for edition in known if edition.plan.slot]
    if slot and slots and slot < max(slots):
        told.append(f"slot {slot} is before the newest ({max(slots)}): it is made up for as edition {number}")
    ended = [edition for edition in known if edition.end is not None]
    _same_photographs(config, ended, where)
    defender, version, lineage = _defender(config, settings, ended, where, told)
    return EditionPlan(
        series=settings.name,
        number=number,
        slot=slot,
        seed=int(sha256_of({"series": settings.name, "seed": config.seed, "edition": number})[:12], 16) % _SEEDS,
        defender=defender,
        defender_version=version,
        lineage=lineage,
        attacker=_attacker(settings.attacker, ended, where, told),
        pool=_pool(settings, ended),
        bank=_bank(settings, ended, where, told),
        reference=_reference(ended, version, where, told),
        previous=_data("the last edition's", ended[::-1], where, told) if config.prepare_data.growing else None,
        exam=_data("the fixed exam's", ended, where, told),
        told=tuple(told),
    )


def _defender(
    config: CampaignConfig, settings: SeriesSettings, ended: list[Edition], where: Surroundings, told: list[str]
) -> tuple[ArtifactRef | None, str, tuple[str, ...]]:
    """The Defender that an edition begins with, its version, and where it comes from."""
    base = where.defender_base.name
    if settings.defender == "base":
        return None, "", (base,)
    if settings.defender == "champion":
        leading = registry.get_champion(where.mlflow_uri, config.promotion.model)
        if leading is None:
            told.append(f"{config.promotion.model} has no champion yet: the edition begins from the base")
            return None, "", (base,)
        version, tags = leading
        if ended and ended[-1].end and not ended[-1].end.promoted:
            told.append(
                f"edition {ended[-1].plan.number} was {ended[-1].end.outcome}; this one begins from version {version}, "
                "the champion"
            )
        return (
            _champion(config, version, tags, where),
            version,
            (f"version {version}", *_ancestors(config, tags, where)),
        )
    last = next((edition for edition in reversed(ended) if edition.end and edition.end.defender), None)
    if last is None or last.end is None or last.end.defender is None:
        told.append("no edition has ended with a Defender yet: this one begins from the base")
        return None, "", (base,)
    _must_be_there(last.end.defender, f"the Defender of edition {last.plan.number}", where.store)
    name = f"edition {last.plan.number}"
    known = (
        registry.get_version(where.mlflow_uri, last.end.version, config.promotion.model) if last.end.version else None
    )
    return last.end.defender, last.end.version, (name, *(_ancestors(config, known[1], where) if known else (base,)))


def _champion(config: CampaignConfig, version: str, tags: Mapping[str, str], where: Surroundings) -> ArtifactRef:
    """The champion's artifact. Raises SeriesError where it belongs to another base, or is not in the store."""
    model = config.promotion.model
    if not {ARTIFACT_URI_TAG, ARTIFACT_SHA_TAG, registry.BASE_TAG} <= set(tags):
        raise SeriesError(
            f"champion {model} {version} names no artifact, so no edition can begin from it; promote a version that a "
            'campaign has registered, or set series.defender = "base"'
        )
    name, _, sha256 = tags.get(f"{registry.LINEAGE_TAG}base", tags[registry.BASE_TAG]).partition(" ")
    mine = where.defender_base
    if (sha256 and mine.sha256 and sha256 != mine.sha256) or (not sha256 and name != mine.name):
        raise SeriesError(
            f"champion {model} {version} was trained from {name!r} ({sha256[:12] or 'no hash'}), and models.defender "
            f"is {mine.name!r} ({mine.sha256[:12] or 'no hash'}); name that base, register under another "
            'promotion.model, or set series.defender = "base"'
        )
    champion = ArtifactRef(uri=tags[ARTIFACT_URI_TAG], sha256=tags[ARTIFACT_SHA_TAG])
    _must_be_there(champion, f"champion {model} {version}", where.store)
    return champion


def _ancestors(config: CampaignConfig, tags: Mapping[str, str], where: Surroundings) -> tuple[str, ...]:
    """Where a version comes from, its nearest ancestor first, the base last."""
    found: list[str] = []
    while len(found) < _LONGEST_LINEAGE:
        parent = tags.get(BEGUN_FROM_TAG, tags.get(registry.BASE_TAG, ""))
        if not parent:
            break
        found.append(parent)
        version = re.fullmatch(r"version (\d+)", parent)
        above = registry.get_version(where.mlflow_uri, version[1], config.promotion.model) if version else None
        if above is None:
            break
        tags = above[1]
    return tuple(found)


def _attacker(
    rule: Literal["fresh", "warm_start", "newest"], ended: list[Edition], where: Surroundings, told: list[str]
) -> ArtifactRef | None:
    if rule == "fresh":
        return None
    if rule == "warm_start":
        found = [edition.end.warm_attacker for edition in ended if edition.end and edition.end.warm_attacker][:1]
    else:
        found = [edition.end.attackers[-1] for edition in ended if edition.end and edition.end.attackers][-1:]
    if not found:
        told.append(f'series.attacker = "{rule}": no edition has left one yet, so this one makes its own warm start')
        return None
    _must_be_there(found[0], "the Attacker that the edition begins with", where.store)
    _same_attacker_base(found[0], where)
    return found[0]


def _pool(settings: SeriesSettings, ended: list[Edition]) -> tuple[str, ...]:
    """The Attackers of earlier editions, the oldest first, as many as the rule looks at."""
    rule = settings.pool
    if rule.rule == "none":
        return ()
    attackers = [attacker.uri for edition in ended if edition.end for attacker in edition.end.attackers]
    return tuple(attackers[-(rule.count if rule.rule == "newest" else max(rule.count, rule.candidates)) :])


def _bank(settings: SeriesSettings, ended: list[Edition], where: Surroundings, told: list[str]) -> ArtifactRef | None:
    """The newest bank that is there; one that is gone is said, and the one before it taken."""
    if not settings.bank:
        return None
    for edition in reversed(ended):
        if edition.end is None or edition.end.bank is None:
            continue
        if _is_there(edition.end.bank, where.store):
            return edition.end.bank
        told.append(f"the bank of edition {edition.plan.number} is gone or damaged: an earlier one is taken")
    return None


def _reference(ended: list[Edition], version: str, where: Surroundings, told: list[str]) -> ArtifactRef | None:
    """The data set of the edition that a version came of."""
    made = [edition for edition in reversed(ended) if edition.end and version and edition.end.version == version]
    return _data("the champion's", made[:1], where, told)


def _data(whose: str, editions: list[Edition], where: Surroundings, told: list[str]) -> ArtifactRef | None:
    """The data set of the first of these editions that has one; one that is gone is said, and the next one taken."""
    for edition in editions:
        if edition.end is None or edition.end.dataset is None:
            continue
        if _is_there(edition.end.dataset, where.store):
            return edition.end.dataset
        told.append(f"{whose} data set, of edition {edition.plan.number}, is gone or damaged, and is done without")
    return None


def _same_photographs(config: CampaignConfig, ended: list[Edition], where: Surroundings) -> None:
    """Raises SeriesError where other photographs would be dealt to the splits anew: what an earlier edition was taught
    could then be asked in a later one's exam."""
    last = ended[-1].end if ended else None
    if where.source is None or config.prepare_data.growing or last is None or last.dataset is None:
        return
    record = where.store.find("prepare_data", last.dataset.uri.rpartition("/")[2])
    if record is None or record.identity.inputs.get("source") in (None, where.source.sha256):
        return
    raise SeriesError(
        f"source_folder {where.source.name} has changed since edition {last.number}; without prepare_data.growing its "
        "photographs would be dealt to the splits anew, and what one edition was taught could be asked in the next "
        "one's exam. Set prepare_data.growing = true, or begin another series (series.name)"
    )


def _same_attacker_base(attacker: ArtifactRef, where: Surroundings) -> None:
    stage, key = attacker.uri.removeprefix("aot://").split("/")
    record = where.store.find(stage, key)
    assert record is not None, "it has just been found"
    base = record.identity.inputs.get("attacker_base") or record.identity.inputs.get("base")
    mine = where.attacker_base.sha256 or where.attacker_base.name
    if base != mine:
        raise SeriesError(
            f"the Attacker that the edition would begin with was trained from another base ({str(base)[:12]}) than "
            f'models.attacker ({mine[:12]}); name that base, or set series.attacker = "fresh"'
        )


def _must_be_there(ref: ArtifactRef, what: str, store: Store) -> None:
    if not _is_there(ref, store):
        raise SeriesError(
            f"{what} ({ref.uri}) is not in this store, or is damaged; restore it from a backup, or name the store that "
            "has it with --store"
        )


def _is_there(ref: ArtifactRef, store: Store) -> bool:
    stage, key = ref.uri.removeprefix("aot://").split("/")
    record = store.find(stage, key)
    return record is not None and record.artifact.sha256 == ref.sha256
