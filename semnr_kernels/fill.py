"""Values for masked pixels, for metrics whose transform or network needs every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_FIRST_RADIUS = 4


def fill_masked(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Both images with their masked pixels set to the local mean of the reference `y`.

    x, y: floating (N, C, H, W); valid: (N, 1, H, W) bool or None. Equal stand-ins in both images make no
    difference of their own; what they cover is not known, so the caller flags the result as approximate.
    """
    if valid is None:
        return x, y
    mean = local_mean(y, valid)
    return torch.where(valid, x, mean), torch.where(valid, y, mean)


def local_mean(y: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """At each masked pixel the mean of the valid ones in the smallest window that holds any.

    Windows are squares of 9, 17, 33, ... pixels, cut at the border; 0 where an image has no valid pixel at all.
    """
    zero = torch.zeros((), dtype=y.dtype, device=y.device)
    known, weight = torch.where(valid, y, zero), valid.to(y.dtype)
    mean, todo, radius = torch.zeros_like(y), ~valid, _FIRST_RADIUS
    while bool(todo.any()):
        share = _box_mean(weight, radius)
        filled = todo & (share > 0.5 / (2 * radius + 1) ** 2)  # half a pixel: above rounding, below one pixel
        mean = torch.where(filled, _box_mean(known, radius) / torch.where(filled, share, 1), mean)
        todo = todo & ~filled
        if radius >= max(y.shape[-2:]):
            break
        radius *= 2
    return mean


def _box_mean(image: torch.Tensor, radius: int) -> torch.Tensor:
    size = 2 * radius + 1
    rows = F.avg_pool2d(image, (size, 1), stride=1, padding=(radius, 0))
    return F.avg_pool2d(rows, (1, size), stride=1, padding=(0, radius))
