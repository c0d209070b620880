"""Moments of a region in C++: one read of pixels and masks, windows of any size at the same cost.

Sums are exact for integers and taken around a pixel of the region for floats (csrc/cnr); the ratios stay in the
contract. No gradient here: `supports` leaves that to the reference.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import _native
from .._registry import Call
from . import reference
from .reference import Moments


def supports(call: Call) -> str | None:
    """Every dtype and layout; gradients are the reference's."""
    if call.dtype not in _native.DTYPE_CODES:
        return f"has no {str(call.dtype).removeprefix('torch.')} loop"
    return "has no gradient" if call.needs_grad else None


def moments(x: torch.Tensor, roi: torch.Tensor, *, isa: str | None = None) -> Moments:
    """As `reference.moments`, for CPU tensors; `isa` forces an instruction set."""
    whole = (x.shape[2], x.shape[3])
    return Moments(*(part[:, :, 0, 0] for part in _with_gradient(x, roi, whole, whole, isa)))


def window_moments(
    x: torch.Tensor,
    roi: torch.Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    *,
    isa: str | None = None,
) -> Moments:
    """As `reference.window_moments`, for CPU tensors; `isa` forces an instruction set."""
    return _with_gradient(x, roi, window, stride, isa)


def _measure(
    x: torch.Tensor,
    regions: tuple[torch.Tensor, ...],
    window: tuple[int, int],
    stride: tuple[int, int],
    isa: str | None,
) -> tuple[Moments, ...]:
    """Moments of each of `regions`, (N or 1, C or 1, H, W) bool, from one read of the pixels."""
    n, c, h, w = x.shape
    rows, columns = (h - window[0]) // stride[0] + 1, (w - window[1]) // stride[1] + 1
    out = torch.empty((len(regions), 3, n, c, rows, columns), dtype=torch.float64)
    _native.module(isa).cnr_moments(
        _native.image(x),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        [_native.image(roi.expand(x.shape)) for roi in regions],
        window,
        stride,
        torch.get_num_threads(),
        out.data_ptr(),
    )
    return tuple(Moments(*of) for of in out)


def _with_gradient(
    x: torch.Tensor, roi: torch.Tensor, window: tuple[int, int], stride: tuple[int, int], isa: str | None
) -> Moments:
    if torch.is_grad_enabled() and x.requires_grad:
        return Moments(*_Moments.apply(x, roi, window, stride, isa))
    return _measure(x, (roi,), window, stride, isa)[0]


class _Moments(torch.autograd.Function):
    """For a reference or a noisy image that wants a gradient where the candidate does not; through the definition."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, roi: torch.Tensor, window: Any, stride: Any, isa: str | None) -> Moments:  # type: ignore[override]
        ctx.save_for_backward(x, roi)
        ctx.windows = window, stride
        found = _measure(x, (roi,), window, stride, isa)[0]
        ctx.mark_non_differentiable(found.pixels)
        return tuple(found)  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, _: torch.Tensor, by_mean: torch.Tensor, by_variance: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, roi = ctx.saved_tensors
        again = torch.is_grad_enabled()  # create_graph
        with torch.enable_grad():
            found = reference.window_moments(x, roi, *ctx.windows)
            (g,) = _native.reference_gradient((found.mean, found.variance), (x,), (by_mean, by_variance), (True,))
        return g if again or g is None else g.detach(), None, None, None, None
