"""What is changed on images each time they are seen: a batch at a time, from a stream of random numbers.

Geometry is one warp: flips, quarter turns, a rotation, a crop and moved corners become one sampling of each image, so
that it is interpolated once. Then grey levels: contrast, inversion, charging and the noise of a tool, as the training
of the denoiser draws them (`semnr.training.noise`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..training.noise import Family, Tools, charged
from .config import Augment


def augmented(
    images: Sequence[np.ndarray], side: int, wanted: Augment, family: Family, rng: np.random.Generator
) -> Tensor:
    """(N, 1, side, side) float32 on 0 to 1 of images (h, w) uint8 of any size."""
    out = torch.empty(len(images), 1, side, side)
    for k, image in enumerate(images):
        x = torch.from_numpy(np.ascontiguousarray(image)).float()[None, None] / 255
        short = min(image.shape)
        if short > 1.6 * side:  # sampled from so fine an image, the view would alias
            size = [round(n * 1.3 * side / short) for n in image.shape]
            x = functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        grid = _grid((x.shape[-2], x.shape[-1]), side, wanted, rng)
        out[k] = functional.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
    return _grey(out, wanted, family, rng)


def _grid(size: tuple[int, int], side: int, wanted: Augment, rng: np.random.Generator) -> Tensor:
    """(1, side, side, 2): from where each pixel is taken, in the image's own coordinates of -1 to 1."""
    at = (torch.arange(side, dtype=torch.float32) + 0.5) * 2 / side - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    corners = torch.from_numpy(rng.uniform(-2 * wanted.warp, 2 * wanted.warp, (2, 4)).astype(np.float32))
    weights = torch.stack([(1 - y) * (1 - x), (1 - y) * (1 + x), (1 + y) * (1 - x), (1 + y) * (1 + x)]) / 4
    y, x = y + (weights * corners[0, :, None, None]).sum(0), x + (weights * corners[1, :, None, None]).sum(0)
    angle = np.deg2rad(rng.uniform(-wanted.rotate, wanted.rotate)) if wanted.rotate else 0.0
    angle += np.pi / 2 * int(rng.integers(4)) if wanted.quarter_turns else 0.0
    flip = float(rng.choice([-1, 1])) if wanted.flip else 1.0
    scale = float(np.sqrt(rng.uniform(wanted.crop, 1.0)))
    sine, cosine = float(np.sin(angle)), float(np.cos(angle))
    y, x = scale * (cosine * y + sine * flip * x), scale * (cosine * flip * x - sine * y)
    height, width = size
    short = min(size)
    free_y, free_x = (max(0.0, 1 - scale * short / n) for n in size)
    y = y * short / height + float(rng.uniform(-free_y, free_y))
    x = x * short / width + float(rng.uniform(-free_x, free_x))
    return torch.stack([x, y], dim=-1)[None]


def _grey(x: Tensor, wanted: Augment, family: Family, rng: np.random.Generator) -> Tensor:
    count = len(x)

    def some(share: float) -> Tensor:
        return torch.from_numpy(rng.random((count, 1, 1, 1)) < share)

    def uniform(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (count, 1, 1, 1)).astype(np.float32))

    x = torch.where(some(wanted.invert), 1 - x, x)
    gain = torch.exp(uniform(-wanted.contrast, wanted.contrast))
    x = ((x - 0.5) * gain + 0.5 + uniform(-wanted.contrast / 3, wanted.contrast / 3)).clamp(0, 1)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    if wanted.charging:
        x = torch.where(some(wanted.charging), charged(x, family, generator), x)
    if wanted.noise:
        noisy = Tools.draw(count, family, generator).noisy(x, generator)
        x = torch.where(some(wanted.noise), noisy, x)
    return x.clamp(0, 1)
