"""An editor of your own: anything that returns an edited picture. This one follows a rule and learns nothing.

    .venv/bin/python examples/own_editor.py

The checks do not care who painted: they parse the result, and refuse what touches the question's object or changes the
truth. To *train* an editor, write an `EditorAdapter` instead (docs/extending.md).
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from aot_core.attacker.curation import make_edits
from aot_core.attacker.scenes import Target
from aot_core.attacker.tactics import AttackPolicy
from aot_core.contracts.attack import ProposalSettings
from aot_core.contracts.curate import CurateConfig
from aot_core.worlds.probe import sample_of
from aot_core.worlds.shapes.world import CELL, COLOURS

SCENE = Path(__file__).parents[1] / "docs" / "probe-scene.png"


class SquarePainter:
    """Implements `aot_core.contracts.protocols.Editor`: a square of a random colour wherever an object is asked for."""

    def edit(self, images: Sequence[Image.Image], instructions: Sequence[str], *, seed: int) -> list[Image.Image]:
        rng = np.random.default_rng(seed)
        return [self._edited(image, told, rng) for image, told in zip(images, instructions, strict=True)]

    def _edited(self, image: Image.Image, told: str, rng: np.random.Generator) -> Image.Image:
        edited = image.copy()
        for row, column in re.findall(r"Add an? [^.]*? at row (\d), column (\d)", told):
            x, y = (int(column) - 1) * CELL + 3, (int(row) - 1) * CELL + 3
            colour = list(COLOURS.values())[rng.integers(len(COLOURS))]
            ImageDraw.Draw(edited).rectangle((x, y, x + CELL - 7, y + CELL - 7), fill=colour)
        return edited


def main() -> None:
    sample, picture = sample_of(SCENE, "Is there a red ring?", ["yes", "no"], "yes", boxes=[])
    config = CurateConfig(edits_per_scene=64, proposals=ProposalSettings(edits=(1, 1), kinds=("add",)))
    valid, funnel = make_edits(
        SquarePainter(), AttackPolicy(), [Target(sample, picture)], config, np.random.default_rng(0)
    )
    print(
        f"{funnel.edited} edits: {funnel.intact} leave the ring alone, {funnel.confined} of these keep to the region "
        f"that was named, {funnel.semantic} of these show an object, {len(valid)} of these keep the truth"
    )


if __name__ == "__main__":
    main()
