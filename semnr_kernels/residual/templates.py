"""What the scan of the residual looks for: discs of several diameters as the beam shows them, and squares."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

BEAM, SHARP = 0.6, 0.3  # px: blur of a disc's edge, and of a square's
SQUARES = (4.0, 9.0)  # px: between these sizes squares are looked for too
_FINE = 8  # samples a pixel along each axis


class Shape(NamedTuple):
    """A disc of that diameter, or a square of that side."""

    size: float
    square: bool = False


def bank(sizes: tuple[float, ...]) -> tuple[Shape, ...]:
    """Upright edges stand out of noise that runs along the line: a sharp square of 6 px shows 16 % more to a square
    than to a disc. Smaller and larger ones are told well enough by discs."""
    squares = tuple(Shape(size, square=True) for size in sizes if SQUARES[0] <= size <= SQUARES[1])
    return tuple(Shape(size) for size in sizes) + squares


@lru_cache(maxsize=64)
def template(shape: Shape) -> np.ndarray:
    """Height 1 before the blur, centred on the middle pixel of an odd-sided square array, float64."""
    from scipy import ndimage

    blur = SHARP if shape.square else BEAM
    radius = math.ceil(shape.size / 2 + 3 * blur)
    at = np.abs((np.arange((2 * radius + 1) * _FINE) + 0.5) / _FINE - (radius + 0.5))
    far = np.maximum(at[:, None], at) if shape.square else np.hypot(at[:, None], at)
    inside = ndimage.gaussian_filter((far <= shape.size / 2).astype(np.float64), blur * _FINE, mode="constant")
    side = 2 * radius + 1
    out: np.ndarray = inside.reshape(side, _FINE, side, _FINE).mean((1, 3))
    return out
