"""A round's faults and options: on the shipped pair where it matters what they do, on an untrained editor elsewhere."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from aot_core.attacker.editing import Attacker
from aot_core.attacker.flow_grpo import EditorFaultError, rollout
from aot_core.attacker.flow_sde import stochastic_step
from aot_core.attacker.reward import Reward, diversified
from aot_core.attacker.round_state import STATE, ProgressError, RoundState
from aot_core.attacker.scenes import AttackError, Target
from aot_core.attacker.self_play import measure, play_round
from aot_core.attacker.tactics import AttackPolicy
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.attack import ProposalSettings, RewardSettings
from aot_core.contracts.attacker_round import AttackerRoundConfig, SamplingSettings
from aot_core.contracts.scene import Box, Question, Sample
from aot_core.tracking.protocol import NullTracker
from tests.attacker.conftest import object_at

CONFIG = AttackerRoundConfig(
    sampling=SamplingSettings(steps=3, sde_steps=2),
    proposals=ProposalSettings(edits=(1, 1)),
    updates=4,
    scenes=1,
    proposals_per_scene=2,
    group_size=2,
    checkpoint_every=1,
    gallery_rows=2,
)


class Down(RuntimeError):
    """What a Defender's server raises."""


class Sure:
    """A Defender with an opinion a picture, so that no two edits earn alike; down from the `fails_at`-th call on."""

    def __init__(self, fails_at: int = 10**9) -> None:
        self.calls, self.fails_at = 0, fails_at

    def answer(
        self,
        images: Sequence[Image.Image],  # noqa: ARG002
        questions: Sequence[Question],
        *,
        samples: int,
        temperature: float,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> list[list[str]]:
        return [["\\boxed{A}"] * samples for _ in questions]

    def letter_logprobs(self, images: Sequence[Image.Image], questions: Sequence[Question]) -> list[dict[str, float]]:
        self.calls += 1
        if self.calls >= self.fails_at:
            raise Down("connection refused")
        shades = [float(np.asarray(image, dtype=np.float64).mean()) for image in images]
        return [
            dict.fromkeys("ABCDEF"[: len(question.options)], -1.0) | {question.answer: -1.0 - shade / 255}
            for shade, question in zip(shades, questions, strict=True)
        ]


@pytest.fixture
def trained() -> Attacker:
    """The shipped editor, whose edits are mostly valid."""
    return Attacker.load_trainable(str(SHIPPED / "aot-tiny-edit"), None, CONFIG.model)


@pytest.fixture
def targets(red_ring_sample: tuple[Sample, Image.Image]) -> list[Target]:
    sample, image = red_ring_sample
    return [Target(sample.model_copy(update={"sample_id": f"s{number}"}), image) for number in range(3)]


def weights(editor: Attacker) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in editor.trainable()])


def curve(history: object) -> str:
    return json.dumps(history.curve)  # pyright: ignore


def test_a_round_whose_defender_went_down_goes_on_to_the_same_bits(
    trained: Attacker, targets: list[Target], tmp_path: Path
):
    config = CONFIG.model_copy(update={"ema": 0.9, "scaling": "prompt", "updates": 5})
    start = weights(trained).clone()
    whole_policy = AttackPolicy()
    whole = play_round(trained, whole_policy, Sure(), targets, config, NullTracker(), tmp_path / "whole")
    expected = weights(trained)
    assert not torch.equal(expected, start)

    again = Attacker.load_trainable(str(SHIPPED / "aot-tiny-edit"), None, CONFIG.model)
    with pytest.raises(Down, match="connection refused"):
        play_round(again, AttackPolicy(), Sure(fails_at=5), targets, config, NullTracker(), tmp_path / "down")
    assert [path.name for path in (tmp_path / "down").iterdir()] == ["update-000004"]

    again = Attacker.load_trainable(str(SHIPPED / "aot-tiny-edit"), None, CONFIG.model)
    policy, defender = AttackPolicy(), Sure()
    resumed = play_round(again, policy, defender, targets, config, NullTracker(), tmp_path / "down")
    assert defender.calls == 1
    assert curve(resumed) == curve(whole)
    assert resumed.edits == whole.edits
    assert torch.equal(weights(again), expected)
    assert all(
        torch.equal(one, other) for one, other in zip(policy.parameters(), whole_policy.parameters(), strict=True)
    )
    assert [edit.edited.tobytes() for edit in resumed.best] == [edit.edited.tobytes() for edit in whole.best]
    assert [edit.reward for edit in resumed.best] == [edit.reward for edit in whole.best]


def test_the_best_edits_come_back_from_a_checkpoint(trained: Attacker, targets: list[Target], tmp_path: Path):
    play_round(trained, AttackPolicy(), Sure(), targets, CONFIG, NullTracker(), tmp_path)
    state = RoundState(trained, AttackPolicy(), targets, CONFIG)
    assert state.resume(tmp_path)
    assert state.update == 4
    assert state.history.best
    assert all(edit.edited.size == (64, 64) and edit.reward.valid for edit in state.history.best)


def test_a_checkpoint_of_another_round_is_refused_and_a_half_written_one_ignored(
    trained: Attacker, targets: list[Target], tmp_path: Path
):
    state = RoundState(trained, AttackPolicy(), targets, CONFIG)
    assert not state.resume(tmp_path)
    state.update = 2
    state.save(tmp_path)
    (tmp_path / "update-000003.unfinished").mkdir()
    assert state.resume(tmp_path)
    assert state.update == 2
    assert json.loads((tmp_path / "update-000002" / STATE).read_text())["update"] == 2
    with pytest.raises(ProgressError, match="another config"):
        RoundState(trained, AttackPolicy(), targets, CONFIG.model_copy(update={"seed": 9})).resume(tmp_path)


def test_an_editor_that_returns_nan_stops_the_round_before_any_weight_is_trained(
    attacker: Attacker, targets: list[Target], tmp_path: Path
):
    bias = attacker.pipeline.transformer.proj_out.bias
    with torch.no_grad():
        bias[0] = float("nan")
    before = weights(attacker)
    with pytest.raises(EditorFaultError, match="4 of 4 edits are not finite"):
        play_round(attacker, AttackPolicy(), Sure(), targets, CONFIG, NullTracker(), tmp_path)
    assert torch.equal(weights(attacker).nan_to_num(), before.nan_to_num())
    assert not list(tmp_path.iterdir())


def test_an_edit_of_another_size_is_refused_with_the_scenes_name(
    attacker: Attacker, targets: list[Target], monkeypatch: pytest.MonkeyPatch
):
    decode = attacker.decode
    monkeypatch.setattr(
        attacker, "decode", lambda latents, condition: [one.resize((32, 48)) for one in decode(latents, condition)]
    )
    with pytest.raises(AttackError, match=r"32x48 pixels of scene s\d, which has 64x64"):
        play_round(attacker, AttackPolicy(), Sure(), targets, CONFIG, NullTracker())


def test_boxes_that_cover_the_whole_image_leave_nothing_to_attack(attacker: Attacker, targets: list[Target]):
    everything = (Box(x=0, y=0, width=64, height=64),)
    covered = [
        Target(
            target.sample.model_copy(
                update={"question": target.sample.question.model_copy(update={"protected": everything})}
            ),
            target.image,
        )
        for target in targets
    ]
    with pytest.raises(AttackError, match="no free cells"):
        play_round(attacker, AttackPolicy(), Sure(), covered, CONFIG, NullTracker())


def test_a_batch_whose_edits_are_all_invalid_asks_nobody_and_trains_nothing(attacker: Attacker, targets: list[Target]):
    defender, before = Sure(), weights(attacker).clone()
    history = play_round(attacker, AttackPolicy(), defender, targets, CONFIG, NullTracker())
    assert defender.calls == 0, "an untrained editor paints no objects"
    assert [(entry["valid"], entry["reward"], entry["flat_groups"]) for entry in history.curve] == [(0.0, 0.0, 1.0)] * 4
    assert torch.equal(weights(attacker), before)
    assert history.best == []


def test_the_average_of_the_weights_is_what_a_round_leaves_behind(trained: Attacker, targets: list[Target]):
    config = CONFIG.model_copy(update={"ema": 0.5, "updates": 3})
    state = RoundState(trained, AttackPolicy(), targets, config)
    assert state.average is not None
    seen, by_hand = [], weights(trained).clone()
    for step in range(3):
        with torch.no_grad():
            for parameter in trained.trainable():
                parameter.add_(step + 1.0)
        seen.append(weights(trained).clone())
        state.step_average()
        # diffusers' schedule: nothing is remembered of the start, and then min(decay, (1 + n) / (10 + n)).
        decay = 0.0 if step == 0 else min(0.5, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * seen[-1]
    state.put_average()
    assert torch.allclose(weights(trained), by_hand, atol=1e-5)
    assert not torch.allclose(weights(trained), seen[-1], atol=1e-3)


def test_in_half_precision_the_ratio_still_begins_at_one(pipeline: object, targets: list[Target]):
    editor = Attacker(pipeline, steps=3)  # pyright: ignore
    editor.pipeline.to(torch.bfloat16)
    editor.pipeline.transformer.requires_grad_(True)
    image, told = targets[0].image, "Add an object at row 1, column 1."
    edits = rollout(
        editor, editor.encode([image], [told]), 4, CONFIG.sampling, torch.Generator().manual_seed(0),
        with_reference=False,
    )  # fmt: skip
    for transition in edits.transitions_T:
        assert transition.latents.dtype == torch.bfloat16
        assert transition.old_logprob.dtype == transition.next_latents.dtype == torch.float32
        with torch.no_grad():
            times = transition.latents.new_full((4,), transition.time)
            velocity = editor.velocity(transition.latents, times, edits.condition)
            again = stochastic_step(
                transition.latents, velocity, transition.time, transition.next_time, CONFIG.sampling,
                next_latents=transition.next_latents,
            ).logprob  # fmt: skip
        assert torch.equal(again, transition.old_logprob)


def reward(valid: bool = True) -> Reward:
    return Reward(0.8 if valid else 0.0, valid, 1.0, 1.0, 0.5, 0.0, 0.5, ())


def test_diversity_pays_what_differs_from_the_groups_other_valid_edits(red_ring_sample: tuple[Sample, Image.Image]):
    from aot_core.worlds.shapes import world

    sample, clean = red_ring_sample
    square, other = (
        world.render((*sample.scene.objects, object_at((3, 3), colour, shape)), world.Backdrop())
        for colour, shape in (("blue", "square"), ("yellow", "cross"))
    )
    images = [square, square, other, clean]
    rewards = [reward(), reward(), reward(), reward(valid=False)]
    regions = [[world.cell_box((3, 3))]]
    settings = RewardSettings(diversity=0.5, diversity_scale=1.0)
    alike, alike_too, apart, invalid = diversified(settings, rewards, images, regions, 4)
    cell = (slice(48, 64), slice(48, 64))
    by_hand = np.abs(np.asarray(square, np.int16)[cell] - np.asarray(other, np.int16)[cell]).max(-1) > 16
    share = float(by_hand.mean())
    assert 0.4 < share < 0.7
    assert apart.diversity == pytest.approx(share)
    assert alike.diversity == alike_too.diversity == pytest.approx(share / 2)  # one of two others is the same
    assert apart.reward == pytest.approx(0.8 * (0.5 + 0.5 * share))
    assert (invalid.reward, invalid.diversity) == (0.0, 1.0)
    assert diversified(RewardSettings(), rewards, images, regions, 4) == rewards
    assert diversified(settings, rewards[:1], images[:1], regions, 1) == rewards[:1], "nothing to differ from"


class Recording:
    """An editor that leaves every picture as it is, and keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[Image.Image] = []

    def edit(self, images: Sequence[Image.Image], instructions: Sequence[str], *, seed: int) -> list[Image.Image]:  # noqa: ARG002
        self.given += images
        return list(images)


def test_the_probe_meets_each_scene_once_and_another_again_where_one_has_no_room(targets: list[Target]):
    sample, image = targets[0]
    scenes = [Target(sample.model_copy(update={"sample_id": f"s{n}"}), image.copy()) for n in range(12)]
    editor = Recording()
    assert measure(editor, AttackPolicy(), Sure(), scenes, CONFIG)["valid"] == 0.0
    assert {id(one) for one in editor.given} == {id(scene.image) for scene in scenes}
    assert len(editor.given) == 12
    assert [id(one) for one in editor.given] != [id(scene.image) for scene in scenes]

    everything = sample.question.model_copy(update={"protected": (Box(x=0, y=0, width=64, height=64),)})
    scenes[5] = Target(sample.model_copy(update={"question": everything}), image.copy())
    editor = Recording()
    measure(editor, AttackPolicy(), Sure(), scenes, CONFIG)
    counts = Counter(id(one) for one in editor.given)
    assert sorted(counts.values()) == [*[1] * 10, 2] and id(scenes[5].image) not in counts
