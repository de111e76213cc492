import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot_core.contracts.artifact import ArtifactRef, StageIdentity, StageName, StageRecord
from aot_core.contracts.promotion import Decision, GateSettings, GateTest
from aot_core.contracts.summary import CampaignSummary, StageStep
from aot_core.data.gallery import GalleryRow, gallery
from aot_core.evaluation.attack_gallery import gallery_of
from aot_core.evaluation.charts import accuracy_curves, conditions_of
from aot_core.evaluation.closing_table import closing_table
from aot_core.evaluation.figures import summarise
from aot_core.evaluation.headline import tiles
from aot_core.evaluation.items import Item
from aot_core.evaluation.report import (
    accuracy_rows,
    change_tables,
    chart_files,
    evaluations_of,
    funnels,
    render_report,
    report_markdown,
    write_report,
)
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.questions import ask_world
from tests.data.curated import Made, write_curated

RIGHT = {
    0: {"clean": 97, "semantic": 62, "irrelevant": 80, "unseen": 70},
    1: {"clean": 96, "semantic": 75, "irrelevant": 85, "unseen": 76, "attacker_1": 70},
    2: {"clean": 96, "semantic": 82, "irrelevant": 88, "unseen": 81, "attacker_1": 84, "attacker_2": 73},
}
"""By round: of 100 questions a condition, how many are right."""


def step(stage: StageName, round_index: int, outputs: dict[str, object], pictures: tuple[str, ...] = ()) -> StageStep:
    inputs = {"dataset": "d" * 64, "attackers": ["a" * 64, "b" * 64], "base": "Qwen/Qwen2.5-VL-7B-Instruct"}
    identity = StageIdentity(stage=stage, version=1, config={"seed": 0}, inputs=inputs)
    record = StageRecord(
        stage=stage,
        key=identity.key,
        identity=identity,
        artifact=ArtifactRef(uri=f"aot://{stage}/{identity.key}", sha256="e" * 64),
        outputs=outputs,
        seconds=12.5 + 10 * round_index,
        device="cpu",
        git_commit="0123456789abcdef",
        image_digest="",
        packages={"torch": "2.13.0"},
        started_at="2026-11-23T20:00:00+00:00",
    )
    return StageStep(round=round_index, record=record, reused=stage == "prepare_data", pictures=pictures)


def evaluation(round_index: int, pictures: tuple[str, ...] = ()) -> StageStep:
    items = [
        Item(
            name,
            f"{i}",
            f"{i}",
            "count" if i % 2 else "existence",
            "A",
            ("A", "A", "A" if i < right else "B"),
            ("yes", "no"),
            "" if name == "clean" else ("add", "remove")[i // 50],
        )
        for name, right in RIGHT[round_index].items()
        for i in range(100)
    ]
    valid = {name: 0.9 for name in RIGHT[round_index] if name.startswith("attacker")}
    return step("evaluate", round_index, summarise(items, valid).model_dump(mode="json"), pictures)


def attack_gallery(path: Path) -> str:
    rng = np.random.default_rng(2)
    rows: list[GalleryRow] = []
    while len(rows) < 3:
        objects = world.random_objects(rng, 3, world.all_cells()[:8])
        question = ask_world(rng, "existence", objects)
        assert question is not None
        ground = world.random_backdrop(rng)
        more = (*objects, world.place(rng, world.random_attributes(rng), (3, 1)))
        before, after = world.render(objects, ground), world.render(more, ground)
        rows.append(GalleryRow(before, after, question, (question.answer,) * 3, ("A", None, "B"), "Add an object."))
    gallery(rows, "Attacker").save(path)
    return str(path)


@pytest.fixture
def summary(tmp_path: Path) -> CampaignSummary:
    """A campaign of two rounds with invented figures."""
    picture = attack_gallery(tmp_path / "attacker_1.png")
    funnel = {"extension/accepted": 900.0, "extension/duplicate": 120.0, "ssim/below_min_ssim": 14.0}
    steps = [step("prepare_data", 0, {"samples": {"train": 600.0}, "pairs": 400, "funnel": funnel}), evaluation(0)]
    for number in (1, 2):
        tactics = {"kind/add": 0.7, "kind/replace": 0.3, "content/open": 0.5, "content/target colour": 0.5}
        rewards = {"first_reward": 0.21, "last_reward": 0.21 + 0.1 * number, "kl": 0.002, "tactics": tactics}
        counts = {"edited": 600, "intact": 580, "confined": 540, "semantic": 420, "valid": 400, "kept": 310}
        steps += [
            step("attacker_round", number, rewards, (picture, str(tmp_path / "gone.png"))),
            step("curate", number, {**counts, "success": 0.3}),
            step("defender_round", number, {"first_reward": 0.7, "last_reward": 0.82}),
            evaluation(number, (picture,)),
        ]
    return CampaignSummary(
        name="tiny <seed 0>",
        key="c" * 64,
        config={"seed": 0, "rounds": 2, "attacker_round": {"learning_rate": 3e-4}},
        status="finished",
        started_at="2026-11-23T20:00:00+00:00",
        updated_at="2026-11-23T20:09:00+00:00",
        mlflow_run_id="0af1",
        registered_version="1",
        aliases=("champion",),
        promotion_reason="there is no champion yet",
        steps=tuple(steps),
    )


class Page(HTMLParser):
    """Collects what a page loads from elsewhere, its pictures, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "source", "link", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_stands_alone(summary: CampaignSummary, tmp_path: Path) -> None:
    path = write_report(summary, tmp_path / "reports" / "report.html")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.addresses and all(address.startswith("data:image/webp;base64,") for address in page.addresses)
    assert (
        "url(" not in text.replace("url(data:image/webp;base64,", "")
        and "<script" not in text
        and "@import" not in text
    )
    # 3 charts in light and dark, 2 pictures a round; one of the three files of a round is gone.
    assert len(page.addresses) == 3 * 2 + 2 * 2
    assert path.stat().st_size < 3_000_000
    assert text.count("no longer in the store") == 2
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_the_report_says_what_was_measured(summary: CampaignSummary) -> None:
    text = render_report(summary)
    assert "tiny &lt;seed 0&gt;" in text
    assert re.search(r"82\.0<small>73\.3–88\.3</small><small>n = 100</small>", text)
    assert "Attacker 2" in text and "under semantic distractors" in text and "+20.0 since the warm start" in text
    assert "Curation, round 2" in text and "there is no champion yet" in text
    assert "aot://defender_round/" in text and "dddddddddddd" in text and "aaaaaaaaaaaa, bbbbbbbbbbbb" in text


def test_changes_are_told_by_kind_of_question_and_of_edit(summary: CampaignSummary) -> None:
    text = render_report(summary)
    # Round 2 under `semantic`: of questions 0 to 95, right on the clean picture, 82 to 95 are wrong; half of each kind.
    # Edits of the first 50 are additions and none of them flips; removals flip 14 of 46.
    assert re.search(r"<td>count</td>.*?<td>14\.6 / 0\.0<small>48, 2</small>", text)
    assert re.search(r"<td>remove</td>.*?<td>30\.4 / 0\.0<small>46, 4</small>", text)
    assert re.search(r"<td>add</td>.*?<td>0\.0 / ·<small>50, 0</small>", text)


def test_galleries_say_who_fooled_whom(summary: CampaignSummary) -> None:
    text = render_report(summary)
    assert "Attacker 1 against Defender 2: first what turned right answers wrong" in text
    assert "Attacker 2&#39;s best edits, against Defender 1" in text


def test_prefect_and_mlflow_are_given_the_same(summary: CampaignSummary) -> None:
    text = report_markdown(summary)
    assert re.search(r"\| clean \| 100 \|.*\| 96\.0 \(90\.2–98\.4\) \|", text) and "**Worst case " in text
    assert "| remove |" in text and "30.4 / 0.0 (46, 4)" in text
    assert "| evaluate · round 2 | 32.5 |" in text and '"learning_rate": 0.0003' in text
    assert "<" not in text.replace("tiny <seed 0>", ""), "Markdown has no tags"
    # Every table's rows have as many cells as its head.
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.rstrip().count("|") for line in table.splitlines()}) == 1, table
    last = accuracy_rows(summary)[-1]
    assert last == {"round": 2, "condition": "Attacker 2", "strict": 73.0, "low": 63.57, "high": 80.73, "n": 100}
    assert {name: png[:8] for name, png in chart_files(summary).items()} == dict.fromkeys(
        ("accuracy.png", "crossplay.png", "attacks.png"), b"\x89PNG\r\n\x1a\n"
    )
    assert "# tiny" in report_markdown(summary.model_copy(update={"steps": ()}))


def test_the_worst_case_comes_first_and_says_how_it_moved(summary: CampaignSummary) -> None:
    first, *others = tiles(evaluations_of(summary))
    assert (first.label, first.note, first.now.value) == ("worst case", "under Attacker 2", pytest.approx(73))
    # On what both rounds met: Attacker 1 was the worst at 70, and semantic and unseen at 82 and 81 are left.
    assert [movement.text for movement in first.movements] == [
        "+11.0 since round 1 (then Attacker 1)",
        "+19.0 since the warm start (then semantic distractors)",
    ]
    found = {tile.label: [movement.text for movement in tile.movements] for tile in others}
    assert found["under semantic distractors"] == ["+20.0 since the warm start"]
    assert found["under Attacker 1"] == ["+14.0 since round 1"] and found["under Attacker 2"] == []
    assert others[0].label == "clean scenes"


def test_a_round_that_lost_to_one_attack_says_so(summary: CampaignSummary) -> None:
    lost = step("evaluate", 2, {**evaluation(2).record.outputs})
    lost.record.outputs["strict"]["attacker_1"] = 0.641
    (first, *_) = tiles(evaluations_of(summary.model_copy(update={"steps": (*summary.steps[:-1], lost)})))
    assert first.now.value == pytest.approx(64.1)
    assert "-5.9 under Attacker 1 since the last round (the largest fall)" in [m.text for m in first.movements]
    assert {movement.colour for movement in first.movements} == {"up", "down"}


def test_the_gates_difference_stands_beside_the_worst_case(summary: CampaignSummary) -> None:
    worst = GateTest(
        name="superior/worst_case",
        what="",
        passed=False,
        n=100,
        difference=0.03,
        low=-0.011,
        champion=0.7,
        challenger=0.73,
    )
    decision = Decision(
        model="aot-defender", challenger="2", challenger_sha256="2" * 64, champion="1", promote=False,
        reason="unproven", alpha=0.05, settings=GateSettings(), tests=(worst,),
    )  # fmt: skip
    first = tiles(evaluations_of(summary), decision)[0]
    assert first.movements[-1].text == "+3.0 against champion version 1 (lower bound -1.1)"


def test_what_changed_since_the_last_campaign_is_told(summary: CampaignSummary) -> None:
    earlier = summary.model_copy(update={"key": "b" * 64, "steps": summary.steps[:6]})
    text = render_report(summary, earlier)
    assert "Since the last campaign" in text and "bbbbbbbbbbbb" in text
    assert re.search(
        r"<td>worst case</td><td>70\.0<small>.*?\+3\.0</td>\s*<td class=\"soft\">intervals overlap", text, re.DOTALL
    )
    assert "Since the last campaign" not in render_report(summary)


def test_the_closing_table_holds_the_worst_case_first(summary: CampaignSummary) -> None:
    config = {**summary.config, "evaluate": {"samples": 3}}
    found = closing_table(summary.model_copy(update={"config": config}))
    assert found is not None and found.headline == "worst case 73.0 % under Attacker 2"
    assert found.heads == ("", "warm start", "round 1", "round 2")
    assert found.rows[0] == ("worst case", "62.0 52-71", "70.0 60-78", "73.0 64-81")
    assert found.rows[-1] == ("Attacker 2", "", "", "73.0 64-81") and "n = 100" in found.note
    tiny = closing_table(summary.model_copy(update={"config": {**config, "rounds": 3}, "name": "tiny"}))
    assert tiny is not None and tiny.heads[-1] == "five seeds"
    assert all(re.fullmatch(r"\d\d\.\d-\d\d\.\d", row[-1]) for row in tiny.rows)


def test_attacks_can_be_browsed_by_what_they_are(summary: CampaignSummary, tmp_path: Path) -> None:
    write_curated(tmp_path / "curated", [Made(number, edited=number / 8) for number in range(8)])
    (tmp_path / "curated" / "pictures").mkdir()
    shown = tmp_path / "curated" / "pictures" / "curated.png"
    Image.new("RGB", (8, 8)).save(shown)
    steps = tuple(
        s.model_copy(update={"pictures": (str(shown),)}) if s.record.stage == "curate" else s for s in summary.steps
    )
    found = gallery_of(summary.model_copy(update={"steps": steps}))
    assert found.kept == 16 and len(found.attacks) == 16
    assert {attack.round for attack in found.attacks} == {1, 2}
    assert {"never right", "seldom right", "half right", "mostly right"} == {
        attack.learnable for attack in found.attacks
    }
    text = render_report(summary.model_copy(update={"steps": steps}))
    assert text.count('type="radio" name="attack"') == 16 and Page(text).open == []
    assert "Attacker 2 against Defender 1" in text and "16 of 16 edits" in text


def test_several_evaluations_of_a_round_are_joined(summary: CampaignSummary) -> None:
    extra = step("evaluate", 1, evaluation(2).record.outputs)
    joined = evaluations_of(summary.model_copy(update={"steps": (*summary.steps, extra)}))[1]
    assert joined.strict["attacker_2"] == 0.73 and joined.strict["semantic"] == 0.82


def test_the_funnel_is_drawn_to_scale(summary: CampaignSummary) -> None:
    drawn = dict(funnels(summary))
    assert [(bar.label, bar.share) for bar in drawn["Curation, round 1"]][-1] == ("kept", pytest.approx(310 / 600))


def test_a_campaign_that_has_only_begun_has_a_report(summary: CampaignSummary) -> None:
    begun = summary.model_copy(update={"steps": summary.steps[:1], "status": "failed", "message": "no room"})
    assert "no room" in render_report(begun) and "Cross-play" not in render_report(begun)
    assert "tiny" in render_report(summary.model_copy(update={"steps": ()}))
    assert "Cross-play" in render_report(summary.model_copy(update={"steps": summary.steps[:2]}))


def test_pictures_of_any_size_make_a_page() -> None:
    rng = np.random.default_rng(0)
    objects = world.random_objects(rng, 2)
    question = ask_world(rng, "existence", objects)
    assert question is not None
    tiny = world.render(objects, world.Backdrop())
    page = gallery([GalleryRow(tiny, tiny, question), GalleryRow(tiny.resize((640, 480)), None, question)])
    assert page.mode == "RGB" and page.width > 600
    # A pixel stays a pixel: every 3 x 3 block of the enlarged picture has one colour (away from the outlined boxes).
    enlarged = np.asarray(page)[-2 * 192 - 28 : -192 - 28, 14 + 206 : 14 + 206 + 192]
    assert (enlarged.reshape(64, 3, 64, 3, 3) == np.asarray(tiny)[:, None, :, None]).all()
    with pytest.raises(ValueError, match="an edit keeps the size"):
        gallery([GalleryRow(tiny, Image.new("RGB", (32, 32)), question)])
    with pytest.raises(ValueError, match="rows is empty"):
        gallery([])


def test_the_regression_suite_is_shown_and_counts_as_no_attack() -> None:
    items = [
        Item(name, f"{name}-{i}", f"{i}", "count", "A", ("A",), ("yes", "no"), "add")
        for name in ("clean", "regression_suite", "semantic", "attacker_1")
        for i in range(5)
    ]
    outputs = summarise(items, {})
    assert conditions_of({0: outputs}) == ["clean", "semantic", "attacker_1", "regression_suite"]
    assert [tile.label for tile in tiles({0: outputs, 1: outputs})][-1] == "on the regression suite"
    assert {attack for _, attacks, _ in change_tables({0: outputs}) for attack in attacks} == {"semantic", "Attacker 1"}
    assert accuracy_curves({0: outputs}, False)[:4] == b"\x89PNG"


def test_drift_is_told_with_its_columns() -> None:
    outputs = {
        "divergence": {"kind": 0.004, "box_size": 0.31, "class": 2.5},
        "chance": {"kind": 0.003, "box_size": 0.01, "class": 0.02},
        "unseen": {"class": ["<zebra>", "okapi"]},
        "drifted": ["class", "box_size"],
    }
    compared = step("compare_data", 0, outputs)
    config = compared.record.identity.model_copy(update={"config": {"limit": 0.1}})
    compared = compared.model_copy(update={"record": compared.record.model_copy(update={"identity": config})})
    summary = CampaignSummary(
        name="c", key="k" * 64, config={}, started_at="2026-11-23T20:00:00+00:00",
        updated_at="2026-11-23T20:00:00+00:00", steps=(compared,),
    )  # fmt: skip
    told = "The data has drifted from the champion&#39;s, more than 0.1 nats beyond chance: class, box size."
    page = render_report(summary)
    assert told in page and "&lt;zebra&gt;, okapi" in page
    assert page.count(">drifted</td>") == 2 and page.count(">same</td>") == 1
    assert "| box size | 0.3100 | 0.0100 |" in report_markdown(summary)
    calm = compared.record.model_copy(update={"outputs": outputs | {"drifted": []}})
    quiet = summary.model_copy(update={"steps": (compared.model_copy(update={"record": calm}),)})
    assert "No column of the data lies more than 0.1 nats beyond chance" in report_markdown(quiet)
    assert "<h2>Drift</h2>" not in render_report(summary.model_copy(update={"steps": ()}))
