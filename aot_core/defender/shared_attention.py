"""Attention in which many answers read one prompt's keys and values, registered with transformers' attention interface.

Stock code puts each answer in a row of its own together with its prompt, and so computes a prompt once per answer. Here
a row holds one prompt followed by all its answers, the *branches*: a branch's tokens see the prompt
and their own past, never a sibling. That is the same mathematics, and nothing is cached, so gradients, activation
checkpointing, adapters and sharded models work as they do on plain rows.

Shapes: U prompts, L prompt tokens (right-padded), K branches a prompt, T tokens a branch; G answers a prompt while
generating, where the prompt's keys and values stand once and only the answers' own grow.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PREFIX = "shared_prompt_"
"""Before the name of the attention that it stands on: `shared_prompt_sdpa`."""


@dataclass(frozen=True)
class Branches:
    """How the rows of a batch are laid out: L prompt tokens, then K * T answer tokens."""

    prompt: int
    """L."""
    count: int
    """K."""
    length: int
    """T."""
    prompt_lengths: tuple[int, ...]
    """(U,) real tokens of every prompt; the rest of its L is padding, on the right."""
    mask: Tensor | None
    """(U, 1, K * T, L + K * T) of bool: what the branches see. None where branches are so long that a mask over all
    of them would cost more than giving every branch its copy of the prompt's keys and values."""


def make_branches(prompt_lengths: Tensor, prompt: int, count: int, length: int) -> Branches:
    """Lay out `count` branches of `length` tokens behind prompts of `prompt_lengths` (U,) real tokens."""
    lengths = tuple(prompt_lengths.tolist())
    # A mask over all branches makes each look at its siblings in vain: K * T more keys a query, against a copy of L.
    if count * length > max(prompt, 1024):
        return Branches(prompt, count, length, lengths, None)
    device = prompt_lengths.device
    sees_prompt = torch.arange(prompt, device=device) < prompt_lengths[:, None]
    branch = torch.arange(count * length, device=device)
    same = branch[:, None] // length == branch // length
    sees_past = same & (branch[:, None] >= branch)
    mask = torch.cat(
        [
            sees_prompt[:, None].expand(-1, count * length, -1),
            sees_past.expand(len(lengths), -1, -1),
        ],
        -1,
    )
    return Branches(prompt, count, length, lengths, mask[:, None])


class PromptCache(DynamicCache):
    """Keys and values of U prompts, once, and those of the G answers to each, which grow with every token."""

    def __init__(self, prompts: DynamicCache, visible: Tensor, group: int, config: Any) -> None:
        """
        Args:
            prompts: what the prompts' encoding left, (U, heads, L, width) a layer.
            visible: (U, L) of bool, False where a prompt is padding.
        """
        super().__init__(config=config)
        self.group = group
        self.prompt_length = visible.shape[1]
        self.hidden = None if bool(visible.all()) else ~visible[:, None, None]
        layers: list[Any] = list(prompts.layers)
        self._keys = [layer.keys for layer in layers]
        self._values = [layer.values for layer in layers]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.prompt_length + super().get_seq_length(layer_idx)

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """One new token's attention: (U * G, heads, 1, width) on the prompt's and its own (U * G, ...) past.

        Two products a side and one softmax over both: no copy of the prompt's keys and values is made.
        """
        prompt_keys, prompt_values = self._keys[module.layer_idx], self._values[module.layer_idx]
        prompts, kv_heads = prompt_keys.shape[:2]
        rows, heads, _, width = query.shape
        split = (prompts, self.group, kv_heads, heads // kv_heads)
        # (U, kv heads, G * heads a kv head, width): all queries that read the same keys, in one product.
        shared = (query * scaling).view(*split, width).transpose(1, 2).flatten(2, 3)
        on_prompt = shared @ prompt_keys.transpose(-1, -2)
        if self.hidden is not None:
            on_prompt = on_prompt.masked_fill(self.hidden, float("-inf"))
        own = (query * scaling).view(rows, kv_heads, -1, width) @ key.transpose(-1, -2)
        own = own.view(*split, -1).transpose(1, 2).flatten(2, 3)
        weights = torch.cat([on_prompt, own], -1).softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32))
        on_prompt, own = weights.to(query.dtype).split([self.prompt_length, key.shape[2]], -1)
        from_prompt = (on_prompt @ prompt_values).unflatten(2, (self.group, -1)).transpose(1, 2)
        own = own.unflatten(2, (self.group, -1)).transpose(1, 2).reshape(rows, kv_heads, heads // kv_heads, -1)
        return (from_prompt.reshape(rows, heads, width) + (own @ value).view(rows, heads, width))[:, None]


_decoding: ContextVar[PromptCache | None] = ContextVar("decoding", default=None)


@contextmanager
def decoding(cache: PromptCache) -> Iterator[None]:
    """Inside, single new tokens attend to the cache's shared prompts."""
    token = _decoding.set(cache)
    try:
        yield
    finally:
        _decoding.reset(token)


def share_attention(text_model: Any) -> None:
    """Let a language model's attention understand branches and shared prompts; plain rows are attended to as before.

    Changes the name of the attention in the model's live config, which is no part of what is saved.
    """
    base = text_model.config._attn_implementation
    if base.startswith(PREFIX):
        return
    name = PREFIX + base
    if name not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        plain = ALL_ATTENTION_FUNCTIONS.get_interface(base, _eager_of(text_model))
        AttentionInterface.register(
            name, _branching(plain, causal=plain if "flash" in base else sdpa_attention_forward)
        )
        plain_mask = ALL_MASK_ATTENTION_FUNCTIONS.get(base, sdpa_mask)
        AttentionMaskInterface.register(name, lambda *a, **k: None if _decoding.get() else plain_mask(*a, **k))
    text_model.config._attn_implementation = name


def _eager_of(text_model: Any) -> Callable[..., Any]:
    """The model's own eager attention: every modelling file has one, under this name."""
    import sys

    return sys.modules[type(text_model).__module__].eager_attention_forward


def _branching(plain: Callable[..., Any], causal: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """
    Args:
        plain: the attention of plain rows.
        causal: one that is causal where it is given no mask.
    """

    def attention(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *args: Any,
        shared_prompt: Branches | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        cache = _decoding.get()
        if cache is not None:
            assert query.shape[2] == 1 and not args, "answers grow by one token"
            return cache.attend(module, query, key, value, kwargs["scaling"]), None
        if shared_prompt is None:
            return plain(module, query, key, value, attention_mask, *args, **kwargs)
        end = shared_prompt.prompt
        # Prompts are padded on the right: what is real never sees padding, so causality is all the mask they need.
        on_prompt, _ = causal(module, query[:, :, :end], key[:, :, :end], value[:, :, :end], None, *args, **kwargs)
        if shared_prompt.mask is None:
            on_branches = _branch_by_branch(module, query, key, value, shared_prompt, *args, **kwargs)
        else:
            on_branches, _ = sdpa_attention_forward(
                module, query[:, :, end:], key, value, shared_prompt.mask, *args, **kwargs
            )
        return torch.cat([on_prompt, on_branches], 1), None

    return attention


def _branch_by_branch(
    module: Any, query: Tensor, key: Tensor, value: Tensor, layout: Branches, *args: Any, **kwargs: Any
) -> Tensor:
    """(U, K * T, heads, width): prompt by prompt, every branch a row of a batch with a copy of the prompt's keys."""

    def rows(states: Tensor, prompt: int, real: int) -> Tensor:
        branches = states[prompt, :, layout.prompt :].unflatten(1, (layout.count, layout.length)).transpose(0, 1)
        return torch.cat([states[prompt, :, :real].expand(layout.count, -1, -1, -1), branches], 2) if real else branches

    found = []
    for prompt, real in enumerate(layout.prompt_lengths):
        sees = causal_lower_right(layout.length, real + layout.length)
        attended, _ = sdpa_attention_forward(
            module, rows(query, prompt, 0), rows(key, prompt, real), rows(value, prompt, real), sees, *args, **kwargs
        )
        found.append(attended.flatten(0, 1))
    return torch.stack(found)
