"""A champion that was made of a handful of questions is marked wherever people look."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aot_core.commands.cli import app
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.promotion import Decision, GateSettings, GateTest
from aot_core.contracts.summary import CampaignSummary
from aot_core.evaluation.decision_page import decision_markdown, decision_page
from aot_core.evaluation.gate import decide
from aot_core.evaluation.model_card import model_card
from aot_core.evaluation.smoke_size import smoke_size
from aot_core.home import Home
from flows.closing import print_closing_table
from tests.evaluation.test_report import summary as summary

WARNING = "Smoke-size decision: floor/clean rests on 8 questions, fewer than promotion.gate.min_items (100)."


def first(n: int, *, promote: bool = True) -> Decision:
    """The decision about a first champion that was asked `n` questions a condition, as the gate makes it."""
    exam = {name: {str(k): True for k in range(n)} for name in ("clean", "semantic")}
    outcome = decide(exam, None, GateSettings(), base=exam)
    assert outcome.promote
    return Decision(
        model="aot-defender", challenger="1", challenger_sha256="a" * 64, promote=promote, reason=outcome.reason,
        alpha=outcome.alpha, settings=GateSettings(), tests=outcome.tests,
    )  # fmt: skip


def test_only_a_promotion_on_few_questions_is_one() -> None:
    assert smoke_size(first(8)).startswith(WARNING)
    assert "rests on 1 question," in smoke_size(first(1))
    assert smoke_size(first(100)) == ""
    assert smoke_size(first(8, promote=False)) == "", "nobody leads by it"
    suite = GateTest(name="regression/suite", what="", passed=True, n=3)
    assert smoke_size(first(100).model_copy(update={"tests": (*first(100).tests, suite)})) == "", "of any size"


def test_page_card_closing_table_and_status_say_so(
    summary: CampaignSummary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = summary.model_copy(
        update={
            "decision": first(8), "registered_version": "1", "aliases": ("champion",), "promotion_reason": "promoted",
            "config": CampaignConfig(name="tiny").model_dump(mode="json"),
        }
    )  # fmt: skip
    many = few.model_copy(update={"decision": first(100)})
    home = Home(tmp_path)
    for told, marked in ((few, True), (many, False)):
        assert told.decision is not None
        print_closing_table(told, home)
        folder = home.campaign_folder(told.name, told.key)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_text(told.model_dump_json(), encoding="utf-8")
        status, listed = (CliRunner().invoke(app, ["status", "--home", str(tmp_path), *m]) for m in ([], ["--json"]))
        assert "registered as version 1 (champion): promoted" in " ".join(status.stdout.split())
        (campaign,) = json.loads(listed.stdout)["campaigns"]
        shown = {
            "page": decision_page(told.decision),
            "markdown": decision_markdown(told.decision),
            "card": model_card(told, told.decision, "promoted", {}, {}),
            "closing": capsys.readouterr().out,
            "status": status.stdout,
            "json": campaign["warning"],
        }
        assert {where for where, text in shown.items() if "Smoke-size decision" in text} == (
            set(shown) if marked else set()
        )
