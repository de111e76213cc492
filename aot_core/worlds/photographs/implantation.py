"""Adversarial implantation into photographs: things cut from one photograph are pasted into another, or over a thing
there; small things on plain ground are painted out.

    other photographs ----cutouts----> Cutout ----implant_photo----> edited picture + edits, or rejected

A cutout is an object's box with all that is in it: what lies in it whole comes along as an object, what lies in it
in part becomes doubtful. It is scaled, its edge feathered, and put where it touches no protected box (not even
within reach of the SSIM window) and hides next to nothing else. What can be removed or replaced,
`aot_core.worlds.photographs.spare` tells; where there is nothing, something is added instead.

Families, where names share no attributes: semantic is what is or looks like what the question is about (the same
COCO supercategory if there is such a cutout, else the nearer half of them in mean colour), irrelevant is the rest.
A question about something absent is about nothing that has a colour: there the picture's objects stand in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from aot_core.contracts.prepare_data import ImplantationSettings
from aot_core.contracts.scene import Box, DistractorFamily, Edit, EditKind, Question, SceneObject
from aot_core.worlds.coverage import Coverage, all_know
from aot_core.worlds.extension import Rejection
from aot_core.worlds.implantation import Implanted, in_neighbourhood
from aot_core.worlds.instructions import add_instruction, remove_instruction, replace_instruction
from aot_core.worlds.photographs.places import place_of, with_place
from aot_core.worlds.photographs.spare import PART, WHOLE, grown, hidden_share, paint_out, spare_things, widened
from aot_core.worlds.sources import Picture, move

LEAST_SIDE, MOST_SIDE = 0.14, 0.32
"""The longer side of a pasted thing over the shorter side of the picture."""
LEAST_PIXELS = 24
"""A cutout with a longer side below this is too small to be recognised when pasted."""
MOST_ENLARGED = 1.5
"""So far a cutout may be enlarged before it looks soft beside what surrounds it."""
MOST_STRETCHED = 1.5
"""So far a cutout's form may differ from that of the thing it replaces."""
MOST_HIDDEN = 0.1
"""The share of any unprotected object that a distractor may hide."""
NEIGHBOURHOOD = 0.12
"""A distractor in the neighbourhood of a box is at most so far from it, over the shorter side of the picture."""
_PLACES_TRIED = 60


@dataclass(frozen=True, eq=False)
class Cutout:
    """A thing cut from a photograph, with what else its box shows. Boxes are in the cutout's own pixels."""

    image: Image.Image
    main: SceneObject
    others: tuple[SceneObject, ...]
    doubtful: tuple[SceneObject, ...]
    source_id: str

    colour: NDArray[np.float32]
    """Mean RGB, (3,), 0..255."""
    coverages: tuple[Coverage, ...] = ()
    """As of the picture that it is cut from."""


def cutouts(picture: Picture) -> list[Cutout]:
    """Every object of a source photograph that can be cut out: neither tiny nor most of the picture."""
    found = []
    for thing in picture.scene.objects:
        box = thing.box
        whole_pixels = (round(box.x), round(box.y), round(box.right), round(box.bottom))
        large = box.area > 0.5 * picture.scene.width * picture.scene.height
        if max(box.width, box.height) < LEAST_PIXELS or large:
            continue
        others, doubtful = [], []
        for other in (*picture.scene.objects, *picture.doubtful):
            share = box.overlap(other.box) / other.box.area
            if other is thing or share < PART:
                continue
            certain = share >= WHOLE and other not in picture.doubtful
            (others if certain else doubtful).append(_inside(other, box))
        image = picture.image.crop(whole_pixels)
        found.append(
            Cutout(
                image=image,
                main=_inside(thing, box),
                others=tuple(others),
                doubtful=tuple(doubtful),
                source_id=picture.scene.source_id,
                colour=mean_colour(image),
                coverages=picture.coverages,
            )
        )
    return found


def implant_photo(
    rng: np.random.Generator,
    picture: Picture,
    question: Question,
    family: DistractorFamily,
    kinds: Sequence[EditKind],
    donors: Sequence[Cutout],
    supercategories: Mapping[str, str],
    settings: ImplantationSettings,
) -> Implanted | Rejection:
    """Carry out edits of the given kinds with cutouts from other photographs.

    Rejected: "no_distractor" (no cutout of the family), "no_room", "truth_changed".
    """
    fitting = of_family(picture, question, family, donors, supercategories)
    if not fitting:
        return Rejection("no_distractor")
    edits: list[Edit] = []
    current = picture
    order = rng.permutation(len(fitting))
    for turn, kind in enumerate(kinds):
        cutout = fitting[int(order[turn % len(fitting)])]
        used = [edit.region for edit in edits]
        is_open = bool(rng.random() < settings.open_instructions)
        done: tuple[Picture, Edit] | None = None
        if kind != "add":
            spare = _spare_of_family(current, question, family, used, kind, supercategories)
            for old in (spare[int(i)] for i in rng.permutation(len(spare))):
                # A replacement is by the first cutout, from this turn's on, that has the old thing's form.
                turns = [int(order[(turn + step) % len(fitting)]) for step in range(len(fitting))]
                tried = (_replaced(current, old, fitting[place], family, is_open) for place in turns)
                done = (
                    _removed(rng, current, old, family)
                    if kind == "remove"
                    else next((made for made in tried if made is not None), None)
                )
                if done is not None:
                    break
        if done is None:
            near = question.protected if in_neighbourhood(rng, family, settings) else ()
            region = room_for(rng, current, cutout, question.protected, used, near)
            if region is None:
                return Rejection("no_room")
            done = _added(current, cutout, region, family, is_open)
        current = done[0]
        edits.append(done[1])
    if current.settled(question.query) != question.answer_text:
        return Rejection("truth_changed")
    return Implanted(current, tuple(edits))


def _added(
    picture: Picture, cutout: Cutout, region: Box, family: DistractorFamily, is_open: bool
) -> tuple[Picture, Edit]:
    place = place_of(region, picture.image.size)
    assert place is not None, "_room gives regions with a place"
    told = None if is_open else {"name": cutout.main.attributes["name"]}
    added = with_place(cutout.main.model_copy(update={"box": region}), picture.image.size)
    edit = Edit(kind="add", instruction=add_instruction(told, place), family=family, region=region, added=added)
    return paste(picture, cutout, region), edit


def _removed(
    rng: np.random.Generator, picture: Picture, old: SceneObject, family: DistractorFamily
) -> tuple[Picture, Edit]:
    """The thing painted out, and with it what lay in its box."""
    region = grown(old.box, picture.image.size)
    place = old.attributes["place"]
    image = paint_out(rng, picture.image, region)
    rest = tuple(thing for thing in picture.scene.objects if hidden_share(thing, region) < WHOLE)
    told = remove_instruction({"name": old.attributes["name"]}, place)
    return picture.with_objects(image, rest), Edit(
        kind="remove", instruction=told, family=family, region=region, removed=old
    )


def _replaced(
    picture: Picture, old: SceneObject, cutout: Cutout, family: DistractorFamily, is_open: bool
) -> tuple[Picture, Edit] | None:
    """The cutout over the thing; None where it is of another form or too small to be drawn so large."""
    region = grown(old.box, picture.image.size)
    form = (region.width / region.height) / (cutout.image.width / cutout.image.height)
    enlarged = max(region.width, region.height) / max(cutout.image.size)
    if not 1 / MOST_STRETCHED <= form <= MOST_STRETCHED or enlarged > MOST_ENLARGED:
        return None
    if cutout.main.attributes["name"] == old.attributes["name"]:
        return None
    place = old.attributes["place"]
    rest = tuple(thing for thing in picture.scene.objects if hidden_share(thing, region) < WHOLE)
    told = None if is_open else {"name": cutout.main.attributes["name"]}
    added = with_place(cutout.main.model_copy(update={"box": region}), picture.image.size)
    edit = Edit(
        kind="replace",
        instruction=replace_instruction({"name": old.attributes["name"]}, place, told),
        family=family,
        region=region,
        removed=old,
        added=added,
    )
    return paste(picture.with_objects(picture.image, rest), cutout, region), edit


def of_family(
    picture: Picture,
    question: Question,
    family: DistractorFamily,
    donors: Sequence[Cutout],
    supercategories: Mapping[str, str],
) -> list[Cutout]:
    """The cutouts of other photographs that are of the family for this question.

    Never the very thing asked about, nor anything that may show it without saying so.
    """
    asked = {question.query.target["name"], question.query.reference.get("name")}
    others = [
        cutout
        for cutout in donors
        if cutout.source_id != picture.scene.source_id
        and cutout.main.attributes["name"] not in asked
        and all(all_know(cutout.coverages, name) for name in asked if name)
    ]
    named = [(cutout.main.attributes["name"], cutout.colour) for cutout in others]
    semantic = looks_alike(picture, question, named, supercategories)
    return [cutout for cutout, like in zip(others, semantic, strict=True) if like == (family == "semantic")]


def _spare_of_family(
    picture: Picture,
    question: Question,
    family: DistractorFamily,
    used: Sequence[Box],
    kind: EditKind,
    supercategories: Mapping[str, str],
) -> list[SceneObject]:
    """The picture's own things that an edit of a kind could take, and that are of the family for this question."""
    things = [thing for thing in picture.scene.objects if thing.box not in question.protected]
    named = [(thing.attributes["name"], mean_colour(_crop(picture, thing.box))) for thing in things]
    semantic = looks_alike(picture, question, named, supercategories)
    wanted = [thing for thing, like in zip(things, semantic, strict=True) if like == (family == "semantic")]
    return [thing for thing in spare_things(picture, question, used, kind) if thing in wanted]


def looks_alike(
    picture: Picture,
    question: Question,
    candidates: Sequence[tuple[str, NDArray[np.float32]]],
    supercategories: Mapping[str, str],
) -> list[bool]:
    """Of each candidate (name, mean colour), whether it is of the same kind as what is asked about, or, where none
    is, among the nearer half in colour."""
    asked = {question.query.target["name"], question.query.reference.get("name")}
    wanted = {supercategories.get(name, "") for name in asked if name} - {""}
    alike = [supercategories.get(name) in wanted for name, _ in candidates]
    if any(alike) or not candidates:
        return alike
    about = [thing for thing in picture.scene.objects if thing.box in question.protected]
    colours = [mean_colour(_crop(picture, thing.box)) for thing in about or picture.scene.objects]
    distances = [min(float(np.abs(colour - c).sum()) for c in colours) for _, colour in candidates]
    nearer = sorted(range(len(candidates)), key=distances.__getitem__)[: (len(candidates) + 1) // 2]
    return [place in nearer for place in range(len(candidates))]


def mean_colour(image: Image.Image) -> NDArray[np.float32]:
    """Mean RGB, (3,), 0..255."""
    return np.asarray(image, dtype=np.float32).mean((0, 1))


def paste(picture: Picture, cutout: Cutout, region: Box) -> Picture:
    """The picture with the cutout in `region` (whole pixels), its edge fading out inside the region."""
    size = int(region.width), int(region.height)
    image = picture.image.copy()
    image.paste(cutout.image.resize(size, Image.Resampling.LANCZOS), (int(region.x), int(region.y)), _feather(size))
    # By the thing's box, not by the cutout's whole pixels, so that the thing fills the region exactly.
    scale = region.width / cutout.main.box.width, region.height / cutout.main.box.height

    def put(thing: SceneObject) -> SceneObject:
        b = thing.box
        scaled = Box(x=b.x * scale[0], y=b.y * scale[1], width=b.width * scale[0], height=b.height * scale[1])
        moved = move(thing.model_copy(update={"box": scaled}), region.x, region.y)
        return with_place(moved, picture.image.size)

    objects = (*picture.scene.objects, *(put(thing) for thing in (cutout.main, *cutout.others)))
    doubtful = (*picture.doubtful, *(put(thing) for thing in cutout.doubtful))
    coverages = tuple(dict.fromkeys((*picture.coverages, *cutout.coverages)))
    return replace(picture.with_objects(image, objects), doubtful=doubtful, coverages=coverages)


def room_for(
    rng: np.random.Generator,
    picture: Picture,
    cutout: Cutout,
    protected: Sequence[Box],
    regions: Sequence[Box] = (),
    near: Sequence[Box] = (),
) -> Box | None:
    """A free place, and a size, for the cutout; None where none was found.

    Args:
        protected: boxes that it keeps out of, and so far from that no SSIM window reaches both.
        regions: further boxes that it keeps as far from.
        near: boxes in whose neighbourhood a place is looked for before any other.
    """
    width, height = picture.image.size
    longer = max(cutout.image.size)
    for turn in range(_PLACES_TRIED):
        # Free ground first; only where that is hard to find may a little of another object be hidden.
        hidden = 0.0 if turn < _PLACES_TRIED // 2 else MOST_HIDDEN
        side = min(float(rng.uniform(LEAST_SIDE, MOST_SIDE)) * min(width, height), MOST_ENLARGED * longer)
        w, h = (max(2, round(s * side / longer)) for s in cutout.image.size)
        corner = (
            _corner_near(rng, near[int(rng.integers(len(near)))], (w, h), picture.image.size)
            if near and turn < _PLACES_TRIED // 2
            else (int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)))
        )
        box = Box(x=corner[0], y=corner[1], width=w, height=h)
        wide = widened(box)
        if any(wide.overlap(other) for other in (*protected, *regions)):
            continue
        if any(box.overlap(thing.box) > hidden * thing.box.area for thing in picture.scene.objects):
            continue
        if place_of(box, picture.image.size):
            return box
    return None


def _corner_near(rng: np.random.Generator, box: Box, size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """An upper left corner that puts a thing of `size` on or around a box, wholly on the canvas."""
    margin = NEIGHBOURHOOD * min(canvas)
    corner = []
    for start, end, length, side in zip((box.x, box.y), (box.right, box.bottom), size, canvas, strict=True):
        least, most = (min(max(0, int(at)), side - length) for at in (start - margin - length, end + margin))
        corner.append(int(rng.integers(least, most + 1)))
    return corner[0], corner[1]


def _feather(size: tuple[int, int]) -> Image.Image:
    """An opaque middle that fades to nothing at the edge: mode L."""
    border = max(1, round(min(size) * 0.06))
    mask = Image.new("L", size, 0)
    mask.paste(255, (border, border, size[0] - border, size[1] - border))
    blurred = mask.filter(ImageFilter.GaussianBlur(border / 2))
    # The blur's tail ends at the region's edge: nothing outside the region changes, and nothing jumps at it.
    return ImageChops.multiply(blurred, _frame(size))


def _frame(size: tuple[int, int]) -> Image.Image:
    frame = Image.new("L", size, 0)
    frame.paste(255, (1, 1, max(size[0] - 1, 1), max(size[1] - 1, 1)))
    return frame


def _inside(thing: SceneObject, box: Box) -> SceneObject:
    """The part of a thing that a box shows, in the box's own pixels."""
    x, y = max(thing.box.x, box.x), max(thing.box.y, box.y)
    right, bottom = min(thing.box.right, box.right), min(thing.box.bottom, box.bottom)
    part = Box(x=x - box.x, y=y - box.y, width=right - x, height=bottom - y)
    return SceneObject(box=part, attributes={"name": thing.attributes["name"]})


def _crop(picture: Picture, box: Box) -> Image.Image:
    left, top = int(box.x), int(box.y)
    return picture.image.crop((left, top, max(int(box.right), left + 1), max(int(box.bottom), top + 1)))
