"""What a report says of the data's drift from the champion's: the verdict in a sentence, and a row a column."""

from dataclasses import dataclass

from aot_core.contracts.compare_data import CompareDataOutputs
from aot_core.contracts.summary import CampaignSummary


@dataclass(frozen=True)
class DriftRow:
    """A column of the data, and how far it lies from the champion's (nats)."""

    column: str
    divergence: float
    chance: float
    unseen: str
    """Values that the champion's data never had."""
    drifted: bool


def drift_rows(summary: CampaignSummary) -> tuple[str, list[DriftRow]]:
    """The verdict and the columns, the farthest first; ("", []) where nothing was compared."""
    record = summary.find("compare_data", 0)
    if record is None:
        return "", []
    found = CompareDataOutputs.model_validate(record.outputs)
    rows = [
        DriftRow(
            column=name.replace("_", " "),
            divergence=divergence,
            chance=found.chance[name],
            unseen=", ".join(found.unseen.get(name, ())),
            drifted=name in found.drifted,
        )
        for name, divergence in sorted(found.divergence.items(), key=lambda item: (-item[1], item[0]))
    ]
    drifted = [row.column for row in rows if row.drifted]
    limit = f"more than {float(record.identity.config['limit']):g} nats beyond chance"
    if not drifted:
        return f"No column of the data lies {limit} from the champion's.", rows
    return f"The data has drifted from the champion's, {limit}: {', '.join(drifted)}.", rows
