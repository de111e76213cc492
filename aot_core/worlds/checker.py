"""The paper's judge of extended scenes: an MLLM, asked by prompt, on three counts.

    source and extended picture ----Checker----> None, or Rejection("composition" | "duplication" | "realism")

The judge is an `Answerer` (any image-text-to-text model behind the Defender's interface), asked yes/no questions as
everyone else is. Composition is asked about both pictures beside each other; duplication about each name that the
scene's objects have; realism about the extended picture alone.
"""

from collections.abc import Sequence

from PIL import Image

from aot_core.answers import letter_of
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import LETTERS, Query, Question
from aot_core.worlds.extension import Extended, Rejection
from aot_core.worlds.sources import Picture

COMPOSITION = (
    "The left picture was extended beyond its borders; the right picture is the result. Does everything in the left "
    "picture stand unchanged in the right one?"
)
DUPLICATION = "Is there more than one {name} in the picture?"
REALISM = "Does the picture look like a single real photograph, without seams, smears or impossible things?"
_GAP = 16


class MllmChecker:
    """`worlds.protocol.Checker` by prompt."""

    def __init__(self, judge: Answerer) -> None:
        self._judge = judge

    def check(self, source: Picture, extended: Extended, seed: int) -> Rejection | None:
        """See `Checker.check`. An answer that names no option is taken as a failure: a judge must be clear."""
        picture = extended.picture.image
        names = [thing.attributes.get("name", thing.name) for thing in source.scene.objects]
        # Things that are there twice in the source cannot be told from copies by counting.
        once = sorted(name for name in set(names) if names.count(name) == 1)
        asked = [(side_by_side(source.image, picture), COMPOSITION, "yes", "composition")]
        asked += [(picture, DUPLICATION.format(name=name), "no", "duplication") for name in once]
        asked += [(picture, REALISM, "yes", "realism")]
        questions = [yes_or_no(text, right) for _, text, right, _ in asked]
        said = self._judge.answer([image for image, *_ in asked], questions, samples=1, temperature=0.0, seed=seed)
        for (_, text, right, reason), question, completions in zip(asked, questions, said, strict=True):
            if letter_of(completions[0], question.options) != question.answer:
                return Rejection(reason, f"{text} wanted {right}, judge: {completions[0][:200]!r}")
        return None


def yes_or_no(text: str, right: str) -> Question:
    """A question with the options yes and no, whose wanted answer is `right`."""
    options = ("yes", "no")
    query = Query(kind="existence", target={})
    return Question(query=query, text=text, options=options, answer=LETTERS[options.index(right)])


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Both pictures on one white page, scaled to the higher one's height."""
    height = max(left.height, right.height)
    pictures: Sequence[Image.Image] = [
        image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS)
        for image in (left, right)
    ]
    page = Image.new("RGB", (sum(p.width for p in pictures) + _GAP, height), "white")
    page.paste(pictures[0], (0, 0))
    page.paste(pictures[1], (pictures[0].width + _GAP, 0))
    return page
