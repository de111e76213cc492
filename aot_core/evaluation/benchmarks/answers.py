"""Benchmarks are read by the project's one answer parser (`aot_core.answers`)."""

from aot_core.answers import parse_choice, parse_yes_no

__all__ = ["parse_choice", "parse_yes_no"]
