"""Which settings teach a Defender? One round each on the same scenes with procedural distractors, one line a setting.

    python benchmarks/defender_sweep.py configs/tiny.toml --try defender_round.learning_rate=1e-4 \\
        --try "defender_round.model={lora={rank=16,alpha=32}} warm_start_defender.model={lora={rank=16,alpha=32}}"

Every try is the config with its overrides (several, parted by blanks): warm start, then one `defender_round` on
`--scenes` scenes of the train split that carry up to three semantic distractors, then `evaluate` without Attackers. It
is the cheap part of `benchmarks/coevolution.py` (its `oracle_rl`), for finding settings before a campaign is spent on
them. The first line is the warm start itself. Everything goes through the stages and their store: a try that was made
is found again.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from coevolution import Seed
from rivals import with_distractors

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.base import sha256_of
from aot_core.contracts.defender_round import DefenderRoundInputs
from aot_core.contracts.evaluate import EvaluateInputs
from aot_core.contracts.loading import load_campaign
from aot_core.contracts.prepare_data import PrepareDataInputs
from aot_core.contracts.warm_start_defender import WarmStartDefenderInputs
from aot_core.data.dataset import read_samples, write_dataset
from aot_core.home import Home

CONDITIONS = ("clean", "semantic", "irrelevant", "unseen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--try", dest="tries", action="append", default=[], metavar='"A.B=VALUE C.D=VALUE"')
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="in every try")
    parser.add_argument("--scenes", type=int, default=900)
    parser.add_argument("--home", type=Path, default=Path(".aot-bench"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    home = Home(arguments.home.resolve())
    print("| settings | reward, first tenth | last tenth | flat groups | " + " | ".join(CONDITIONS) + " |")
    print("|---" * (len(CONDITIONS) + 4) + "|")
    for index, wanted in enumerate(["", *arguments.tries]):
        config = load_campaign(arguments.config, [*arguments.overrides, *wanted.split()])
        print(_row(Seed(config, home, arguments.threads), wanted, arguments.scenes, learn=index > 0), flush=True)


def _row(seed: Seed, wanted: str, scenes: int, *, learn: bool) -> str:
    base = seed.bases[1]
    judge = base if seed.config.prepare_data.effectiveness.enabled else None
    seed.data = seed.run("prepare_data", PrepareDataInputs(source=None, defender=judge)).artifact
    defender = seed.run("warm_start_defender", WarmStartDefenderInputs(dataset=seed.data, base=base)).artifact
    told: Sequence[object] = ("", "", "")
    if learn:
        inputs = DefenderRoundInputs(curated=lessons(seed, scenes), defender=defender, base=base)
        record = seed.run("defender_round", inputs, 1)
        defender = record.artifact
        told = [f"{record.outputs[name]:.3f}" for name in ("first_reward", "last_reward", "flat_groups")]
    exam = EvaluateInputs(
        dataset=seed.data, defender=defender, defender_base=base, attacker_base=seed.bases[0], attackers=()
    )
    strict = seed.run("evaluate", exam).outputs["strict"]
    figures = [f"{100 * strict[condition]:.1f}" for condition in CONDITIONS]
    return f"| {wanted or 'the warm start'} | " + " | ".join([*map(str, told), *figures]) + " |"


def lessons(seed: Seed, scenes: int) -> ArtifactRef:
    """Clean scenes of the train split with procedural semantic distractors, as a curated set."""
    folder = seed.store.fetch(seed.data)
    clean = [sample for sample in read_samples(folder, "train") if not sample.edits][:scenes]
    with tempfile.TemporaryDirectory() as name:
        samples = [
            lesson
            for index, sample in enumerate(clean)
            if (lesson := with_distractors(np.random.default_rng([7, index]), sample, folder, Path(name)))
        ]
        write_dataset(Path(name), samples)
        return seed.store.put("curate", sha256_of({"sweep": seed.data.sha256, "scenes": scenes}), Path(name))


if __name__ == "__main__":
    main()
