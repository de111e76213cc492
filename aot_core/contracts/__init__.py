"""Typed configs, inputs and outputs of every stage, and the data they speak of. Imports without torch."""
