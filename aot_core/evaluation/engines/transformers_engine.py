"""Answers by transformers' batched `generate` in this process. Shapes: B questions in a batch, k samples of each."""

from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from aot_core.answers import completions_of
from aot_core.contracts.protocols import Completion
from aot_core.evaluation.engines.protocol import Ask, Journal, seed_of


class TransformersEngine:
    """A loaded image-text-to-text model and its processor (implements `protocol.Engine`).

    Batches are cut by the questions' order alone, and each is seeded by its first question: so what was answered before
    an interruption and after it are the answers of one uninterrupted run.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str,
        batch_size: int,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> None:
        """
        Args:
            name: tells the weights, for the journal.
            temperature: 0 is greedy, and all samples of a question are then the same.
        """
        self.model, self.processor = model, processor
        self.name, self.batch_size, self.max_new_tokens = name, batch_size, max_new_tokens
        self.temperature, self.seed = temperature, seed

    @property
    def identity(self) -> dict[str, object]:
        """See `Engine.identity`."""
        names = ("name", "batch_size", "max_new_tokens", "temperature", "seed")
        return {"engine": "transformers", **{name: getattr(self, name) for name in names}}

    def run(self, asks: Sequence[Ask], journal: Journal) -> None:
        """See `Engine.run`."""
        starts = range(0, len(asks), self.batch_size)
        for first in tqdm(starts, desc="ask", unit="batch", disable=None):
            batch = asks[first : first + self.batch_size]
            if all(journal.has(ask.key, sample) for ask in batch for sample in range(ask.samples)):
                continue
            for ask, texts in zip(batch, self._answer(batch), strict=True):
                for sample, text in enumerate(texts):
                    journal.record(ask.key, sample, text)

    @torch.no_grad()
    def _answer(self, batch: Sequence[Ask]) -> list[list[Completion]]:
        """B lists of k texts."""
        samples = max(ask.samples for ask in batch)
        drawn = samples if self.temperature > 0 else 1
        opened = [list(ask.open()) for ask in batch]
        texts = [self._chat(ask.prompt, len(pictures)) for ask, pictures in zip(batch, opened, strict=True)]
        inputs = self.processor(
            images=[picture for pictures in opened for picture in pictures] or None,
            text=texts,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self.model.device)
        sampling = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        with torch.random.fork_rng(devices=[self.model.device] if self.model.device.type == "cuda" else []):
            torch.manual_seed(seed_of(self.seed, batch[0].key))
            tokens = self.model.generate(
                **inputs,
                max_new_tokens=self.max_new_tokens,
                num_return_sequences=drawn,
                **(sampling if self.temperature > 0 else {"do_sample": False}),
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(new, skip_special_tokens=True)
        said = completions_of(texts, new.tolist(), self.model.generation_config.eos_token_id)
        groups = [said[i : i + drawn] for i in range(0, len(said), drawn)]
        if drawn == 1:
            groups = [group * samples for group in groups]
        return [group[: ask.samples] for group, ask in zip(groups, batch, strict=True)]

    def _chat(self, prompt: str, pictures: int) -> str:
        content = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": prompt}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
