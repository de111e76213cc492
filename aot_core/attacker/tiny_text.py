"""The tiny editor's reading: a word-level tokenizer and a small text encoder.

An instruction ("Add a red ring at row 2, column 3.", several sentences, perhaps a question after them)
becomes token ids (B, L) with a mask, and these become hidden states (B, L, D) that the transformer attends
to. The vocabulary is that of `aot_core.worlds.instructions` and of the procedural questions; other words are
[UNK].
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from aot_core.worlds.questions import plural
from aot_core.worlds.shapes import world

MAX_TOKENS = 64
PAD, UNKNOWN, END = "[PAD]", "[UNK]", "."
_WORDS = "add remove replace object another question is there what shape colour how many objects where seen from"
_SILENT = r"\b(a|an|the|at|with|are)\b|[,:]"
"""Words and marks that the grammar needs and the meaning does not; short inputs are what the tiny editor
lives by."""


def instruction_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, made from the grammar: a token a word that matters, "row 2" one of them.

    A question mark ends a sentence as a full stop does.
    """
    shapes = [*world.SHAPES, *map(plural, world.SHAPES)]
    places = [f"{axis}{n}" for axis in ("row", "column") for n in range(1, world.GRID + 1)]
    words = list(dict.fromkeys([PAD, UNKNOWN, END, *_WORDS.split(), *places, *world.COLOURS, *shapes]))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            normalizers.Lowercase(),
            normalizers.Replace("?", END),
            normalizers.Replace(Regex(_SILENT), " "),
            normalizers.Replace("row ", "row"),
            normalizers.Replace("column ", "column"),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        model_max_length=MAX_TOKENS,
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask, both (B, L), L the longest of the batch. Raises ValueError for one that is too long."""
    encoded = tokenizer(list(instructions), padding=True, return_tensors="pt")
    if encoded["input_ids"].shape[1] > MAX_TOKENS:
        longest = max(instructions, key=len)
        raise ValueError(f"instruction has more than {MAX_TOKENS} words, give fewer edits: {longest!r}")
    return encoded["input_ids"], encoded["attention_mask"]


class TinyTextEncoder(ModelMixin, ConfigMixin):
    """Two transformer layers over words that know their sentence and their place in it."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        vocabulary: int = 64,
        end_id: int = 2,  # noqa: ARG002 (read from the config)
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        feed_forward: int = 384,
        max_tokens: int = MAX_TOKENS,
        max_sentences: int = 6,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(max_tokens, width)
        self.sentences = nn.Embedding(max_sentences, width)
        for table in (self.words, self.places, self.sentences):
            nn.init.normal_(table.weight, std=0.5)
        layer = nn.TransformerEncoderLayer(
            width, heads, feed_forward, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) ids and mask (1 = a word) to (B, L, D)."""
        ends = (input_ids == self.config["end_id"]).long()
        sentence = ends.cumsum(1) - ends
        index = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        starts = torch.where(ends.bool(), index + 1, 0).cummax(1).values
        # The full stop belongs to the sentence that it ends.
        starts = torch.cat([torch.zeros_like(starts[:, :1]), starts[:, :-1]], 1)
        hidden = (
            self.words(input_ids)
            + self.places(index - starts)
            + self.sentences(sentence.clamp(max=self.config["max_sentences"] - 1))
        )
        return self.encoder(hidden, src_key_padding_mask=attention_mask == 0)
