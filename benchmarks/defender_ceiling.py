"""How far could this Defender come at all? Its letters alone are taught, on many scenes, by the plainest of means.

    python benchmarks/defender_ceiling.py configs/tiny.toml --scenes 2700 --steps 108
    python benchmarks/defender_ceiling.py configs/tiny.toml --scenes 8000 --steps 400 --arms right rl4 rl4-clean

A round of `defender_round` that ends lower than these arms has its own weakness; where all of them end at the same
place, the model, its data or its frozen sight is the bound. Every step asks `--prompts` questions, three quarters of
them about scenes with up to three procedural semantic distractors (`-clean`: none), and changes the weights once:

- `right`: the right letter's log-probability is raised (supervised: as much as any reward could say).
- `rlT`: policy gradient on 8 sampled tokens in the letter's place at temperature T, advantages normalised in the
  group.

Prints, at every `--every` steps, the mean probability of three right answers at temperature 0.5 (what `evaluate`
counts, without its sampling noise) on the evaluation split: by family of distractors, and by kind of question under
semantic ones. One thread; the base Defender, its vision frozen, AdamW, a learning rate that falls to 0.
"""

import argparse
import copy
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from coevolution import Seed
from defender_sweep import lessons
from PIL.Image import Image
from tqdm import trange

from aot_core.contracts.loading import load_campaign
from aot_core.contracts.prepare_data import PrepareDataInputs
from aot_core.contracts.scene import Question
from aot_core.data.dataset import load_image, read_samples
from aot_core.defender.answering import Defender, chat_prompt, letter_tokens
from aot_core.home import Home

GROUP = 8
CLEAN_SHARE = 0.25
ASKED_AT, ANSWERS = 0.5, 3
"""`evaluate.temperature` and how often it asks."""

Asked = tuple[Image, Question]


@dataclass(frozen=True)
class Arm:
    name: str
    temperature: float
    """Of the policy gradient; 0: the right letter is given."""
    clean_share: float

    @classmethod
    def parse(cls, name: str) -> "Arm":
        kind, _, clean = name.partition("-")
        if clean not in ("", "clean") or not (kind == "right" or kind.startswith("rl")):
            raise SystemExit(f"arm {name!r} is none: right, rlT or one of them with -clean, as rl1.5-clean")
        return cls(name, 0.0 if kind == "right" else float(kind[2:]), 1.0 if clean else CLEAN_SHARE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--arms", nargs="+", type=Arm.parse, default=[Arm.parse(n) for n in ("right", "rl1.5", "rl4")])
    parser.add_argument("--scenes", type=int, default=2700)
    parser.add_argument("--steps", type=int, default=108)
    parser.add_argument("--every", type=int, default=36)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--home", type=Path, default=Path(".aot-bench"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train = f"prepare_data.splits.train={arguments.scenes}"
    seed = Seed(load_campaign(arguments.config, [train]), Home(arguments.home.resolve()), 1)
    judge = seed.bases[1] if seed.config.prepare_data.effectiveness.enabled else None
    seed.data = seed.run("prepare_data", PrepareDataInputs(source=None, defender=judge)).artifact
    exam = examination(seed.store.fetch(seed.data))
    taught = seed.store.fetch(lessons(seed, arguments.scenes))
    base = Defender.load(seed.config.models.defender, batch_size=100)
    columns = list(examine(base, exam))
    print("| arm | steps | questions | CPU s | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 4) + "|")
    print(row("the base", 0, 0, 0.0, examine(base, exam)), flush=True)
    for arm in arguments.arms:
        learn(arm, base, taught, exam, arguments)


def examination(folder: Path) -> dict[str, list[Asked]]:
    """The evaluation split's questions: clean, by family, and those about semantic distractors by kind."""
    found: dict[str, list[Asked]] = defaultdict(list)
    for sample in read_samples(folder, "evaluate"):
        image = load_image(folder, sample.edited_image or sample.image)
        family = str(sample.edits[0].family) if sample.edits else "clean"
        found[family].append((image, sample.question))
        if family == "semantic":
            found[f"semantic: {sample.question.query.kind}"].append((image, sample.question))
    return dict(found)


def examine(defender: Defender, exam: dict[str, list[Asked]]) -> dict[str, float]:
    """The mean probability of ANSWERS right answers, by condition."""
    return {name: mean(sure(defender, asked)) for name, asked in sorted(exam.items())}


def sure(defender: Defender, asked: Sequence[Asked]) -> list[float]:
    images, questions = [image for image, _ in asked], [question for _, question in asked]
    shares = []
    for letters, question in zip(defender.letter_logprobs(images, questions), questions, strict=True):
        weights = {letter: np.exp(logprob / ASKED_AT) for letter, logprob in letters.items()}
        shares.append(float((weights[question.answer] / sum(weights.values())) ** ANSWERS))
    return shares


def learn(arm: Arm, base: Defender, folder: Path, exam: dict[str, list[Asked]], arguments: argparse.Namespace) -> None:
    """Teach a copy of the base, and print a row every so often."""
    torch.manual_seed(0)
    model, processor = copy.deepcopy(base.model), base.processor
    learner = Defender(model, processor, batch_size=base.batch_size)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".visual." not in f".{name}")
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=arguments.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / arguments.steps)
    rng, samples = np.random.default_rng(0), read_samples(folder)
    order = np.concatenate(
        [rng.permutation(len(samples)) for _ in range(1 + arguments.steps * arguments.prompts // len(samples))]
    )
    begun = time.process_time()
    for step in trange(arguments.steps, desc=arm.name, disable=None):
        chosen = [samples[i] for i in order[step * arguments.prompts : (step + 1) * arguments.prompts]]
        shown = [s.image if rng.random() < arm.clean_share else str(s.edited_image) for s in chosen]
        asked = [(load_image(folder, path), sample.question) for path, sample in zip(shown, chosen, strict=True)]
        optimizer.zero_grad()
        loss_of(arm, learner, asked).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % arguments.every == 0 or step + 1 == arguments.steps:
            spent, questions = time.process_time() - begun, (step + 1) * arguments.prompts
            print(row(arm.name, step + 1, questions, spent, examine(learner, exam)), flush=True)


def loss_of(arm: Arm, learner: Defender, asked: Sequence[Asked]) -> torch.Tensor:
    prefix, ids = letter_tokens(learner.processor)
    texts = [chat_prompt(learner.processor, question.prompt) + prefix for _, question in asked]
    images = [image for image, _ in asked]
    inputs = learner.processor(images=images, text=texts, padding=True, padding_side="left", return_tensors="pt")
    right_P = torch.tensor([ids[question.answer] for _, question in asked])
    logits_PV = learner.model(**inputs, logits_to_keep=1).logits[:, -1].float()
    if not arm.temperature:
        return torch.nn.functional.cross_entropy(logits_PV, right_P)
    logprobs_PV = (logits_PV / arm.temperature).log_softmax(-1)
    drawn_PG = torch.multinomial(logprobs_PV.detach().exp(), GROUP, replacement=True)
    rewards_PG = (drawn_PG == right_P[:, None]).float()
    advantages_PG = (rewards_PG - rewards_PG.mean(1, keepdim=True)) / (rewards_PG.std(1, keepdim=True) + 1e-4)
    return -(advantages_PG * logprobs_PV.gather(1, drawn_PG)).mean()


def row(name: str, steps: int, questions: int, seconds: float, shares: dict[str, float]) -> str:
    figures = " | ".join(f"{100 * share:.1f}" for share in shares.values())
    return f"| {name} | {steps} | {questions} | {seconds:.0f} | {figures} |"


if __name__ == "__main__":
    main()
