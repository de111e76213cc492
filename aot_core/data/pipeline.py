"""How one shard is made (arXiv 2602.22227, phase 1): source pictures to samples, and the funnel between.

    source picture --extend, check--> scene --ask--> question --implant, check--> pair --filter--> kept

    warm_start   pairs, for the Attacker's warm start; their clean halves are the Defender's
    train        questions about clean scenes
    evaluate     held-out questions, each clean and once more for every evaluated family, under one scene_id

Everything random comes from (seed, split, shard, attempt), so the same config gives the same bytes on any worker.
`aot_core.data.build` makes all shards and puts them together.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import DistractorFamily, EditKind, Question, QuestionKind, Sample, Split
from aot_core.data.dataset import as_stored, encode_image, row_of
from aot_core.data.effectiveness import measure_effectiveness
from aot_core.data.shards import Shard, ShardRecord, ShardWriter
from aot_core.data.splits import LEAST, SPLITS, Share, share_out
from aot_core.worlds.extension import Rejection, check_extension
from aot_core.worlds.images import DataError, RowError
from aot_core.worlds.implantation import Implanted, random_kinds
from aot_core.worlds.opening import world_from
from aot_core.worlds.protocol import Checker, Domain, Outpainter
from aot_core.worlds.similarity import localized_ssim_batch
from aot_core.worlds.sources import Picture, Source

_CHUNK = 128
"""Pairs that are compared and judged together, at most,"""
_CHUNK_PIXELS = 2**24
"""and pixels of theirs: 50 MB, whatever the pictures' size."""
_KINDS: tuple[QuestionKind, ...] = ("existence", "attribute", "relation", "count")
_QUESTIONS_TRIED = 6
"""Questions tried per scene."""


@dataclass(frozen=True)
class Helpers:
    """The models that a pipeline may ask. None stands for what the config leaves out."""

    answerer: Answerer | None = None
    """The base Defender, for the effectiveness filter."""
    outpainter: Outpainter | None = None
    checker: Checker | None = None


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
    attempt: int = 0
    exact: tuple[Image.Image, ...] = ()
    """Lossy formats: the pictures as they were before they were encoded, clean and edited, which is what is saved."""

    @property
    def pixels(self) -> int:
        return (1 + len(self.versions)) * self.picture.scene.width * self.picture.scene.height


class ShardMaker:
    """Makes any shard of a data set. One a process: it keeps its source, its domains and its models open."""

    def __init__(self, config: PrepareDataConfig, source: Source, key: str, helpers: Helpers | None = None) -> None:
        self._config, self._source, self._key = config, source, key
        self._helpers = helpers or Helpers()
        self._domains: dict[Split, Domain] = {}
        self._shares = {} if config.growing else shares_of(config, source.size)

    def make(self, shard: Shard, work: Path) -> ShardRecord:
        """Make a shard and leave it, finished, in the folder `work`.

        Raises DataError where the source does not yield enough, or too much of it cannot be used.
        """
        with ShardWriter(work, shard, self._key) as writer:
            share = Share(shard.pictures) if shard.key else self._shares[shard.split]
            with writer.timed("open"):
                domain = self._domain(shard, share)
            run = _ShardRun(self._config, domain, shard, self._helpers, writer)
            for number, draft in enumerate(run.drafts(share)):
                with writer.timed("save"):
                    save_draft(writer, self._config, shard, number, draft)
            return writer.finish()

    def _domain(self, shard: Shard, share: Share) -> Domain:
        """The domain of the shard's split; of a growing source the shard's own."""
        outpainter, world = self._helpers.outpainter, world_from(self._config.source.type)
        if shard.key:
            return world.open_domain(self._source, self._config, (*shard.pictures, *shard.donors), outpainter)
        if shard.split not in self._domains:
            self._domains[shard.split] = world.open_domain(self._source, self._config, share.indices, outpainter)
        return self._domains[shard.split]


def shares_of(config: PrepareDataConfig, size: int | None) -> dict[Split, Share]:
    """Which source pictures each split gets. Raises DataError where the source has too few."""
    wanted: dict[Split, int] = {split: getattr(config.splits, split) for split in SPLITS}
    return share_out(size, wanted, LEAST, np.random.default_rng([config.seed, len(SPLITS)]))


@dataclass
class _ShardRun:
    """One shard while it is made."""

    config: PrepareDataConfig
    domain: Domain
    shard: Shard
    helpers: Helpers
    writer: ShardWriter
    unusable: set[str] = field(default_factory=set)
    """Messages about source pictures that cannot be used, each counted once."""
    asked: int = 0

    def drafts(self, share: Share) -> Iterator[Draft]:
        """Accepted drafts, as many as are wanted."""
        budget = self.shard.wanted * self.config.limits.max_attempts
        # Of an endless source each shard has a stretch of its own; of one that ends, a place to start from.
        stretch = self.config.shard_size * (self.config.limits.max_attempts if not share.indices else 1)
        start = 0 if self.shard.key else self.shard.index * stretch
        numbers = islice(share.starting_at(start), budget)
        made = (draft for attempt, index in enumerate(numbers) if (draft := self._attempt(index, attempt)) is not None)
        missing = self.shard.wanted
        while missing > 0:
            chunk = _take(made, min(_CHUNK, missing))
            if not chunk and self.shard.key:
                # One photograph that nothing can be asked about does not refuse a whole folder.
                self.writer.funnel["shard/missing"] += missing
                return
            if not chunk:
                wanted = self.shard.wanted
                raise DataError(
                    f"splits.{self.shard.split}: only {wanted - missing} of {wanted} samples of shard "
                    f"{self.shard.index} came out of {budget} attempts; lower it, raise limits.max_attempts, or "
                    f"loosen what rejected most: {self._worst()}"
                )
            with self.writer.timed("ssim"):
                compared = self._compared(chunk)
            with self.writer.timed("filter"):
                kept = self._filtered(compared)
            missing -= len(kept)
            yield from kept

    def _attempt(self, index: int, attempt: int) -> Draft | None:
        rng = np.random.default_rng(self.shard.seed(self.config.seed, attempt))
        with self.writer.timed("source"):
            try:
                source = self.domain.picture(index)
            except RowError as error:
                if str(error) not in self.unusable:
                    self.unusable.add(str(error))
                    self._reject(attempt, "", "source", Rejection(error.reason, str(error)))
                return None
        picture = self._scene(rng, source, attempt)
        if picture is None:
            return None
        with self.writer.timed("question"):
            question = self._question(rng, picture, attempt)
        if question is None:
            return None
        draft = Draft(picture, question, attempt=attempt)
        if self.shard.split == "train":
            return self._as_stored(draft)
        with self.writer.timed("implantation"):
            edited = self._edited(rng, draft)
        return None if edited is None else self._as_stored(edited)

    def _scene(self, rng: np.random.Generator, source: Picture, attempt: int) -> Picture | None:
        """The source extended, by the first extension that passes the checks."""
        if self.domain.repeats:
            name = f"{source.scene.source_id}-{self.shard.index:05d}-{attempt:05d}"
            source = replace(source, scene=source.scene.model_copy(update={"scene_id": name}))
        settings = self.config.extension
        if not settings.enabled:
            return source
        for _ in range(settings.attempts):
            with self.writer.timed("extension"):
                extended = self.domain.extend(rng, source)
            rejection = check_extension(self.domain.checks, source, extended, settings, self.writer.timed)
            if rejection is None and self.helpers.checker is not None:
                with self.writer.timed("checker"):
                    rejection = self.helpers.checker.check(source, extended, int(rng.integers(2**31)))
            if rejection is None:
                self.writer.funnel["extension/accepted"] += 1
                return extended.picture
            self._reject(attempt, source.scene.source_id, "extension", rejection)
        return None

    def _question(self, rng: np.random.Generator, picture: Picture, attempt: int) -> Question | None:
        weights = np.array([getattr(self.config.kinds, kind) for kind in _KINDS])
        kind = _KINDS[int(rng.choice(len(_KINDS), p=weights / weights.sum()))]
        for _ in range(_QUESTIONS_TRIED):
            question = self.domain.ask(rng, kind, picture)
            if question is not None:
                self.writer.funnel["question/asked"] += 1
                return question
        self._reject(attempt, picture.scene.source_id, "question", Rejection(f"no_{kind}"))
        return None

    def _edited(self, rng: np.random.Generator, draft: Draft) -> Draft | None:
        """The draft with its edited versions: one, or in `evaluate` one for each family, or none of all."""
        settings = self.config.implantation
        families: tuple[DistractorFamily, ...] = settings.evaluated
        if self.shard.split == "warm_start":
            families = (settings.families[int(rng.integers(len(settings.families)))],)
        versions: list[Implanted] = []
        for family in families:
            kinds: tuple[EditKind, ...] = ("add",) * settings.evaluated_distractors
            if self.shard.split == "warm_start":
                kinds = random_kinds(rng, settings)
            made = self._implanted(rng, draft, family, kinds)
            if made is None:
                return None
            versions.append(made)
        return replace(draft, versions=tuple(versions))

    def _implanted(
        self, rng: np.random.Generator, draft: Draft, family: DistractorFamily, kinds: tuple[EditKind, ...]
    ) -> Implanted | None:
        for _ in range(self.config.implantation.attempts):
            made = self.domain.implant(rng, draft.picture, draft.question, family, kinds)
            if isinstance(made, Implanted):
                self.writer.funnel["implantation/accepted"] += 1
                return made
            self._reject(draft.attempt, draft.picture.scene.source_id, "implantation", made)
            if made.reason == "no_distractor":
                break  # Trying again finds none either.
        return None

    def _as_stored(self, draft: Draft) -> Draft:
        """The draft with the pixels that a reader of the stored images will see."""
        form = self.config.format
        if form.type == "png":
            return draft
        picture = replace(draft.picture, image=as_stored(draft.picture.image, form))
        versions = tuple(
            replace(v, picture=replace(v.picture, image=as_stored(v.picture.image, form))) for v in draft.versions
        )
        exact = (draft.picture.image, *(v.picture.image for v in draft.versions))
        return replace(draft, picture=picture, versions=versions, exact=exact)

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
        intact = []
        for draft in scored:
            if min(draft.ssims) >= self.config.implantation.min_ssim:
                intact.append(draft)
            else:
                rejection = Rejection("below_min_ssim", f"{min(draft.ssims):.4f}")
                self._reject(draft.attempt, draft.picture.scene.source_id, "ssim", rejection)
        self.writer.funnel["ssim/accepted"] += len(intact)
        return intact

    def _filtered(self, drafts: list[Draft]) -> list[Draft]:
        """Warm-start pairs that fool the base Defender, and the settings' share of those that do not."""
        settings, answerer = self.config.effectiveness, self.helpers.answerer
        if self.shard.split != "warm_start" or answerer is None:
            return drafts
        room = len(drafts) if self.shard.asked is None else max(0, self.shard.asked - self.asked)
        asked, unasked = drafts[:room], drafts[room:]
        if not asked:
            return unasked
        # Seeds of their own, told by how many were asked before: beyond the attempts' seeds.
        spent = self.shard.wanted * self.config.limits.max_attempts
        rng = np.random.default_rng(self.shard.seed(self.config.seed, spent + self.asked))
        measured = measure_effectiveness(
            answerer,
            [draft.picture.image for draft in asked],
            [draft.versions[0].picture.image for draft in asked],
            [draft.question for draft in asked],
            settings,
            int(rng.integers(2**31)),
        )
        self.asked += len(asked)
        kept = []
        for draft, found in zip(asked, measured, strict=True):
            kind = draft.question.query.kind
            self.writer.funnel[f"effectiveness/{found.outcome}"] += 1
            self.writer.funnel[f"effectiveness_{kind}/{found.outcome}"] += 1
            if found.outcome == "effective" or rng.random() < settings.keep_ineffective:
                kept.append(replace(draft, clean_correct=found.clean, edited_correct=found.edited))
            else:
                detail = f"right when clean {found.clean:.2f}, when edited {found.edited:.2f}"
                rejection = Rejection(found.outcome, detail)
                self._log(draft.attempt, draft.picture.scene.source_id, "effectiveness", rejection)
        return kept + unasked

    def _reject(self, attempt: int, source_id: str, step: str, rejection: Rejection) -> None:
        """Count a rejection and keep it with its reason."""
        self.writer.funnel[f"{step}/{rejection.reason}"] += 1
        self._log(attempt, source_id, step, rejection)

    def _log(self, attempt: int, source_id: str, step: str, rejection: Rejection) -> None:
        self.writer.rejections.append(
            {
                "split": self.shard.split,
                "shard": self.shard.index,
                "attempt": attempt,
                "source_id": source_id,
                "step": step,
                "reason": rejection.reason,
                "detail": rejection.detail,
            }
        )

    def _worst(self) -> str:
        """What rejected most, and an example of a source picture that could not be used."""
        skipped = ("/accepted", "/asked", "/effective")
        rejected = Counter(
            {k: n for k, n in self.writer.funnel.items() if not k.endswith(skipped) and "effectiveness_" not in k}
        )
        worst = ", ".join(f"{name} {count}x" for name, count in rejected.most_common(3)) or "nothing"
        return f"{worst} ({min(self.unusable)})" if self.unusable else worst


def _take(drafts: Iterator[Draft], most: int) -> list[Draft]:
    """The next drafts: `most`, or fewer where their pixels are many."""
    chunk: list[Draft] = []
    pixels = 0
    for draft in drafts:
        chunk.append(draft)
        pixels += draft.pixels
        if len(chunk) == most or pixels >= _CHUNK_PIXELS:
            break
    return chunk


def save_draft(writer: ShardWriter, config: PrepareDataConfig, shard: Shard, number: int, draft: Draft) -> None:
    """Save a draft's images and add its rows: the pair of warm_start, else the clean one and every version."""
    name = f"{shard.split}-{shard.index * config.shard_size + number:06d}"
    hashes: dict[str, str] = {}

    images = iter(draft.exact or (draft.picture.image, *(version.picture.image for version in draft.versions)))

    def save(stem: str) -> str:
        content = encode_image(next(images), config.format)
        file = f"{stem}.{'jpg' if config.format.type == 'jpeg' else config.format.type}"
        relative = f"{shard.base}/{file}"
        hashes[relative] = hashlib.sha256(content).hexdigest()
        writer.add_image(file, content, hashes[relative])
        return relative

    sample = Sample(
        sample_id=f"{name}-clean",
        split=shard.split,
        scene=draft.picture.scene,
        question=draft.question,
        image=save(name),
    )
    samples = [] if shard.split == "warm_start" else [sample]
    for version, ssim in zip(draft.versions, draft.ssims, strict=True):
        family = version.edits[0].family
        samples.append(
            sample.model_copy(
                update={
                    "sample_id": f"{name}-{family}",
                    "edits": version.edits,
                    "edited_image": save(f"{name}-{family}"),
                    "edited_objects": version.picture.scene.objects,
                    "ssim": ssim,
                    "clean_correct": draft.clean_correct,
                    "edited_correct": draft.edited_correct,
                }
            )
        )
    base = str(Path(shard.base).parent)
    writer.rows.extend(row_of(one, hashes, base) for one in samples)
