"""Which edition runs and what it begins with: on a real store and a real registry, with artifacts of a few bytes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from aot_core.contracts.artifact import ArtifactRef, ExternalRef, RecordName, StageIdentity, StageRecord
from aot_core.contracts.base import sha256_of
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.series import EditionEnd, EditionPlan
from aot_core.series.book import SeriesBook, series_in
from aot_core.series.planning import (
    BEGUN_FROM_TAG,
    SeriesError,
    Surroundings,
    find_edition,
    number_of,
    preview_edition,
    slot_of,
    unfinished,
)
from aot_core.store import LocalStore
from aot_core.store.gc import find_garbage

BASE = ExternalRef(name="aot-tiny-vl", sha256="b" * 64)
EDITOR = ExternalRef(name="aot-tiny-edit", sha256="e" * 64)


@dataclass
class World:
    """A store, a registry, and a way to ask for editions."""

    where: Surroundings
    scratch: Path

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.where.mlflow_uri, registry_uri=self.where.mlflow_uri)

    def ask(self, asked: str = "next", **series: Any) -> EditionPlan:
        config = CampaignConfig.model_validate({"name": "c", "seed": 3, "series": {"name": "weekly", **series}})
        plan = find_edition(config, asked, self.where).edition
        assert plan is not None
        return plan

    def artifact(self, stage: RecordName, name: str, **inputs: Any) -> ArtifactRef:
        """An artifact that holds its own name."""
        key = sha256_of({"artifact": name})
        folder = self.scratch / name
        folder.mkdir()
        (folder / "name").write_text(name)
        ref = self.where.store.put(stage, key, folder)
        identity = StageIdentity(stage=stage, version=1, config={}, inputs=inputs)
        record = StageRecord(
            stage=stage, key=key, identity=identity, artifact=ref, outputs={}, seconds=1.0, device="cpu", git_commit="",
            image_digest="", packages={}, started_at="2020-01-01T00:00:00+00:00",
        )  # fmt: skip
        self.where.store.seal(record)
        return ref

    def end(self, plan: EditionPlan, **fields: Any) -> EditionEnd:
        end = EditionEnd(number=plan.number, campaign="k", outcome="promoted: test", **fields)
        SeriesBook(self.where.store, "weekly").write_end(end)
        return end

    def champion(self, defender: ArtifactRef, base: ExternalRef = BASE, **tags: str) -> str:
        """A registered version of an artifact, with the alias."""
        if not self.client.search_registered_models("name = 'aot-defender'"):
            self.client.create_registered_model("aot-defender")
        told = {
            "aot.artifact_uri": defender.uri,
            "aot.artifact_sha256": defender.sha256,
            "aot.base": base.name,
            "aot.lineage.base": f"{base.name} {base.sha256}",
            **tags,
        }
        made = self.client.create_model_version("aot-defender", source=str(self.scratch), tags=told)
        self.client.set_registered_model_alias("aot-defender", "champion", str(made.version))
        return str(made.version)


@pytest.fixture
def world(tmp_path: Path) -> World:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    where = Surroundings(LocalStore(tmp_path / "store"), uri, EDITOR, BASE)
    (tmp_path / "scratch").mkdir()
    return World(where, tmp_path / "scratch")


def test_next_goes_on_with_what_has_not_ended_and_then_plans_another(world: World) -> None:
    first = world.ask()
    assert (first.number, first.defender, first.lineage) == (1, None, ("aot-tiny-vl",))
    assert world.ask() == first, "it has not ended: the same edition, to the letter"
    world.end(first)
    second = world.ask()
    assert second.number == 2 and second.seed != first.seed
    assert world.ask("1") == first, "one that has ended is found again by its number"
    with pytest.raises(SeriesError, match="has 2 editions, so the next is 3"):
        world.ask("4")
    with pytest.raises(SeriesError, match="is no edition; give next, a number, or a scheduled start"):
        world.ask("tomorrow")


def test_a_slot_is_one_edition_however_late_its_run(world: World) -> None:
    friday = world.ask("2026-11-27T20:00:00+00:00")
    assert friday.slot == "2026-11-27T20:00Z"
    assert world.ask("2026-11-27T21:00:14.5+01:00") == friday, "the same moment, told by another zone's clock"
    next_friday = world.ask("2026-12-04T20:00")
    assert next_friday.number == 2
    missed = world.ask("2026-11-20T20:00")
    assert missed.number == 3 and "before the newest" in missed.told[0], "a slot that was missed is made up for"
    book = SeriesBook(world.where.store, "weekly")
    world.end(next_friday)
    assert unfinished(book, before=4) == [friday, missed]


def test_editions_are_reproducible(world: World, tmp_path: Path) -> None:
    other = World(
        Surroundings(LocalStore(tmp_path / "other"), world.where.mlflow_uri, EDITOR, BASE), tmp_path / "scratch"
    )
    assert world.ask() == other.ask(), "planned elsewhere from the same surroundings, it is the same edition"


def test_it_begins_with_the_champion_pinned_while_it_runs(world: World) -> None:
    ancestor, heir = world.artifact("defender_round", "ancestor"), world.artifact("defender_round", "heir")
    data = world.artifact("prepare_data", "data")
    first = world.ask()
    assert "no champion yet" in first.told[0]
    old = world.champion(ancestor)
    world.end(first, version=old, dataset=data)
    plan = world.ask()
    assert (plan.defender, plan.defender_version) == (ancestor, old)
    assert (plan.reference, plan.exam) == (data, data), "what drift is measured from, and the fixed exam"
    new = world.champion(heir, **{BEGUN_FROM_TAG: f"version {old}"})
    assert world.ask() == plan, "a promotion in mid-edition changes nothing"
    world.end(plan)
    assert world.ask().lineage == (f"version {new}", f"version {old}", "aot-tiny-vl")


def test_after_an_edition_that_was_refused_it_says_whom_it_begins_from(world: World) -> None:
    champion = world.champion(world.artifact("defender_round", "old"))
    world.end(world.ask())
    quiet = world.ask()
    assert quiet.told == (), "the last one was promoted"
    refused = EditionEnd(number=2, campaign="k", outcome="not promoted: regression/fixed_exam: 0 won, 20 lost")
    SeriesBook(world.where.store, "weekly").write_end(refused)
    plan = world.ask()
    assert plan.defender_version == champion
    assert plan.told == (
        "edition 2 was not promoted: regression/fixed_exam: 0 won, 20 lost; this one begins "
        "from version 1, the champion",
    )


def test_a_data_set_that_is_gone_is_done_without_and_said(world: World) -> None:
    first, second = world.artifact("prepare_data", "first"), world.artifact("prepare_data", "second")
    version = world.champion(world.artifact("defender_round", "old"))
    world.end(world.ask(), dataset=first, version=version)
    world.end(world.ask(), dataset=second)
    store = world.where.store
    assert isinstance(store, LocalStore)
    (store.root / "prepare_data" / first.uri.rpartition("/")[2] / "files" / "name").write_text("damaged")
    plan = world.ask()
    assert (plan.exam, plan.reference) == (second, None), "the next one is the exam; drift has nothing to compare with"
    assert sum("edition 1, is gone or damaged" in line for line in plan.told) == 2


def test_a_champion_that_cannot_be_begun_from_is_refused_with_the_fix(world: World) -> None:
    champion = world.artifact("defender_round", "other")
    world.champion(champion, base=ExternalRef(name="aot-tiny-vl", sha256="a" * 64))
    with pytest.raises(
        SeriesError, match=r"was trained from 'aot-tiny-vl' \(aaaaaaaaaaaa\).*series.defender = \"base\""
    ):
        world.ask()
    assert SeriesBook(world.where.store, "weekly").editions() == [], "nothing was entered"
    assert world.ask(defender="base").defender is None
    gone = ArtifactRef(uri=f"aot://defender_round/{'0' * 64}", sha256="0" * 64)
    world.champion(gone)
    world.end(world.ask(defender="base"))
    with pytest.raises(SeriesError, match="is not in this store, or is damaged"):
        world.ask()


def test_players_pool_and_bank_come_from_the_book(world: World) -> None:
    def attacker(name: str) -> ArtifactRef:
        return world.artifact("attacker_round", name, attacker_base=EDITOR.sha256)

    warm = world.artifact("warm_start_attacker", "warm", base=EDITOR.sha256)
    defender, bank = world.artifact("defender_round", "d1"), world.artifact("bank", "bank")
    attackers = tuple(attacker(f"a{k}") for k in range(3))
    world.end(world.ask(), defender=defender, attackers=attackers, warm_attacker=warm, bank=bank)

    plan = world.ask(defender="last", attacker="newest", pool={"count": 2})
    assert (plan.defender, plan.attacker, plan.bank) == (defender, attackers[2], bank)
    assert plan.pool == tuple(a.uri for a in attackers[1:])
    assert plan.lineage == ("edition 1", "aot-tiny-vl")
    world.end(plan)
    # The second has no Attackers and no Defender of its own to leave: what the first has left still stands.
    plan = world.ask(attacker="warm_start", pool={"rule": "hardest", "count": 1, "candidates": 3})
    assert plan.attacker == warm
    assert plan.pool == tuple(a.uri for a in attackers), "candidates, to be measured"
    world.end(plan)
    (world.where.store.root / "bank" / bank.uri.rpartition("/")[2] / "files" / "name").write_text("damaged")  # pyright: ignore
    plan = world.ask(pool={"rule": "none"})
    assert (plan.pool, plan.bank) == ((), None)
    assert any("bank of edition 1 is gone or damaged" in line for line in plan.told)


def test_an_attacker_of_another_editor_is_refused(world: World) -> None:
    stranger = world.artifact("attacker_round", "stranger", attacker_base="f" * 64)
    world.end(world.ask(), attackers=(stranger,))
    with pytest.raises(SeriesError, match="was trained from another base"):
        world.ask(attacker="newest", pool={"rule": "none"})


def test_a_renamed_series_is_a_new_one_and_says_so(world: World) -> None:
    world.end(world.ask())
    config = CampaignConfig.model_validate({"name": "c", "series": {"name": "weakly"}})
    plan = find_edition(config, "next", world.where).edition
    assert plan is not None and plan.number == 1
    assert "also holds 'weekly' (1 edition)" in plan.told[0]
    assert series_in(world.where.store) == {"weekly": 1, "weakly": 1}


def test_a_config_without_series_has_no_editions(world: World) -> None:
    with pytest.raises(SeriesError, match=r"the config has no \[series\]"):
        find_edition(CampaignConfig(name="c"), "next", world.where)


def test_what_editions_refer_to_is_no_garbage(world: World) -> None:
    kept, loose = world.artifact("bank", "kept"), world.artifact("bank", "loose")
    world.end(world.ask(), bank=kept)
    unreached = [record.artifact for record in find_garbage(world.where.store, [], keep_days=1).unreached]
    assert unreached == [loose]


@pytest.mark.parametrize(
    ("told", "kept"), [("2026-11-27T20:00", "2026-11-27T20:00Z"), ("2026-11-27", "2026-11-27T00:00Z")]
)
def test_slots(told: str, kept: str) -> None:
    assert slot_of(told) == kept


def test_photographs_that_would_change_splits_between_editions_are_refused() -> None:
    data = {"source": {"type": "coco"}, "implantation": {"evaluated": ["semantic"]}}
    photos = {"name": "c", "series": {"name": "weekly"}, "prepare_data": data}
    with pytest.raises(ValueError, match=r"series.data = \"redraw\" would draw.*set prepare_data.growing = true"):
        CampaignConfig.model_validate(photos)
    CampaignConfig.model_validate(photos | {"series": {"name": "weekly", "data": "same"}})
    CampaignConfig.model_validate(photos | {"prepare_data": data | {"growing": True}})
    CampaignConfig.model_validate({"name": "c", "prepare_data": data})


def test_other_photographs_are_for_a_growing_source_alone(world: World) -> None:
    """Dealt to the splits anew, what one edition was taught could be asked by the next."""

    def ask(sha256: str, *, growing: bool = False) -> EditionPlan:
        config = {"name": "c", "series": {"name": "weekly", "data": "same"}, "source_folder": "/photos"}
        families = {"evaluated": ["semantic", "irrelevant"]}
        config["prepare_data"] = {"source": {"type": "coco"}, "growing": growing, "implantation": families}
        where = replace(world.where, source=ExternalRef(name="/photos", sha256=sha256))
        plan = find_edition(CampaignConfig.model_validate(config), "next", where).edition
        assert plan is not None
        return plan

    data = world.artifact("prepare_data", "photos", source="1" * 64)
    world.end(ask("1" * 64), dataset=data)
    with pytest.raises(SeriesError, match=r"source_folder /photos has changed since edition 1.*growing = true"):
        ask("2" * 64)
    assert [edition.plan.number for edition in SeriesBook(world.where.store, "weekly").editions()] == [1]
    grown = ask("2" * 64, growing=True)
    assert (grown.number, grown.previous) == (2, data)


def test_what_the_suite_may_ask_is_kept_out_of_warm_start_and_rounds_alike(world: World) -> None:
    config = CampaignConfig.model_validate({"name": "c", "series": {"name": "weekly"}, "bank": {"suite": 0.4}})
    edition = find_edition(config, "next", world.where)
    for stage in ("warm_start_defender", "defender_round"):
        assert edition.stage_config(stage).model_dump()["held_back"] == 0.4
        assert config.stage_config(stage).model_dump()["held_back"] == 0.0, "a campaign by itself has no suite"


def lose(world: World, ref: ArtifactRef) -> None:
    stage, key = ref.uri.removeprefix("aot://").split("/")
    record = world.where.store.find(stage, key)
    assert record is not None
    world.where.store.delete(record)


def test_a_planned_edition_goes_on_without_what_the_store_has_lost(world: World) -> None:
    def attacker(name: str) -> ArtifactRef:
        return world.artifact("attacker_round", name, attacker_base=EDITOR.sha256)

    banks = world.artifact("bank", "bank1"), world.artifact("bank", "bank2")
    attackers, data = (attacker("a1"), attacker("a2")), world.artifact("prepare_data", "data")
    for bank in banks:
        world.end(world.ask(), bank=bank, attackers=attackers, dataset=data)
    planned = world.ask()
    assert (planned.number, planned.bank, planned.exam) == (3, banks[1], data) and len(planned.pool) == 4
    lose(world, banks[1])
    lose(world, attackers[0])
    changed = world.ask()
    assert (changed.number, changed.seed, changed.bank) == (3, planned.seed, banks[0]), "the same edition"
    assert set(changed.pool) == {attackers[1].uri}
    assert "the bank of edition 2 is gone or damaged: an earlier one is taken" in changed.told
    assert changed.told[-1] == "the plan of this edition was changed accordingly"
    assert world.ask() == changed == world.ask("3"), "it stands in the book"
    lose(world, banks[0])
    lose(world, data)
    last = world.ask()
    assert (last.bank, last.exam) == (None, None)
    assert any("fixed exam" in line and "done without" in line for line in last.told)
    world.end(last)
    assert world.ask().number == 4, "the series goes on"


def test_an_edition_whose_defender_is_lost_names_the_way_out(world: World) -> None:
    defender = world.artifact("defender_round", "champion")
    world.champion(defender)
    world.end(world.ask())
    assert world.ask().defender == defender
    lose(world, defender)
    with pytest.raises(SeriesError, match=r"edition 2 was planned to begin with the Defender .* with --edition 3"):
        world.ask()
    assert world.ask("3", defender="base").number == 3


def test_a_preview_enters_nothing(world: World) -> None:
    config = CampaignConfig.model_validate({"name": "c", "seed": 3, "series": {"name": "weekly"}})
    book = SeriesBook(world.where.store, "weekly")
    seen = preview_edition(config, "next", world.where).edition
    assert seen is not None and book.editions() == [] and number_of(book, "next") == 1
    assert world.ask() == seen, "what runs is what was previewed"
    assert number_of(book, "1") == number_of(book, "next") == 1
    assert number_of(book, "2026-11-27T20:00") == 2
