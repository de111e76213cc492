r"""The Defender at work: images and questions in, completions (raw text) or the letters' log-probabilities out.

Image and prompt are encoded once per question; the cache is then repeated for the samples, so that k samples cost one
prefill. Shapes: B questions in a batch, G samples a question, T tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch
from PIL.Image import Image
from transformers import BatchFeature

from aot_core.answers import completions_of
from aot_core.contracts.learning import DType
from aot_core.contracts.protocols import Completion
from aot_core.contracts.scene import LETTERS, Question
from aot_core.defender.loading import Model, Processor, load_model, load_processor
from aot_core.defender.sharing import generate_samples
from aot_core.rl.precision import warn_of_merging

_MARK = "<question>"


class Defender:
    """A vision-language model that answers questions (implements `contracts.protocols.Answerer`)."""

    def __init__(
        self,
        model: Model,
        processor: Processor,
        *,
        batch_size: int = 64,
        max_new_tokens: int = 16,
        offload: bool = False,
    ) -> None:
        """
        Args:
            batch_size: questions encoded at a time.
            max_new_tokens: a completion's longest length; generation stops earlier at the end-of-turn token.
            offload: keep the weights in CPU memory between calls. A call then moves them to the device and back.
        """
        if batch_size < 1 or max_new_tokens < 1:
            raise ValueError(f"batch_size {batch_size} and max_new_tokens {max_new_tokens} must be at least 1")
        self.model = model.eval()
        self.offload = offload
        self._device = model.device
        if offload:
            self.model.to("cpu")
        self.processor = processor
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self._template = chat_prompt(processor, _MARK)
        self._letter_prefix, self._letter_ids = letter_tokens(processor)

    @classmethod
    def load(
        cls,
        base: str,
        adapter: Path | None = None,
        device: str = "cpu",
        dtype: DType = "float32",
        *,
        batch_size: int = 64,
        max_new_tokens: int = 16,
        merge: bool = False,
        offload: bool = False,
    ) -> Self:
        """Load a model by name or folder and, if given, a LoRA adapter (a peft folder).

        The adapter is merged into float32 weights and stays beside weights in half precision, where rounding would
        undo most of what it has learned.

        Args:
            merge: merge into half precision too, for programs that read no adapters.
        """
        model = load_model(base, dtype, device)
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
            if merge or dtype == "float32":
                warn_of_merging(base, dtype)
                model = model.merge_and_unload()
        processor = load_processor(base)
        return cls(model, processor, batch_size=batch_size, max_new_tokens=max_new_tokens, offload=offload)

    @torch.no_grad()
    def answer(
        self, images: Sequence[Image], questions: Sequence[Question], *, samples: int, temperature: float, seed: int
    ) -> list[list[str]]:
        """Answer every (image, question) `samples` times; one list of completions per question.

        Each is a `Completion`, which knows whether `max_new_tokens` cut it off. Temperature 0 is greedy (the samples
        are then the same). The same seed gives the same answers. Raises ValueError when images and questions differ in
        number, or samples or temperature are out of range.
        """
        if samples < 1:
            raise ValueError(f"samples is {samples}; ask at least once")
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; give 0 (greedy) or more")
        drawn = samples if temperature > 0 else 1
        completions: list[list[Completion]] = []
        cuda = [self._device] if self._device.type == "cuda" else []
        with self._at_work(), torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            for inputs, _ in self._batches(images, questions):
                tokens_GT = self._generate(inputs, drawn, temperature)
                said = self.processor.batch_decode(tokens_GT, skip_special_tokens=True)
                texts = completions_of(said, tokens_GT.tolist(), self.model.generation_config.eos_token_id)
                completions += [texts[i : i + drawn] for i in range(0, len(texts), drawn)]
        return [[*one] if drawn == samples else [*one * samples] for one in completions]

    @torch.no_grad()
    def letter_logprobs(self, images: Sequence[Image], questions: Sequence[Question]) -> list[dict[str, float]]:
        r"""The log-probability of every option's letter after a forced `\boxed{`: a dense measure of how sure it is.

        The probabilities of a question's letters need not add up to 1: the rest is what the model would write instead
        of a letter. Raises ValueError when images and questions differ in number.
        """
        answers: list[dict[str, float]] = []
        with self._at_work():
            for inputs, batch in self._batches(images, questions, suffix=self._letter_prefix):
                logprobs = self.model(**inputs, logits_to_keep=1).logits[:, -1].float().log_softmax(-1).cpu()
                for row, question in zip(logprobs, batch, strict=True):
                    letters = question_letters(question)
                    answers.append({letter: row[self._letter_ids[letter]].item() for letter in letters})
        return answers

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """The model on its device; with `offload` it returns to the CPU afterwards, and its memory to the device."""
        if not self.offload:
            yield
            return
        self.model.to(self._device)
        try:
            yield
        finally:
            self.model.to("cpu")
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _batches(
        self, images: Sequence[Image], questions: Sequence[Question], suffix: str = ""
    ) -> Iterator[tuple[BatchFeature, Sequence[Question]]]:
        """Model inputs, left-padded, and the questions that they hold."""
        if len(images) != len(questions):
            raise ValueError(f"{len(images)} images but {len(questions)} questions; give one image a question")
        for start in range(0, len(images), self.batch_size):
            batch = questions[start : start + self.batch_size]
            texts = [self._template.replace(_MARK, question.prompt) + suffix for question in batch]
            pictures = [image.convert("RGB") for image in images[start : start + self.batch_size]]
            inputs = self.processor(images=pictures, text=texts, padding=True, padding_side="left", return_tensors="pt")
            yield inputs.to(self.model.device), batch

    def _generate(self, inputs: BatchFeature, samples: int, temperature: float) -> torch.Tensor:
        """(B * samples, T) new tokens, the samples of a question next to each other."""
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        return generate_samples(
            self.model,
            inputs,
            samples,
            max_new_tokens=self.max_new_tokens,
            **(sampling if temperature > 0 else {"do_sample": False}),
        )


def chat_prompt(processor: Processor, text: str) -> str:
    """One image and a text in the model's chat template, up to where the answer begins."""
    content = [{"type": "image"}, {"type": "text", "text": text}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def question_letters(question: Question) -> str:
    """The letters on offer, `"ABCD"`."""
    return LETTERS[: len(question.options)]


def letter_tokens(processor: Processor) -> tuple[str, dict[str, int]]:
    r"""How this tokenizer writes `\boxed{X}`: the text before the token that holds the letter, and that token's id."""
    spellings = {letter: processor.tokenizer(f"\\boxed{{{letter}}}").input_ids for letter in LETTERS}
    first = min(spellings.values(), key=len)
    at = next(i for i in range(len(first)) if len({ids[i] for ids in spellings.values()}) > 1)
    letter_ids = {letter: ids[at] for letter, ids in spellings.items()}
    assert len(set(letter_ids.values())) == len(LETTERS), "every letter has a token of its own"
    return processor.tokenizer.decode(first[:at]), letter_ids
