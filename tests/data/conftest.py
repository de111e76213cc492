"""A small COCO folder of drawn "photographs", good until a test spoils it."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from aot_core.contracts.prepare_data import PrepareDataConfig
from aot_core.contracts.protocols import Answerer
from aot_core.contracts.scene import Sample
from aot_core.data.build import BuildJob, BuildSummary, build_dataset
from aot_core.data.dataset import read_samples
from aot_core.data.pipeline import Helpers

THINGS = [("dog", (20, 30, 60, 40)), ("ball", (120, 20, 36, 36)), ("kite", (130, 95, 44, 30))]


def photograph(seed: int) -> Image.Image:
    """200 x 150 pixels: soft noise with three crisp things."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(60, 180, (150, 200, 3), dtype=np.uint8)
    image = Image.fromarray(ground).filter(ImageFilter.GaussianBlur(3))
    draw = ImageDraw.Draw(image)
    for _, (x, y, width, height) in THINGS:
        draw.ellipse((x, y, x + width - 1, y + height - 1), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
        draw.line((x, y + height // 2, x + width - 1, y + height // 2), fill=(255, 255, 255), width=3)
    return image


def build(
    config: PrepareDataConfig,
    output: Path,
    source: Path | None = None,
    answerer: Answerer | None = None,
    work: Path | None = None,
) -> tuple[list[Sample], BuildSummary]:
    """A data set made in this process: its samples, and what came of the build."""
    with tempfile.TemporaryDirectory() as scratch:
        job = BuildJob(config, source, work or Path(scratch), open_helpers=lambda: Helpers(answerer=answerer))
        summary = build_dataset(job, output)
    return read_samples(output), summary


Build = Callable[..., tuple[list[Sample], BuildSummary]]


@pytest.fixture(scope="session", name="build")
def build_fixture() -> Build:
    return build


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes a COCO folder of `count` photographs; `spoil` may change the instances before they are written."""

    def write(count: int = 4, spoil: Callable[[dict[str, Any]], None] | None = None) -> Path:
        folder = tmp_path / "photographs"
        (folder / "images").mkdir(parents=True)
        instances: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        # Every photograph has categories of its own, so that a thing cut from one is absent from the others.
        for image in range(count):
            photograph(image).save(folder / f"images/{image}.png")
            instances["images"].append({"id": image, "file_name": f"{image}.png", "width": 200, "height": 150})
            for place, (name, box) in enumerate(THINGS):
                number = 10 * image + place
                instances["categories"].append({"id": number, "name": f"{name} {image}"})
                instances["annotations"].append(
                    {"id": number, "image_id": image, "category_id": number, "bbox": list(box), "iscrowd": 0}
                )
        if spoil:
            spoil(instances)
        (folder / "instances.json").write_text(json.dumps(instances))
        return folder

    return write


@pytest.fixture(scope="session", name="photograph")
def photograph_fixture() -> Callable[[int], Image.Image]:
    return photograph


@pytest.fixture(scope="session")
def things() -> list[tuple[str, tuple[int, int, int, int]]]:
    """What every photograph shows, and where."""
    return THINGS
