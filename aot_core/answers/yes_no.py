r"""Yes/no questions without options: "Yes", "No" or None (the grammar: `aot_core.answers`)."""

import re

from aot_core.answers import phrases
from aot_core.answers.boxes import boxes
from aot_core.answers.dress import undress
from aot_core.answers.statements import Said, settled
from aot_core.answers.thoughts import without_thoughts

_YES = {
    *(
        "yes",
        "yeah",
        "yep",
        "oui",
        "ja",
        "sí",
        "sì",
        "sim",
        "да",
        "はい",
        "ええ",
        "是",
        "是的",
        "有",
        "有的",
        "对",
        "對",
    ),
    *("対", "예", "네", "نعم", "evet", "हाँ", "हां", "tak", "vâng"),
}
_NO = {
    *(
        "no",
        "nope",
        "non",
        "nein",
        "nee",
        "nej",
        "não",
        "нет",
        "いいえ",
        "いえ",
        "不是",
        "否",
        "没有",
        "沒有",
        "不",
        "不对",
        "不對",
    ),
    *("아니요", "아니오", "لا", "hayır", "नहीं", "nie", "không"),
}
_UNSPACED = re.compile(r"\s*(?:(不是|没有|沒有|不对|不對|否|いいえ|아니)|(是的|是|有|对|對|はい|ええ|네|예))")
"""How an answer begins in scripts that put no blanks between words: no, yes."""
_WORD = re.compile(r"(?:[^\W\d_]|[\u0900-\u097f])+(?:'[a-z]+)?")
_DENIED = re.compile(
    r"\b(?:not|isn't|never|neither|rather\s+than|instead\s+of)\s+[\"']?(?:an?\s+)?(?:yes|no)\b", re.IGNORECASE
)


def parse_yes_no(completion: str) -> str | None:
    """ "Yes" or "No": in a box, stated, as the first word, or as the one of the two that is said; else None.

    Args:
        completion: raw text; a `Completion` that was cut off gives none.
    """
    said = without_thoughts(completion)
    if not said or not said.strip():
        return None
    boxed = [
        Said(frozenset({word}), box.start, box.end)
        for box in boxes(said)
        if len(words := {w for x in _WORD.findall(undress(box.content)) if (w := word_of(x))}) == 1
        for word in words
    ]
    return settled(boxed, said) if boxed else said_word(undress(said))


def said_word(text: str) -> str | None:
    """What undressed text without a box says."""
    plain = _DENIED.sub(lambda match: phrases.DENIED * len(match[0]), text)
    found: list[Said] = []
    for match in phrases.STATES.finditer(plain):
        lead = phrases.BEFORE_ANSWER.match(plain, match.end())
        start = lead.end() if lead else match.end()
        wrong = phrases.WRONG_KIND.search(plain[max(0, match.start() - 25) : match.start()])
        if not wrong and (word := _WORD.match(plain, start)) and (answer := word_of(word[0])):
            found.append(Said(frozenset({answer}), *word.span()))
    for match in re.finditer(r"<answer>\W*([^\W\d_]+)\W*</answer>", plain, re.IGNORECASE):
        found += [Said(frozenset({answer}), *match.span())] if (answer := word_of(match[1])) else []
    if found:
        return settled(sorted(found, key=lambda said: said.start), plain)
    if phrases.DECLINES.search(plain):
        return None
    words = _WORD.findall(plain)
    if words and (first := word_of(words[0])):
        return first
    if begins := _UNSPACED.match(plain):
        return "No" if begins[1] else "Yes"
    answers = {answer for word in words if (answer := word_of(word))}
    return answers.pop() if len(answers) == 1 else None


def word_of(word: str) -> str | None:
    """ "Yes" or "No" for a word that means it in one of the languages."""
    word = word.lower()
    return "Yes" if word in _YES else "No" if word in _NO else None
