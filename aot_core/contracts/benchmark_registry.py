"""The public benchmarks that are known. To add one, add an entry to `BENCHMARKS`; nothing else needs to be told.

    entry -> `[evaluate.benchmarks] names` and `aot bench run` accept it, `aot bench verify` knows its files
          -> `reader`, `folder_reader`: published file or folder -> `BenchmarkItem`s
          -> `rule`: answered items -> figures, of which `strict/accuracy` and `single/accuracy` are printed
          -> `margin`: what the gate lets a challenger lose on it
          -> `lmms`: what `aot bench second-opinion` compares with

A reader or a rule is named: by the name it has in `aot_core.evaluation.benchmarks.readers.READERS` or
`aot_core.evaluation.benchmarks.scoring.RULES`, or as a function of your own, `package.module:function`. Most benchmarks
need none: `vlmevalkit` reads a tab-separated file in VLMEvalKit's format (`index`, `question`, `answer`, the options
`A`, `B`, ..., `category`, and `image`: base64, or a list of them, or the index of the row that holds it; or
`image_path`), and `accuracy` counts right answers, over all and by category. Nothing is downloaded.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple


class LmmsFigure(NamedTuple):
    """Where lmms-eval 0.7 keeps a figure."""

    task: str
    metric: str
    whole: float = 1
    """What it is where every answer is right: 100 where the task counts in percent."""


@dataclass(frozen=True)
class Benchmark:
    """One public benchmark."""

    name: str
    files: tuple[str, ...]
    """Names of the published file or folder, inside the benchmarks' folder."""
    questions: int
    """Rows of the published file."""
    md5: tuple[str, ...] = ()
    """md5 of the published file and its older versions, as in VLMEvalKit's registry. A folder has none."""
    asks: Literal["choice", "yes_no"] = "choice"
    rule: str = "accuracy"
    """Scoring rule: a function from `scoring.Answered` to figures, shares 0..1."""
    reader: str = "vlmevalkit"
    """Reader for a file: a function of this entry, the path and a folder for unpacked images."""
    folder_reader: str = ""
    """Reader for a folder. Empty if it is not published as one."""
    split: str = ""
    """The split to use, if the file has several."""
    columns: tuple[str, ...] = ()
    """Required columns besides `index`, `question` and `answer`."""
    cycles: bool = False
    """Whether a question is repeated for every cyclic order of its options: either all of them are asked, or none."""
    margin: float | None = None
    """Non-inferiority margin of a challenger. None: the gate's `benchmark_margin`.

    (1.64 + 1.96) sqrt(0.14 / n), rounded: if two Defenders differ on 14 % of n answers (as two that were trained
    separately do), one that is no worse is shown to be within this margin 97 times in 100. With the 3 points that the
    large files allow, the 191 questions of VStar would reject two of three such challengers.
    """
    lmms: LmmsFigure | None = None
    """The figure of lmms-eval that corresponds to our single-shot accuracy."""


_CHOICES = ("A", "B")

BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (
        Benchmark(
            "vstar",
            ("vstar_bench", "VStarBench", "VStarBench.tsv"),
            191,
            ("b18854d7075574be06b631cd5f7d2d6a",),
            folder_reader="vstar",
            margin=0.10,
            lmms=LmmsFigure("vstar_bench", "vstar_overall_acc", whole=100),
        ),
        Benchmark(
            "hrbench4k",
            ("hr_bench_4k.tsv", "HRBench4K.tsv"),
            800,
            ("f6b041b03d49543494b8a56d2e35be65",),
            rule="hrbench",
            columns=(*_CHOICES, "category", "cycle_category"),
            cycles=True,
            margin=0.05,
            lmms=LmmsFigure("hrbench4k", "average"),
        ),
        Benchmark(
            "hrbench8k",
            ("hr_bench_8k.tsv", "HRBench8K.tsv"),
            800,
            ("274c9c7f89329b804a4723178a00219c",),
            rule="hrbench",
            columns=(*_CHOICES, "category", "cycle_category"),
            cycles=True,
            margin=0.05,
            lmms=LmmsFigure("hrbench8k", "average"),
        ),
        Benchmark(
            "pope",
            ("POPE.tsv",),
            5127,
            ("c12f5acb142f2ef1f85a26ba2fbe41d5",),
            asks="yes_no",
            rule="pope",
            columns=("category",),
            lmms=LmmsFigure("pope", "pope_accuracy"),
        ),
        Benchmark(
            "hallusionbench",
            ("HallusionBench.tsv",),
            951,
            ("0c23ac0dc9ef46832d7a24504f2a0c7c",),
            asks="yes_no",
            rule="hallusion",
            columns=("category", "l2-category"),
            margin=0.05,
            lmms=LmmsFigure("hallusion_bench_image", "aAcc", whole=100),
        ),
        Benchmark(
            "mmmu",
            ("MMMU_DEV_VAL.tsv",),
            1050,
            ("585e8ad75e73f75dcad265dfd0417d64", "521afc0f3bf341e6654327792781644d"),
            split="validation",
            columns=(*_CHOICES, "category", "split"),
            margin=0.05,
            lmms=LmmsFigure("mmmu_val", "mmmu_acc"),
        ),
        Benchmark(
            "mmstar",
            ("MMStar.tsv",),
            1500,
            ("e1ecd2140806c1b1bbf54b43372efb9e",),
            columns=(*_CHOICES, "category"),
            margin=0.035,
            lmms=LmmsFigure("mmstar", "average"),
        ),
        Benchmark(
            "realworldqa",
            ("RealWorldQA.tsv",),
            765,
            ("4de008f55dc4fd008ca9e15321dc44b7", "92321028d2bc29040284b6674721e48f"),
            columns=_CHOICES,
            margin=0.05,
            lmms=LmmsFigure("realworldqa", "exact_match"),
        ),
        Benchmark(
            "blink",
            ("BLINK.tsv",),
            1901,
            ("3b6649b6a662184ea046908e5506260e",),
            columns=(*_CHOICES, "category"),
            lmms=LmmsFigure("blink", "blink_acc"),
        ),
        Benchmark(
            "ai2d",
            ("AI2D_TEST.tsv",),
            3088,
            ("0f593e0d1c7df9a3d69bf1f947e71975",),
            columns=_CHOICES,
            lmms=LmmsFigure("ai2d", "exact_match"),
        ),
    )
}
"""In the order of the paper's table (arXiv 2602.22227), roughly."""


def margins() -> dict[str, float]:
    """The margins of those benchmarks that have one of their own."""
    return {name: one.margin for name, one in BENCHMARKS.items() if one.margin is not None}
