import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aot_core.attacker.scenes import Attempt, Target, propose_for
from aot_core.attacker.tactics import (
    FILE,
    SITUATIONS,
    AttackPolicy,
    Choice,
    TacticsError,
    mix,
    policy_loss,
    situation,
)
from aot_core.contracts.attack import ProposalSettings
from aot_core.contracts.scene import Sample
from aot_core.worlds.proposals import OPTIONS, Factor

Scene = tuple[Sample, Image.Image]
SETTINGS = ProposalSettings(edits=(2, 3), kinds=("add", "add", "replace"), named_share=0.6)


def decision(factor: Factor, chosen: int, prior: tuple[float, ...], last: int | None = None) -> Choice:
    return Choice(0, factor, len(prior) if last is None else last, chosen, prior)


def table(policy: AttackPolicy, factor: str, name: str) -> torch.nn.Parameter:
    return next(parameter for f, n, parameter in policy.entries() if (f, n) == (factor, name))


def attempts(scene: Scene, policy: AttackPolicy, count: int) -> list[Attempt]:
    rng = np.random.default_rng(0)
    drawn = [propose_for(rng, Target(*scene), SETTINGS, policy) for _ in range(count)]
    return [attempt for attempt in drawn if attempt is not None]


def test_without_learning_the_policy_is_the_prior(red_ring_sample: Scene):
    shares = mix([attempt.decisions for attempt in attempts(red_ring_sample, AttackPolicy(), 300)])
    assert shares["kind/remove"] == 0
    assert shares["kind/replace"] < 0.35, "one object may be replaced, once: 1/3 at most"
    assert shares["content/open"] == pytest.approx(0.4, abs=0.05)
    # An existence question has no reference: what is named is akin to the target or unrelated, a third each.
    assert shares["content/target colour"] == pytest.approx(0.2, abs=0.04)
    assert shares["content/reference colour"] == 0


def test_log_probabilities_follow_prior_and_logits_and_bar_what_is_not_on_offer():
    policy = AttackPolicy()
    with torch.no_grad():
        table(policy, "kind", "all")[0] = torch.tensor([0.0, 5.0, 0.0])
        table(policy, "kind", "situation")[0] = torch.tensor([0.0, 0.0, np.log(4.0)])
        table(policy, "kind", "last")[3] = torch.tensor([np.log(2.0), 0.0, 0.0])
    (row,) = policy.logprobs([decision("kind", 0, (3.0, 0.0, 1.0))]).exp().tolist()
    assert row == pytest.approx([0.6, 0.0, 0.4])


def test_the_loss_is_minus_advantage_times_log_probability_plus_kl():
    policy = AttackPolicy()
    with torch.no_grad():
        table(policy, "kind", "last")[3] = torch.tensor([0.0, 0.0, np.log(3.0)])
    made = [[decision("kind", 2, (1.0, 0.0, 1.0))], [decision("kind", 0, (1.0, 0.0, 1.0))]]
    loss, metrics = policy_loss(policy, made, torch.tensor([1.0, -0.5]), beta=0.1)
    kl = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert float(loss.detach()) == pytest.approx(-(np.log(0.75) - 0.5 * np.log(0.25)) / 2 + 0.1 * kl, rel=1e-5)
    assert metrics["tactics_kl"] == pytest.approx(kl, rel=1e-5)
    loss.backward()
    gradients = table(policy, "kind", "all").grad
    assert gradients is not None
    assert bool(gradients.isfinite().all()), "a barred option must not poison the gradient"
    assert gradients[0, 1] == 0


def test_what_pays_is_learned_and_what_does_not_stays_possible(red_ring_sample: Scene):
    policy = AttackPolicy()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.3)
    paying = OPTIONS["content"].index("target shape")
    for _ in range(30):
        made = [attempt.decisions for attempt in attempts(red_ring_sample, policy, 24)]
        pay = [sum(d.factor == "content" and d.chosen == paying for d in one) / len(one) for one in made]
        rewards = torch.tensor(pay)
        optimizer.zero_grad()
        policy_loss(policy, made, (rewards - rewards.mean()) / (rewards.std() + 1e-4), beta=1.0)[0].backward()
        optimizer.step()
    shares = mix([attempt.decisions for attempt in attempts(red_ring_sample, policy, 200)])
    assert shares["content/target shape"] > 0.35, "0.2 before"
    assert shares["content/open"] > 0.02
    # Only what was met is learned.
    untouched = SITUATIONS.index("relation")
    assert not table(policy, "content", "situation")[untouched].any()


def test_a_policy_is_saved_and_read_back(tmp_path: Path, red_ring_sample: Scene):
    policy = AttackPolicy()
    with torch.no_grad():
        for _, _, parameter in policy.entries():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    policy.save(tmp_path)
    again = AttackPolicy.load(tmp_path)
    for (*_, mine), (*_, read) in zip(policy.entries(), again.entries(), strict=True):
        assert torch.allclose(mine, read, atol=1e-6)
    first, second = (attempts(red_ring_sample, one, 5) for one in (policy, again))
    assert [a.proposal.instruction for a in first] == [a.proposal.instruction for a in second]


def test_a_folder_without_a_policy_is_the_prior_and_a_foreign_file_is_refused(tmp_path: Path):
    assert not any(bool(parameter.any()) for *_, parameter in AttackPolicy.load(tmp_path).entries())
    policy = AttackPolicy()
    policy.save(tmp_path)
    written = json.loads((tmp_path / FILE).read_text())
    del written["logits"]["content"]["situation"]["relation"]["open"]
    (tmp_path / FILE).write_text(json.dumps(written))
    with pytest.raises(TacticsError, match="open"):
        AttackPolicy.load(tmp_path)


def test_situations_tell_existing_from_missing(red_ring_sample: Scene):
    question = red_ring_sample[0].question
    assert situation(question) == "existence of what is there"
    other = "B" if question.answer == "A" else "A"
    assert situation(question.model_copy(update={"answer": other})) == "existence of what is not"
