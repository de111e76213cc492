"""The filter keeps what fools a reader that is right while the scene is clean."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from aot_core.contracts.prepare_data import DataLimits, EffectivenessSettings, PrepareDataConfig, SplitSizes
from aot_core.contracts.scene import LETTERS, Box, Query, Question, Sample, SceneObject
from aot_core.data.build import BuildSummary
from aot_core.data.dataset import load_image
from aot_core.data.effectiveness import Effectiveness, measure_effectiveness
from aot_core.worlds.images import DataError
from aot_core.worlds.shapes import world
from aot_core.worlds.shapes.parser import parse_world
from aot_core.worlds.truth import truth


class HastyReader:
    """An Answerer that really reads the picture, but only its first four objects, row by row."""

    def answer(
        self,
        images: Sequence[Image.Image],
        questions: Sequence[Question],
        *,
        samples: int,
        temperature: float,
        seed: int,
    ) -> list[list[str]]:
        del temperature, seed  # It always says the same.
        said = []
        for image, question in zip(images, questions, strict=True):
            found = truth(question.query, [parsed.object for parsed in parse_world(image)][:4])
            known = found in question.options
            said.append(f"\\boxed{{{LETTERS[question.options.index(found)]}}}" if known else "I cannot tell.")
        return [[text] * samples for text in said]


def ring(x: float, y: float, colour: str = "red") -> SceneObject:
    return SceneObject(box=Box(x=x, y=y, width=10, height=10), attributes={"colour": colour, "shape": "ring"})


def test_a_pair_is_effective_if_right_when_clean_and_wrong_when_edited() -> None:
    target = ring(34, 50)
    colours = ["blue", "green", "yellow", "purple"]
    crowd = [ring(2 + 16 * i, 2, colour) for i, colour in enumerate(colours)]
    query = Query(kind="existence", target=dict(target.attributes))
    question = Question(query=query, text="Is there a red ring?", options=("no", "yes"), answer="B")
    drawn = [world.render(things, world.Backdrop()) for things in ([target], [*crowd[:3], target], [*crowd, target])]
    measured = measure_effectiveness(
        HastyReader(), [drawn[0]] * 2, drawn[1:], [question] * 2, EffectivenessSettings(), seed=0
    )
    assert measured == [Effectiveness(1.0, 1.0), Effectiveness(1.0, 0.0)]
    assert [j.outcome for j in measured] == ["withstood", "effective"]


@pytest.mark.parametrize(
    ("clean", "edited", "outcome"),
    [(1.0, 0.0, "effective"), (1.0, 1 / 3, "withstood"), (2 / 3, 0.0, "wrong_when_clean"), (0, 0, "wrong_when_clean")],
)
def test_outcomes(clean: float, edited: float, outcome: str) -> None:
    assert Effectiveness(clean, edited).outcome == outcome


Run = Callable[..., tuple[list[Sample], Counter[str]]]


@pytest.fixture
def run(build: Callable[..., tuple[list[Sample], BuildSummary]], tmp_path: Path) -> Run:
    def with_filter(**effectiveness: object) -> tuple[list[Sample], Counter[str]]:
        config = PrepareDataConfig(
            splits=SplitSizes(warm_start=40, train=0, evaluate=0),
            effectiveness=EffectivenessSettings.model_validate(effectiveness),
        )
        samples, summary = build(config, tmp_path, answerer=HastyReader())
        return samples, summary.funnel

    return with_filter


def test_the_papers_filter_keeps_effective_pairs_alone(run: Run, tmp_path: Path) -> None:
    samples, funnel = run()
    assert len(samples) == 40
    assert {(s.clean_correct, s.edited_correct) for s in samples} == {(1.0, 0.0)}
    assert funnel["effectiveness/effective"] == 40
    assert funnel["effectiveness/withstood"] > 40
    fooled = samples[0]
    answers = HastyReader().answer(
        [load_image(tmp_path, str(fooled.edited_image))], [fooled.question], samples=1, temperature=0, seed=0
    )
    assert f"{{{fooled.question.answer}}}" not in answers[0][0]


def test_it_can_record_without_dropping_and_ask_about_some(run: Run) -> None:
    samples, funnel = run(keep_ineffective=1.0, asked=25)
    measured = sum(count for name, count in funnel.items() if name.startswith("effectiveness/"))
    assert measured == 25
    assert [s.clean_correct is None for s in samples] == [False] * 25 + [True] * 15
    assert funnel["effectiveness/withstood"] > 0


def test_a_source_that_yields_too_little_says_what_rejected_most(
    build: Callable[..., tuple[list[Sample], BuildSummary]], tmp_path: Path
) -> None:
    config = PrepareDataConfig(splits=SplitSizes(warm_start=40, train=0, evaluate=0), limits=DataLimits(max_attempts=1))
    with pytest.raises(DataError, match=r"splits\.warm_start: only \d+ of 40 .*effectiveness/withstood"):
        build(config, tmp_path, answerer=HastyReader())
    assert not (tmp_path / "manifest.json").exists()
