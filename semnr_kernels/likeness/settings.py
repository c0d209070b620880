"""What the looks at a pair of images tell, and the scales at which they look."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

MIN_SIDE = 32  # px
FINE, COARSE = 1.5, 12.0  # px: the band whose structure is compared
SEEN = 0.12  # correlation of the two looks from which a frame has structure at all
JPEG = 0.75  # share of the fine detail that blocks on JPEG's grid hold
BLOCK = 8  # px
BETWEEN = ((4, 0), (0, 4), (4, 4), (2, 6), (6, 2))  # px, down and across, off that grid
BLOCKS = 1024  # blocks that speak for an image
FEW_LEVELS = 16
NEAR = 3  # px around the peak at every second pixel


class Looks(NamedTuple):
    """How a denoised image and a reference lie against a noisy one; NaN where not evaluated.

    Attributes
    ----------
    mean, span, roughness : float
        Of the noisy image: mean; largest less least grey level; median second difference across lines, which is noise
        where most of the image is no edge.
    d_mean, d_deviation, d_span, d_roughness : float
        Of the denoised image: the same, and its standard deviation.
    d_correlation, d_contrast : float
        Its structure's correlation with the noisy image's, freed of that one's noise: 1 one scene, 0 two, -1 inverted;
        and its contrast over it. NaN: the noisy image shows none.
    d_grid, d_levels, d_border : float
        Traces that the noisy image has not: 1 where fine detail lies between the blocks of 8 px of JPEG's grid; number
        of grey levels where they are few; rows and columns of one grey level around the image. 0: no trace.
    r_span, r_correlation, r_contrast : float
        Of the reference.
    r_down, r_right, r_sure : float
        How far it lies down and to the right of the noisy image, px, and 1 where the images say so beyond doubt.
    """

    mean: float
    span: float
    roughness: float
    d_mean: float
    d_deviation: float
    d_span: float
    d_roughness: float
    d_correlation: float
    d_contrast: float
    d_grid: float
    d_levels: float
    d_border: float
    r_span: float
    r_correlation: float
    r_contrast: float
    r_down: float
    r_right: float
    r_sure: float


def between(down: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a Gaussian of FINE px less one of COARSE px lets through at these frequencies, cycles/px, is
    fine_down · fine_right - coarse_down · coarse_right: these four."""
    fine_down, fine_right, coarse_down, coarse_right = (
        np.exp(-2 * (math.pi * sigma * f) ** 2) for sigma in (FINE, COARSE) for f in (down, right)
    )
    return fine_down, fine_right, coarse_down, coarse_right


@lru_cache(maxsize=32)
def sample(count: int) -> np.ndarray:
    """Which of so many blocks are looked at: drawn once, so that no period of the scene is met."""
    return np.sort(np.random.default_rng(0).permutation(count)[:BLOCKS])


@lru_cache(maxsize=8)
def blocks(height: int, width: int) -> tuple[np.ndarray, ...]:
    """(blocks, 2) each: rows and columns of the blocks that are looked at, on JPEG's grid and off it."""
    found = []
    for row, column in ((0, 0), *BETWEEN):
        down, right = (height - row) // BLOCK, (width - column) // BLOCK
        rows, columns = np.divmod(sample(down * right), right)
        found.append(np.stack([row + BLOCK * rows, column + BLOCK * columns], axis=1))
    return tuple(found)
