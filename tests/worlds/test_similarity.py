"""Localized SSIM sees what happens in the boxes, and nothing else."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

from aot_core.contracts.scene import Box
from aot_core.worlds.similarity import localized_ssim, localized_ssim_batch, ssim_maps


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def with_patch(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    edited = image.copy()
    edited.paste((0, 255, 0), box)
    return edited


def test_equal_images_and_no_boxes_score_one() -> None:
    box = Box(x=0, y=0, width=20, height=20)
    assert localized_ssim(noise(0), noise(0), [box]) == 1.0
    assert localized_ssim(noise(0), noise(1), []) == 1.0


def test_the_worst_box_counts() -> None:
    edited = with_patch(noise(0), (40, 40, 60, 60))
    near, far = Box(x=40, y=40, width=20, height=20), Box(x=2, y=2, width=12, height=12)
    assert localized_ssim(noise(0), edited, [far]) == 1.0
    assert localized_ssim(noise(0), edited, [far, near]) < 0.2


def test_it_is_the_mean_of_torchmetrics_map_inside_the_box() -> None:
    clean, edited = (torch.from_numpy(np.array(noise(s))).permute(2, 0, 1)[None] / 255 for s in (0, 1))
    _, full = structural_similarity_index_measure(edited, clean, data_range=1.0, return_full_image=True)
    expected = full.mean(1)[0, 10:21, 5:16].mean()
    score = localized_ssim(noise(0), noise(1), [Box(x=5.5, y=10.2, width=10, height=10)])
    assert score == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (7, 48, 96), (1, 11, 6)])
def test_the_map_is_torchmetrics(batch: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(height)
    cleans = torch.randint(0, 256, (batch, 3, height, width), generator=generator) / 255
    editeds = cleans.clone()
    editeds[:, :, :, : width // 2] = torch.rand((batch, 3, height, width // 2), generator=generator)
    for kind, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        _, full = structural_similarity_index_measure(
            editeds.to(kind), cleans.to(kind), reduction="none", data_range=1.0, return_full_image=True
        )
        torch.testing.assert_close(ssim_maps(cleans, editeds), full.mean(1).double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("grey", [64, 200, 250, 255])
def test_a_flat_region_is_judged_alike_however_bright_it_is(grey: int) -> None:
    """In float32 a bright region came out .002 too low."""
    boxes = [Box(x=14, y=15, width=35, height=35)]  # whole periods of the changed pixels

    def one_grey_value_off(flat: int) -> float:
        pixels = np.full((70, 70, 3), flat, dtype=np.uint8)
        edited = pixels.copy()
        edited[::7, ::5] -= 1
        return localized_ssim(Image.fromarray(pixels), Image.fromarray(edited), boxes)

    assert one_grey_value_off(grey) == pytest.approx(one_grey_value_off(128), abs=2e-5)


def test_pictures_that_are_too_small_are_told() -> None:
    edited = Image.new("RGB", (5, 9), "white")
    with pytest.raises(ValueError, match="images of 5 x 9 pixels are too small for SSIM; give at least 6 a side"):
        localized_ssim(Image.new("RGB", (5, 9)), edited, [Box(x=0, y=0, width=3, height=3)])


def test_a_worker_of_the_pipeline_starts_without_what_it_does_not_need() -> None:
    slow = {"torchmetrics", "matplotlib", "transformers", "scipy", "pandas", "great_expectations"}
    code = "import sys, aot_core.data.build; print(*sys.modules)"
    assert not slow & set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_a_change_just_beyond_the_windows_reach_is_not_seen() -> None:
    box = Box(x=20, y=20, width=10, height=10)
    assert localized_ssim(noise(0), with_patch(noise(0), (35, 20, 40, 30)), [box]) == 1.0
    assert localized_ssim(noise(0), with_patch(noise(0), (34, 20, 40, 30)), [box]) < 1.0


def test_a_batch_of_mixed_sizes_scores_like_single_pairs() -> None:
    cleans = [noise(0), noise(1).resize((48, 32)), noise(2)]
    editeds = [noise(3), noise(4).resize((48, 32)), noise(5)]
    boxes = [[Box(x=3, y=3, width=9, height=9)]] * 3
    singly = [localized_ssim(c, e, b) for c, e, b in zip(cleans, editeds, boxes, strict=True)]
    assert localized_ssim_batch(cleans, editeds, boxes) == pytest.approx(singly, abs=1e-6)


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="must keep the size"):
        localized_ssim(noise(0), noise(0).resize((32, 32)), [])
