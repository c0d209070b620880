"""The definition of CNR: two-pass moments of two regions in float64, then one ratio for each kind.

Differentiable in the pixels; the regions are fixed. Undefined and infinite entries have a zero gradient,
so that they never turn the gradient of the others into NaN. What the Otsu masks are made of stands here too; its
arithmetic has one order of operations, so that every backend may give the same masks to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

KINDS = ("two_roi", "sum_var", "background", "fixed_noise")


@dataclass(frozen=True)
class Settings:
    """Of which windows the moments are taken, rows and columns; None: of the whole image."""

    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None

    @property
    def whole(self) -> bool:
        return self.window is None or self.stride is None

    def grid(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Windows and strides, those of the whole image where there are none."""
        if self.window is None or self.stride is None:
            return (height, width), (height, width)
        return self.window, self.stride


WHOLE = Settings()


@dataclass(frozen=True)
class Bins:
    """The settings of a histogram: how many bins."""

    bins: int


class Moments(NamedTuple):
    """Population moments of one region; `mean` and `variance` are NaN where `pixels` is 0."""

    pixels: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor


def moments(x: torch.Tensor, roi: torch.Tensor) -> Moments:
    """Over the last two dimensions of `x`, where `roi` (bool, broadcast) holds.

    Two passes around a pixel of the region: exact zeros for a constant region, whatever its level, and no
    cancellation on a 16-bit pedestal.
    """
    v = x.double()  # [N, C, H, W]
    count = roi.sum(dim=(-2, -1), dtype=torch.float64).expand(v.shape[:-2])  # [N, C], as all that is returned
    empty = count == 0
    safe = count.clamp(min=1)
    pivot = torch.where(roi, v.detach(), torch.inf).amin(dim=(-2, -1))
    pivot = torch.where(empty, 0.0, pivot)
    # where, not a product: a NaN outside the region must not reach the sums
    z = torch.where(roi, v - pivot[..., None, None], 0.0)  # [N, C, H, W]
    mean = z.sum(dim=(-2, -1)) / safe
    d = torch.where(roi, z - mean[..., None, None], 0.0)
    variance = (d * d).sum(dim=(-2, -1)) / safe
    return Moments(count, torch.where(empty, torch.nan, pivot + mean), torch.where(empty, torch.nan, variance))


def window_moments(x: torch.Tensor, roi: torch.Tensor, window: tuple[int, int], stride: tuple[int, int]) -> Moments:
    """`moments` of each window: (N, C, rows, columns). Holds one row of windows at a time."""
    # [N, C, rows, columns, window, window]
    xs, rois = (t.unfold(2, window[0], stride[0]).unfold(3, window[1], stride[1]) for t in (x, roi))
    rows = [moments(xs[:, :, r], rois[:, :, r]) for r in range(xs.shape[2])]
    return Moments(*(torch.stack(parts, dim=2) for parts in zip(*rows, strict=True)))


def of_regions(x: torch.Tensor, *regions: torch.Tensor, settings: Settings = WHOLE) -> tuple[Moments, ...]:
    """The moments of each region, of the whole image, (N, C), or by windows, (N, C, rows, columns)."""
    if settings.window is None or settings.stride is None:
        return tuple(moments(x, roi) for roi in regions)
    return tuple(window_moments(x, roi, settings.window, settings.stride) for roi in regions)


def noise_variance(kind: str, signal: Moments, background: Moments) -> torch.Tensor:
    """The square under the ratio, from the moments of the two regions."""
    if kind == "sum_var":
        return signal.variance + background.variance
    if kind == "background":
        return background.variance
    return (signal.variance + background.variance) / 2


def ratio(contrast: torch.Tensor, variance: torch.Tensor, *, signed: bool) -> torch.Tensor:
    """contrast / √variance, or its magnitude. Zero noise: ±inf; neither contrast nor noise: NaN."""
    top = contrast if signed else contrast.abs()
    usable = variance > 0  # not of a NaN
    value = top / torch.sqrt(torch.where(usable, variance, 1.0))
    return torch.where(usable, value, top.detach() / variance.detach().abs())


def retention(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Δμ(candidate) / Δμ(reference), signed; NaN where the reference has no contrast."""
    flat = reference == 0
    return torch.where(flat, torch.nan, candidate / torch.where(flat, 1.0, reference))


def histogram(values: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """How many values lie in edges[i] <= v < edges[i + 1], int64; those beyond the ends count in the end bins."""
    bins = edges.numel() - 1
    at = (torch.searchsorted(edges, values, right=True) - 1).clamp(0, bins - 1)
    return torch.bincount(at.flatten(), minlength=bins)


class Smoothed(NamedTuple):
    """Images as the Otsu masks see them: channels averaged, a pixel subtracted, a Gaussian over the valid pixels.

    Around one of its own pixels a flat image stays exactly flat through the smoothing, and a pedestal costs no digit.
    """

    values: torch.Tensor  # (N, 1, H, W) float64, around the pivot; 0 where invalid
    valid: torch.Tensor | None  # (N, 1, H, W) bool; None: every pixel
    pivot: torch.Tensor  # (N,) the lowest valid pixel; 0 where there is none
    low: torch.Tensor  # (N,) the extremes of the valid values; inf and -inf where there is none
    high: torch.Tensor
    bad: torch.Tensor  # (N,) int64: pixels that were given as valid and are not finite; `valid` leaves them out


def smoothed(image: torch.Tensor, valid: torch.Tensor | None, taps: tuple[float, ...]) -> Smoothed:
    """Of (N, C, H, W) and (N, 1, H, W); taps[j] weighs the two pixels j away, renormalised at borders and masks."""
    v = image[:, :1].double()  # [N, 1, H, W]
    for c in range(1, image.shape[1]):
        v = v + image[:, c : c + 1]
    v = v / image.shape[1]
    finite = torch.isfinite(v)
    given = torch.ones_like(finite) if valid is None else valid
    inside = given & finite
    pivot = torch.where(inside, v, torch.inf).amin(dim=(1, 2, 3))  # [N]
    pivot = torch.where(torch.isfinite(pivot), pivot, 0.0)
    v = torch.where(inside, v - pivot[:, None, None, None], 0.0)
    value, weight = (_along(_along(p, taps, 2), taps, 3) for p in (v, inside.double()))
    v = torch.where(inside, value / torch.where(inside, weight, 1.0), 0.0)
    low, high = torch.where(inside, v, torch.inf).amin((1, 2, 3)), torch.where(inside, v, -torch.inf).amax((1, 2, 3))
    bad = (given & ~finite).sum(dim=(1, 2, 3))
    whole = valid is None and (not image.is_floating_point() or (v.is_cpu and not bool(bad.any())))
    return Smoothed(v, None if whole else inside, pivot, low, high, bad)


def _along(v: torch.Tensor, taps: tuple[float, ...], dim: int) -> torch.Tensor:
    """Σ over taps, the nearest first; each weighs the sum of its two pixels, those outside being 0."""
    size, total = v.shape[dim], v * taps[0]
    for j in range(1, min(len(taps), size)):
        pair = torch.zeros_like(v)
        pair.narrow(dim, j, size - j).add_(v.narrow(dim, 0, size - j))
        pair.narrow(dim, 0, size - j).add_(v.narrow(dim, j, size - j))
        total += pair * taps[j]
    return total


def split(v: torch.Tensor, valid: torch.Tensor | None, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The valid pixels of (N, 1, H, W) above `at`, (N,), and those that are not; of a NaN neither."""
    at = at.reshape(-1, 1, 1, 1)
    bright, dark = v > at, v <= at
    return (bright, dark) if valid is None else (bright & valid, dark & valid)


class Cores(NamedTuple):
    """Two regions that keep their distance, (N, 1, H, W) bool, and the pixels of each, (N,) int64."""

    signal: torch.Tensor
    background: torch.Tensor
    signal_pixels: torch.Tensor
    background_pixels: torch.Tensor


def guard_band(bright: torch.Tensor, dark: torch.Tensor, radius: int) -> Cores:
    """Each region without its pixels within `radius`, in a square, of the other."""
    cores = bright & ~_dilated(dark, radius), dark & ~_dilated(bright, radius)
    return Cores(*cores, *(m.sum(dim=(1, 2, 3)) for m in cores))


def _dilated(region: torch.Tensor, radius: int) -> torch.Tensor:
    """Square dilation; nothing enters from outside the image."""
    v = region.float()
    for dim, size in ((0, region.shape[2]), (1, region.shape[3])):
        r = min(radius, size - 1)
        window, padding = [1, 1], [0, 0]
        window[dim], padding[dim] = 2 * r + 1, r
        v = F.max_pool2d(v, window, stride=1, padding=padding)
    return v > 0
