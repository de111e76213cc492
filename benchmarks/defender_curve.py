"""A Defender's round on the tiny world at equal processor time: stock TRL against the shared prompt, several seeds.

    python benchmarks/defender_curve.py --seconds 120 --seeds 0 1 2 --output docs/defender-curve.png
    python benchmarks/defender_curve.py --dynamic-sampling 6 --temperature 1 --seeds 0 1 2

The shipped base learns from procedural scenes with implanted distractors (`prepare_data`, a seed of its own), by
configs/tiny.toml's settings with a constant learning rate. Stock is the same round with `share_prompts = false`, which
leaves generation and loss to TRL. Each run may use so many seconds of one thread's time (the processor's, so that
neighbours on the machine do not count); then it is asked 300 held-out questions about scenes with three distractors,
before and after. Prints the figures and draws reward against seconds.

With --dynamic-sampling N: N generations without refills and with two, and how many groups of use they give a thousand
generated tokens.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import torch

from aot_core.contracts.defender_round import DefenderRoundConfig, DefenderRoundOutputs, DynamicSampling
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.prepare_data import PrepareDataInputs
from aot_core.data.dataset import load_images, read_samples
from aot_core.defender.answering import Defender, question_letters
from aot_core.defender.grpo import train_round
from aot_core.defender.loading import load_model, load_processor
from aot_core.defender.rewards import defender_reward
from aot_core.engine.context import StageContext
from aot_core.stages.prepare_data import run_prepare_data
from aot_core.store import LocalStore
from aot_core.tracking.protocol import NullTracker

BASE = "aot-tiny-vl"
CONFIG = Path(__file__).parents[1] / "configs" / "tiny.toml"
NAMES = {False: "stock TRL", True: "shared prompt"}
Curve = list[tuple[float, float]]


class TimeIsUpError(Exception):
    """The run has used its seconds."""


class Stopwatch(NullTracker):
    """Keeps the reward of every generation beside the processor seconds since the start, and ends the run in time."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._started = seconds, time.process_time()
        self.curve: Curve = []
        self.updates = 0

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        used = time.process_time() - self._started
        self.updates = step or self.updates
        if "defender/reward" in metrics:
            self.curve.append((used, metrics["defender/reward"]))
        if used >= self._seconds:
            raise TimeIsUpError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="processor seconds a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dynamic-sampling", type=int, metavar="N", help="compare N generations instead")
    parser.add_argument("--temperature", type=float, help="of sampling and policy; tiny.toml's unless given")
    parser.add_argument("--output", type=Path, default=Path("docs/defender-curve.png"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder))
        if arguments.dynamic_sampling:
            compare_sampling(data, arguments.dynamic_sampling, arguments.seeds, arguments.temperature)
        else:
            compare_curves(data, arguments.seconds, arguments.seeds, arguments.output)


def make_data(root: Path) -> Path:
    """A data set whose splits `warm_start` and `evaluate` hold edited scenes."""
    config = load_campaign(CONFIG, ["prepare_data.effectiveness.enabled=false"]).prepare_data
    splits = config.splits.model_copy(update={"warm_start": 1200, "train": 0, "evaluate": 300})
    output = root / "data"
    output.mkdir()
    context = StageContext(LocalStore(root / "store"), output, root / "scratch", progress=root / "progress")
    run_prepare_data(config.model_copy(update={"splits": splits, "seed": 77}), PrepareDataInputs(), context)
    return output


def settings(seed: int, generations: int, **changes: object) -> DefenderRoundConfig:
    config = load_campaign(CONFIG).defender_round
    same = {"seed": seed, "generations": generations, "warmup_ratio": 0.0, "checkpoint_every": 0}
    return config.model_copy(update=same | changes)


def compare_curves(data: Path, seconds: float, seeds: list[int], output: Path) -> None:
    figure, axis = plt.subplots(figsize=(7, 3.8), constrained_layout=True)
    print(f"{'':14} seed  updates  reward first  last 5 generations  held out before  after (n = 300, right letter)")
    for seed in seeds:
        for shared, colour in ((False, "tab:gray"), (True, "tab:blue")):
            clock, before, after = timed_run(data, seconds, settings(seed, 10_000, share_prompts=shared))
            rewards = [reward for _, reward in clock.curve]
            print(
                f"{NAMES[shared]:14} {seed:4} {clock.updates:8} {mean(rewards[:5]):13.3f} {mean(rewards[-5:]):19.3f}"
                f" {before:16.3f} {after:6.3f}",
                flush=True,
            )
            smooth = [(clock.curve[i][0], mean(rewards[max(0, i - 4) : i + 1])) for i in range(len(rewards))]
            label = NAMES[shared] if seed == seeds[0] else None
            axis.plot(*zip(*smooth, strict=True), color=colour, label=label, linewidth=1.4)
    axis.set(
        title=f"Defender's round, tiny world, {len(seeds)} seeds each",
        xlabel="processor seconds, one thread",
        ylabel="mean reward (5 generations)",
    )
    axis.legend(frameon=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    print(output)


def timed_run(data: Path, seconds: float, config: DefenderRoundConfig) -> tuple[Stopwatch, float, float]:
    """Train for so many seconds; returns the curve and the held-out accuracy before and after."""
    model, processor = load_model(BASE), load_processor(BASE)
    before = held_out(Defender(model, processor), data)
    samples = read_samples(data, "warm_start")
    with tempfile.TemporaryDirectory() as progress:
        clock = Stopwatch(seconds)
        try:
            train_round(model, processor, samples, data, config, progress=Path(progress), device="cpu", tracker=clock)
        except TimeIsUpError:
            return clock, before, held_out(Defender(model, processor), data)
    raise SystemExit("the run ended before its seconds were used")


def held_out(defender: Defender, data: Path) -> float:
    """Greedy accuracy on the split `evaluate`'s edited scenes."""
    samples = [sample for sample in read_samples(data, "evaluate") if sample.edited_image is not None][:300]
    questions = [sample.question for sample in samples]
    images = load_images(data, [str(sample.edited_image) for sample in samples])
    answers = defender.answer(images, questions, samples=1, temperature=0.0, seed=0)
    rewards = [
        defender_reward(one[0], question.answer, question_letters(question))
        for one, question in zip(answers, questions, strict=True)
    ]
    return sum(reward > 0 for reward in rewards) / len(rewards)


def compare_sampling(data: Path, generations: int, seeds: list[int], temperature: float | None) -> None:
    given = {} if temperature is None else {"temperature": temperature}
    print("            seed  useful groups  tokens generated  useful groups a 1,000 tokens")
    for refills in (0, 2):
        found = []
        for seed in seeds:
            outputs = sampled_run(data, settings(seed, generations, dynamic_sampling=sampling(refills), **given))
            useful = outputs.useful_groups * generations * settings(seed, generations).prompts
            found.append(1000 * useful / outputs.generated_tokens)
            print(
                f"{refills} refills {seed:6} {outputs.useful_groups:14.1%} {outputs.generated_tokens:17,}"
                f" {found[-1]:29.2f}",
                flush=True,
            )
        print(f"{refills} refills: mean {mean(found):.2f} useful groups a 1,000 tokens")


def sampling(refills: int) -> DynamicSampling:
    return DynamicSampling(refills=refills)


def sampled_run(data: Path, config: DefenderRoundConfig) -> DefenderRoundOutputs:
    model, processor = load_model(BASE), load_processor(BASE)
    with tempfile.TemporaryDirectory() as progress:
        return train_round(
            model,
            processor,
            read_samples(data, "warm_start"),
            data,
            config,
            progress=Path(progress),
            device="cpu",
            tracker=NullTracker(),
        )


if __name__ == "__main__":
    main()
