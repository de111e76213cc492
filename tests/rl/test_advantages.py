import json

import pytest
import torch

from aot_core.rl.advantages import PromptDeviations, flat_groups, group_advantages

REWARDS = torch.tensor([[0.0, 1.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0]])


def test_group_scaling_divides_by_the_groups_own_unbiased_deviation():
    advantages = group_advantages(REWARDS, "group", epsilon=0.0 + 1e-4)
    deviation = (2 / 3) ** 0.5  # of 0, 1, 2, 1 with n - 1
    assert torch.allclose(advantages[0], torch.tensor([-1.0, 0.0, 1.0, 0.0]) / (deviation + 1e-4))
    assert torch.equal(advantages[1], torch.zeros(4))


def test_batch_scaling_divides_by_the_deviation_of_all_centred_rewards():
    advantages = group_advantages(REWARDS, "batch", epsilon=0.0)
    deviation = (2 / 7) ** 0.5  # of -1, 0, 1, 0, 0, 0, 0, 0
    assert torch.allclose(advantages[0], torch.tensor([-1.0, 0.0, 1.0, 0.0]) / deviation)


def test_no_scaling_only_centres():
    assert torch.equal(group_advantages(REWARDS, "none")[0], torch.tensor([-1.0, 0.0, 1.0, 0.0]))


def test_flat_groups_are_those_whose_rewards_are_all_equal():
    assert flat_groups(REWARDS).tolist() == [False, True]


def test_rewards_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="prompts, group"):
        group_advantages(torch.zeros(4))
    with pytest.raises(ValueError, match="scaling 'std'"):
        group_advantages(REWARDS, "std")  # pyright: ignore[reportArgumentType]


def test_a_prompts_deviation_is_pooled_over_its_latest_groups():
    deviations = PromptDeviations(groups=2)
    first = deviations.advantages(["a", "b"], torch.tensor([[0.0, 2.0], [1.0, 1.0]]), epsilon=0.0 + 1e-4)
    assert torch.allclose(first, torch.tensor([[-1.0, 1.0], [0.0, 0.0]]) / (2**0.5 + 1e-4))
    second = deviations.advantages(["a"], torch.tensor([[5.0, 5.2]]), epsilon=0.0)
    assert deviations.deviation("a") == pytest.approx(((2.0 + 0.02) / 2) ** 0.5)
    assert torch.allclose(second, torch.tensor([[-0.1, 0.1]]) / 1.01**0.5)
    deviations.advantages(["a"], torch.tensor([[0.0, 0.2]]))
    assert deviations.deviation("a") == pytest.approx(0.02**0.5), "the first group is forgotten"
    with pytest.raises(ValueError, match="one each"):
        deviations.advantages(["a"], torch.zeros(2, 2))


def test_what_deviations_remember_survives_json():
    deviations = PromptDeviations(groups=3)
    deviations.advantages(["a", "b"], torch.tensor([[0.1, 0.7, 0.3], [0.2, 0.2, 0.9]]))
    again = PromptDeviations(groups=3)
    again.load(json.loads(json.dumps(deviations.state())))
    rewards = torch.tensor([[0.5, 0.1, 0.3]])
    assert torch.equal(again.advantages(["b"], rewards), deviations.advantages(["b"], rewards))
