"""The data pipeline (arXiv 2602.22227, phase 1): source pictures to a data set on disk, and the funnel between.

    source picture --extend, check--> scene --ask--> question --implant, check--> pair --filter--> kept

    warm_start   pairs, for the Attacker's warm start; their clean halves are the Defender's
    train        questions about clean scenes
    evaluate     held-out questions, each clean and once more for every evaluated family, under one scene_id

Everything random comes from (seed, split, attempt), so the same config gives the same bytes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import DistractorFamily, EditKind, Question, QuestionKind, Sample, Split
from aot_core.data.dataset import save_image, write_dataset
from aot_core.data.domains import Domain, open_domain
from aot_core.data.effectiveness import judge_pairs
from aot_core.data.extension import Rejection, check_extension
from aot_core.data.images import DataError
from aot_core.data.implantation import Implanted, random_kinds
from aot_core.data.similarity import localized_ssim_batch
from aot_core.data.sources import Picture, Source
from aot_core.data.splits import SPLITS, Share, share_out

_CHUNK = 128
"""Pairs that are compared and judged together."""
_KINDS: tuple[QuestionKind, ...] = ("existence", "attribute", "relation", "count")
_QUESTIONS_TRIED = 6
"""Questions tried per scene."""


@dataclass(frozen=True)
class Draft:
    """A question about a picture, and edited versions of the picture, before any image is saved."""

    picture: Picture
    question: Question
    versions: tuple[Implanted, ...] = ()
    ssims: tuple[float, ...] = ()
    """Localized SSIM of each version."""
    clean_correct: float | None = None
    edited_correct: float | None = None


class Pipeline:
    """One run over one source. `funnel` counts `step/outcome` as it goes."""

    def __init__(self, config: PrepareDataConfig, source: Source, answerer: Answerer | None = None) -> None:
        self._config, self._source, self._answerer = config, source, answerer
        self.funnel: Counter[str] = Counter()
        self._asked = 0

    def write(self, folder: Path) -> list[Sample]:
        """Make all splits and write the data set. Raises DataError where the source does not yield enough."""
        samples: list[Sample] = []
        wanted: dict[Split, int] = {split: getattr(self._config.splits, split) for split in SPLITS}
        # Distractors for a photograph come from another one of its split.
        least: dict[Split, int] = {"warm_start": 2, "train": 1, "evaluate": 2}
        rng = np.random.default_rng([self._config.seed, len(SPLITS)])
        shares = share_out(self._source.size, wanted, least, rng)
        with tqdm(total=sum(wanted.values()), desc="prepare_data", unit="question", disable=None) as bar:
            for split, share in shares.items():
                for number, draft in enumerate(self._drafts(split, share, wanted[split])):
                    samples.extend(save_draft(folder, split, number, draft))
                    bar.update()
        write_dataset(folder, samples)
        return samples

    def _drafts(self, split: Split, share: Share, wanted: int) -> Iterator[Draft]:
        """Accepted drafts of a split, as many as are wanted."""
        domain = open_domain(self._source, self._config, share.indices)
        attempts = enumerate(islice(iter(share), wanted * self._config.limits.max_attempts))
        made = (
            draft for attempt, index in attempts if (draft := self._attempt(domain, split, index, attempt)) is not None
        )
        missing = wanted
        while missing > 0:
            chunk = list(islice(made, min(_CHUNK, missing)))
            if not chunk:
                raise DataError(
                    f"splits.{split}: only {wanted - missing} of {wanted} samples came out of "
                    f"{wanted * self._config.limits.max_attempts} attempts; lower it, raise limits.max_attempts, or "
                    f"loosen what rejected most: {self._worst()}"
                )
            kept = self._filtered(split, self._compared(chunk))
            missing -= len(kept)
            yield from kept

    def _attempt(self, domain: Domain, split: Split, index: int, attempt: int) -> Draft | None:
        rng = np.random.default_rng([self._config.seed, SPLITS.index(split), attempt])
        picture = self._scene(rng, domain, domain.picture(index), attempt)
        if picture is None:
            return None
        question = self._question(rng, domain, picture)
        if question is None:
            return None
        if split == "train":
            return Draft(picture, question)
        return self._edited(rng, domain, split, Draft(picture, question))

    def _scene(self, rng: np.random.Generator, domain: Domain, source: Picture, attempt: int) -> Picture | None:
        """The source extended, by the first extension that passes the checks."""
        if self._source.size is not None:
            # The same photograph gives many scenes.
            name = f"{source.scene.source_id}-{attempt:05d}"
            source = replace(source, scene=source.scene.model_copy(update={"scene_id": name}))
        if not self._config.extension.enabled:
            return source
        for _ in range(self._config.extension.attempts):
            extended = domain.extend(rng, source)
            rejection = check_extension(source, extended, self._config.extension)
            self.funnel[f"extension/{rejection.reason if rejection else 'accepted'}"] += 1
            if rejection is None:
                return extended.picture
        return None

    def _question(self, rng: np.random.Generator, domain: Domain, picture: Picture) -> Question | None:
        weights = np.array([getattr(self._config.kinds, kind) for kind in _KINDS])
        kind = _KINDS[int(rng.choice(len(_KINDS), p=weights / weights.sum()))]
        for _ in range(_QUESTIONS_TRIED):
            question = domain.ask(rng, kind, picture)
            if question is not None:
                self.funnel["question/asked"] += 1
                return question
        self.funnel[f"question/no_{kind}"] += 1
        return None

    def _edited(self, rng: np.random.Generator, domain: Domain, split: Split, draft: Draft) -> Draft | None:
        """The draft with its edited versions: one, or in `evaluate` one for each family, or none of all."""
        settings = self._config.implantation
        families: tuple[DistractorFamily, ...] = settings.evaluated
        if split == "warm_start":
            families = (settings.families[int(rng.integers(len(settings.families)))],)
        versions: list[Implanted] = []
        for family in families:
            kinds: tuple[EditKind, ...] = ("add",) * settings.evaluated_distractors
            if split == "warm_start":
                kinds = random_kinds(rng, settings)
            made = self._implanted(rng, domain, draft, family, kinds)
            if made is None:
                return None
            versions.append(made)
        return replace(draft, versions=tuple(versions))

    def _implanted(
        self,
        rng: np.random.Generator,
        domain: Domain,
        draft: Draft,
        family: DistractorFamily,
        kinds: tuple[EditKind, ...],
    ) -> Implanted | None:
        for _ in range(self._config.implantation.attempts):
            made = domain.implant(rng, draft.picture, draft.question, family, kinds)
            self.funnel[f"implantation/{made.reason if isinstance(made, Rejection) else 'accepted'}"] += 1
            if isinstance(made, Implanted):
                return made
            if made.reason == "no_distractor":
                break  # Trying again finds none either.
        return None

    def _compared(self, drafts: list[Draft]) -> list[Draft]:
        """The drafts whose edits leave the protected boxes alone, each with its SSIM."""
        pairs = [(draft, version) for draft in drafts for version in draft.versions]
        if not pairs:
            return drafts
        scores = iter(
            localized_ssim_batch(
                [draft.picture.image for draft, _ in pairs],
                [version.picture.image for _, version in pairs],
                [draft.question.protected for draft, _ in pairs],
            )
        )
        scored = [replace(draft, ssims=tuple(islice(scores, len(draft.versions)))) for draft in drafts]
        intact = [draft for draft in scored if min(draft.ssims) >= self._config.implantation.min_ssim]
        self.funnel["ssim/accepted"] += len(intact)
        self.funnel["ssim/below_min_ssim"] += len(scored) - len(intact)
        return intact

    def _filtered(self, split: Split, drafts: list[Draft]) -> list[Draft]:
        """Warm-start pairs that fool the base Defender, and the settings' share of those that do not."""
        settings = self._config.effectiveness
        if split != "warm_start" or self._answerer is None:
            return drafts
        room = len(drafts) if settings.asked is None else max(0, settings.asked - self._asked)
        asked, unasked = drafts[:room], drafts[room:]
        if not asked:
            return unasked
        # One number a chunk: the same draws whatever the chunks before it gave.
        rng = np.random.default_rng([self._config.seed, len(SPLITS) + 1, self._asked])
        judgements = judge_pairs(
            self._answerer,
            [draft.picture.image for draft in asked],
            [draft.versions[0].picture.image for draft in asked],
            [draft.question for draft in asked],
            settings,
            int(rng.integers(2**31)),
        )
        self._asked += len(asked)
        kept = []
        for draft, judgement in zip(asked, judgements, strict=True):
            self.funnel[f"effectiveness/{judgement.outcome}"] += 1
            if judgement.outcome == "effective" or rng.random() < settings.keep_ineffective:
                kept.append(replace(draft, clean_correct=judgement.clean, edited_correct=judgement.edited))
        return kept + unasked

    def _worst(self) -> str:
        rejected = Counter({k: n for k, n in self.funnel.items() if not k.endswith(("/accepted", "/asked"))})
        return ", ".join(f"{name} {count}x" for name, count in rejected.most_common(3)) or "nothing"


def save_draft(folder: Path, split: Split, number: int, draft: Draft) -> list[Sample]:
    """Save a draft's images and give its samples: the pair of warm_start, else the clean one and every version."""
    name = f"{split}-{number:05d}"
    sample = partial(
        Sample,
        split=split,
        scene=draft.picture.scene,
        question=draft.question,
        image=save_image(folder, name, draft.picture.image),
    )
    samples = [] if split == "warm_start" else [sample(sample_id=f"{name}-clean")]
    for version, ssim in zip(draft.versions, draft.ssims, strict=True):
        family = version.edits[0].family
        samples.append(
            sample(
                sample_id=f"{name}-{family}",
                edits=version.edits,
                edited_image=save_image(folder, f"{name}-{family}", version.picture.image),
                edited_objects=version.picture.scene.objects,
                ssim=ssim,
                clean_correct=draft.clean_correct,
                edited_correct=draft.edited_correct,
            )
        )
    return samples
