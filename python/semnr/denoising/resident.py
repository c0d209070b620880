"""Tiles that are denoised on a device and stay there for what reads them next; the host gets what is written.

Never ran on a GPU: none was at hand. Every step is tested on a GPU that is not there (tests/support/mock_gpu.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .tiled import Runner, cut, top_of

if TYPE_CHECKING:
    import torch

_KINDS = ("uint8", "uint16", "float32", "float64")  # float16: a device rounds to it by way of float32


class Kept(np.ndarray):
    """The pixels of a denoised tile on the host. `there`: the same on the device, by role; "noisy" is the input."""

    there: Mapping[str, torch.Tensor] | None = None


def serves(runner: Runner, pixels: np.ndarray, device: Any) -> bool:
    """Whether the whole tile can be denoised on `device` alone, to the same pixels as by `Runner.tile`.

    The model must run there, and no border be mirrored twice. Pixels that are not finite are left to `Runner.tile`,
    which says where they are.
    """
    if runner.there is None or runner.there.device != device or pixels.dtype.name not in _KINDS:
        return False
    return runner.halo <= min(pixels.shape[-2:]) and bool(np.isfinite(pixels).all())


def denoised(pixels: np.ndarray, runner: Runner, side: int) -> Kept:
    """`pixels` (H, W) or (C, H, W) in windows of `side`: sent once, and the result fetched once."""
    import torch

    filtered = runner.there
    assert filtered is not None  # by `serves`
    with torch.no_grad():
        noisy = torch.from_numpy(np.ascontiguousarray(pixels)).pin_memory().to(filtered.device, non_blocking=True)
        planes = noisy.double().reshape(-1, *noisy.shape[-2:])
        result = torch.empty_like(planes)
        for tile in cut((planes.shape[1], planes.shape[2]), side):
            window = runner.window(tile, (planes.shape[1], planes.shape[2]))
            for plane, into in zip(planes, result, strict=True):
                made = filtered.apply(_mirrored(plane[window.rows, window.columns], window.margins))
                into[tile.top : tile.bottom, tile.left : tile.right] = made[window.inner]
        if not noisy.dtype.is_floating_point:
            result = result.round_().clamp_(0, top_of(pixels.dtype, runner.data_range))
        image = result.reshape(noisy.shape).to(noisy.dtype)
        kept = image.cpu().numpy().view(Kept)
    kept.there = {"image": image, "noisy": noisy}
    return kept


def _mirrored(plane: torch.Tensor, margins: tuple[tuple[int, int], tuple[int, int]]) -> torch.Tensor:
    """As np.pad(plane, margins, "symmetric"), of margins that are no wider than the plane."""
    import torch

    for axis, (before, after) in enumerate(margins):
        size = plane.shape[axis]
        first, last = plane.narrow(axis, 0, before).flip(axis), plane.narrow(axis, size - after, after).flip(axis)
        plane = torch.cat([first, plane, last], dim=axis) if before or after else plane
    return plane
