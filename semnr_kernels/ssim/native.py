"""SSIM in C++: float32 moments shifted per tile (or float64), any odd symmetric window, masks, maps and components.

The gradient is fused and recomputes the moments; a gradient of the gradient goes through the definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import _native
from .._registry import Call
from . import _autograd, _taps
from ._autograd import Setup, numbers
from .reference import SSIMRows

_BACKWARD_SIZE = 65  # csrc/ssim/ssim_cpu.hpp: the largest window with a gradient


def supports(call: Call) -> str | None:
    """Any layout and dtype; gradients without masks and components."""
    if (reason := _autograd.why_not(call)) is not None:
        return reason
    if call.needs_grad and len(call.options.get("taps", ())) > _BACKWARD_SIZE:
        return f"has no gradient for windows above {_BACKWARD_SIZE}"
    return None


def one_image(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float,
    taps: tuple[float, ...],
    k1: float,
    k2: float,
    border: str,
    sample_covariance: bool,
    precision: str,
) -> float:
    """The score of a plain pair (`_checks.is_plain`) of one channel."""
    h, w = x.shape[-2:]
    double = precision == "float64" or x.dtype == torch.float64
    return _native.module().ssim_flat(
        x.data_ptr(),
        y.data_ptr(),
        h,
        w,
        _native.DTYPE_CODES[x.dtype],
        taps if double else _taps.normalised(taps),
        (border == "reflect", double),
        numbers(data_range, k1, k2, len(taps) ** 2, sample_covariance),
        torch.get_num_threads(),
    )


def ssim(x: torch.Tensor, y: torch.Tensor, *, isa: str | None = None, **options: Any) -> SSIMRows:
    """As `reference.ssim`, for CPU tensors; `isa` forces an instruction set."""
    kernels = _autograd.Kernels(
        lambda a, b, valid, s: _forward(a, b, valid, s, isa),
        lambda a, b, s, by_rows, by_map, wanted: _backward(a, b, s, by_rows, by_map, wanted, isa),
    )
    return _autograd.run(kernels, x, y, **options)


def _forward(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Setup, isa: str | None = None
) -> SSIMRows:
    n, c = x.shape[:2]
    rows = torch.empty((5 if s.want_components else 2, n, c), dtype=torch.float64)
    ssim_map = torch.empty((n, c, *s.windows(x)), dtype=s.work) if s.want_map else None
    coverage = None if valid is None else torch.empty(n, dtype=torch.float64)
    _native.module(isa).ssim_forward(
        _native.image(x),
        _native.image(y),
        _native.mask(valid),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        s.window,
        (s.reflect, s.double),
        s.numbers,
        torch.get_num_threads(),
        rows.data_ptr(),
        s.want_components,
        0 if ssim_map is None else ssim_map.data_ptr(),
        0 if coverage is None else coverage.data_ptr(),
    )
    components = dict(zip(_autograd.COMPONENTS, rows[2:], strict=True)) if s.want_components else None
    return SSIMRows(rows[0], rows[1], components, ssim_map, coverage)


def _backward(
    x: torch.Tensor,
    y: torch.Tensor,
    s: Setup,
    by_rows: torch.Tensor,
    by_map: torch.Tensor | None,
    wanted: Sequence[bool],
    isa: str | None = None,
) -> list[torch.Tensor | None]:
    out = [torch.empty(x.shape, dtype=s.work) if w else None for w in wanted]
    _native.module(isa).ssim_backward(
        _native.image(x),
        _native.image(y),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        s.window,
        (False, s.double),
        s.numbers,
        torch.get_num_threads(),
        by_rows.data_ptr(),
        0 if by_map is None else by_map.data_ptr(),
        *(0 if g is None else g.data_ptr() for g in out),
    )
    return [None if g is None else g.to(x.dtype) for g in out]
