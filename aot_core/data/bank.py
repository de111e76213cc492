"""The bank of a series: what its editions' curated edits leave in it, and what lessons and exams take from it.

    curated data sets -> edits that fooled -> no near-duplicates -> bounds -> data set, provenance
                                                                     train: replayed | evaluate: the regression suite

Which side a question is on is decided by its source picture and its text alone (`held_back`): every edit of it is on
that side, in every edition, and `drop_held_back` keeps it out of the lessons of all rounds.
"""

import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from aot_core.contracts.artifact import ArtifactRef
from aot_core.contracts.bank import CONFIG_FILE, PROVENANCE_FILE, BankConfig, Provenance
from aot_core.contracts.scene import Sample
from aot_core.data.dataset import IMAGES, file_sha256, iter_rows, load_image, write_dataset
from aot_core.worlds.images import DataError, safe_path
from aot_core.worlds.likeness import distance, perceptual_hash

_ID_DIGITS = 20


@dataclass(frozen=True)
class Entry:
    """An edit of the bank, and the data set that its pictures are in."""

    sample: Sample
    folder: Path
    provenance: Provenance


def question_key(source_id: str, source_hash: str, question: str) -> str:
    """The identity of a question about a source picture, however the picture is extended or edited (64 hex digits)."""
    return hashlib.sha256(f"{source_hash or source_id}\n{question}".encode()).hexdigest()


def key_of(sample: Sample) -> str:
    """A sample's `question_key`."""
    return question_key(sample.scene.source_id, sample.scene.source_hash, sample.question.text)


def is_held_back(key: str, share: float) -> bool:
    """Whether a `question_key` is among the held-back share. What a share holds back, a larger one does too."""
    return int(key[:16], 16) < share * 16**16


def held_back(sample: Sample, share: float) -> bool:
    """Whether a sample's question is kept out of lessons: a function of source picture and question text alone."""
    return is_held_back(key_of(sample), share)


def bank_config(folder: Path) -> BankConfig:
    """What a bank was made by. Raises DataError where the folder is no bank."""
    try:
        return BankConfig.model_validate_json((folder / CONFIG_FILE).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise DataError(
            f"{folder} is not a bank: {CONFIG_FILE} is missing or damaged; give what `bank` wrote"
        ) from error


def read_bank(folder: Path) -> tuple[list[Entry], list[str]]:
    """The entries of a bank whose pictures are whole, in order, and the sample_ids of the others.

    Raises DataError where the folder is no bank, or its tables cannot be read.
    """
    bank_config(folder)
    told = {one.sample_id: one for one in _read_provenance(folder)}
    entries: list[Entry] = []
    missing: list[str] = []
    for sample, hashes in _iter_hashed(folder):
        if sample.sample_id not in told:
            raise DataError(f"{folder}/{PROVENANCE_FILE} has no line for {sample.sample_id!r}; make the bank again")
        if all(_is_whole(folder, name, sha256) for name, sha256 in hashes.items()):
            entries.append(Entry(sample, folder, told[sample.sample_id]))
        else:
            missing.append(sample.sample_id)
    return entries, missing


def fooling_edits(
    folder: Path, curated: ArtifactRef, attacker: ArtifactRef | None, edition: str, number: int, config: BankConfig
) -> Iterator[Entry]:
    """The edits of a curated data set that fooled the Defender they were made against, in order.

    Args:
        folder: where `curated` is.
        number: the round, from 1.

    Raises DataError where a picture cannot be read.
    """
    for sample, hashes in _iter_hashed(folder):
        clean, edited = sample.clean_correct, sample.edited_correct
        if sample.edited_image is None or clean is None or edited is None or not edited <= config.fooled < clean:
            continue
        told = "\n".join([sample.question.prompt, *hashes.values()])
        sample_id = f"bank-{hashlib.sha256(told.encode()).hexdigest()[:_ID_DIGITS]}"
        split = "evaluate" if held_back(sample, config.suite) else "train"
        provenance = Provenance(
            sample_id=sample_id,
            split=split,
            edition=edition,
            round=number,
            curated=curated,
            attacker=attacker,
            instruction=sample.instruction,
            hardness=1 - edited,
            clean_correct=clean,
            looks=perceptual_hash(load_image(folder, sample.edited_image)),
        )
        yield Entry(sample.model_copy(update={"sample_id": sample_id, "split": split}), folder, provenance)


def without_duplicates(
    held: Sequence[Entry], new: Iterable[Entry], config: BankConfig
) -> tuple[list[Entry], list[Entry]]:
    """(what is held and of the new what is none of it again, the new ones that are): a duplicate is the same question
    about a picture that looks the same. Of new ones that look the same the hardest is kept."""
    looks: dict[str, list[str]] = defaultdict(list)
    for entry in held:
        looks[entry.sample.question.text].append(entry.provenance.looks)
    kept, duplicates = list(held), []
    for entry in sorted(new, key=lambda one: _hardest_first(one, config.seed)):
        known, mine = looks[entry.sample.question.text], entry.provenance.looks
        if any(distance(mine, other) <= config.near_duplicate_bits for other in known):
            duplicates.append(entry)
            continue
        known.append(mine)
        kept.append(entry)
    return kept, duplicates


def bounded(entries: Sequence[Entry], config: BankConfig) -> list[Entry]:
    """At most `capacity` entries, in order: the hardest of each edition, in equal shares."""
    quotas = equal_shares(Counter(entry.provenance.edition for entry in entries), config.capacity)
    kept: set[str] = set()
    for edition, quota in quotas.items():
        mine = [entry for entry in entries if entry.provenance.edition == edition]
        mine.sort(key=lambda one: _hardest_first(one, config.seed))
        kept.update(entry.sample.sample_id for entry in mine[:quota])
    return [entry for entry in entries if entry.sample.sample_id in kept]


def equal_shares(counts: Mapping[str, int], capacity: int) -> dict[str, int]:
    """How many of each group may stay: as many of each, and what the small ones leave free is the others'."""
    shares: dict[str, int] = {}
    left = capacity
    for turn, name in enumerate(sorted(counts, key=lambda name: (counts[name], name))):
        shares[name] = min(counts[name], left // (len(counts) - turn))
        left -= shares[name]
    return shares


def write_bank(folder: Path, entries: Sequence[Entry], config: BankConfig) -> None:
    """Write a bank: pictures by their contents, so that edits of one scene share the clean one, then the tables."""
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    samples = []
    for entry in entries:
        sample = entry.sample
        assert sample.edited_image is not None, "only edits enter the bank"
        pictures = {
            "image": _copy_picture(entry.folder, sample.image, folder),
            "edited_image": _copy_picture(entry.folder, sample.edited_image, folder),
        }
        samples.append(sample.model_copy(update=pictures))
    write_dataset(folder, samples)
    lines = [entry.provenance.model_dump_json() + "\n" for entry in entries]
    (folder / PROVENANCE_FILE).write_text("".join(lines), encoding="utf-8")
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=1) + "\n")


def _hardest_first(entry: Entry, seed: int) -> tuple[float, str]:
    """Ties are broken by a draw that does not depend on what else there is."""
    drawn = hashlib.sha256(f"{seed}:{entry.sample.sample_id}".encode()).hexdigest()
    return -entry.provenance.hardness, drawn


def _iter_hashed(folder: Path) -> Iterator[tuple[Sample, dict[str, str]]]:
    """Every sample with its pictures' sha256, as they were written: the clean one's, then the edited one's."""
    for rows in iter_rows(folder, ["image_sha256", "edited_sha256", "record"]):
        for row in rows:
            sample = Sample.model_validate_json(row["record"])
            hashes = {sample.image: row["image_sha256"]}
            if sample.edited_image is not None:
                hashes[sample.edited_image] = row["edited_sha256"]
            yield sample, hashes


def _read_provenance(folder: Path) -> list[Provenance]:
    try:
        lines = (folder / PROVENANCE_FILE).read_text(encoding="utf-8").splitlines()
        return [Provenance.model_validate_json(line) for line in lines]
    except (FileNotFoundError, ValidationError) as error:
        raise DataError(f"{folder}/{PROVENANCE_FILE} is missing or damaged; make the bank again") from error


def _is_whole(folder: Path, relative: str, sha256: str) -> bool:
    path = safe_path(folder, relative)
    return path.is_file() and file_sha256(path) == sha256


def _copy_picture(source: Path, relative: str, folder: Path) -> str:
    """Copy a picture to `images/SHA256.EXT` and return that path."""
    path = safe_path(source, relative)
    name = f"{IMAGES}/{file_sha256(path)}{path.suffix}"
    if not (folder / name).exists():
        shutil.copyfile(path, folder / name)
    return name
