"""Edits held to geometry and pixels. What a judge adds: `test_inspection`."""

import numpy as np
from PIL import Image

from aot_core.contracts.attack import ValiditySettings
from aot_core.contracts.scene import Edit, Sample
from aot_core.worlds.instructions import add_instruction
from aot_core.worlds.photographs.check import PhotoChecker
from aot_core.worlds.proposals import Proposal
from aot_core.worlds.shapes import world


def add_at(cell: world.Cell) -> Proposal:
    told = add_instruction(None, cell)
    edit = Edit(kind="add", instruction=told, family="semantic", region=world.cell_box(cell))
    return Proposal(instruction=told, edits=(edit,))


def painted(sample: Sample, colour: str, shape: str, cell: world.Cell) -> Image.Image:
    thing = world.place(np.random.default_rng(1), {"colour": colour, "shape": shape}, cell)
    return world.render((*sample.scene.objects, thing), world.Backdrop())


def test_photographs_are_valid_where_regions_changed_and_touch_no_protected_box(
    red_ring_sample: tuple[Sample, Image.Image],
):
    sample, clean = red_ring_sample
    edited = painted(sample, "red", "circle", (3, 3))
    checker = PhotoChecker(ValiditySettings())
    good, lazy, touching = checker.check(
        [sample] * 3, [add_at((3, 3)), add_at((3, 3)), add_at((1, 1))], [clean] * 3, [edited, clean, edited]
    )
    assert good.valid
    assert not lazy.semantic
    assert not touching.truth_kept
