"""Where to look in a tile: the part that is cut out, and the place where most was taken away."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_SMOOTHING = 2.0  # px, σ: structure adds up over it, noise does not


class Crop(NamedTuple):
    """A part of a tile, px."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.left + self.width)


def cut(shape: tuple[int, ...], row: float, col: float, side: int) -> Crop:
    """A square of `side` px about a place, moved inside the tile where it would stick out, smaller if the tile is."""
    height, width = (min(side, n) for n in shape[:2])
    top, left = (
        int(min(max(0, round(at - size / 2)), n - size))
        for at, size, n in zip((row, col), (height, width), shape[:2], strict=True)
    )
    return Crop(top, left, height, width)


def hottest(before: np.ndarray | None, after: np.ndarray | None, side: int) -> tuple[float, float] | None:
    """Centre (row, col) of the square of `side` px in which two images differ most beyond noise; None if unknown."""
    if before is None or after is None or before.shape != after.shape:
        return None
    from scipy.ndimage import gaussian_filter, uniform_filter

    rest = np.nan_to_num(before.astype(np.float64) - after.astype(np.float64))
    energy = gaussian_filter(rest - rest.mean(), _SMOOTHING) ** 2
    size = [min(side, n) for n in rest.shape]
    inside = uniform_filter(energy, size, mode="constant")
    row, col = np.unravel_index(int(inside.argmax()), inside.shape)
    return float(row), float(col)
