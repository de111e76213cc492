"""The attack policy: what the editor is told to do, learned from what deceives.

    question -> situation -> a chain of decisions an edit: kind, place, content -> instruction -> the editor
    reward of its edits, against the mean of the scene's other proposals -> policy gradient on the decisions

The policy is log-linear on top of a prior (`ProposalSettings`). A decision's logits are the sum of three tables: one
for all decisions on the factor, which learns fast because every proposal teaches it; one by situation; and one by what
was decided for the edit before, because what deceives is often two objects together (one with the target's colour and
one with its shape). It is small enough to read: the report shows the mix of tactics round by round. Rewards are the
same that train the editor by Flow-GRPO; the objective is

    E[A log pi(decisions)] - beta KL(pi || prior),

whose optimum is prior x exp(reward / beta): with beta > 0 no tactic ever dies out, so an Attacker can come back to
one that the Defender has forgotten.

Shapes: N decisions; S situations, K options of a factor. A factor's tables are "all" (1, K), "situation" (S, K) and
"last" (K + 1, K), the last row of which is for the first edit.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from aot_core.contracts.base import Frozen
from aot_core.contracts.scene import Question
from aot_core.worlds.proposals import OPTIONS, Factor

FILE = "tactics.json"
"""In an Attacker's artifact."""
SITUATIONS = ("attribute", "count", "existence of what is there", "existence of what is not", "relation")


@dataclass(frozen=True)
class Choice:
    """One choice, as it was made."""

    situation: int
    factor: Factor
    last: int
    """The option decided for the edit before; K at the first edit."""
    chosen: int
    prior: tuple[float, ...]
    """(K,) prior weights; 0 for options that were not on offer."""


class Tables(Frozen):
    """The file: logits by factor, table, row and option."""

    logits: dict[Factor, dict[str, dict[str, dict[str, float]]]]


class TacticsError(ValueError):
    """A tactics file that does not fit this version's options."""


class AttackPolicy(nn.Module):
    """Logits of the decisions; all zero is the prior."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleDict(
            {
                factor: nn.ParameterDict(
                    {table: torch.zeros(len(rows), len(names)) for table, rows in _rows(factor).items()}
                )
                for factor, names in OPTIONS.items()
            }
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The policy of an Attacker's artifact; the prior where it holds none (a warm start).

        Raises TacticsError for a file with other situations or options, or with numbers that are not finite.
        """
        policy = cls()
        path = folder / FILE
        if not path.is_file():
            return policy
        read = Tables.model_validate_json(path.read_bytes()).logits
        try:
            for factor, table, parameter in policy.entries():
                rows = read[factor][table]
                parameter.data = torch.tensor(
                    [[rows[row][name] for name in OPTIONS[factor]] for row in _rows(factor)[table]]
                )
        except KeyError as error:
            raise TacticsError(f"{path}: no entry {error}; the Attacker was trained by another version") from None
        if not all(bool(parameter.isfinite().all()) for _, _, parameter in policy.entries()):
            raise TacticsError(f"{path}: a logit is not finite; take the Attacker of an earlier round")
        return policy

    def save(self, folder: Path) -> None:
        """Write `tactics.json`, readable by people."""
        logits: dict[str, dict[str, dict[str, dict[str, float]]]] = {factor: {} for factor in OPTIONS}
        for factor, table, parameter in self.entries():
            logits[factor][table] = {
                row: {name: round(value, 6) for name, value in zip(OPTIONS[factor], values, strict=True)}
                for row, values in zip(_rows(factor)[table], parameter.tolist(), strict=True)
            }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps({"logits": logits}, indent=1) + "\n")

    def entries(self) -> Iterator[tuple[Factor, str, nn.Parameter]]:
        """Every table by factor and name."""
        for factor in OPTIONS:
            for table, parameter in cast(nn.ParameterDict, self.tables[factor]).items():
                yield factor, table, parameter

    def logprobs(self, decisions: Sequence[Choice]) -> Tensor:
        """(N, K) log-probabilities of every option of decisions on one factor; -inf for what was not on offer."""
        tables = cast(nn.ParameterDict, self.tables[decisions[0].factor])
        by_situation = tables["situation"][[d.situation for d in decisions]]
        by_last = tables["last"][[d.last for d in decisions]]
        return torch.log_softmax(tables["all"] + by_situation + by_last + _log_prior(decisions), -1)


@dataclass
class Tactician:
    """Chooses by a policy, for one question, and remembers the decisions (`worlds.proposals.Chooser`)."""

    policy: AttackPolicy
    question: Question
    rng: np.random.Generator
    decisions: list[Choice] = field(default_factory=list)

    @torch.no_grad()
    def choose(self, factor: Factor, options: Mapping[str, float], last: str | None) -> str:
        names = OPTIONS[factor]
        decision = Choice(
            situation=SITUATIONS.index(situation(self.question)),
            factor=factor,
            last=names.index(last) if last else len(names),
            chosen=0,
            prior=tuple(options.get(name, 0.0) for name in names),
        )
        probabilities = self.policy.logprobs([decision])[0].exp().double().numpy()
        chosen = int(self.rng.choice(len(names), p=probabilities / probabilities.sum()))
        self.decisions.append(Choice(**{**decision.__dict__, "chosen": chosen}))
        return names[chosen]


def situation(question: Question) -> str:
    """What the Attacker is up against: the kind of question, and for existence whether it is there."""
    if question.query.kind != "existence":
        return question.query.kind
    return f"existence of what is {'there' if question.answer_text == 'yes' else 'not'}"


def policy_loss(
    policy: AttackPolicy, decisions_N: Sequence[Sequence[Choice]], advantages_N: Tensor, beta: float
) -> tuple[Tensor, dict[str, float]]:
    """-mean(A log pi) + beta KL(pi || prior), per proposal: log pi and KL are sums over its decisions.

    Args:
        decisions_N: the decisions of N proposals.
        advantages_N: (N,).

    Returns the loss to descend, `kl` (nats a proposal) and `entropy` (nats a decision).
    """
    total = advantages_N.new_zeros(())
    kl_sum = entropy_sum = 0.0
    count = 0
    for factor in OPTIONS:
        made = [(d, index) for index, proposal in enumerate(decisions_N) for d in proposal if d.factor == factor]
        if not made:
            continue
        of_factor = [decision for decision, _ in made]
        logprobs = policy.logprobs(of_factor)
        probabilities = logprobs.exp()
        chosen = logprobs.gather(1, torch.tensor([[d.chosen] for d in of_factor]))[:, 0]
        # What was not on offer has probability 0 and -inf as its log: their product would be NaN, in gradients too.
        barred = ~logprobs.isfinite()
        logprobs = logprobs.masked_fill(barred, 0.0)
        prior = torch.log_softmax(_log_prior(of_factor), -1).masked_fill(barred, 0.0)
        kl = (probabilities * (logprobs - prior)).sum()
        total = total - (advantages_N[[index for _, index in made]] * chosen).sum() + beta * kl
        kl_sum += float(kl.detach())
        entropy_sum -= float((probabilities * logprobs).sum().detach())
        count += len(made)
    proposals = len(decisions_N)
    return total / proposals, {"tactics_kl": kl_sum / proposals, "tactics_entropy": entropy_sum / max(1, count)}


def mix(decisions_N: Sequence[Sequence[Choice]]) -> dict[str, float]:
    """The share of every option among the decisions on its factor: {"content/open": 0.4, ...}."""
    counts = Counter((d.factor, d.chosen) for proposal in decisions_N for d in proposal)
    shares: dict[str, float] = {}
    for factor, names in OPTIONS.items():
        whole = sum(counts[factor, index] for index in range(len(names)))
        shares |= {f"{factor}/{name}": counts[factor, i] / whole if whole else 0.0 for i, name in enumerate(names)}
    return shares


def _log_prior(decisions: Sequence[Choice]) -> Tensor:
    return torch.tensor([decision.prior for decision in decisions]).log()


def _rows(factor: Factor) -> dict[str, tuple[str, ...]]:
    """The names of the rows of a factor's tables."""
    return {"all": ("",), "situation": SITUATIONS, "last": (*OPTIONS[factor], "")}
