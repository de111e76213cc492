"""What changed, in shares of the whole."""

import pytest
from PIL import Image

from aot_core.contracts.scene import Box
from aot_core.worlds.validity import changed_shares


def test_changed_shares_count_the_whole_and_what_lies_in_no_region():
    clean = Image.new("RGB", (10, 10), "white")
    edited = Image.new("RGB", (10, 10), "black")
    shares = changed_shares(clean, edited, [Box(x=0, y=0, width=10, height=4)])
    assert shares == (1.0, pytest.approx(0.6))
