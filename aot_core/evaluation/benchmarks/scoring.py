"""Each benchmark's own rule: questions and answers in, figures out. All figures are shares, 0..1.

A rule is applied to the answers of one asking; `score` applies it to each of the k askings and takes the mean
(`single/...`, as elsewhere), and to "right every time" (`strict/...`, as arXiv 2602.22227 does).
"""

from collections.abc import Callable, Mapping, Sequence

from aot_core.contracts.benchmark_registry import BENCHMARKS, Benchmark
from aot_core.contracts.functions import import_function
from aot_core.evaluation.benchmarks.catalogue import BenchmarkError
from aot_core.evaluation.benchmarks.items import BenchmarkItem

Answer = str | None
Answered = Sequence[tuple[BenchmarkItem, bool, Answer]]
"""(question, right, what was answered); the answer is None where none was given, and where right is over k askings."""

Rule = Callable[[Answered], dict[str, float]]

_OF_ANSWERS = ("precision", "recall", "f1", "yes_")
"""Figures of what was answered, not of what was right."""


def score(items: Sequence[BenchmarkItem], answers: Mapping[str, Sequence[Answer]]) -> dict[str, float]:
    """The figures of one benchmark.

    Args:
        items: all of one benchmark.
        answers: key to the k answers of its k askings.

    Raises BenchmarkError where an item is unanswered, or items of several benchmarks are mixed.
    """
    names = {item.benchmark for item in items}
    if len(names) != 1:
        raise BenchmarkError(f"score one benchmark at a time, not {sorted(names)}")
    missing = [item.index for item in items if not answers.get(item.key)]
    if missing:
        raise BenchmarkError(f"{len(missing)} questions have no answers (index {missing[0]} first); ask them too")
    rule = _rule(BENCHMARKS[names.pop()])
    times = min(len(answers[item.key]) for item in items)
    rounds = [
        rule([(item, answers[item.key][i] == item.answer, answers[item.key][i]) for item in items])
        for i in range(times)
    ]
    single = {f"single/{name}": sum(one[name] for one in rounds) / times for name in rounds[0]}
    every = [(item, all(a == item.answer for a in answers[item.key]), None) for item in items]
    # Right every time: there is no one answer left whose yes could be counted.
    strict = {f"strict/{name}": value for name, value in rule(every).items() if not name.startswith(_OF_ANSWERS)}
    given = [a for item in items for a in answers[item.key]]
    return {**strict, **single, "unreadable": sum(a is None for a in given) / len(given), "n": float(len(items))}


def accuracy(answered: Answered) -> dict[str, float]:
    """Share of right answers, over all and by category (VStar, MMStar, BLINK, RealWorldQA, AI2D, MMMU)."""
    categories = _groups(answered, lambda item: item.category)
    return {"accuracy": _share([right for _, right, _ in answered])} | {
        f"accuracy/{name}": _share(group) for name, group in categories.items() if name
    }


def pope(answered: Answered) -> dict[str, float]:
    """POPE (Li et al. 2023): accuracy, and precision, recall, F1 and yes-rate of "Yes", over all and by category.

    A question may stand in several categories (`random,popular`): it then counts in each, and so many times in all,
    which are the 9,000 questions of the published three files. `.../once` counts each of the 5,127 different questions
    once, as arXiv 2602.22227's evaluation and VLMEvalKit do.
    """
    spread = [(name, one) for one in answered for name in one[0].category.split(",")]
    figures = _yes_no([one for _, one in spread], "") | _yes_no(answered, "/once")
    for category in dict.fromkeys(name for name, _ in spread):
        figures |= _yes_no([one for name, one in spread if name == category], f"/{category}")
    return figures


def _yes_no(answered: Answered, suffix: str) -> dict[str, float]:
    figures = {f"accuracy{suffix}": _share([right for _, right, _ in answered])}
    yes = sum(answer == "Yes" for _, _, answer in answered)
    hits = sum(answer == "Yes" == item.answer for item, _, answer in answered)
    wanted = sum(item.answer == "Yes" for item, _, _ in answered)
    precision, recall = hits / yes if yes else 0.0, hits / wanted if wanted else 0.0
    both = precision + recall
    return figures | {
        f"precision{suffix}": precision,
        f"recall{suffix}": recall,
        f"f1{suffix}": 2 * precision * recall / both if both else 0.0,
        f"yes_rate{suffix}": yes / len(answered),
    }


def hallusion(answered: Answered) -> dict[str, float]:
    """HallusionBench (Guan et al. 2024): per question, per figure (all questions about it right), per pair (the same
    question right about every figure of its set); also by category (VD, VS) and the yes-rate's bias.

    The index reads `category_subcategory_visual_set_figure_question`.
    """

    def figures(part: Answered, suffix: str) -> dict[str, float]:
        by_figure = _groups(part, lambda item: "_".join([_l2(item), *_index(item)[3:5]]))
        by_pair = _groups(part, lambda item: "_".join([_l2(item), _index(item)[3], _index(item)[5]]))
        return {
            f"accuracy{suffix}": _share([right for _, right, _ in part]),
            f"figure{suffix}": _share([all(group) for group in by_figure.values()]),
            f"pair{suffix}": _share([all(group) for group in by_pair.values()]),
        }

    found = figures(answered, "")
    for category in dict.fromkeys(item.category for item, _, _ in answered):
        found |= figures([one for one in answered if one[0].category == category], f"/{category}")
    wanted = _share([item.answer == "Yes" for item, _, _ in answered])
    found["yes_bias"] = _share([answer == "Yes" for _, _, answer in answered]) - wanted
    return found


def hrbench(answered: Answered) -> dict[str, float]:
    """HR-Bench (Wang et al. 2024): each question is asked with its options in every cyclic order.

    Accuracy is the mean over the cycles' accuracies, over all and by category; `every_cycle` counts a question only if
    it is right in all of them.
    """
    cycles = _groups(answered, lambda item: item.tags.get("cycle_category", ""))
    found = {"accuracy": _mean([_share(group) for group in cycles.values()])}
    for category in dict.fromkeys(item.category for item, _, _ in answered):
        part = [one for one in answered if one[0].category == category]
        by_cycle = _groups(part, lambda item: item.tags.get("cycle_category", ""))
        found[f"accuracy/{category}"] = _mean([_share(group) for group in by_cycle.values()])
    found["every_cycle"] = _share([all(group) for group in _groups(answered, cycle_group).values()])
    return found


def cycle_group(item: BenchmarkItem) -> str:
    """The same for all cyclic orders of a question: pictures, words and options, whatever their order."""
    return "\n".join([*item.image_sha256, item.question, *sorted(text for _, text in item.options)])


RULES: Mapping[str, Rule] = {
    "accuracy": accuracy,
    "pope": pope,
    "hallusion": hallusion,
    "hrbench": hrbench,
}


def _rule(benchmark: Benchmark) -> Rule:
    return RULES.get(benchmark.rule) or import_function(benchmark.rule, f"benchmark {benchmark.name}: rule")


def _groups(answered: Answered, name: Callable[[BenchmarkItem], str]) -> dict[str, list[bool]]:
    groups: dict[str, list[bool]] = {}
    for item, right, _ in answered:
        groups.setdefault(name(item), []).append(right)
    return groups


def _index(item: BenchmarkItem) -> list[str]:
    parts = item.index.split("_")
    if len(parts) != 6:
        raise BenchmarkError(
            f"index {item.index!r} is not HallusionBench's category_subcategory_visual_set_figure_question"
        )
    return parts


def _l2(item: BenchmarkItem) -> str:
    return item.tags.get("l2-category", "")


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
