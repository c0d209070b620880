"""Moments of regions in C++: one read of the pixels for all regions, windows of any size at the same cost.

Sums are exact for integers and taken around a pixel of the region for floats (csrc/cnr); the ratios stay in the
contract. No gradient here: `supports` leaves that to the definition.
"""

from __future__ import annotations

import torch

from .. import native_support
from ..registry import Call, float64_values, no_gradient, no_loop, refusal
from .reference import WHOLE, Cores, Moments, Settings, Smoothed


def histogram(values: torch.Tensor, edges: torch.Tensor, *, isa: str | None = None) -> torch.Tensor:
    """As `reference.histogram`, for CPU tensors."""
    values, edges = values.contiguous(), edges.contiguous()
    counts = native_support.empty(edges.numel() - 1, torch.int64)
    native_support.module(isa).histogram(
        native_support.address(values),
        values.numel(),
        native_support.address(edges),
        counts.numel(),
        torch.get_num_threads(),
        native_support.address(counts),
    )
    return counts


UNSUPPORTED_HISTOGRAM = (float64_values,)


def supports_histogram(call: Call) -> str | None:
    return refusal(UNSUPPORTED_HISTOGRAM, call)


def smoothed(
    image: torch.Tensor, valid: torch.Tensor | None, taps: tuple[float, ...], *, isa: str | None = None
) -> Smoothed:
    """As `reference.smoothed`, for CPU tensors, to the last bit."""
    n, _, h, w = image.shape
    pivot, low, high = native_support.empty((3, n), torch.float64)
    bad = native_support.empty(n, torch.int64)
    values = native_support.empty((n, 1, h, w), torch.float64)
    module, threads = native_support.module(isa), torch.get_num_threads()
    x = (native_support.image(image), native_support.DTYPE_CODES[image.dtype], image.shape)
    module.otsu_pixels(
        *x, native_support.mask(valid), threads, native_support.address(pivot), native_support.address(bad)
    )
    if bool(bad.any()):
        finite = torch.isfinite(image).all(dim=1, keepdim=True)
        valid = finite if valid is None else valid & finite
    module.otsu_smooth(
        *x,
        native_support.mask(valid),
        native_support.address(pivot),
        taps,
        threads,
        *(native_support.address(v) for v in (values, low, high)),
    )
    return Smoothed(values, valid, pivot, low, high, bad)


UNSUPPORTED_IMAGE = (no_loop,)


def supports_image(call: Call) -> str | None:
    return refusal(UNSUPPORTED_IMAGE, call)


def split(
    v: torch.Tensor, valid: torch.Tensor | None, at: torch.Tensor, *, isa: str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `reference.split`, for CPU tensors."""
    v, at = v.contiguous(), at.contiguous()
    bright, dark = native_support.empty((2, *v.shape), torch.bool)
    native_support.module(isa).otsu_split(
        native_support.address(v),
        native_support.mask(valid),
        v.shape,
        native_support.address(at),
        torch.get_num_threads(),
        native_support.address(bright),
        native_support.address(dark),
    )
    return bright, dark


def guard_band(bright: torch.Tensor, dark: torch.Tensor, radius: int, *, isa: str | None = None) -> Cores:
    """As `reference.guard_band`, for CPU tensors; the cost does not follow the radius."""
    bright, dark = bright.contiguous(), dark.contiguous()
    regions = native_support.empty((2, *bright.shape), torch.bool)
    pixels = native_support.empty((2, bright.shape[0]), torch.int64)
    native_support.module(isa).guard_band(
        native_support.address(bright),
        native_support.address(dark),
        bright.shape,
        radius,
        torch.get_num_threads(),
        native_support.address(regions),
        native_support.address(pixels),
    )
    return Cores(*regions, *pixels)


UNSUPPORTED = (no_loop, no_gradient)


def supports(call: Call) -> str | None:
    """Every dtype and layout; gradients are the definition's."""
    return refusal(UNSUPPORTED, call)


def of_regions(
    x: torch.Tensor,
    *regions: torch.Tensor,
    settings: Settings = WHOLE,
    isa: str | None = None,
) -> tuple[Moments, ...]:
    """As `reference.of_regions`, for CPU tensors; `isa` forces an instruction set."""
    n, c, h, w = x.shape
    size, step = settings.grid(h, w)
    rows, columns = (h - size[0]) // step[0] + 1, (w - size[1]) // step[1] + 1
    out = native_support.empty((len(regions), 3, n, c, rows, columns), torch.float64)
    native_support.module(isa).cnr_moments(
        native_support.image(x),
        native_support.DTYPE_CODES[x.dtype],
        x.shape,
        [native_support.image(roi.expand(x.shape)) for roi in regions],
        size,
        step,
        torch.get_num_threads(),
        native_support.address(out),
    )
    return tuple(Moments(*(of[..., 0, 0] if settings.whole else of)) for of in out)
