"""CNR, as defined: two-pass moments of two regions in float64, then one ratio a name.

Differentiable in the pixels; the regions are fixed. Undefined and infinite entries have a zero gradient,
so that they never turn the gradient of the others into NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

KINDS = ("two_roi", "sum_var", "background", "fixed_noise")


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
    v = x.double()
    count = roi.sum(dim=(-2, -1), dtype=torch.float64).expand(v.shape[:-2])
    empty = count == 0
    safe = count.clamp(min=1)
    pivot = torch.where(roi, v.detach(), torch.inf).amin(dim=(-2, -1))
    pivot = torch.where(empty, 0.0, pivot)
    # where, not a product: a NaN outside the region must not reach the sums
    z = torch.where(roi, v - pivot[..., None, None], 0.0)
    mean = z.sum(dim=(-2, -1)) / safe
    d = torch.where(roi, z - mean[..., None, None], 0.0)
    variance = (d * d).sum(dim=(-2, -1)) / safe
    return Moments(count, torch.where(empty, torch.nan, pivot + mean), torch.where(empty, torch.nan, variance))


def window_moments(x: torch.Tensor, roi: torch.Tensor, window: tuple[int, int], stride: tuple[int, int]) -> Moments:
    """`moments` of each window: (N, C, rows, columns). Holds one row of windows at a time."""
    xs, rois = (t.unfold(2, window[0], stride[0]).unfold(3, window[1], stride[1]) for t in (x, roi))
    rows = [moments(xs[:, :, r], rois[:, :, r]) for r in range(xs.shape[2])]
    return Moments(*(torch.stack(parts, dim=2) for parts in zip(*rows, strict=True)))


def of_regions(
    x: torch.Tensor,
    *regions: torch.Tensor,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
) -> tuple[Moments, ...]:
    """The moments of each region, of the whole image or by windows."""
    if window is None or stride is None:
        return tuple(moments(x, roi) for roi in regions)
    return tuple(window_moments(x, roi, window, stride) for roi in regions)


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
    zero = variance == 0
    usable = ~zero & ~torch.isnan(variance)
    value = top / torch.sqrt(torch.where(usable, variance, 1.0))
    limit = torch.where(top == 0, torch.nan, torch.copysign(torch.full_like(top, torch.inf), top)).detach()
    return torch.where(zero, limit, torch.where(torch.isnan(variance), torch.nan, value))


def retention(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Δμ(candidate) / Δμ(reference), signed; NaN where the reference has no contrast."""
    flat = reference == 0
    return torch.where(flat, torch.nan, candidate / torch.where(flat, 1.0, reference))


def histogram(values: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """How many values lie in edges[i] <= v < edges[i + 1], int64; those beyond the ends count in the end bins."""
    bins = edges.numel() - 1
    at = (torch.searchsorted(edges, values, right=True) - 1).clamp(0, bins - 1)
    return torch.bincount(at.flatten(), minlength=bins)
