"""The trainer of a Defender's round: shared prompts, and what turns TRL's GRPO into a complete, resumable DAPO.

On top of `SharedPromptTrainer`: images are opened when a prompt is asked, once a group; groups that teach nothing are
replaced (dynamic sampling); every answer's reward is kept; a micro-batch that does not fit into memory is halved; a
checkpoint holds all that a killed round needs to go on to the same bits.

Several processes have a share of the groups each; what is known of prompts and answers, all of them know.
Shapes: _P groups of this process, _G answers a group.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from aot_core.contracts.defender_round import DynamicSampling
from aot_core.defender.dynamic_sampling import Prospects, groups_of, join, useful_groups
from aot_core.defender.halving import Halving
from aot_core.defender.micro_batches import Batch, take
from aot_core.defender.reward_log import RewardLog
from aot_core.defender.rewards import Answered, Term
from aot_core.defender.shared_prompt_trainer import SharedPromptTrainer
from aot_core.worlds.images import open_image

COMPLETE = "complete"
"""The last file of a checkpoint: one without it was being written when its process died."""


class RoundTrainer(SharedPromptTrainer):
    """See the module. Rows of the data set: `number`, `picture`, `prompt`, `question`, `answer`, `options`."""

    def __init__(
        self,
        *args: Any,
        folder: Path,
        prompts: Dataset,
        terms: Mapping[str, Term],
        weights: Mapping[str, float],
        dynamic_sampling: DynamicSampling | None,
        reference_on_cpu: bool = False,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            folder: where the pictures are.
            prompts: every prompt once, `number` being its row; `train_dataset` is the order in which they are asked.
            terms: the reward's parts by name, and `weights` what each counts.
            reference_on_cpu: keep the reference model in the CPU's memory while it is not asked.
        """
        self._folder, self._prompts, self._dynamic = folder, prompts, dynamic_sampling
        self._ends: list[int] = []
        funcs = [self._as_reward_function(name, term) for name, term in terms.items()]
        super().__init__(*args, reward_funcs=funcs, **kwargs)
        self._ends = list(self.eos_token_ids)
        self.reward_log = RewardLog(weights)
        self.prospects = Prospects(len(prompts), self.args.seed)
        self.generated_tokens = 0
        self.training_memory = Halving("a micro-batch is trained")
        self._piece: Batch | None = None
        self._piece_share = 1.0
        self._reference_on_cpu = reference_on_cpu
        if reference_on_cpu:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError(
                    "defender_round.reference_on_cpu: FSDP and DeepSpeed move weights themselves; set their own "
                    "offload in run.accelerate's file, and leave this out"
                )
            assert self.ref_model is not None, "the config has seen to it"
            cast(torch.nn.Module, self.ref_model).to("cpu")

    def _as_reward_function(self, name: str, term: Term) -> Callable[..., list[float]]:
        """A term in TRL's form."""

        def score(completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
            return list(term(self._answered(completions, completion_ids, columns)))

        score.__name__ = name
        return score

    def _answered(self, completions: Any, completion_ids: Any, columns: Mapping[str, Any]) -> list[Answered]:
        return [
            Answered(
                completion=completion[-1]["content"],
                answer=columns["answer"][i],
                options=tuple(columns["options"][i]),
                tokens=len(ids),
                finished=bool(ids) and ids[-1] in self._ends,
                prompt=columns["question"][i],
            )
            for i, (completion, ids) in enumerate(zip(completions, completion_ids, strict=True))
        ]

    # A generation: ask, score, replace the groups that teach nothing, keep what everything earned.

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        if not self.model.training:  # pyright: ignore[reportOptionalMemberAccess]
            return self._ask(inputs, 0)[0]
        made, useful_P = self._ask(inputs, 0)
        figures = self._metrics["train"]
        kept = {name: list(values) for name, values in figures.items()}
        if self._dynamic is not None:
            made, useful_P = self._refill(made, useful_P, [row["number"] for row in inputs[:: self.num_generations]])
            # The loss is averaged over the tokens of the groups that are of use, as if no others had been asked.
            answers = useful_P.repeat_interleave(self.num_generations).to(made["completion_mask"].device)
            made["num_items_in_batch"] = self._over_processes(made["completion_mask"][answers].sum()).sum()
        figures.clear()
        figures.update(kept)  # what TRL counts is the policy on the prompts first asked
        figures["useful_groups"].append(self._over_processes(useful_P).float().mean().item())
        figures["generated_tokens"].append(self.generated_tokens)
        return made

    def _ask(self, inputs: list[dict[str, Any]], refill: int) -> tuple[Batch, Tensor]:
        """Answers to prompts (every row G times over) and (P,) which groups are of use."""
        opened: dict[str, Any] = {}
        for row in inputs:
            if row["picture"] not in opened:
                opened[row["picture"]] = open_image(self._folder, row["picture"])
        made = super()._generate_and_score_completions([{**row, "image": opened[row["picture"]]} for row in inputs])
        rewards_PG = self._rewards.view(-1, self.num_generations)
        useful_P = useful_groups(rewards_PG, self._dynamic)
        if self._dynamic is not None:
            outside = ~useful_P.repeat_interleave(self.num_generations)
            made["advantages"][outside.to(made["advantages"].device)] = 0.0
        self.generated_tokens += int(self._over_processes(made["completion_mask"].sum()).sum())
        asked = [row["number"] for row in inputs[:: self.num_generations]]
        for prompts, useful in gather_object([(asked, useful_P.tolist())]):
            self.prospects.note(prompts, useful)
        self._log_rewards(refill, useful_P.repeat_interleave(self.num_generations).tolist())
        return made, useful_P

    def _over_processes(self, values: Tensor) -> Tensor:
        """Every process's values, in a row."""
        return cast(Tensor, self.accelerator.gather(values.to(self.accelerator.device)))

    def _refill(self, made: Batch, useful_P: Tensor, asked: list[int]) -> tuple[Batch, Tensor]:
        """Other prompts in place of the groups that are of no use, up to the bound."""
        assert self._dynamic is not None
        group, process, processes = self.num_generations, self.accelerator.process_index, self.accelerator.num_processes
        asked = [number for numbers in gather_object([asked]) for number in numbers]
        for refill in range(1, self._dynamic.refills + 1):
            missing = (~useful_P).nonzero()[:, 0].tolist()
            # Every process asks as many, for they add up their figures together.
            most = int(self._over_processes(torch.tensor(len(missing))).max())
            chosen = self.prospects.choose(most * processes, asked, self.state.global_step, refill, 0)
            chosen = chosen[: len(chosen) // processes * processes]
            if not chosen:
                break
            asked = asked + chosen
            mine = chosen[process::processes]
            more, useful_more_P = self._ask([self._prompts[i] for i in mine for _ in range(group)], refill)
            groups, others = groups_of(made, group), groups_of(more, group)
            for slot, number in zip(missing, useful_more_P.nonzero()[:, 0].tolist(), strict=False):
                groups[slot], useful_P[slot] = others[number], True
            made = join(groups, cast(int, self._tokenizer.pad_token_id)) | {
                "num_items_in_batch": made["num_items_in_batch"]
            }
        return made, useful_P

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        gathered = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        start = self.accelerator.process_index * len(inputs)
        self._scores = gathered[start : start + len(inputs)].cpu()
        self._rewards = (self._scores * self.reward_weights).sum(1)
        columns = {name: [row[name] for row in inputs] for name in ("picture", "question", "answer", "options")}
        self._asked = columns, self._answered(completions, completion_ids_list, columns)
        return gathered

    def _log_rewards(self, refill: int, useful: Sequence[bool]) -> None:
        columns, answered = self._asked
        rows: dict[str, Sequence[Any]] = {
            "generation": [self.state.global_step // self.num_iterations] * len(answered),
            "refill": [refill] * len(answered),
            "completion": [one.completion for one in answered],
            "tokens": [one.tokens for one in answered],
            "finished": [one.finished for one in answered],
            "reward": self._rewards.tolist(),
            "useful": useful,
            **{name: columns[name] for name in ("picture", "question", "answer")},
            **{f"reward/{n}": self._scores[:, i].tolist() for i, n in enumerate(self.reward_func_names)},
        }
        for of_process in gather_object([rows]):
            self.reward_log.add(**of_process)

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._reference_on_cpu or model is not self.ref_model:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        model.to(self.accelerator.device)
        try:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        finally:
            model.to("cpu")

    # A micro-batch that does not fit is halved, and the update begun again with all of its micro-batches so.

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        if self.accelerator.num_processes > 1 or not self.shares_prompts:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()  # as Trainer does; a batch is prepared differently for evaluation
        first = self._step - self._step % self.args.gradient_accumulation_steps
        todo, step = [self._step], self._step
        self._prepare_inputs(inputs)  # asks, where that is due: smaller micro-batches would not help if it cannot

        def gradients() -> Tensor:
            for self._step in todo:
                loss = self._in_pieces(model, inputs, num_items_in_batch)
            return loss

        def begin_again() -> None:
            model.zero_grad()  # some of the failed step's gradients are there; the update's are made again, all of them
            todo[:] = range(first, step + 1)

        loss = self.training_memory.run(gradients, len(self._buffered_inputs[0]["advantages"]), begin_again)
        self._step = step + 1
        return loss

    def _in_pieces(self, model: Any, inputs: Any, num_items_in_batch: Any) -> Tensor:
        """One micro-batch's gradient, its pieces' losses added up: all are divided by the generation's tokens, or are
        means over answers, of which each piece has its share."""
        if self.training_memory.parts == 1:
            return super().training_step(model, inputs, num_items_in_batch)
        batch, step = self._prepare_inputs(inputs), self._step
        total, old, width = torch.zeros((), device=self.accelerator.device), [], batch["completion_ids"].shape[1]
        for rows in torch.arange(len(batch["advantages"])).chunk(self.training_memory.parts):
            self._piece, self._step = take(batch, rows), step
            if self.averages_answers:
                self._piece_share = len(rows) / len(batch["advantages"])
            try:
                total += super().training_step(model, inputs, num_items_in_batch)
                if "old_per_token_logps" in self._piece:
                    logprobs = self._piece["old_per_token_logps"]
                    old.append(pad(logprobs, (0, width - logprobs.shape[1])))
            finally:
                self._piece, self._piece_share = None, 1.0
        if old:
            batch["old_per_token_logps"] = torch.cat(old)  # the next pass over these answers wants them
        return total

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        return super()._compute_loss(model, inputs) * self._piece_share

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        return super()._prepare_inputs(generation_batch) if self._piece is None else self._piece

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> Any:
        rest = (images, multimodal_fields, num_generations, has_tool_images)
        cuts = self.accelerator.num_processes == 1 and self.shares_prompts
        most = len(prompt_ids) // num_generations if cuts else 0
        return self.generation_memory.run(
            lambda: super(RoundTrainer, self)._generate_single_turn(prompt_ids, *rest), most
        )

    # Checkpoints.

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # the mark vouches for every process's files
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            self.prospects.write(folder)
            self.reward_log.write(folder)
            (folder / "tokens").write_text(str(self.generated_tokens))
            os.sync()  # the mark must not reach the disk before what it vouches for
            (folder / COMPLETE).touch()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        if isinstance(self.model, PreTrainedModel) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            # Trainer takes the file's names for the model's: where a model is saved under older names than it uses,
            # as Qwen2.5-VL is, nothing would be loaded, and nothing said.
            saved = type(self.model).from_pretrained(folder, dtype=self.model.dtype)
            self.model.load_state_dict(saved.state_dict(), strict=True)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.prospects.read(folder)
        self.reward_log.read(folder)
        self.generated_tokens = int((folder / "tokens").read_text())


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end."""
    marks = folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{COMPLETE}")
    newest = max(marks, key=lambda mark: int(mark.parent.name.rpartition("-")[2]), default=None)
    return None if newest is None else str(newest.parent)
