"""Adversarial Opponent Training (arXiv 2602.22227): everything but the orchestration."""

__version__ = "0.1.0"
