"""Sampling edits and scoring them, part after part: a remote opponent answers about one part while the next is sampled.

    attempts -> encode -> for each part: rollout -> decode -> check -> ask the opponent -> rewards
                                                                    \\-> in a thread, where it is an endpoint

Only the opponent's answers are awaited in another thread: they are requests and arithmetic on texts, and touch neither
the device nor torch's random numbers. So the same parts give the same bits, whether or not anything overlaps. A
Defender in this process shares both with the editor, and is asked synchronously.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch
from PIL import Image

from aot_core.attacker.editing import FlowEditor
from aot_core.attacker.flow_grpo import Rollout, joined, rollout
from aot_core.attacker.reward import SureAnswerer, attack_rewards, diversified
from aot_core.attacker.reward_terms import with_terms
from aot_core.attacker.round_state import ScoredEdit
from aot_core.attacker.scenes import AttackError, Attempt
from aot_core.contracts.attacker_round import AttackerRoundConfig
from aot_core.contracts.protocols import Answerer
from aot_core.worlds.opening import world_of
from aot_core.worlds.validity import Verdict

P = ParamSpec("P")
T = TypeVar("T")
_SEEDS_APART = 10**9
"""Between the seeds of two parts of one update: more than the seeds of updates are apart."""


class AtOnce(Executor):
    """Runs work at once, in the caller's thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Raises what `fn` raises."""
        done: Future[T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def sample_and_score(
    editor: FlowEditor,
    defender: SureAnswerer,
    attempts_P: Sequence[Attempt],
    config: AttackerRoundConfig,
    generator: torch.Generator,
    seed: int,
    *,
    stochastic: range,
    photo_judge: Answerer | None = None,
) -> tuple[Rollout, list[ScoredEdit]]:
    """New edits of all attempts, and what they earn: P * G of each, group after group.

    Args:
        seed: of the opponent's answers.
        stochastic: the steps with noise, which are trained.

    Raises what `rollout`, `score_edits` and the opponent raise: an opponent that is down at the end of the next part.
    """
    condition_P = editor.encode(
        [attempt.target.image for attempt in attempts_P],
        [attempt.proposal.instruction for attempt in attempts_P],
    )
    size = len(attempts_P)
    if config.sampled_scenes is not None:
        size = min(size, config.sampled_scenes * config.proposals_per_scene)
    parts: list[Rollout] = []
    scored: list[ScoredEdit] = []
    asked: Future[list[ScoredEdit]] | None = None
    with ThreadPoolExecutor(1, "opponent") if config.opponent is not None else AtOnce() as pool:
        for number, first in enumerate(range(0, len(attempts_P), size)):
            attempts = attempts_P[first : first + size]
            edits = rollout(
                editor,
                condition_P.select(slice(first, first + size)),
                config.group_size,
                config.sampling,
                generator,
                with_reference=config.kl > 0,
                stochastic=stochastic,
            )
            images = editor.decode(edits.latents, edits.condition)
            verdicts = check(attempts, images, config, photo_judge)
            parts.append(edits)
            # One part is asked about at a time: the endpoint is busy all the while, and a failure is soon known.
            scored += asked.result() if asked is not None else []
            asked = pool.submit(earn, defender, attempts, images, verdicts, config, seed + _SEEDS_APART * number)
        scored += asked.result() if asked is not None else []
    return joined(parts, condition_P, config.group_size), scored


def score_edits(
    defender: SureAnswerer,
    attempts_P: Sequence[Attempt],
    images: Sequence[Image.Image],
    config: AttackerRoundConfig,
    seed: int,
    photo_judge: Answerer | None = None,
) -> list[ScoredEdit]:
    """Check and reward P * G edited images, group after group. Raises AttackError for an edit that has not its scene's
    size."""
    return earn(defender, attempts_P, images, check(attempts_P, images, config, photo_judge), config, seed)


def check(
    attempts_P: Sequence[Attempt],
    images: Sequence[Image.Image],
    config: AttackerRoundConfig,
    photo_judge: Answerer | None = None,
) -> list[Verdict]:
    """Whether each of P * G edited images is fair. Raises AttackError for one that has not its scene's size."""
    attempts = _each(attempts_P, len(images))
    for attempt, image in zip(attempts, images, strict=True):
        clean = attempt.target.image
        if image.size != clean.size:
            raise AttackError(
                f"the editor made {image.width}x{image.height} pixels of scene {attempt.target.sample.sample_id}, "
                f"which has {clean.width}x{clean.height}; an edit keeps the size: use an editor that does so"
            )
    samples = [attempt.target.sample for attempt in attempts]
    proposals, cleans = [one.proposal for one in attempts], [one.target.image for one in attempts]
    return world_of(samples[0]).check(config.reward.validity, samples, proposals, cleans, images, photo_judge)


def earn(
    defender: SureAnswerer,
    attempts_P: Sequence[Attempt],
    images: Sequence[Image.Image],
    verdicts: Sequence[Verdict],
    config: AttackerRoundConfig,
    seed: int,
) -> list[ScoredEdit]:
    """What P * G checked images earn. Raises what the opponent and the reward's own terms raise."""
    attempts = _each(attempts_P, len(images))
    questions = [attempt.target.sample.question for attempt in attempts]
    rewards = attack_rewards(config.reward, defender, images, questions, verdicts, seed)
    regions_P = [attempt.proposal.regions for attempt in attempts_P]
    rewards = diversified(config.reward, rewards, images, regions_P, len(images) // len(attempts_P))
    scored = [
        ScoredEdit(attempt.target, attempt.proposal, image, reward)
        for attempt, image, reward in zip(attempts, images, rewards, strict=True)
    ]
    return with_terms(config.reward, scored)


def _each(attempts_P: Sequence[Attempt], edits: int) -> list[Attempt]:
    """The attempt of every edit."""
    return [attempt for attempt in attempts_P for _ in range(edits // len(attempts_P))]
