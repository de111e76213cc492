"""Finds edits of round 1's Attacker that fool the warm-started Defender and no longer fool the last one.

    python benchmarks/fooling_edit.py .aot/campaigns/tiny-*/summary.json --output docs/fooling-edit.png

Asks both Defenders, k times each at the evaluation's temperature, about the clean and the edited picture of every
sample that round 1 curated, prints how many edits are of that kind, and draws the first few of them. With
`--ablation FOLDER`, a Defender's artifact such as `benchmarks/coevolution.py` names for `clean_rl`, only those that
fool that one too.
"""

import argparse
from pathlib import Path

from aot_core.answers import letter_of
from aot_core.base_models.names import model_folder
from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.scene import Sample
from aot_core.contracts.summary import CampaignSummary
from aot_core.data.dataset import load_image, read_samples
from aot_core.data.gallery import GalleryRow, gallery
from aot_core.defender.answering import Defender
from aot_core.defender.checkpoints import load_defender
from aot_core.home import Home
from aot_core.store import open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summary", type=Path, help="a finished campaign's summary.json")
    parser.add_argument("--output", type=Path, default=Path("docs/fooling-edit.png"))
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--ablation", type=Path, help="a Defender's artifact folder that the edits must fool as well")
    arguments = parser.parse_args()
    summary = CampaignSummary.model_validate_json(arguments.summary.read_bytes())
    config = CampaignConfig.model_validate(summary.config)
    store = open_store(str(Home(arguments.summary.parents[2]).store))

    curated, first, last = (
        summary.find("curate", 1),
        summary.find("warm_start_defender", 0),
        summary.find("defender_round", config.rounds),
    )
    if curated is None or first is None or last is None:
        raise SystemExit(f"{arguments.summary}: the campaign has not finished its rounds; run it to the end")
    folder = store.fetch(curated.artifact)
    base = str(model_folder(config.models.defender) or config.models.defender)
    samples = [sample for sample in read_samples(folder) if sample.edited_image is not None]
    clean = [sample.image for sample in samples]
    edited = [str(sample.edited_image) for sample in samples]

    before, after = (load_defender(store.fetch(record.artifact), base) for record in (first, last))
    clean_before = _letters(before, folder, samples, clean, config)
    edited_before, edited_after = (_letters(player, folder, samples, edited, config) for player in (before, after))
    others = [edited_before]
    if arguments.ablation is not None:
        others.append(_letters(load_defender(arguments.ablation, base), folder, samples, edited, config))
    found = [
        GalleryRow(
            clean=load_image(folder, sample.image),
            edited=load_image(folder, str(sample.edited_image)),
            question=sample.question,
            clean_answers=clean_before[i],
            edited_answers=edited_before[i],
            caption=sample.instruction
            + (f" Trained on clean scenes: {' '.join(map(str, others[1][i]))}." if len(others) > 1 else "")
            + f" After {config.rounds} rounds: {' '.join(map(str, edited_after[i]))}",
        )
        for i, sample in enumerate(samples)
        if _all(clean_before[i], sample, True) and all(_all(letters[i], sample, False) for letters in others)
        if _all(edited_after[i], sample, True)
    ]
    fooled = sum(_all(clean_before[i], s, True) and _all(edited_before[i], s, False) for i, s in enumerate(samples))
    also = " fool the ablation too and" if arguments.ablation is not None else ""
    print(f"{len(samples)} curated edits; {fooled} fool the warm start (right when clean); {len(found)} of these{also}")
    print(
        f"are answered right {config.evaluate.samples} times of {config.evaluate.samples} after round {config.rounds}"
    )
    if found:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        gallery(found[: arguments.rows]).save(arguments.output)
        print(arguments.output)


def _letters(
    defender: Defender, folder: Path, samples: list[Sample], images: list[str], config: CampaignConfig
) -> list[tuple[str | None, ...]]:
    """k letters for every sample."""
    settings = config.evaluate
    questions = [sample.question for sample in samples]
    pictures = [load_image(folder, image) for image in images]
    said = defender.answer(
        pictures, questions, samples=settings.samples, temperature=settings.temperature, seed=settings.seed
    )
    return [
        tuple(letter_of(text, question.options) for text in texts)
        for texts, question in zip(said, questions, strict=True)
    ]


def _all(letters: tuple[str | None, ...], sample: Sample, right: bool) -> bool:
    return all((letter == sample.question.answer) is right for letter in letters)


if __name__ == "__main__":
    main()
