"""In which order a scheduled run takes a series' editions. What an edition itself does takes minutes, and is shown in
`test_series` and `tests/services`: here it only says that it was run, and ends."""

from pathlib import Path
from typing import Any

import pytest
from prefect import State
from prefect.states import Cancelled, Failed

import flows.scheduled
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.series import EditionEnd
from aot_core.series.book import SeriesBook
from aot_core.store import LocalStore

CONFIG = str(Path(__file__).parents[2] / "configs" / "smoke.toml")


class Editions:
    """In the place of the campaign's flow."""

    def __init__(self, home: Path, ends: dict[int, State[Any]]) -> None:
        self.book, self.ends = SeriesBook(LocalStore(home / "store"), "weekly"), ends
        self.ran: list[int] = []
        self.planned: list[int] = []

    def fn(self, config: CampaignConfig, _home: str) -> State[Any] | None:
        assert config.edition is not None
        number = config.edition.number
        self.ran.append(number)
        self.planned.append(len(self.book.editions()))
        if number in self.ends:
            return self.ends[number]
        self.book.write_end(EditionEnd(number=number, campaign="k", outcome="promoted: test"))
        return None


def scheduled(home: Path, monkeypatch: pytest.MonkeyPatch, slot: str, ends: dict[int, State[Any]]) -> Editions:
    editions = Editions(home, ends)
    monkeypatch.setattr(flows.scheduled, "coevolution", editions)
    overrides = ["series.name=weekly", "series.defender=base"]
    flows.scheduled.scheduled_coevolution.fn(CONFIG, overrides, str(home), edition=slot)
    return editions


def test_earlier_editions_end_before_the_next_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died = scheduled(tmp_path, monkeypatch, "2026-11-20T20:00", {1: Failed(message="it died")})
    assert died.ran == [1]
    found = scheduled(tmp_path, monkeypatch, "2026-11-27T20:00", {})
    assert found.ran == [1, 2] and found.planned == [1, 2], "the second begins from where the first has ended"


def test_one_that_fails_again_does_not_keep_the_next_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: dict[int, State[Any]] = {1: Failed(message="it died")}
    scheduled(tmp_path, monkeypatch, "2026-11-20T20:00", ends)
    assert scheduled(tmp_path, monkeypatch, "2026-11-27T20:00", ends).ran == [1, 2]


def test_who_cancels_the_run_cancels_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduled(tmp_path, monkeypatch, "2026-11-20T20:00", {1: Failed(message="it died")})
    found = scheduled(tmp_path, monkeypatch, "2026-11-27T20:00", {1: Cancelled(message="by somebody")})
    assert found.ran == [1] and len(found.book.editions()) == 1
