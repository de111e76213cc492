"""`aot attack` on the shipped pair, really run; and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_pipelines import save_qwen
from typer.testing import CliRunner

from aot_core.attacker.reward import squashed_margin
from aot_core.commands.attacking import _FORMS
from aot_core.commands.cli import app
from aot_core.contracts.attack import RewardSettings
from aot_core.contracts.attack_report import AttackReport
from aot_core.defender.checkpoints import load_defender
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.question_reading import read_question


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red ring among other things."""
    rng = np.random.default_rng(3)
    objects = [
        world.place(rng, {"colour": colour, "shape": shape}, cell)
        for colour, shape, cell in (
            ("red", "ring", (1, 1)),
            ("blue", "square", (3, 0)),
            ("green", "circle", (0, 3)),
        )
    ]
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    world.render(objects, world.Backdrop()).save(path)
    return path


def attack(image: Path, output: Path, *more: str) -> tuple[int, str]:
    arguments = ["attack", str(image), "--question", "Is there a red ring?", "--output", str(output), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, *more])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def attacked(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("out") / "attack"
    code, told = attack(scene, output, "--answer", "yes", "--count", "6", "--samples", "2", "--seed", "1")
    assert code == 0, told
    return output, told


def test_an_attack_leaves_pictures_answers_and_the_rewards_parts(scene: Path, attacked: tuple[Path, str]) -> None:
    output, told = attacked
    report = AttackReport.model_validate_json((output / "report.json").read_bytes())
    assert len(report.edits) == 6
    assert sorted(path.name for path in output.iterdir()) == sorted(
        ["clean.png", "report.json", "index.html", "sheet.png", *(edit.file for edit in report.edits)]
    )
    assert np.array_equal(np.asarray(Image.open(output / "clean.png")), np.asarray(Image.open(scene)))
    assert report.truth_by == "parser"
    assert report.clean_right == 1.0  # the shipped Defender knows a ring when nothing distracts it
    assert all(len(edit.answers) == 2 for edit in report.edits)
    for edit in report.edits:
        assert edit.right == sum(answer == "A" for answer in edit.answers) / 2
        assert edit.valid == (edit.intact and edit.confined and edit.semantic and edit.truth_kept)
        assert edit.misled == (edit.valid and edit.right == 0 and report.clean_right == 1)
        assert (edit.reward > 0) == edit.valid
    assert f"6 edits, {report.valid} valid; {report.misled} mislead" in " ".join(told.split())
    assert any(edit.valid for edit in report.edits)


def test_the_page_shows_every_edit_and_needs_no_network(attacked: tuple[Path, str]) -> None:
    output, _ = attacked
    page = (output / "index.html").read_text()
    report = json.loads((output / "report.json").read_text())
    assert all(f'src="{edit["file"]}"' in page for edit in report["edits"])
    assert "http" not in page


def test_the_same_seed_gives_the_same_report(scene: Path, attacked: tuple[Path, str], tmp_path: Path) -> None:
    output, _ = attacked
    code, _ = attack(scene, tmp_path / "again", "--answer", "A", "--count", "6", "--samples", "2", "--seed", "1")
    assert code == 0
    assert (tmp_path / "again" / "report.json").read_bytes() == (output / "report.json").read_bytes()


def test_what_is_said_of_an_edit_is_true_of_the_saved_picture(attacked: tuple[Path, str]) -> None:
    """The Defender asked anew about the written PNGs: as sure of its letters as the report's margins say."""
    output, _ = attacked
    report = AttackReport.model_validate_json((output / "report.json").read_bytes())
    valid = [edit for edit in report.edits if edit.valid]
    images = [Image.open(output / edit.file) for edit in valid]
    logprobs = load_defender(None, "aot-tiny-vl").letter_logprobs(images, [report.question] * len(valid))
    margins = [squashed_margin(letters, "A", RewardSettings().margin_scale) for letters in logprobs]
    assert margins == pytest.approx([edit.margin for edit in valid], abs=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--answer", "perhaps"), "answer: 'perhaps' is not among the options yes, no"),
        (("--answer", "yes", "--boxes", "60,0,20,20"), "boxes: 60,0,20,20 does not lie inside the picture of 64x64"),
        (("--answer", "no"), "answer: 'no' is not what the picture shows"),
        (("--answer", "yes", "--attacker", "./nowhere"), "'./nowhere' does not exist"),
        (("--answer", "yes", "--boxes", "0,0,64,64"), "boxes: they leave no room for an edit"),
    ],
)
def test_bad_input_is_refused_by_name(scene: Path, tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    code, told = attack(scene, tmp_path / "out", *more)
    assert code == 2
    assert message in told
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_written_over(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    code, told = attack(scene, tmp_path, "--answer", "yes")
    assert code == 2
    assert "is not empty" in told


def test_an_adapters_base_must_be_named(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "artifact" / "adapter").mkdir(parents=True)
    code, told = attack(scene, tmp_path / "out", "--answer", "yes", "--attacker", str(tmp_path / "artifact"))
    assert code == 2
    assert "--attacker-base" in told


def test_the_tiny_editor_refuses_a_photograph(tmp_path: Path) -> None:
    Image.new("RGB", (96, 64), "green").save(tmp_path / "photo.png")
    code, told = attack(tmp_path / "photo.png", tmp_path / "out", "--answer", "yes", "--boxes", "0,0,20,20")
    assert code == 2
    assert "general editor" in told and "this one has 96x64" in told


def test_a_question_of_another_form_is_named_and_not_the_picture(scene: Path, tmp_path: Path) -> None:
    more = ("--answer", "yes", "--boxes", "0,0,20,20", "--question", "Can you see a red ring?")
    code, told = attack(scene, tmp_path / "out", *more)
    assert code == 2
    assert "question: 'Can you see a red ring?' is not one of the forms" in told and "photograph" not in told
    assert "What colour is the ring?" in told


def test_every_form_that_is_named_is_read() -> None:
    assert all(read_question(form) is not None for form in _FORMS)


def test_a_general_editor_attacks_a_photograph(tmp_path: Path) -> None:
    """A Qwen-Image-Edit of tiny size and random weights: not a good attack, but a whole one."""
    noise = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg")
    save_qwen(tmp_path / "editor", plus=False)
    options = ("--option", "a cup", "--option", "a dog", "--answer", "a dog", "--boxes", "4,4,20,20")
    how = ("--attacker", str(tmp_path / "editor"), "--resolution", "64", "--steps", "2", "--count", "2")
    code, told = attack(tmp_path / "photo.jpg", tmp_path / "out", *options, *how)
    assert code == 0, told
    report = AttackReport.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert (report.truth_by, report.question.answer) == ("regions", "B")
    assert all(Image.open(tmp_path / "out" / edit.file).size == (96, 64) for edit in report.edits)
    told = [edit.instruction.split(" Question")[0] for edit in report.edits]
    assert all("in the" in one and "dog" not in one for one in told)


def test_a_photographs_edits_may_be_judged(tmp_path: Path) -> None:
    """The shipped Defender cannot read what a judge is asked, and so speaks for no edit."""
    noise = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg")
    save_qwen(tmp_path / "editor", plus=False)
    options = ("--option", "a cup", "--option", "a dog", "--answer", "a dog", "--boxes", "4,4,20,20")
    how = ("--attacker", str(tmp_path / "editor"), "--resolution", "64", "--steps", "2", "--count", "2")
    code, told = attack(tmp_path / "photo.jpg", tmp_path / "out", *options, *how, "--judge", "aot-tiny-vl")
    assert code == 0, told
    report = AttackReport.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert (report.truth_by, report.settings.judge, report.valid) == ("judge", "aot-tiny-vl", 0)


def test_a_picture_that_a_parser_reads_needs_no_judge(scene: Path, tmp_path: Path) -> None:
    code, told = attack(scene, tmp_path / "out", "--answer", "yes", "--judge", "aot-tiny-vl")
    assert code == 2
    assert "judge: a parser reads this picture" in told
