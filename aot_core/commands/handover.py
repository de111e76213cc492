"""How a campaign's config gets from `aot run` to its flow, and a ledger's entries from `aot promote` to whoever sends
them: a file that only its owner can read, deleted once read.

Not the command line: every user of the machine can read that, and one argument holds at most 128 KiB.
"""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from aot_core.contracts.campaign import CampaignConfig
from aot_core.contracts.promotion import LedgerEntry

_FOLDER = "handover"
_ENTRIES = TypeAdapter(list[LedgerEntry])


def hand_over(config: CampaignConfig, home: Path) -> Path:
    """Write the config into a new file of this home; returns its path."""
    return _write(home, config.name, config.model_dump_json())


def take(path: Path) -> CampaignConfig:
    """Read the config and remove its file. Raises OSError where it is gone, and ValidationError."""
    content = path.read_bytes()
    path.unlink()
    return CampaignConfig.model_validate_json(content)


def hand_over_entries(entries: Sequence[LedgerEntry], home: Path) -> Path:
    """Write a ledger's entries into a new file of this home; returns its path."""
    return _write(home, "ledger", _ENTRIES.dump_json([*entries]).decode())


def take_entries(path: Path) -> list[LedgerEntry]:
    """Read the entries and remove their file. Raises OSError where it is gone, and ValidationError."""
    content = path.read_bytes()
    path.unlink()
    return _ENTRIES.validate_json(content)


def _write(home: Path, name: str, text: str) -> Path:
    folder = home / _FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{name}-{uuid.uuid4().hex}.json"
    write_private(path, text)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read (mode 0600), from its first byte on, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    partial.replace(path)
