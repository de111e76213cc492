"""A page of pictures: clean | edited | difference, beside each the question, the truth and the answers.

Made by the Attacker's rounds, by curation and by evaluation; shown in the tracker and in the report. Pictures
of any size come out alike: tiny ones are enlarged without smoothing, so that a pixel stays a pixel, large
ones are reduced.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageChops, ImageDraw, ImageFont

from aot_core.contracts.scene import LETTERS, Question

SIDE = 192
"""Pixels of a picture's longer side on the page."""
DIFFERENCE_GAIN = 3
"""The difference is shown this many times as strong, so that a faint one is seen."""

_TEXT_WIDTH = 330
_GAP = 14
_FONT_SIZE = 13
_LINE = 18
_PAPER, _INK, _MUTED = (255, 255, 255), (28, 30, 34), (112, 117, 125)
_AMPLIFIED = [min(255, DIFFERENCE_GAIN * value) for value in range(256)]
_RIGHT, _WRONG, _OUTLINE = (20, 122, 64), (192, 38, 45), (0, 150, 255)


@dataclass(frozen=True)
class GalleryRow:
    """A question about a picture, and what a Defender made of it."""

    clean: Image.Image
    edited: Image.Image | None
    """Of the clean picture's size; None where nothing was edited."""
    question: Question
    clean_answers: Sequence[str | None] = ()
    """The letters answered to the clean picture, None where an answer held no letter."""
    edited_answers: Sequence[str | None] = ()
    """The letters answered to the edited picture."""
    caption: str = ""
    """What was done: the instruction, the SSIM."""


_Line = tuple[str, tuple[int, int, int], bool]
"""Text, colour, bold."""


def gallery(rows: Sequence[GalleryRow], title: str = "") -> Image.Image:
    """Draw the rows below each other: RGB, about 1000 pixels wide. Raises ValueError when there are none.

    The boxes that no edit may touch are outlined on the clean picture.
    """
    if not rows:
        raise ValueError("rows is empty; a gallery needs at least one row")
    texts = [_text_lines(row) for row in rows]
    heights = [max(SIDE, _LINE * len(lines)) for lines in texts]
    head = _GAP + (_LINE + 8 if title else 0) + _LINE
    width = _GAP + 3 * (SIDE + _GAP) + _TEXT_WIDTH + _GAP
    page = Image.new("RGB", (width, head + sum(height + _GAP for height in heights)), _PAPER)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((_GAP, _GAP - 4), title, fill=_INK, font=_font(bold=True, size=_FONT_SIZE + 2))
    for column, label in enumerate(("clean", "edited", f"difference ×{DIFFERENCE_GAIN}")):
        draw.text((_GAP + column * (SIDE + _GAP), head - _LINE), label, fill=_MUTED, font=_font())
    top = head
    for row, lines, height in zip(rows, texts, heights, strict=True):
        _draw_pictures(page, row, top)
        left = _GAP + 3 * (SIDE + _GAP)
        for index, (text, colour, bold) in enumerate(lines):
            draw.text((left, top + index * _LINE), text, fill=colour, font=_font(bold=bold))
        top += height + _GAP
    return page


def _draw_pictures(page: Image.Image, row: GalleryRow, top: int) -> None:
    clean = row.clean.convert("RGB")
    shown = _scaled(clean)
    factor = shown.width / clean.width
    draw = ImageDraw.Draw(shown)
    for box in row.question.protected:
        corners = (box.x * factor, box.y * factor, box.right * factor - 1, box.bottom * factor - 1)
        draw.rectangle(corners, outline=_OUTLINE, width=1)
    page.paste(shown, (_GAP, top))
    if row.edited is None:
        return
    edited = row.edited.convert("RGB")
    if edited.size != clean.size:
        raise ValueError(f"edited is {edited.size} pixels and clean {clean.size}; an edit keeps the size")
    difference = ImageChops.difference(clean, edited).point(_AMPLIFIED * 3)
    page.paste(_scaled(edited), (_GAP + SIDE + _GAP, top))
    page.paste(_scaled(difference), (_GAP + 2 * (SIDE + _GAP), top))


def _scaled(image: Image.Image) -> Image.Image:
    longer = max(image.size)
    if longer <= SIDE:
        factor = SIDE // longer
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = (max(1, round(image.width * SIDE / longer)), max(1, round(image.height * SIDE / longer)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _text_lines(row: GalleryRow) -> list[_Line]:
    question = row.question
    lines: list[_Line] = [(text, _INK, True) for text in _wrapped(question.text, bold=True)]
    for letter, option in zip(LETTERS, question.options, strict=False):
        right = letter == question.answer
        text = f"{letter}. {option}" + ("   (the truth)" if right else "")
        lines += [(part, _INK if right else _MUTED, right) for part in _wrapped(text, bold=right)]
    for label, answers in (("clean", row.clean_answers), ("edited", row.edited_answers)):
        if answers:
            all_right = all(answer == question.answer for answer in answers)
            said = " ".join(answer or "–" for answer in answers)
            lines.append((f"{label}: {said}  {'✓' if all_right else '✗'}", _RIGHT if all_right else _WRONG, True))
    return lines + [(text, _MUTED, False) for text in _wrapped(row.caption)]


def _wrapped(text: str, bold: bool = False) -> list[str]:
    """The text in lines that fit the column; a single word that does not is cut."""
    font, lines = _font(bold=bold), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= _TEXT_WIDTH:
            lines[-1] = longer
        else:
            while font.getlength(word) > _TEXT_WIDTH:
                word = word[:-2] + "…"
            lines.append(word)
    return [line for line in lines if line]


@lru_cache(maxsize=4)
def _font(bold: bool = False, size: int = _FONT_SIZE) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    # The same pixels whether or not this machine has libraqm: a picture is part of an artifact, and its hash of a key.
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
