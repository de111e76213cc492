"""What the tiny base models can do, and how the base Defender falls: one factor at a time.

    python benchmarks/fragility.py --questions 1000 --pairs 3000 --output docs/fragility

The Defender: every kind of question on held-out scenes, clean and with 1, 2 and 3 distractors, semantic ones against
as many irrelevant ones about the same questions. The editor: held-out pairs, told to add, remove or replace; a parser
reads what became of it; localized SSIM on all that was to stay, against that of perfect edits. Writes OUTPUT.md and
OUTPUT.png.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from scipy.stats import binomtest

from aot_core.attacker.tiny_edit import TinyEditPipeline
from aot_core.base_models.names import model_folder
from aot_core.defender.answering import Defender
from aot_core.recipes.defender_lessons import KINDS
from aot_core.recipes.defender_skills import DISTRACTORS, FAMILIES, Skill, Skills, measure, table
from aot_core.recipes.editor_measure import measure as measure_editor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--defender", default="aot-tiny-vl", help="shipped name or folder")
    parser.add_argument("--editor", default="aot-tiny-edit", help="shipped name or folder")
    parser.add_argument("--questions", type=int, default=1000, help="questions of every kind")
    parser.add_argument("--pairs", type=int, default=3000, help="edited scenes")
    parser.add_argument("--output", type=Path, default=Path("docs/fragility"))
    arguments = parser.parse_args()
    skills = measure(Defender.load(arguments.defender), arguments.questions)
    editor = TinyEditPipeline.from_pretrained(model_folder(arguments.editor) or arguments.editor)
    edits = measure_editor(editor, arguments.pairs, seed=20_000)
    lines = [
        f"`python benchmarks/fragility.py --questions {arguments.questions} --pairs {arguments.pairs}`. Answers "
        "generated greedily, options shuffled; share right with Wilson's 95 % interval, n a cell "
        f"{arguments.questions}, in the last row {len(KINDS) * arguments.questions}.",
        "",
        table(skills),
        "",
        f"The editor on {edits.pairs} held-out pairs ({edits.edits} edits, 8 steps):",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in edits.rows()),
        "",
    ]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".md").write_text("\n".join(lines))
    draw(skills, arguments.output.with_suffix(".png"))
    print("\n".join(lines))


def draw(skills: Skills, path: Path) -> None:
    """A panel a kind of question: accuracy over the number of distractors, a line a family, bars its intervals."""
    figure, axes = plt.subplots(1, len(KINDS) + 1, figsize=(13, 3.2), sharey=True)
    for axis, kind in zip(axes, [*KINDS, None], strict=True):
        for family, colour in zip(FAMILIES, ("C3", "C0"), strict=True):
            cells = [
                skills.overall(family, k) if kind is None else skills.accuracy[kind, family, k] for k in DISTRACTORS
            ]
            shares = [100 * cell.right / cell.asked for cell in cells]
            spans = [_interval(cell) for cell in cells]
            errors = [
                [share - 100 * low for share, (low, _) in zip(shares, spans, strict=True)],
                [100 * high - share for share, (_, high) in zip(shares, spans, strict=True)],
            ]
            axis.errorbar(DISTRACTORS, shares, yerr=errors, color=colour, marker="o", capsize=3, label=family)
        axis.set(title=kind or "all kinds", xlabel="distractors", xticks=DISTRACTORS, ylim=(50, 101))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy (%)")
    axes[0].legend(title="distractors", loc="lower left")
    figure.suptitle("The base Defender: semantic distractors against as many irrelevant ones, same questions")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _interval(skill: Skill) -> tuple[float, float]:
    low, high = binomtest(skill.right, skill.asked).proportion_ci(method="wilson")
    return float(low), float(high)


if __name__ == "__main__":
    main()
