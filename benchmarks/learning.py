"""Do both learners raise their own reward? One round of each, from a finished campaign's warm start, several seeds.

    python benchmarks/learning.py .aot/campaigns/tiny-*/summary.json --seeds 0 1 2 --output docs/learning.png

Each seed: one `attacker_round` against the warm-started Defender, and one `defender_round` on what the campaign curated
in round 1, with the campaign's own settings, or `--set attacker_round.updates=60`.
Prints the rewards' first and last fifth and, for the Attacker, the same fixed probe scenes before and after; draws
the curves.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import torch

from aot_core.contracts.artifact import ArtifactRef, StageName
from aot_core.contracts.attacker_round import AttackerRoundInputs
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.defender_round import DefenderRoundInputs
from aot_core.contracts.loading import apply_override
from aot_core.contracts.summary import CampaignSummary
from aot_core.engine.context import StageContext
from aot_core.engine.identity import pin_model
from aot_core.home import Home
from aot_core.stages.attacker_round import run_attacker_round
from aot_core.stages.defender_round import run_defender_round
from aot_core.store import open_store
from aot_core.tracking.protocol import NullTracker

Curves = dict[str, list[tuple[int, float]]]


class RecordingTracker(NullTracker):
    """Keeps the figures of every step."""

    def __init__(self) -> None:
        self.curves: Curves = defaultdict(list)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self.curves[name].append((step or 0, value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summary", type=Path, help="a finished campaign's summary.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--output", type=Path, default=Path("docs/learning.png"))
    arguments = parser.parse_args()
    summary = CampaignSummary.model_validate_json(arguments.summary.read_bytes())
    for override in arguments.overrides:
        apply_override(summary.config, override)
    config = CampaignConfig.model_validate(summary.config)
    store = open_store(str(Home(arguments.summary.parents[2]).store))
    torch.set_num_threads(2)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            attacker, defender = RecordingTracker(), RecordingTracker()
            context = StageContext(store, Path(folder), Path(folder), tracker=attacker)
            probe = attack(summary, config, context, seed)
            context = StageContext(store, Path(folder), Path(folder), tracker=defender)
            defend(summary, config, context, seed)
        print(f"seed {seed}: attacker probe {probe}")
        for name, tracker, axis in (("attacker", attacker, axes[0]), ("defender", defender, axes[1])):
            curve = sorted(tracker.curves[f"{name}/reward"])
            rewards = [value for _, value in curve]
            fifth = max(1, len(rewards) // 5)
            first, last = mean(rewards[:fifth]), mean(rewards[-fifth:])
            print(f"seed {seed}: {name} reward, n = {len(rewards)} steps: first fifth {first:.3f}, last {last:.3f}")
            axis.plot(*zip(*smoothed(curve), strict=True), label=f"seed {seed}")
    for axis, title in zip(axes, ("Attacker: Flow-GRPO", "Defender: DAPO"), strict=True):
        axis.set(title=title, xlabel="step", ylabel="mean reward (5-step mean)")
        axis.legend(frameon=False)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=110)
    print(arguments.output)


def attack(summary: CampaignSummary, config: CampaignConfig, context: StageContext, seed: int) -> str:
    """One Attacker round; returns the probe's figures before and after."""
    outputs = run_attacker_round(
        config.attacker_round.model_copy(update={"seed": 1000 * seed + 1}),
        AttackerRoundInputs(
            dataset=artifact(summary, "prepare_data", 0),
            attacker=artifact(summary, "warm_start_attacker", 0),
            defender=artifact(summary, "warm_start_defender", 0),
            attacker_base=pin_model(config.models.attacker),
            defender_base=pin_model(config.models.defender),
        ),
        context,
    )
    return (
        f"(n = {outputs.probe}): reward {outputs.reward_before:.3f} -> {outputs.reward_after:.3f}, "
        f"valid {outputs.valid_before:.2f} -> {outputs.valid_after:.2f}, "
        f"success {outputs.success_before:.3f} -> {outputs.success_after:.3f}"
    )


def defend(summary: CampaignSummary, config: CampaignConfig, context: StageContext, seed: int) -> None:
    """One Defender round on the campaign's first curated edits."""
    inputs = DefenderRoundInputs(
        curated=artifact(summary, "curate", 1),
        defender=artifact(summary, "warm_start_defender", 0),
        base=pin_model(config.models.defender),
    )
    run_defender_round(config.defender_round.model_copy(update={"seed": 1000 * seed + 1}), inputs, context)


def artifact(summary: CampaignSummary, stage: StageName, round_index: int) -> ArtifactRef:
    record = summary.find(stage, round_index)
    if record is None:
        raise SystemExit(f"the campaign has no finished {stage} in round {round_index}; run it to the end")
    return record.artifact


def smoothed(curve: list[tuple[int, float]], width: int = 5) -> list[tuple[int, float]]:
    """Running means of `width` neighbouring values."""
    values = [value for _, value in curve]
    return [(curve[i][0], mean(values[max(0, i - width + 1) : i + 1])) for i in range(len(curve))]


if __name__ == "__main__":
    main()
