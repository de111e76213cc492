"""A source of your own: write annotations in COCO's format, and build a guarded data set of clean and edited pairs.

    .venv/bin/python examples/own_source.py FOLDER
    .venv/bin/aot data build examples/own_source.toml DATA --set source_folder=FOLDER
    .venv/bin/aot data show DATA --output pairs.html

Replace `annotations` by whatever your labelling tool or simulator gives. Here simple pictures are drawn.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CATEGORIES = {"ball": (200, 60, 50), "crate": (150, 110, 60), "sign": (60, 90, 190), "bin": (70, 140, 80)}


def annotations(rng: np.random.Generator) -> tuple[Image.Image, list[tuple[str, list[int]]]]:
    """A picture and its objects, each a category and a box [x, y, width, height] in pixels."""
    noise = rng.normal(0, 6, size=(160, 200, 3))
    image = Image.fromarray(np.clip(rng.integers(120, 220, size=3) + noise, 0, 255).astype(np.uint8))
    draw, boxes = ImageDraw.Draw(image), []
    for column, name in enumerate(rng.permutation(list(CATEGORIES))[:3]):
        x, y, side = 14 + column * 62, int(rng.integers(20, 100)), int(rng.integers(28, 44))
        shape = draw.ellipse if name == "ball" else draw.rectangle
        shape((x, y, x + side - 1, y + side - 1), fill=CATEGORIES[name], outline=(30, 30, 30), width=2)
        boxes.append((str(name), [x, y, side, side]))
    return image, boxes


def main(folder: Path, count: int = 12) -> None:
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    ids = {name: number for number, name in enumerate(CATEGORIES, start=1)}
    images, boxes = [], []
    for number in range(count):
        image, objects = annotations(rng)
        image.save(folder / "images" / f"{number:04d}.png")
        images.append({"id": number, "file_name": f"{number:04d}.png", "width": image.width, "height": image.height})
        for name, box in objects:
            boxes.append({"id": len(boxes), "image_id": number, "category_id": ids[name], "bbox": box, "iscrowd": 0})
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    print(f"{count} pictures with {len(boxes)} boxes in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
