"""Why a generation ended: which of its completions the limit on new tokens cut off."""

from collections.abc import Iterable, Sequence

from aot_core.contracts.protocols import Completion


def completions_of(
    texts: Sequence[str], tokens: Iterable[Sequence[int]], ends: int | Sequence[int] | None
) -> list[Completion]:
    """The texts, each with whether it was cut off: whether none of its tokens ends it.

    Args:
        texts: one for each row of tokens.
        tokens: the new tokens, padding included.
        ends: the model's `generation_config.eos_token_id`; where it has none, nothing is known and nothing is cut off.
    """
    known = {ends} if isinstance(ends, int) else set(ends or ())
    return [
        Completion(text, cut_off=bool(known) and known.isdisjoint(row)) for text, row in zip(texts, tokens, strict=True)
    ]
