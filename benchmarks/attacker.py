"""Flow-GRPO with a window of trained steps against Flow-GRPO that trains every step, on one editor, in one process.

    python benchmarks/attacker.py configs/tiny.toml --home .aot --seeds 0 1 2 --seconds 120 --output docs/attacker.png

Opponents and data are those of the campaign's first three stages (run where the home lacks them). Both arms have the
same scenes, groups, learning rate, KL, T = 10 denoising steps and reward; the attack policy is frozen and leaves
what to paint to the editor, so that the editor alone learns. Attacked are the kinds of question that the base is most
fragile about (`--kinds`). Success is an expectation over the held-out scenes, without sampling noise of its own: the
probability that an edit is valid and a sampled answer is wrong, or (3 of 3) that three sampled answers all are.

- all steps: Flow-GRPO (arXiv 2505.05470) as published: an initial noise an edit, every step but the last stochastic and
  trained, no pass shared.
- window: the first two steps stochastic and trained, the branching's pass shared by the group, three ODE steps from the
  window's end to the picture.
- forward (by `--arms`): DiffusionNFT (arXiv 2509.16117), no stochastic step and no log-probability: edits along the
  ODE, an initial noise each, noised anew and trained at two random times each.

First an update's CPU seconds, part by part; then, seed by seed, curves of equal CPU seconds: reward and success on
fixed held-out scenes (not counted in the time), and the time in which each arm's curve comes to where that of all
steps ends, of the mean and of each seed. What is done stands in OUTPUT's .json, and a run with the same settings goes
on from there.
"""

import argparse
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import matplotlib.pyplot as plt
import numpy as np
import torch
from pydantic import BaseModel, Field

from aot_core.attacker.diffusion_nft import optimise_nft
from aot_core.attacker.editing import Attacker
from aot_core.attacker.flow_grpo import optimise, rollout, stochastic_steps
from aot_core.attacker.scenes import Target, answered_right, draw, load_targets
from aot_core.attacker.scoring import score_edits
from aot_core.attacker.self_play import measure, play_round
from aot_core.attacker.tactics import AttackPolicy
from aot_core.base_models.names import model_folder
from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.attack import ProposalSettings, TacticsSettings
from aot_core.contracts.attacker_round import AttackerRoundConfig, NftSettings, SamplingSettings, WindowSettings
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.prepare_data import PrepareDataInputs
from aot_core.contracts.scene import QuestionKind
from aot_core.contracts.spec import Place
from aot_core.contracts.warm_start_attacker import WarmStartAttackerInputs
from aot_core.contracts.warm_start_defender import WarmStartDefenderInputs
from aot_core.defender.answering import Defender
from aot_core.defender.checkpoints import load_defender
from aot_core.engine.identity import pin_model, stage_spec
from aot_core.engine.runner import execute
from aot_core.home import Home
from aot_core.store import open_store
from aot_core.tracking.protocol import NullTracker

ARMS: dict[str, dict[str, Any]] = {
    "all steps": {"sampling": SamplingSettings(steps=10, sde_steps=9, shared_noise=False)},
    "window": {"sampling": SamplingSettings(steps=10, window=WindowSettings(size=2, finish=3))},
    "forward": {"sampling": SamplingSettings(steps=10, shared_noise=False), "nft": NftSettings()},
}
"""What each arm changes of the config."""
COLOURS = dict(zip(ARMS, ("tab:grey", "tab:red", "tab:blue"), strict=True))
PLACES = ("config", "home", "output", "seeds", "redraw", "arms")
"""Arguments that change no curve."""
Point = tuple[float, int, dict[str, float]]
"""CPU seconds, updates done, the probe's figures."""
Curves = dict[str, dict[str, list[Point]]]
"""By arm and seed."""
FIGURES = ("reward", "success", "success 3 of 3", "valid")
"""What is shown of a look; all but the last are compared."""


class Measured(BaseModel):
    """What is on file."""

    about: dict[str, Any]
    seconds: dict[str, dict[str, float]] = Field(default_factory=dict)
    """An update's CPU seconds by arm and part."""
    curves: Curves = Field(default_factory=dict)


@dataclass
class Match:
    """What both arms share."""

    attacker: Path
    base: str
    defender: Defender
    probe: list[Target]
    lessons: list[Target]

    def editor(self, config: AttackerRoundConfig) -> Attacker:
        """The warm-started editor, as it was before any arm trained it."""
        return Attacker.load_trainable(self.base, self.attacker, config.model)


@dataclass
class Probe(NullTracker):
    """Counts an arm's CPU seconds and looks at the held-out scenes now and then, off the clock."""

    look: Callable[[], dict[str, float]]
    every: int
    points: list[Point] = field(default_factory=list)
    spent: float = 0.0
    started: float = field(default_factory=time.process_time)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:  # noqa: ARG002
        self.spent += time.process_time() - self.started
        done = (step or 0) + 1
        if done % self.every == 0:
            self.points.append((self.spent, done, self.look()))
        self.started = time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--home", type=Path, default=Path(".aot"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds of an arm and seed")
    parser.add_argument("--scenes", type=int, default=6, help="scenes an update")
    parser.add_argument("--group", type=int, default=16, help="edits a scene (Flow-GRPO: 24)")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--kl", type=float, default=0.01)
    parser.add_argument("--kinds", nargs="*", default=["count", "relation"], choices=get_args(QuestionKind))
    parser.add_argument("--candidates", type=int, default=2400, help="scenes of the train split that are looked at")
    parser.add_argument("--probe", type=int, default=300, help="held-out scenes, an edit each")
    parser.add_argument("--looks", type=int, default=6, help="at the held-out scenes, of an arm and seed")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["all steps", "window"])
    parser.add_argument("--output", type=Path, default=Path("docs/attacker.png"))
    parser.add_argument("--redraw", action="store_true", help="report and draw again what OUTPUT's .json holds")
    arguments = parser.parse_args()
    path = arguments.output.with_suffix(".json")
    if arguments.redraw:
        kept = Measured.model_validate_json(path.read_bytes())
        kept.curves = of_all_arms(kept.curves)
        report(kept.curves)
        plot(kept, arguments.output)
        return
    torch.set_num_threads(1)
    about = {name: value for name, value in vars(arguments).items() if name not in PLACES}
    kept = Measured(about=about)
    if path.is_file() and (found := Measured.model_validate_json(path.read_bytes())).about == about:
        kept = found
    settings = AttackerRoundConfig(
        scenes=arguments.scenes,
        group_size=arguments.group,
        learning_rate=arguments.learning_rate,
        proposals_per_scene=1,
        iterations=1,
        kl=arguments.kl,
        tactics=TacticsSettings(learning_rate=0.0),
        proposals=ProposalSettings(named_share=0.0),
    )
    match = prepare(load_campaign(arguments.config), arguments)
    print(f"{len(match.lessons)} scenes to attack, {len(match.probe)} held out; {arguments.scenes} x {arguments.group}")
    first, *others = arguments.arms
    for name in arguments.arms:
        kept.seconds[name] = kept.seconds.get(name) or update_seconds(match, of_arm(settings, name))
    for name in others:
        ratio = sum(kept.seconds[first].values()) / sum(kept.seconds[name].values())
        print(f"an update of {name}: {ratio:.1f}x less CPU time than of {first}", flush=True)
    for seed in arguments.seeds:
        for name in arguments.arms:
            if str(seed) in kept.curves.setdefault(name, {}):
                continue
            updates = max(1, round(arguments.seconds / sum(kept.seconds[name].values())))
            config = of_arm(settings, name).model_copy(update={"seed": seed, "updates": updates})
            kept.curves[name][str(seed)] = learn(match, config, arguments.looks)
            path.write_text(kept.model_dump_json() + "\n")
        report({name: kept.curves[name] for name in arguments.arms})
        plot(kept, arguments.output)


def prepare(config: CampaignConfig, arguments: argparse.Namespace) -> Match:
    """The campaign's first three stages, from the store where they stand there; what the Defender answers right."""
    place = Place(store=str(Home(arguments.home).store), device="cpu", threads=1)

    def run(stage: Any, inputs: Any) -> ArtifactRef:
        return execute(stage_spec(stage, config.seeded(getattr(config, stage)), inputs, place)).record.artifact  # pyright: ignore

    attacker_base, defender_base = pin_model(config.models.attacker), pin_model(config.models.defender)
    asked = defender_base if config.prepare_data.effectiveness.enabled else None
    data = run("prepare_data", PrepareDataInputs(defender=asked))
    attacker = run("warm_start_attacker", WarmStartAttackerInputs(dataset=data, base=attacker_base))
    defended = run("warm_start_defender", WarmStartDefenderInputs(dataset=data, base=defender_base))
    store = open_store(place.store)
    dataset, base = store.fetch(data), str(model_folder(config.models.attacker) or config.models.attacker)
    defender = load_defender(store.fetch(defended), str(model_folder(config.models.defender) or config.models.defender))
    targets = load_targets(dataset, np.random.default_rng([0, 12]), arguments.candidates)
    targets = [target for target in targets if target.sample.question.query.kind in arguments.kinds]
    right = answered_right(defender, targets, 3, 1.0, 0)
    targets = [target for target, share in zip(targets, right, strict=True) if share == 1.0]
    held_out = arguments.probe
    return Match(store.fetch(attacker), base, defender, targets[:held_out], targets[held_out:])


def of_arm(config: AttackerRoundConfig, arm: str) -> AttackerRoundConfig:
    return config.model_copy(update=ARMS[arm])


def arm_of(config: AttackerRoundConfig) -> str:
    return next(name for name, changed in ARMS.items() if changed["sampling"] == config.sampling)


def update_seconds(match: Match, config: AttackerRoundConfig, repeats: int = 3) -> dict[str, float]:
    """Least CPU seconds of each part of an update over the repeats, after one that warms up and is left out."""
    editor = match.editor(config)
    editor.hold_reference()
    optimizer = torch.optim.AdamW(editor.trainable(), lr=1e-6)
    clocks = [timed_update(match, editor, optimizer, config, repeat) for repeat in range(repeats + 1)][1:]
    least = {part: min(clock[part] for clock in clocks) for part in clocks[0]}
    arm = arm_of(config)
    parts = ", ".join(f"{part} {value:.2f}" for part, value in least.items())
    print(f"{arm}: {sum(least.values()):.2f} CPU s an update, least of {repeats} ({parts})", flush=True)
    return least


def timed_update(
    match: Match, editor: Attacker, optimizer: torch.optim.Optimizer, config: AttackerRoundConfig, repeat: int
) -> dict[str, float]:
    """One update of the editor, as `self_play.play_update` makes it, its parts timed."""
    clock: dict[str, float] = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        clock[part] = time.process_time() - started
        return result

    rng, noise = np.random.default_rng(repeat), torch.Generator().manual_seed(repeat)
    attempts = draw(rng, match.lessons, config.proposals, AttackPolicy(), config.scenes)
    images = [attempt.target.image for attempt in attempts]
    told = [attempt.proposal.instruction for attempt in attempts]
    condition = timed("encode", lambda: editor.encode(images, told))
    window = range(0) if config.nft else stochastic_steps(config.sampling, repeat)
    given = (editor, condition, config.group_size, config.sampling, noise)
    edits = timed("sample", lambda: rollout(*given, with_reference=True, stochastic=window))
    edited = timed("decode", lambda: editor.decode(edits.latents, edits.condition))
    scored = timed("judge", lambda: score_edits(match.defender, attempts, edited, config, repeat))
    rewards = torch.tensor([one.reward.reward for one in scored]).view(-1, config.group_size)
    if config.nft is not None:
        learner = config, config.nft, optimizer, noise, nullcontext()
        timed("train", lambda: optimise_nft(editor, edits, rewards, *learner))
    else:
        timed("train", lambda: optimise(editor, edits, rewards, config, optimizer))
    return clock


def learn(match: Match, config: AttackerRoundConfig, looks: int) -> list[Point]:
    """An arm's curve on the held-out scenes: the same instructions and noise at each look, whatever the seed."""
    editor, policy = match.editor(config), AttackPolicy()
    arm = arm_of(config)
    fixed = config.model_copy(update={"seed": 0})

    def look() -> dict[str, float]:
        probed = measure(editor, policy, match.defender, match.probe, fixed)
        print(f"seed {config.seed}, {arm}, after {tracker.spent:.0f} CPU s: {shown(figures_of(probed))}", flush=True)
        return probed

    tracker = Probe(look, every=max(1, round(config.updates / looks)))
    tracker.points.append((0.0, 0, look()))
    tracker.started = time.process_time()
    play_round(editor, policy, match.defender, match.lessons, config, tracker)
    return tracker.points


def figures_of(probed: Mapping[str, float]) -> dict[str, float]:
    """`FIGURES`, from what `measure` found."""
    once = probed["valid"] * probed["efficacy"]  # efficacy is a mean over the valid edits alone
    return dict(zip(FIGURES, (probed["reward"], once, probed["success"], probed["valid"]), strict=True))


def read(curve: list[Point]) -> list[Point]:
    return [(spent, done, figures_of(probed)) for spent, done, probed in curve]


def mean_curve(curves: Collection[list[Point]]) -> list[Point]:
    """The mean of the figures over the seeds, look by look: an arm looks after the same updates whatever the seed."""
    return [
        (
            mean(spent for spent, _, _ in looks),
            looks[0][1],
            {name: mean(figures[name] for _, _, figures in looks) for name in FIGURES},
        )
        for looks in zip(*map(read, curves), strict=True)
    ]


def seconds_to(curve: list[Point], name: str, wanted: float) -> float | None:
    """CPU seconds until a figure first comes to a value, between looks by a straight line; None where it never does."""
    for (before, _, low), (after, _, high) in pairwise(curve):
        if high[name] >= wanted:
            rise = high[name] - low[name]
            return after if rise <= 0 else before + (after - before) * max(0.0, (wanted - low[name]) / rise)
    return None


def of_all_arms(curves: Curves) -> Curves:
    """Without a seed that one of the arms has not played yet."""
    both = set.intersection(*(set(found) for found in curves.values()))
    return {arm: {seed: curve for seed, curve in found.items() if seed in both} for arm, found in curves.items()}


def report(curves: Curves) -> None:
    """Start and end of each arm's mean curve, and every arm's time to what the first one ends with, if that rose."""
    means = {name: mean_curve(found.values()) for name, found in curves.items()}
    for name, curve in means.items():
        print(f"{name}: mean of {len(curves[name])} seeds: {shown(curve[0][2])} -> {shown(curve[-1][2])}")
    for name in FIGURES[:-1]:
        print(f"{name}, mean of the seeds: {compared(means, name)}")
        for seed in next(iter(curves.values())):
            by_arm = {arm: read(found[seed]) for arm, found in curves.items()}
            print(f"{name}, seed {seed}: {compared(by_arm, name)}", flush=True)


def compared(curves: Mapping[str, list[Point]], name: str) -> str:
    """The curves' CPU seconds to the value that the first one ends with."""
    first, curve = next(iter(curves.items()))
    wanted = curve[-1][2][name]
    if wanted <= curve[0][2][name]:
        return f"{first} ended no higher than it began; there is no time to compare"
    times = {arm: seconds_to(found, name, wanted) for arm, found in curves.items()}
    told = ", ".join(
        f"{arm} never"
        if spent is None
        else f"{arm} {spent:.0f} CPU s" + (f" ({times[first] / spent:.1f}x)" if times[first] and spent else "")  # pyright: ignore[reportOptionalOperand]
        for arm, spent in times.items()
    )
    return f"to {wanted:.3f}, where the curve of {first} ends: {told}"


def shown(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {figures[name]:.3f}" for name in FIGURES)


def plot(kept: Measured, output: Path) -> None:
    seconds = kept.seconds
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.6), constrained_layout=True)
    bottoms = dict.fromkeys(seconds, 0.0)
    for part in ("encode", "sample", "decode", "judge", "train"):
        heights = [by_part[part] for by_part in seconds.values()]
        axes[0].bar(list(seconds), heights, bottom=list(bottoms.values()), label=part, width=0.6)
        for name in seconds:
            bottoms[name] += seconds[name][part]
    axes[0].set(title="an update", ylabel="CPU seconds")
    axes[0].legend(frameon=False)
    for axis, name in zip(axes[1:], FIGURES, strict=False):
        for arm, found in kept.curves.items():
            colour = COLOURS[arm]
            for curve, width in [*((read(one), 0.6) for one in found.values()), (mean_curve(found.values()), 2.2)]:
                x, y = [spent for spent, _, _ in curve], [figures[name] for _, _, figures in curve]
                label = f"{arm}: mean of {len(found)} seeds" if width > 1 else None
                axis.plot(x, y, color=colour, linewidth=width, label=label)
        axis.set(title=f"{name} (held-out scenes)", xlabel="CPU seconds of training")
        axis.legend(frameon=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
