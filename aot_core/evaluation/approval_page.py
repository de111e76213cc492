"""What a person is shown who is asked whether a challenger may lead: Markdown, for Prefect's question and artifact.

decision -> verdict, figures of both sides, the gate's table
last round's lessons -> six edits, before and after side by side, with what was asked and how often it was right
"""

from collections.abc import Mapping, Sequence

from aot_core.contracts.markdown import as_text
from aot_core.contracts.promotion import Decision
from aot_core.contracts.summary import CampaignSummary
from aot_core.evaluation.attack_gallery import Attack, examples
from aot_core.evaluation.decision_page import decision_markdown, figures_markdown

EDITS = 6


def approval_page(summary: CampaignSummary, decision: Decision, links: Mapping[str, str]) -> str:
    """The page. It needs nothing beside it: its pictures stand in it, at most about 100 kB of them.

    Args:
        links: name to address, of where to look further.
    """
    attacks = examples(summary, EDITS)
    lines = [decision_markdown(decision, narrow=True), *figures_markdown(decision), *_edits(attacks)]
    shown = [f"[{as_text(name)}]({address})" for name, address in links.items() if "://" in address]
    if shown:
        lines += ["", f"More: {', '.join(shown)}."]
    return "\n".join(lines) + "\n"


def _edits(attacks: Sequence[Attack]) -> list[str]:
    if not attacks:
        return []
    lines = [
        "",
        f"## {len(attacks)} edits of round {attacks[0].round}",
        "",
        "Lessons that the challenger was taught by; the shares are the Defender's before that round.",
    ]
    # Prefect's tables do not wrap their cells: text stands above a pair, the pictures alone in cells.
    for number, attack in enumerate(attacks, start=1):
        lines += [
            "",
            f"{number}\\. **{as_text(attack.question)}** {_options(attack)}. The edit: {as_text(attack.instruction)}",
            "",
            f"| before: {100 * attack.clean_right:.0f} % right | after: {100 * attack.edited_right:.0f} % right |",
            "|---|---|",
            f"| ![before]({attack.clean}) | ![after]({attack.edited}) |",
        ]
    return lines


def _options(attack: Attack) -> str:
    """The options, the true one marked."""
    return ", ".join(f"{letter} {as_text(text)}{' (true)' if true else ''}" for letter, text, true in attack.options)
