"""What each round's Attacker paints, to be looked at, and how it attacks.

    python benchmarks/attacker_rounds.py .aot/campaigns/tiny-*/summary.json --output docs/attacker-rounds.png

Every round's Attacker edits the same held-out scenes (the `evaluate` split: it was trained on none of them), an edit
each, as its own policy proposes, against the Defender that the round began with. Drawn are, of each round, the edit of
the highest reward, one from the middle and the lowest one: not the best alone. Printed and drawn with them: the shares
of valid and successful edits, and of every kind, place and content that the policy proposed late in its round.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from aot_core.attacker.editing import Attacker
from aot_core.attacker.reward import answered_letters
from aot_core.attacker.round_state import ScoredEdit
from aot_core.attacker.scenes import Target, answered_right, draw
from aot_core.attacker.scoring import check, score_edits
from aot_core.attacker.self_play import summarise
from aot_core.attacker.tactics import AttackPolicy
from aot_core.base_models.names import model_folder
from aot_core.contracts.artifact import StageName, StageRecord
from aot_core.contracts.attacker_round import AttackerRoundConfig, AttackerRoundOutputs
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.summary import CampaignSummary
from aot_core.data.dataset import load_image, read_samples
from aot_core.data.gallery import GalleryRow, gallery
from aot_core.defender.answering import Defender
from aot_core.defender.checkpoints import load_defender
from aot_core.evaluation.charts import attack_mix
from aot_core.home import Home
from aot_core.store import open_store
from aot_core.store.protocol import Store
from aot_core.worlds.validity import Verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summary", type=Path, help="a campaign's summary.json, all of its rounds played")
    parser.add_argument("--scenes", type=int, default=150, help="held-out scenes to be asked about")
    parser.add_argument("--output", type=Path, default=Path("docs/attacker-rounds.png"))
    arguments = parser.parse_args()
    summary = CampaignSummary.model_validate_json(arguments.summary.read_bytes())
    config = CampaignConfig.model_validate(summary.config)
    store = open_store(str(Home(arguments.summary.parents[2]).store))
    targets = held_out(store.fetch(record_of(summary, "prepare_data", 0).artifact), arguments.scenes)
    pages: list[Image.Image] = []
    mixes: dict[int, dict[str, float]] = {}
    for number in range(1, config.rounds + 1):
        played = record_of(summary, "attacker_round", number)
        mixes[number] = AttackerRoundOutputs.model_validate(played.outputs).tactics
        pages.append(page_of(number, summary, config, store, targets))
        told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in mixes[number].items() if share >= 0.005)
        print(f"  proposed late in the round: {told}", flush=True)
    pages.append(Image.open(BytesIO(attack_mix(mixes, dark=False))).convert("RGB"))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    stacked(pages).save(arguments.output, optimize=True)
    print(arguments.output)


def record_of(summary: CampaignSummary, stage: StageName, number: int) -> StageRecord:
    record = summary.find(stage, number)
    if record is None:
        raise SystemExit(f"the campaign has no finished {stage} in round {number}; run it to the end")
    return record


def held_out(dataset: Path, count: int) -> list[Target]:
    clean = [sample for sample in read_samples(dataset, "evaluate") if not sample.edits][:count]
    return [Target(sample, load_image(dataset, sample.image)) for sample in clean]


def page_of(
    number: int, summary: CampaignSummary, config: CampaignConfig, store: Store, targets: list[Target]
) -> Image.Image:
    """A round's gallery."""
    settings = config.attacker_round
    folder = store.fetch(record_of(summary, "attacker_round", number).artifact)
    attacker = Attacker.load(str(model_folder(config.models.attacker) or config.models.attacker), folder)
    faced = record_of(summary, *(("defender_round", number - 1) if number > 1 else ("warm_start_defender", 0)))
    base = str(model_folder(config.models.defender) or config.models.defender)
    defender = load_defender(store.fetch(faced.artifact), base)
    right = answered_right(defender, targets, settings.reward.samples, settings.reward.temperature, settings.seed)
    attacked = [target for target, share in zip(targets, right, strict=True) if share == 1.0]
    attempts = draw(
        np.random.default_rng(number), attacked, settings.proposals, AttackPolicy.load(folder), len(attacked)
    )
    edited = attacker.edit(
        [attempt.target.image for attempt in attempts],
        [attempt.proposal.instruction for attempt in attempts],
        seed=settings.seed,
    )
    scored = score_edits(defender, attempts, edited, settings, settings.seed)
    verdicts = check(attempts, edited, settings)
    figures = summarise(scored)
    title = (
        f"Round {number}: of {len(scored)} edits of held-out scenes {100 * figures['valid']:.0f} % valid, "
        f"mean reward {figures['reward']:.2f}, success (3 of 3) {100 * figures['success']:.0f} %"
    )
    print(title, flush=True)
    ranked = sorted(range(len(scored)), key=lambda index: -scored[index].reward.reward)
    chosen = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
    return gallery(shown([scored[i] for i in chosen], [verdicts[i] for i in chosen], defender, settings), title)


def shown(
    edits: list[ScoredEdit], verdicts: list[Verdict], defender: Defender, settings: AttackerRoundConfig
) -> list[GalleryRow]:
    questions = [edit.target.sample.question for edit in edits]
    asked = settings.reward
    after = answered_letters(
        defender, [edit.edited for edit in edits], questions, asked.samples, asked.temperature, settings.seed
    )
    return [
        GalleryRow(
            clean=edit.target.image,
            edited=edit.edited,
            question=edit.target.sample.question,
            clean_answers=(edit.target.sample.question.answer,) * asked.samples,  # else it was not attacked
            edited_answers=said,
            caption=f"{' '.join(one.instruction for one in edit.proposal.edits)} {validity_of(verdict)}, "
            f"reward {edit.reward.reward:.2f}",
        )
        for edit, verdict, said in zip(edits, verdicts, after, strict=True)
    ]


def validity_of(verdict: Verdict) -> str:
    """Valid, or what it fails by."""
    faults = {
        "the question's objects were touched": not verdict.intact,
        "something else changed": not verdict.confined,
        "no clear object": not verdict.semantic,
        "it costs too much": not verdict.affordable,
        "it changes the truth": not verdict.truth_kept,
    }
    found = ", ".join(name for name, fails in faults.items() if fails)
    return f"Invalid ({found})" if found else f"Valid (SSIM {verdict.ssim:.3f})"


def stacked(pages: list[Image.Image]) -> Image.Image:
    """The pictures below each other, all as wide as the narrowest."""
    width = min(page.width for page in pages)
    fitted = [page.resize((width, round(page.height * width / page.width)), Image.Resampling.LANCZOS) for page in pages]
    whole = Image.new("RGB", (width, sum(page.height for page in fitted)), "white")
    top = 0
    for page in fitted:
        whole.paste(page, (0, top))
        top += page.height
    return whole


if __name__ == "__main__":
    main()
