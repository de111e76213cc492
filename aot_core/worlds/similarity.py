"""Localized SSIM: how much of the protected boxes an edit left alone.

The paper's integrity term. SSIM's map (Wang et al. 2004; 11x11 Gaussian window, sigma 1.5, channels averaged) is
taken over the whole images and averaged inside each box; the worst box counts. The window reaches five pixels
beyond a box, so a perfect edit right beside one stays a little below 1.

Computed in float64: a variance is a small difference of large numbers, and in float32 a flat bright region comes out
up to .002 too low. Within that error the map is torchmetrics', which the tests hold it against. It is written out here
because importing torchmetrics (matplotlib, transformers, scipy.signal) takes a worker of the data pipeline more time
than all else that it needs.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from math import ceil, exp, floor

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from aot_core.contracts.scene import Box

_REACH = 5
"""Pixels that the 11 x 11 window reaches beyond its middle."""
_SIGMA = 1.5
_GAUSS = [exp(-((i / _SIGMA) ** 2) / 2) for i in range(-_REACH, _REACH + 1)]
_WINDOW = [weight / sum(_GAUSS) for weight in _GAUSS]
"""The window along one dimension, of sum 1."""
_C1, _C2 = 0.01**2, 0.03**2
"""(K1 L)^2 and (K2 L)^2, with K1, K2 of the paper and pixels in 0..1 (L = 1)."""
_BATCH_PIXELS = 2**20
"""How many pixels go through the window at once: half a gigabyte at most."""


def localized_ssim(clean: Image.Image, edited: Image.Image, boxes: Sequence[Box]) -> float:
    """The mean of the SSIM map inside each box, the minimum over the boxes; 1.0 without boxes. In -1..1.

    Raises ValueError when the images differ in size.
    """
    return localized_ssim_batch([clean], [edited], [boxes])[0]


def localized_ssim_batch(
    cleans: Sequence[Image.Image], editeds: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]
) -> list[float]:
    """`localized_ssim` of many pairs; consecutive pairs of one size are computed together."""
    if not len(cleans) == len(editeds) == len(boxes):
        raise ValueError(f"{len(cleans)} clean images, {len(editeds)} edited ones, {len(boxes)} box lists: must agree")
    for clean, edited in zip(cleans, editeds, strict=True):
        if clean.size != edited.size:
            raise ValueError(f"edited image is {edited.size}, clean image {clean.size}: an edit must keep the size")
    scores = [1.0] * len(cleans)
    # Where nothing changed within the window's reach of a box the score is known to be 1: most pairs are like that.
    differing = [i for i, clean in enumerate(cleans) if any(_touched(clean, editeds[i], box) for box in boxes[i])]
    for size, group in groupby(differing, key=lambda i: cleans[i].size):
        for batch in _batched(group, max(1, _BATCH_PIXELS // (size[0] * size[1]))):
            maps = ssim_maps(_tensor([cleans[i] for i in batch]), _tensor([editeds[i] for i in batch]))
            for i, ssim_map in zip(batch, maps, strict=True):
                scores[i] = worst_box(ssim_map, boxes[i])
    return scores


def ssim_maps(cleans: torch.Tensor, editeds: torch.Tensor) -> torch.Tensor:
    """The SSIM map of every pair: two (B, 3, H, W) tensors in 0..1 give (B, H, W) in float64, channels averaged.

    Wang et al. 2004, equation 13; reflected at the borders. Raises ValueError for images of less than 6 pixels a side,
    which have nothing to reflect.
    """
    height, width = cleans.shape[-2:]
    if min(height, width) <= _REACH:
        raise ValueError(
            f"images of {width} x {height} pixels are too small for SSIM; give at least {_REACH + 1} a side"
        )
    with torch.no_grad():
        x, y = (functional.pad(images.double(), (_REACH,) * 4, mode="reflect") for images in (editeds, cleans))
        mu_x, mu_y, xx, yy, xy = (_blurred(_blurred(moment, 2), 3) for moment in (x, y, x * x, y * y, x * y))
        var_x = torch.clamp(xx - mu_x.pow(2), min=0.0)
        var_y = torch.clamp(yy - mu_y.pow(2), min=0.0)
        luminance = 2 * (mu_x * mu_y) + _C1
        structure = 2 * (xy - mu_x * mu_y) + _C2
        full = (luminance * structure) / ((mu_x.pow(2) + mu_y.pow(2) + _C1) * (var_x + var_y + _C2))
    return full.mean(1)


def _blurred(images: torch.Tensor, dim: int) -> torch.Tensor:
    """The Gaussian window along one dimension, which becomes `2 * _REACH` shorter.

    Eleven sums of shifted views: in float64 on a CPU three to ten times as fast as a convolution, which has no fast
    kernel there.
    """
    length = images.shape[dim] - 2 * _REACH
    blurred = images.narrow(dim, _REACH, length) * _WINDOW[_REACH]
    for i in range(_REACH):
        blurred.add_(images.narrow(dim, i, length), alpha=_WINDOW[i])
        blurred.add_(images.narrow(dim, 2 * _REACH - i, length), alpha=_WINDOW[i])
    return blurred


def worst_box(ssim_map: torch.Tensor, boxes: Sequence[Box]) -> float:
    """The lowest mean of an (H, W) map over the boxes; 1.0 without boxes. A box covers every pixel it touches."""
    if not boxes:
        return 1.0
    means = []
    for box in boxes:
        rows = slice(floor(box.y), max(ceil(box.bottom), floor(box.y) + 1))
        columns = slice(floor(box.x), max(ceil(box.right), floor(box.x) + 1))
        inside = ssim_map[rows, columns]
        if inside.numel() == 0:
            raise ValueError(f"box {box} lies outside the {tuple(ssim_map.shape)} image; give boxes inside it")
        means.append(float(inside.mean()))
    return min(means)


def _touched(clean: Image.Image, edited: Image.Image, box: Box) -> bool:
    """Whether any pixel that the SSIM of the box depends on differs."""
    crop = (
        max(0, floor(box.x) - _REACH),
        max(0, floor(box.y) - _REACH),
        min(clean.width, ceil(box.right) + _REACH),
        min(clean.height, ceil(box.bottom) + _REACH),
    )
    return clean.crop(crop).tobytes() != edited.crop(crop).tobytes()


def _tensor(images: Sequence[Image.Image]) -> torch.Tensor:
    stacked = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).double() / 255


def _batched(items: Iterable[int], size: int) -> Iterator[list[int]]:
    """Lists of up to `size` consecutive items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
