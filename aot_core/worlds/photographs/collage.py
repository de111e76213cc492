"""Scene extension without a model: a collage. Things from other photographs on the ground beside a photograph.

    extended photograph + cutouts of the same split ----add_things----> the same with more on it

A mirrored border shows nothing, so all that a pair could take away would be the photograph's own. What is pasted here
has its box and its name, and the ground beneath it is plain: it can be asked about, removed and replaced. The three
checks look at the result as at any other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from aot_core.contracts.prepare_data import ExtensionSettings
from aot_core.contracts.scene import SceneObject
from aot_core.worlds.extension import Extended
from aot_core.worlds.photographs.implantation import Cutout, paste, room_for


def add_things(
    rng: np.random.Generator, extended: Extended, donors: Sequence[Cutout], settings: ExtensionSettings
) -> Extended:
    """Paste as many cutouts as the settings say into the new part, fewer where there is no room for them.

    None of them brings along a name that the scene has already: that would be a second copy of a thing.
    """
    least, most = settings.pasted
    if most == 0:
        return extended
    picture = extended.picture
    wanted = int(rng.integers(least, most + 1))
    others = [cutout for cutout in donors if cutout.source_id != picture.scene.source_id]
    pasted = 0
    for index in rng.permutation(len(others)):
        if pasted == wanted:
            break
        cutout = others[int(index)]
        present = _names((*picture.scene.objects, *picture.doubtful))
        if present & _names((cutout.main, *cutout.others, *cutout.doubtful)):
            continue
        region = room_for(rng, picture, cutout, [extended.original])
        if region is not None:
            picture = paste(picture, cutout, region)
            pasted += 1
    return replace(extended, picture=picture)


def _names(things: Iterable[SceneObject]) -> set[str]:
    return {thing.attributes["name"] for thing in things}
