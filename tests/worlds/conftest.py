"""What the worlds' tests share with those of the data set and of the Attacker."""

from tests.attacker.conftest import red_ring_sample
from tests.data.conftest import build_fixture, coco

__all__ = ["build_fixture", "coco", "red_ring_sample"]
