"""The rewards of every answer of a round: one row per answer, kept with the round's checkpoints, written as Parquet."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FILE = "rewards.parquet"


class RewardLog:
    """Columns: generation, refill (0: first asked), picture, question, answer, completion, tokens, finished, one column
    a reward term, reward, useful (whether its group was of use)."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._types = {
            "generation": pa.int32(),
            "refill": pa.int32(),
            "picture": pa.string(),
            "question": pa.string(),
            "answer": pa.string(),
            "completion": pa.string(),
            "tokens": pa.int32(),
            "finished": pa.bool_(),
            **{f"reward/{name}": pa.float64() for name in weights},
            "reward": pa.float64(),
            "useful": pa.bool_(),
        }
        self._columns: dict[str, list[Any]] = defaultdict(list)

    def add(self, **columns: Sequence[Any]) -> None:
        """Rows of one batch, column by column."""
        for name in self._types:
            self._columns[name].extend(columns[name])

    def __len__(self) -> int:
        return len(self._columns["reward"])

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.table({name: pa.array(self._columns[name], kind) for name, kind in self._types.items()})
        pq.write_table(table, folder / FILE, compression="zstd")
        return folder / FILE

    def read(self, folder: Path) -> None:
        """Restore the rows from a checkpoint."""
        self._columns = defaultdict(list, pq.read_table(folder / FILE).to_pydict())
