"""Moments of regions in C++: one read of the pixels for all regions, windows of any size at the same cost.

Sums are exact for integers and taken around a pixel of the region for floats (csrc/cnr); the ratios stay in the
contract. No gradient here: `supports` leaves that to the reference.
"""

from __future__ import annotations

import torch

from .. import _native
from .._registry import Call
from .reference import Cores, Moments, Smoothed


def histogram(values: torch.Tensor, edges: torch.Tensor, *, isa: str | None = None) -> torch.Tensor:
    """As `reference.histogram`, for CPU tensors."""
    values, edges = values.contiguous(), edges.contiguous()
    counts = torch.empty(edges.numel() - 1, dtype=torch.int64)
    _native.module(isa).histogram(
        values.data_ptr(),
        values.numel(),
        edges.data_ptr(),
        counts.numel(),
        torch.get_num_threads(),
        counts.data_ptr(),
    )
    return counts


def supports_histogram(call: Call) -> str | None:
    return None if call.dtype == torch.float64 else "counts float64 values"


def smoothed(
    image: torch.Tensor, valid: torch.Tensor | None, taps: tuple[float, ...], *, isa: str | None = None
) -> Smoothed:
    """As `reference.smoothed`, for CPU tensors, to the last bit."""
    n, _, h, w = image.shape
    pivot, low, high = torch.empty((3, n), dtype=torch.float64)
    bad = torch.empty(n, dtype=torch.int64)
    values = torch.empty((n, 1, h, w), dtype=torch.float64)
    module, threads = _native.module(isa), torch.get_num_threads()
    x = (_native.image(image), _native.DTYPE_CODES[image.dtype], image.shape)
    module.otsu_pixels(*x, _native.mask(valid), threads, pivot.data_ptr(), bad.data_ptr())
    if bool(bad.any()):
        finite = torch.isfinite(image).all(dim=1, keepdim=True)
        valid = finite if valid is None else valid & finite
    module.otsu_smooth(
        *x, _native.mask(valid), pivot.data_ptr(), taps, threads, values.data_ptr(), low.data_ptr(), high.data_ptr()
    )
    return Smoothed(values, valid, pivot, low, high, bad)


def supports_image(call: Call) -> str | None:
    return None if call.dtype in _native.DTYPE_CODES else f"has no {str(call.dtype).removeprefix('torch.')} loop"


def split(
    v: torch.Tensor, valid: torch.Tensor | None, at: torch.Tensor, *, isa: str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `reference.split`, for CPU tensors."""
    v, at = v.contiguous(), at.contiguous()
    bright, dark = torch.empty((2, *v.shape), dtype=torch.bool)
    _native.module(isa).otsu_split(
        v.data_ptr(),
        _native.mask(valid),
        v.shape,
        at.data_ptr(),
        torch.get_num_threads(),
        bright.data_ptr(),
        dark.data_ptr(),
    )
    return bright, dark


def guard_band(bright: torch.Tensor, dark: torch.Tensor, radius: int, *, isa: str | None = None) -> Cores:
    """As `reference.guard_band`, for CPU tensors; the cost does not follow the radius."""
    bright, dark = bright.contiguous(), dark.contiguous()
    regions = torch.empty((2, *bright.shape), dtype=torch.bool)
    pixels = torch.empty((2, bright.shape[0]), dtype=torch.int64)
    _native.module(isa).guard_band(
        bright.data_ptr(),
        dark.data_ptr(),
        bright.shape,
        radius,
        torch.get_num_threads(),
        regions.data_ptr(),
        pixels.data_ptr(),
    )
    return Cores(*regions, *pixels)


def supports(call: Call) -> str | None:
    """Every dtype and layout; gradients are the reference's."""
    if call.dtype not in _native.DTYPE_CODES:
        return f"has no {str(call.dtype).removeprefix('torch.')} loop"
    return "has no gradient" if call.needs_grad else None


def of_regions(
    x: torch.Tensor,
    *regions: torch.Tensor,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    isa: str | None = None,
) -> tuple[Moments, ...]:
    """As `reference.of_regions`, for CPU tensors; `isa` forces an instruction set."""
    n, c, h, w = x.shape
    whole = window is None or stride is None
    size, step = ((h, w), (h, w)) if whole else (window, stride)
    rows, columns = (h - size[0]) // step[0] + 1, (w - size[1]) // step[1] + 1  # type: ignore[index]
    out = torch.empty((len(regions), 3, n, c, rows, columns), dtype=torch.float64)
    _native.module(isa).cnr_moments(
        _native.image(x),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        [_native.image(roi.expand(x.shape)) for roi in regions],
        size,
        step,
        torch.get_num_threads(),
        out.data_ptr(),
    )
    return tuple(Moments(*(of[..., 0, 0] if whole else of)) for of in out)
