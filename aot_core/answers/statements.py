"""Reading undressed text: where letters and options' texts stand, which of them are denied, and what is stated."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from aot_core.answers import phrases
from aot_core.answers.dress import folded, undress

_SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"')\]]|$)|[!?。](?=[^\x00-\x7f]|$)|。|\n")
_LEAD = re.compile(rf"[\s•>{phrases.DENIED}-]*(?:\d{{1,3}}[.)]\s+)?")
"""Before what a line begins with: marks and numbers of lists."""
_FAR = 200
"""Characters behind "the answer is" in which the answer is looked for."""


class Said(NamedTuple):
    """Options that a text names from one place (the letter, text or box) to another: one, or several, left open."""

    letters: frozenset[str]
    start: int
    end: int


class Offer:
    """What is on offer, compiled: letters and, where they are known, their texts."""

    def __init__(self, options: Sequence[tuple[str, str]]) -> None:
        self.letters = "".join(letter for letter, _ in options)
        texts = [(letter, folded(text)) for letter, text in options]
        # A text that two options share tells neither.
        self.texts = {text: letter for letter, text in texts if text and [t for _, t in texts].count(text) == 1}
        either = f"[{self.letters}{self.letters.lower()}]"
        self._letter = re.compile(rf"([(\[{{\"']?)(?<![A-Za-zÀ-ÿ0-9\\_])({either})(?![A-Za-zÀ-ÿ0-9_+#])(?!'\w)"
                                  rf"(?!-\w)([)\]}}\"']?)")  # fmt: skip
        longest = sorted(self.texts, key=len, reverse=True)
        words = "|".join(re.escape(text).replace(r"\ ", r"\s+") for text in longest)
        self._text = re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE) if words else None

    def letter_at(self, text: str, place: int, *, small: bool) -> re.Match[str] | None:
        """The option's letter that stands there, group 2; None for an article, a pronoun or another word."""
        match = self._letter.match(text, place)
        return match if match and self._is_letter(text, match, small=small) else None

    def letters_in(self, text: str) -> list[re.Match[str]]:
        """The capital letters on offer that stand alone in a text."""
        return [match for match in self._letter.finditer(text) if self._is_letter(text, match, small=False)]

    def texts_in(self, text: str) -> list[tuple[str, int, int]]:
        """The options' texts that a text holds: letter, start and end. "red ring" holds no "ring"."""
        if self._text is None:
            return []
        return [(self.texts[folded(match[0])], *match.span()) for match in self._text.finditer(text)
                if folded(match[0]) in self.texts]  # fmt: skip

    def is_letter(self, text: str) -> bool:
        """Whether a text is a capital letter on offer and nothing else."""
        match = self.letter_at(text.strip(" ."), 0, small=False)
        return match is not None and match.end() == len(text.strip(" ."))

    def _is_letter(self, text: str, match: re.Match[str], *, small: bool) -> bool:
        letter, end = match[2], match.end(2)
        if letter.islower() and not small:
            return False
        dressed = bool(match[1] and match[3])
        may_be_article = letter in "Aa" and not dressed and not phrases.NEVER_AFTER_ARTICLE.match(text, end)
        # "A Vase": where the options' texts are known, the text is looked for instead.
        if may_be_article and (following := re.match(r"\s+([^\W\d_])", text[end : end + 20])):
            return following[1].isupper() and letter == "A" and not self.texts
        return letter != "I" or dressed or not phrases.VERB_AFTER_PRONOUN.match(text, end)


@lru_cache(maxsize=512)
def offer(options: tuple[tuple[str, str], ...]) -> Offer:
    """Compiled once for the same options."""
    return Offer(options)


def without_denied(text: str, on_offer: Offer) -> str:
    """The text, as long as before, without the options that it denies and without what it only asks or supposes."""
    marks = list(_unsaid(text))
    for match in phrases.DENIES_BEFORE.finditer(text):
        marks += _listed(text, match.end(), on_offer)
    listed: list[tuple[int, int]] = []
    for match in on_offer.letters_in(text):
        joined = phrases.LISTED.match(text, listed[-1][1]) if listed else None
        listed = [*(listed if joined and joined.end() == match.start() else []), match.span(2)]
        if phrases.DENIES_AFTER.match(text, match.end()):
            marks.append(match.span(2))
        if phrases.BOTH_DENIED.match(text, match.end()):
            marks += listed
    for _, start, end in on_offer.texts_in(text):
        if phrases.DENIES_AFTER.match(text, end):
            marks.append((start, end))
    characters = list(text)
    for start, end in marks:
        characters[start:end] = [c if c.isspace() else phrases.DENIED for c in characters[start:end]]
    return "".join(characters)


def _listed(text: str, place: int, on_offer: Offer) -> list[tuple[int, int]]:
    """The letters, or the text, that stand at a place behind a denial: "A, B or C"."""
    marks: list[tuple[int, int]] = []
    while letter := on_offer.letter_at(text, place, small=False):
        if marks and phrases.CONFIRMS.match(text, letter.end()):
            break
        marks.append(letter.span(2))
        more = phrases.LISTED.match(text, letter.end())
        if more is None:
            break
        place = more.end()
    texts = {} if marks else {start: end for _, start, end in on_offer.texts_in(text)}
    while end := texts.pop(place, None):
        marks.append((place, end))
        more = phrases.LISTED.match(text, end)
        place = more.end() if more else end
    return marks


def _unsaid(text: str) -> list[tuple[int, int]]:
    """Sentences that ask or suppose."""
    found, start = [], 0
    for match in [*_SENTENCE_END.finditer(text), None]:
        end = match.end() if match else len(text)
        asks = match is not None and "?" in match[0]
        if asks or (phrases.HYPOTHETICAL.match(text, start) and text[start:end].strip()):
            found.append((start, end))
        start = end
    return found


def stated(text: str, on_offer: Offer) -> list[Said]:
    """What a text without denied options states: behind "the answer is", in tags, before "is correct"."""
    found: list[Said] = []
    for match in phrases.STATES.finditer(text):
        before = text[max(0, match.start() - 25) : match.start()]
        # "Option A is ..." says something of an option, and not which one is right.
        about_one = bool(on_offer.letters_in(match[0]))
        if about_one or phrases.WRONG_KIND.search(before) or phrases.UNSTATED.search(match[0]):
            continue
        found += _behind(text, match.end(), on_offer)
    for match in re.finditer(r"<answer>(.*?)(?:</answer>|$)", text, re.IGNORECASE | re.DOTALL):
        letters = inside(match[1], on_offer)
        found += [Said(letters, *match.span())] if letters else []
    for match in phrases.POINTS.finditer(text):
        start = phrases.BEFORE_ANSWER.match(text, match.end())
        letter = on_offer.letter_at(text, start.end() if start else match.end(), small=False)
        if letter and phrases.ENDS_CLAUSE.match(text, letter.end()):
            found.append(_alternatives(text, letter, on_offer, small=False))
    for letter in on_offer.letters_in(text):
        if phrases.CONFIRMS.match(text, letter.end()):
            found.append(Said(frozenset(letter[2]), *letter.span()))
    for name, start, end in on_offer.texts_in(text):
        if phrases.CONFIRMS.match(text, end):
            found.append(Said(frozenset(name), start, end))
        # "a vase (B)": the text and its letter beside it
        letter = on_offer.letter_at(text, end + len(text[end:]) - len(text[end:].lstrip()), small=False)
        if letter and letter[1] and letter[2] == name:
            found.append(Said(frozenset(name), start, letter.end()))
    return sorted(found, key=lambda said: (said.start, said.end))


def _behind(text: str, end: int, on_offer: Offer) -> list[Said]:
    """The answer behind a phrase that states one."""
    skipped = phrases.BEFORE_ANSWER.match(text, end)
    # "not A but B": what is denied is skipped like any filler.
    place = skipped.end() if skipped else end
    denied = phrases.BUT.match(text, place)
    if denied and (again := phrases.BEFORE_ANSWER.match(text, denied.end())):
        place = again.end()
    if letter := on_offer.letter_at(text, place, small=True):
        return [_alternatives(text, letter, on_offer, small=True)]
    # Fillers may have eaten an article: the text is looked for from the phrase on, to the end of its sentence.
    rest = text[end : end + _FAR]
    lead = len(rest) - len(rest.lstrip(" :\n\t-"))
    sentence = _SENTENCE_END.search(rest, lead)
    clause = rest[: sentence.start() if sentence else None]
    texts = on_offer.texts_in(clause)
    names = frozenset(name for name, *_ in texts)
    return [Said(names, end + texts[0][1], end + texts[-1][2])] if texts else []


def _alternatives(text: str, letter: re.Match[str], on_offer: Offer, *, small: bool) -> Said:
    """The letter and those that "or", "and" or a comma join to it."""
    letters, end = {letter[2].upper()}, letter.end()
    while more := phrases.LISTED.match(text, end):
        other = on_offer.letter_at(text, more.end(), small=small and letter[2].islower())
        if other is None or phrases.CONFIRMS.match(text, other.end()):
            break
        letters.add(other[2].upper())
        end = other.end()
    return Said(frozenset(letters), letter.start(), end)


def named_options(text: str, on_offer: Offer) -> list[Said]:
    """ "Option B", "choice (c)"."""
    found: list[Said] = []
    for match in phrases.OPTION.finditer(text):
        if letter := on_offer.letter_at(text, match.end(), small=True):
            found.append(_alternatives(text, letter, on_offer, small=True))
    return found


def alone(text: str, on_offer: Offer) -> frozenset[str]:
    """Letters that begin a line and stand for themselves there: "B", "(B)", "B. a vase", "B, because ..."."""
    found: set[str] = set()
    last = re.split(r"[.!?]\s+|。", text.strip())[-1]
    for line in [*text.split("\n"), *([last] if on_offer.is_letter(last) else [])]:
        lead = _LEAD.match(line)
        start = lead.end() if lead else 0
        bracketed = re.fullmatch(r"\s*\([a-z]\)\s*\.?\s*", line) is not None
        letter = on_offer.letter_at(line, start, small=bracketed)
        if letter is None:
            continue
        rest = line[letter.end() :]
        own = any(name == letter[2] and not rest[:at].strip() for name, at, _ in on_offer.texts_in(rest))
        if own or letter[3] in (")", "]") or phrases.AFTER_ALONE.match(rest):
            found.update(_alternatives(line, letter, on_offer, small=bracketed).letters)
            found.update(m[2] for m in on_offer.letters_in(rest) if m[1] == "(" or rest.lstrip()[:1] in (",", "/"))
    return frozenset(found)


def inside(content: str, on_offer: Offer) -> frozenset[str]:
    """The options that a box or an answer tag names: by letter, by letter and text, or by a whole text."""
    said = undress(content).strip().strip(".,:;!\"'` \n")
    said = re.sub(
        r"^(?:(?:the|my)\s+)?(?:(?:correct|final|right|best)\s+)?(?:answer|option|choice|letter)\b(?:\s+is\b)?\s*[:=-]?\s*",
        "",
        said,
        flags=re.IGNORECASE,
    )
    if letter := on_offer.letter_at(said, 0, small=True):
        rest = said[letter.end() :].strip(" .,:;)")
        if not rest or re.match(r"\s*[.:),]\s*\S|\s+-+\s|\s*=\s", said[letter.end() :]):
            return _alternatives(said, letter, on_offer, small=True).letters
        if on_offer.texts.get(folded(rest)) == letter[2].upper() or letter[3] in (")", "]"):
            return frozenset(letter[2].upper())
        joined = _alternatives(said, letter, on_offer, small=True).letters
        if len(joined) > 1:
            return joined
    whole = on_offer.texts.get(folded(said))
    return frozenset(whole) if whole else frozenset()


def settled(found: Sequence[Said], text: str) -> str | None:
    """The one answer that those of one form come to, in order; None where they contradict each other to the end.

    A later answer takes an earlier one back behind a turn ("no", "therefore") or in a sentence of its own, and not
    where what stands between leaves it open ("or").
    """
    meant: frozenset[str] = frozenset()
    end = 0
    for said in found:
        taken_back = said.letters == meant or _takes_back(text[end : said.start])
        meant = said.letters if taken_back else said.letters | meant
        end = said.end
    return next(iter(meant)) if len(meant) == 1 else None


def _takes_back(between: str) -> bool:
    if phrases.OPEN.search(between):
        return False
    ended = re.split(r"[.!?]\s|[。\n]", between)
    return bool(phrases.TURN.search(between)) or (len(ended) > 1 and re.search(r"[^\W\d_]{2}", ended[-1]) is not None)
