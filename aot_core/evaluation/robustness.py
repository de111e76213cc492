"""How answers change under an edit, question by question: what strict accuracy alone does not show."""

from collections.abc import Callable, Mapping, Sequence

from aot_core.contracts.evaluate import Changes
from aot_core.evaluation.items import Item


def changes(clean: Sequence[Item], edited: Sequence[Item]) -> Changes:
    """Flip rate and mend rate, paired by question; a question that was not asked about the clean picture counts in
    neither."""
    before = {item.item_id: item.strict for item in clean}
    pairs = [(before[item.item_id], item.strict) for item in edited if item.item_id in before]
    after_right = [after for was, after in pairs if was]
    after_wrong = [after for was, after in pairs if not was]
    return Changes(
        flipped=1 - sum(after_right) / len(after_right) if after_right else None,
        right=len(after_right),
        mended=sum(after_wrong) / len(after_wrong) if after_wrong else None,
        wrong=len(after_wrong),
    )


def changes_by(
    kind: Callable[[Item], str], clean: Sequence[Item], attacked: Mapping[str, Sequence[Item]]
) -> dict[str, Changes]:
    """The same for each attack and kind of item: `attacker_1/count` where `kind` gives "count"."""
    groups: dict[str, list[Item]] = {}
    for name, items in attacked.items():
        for item in items:
            groups.setdefault(f"{name}/{kind(item)}", []).append(item)
    return {name: changes(clean, group) for name, group in sorted(groups.items())}


def every_attack(attacked: Mapping[str, Sequence[Item]]) -> float | None:
    """Share of questions right under every attack that was asked about them: the worst case of each question. None
    without attacks."""
    held: dict[str, bool] = {}
    for items in attacked.values():
        for item in items:
            held[item.item_id] = held.get(item.item_id, True) and item.strict
    return sum(held.values()) / len(held) if held else None


def calibration_error(items: Sequence[Item]) -> float | None:
    """Expected calibration error by agreement: confidence is the share of a question's k answers that its commonest
    answer has, and is compared with how often that answer is right, in the k possible bins (Naeini et al. 2015, Wang et
    al. 2023). None where questions are asked once: a single answer agrees with itself."""
    if not items or min(len(item.letters) for item in items) < 2:
        return None
    bins: dict[float, list[bool]] = {}
    for item in items:
        counts = {letter: item.letters.count(letter) for letter in item.letters}
        commonest = max(counts, key=lambda letter: (counts[letter], str(letter)))
        bins.setdefault(counts[commonest] / len(item.letters), []).append(commonest == item.answer)
    return sum(len(group) * abs(confidence - sum(group) / len(group)) for confidence, group in bins.items()) / len(
        items
    )


def hallucination(items: Sequence[Item]) -> float | None:
    """Of the answers to "is there ...?" where there is none, the share that says yes. None where nothing of that kind
    was asked."""
    said = [
        item.options["ABCDEFGH".index(letter)] == "yes" if letter else False
        for item in items
        if item.kind == "existence" and item.options and item.options["ABCDEFGH".index(item.answer)] == "no"
        for letter in item.letters
    ]
    return sum(said) / len(said) if said else None
