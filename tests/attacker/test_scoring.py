"""Parts of a batch: an endpoint is asked about one while the next is sampled, and not a bit comes out otherwise."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from aot_core.attacker.editing import Attacker
from aot_core.attacker.flow_grpo import joined, rollout, step_velocity
from aot_core.attacker.flow_sde import stochastic_step
from aot_core.attacker.round_state import RoundHistory
from aot_core.attacker.scenes import Target, draw
from aot_core.attacker.scoring import sample_and_score
from aot_core.attacker.self_play import play_round
from aot_core.attacker.tactics import AttackPolicy
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.attack import ProposalSettings, RewardSettings
from aot_core.contracts.attacker_round import AttackerRoundConfig, OpponentSettings, SamplingSettings, WindowSettings
from aot_core.contracts.scene import Sample
from aot_core.evaluation.engines.protocol import EngineError
from aot_core.stages.helpers.opponent import EndpointDefender
from aot_core.tracking.protocol import NullTracker
from tests.evaluation.engines.conftest import Server, serving

CONFIG = AttackerRoundConfig(
    sampling=SamplingSettings(steps=3, window=WindowSettings(size=2)),
    proposals=ProposalSettings(edits=(1, 1)),
    reward=RewardSettings(efficacy="share", dense=0.0, samples=2),
    updates=2,
    scenes=3,
    proposals_per_scene=2,
    group_size=2,
    sampled_scenes=1,
    learning_rate=1e-3,
    checkpoint_every=1,
)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        state.says = by_picture
        yield state


@pytest.fixture
def targets(red_ring_sample: tuple[Sample, Image.Image]) -> list[Target]:
    sample, image = red_ring_sample
    return [Target(sample.model_copy(update={"sample_id": f"s{number}"}), image) for number in range(3)]


def by_picture(_text: str, picture: str) -> str:
    """Each picture has its answer, which comes the sooner or later; half of them are wrong."""
    number = crc32(picture.encode())
    time.sleep(number % 5 * 0.01)
    return r"\boxed{A}" if number % 2 else r"\boxed{B}"


def trained() -> Attacker:
    return Attacker.load_trainable(str(SHIPPED / "aot-tiny-edit"), None, CONFIG.model)


def settings(server: Server) -> OpponentSettings:
    return OpponentSettings(url=server.url, model="victim", concurrency=4, retries=0, pause_seconds=0.01)


def played(
    config: AttackerRoundConfig, server: Server, targets: list[Target], folder: Path
) -> tuple[RoundHistory, Tensor, int]:
    """A round against the server; its history, the weights it ends with, and how many of the editor's passes fell into
    the time of a request."""
    editor, meanwhile = trained(), 0
    velocity = editor.adapter.velocity

    def watched(latents: Tensor, times: Tensor, condition: object) -> Tensor:
        nonlocal meanwhile
        meanwhile += server.in_flight > 0
        return velocity(latents, times, condition)  # pyright: ignore

    editor.adapter.velocity = watched  # pyright: ignore
    defender = EndpointDefender(settings(server), folder)
    history = play_round(editor, AttackPolicy(), defender, targets, config, NullTracker(), folder / "progress")
    return history, torch.cat([p.detach().flatten() for p in editor.trainable()]), meanwhile


def test_an_endpoint_answers_while_the_next_scenes_are_sampled_to_the_same_bits(
    server: Server, targets: list[Target], tmp_path: Path
):
    start = torch.cat([p.detach().flatten() for p in trained().trainable()])
    apart, expected, never = played(CONFIG, server, targets, tmp_path / "apart")
    together = CONFIG.model_copy(update={"opponent": settings(server)})
    asked = [json.dumps(body, sort_keys=True) for body in server.bodies]
    server.bodies.clear()
    overlapping, weights, meanwhile = played(together, server, targets, tmp_path / "together")
    assert never == 0 < meanwhile
    assert overlapping.curve == apart.curve
    assert torch.equal(weights, expected) and not torch.equal(weights, start)
    assert [edit.edited.tobytes() for edit in overlapping.best] == [edit.edited.tobytes() for edit in apart.best]
    assert [edit.reward for edit in overlapping.best] == [edit.reward for edit in apart.best]
    assert sorted(asked) == sorted(json.dumps(body, sort_keys=True) for body in server.bodies)
    assert len({body["seed"] for body in server.bodies}) == len(asked), "parts and updates ask with seeds of their own"


def test_an_endpoint_that_goes_down_fails_the_update_and_no_weight_is_trained(
    server: Server, targets: list[Target], tmp_path: Path
):
    editor = trained()
    before = torch.cat([p.detach().flatten() for p in editor.trainable()])
    server.trouble = lambda _name, _before: "error" if len(server.bodies) > 10 else ""
    config = CONFIG.model_copy(update={"opponent": settings(server)})
    with pytest.raises(EngineError, match="failed once, the last time with HTTP 500"):
        play_round(
            editor, AttackPolicy(), EndpointDefender(settings(server), tmp_path), targets, config, NullTracker(),
            tmp_path / "progress",
        )  # fmt: skip
    assert torch.equal(torch.cat([p.detach().flatten() for p in editor.trainable()]), before)
    assert not (tmp_path / "progress").exists()


@pytest.mark.parametrize(
    "sampling", [CONFIG.sampling, SamplingSettings(steps=3, sde_steps=2)], ids=["window", "all steps"]
)
def test_parts_joined_are_the_batch(sampling: SamplingSettings, server: Server, targets: list[Target], tmp_path: Path):
    """Of three scenes two at a time: rows in order, and every log-probability that of its own row."""
    editor = trained()
    editor.hold_reference()
    config = CONFIG.model_copy(update={"sampling": sampling, "sampled_scenes": 2})
    attempts = draw(np.random.default_rng(0), targets, config.proposals, AttackPolicy(), 3, 2)
    defender = EndpointDefender(settings(server), tmp_path)
    edits, scored = sample_and_score(
        editor, defender, attempts, config, torch.Generator().manual_seed(0), 0, stochastic=range(2)
    )
    assert [one.proposal for one in scored] == [attempt.proposal for attempt in attempts for _ in range(2)]
    assert len(edits.condition) == len(edits.latents) == len(scored) == 12
    for transition in edits.transitions_T:
        with torch.no_grad():
            velocity = step_velocity(editor, edits.condition, transition, torch.arange(12))
        again = stochastic_step(
            transition.latents, velocity, transition.time, transition.next_time, sampling,
            next_latents=transition.next_latents,
        )  # fmt: skip
        assert torch.allclose(again.logprob, transition.old_logprob, atol=1e-5)
        assert transition.reference_mean is not None
        assert torch.allclose(again.mean, transition.reference_mean, atol=1e-5)
    decoded = editor.decode(edits.latents, edits.condition)
    assert [image.tobytes() for image in decoded] == [one.edited.tobytes() for one in scored]


def test_a_single_part_is_left_as_it_is(attacker: Attacker, targets: list[Target]):
    condition = attacker.encode([targets[0].image], ["Add an object at row 1, column 1."])
    whole = rollout(attacker, condition, 2, CONFIG.sampling, torch.Generator().manual_seed(0), with_reference=False)
    assert joined([whole], condition, 2) is whole
