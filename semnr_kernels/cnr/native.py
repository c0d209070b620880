"""Moments of regions in C++: one pass over the pixels, at a cost that does not depend on the window."""

from __future__ import annotations

import torch

from .. import _native
from .._registry import Call
from . import reference
from .reference import Moments


def supports(call: Call) -> str | None:
    """Every dtype and layout, without a gradient."""
    if call.dtype not in _native.DTYPE_CODES:
        return f"has no {str(call.dtype).removeprefix('torch.')} loop"
    return "has no gradient" if call.needs_grad else None


def window_moments(
    x: torch.Tensor, roi: torch.Tensor, window: tuple[int, int], stride: tuple[int, int], *, isa: str | None = None
) -> Moments:
    """As `reference.window_moments`."""
    if torch.is_grad_enabled() and x.requires_grad:  # the noise image or the reference, while x itself has no gradient
        return reference.window_moments(x, roi, window, stride)
    return _moments(x, roi, window, stride, isa)


def moments(x: torch.Tensor, roi: torch.Tensor, *, isa: str | None = None) -> Moments:
    """As `reference.moments`, for (N, C, H, W)."""
    if torch.is_grad_enabled() and x.requires_grad:
        return reference.moments(x, roi)
    size = (x.shape[2], x.shape[3])
    return Moments(*(part[..., 0, 0] for part in _moments(x, roi, size, size, isa)))


def _moments(
    x: torch.Tensor, roi: torch.Tensor, window: tuple[int, int], stride: tuple[int, int], isa: str | None
) -> Moments:
    n, c, h, w = x.shape
    counts = [(side - size) // step + 1 for side, size, step in zip((h, w), window, stride, strict=True)]
    out = torch.empty((3, n, c, *counts), dtype=torch.float64)
    _native.module(isa).window_moments(
        _native.image(x),
        _native.mask(roi.expand(n, 1, h, w)),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        (*window, *stride, *counts),
        torch.get_num_threads(),
        out.data_ptr(),
    )
    return Moments(*out)
