"""`aot_core.answers` by its former name, from which models that were registered earlier import it."""

from aot_core.answers import extract_letter, is_exactly_boxed

__all__ = ["extract_letter", "is_exactly_boxed"]
