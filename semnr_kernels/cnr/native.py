"""Moments of regions in C++: one read of the pixels for all regions, windows of any size at the same cost.

Sums are exact for integers and taken around a pixel of the region for floats (csrc/cnr); the ratios stay in the
contract. No gradient here: `supports` leaves that to the reference.
"""

from __future__ import annotations

import torch

from .. import _native
from .._registry import Call
from .reference import Moments


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
