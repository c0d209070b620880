"""SSIM over any number of axes, with a window of its own along each: what the compiled kernels do not have.

Separable, in torch, in float64, differentiable, on any device. Two-dimensional images with one square window never
come here; they go to `semnr_kernels.ssim.rows`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch

from semnr_kernels.ssim import Settings, window_taps

__all__ = ["correlate", "gaussian", "index_maps", "settings", "uniform", "usable"]

Taps = Sequence[float]


@functools.lru_cache(maxsize=256)
def settings(**given: Any) -> Settings:
    """Those of the kernels; kept, with the window in float32 that they work out once."""
    return Settings(**given)


def gaussian(size: int, sigma: float) -> tuple[float, ...]:
    """A normalised Gaussian of `size` taps."""
    return window_taps("gaussian", size, float(sigma))


def uniform(size: int) -> tuple[float, ...]:
    """`size` equal taps whose sum is 1."""
    return (1.0 / size,) * size


def correlate(image: torch.Tensor, taps: Sequence[Taps | None]) -> torch.Tensor:
    """Weighted sums along the last axes of `image`, over whole windows; None leaves an axis as it is."""
    for axis, weights in zip(range(-len(taps), 0), taps, strict=True):
        if weights is None:
            continue
        count = image.shape[axis] - len(weights) + 1
        parts = (image.narrow(axis, at, count) for at in range(len(weights)))
        total = next(parts) * weights[0]
        for weight, part in zip(weights[1:], parts, strict=True):
            total = torch.add(total, part, alpha=weight)
        image = total
    return image


def index_maps(
    x: torch.Tensor,
    y: torch.Tensor,
    taps: Sequence[Taps | None],
    constants: tuple[float, float],
    *,
    unbiased: float = 1.0,
    clamp: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps of SSIM and of contrast times structure, float64.

    Parameters
    ----------
    x, y : Tensor, (N, C, ...)
        Candidate and reference, already padded.
    taps : sequence of weights
        The window along each axis after the second.
    constants : (float, float)
        C1 and C2.
    unbiased : float
        Factor of the variances and the covariance.
    clamp : bool
        Negative variances become 0.
    """
    a, b = x.double(), y.double()
    mean_a, mean_b, square_a, square_b, product = (correlate(v, taps) for v in (a, b, a * a, b * b, a * b))
    c1, c2 = constants
    var_a = unbiased * (square_a - mean_a * mean_a)
    var_b = unbiased * (square_b - mean_b * mean_b)
    if clamp:
        var_a, var_b = var_a.clamp(min=0), var_b.clamp(min=0)
    structure = (2 * unbiased * (product - mean_a * mean_b) + c2) / (var_a + var_b + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    return luminance * structure, structure


def usable(data_range: float) -> bool:
    """Whether the kernels take it as the width of a scale; 0, NaN and what overflows go by torch, as the peers do."""
    return math.isfinite(data_range) and 1e-30 <= data_range <= 1e30
