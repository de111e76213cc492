"""What MLflow's pages say of a registered version and of a run: Markdown, made from the campaign's summary alone."""

from collections.abc import Mapping

from aot_core.contracts.markdown import as_text
from aot_core.contracts.promotion import Decision
from aot_core.contracts.summary import CampaignSummary
from aot_core.contracts.terminal import counted
from aot_core.evaluation.closing_table import closing_table
from aot_core.evaluation.decision_page import row
from aot_core.evaluation.headline import figure, gate_test, rival, spoken, worst_of, worst_tile
from aot_core.evaluation.report import evaluations_of
from aot_core.evaluation.smoke_size import smoke_size

ALIASES = (
    "**Promote with `aot promote`, not with MLflow's alias button.** The button bypasses the gate, the smoke test and "
    "the ledger; `aot status` and the maintenance flow report an alias that the ledger does not know."
)


def model_card(
    summary: CampaignSummary, decision: Decision, outcome: str, licences: Mapping[str, int], links: Mapping[str, str]
) -> str:
    """The description of a registered version.

    Args:
        outcome: what became of it, in words.
        licences: samples of its data set by licence.
        links: name to address.
    """
    evaluations = evaluations_of(summary)
    last = evaluations[max(evaluations)]
    worst = figure(last, worst_of(last))
    base = str(decision.lineage.get("base", "")).partition(" ")[0] or str(summary.config["models"]["defender"])
    verdict = "may lead" if decision.promote else "may not lead"
    lines = [
        f"**Worst case {worst.text} %** ({worst.low:.1f}-{worst.high:.1f}, n = {worst.n}), under "
        f"{spoken(worst_of(last))}; clean {100 * last.strict['clean']:.1f} %. Strict accuracy: every one of "
        f"{summary.config['evaluate']['samples']} answers right.",
        "",
        _change(decision),
        "",
        f"**The gate: {verdict}.** {_sentence(decision.reason)} {_sentence(outcome)}",
        "",
        *([f"**{as_text(warning)}**", ""] if (warning := smoke_size(decision)) else []),
        *_gate_table(decision),
        ALIASES,
        "",
        "### Made from",
        f"- base: `{as_text(base)}`; campaign {as_text(summary.name)} `{summary.key[:12]}`, "
        f"{counted(summary.config['rounds'], 'round')}",
        f"- data: `{decision.lineage.get('data', '')[:12]}`, licences: {_licences(licences)}",
        f"- commit: `{as_text(decision.lineage.get('commit', 'unknown')[:12])}`",
        *(f"- [{as_text(name)}]({address})" for name, address in links.items() if "://" in address),
        "",
        "### Limits",
        "- It answers multiple-choice questions about one picture, of the kinds that its data set holds; nothing else "
        "was measured.",
        "- The figures hold for the attacks named here. An Attacker that is trained against this version may find "
        "others.",
        "- The weights carry the base model's licence; the pictures, that of their source.",
        "",
        "### To serve it",
        "```",
        f"mlflow models serve -m models:/{decision.model}/{decision.challenger} --env-manager local",
        f"aot export FOLDER --model {decision.model} --version {decision.challenger}   # then vllm serve FOLDER",
        "```",
    ]
    return "\n".join(lines) + "\n"


def campaign_note(summary: CampaignSummary) -> str:
    """The description of a campaign's run: the worst case, how it moved, the table by round, what came of it."""
    lines = [f"**{as_text(summary.name)}**, {summary.status}. {as_text(summary.message)}".rstrip()]
    if summary.note:
        lines += ["", as_text(summary.note)]
    if found := closing_table(summary):
        lines += [
            "",
            f"**{found.headline[0].upper()}{found.headline[1:]}**",
            *(f"- {text}" for text in found.movements),
            "",
        ]
        lines += [f"| {' | '.join(found.heads)} |", "|---|" + "---:|" * (len(found.heads) - 1)]
        lines += [f"| {' | '.join(cells)} |" for cells in found.rows]
        lines += ["", f"{found.note[0].upper()}{found.note[1:]}."]
    if summary.registered_version:
        aliases = f" ({', '.join(summary.aliases)})" if summary.aliases else ""
        lines += ["", f"Version {summary.registered_version}{aliases}: {as_text(summary.promotion_reason)}."]
    lines += ["", *(f"- [{as_text(name)}]({address})" for name, address in summary.links.items() if "://" in address)]
    lines += ["- `report.html` among the artifacts has charts and the attacks to browse; `stages.json` every figure"]
    return "\n".join(lines)


def round_note(summary: CampaignSummary, round_index: int) -> str:
    """The description of a round's run."""
    evaluations = evaluations_of(summary)
    if round_index not in evaluations:
        return f"Round {round_index}, not evaluated."
    until = {number: outputs for number, outputs in evaluations.items() if number <= round_index}
    lines = [f"**Defender {round_index}**" if round_index else "**Before the first round**"]
    if tile := worst_tile(until, None):
        lines += [f"worst case {tile.now.text} % {tile.note}", *(f"- {movement.text}" for movement in tile.movements)]
    attack = summary.find("attacker_round", round_index)
    if attack is not None:
        outputs = attack.outputs
        lines += [
            f"- Attacker {round_index}: success {100 * outputs['success_before']:.1f} % before and "
            f"{100 * outputs['success_after']:.1f} % after its training; {100 * outputs['valid_after']:.1f} % of its "
            "edits are valid"
        ]
    curated = summary.find("curate", round_index)
    if curated is not None:
        lines += [f"- lessons: {curated.outputs['kept']} of {curated.outputs['edited']} edits kept"]
    return "\n".join(lines)


def _sentence(words: str) -> str:
    return as_text(f"{words[:1].upper()}{words[1:]}.")


def _change(decision: Decision) -> str:
    test = gate_test(decision)
    if test is None or test.difference is None:
        return "There was nobody to compare it with."
    bound = "" if test.low is None else f", one-sided lower bound {100 * test.low:+.1f}"
    return (
        f"Worst case against {rival(decision)}: **{100 * test.difference:+.1f} points**{bound} (n = {test.n}, paired)."
    )


def _gate_table(decision: Decision) -> list[str]:
    if not decision.tests:
        return []
    head = ["| claim | n | champion | challenger | difference | lower bound | p | |", "|---|" + "---:|" * 6 + "---|"]
    return [*head, *(f"| {' | '.join(as_text(cell) for cell in row(test))} |" for test in decision.tests), ""]


def _licences(licences: Mapping[str, int]) -> str:
    return ", ".join(f"{as_text(name or 'not named')} ({count})" for name, count in licences.items()) or "unknown"
