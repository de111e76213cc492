"""A Defender's round with vLLM beside the trainer, run in vLLM's environment: `colocated_round.py CURATED OUTPUT`.

Prints one JSON object: the round's outputs, and every update's figures.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from aot_core.base_models.names import SHIPPED
from aot_core.contracts.defender_round import DefenderRoundConfig, Vllm
from aot_core.contracts.learning import DefenderModelSettings
from aot_core.data.dataset import read_samples
from aot_core.defender.checkpoints import load_trainable
from aot_core.defender.grpo import train_round
from aot_core.tracking.protocol import NullTracker

SETTINGS = {"generations": 4, "prompts": 4, "group_size": 4, "temperature": 1.5, "clean_share": 0.2}


class Listener(NullTracker):
    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        del step
        self.metrics.append(dict(metrics))


def main() -> None:
    curated, output = map(Path, sys.argv[1:])
    # A rate at which every update moves the answers: a sampler that kept old weights would be found out.
    config = DefenderRoundConfig(**SETTINGS, learning_rate=1e-3, vllm=Vllm())  # pyright: ignore[reportArgumentType]
    model, processor = load_trainable(None, str(SHIPPED / "aot-tiny-vl"), DefenderModelSettings(), "cpu")
    listener, progress = Listener(), output / "progress"
    progress.mkdir(parents=True)
    outputs = train_round(
        model,
        processor,
        read_samples(curated, "train"),
        curated,
        config,
        progress=progress,
        device="cpu",
        tracker=listener,
        output=output,
    )
    print(json.dumps({"outputs": outputs.model_dump(), "metrics": listener.metrics}))


if __name__ == "__main__":
    main()
