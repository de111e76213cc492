"""A round that stops by itself, on the shipped editor."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from aot_core.attacker.editing import Attacker
from aot_core.attacker.patience import Watch
from aot_core.attacker.round_state import RoundState
from aot_core.attacker.scenes import Target
from aot_core.attacker.self_play import play_round
from aot_core.attacker.tactics import AttackPolicy
from aot_core.base_models.names import SHIPPED
from aot_core.contracts.attacker_round import PatienceSettings
from aot_core.contracts.scene import Sample
from aot_core.tracking.protocol import NullTracker
from tests.attacker.test_self_play import CONFIG, Down, Sure, weights

IMPATIENT = CONFIG.model_copy(update={"updates": 20, "patience": PatienceSettings(every=2, looks=2, rise=0.0)})


@pytest.fixture
def targets(red_ring_sample: tuple[Sample, Image.Image]) -> list[Target]:
    sample, image = red_ring_sample
    return [Target(sample.model_copy(update={"sample_id": f"s{number}"}), image) for number in range(3)]


def shipped() -> Attacker:
    return Attacker.load_trainable(str(SHIPPED / "aot-tiny-edit"), None, CONFIG.model)


class Looks:
    """Rewards as told, and the weights that each look saw."""

    def __init__(self, editor: Attacker, *rewards: float) -> None:
        self.editor, self.rewards, self.seen = editor, list(rewards), []

    def __call__(self) -> float:
        self.seen.append(weights(self.editor).clone())
        return self.rewards[len(self.seen) - 1]


def test_a_round_ends_when_looks_stop_rising_and_leaves_the_best_look_behind(targets: list[Target]) -> None:
    editor = shipped()
    look = Looks(editor, 0.1, 0.3, 0.2, 0.25)
    history = play_round(editor, AttackPolicy(), Sure(), targets, IMPATIENT, NullTracker(), look=look)
    assert (len(history.curve), history.best_update) == (6, 2)
    assert torch.equal(weights(editor), look.seen[1])
    assert not torch.equal(look.seen[1], look.seen[3])


def test_a_round_that_never_rises_leaves_what_it_began_with(targets: list[Target]) -> None:
    editor = shipped()
    start = weights(editor).clone()
    look = Looks(editor, 0.1, 0.1, 0.05)
    history = play_round(editor, AttackPolicy(), Sure(), targets, IMPATIENT, NullTracker(), look=look)
    assert (len(history.curve), history.best_update) == (4, 0)
    assert torch.equal(weights(editor), start)


def test_a_small_rise_is_none(targets: list[Target]) -> None:
    editor = shipped()
    settings = PatienceSettings(every=1, looks=1, rise=0.1)
    state = RoundState(editor, AttackPolicy(), targets, IMPATIENT.model_copy(update={"patience": settings}))
    watch = Watch(settings, state, Looks(editor, 0.5, 0.59), NullTracker())
    assert not watch.ended
    watch.after_update()
    assert (watch.best, watch.ended) == (0, True)


def test_a_killed_round_knows_its_looks_and_its_best(targets: list[Target], tmp_path: Path) -> None:
    whole, policy = shipped(), AttackPolicy()
    config = IMPATIENT.model_copy(update={"ema": 0.9})
    expected = play_round(whole, policy, Sure(), targets, config, NullTracker(), look=Looks(whole, 0.1, 0.3, 0.2, 0.25))
    killed = shipped()
    with pytest.raises(Down):
        play_round(
            killed, AttackPolicy(), Sure(fails_at=6), targets, config, NullTracker(), tmp_path,
            look=Looks(killed, 0.1, 0.3, 0.2),
        )  # fmt: skip
    again, its_policy = shipped(), AttackPolicy()
    history = play_round(again, its_policy, Sure(), targets, config, NullTracker(), tmp_path, look=Looks(again, 0.25))
    assert history.curve == expected.curve
    assert history.best_update == expected.best_update == 2
    assert torch.equal(weights(again), weights(whole))
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), its_policy.parameters(), strict=True))
