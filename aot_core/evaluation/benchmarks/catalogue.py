"""The benchmarks that are known: what their files are called, how they are asked and scored, what they should weigh.

All but VStar come as one tab-separated file in VLMEvalKit's format: `index`, `question`, `answer`, the options `A`,
`B`, ..., `category`, and `image` (base64, or a list of them, or the index of the row that holds it) or `image_path`.
VStar comes like that, or as its authors publish it: a folder with `test_questions.jsonl` and two folders of pictures.
Nothing is downloaded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Rule = Literal["accuracy", "pope", "hallusion", "hrbench"]


@dataclass(frozen=True)
class Benchmark:
    """One public benchmark."""

    name: str
    files: tuple[str, ...]
    """File or folder names under which it is published, inside the benchmarks' folder."""
    questions: int
    """Rows of the published file."""
    md5: tuple[str, ...]
    """Of the published file, its older versions too, as VLMEvalKit's registry has them; a folder has none."""
    asks: Literal["choice", "yes_no"] = "choice"
    rule: Rule = "accuracy"
    split: str = ""
    """Of several splits in the file, the one that is asked."""
    columns: tuple[str, ...] = ()
    """Needed besides `index`, `question` and `answer`."""


_CHOICES = ("A", "B")

BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (
        Benchmark("vstar", ("vstar_bench", "VStarBench", "VStarBench.tsv"), 191, ("b18854d7075574be06b631cd5f7d2d6a",)),
        Benchmark(
            "hrbench4k",
            ("hr_bench_4k.tsv", "HRBench4K.tsv"),
            800,
            ("f6b041b03d49543494b8a56d2e35be65",),
            rule="hrbench",
            columns=(*_CHOICES, "category", "cycle_category"),
        ),
        Benchmark(
            "hrbench8k",
            ("hr_bench_8k.tsv", "HRBench8K.tsv"),
            800,
            ("274c9c7f89329b804a4723178a00219c",),
            rule="hrbench",
            columns=(*_CHOICES, "category", "cycle_category"),
        ),
        Benchmark(
            "pope",
            ("POPE.tsv",),
            5127,
            ("c12f5acb142f2ef1f85a26ba2fbe41d5",),
            asks="yes_no",
            rule="pope",
            columns=("category",),
        ),
        Benchmark(
            "hallusionbench",
            ("HallusionBench.tsv",),
            951,
            ("0c23ac0dc9ef46832d7a24504f2a0c7c",),
            asks="yes_no",
            rule="hallusion",
            columns=("category", "l2-category"),
        ),
        Benchmark(
            "mmmu",
            ("MMMU_DEV_VAL.tsv",),
            1050,
            ("585e8ad75e73f75dcad265dfd0417d64", "521afc0f3bf341e6654327792781644d"),
            split="validation",
            columns=(*_CHOICES, "category", "split"),
        ),
        Benchmark(
            "mmstar", ("MMStar.tsv",), 1500, ("e1ecd2140806c1b1bbf54b43372efb9e",), columns=(*_CHOICES, "category")
        ),
        Benchmark(
            "realworldqa",
            ("RealWorldQA.tsv",),
            765,
            ("4de008f55dc4fd008ca9e15321dc44b7", "92321028d2bc29040284b6674721e48f"),
            columns=_CHOICES,
        ),
        Benchmark(
            "blink", ("BLINK.tsv",), 1901, ("3b6649b6a662184ea046908e5506260e",), columns=(*_CHOICES, "category")
        ),
        Benchmark("ai2d", ("AI2D_TEST.tsv",), 3088, ("0f593e0d1c7df9a3d69bf1f947e71975",), columns=_CHOICES),
    )
}


class BenchmarkError(ValueError):
    """A benchmark that is not there, or a file that is not in its format. The message names the row and the fix."""


def find(name: str, folder: Path) -> tuple[Benchmark, Path]:
    """A benchmark and its file or folder. Raises BenchmarkError for an unknown name or a missing file."""
    known = BENCHMARKS.get(name)
    if known is None:
        raise BenchmarkError(f"benchmark {name!r} is not known; give one of {', '.join(BENCHMARKS)}")
    for candidate in known.files:
        if (folder / candidate).exists():
            return known, folder / candidate
    raise BenchmarkError(f"{folder} holds no {' or '.join(known.files)}; put the published file there, as it is")
