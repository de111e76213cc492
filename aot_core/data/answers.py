"""The answer parser by its former name: models that were registered earlier import it from here (`aot_core.answers`)."""

from aot_core.answers import extract_letter, is_exactly_boxed

__all__ = ["extract_letter", "is_exactly_boxed"]
