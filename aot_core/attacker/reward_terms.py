"""User-defined reward terms: the config names functions, and their scores of valid edits go into the reward.

    [[attacker_round.reward.terms]]
    name = "package.module:function"   # from a batch of `ScoredEdit` to one score an edit
    weight = 0.3
    combine = "multiply"               # reward x (1 - weight + weight score), the score within 0..1; or
                                       # "add": reward + weight x score

A `ScoredEdit` holds the clean picture, the question, what the editor was told, the edited picture and the reward so far
with its parts. Terms go one after the other, in the config's order, after the diversity factor. Invalid edits are
scored by none: they earn 0.

With an opponent behind an endpoint a term runs in a thread while the next edits are sampled: it must leave the device
and torch's random numbers alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from aot_core.attacker.round_state import ScoredEdit
from aot_core.contracts.attack import AttackTerm, RewardSettings
from aot_core.contracts.functions import import_function
from aot_core.rl.reward_terms import RewardError, checked

Term = Callable[[Sequence[ScoredEdit]], list[float]]


def build_terms(settings: RewardSettings) -> dict[str, Term]:
    """The settings' terms by name, each with its contract enforced. Raises ValueError for a function that does not
    exist."""
    return {
        term.name: checked(
            term.name,
            import_function(term.name, "attacker_round.reward.terms"),
            settings.term_seconds,
            field="attacker_round.reward.term_seconds",
            noun="edit",
            told=_told,
        )
        for term in settings.terms
    }


def with_terms(settings: RewardSettings, judged: Sequence[ScoredEdit]) -> list[ScoredEdit]:
    """The edits, with the settings' terms applied to the reward of each valid one; the scores are kept beside it.

    Raises RewardError, RewardTimeoutError.
    """
    done = list(judged)
    valid = [number for number, edit in enumerate(judged) if edit.reward.valid]
    for term, function in zip(settings.terms, build_terms(settings).values(), strict=True):
        if not valid:
            break
        for number, score in zip(valid, function([done[number] for number in valid]), strict=True):
            edit = done[number]
            reward = replace(
                edit.reward,
                reward=_combined(term, edit, score),
                terms={**edit.reward.terms, term.name: score},
            )
            done[number] = replace(edit, reward=reward)
    return done


def _combined(term: AttackTerm, edit: ScoredEdit, score: float) -> float:
    if term.combine == "add":
        return edit.reward.reward + term.weight * score
    if not 0 <= score <= 1:
        raise RewardError(
            f"reward {term.name!r} is {score:g} for the edit {_told(edit)}; a factor's score lies within 0..1: fix "
            'it, or set combine = "add"'
        )
    return edit.reward.reward * (1 - term.weight + term.weight * score)


def _told(edit: ScoredEdit) -> str:
    return f"of scene {edit.target.sample.sample_id} ({edit.proposal.instruction!r})"
