"""The state of an Attacker's round, and its checkpoints.

RoundState: weights and their average, attack policy, both optimizers, random numbers, curve, best edits
         -> save: `update-000010/` (state.safetensors, state.json, best-N.png), whole or not there
         -> resume: the newest one; the round then ends with the bits of one that was never killed
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aot_core.attacker.editing import FlowEditor
from aot_core.attacker.reward import Reward
from aot_core.attacker.scenes import Target
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.attacker_round import AttackerRoundConfig
from aot_core.contracts.base import decisive, sha256_of
from aot_core.rl.advantages import PromptDeviations
from aot_core.worlds.proposals import Proposal

logger = logging.getLogger(__name__)

TENSORS, STATE = "state.safetensors", "state.json"
_UNFINISHED = ".unfinished"


class ProgressError(ValueError):
    """A checkpoint that belongs to another round."""


@dataclass(frozen=True)
class ScoredEdit:
    target: Target
    proposal: Proposal
    edited: Image.Image
    reward: Reward


@dataclass
class RoundHistory:
    """The curve of a round, an entry an update, and the best edits of its last fifth."""

    curve: list[dict[str, float]] = field(default_factory=list)
    best: list[ScoredEdit] = field(default_factory=list)
    edits: int = 0
    best_update: int | None = None
    """With `patience`: the update whose Attacker was kept."""

    def first(self, name: str) -> float:
        """Mean of a figure over the first fifth of the updates, at least one."""
        return float(np.mean([entry[name] for entry in self.curve[: self._fifth()]]))

    def last(self, name: str) -> float:
        return float(np.mean([entry[name] for entry in self.curve[-self._fifth() :]]))

    def mean(self, name: str) -> float:
        return float(np.mean([entry[name] for entry in self.curve]))

    def _fifth(self) -> int:
        return max(1, len(self.curve) // 5)


class RoundState:
    """A round between two updates. A new instance is the round's beginning."""

    def __init__(
        self, editor: FlowEditor, policy: AttackPolicy, targets: Sequence[Target], config: AttackerRoundConfig
    ) -> None:
        self.editor, self.policy, self.targets, self.config = editor, policy, targets, config
        self.rng = np.random.default_rng([config.seed, 11])
        self.generator = torch.Generator().manual_seed(config.seed)
        self.optimizer = torch.optim.AdamW(
            editor.trainable(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.policy_optimizer = torch.optim.Adam(policy.parameters(), lr=config.tactics.learning_rate)
        self.deviations = PromptDeviations(config.remembered_groups)
        self.average: EMAModel | None = None
        if config.ema is not None:
            # In float32 whatever the weights are: an average moves by less than half precision can tell.
            self.average = EMAModel([nn.Parameter(p.detach().float()) for p in editor.trainable()], decay=config.ema)
        if config.kl:
            editor.hold_reference()
        self.history = RoundHistory()
        self.update = 0
        self.looks: list[float] = []
        """With `patience`: the mean rewards measured so far."""
        self.kept = [tensor.detach().clone() for tensor in self._learned()] if config.patience is not None else []
        """With `patience`: weights and policy of the best look."""
        self.old = [tensor.detach().clone() for tensor in editor.trainable()] if config.nft is not None else []
        """With `nft`: the weights of the policy that samples."""

    def step_old(self) -> None:
        """Move the old policy towards the present weights: eta = min(old_rise x update, old_most) of it stays."""
        settings = self.config.nft
        assert settings is not None
        eta = min(settings.old_rise * self.update, settings.old_most)
        for old, present in zip(self.old, self.editor.trainable(), strict=True):
            old.mul_(eta).add_(present.detach(), alpha=1 - eta)

    @contextmanager
    def old_policy(self) -> Iterator[None]:
        """Inside, the editor has the weights that sample: with `nft` the old policy's, else its own."""
        if not self.old:
            yield
            return
        present = [parameter.detach().clone() for parameter in self.editor.trainable()]
        self._put(self.old)
        try:
            yield
        finally:
            self._put(present)

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.editor.trainable(), values, strict=True):
            parameter.copy_(value)

    def _learned(self) -> list[nn.Parameter]:
        """All that a round changes and leaves behind."""
        return [*self.editor.trainable(), *self.policy.parameters()]

    def keep(self) -> None:
        """Take the present weights and policy as the round's best so far."""
        for place, tensor in zip(self.kept, self._learned(), strict=True):
            place.copy_(tensor.detach())

    @torch.no_grad()
    def put_kept(self) -> None:
        """Leave the best look's weights and policy in place of the last update's."""
        for parameter, kept in zip(self._learned(), self.kept, strict=True):
            parameter.copy_(kept)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the editor has the average of its weights, where one is kept."""
        if self.average is None:
            yield
            return
        self.average.store(self.editor.trainable())
        self.put_average()
        try:
            yield
        finally:
            self.average.restore(self.editor.trainable())

    def step_average(self) -> None:
        """Take the present weights into their average, where one is kept."""
        if self.average is not None:
            self.average.step(self.editor.trainable())

    def put_average(self) -> None:
        """Leave the average in the editor in place of the last update's weights, where one is kept."""
        if self.average is not None:
            self.average.copy_to(self.editor.trainable())

    def save(self, progress: Path) -> None:
        """Write `progress/update-N` atomically, by renaming a complete folder; then remove the older ones."""
        progress.mkdir(parents=True, exist_ok=True)
        final = progress / f"update-{self.update:06d}"
        unfinished = final.with_suffix(_UNFINISHED)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        save_file(self._tensors(), unfinished / TENSORS)
        for number, edit in enumerate(self.history.best):
            edit.edited.save(unfinished / f"best-{number}.png")
        (unfinished / STATE).write_text(json.dumps(self._state()))
        for path in [*unfinished.iterdir(), unfinished]:
            _to_disk(path)
        unfinished.rename(final)
        _to_disk(progress)
        for older in progress.glob("update-*"):
            if older != final:
                shutil.rmtree(older, ignore_errors=True)

    def resume(self, progress: Path) -> bool:
        """Resume from the newest checkpoint in `progress`, if there is one.

        Raises ProgressError for the checkpoint of another round.
        """
        found = sorted(folder for folder in progress.glob("update-*") if folder.suffix != _UNFINISHED)
        if not found:
            return False
        folder = found[-1]
        state = json.loads((folder / STATE).read_text())
        if state["about"] != self._about():
            raise ProgressError(f"{folder} belongs to a round of another config or other scenes; give another folder")
        self._put_tensors(load_file(folder / TENSORS))
        self.rng.bit_generator.state = state["rng"]
        self.deviations.load(state["deviations"])
        if self.average is not None:
            self.average.optimization_step = state["averaged"]
        self.update = state["update"]
        self.looks = state.get("looks", [])
        self.history = RoundHistory(curve=state["curve"], edits=state["edits"])
        for number, kept in enumerate(state["best"]):
            with Image.open(folder / f"best-{number}.png") as picture:
                edited = picture.convert("RGB")
            reward = Reward(**{**kept["reward"], "answers": tuple(kept["reward"]["answers"])})
            proposal = Proposal.model_validate(kept["proposal"])
            self.history.best.append(ScoredEdit(self.targets[kept["target"]], proposal, edited, reward))
        logger.info("attacker_round: resuming after update %d of %d", self.update, self.config.updates)
        return True

    def _about(self) -> str:
        return sha256_of([decisive(self.config), [target.sample.sample_id for target in self.targets]])

    def _state(self) -> dict[str, Any]:
        number_of = {target.sample.sample_id: number for number, target in enumerate(self.targets)}
        return {
            "about": self._about(),
            "update": self.update,
            "looks": self.looks,
            "rng": self.rng.bit_generator.state,
            "deviations": self.deviations.state(),
            "averaged": self.average.optimization_step if self.average is not None else 0,
            "curve": self.history.curve,
            "edits": self.history.edits,
            "best": [
                {
                    "target": number_of[edit.target.sample.sample_id],
                    "proposal": edit.proposal.model_dump(mode="json"),
                    "reward": asdict(edit.reward),
                }
                for edit in self.history.best
            ],
        }

    def _places(self) -> dict[str, Sequence[Tensor]]:
        """The tensors that are copied into as they are."""
        places: dict[str, Sequence[Tensor]] = {
            "weights": self.editor.trainable(),
            "policy": list(self.policy.parameters()),
        }
        if self.average is not None:
            places["average"] = self.average.shadow_params
        if self.kept:
            places["kept"] = self.kept
        if self.old:
            places["old"] = self.old
        return places

    def _tensors(self) -> dict[str, Tensor]:
        named = {"generator": self.generator.get_state()}
        for name, tensors in self._places().items():
            named |= {f"{name}.{number}": tensor for number, tensor in enumerate(tensors)}
        for name, optimizer in self._optimizers().items():
            for number, moments in optimizer.state_dict()["state"].items():
                named |= {f"{name}.{number}.{moment}": value for moment, value in moments.items()}
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in named.items()}

    @torch.no_grad()
    def _put_tensors(self, named: dict[str, Tensor]) -> None:
        self.generator.set_state(named["generator"])
        for name, tensors in self._places().items():
            for number, tensor in enumerate(tensors):
                tensor.copy_(named[f"{name}.{number}"])
        for name, optimizer in self._optimizers().items():
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in named.items():
                of, _, rest = key.partition(".")
                if of == name:
                    number, _, moment = rest.partition(".")
                    moments.setdefault(int(number), {})[moment] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"optimizer": self.optimizer, "policy_optimizer": self.policy_optimizer}


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
