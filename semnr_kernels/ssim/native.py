"""SSIM in C++: float32 moments shifted per tile (or float64), any odd symmetric window, masks, maps and components.

The gradient is fused and recomputes the moments; a gradient of the gradient goes through the definition.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .. import _native
from .._registry import Call
from . import reference
from .reference import SSIMRows

_COMPONENTS = ("luminance", "contrast", "structure")
_BACKWARD_SIZE = 65  # csrc/ssim/ssim_cpu.hpp: the largest window with a gradient


class _Setup(NamedTuple):
    """What a kernel needs beside the pixels."""

    taps: tuple[float, ...]
    reflect: bool
    double: bool
    numbers: tuple[float, float, float, float]  # C1, C2, L, n / (n - 1)
    want_map: bool
    want_components: bool
    isa: str | None


def supports(call: Call) -> str | None:
    """Any layout and dtype; gradients without masks and components."""
    if call.dtype not in _native.DTYPE_CODES:
        return f"has no {str(call.dtype).removeprefix('torch.')} loop"
    if call.needs_grad:
        if call.options.get("valid") or call.options.get("want_components"):
            return "has no gradient of masked images and of components"
        if len(call.options.get("taps", ())) > _BACKWARD_SIZE:
            return f"has no gradient for windows above {_BACKWARD_SIZE}"
    return None


def numbers(
    data_range: float, k1: float, k2: float, count: int, sample_covariance: bool
) -> tuple[float, float, float, float]:
    unbiased = count / (count - 1) if sample_covariance and count > 1 else 1.0
    return (k1 * data_range) ** 2, (k2 * data_range) ** 2, data_range, unbiased


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
    return _native.module().ssim_flat(
        x.data_ptr(),
        y.data_ptr(),
        h,
        w,
        _native.DTYPE_CODES[x.dtype],
        taps,
        (border == "reflect", precision == "float64" or x.dtype == torch.float64),
        numbers(data_range, k1, k2, len(taps) ** 2, sample_covariance),
        torch.get_num_threads(),
    )


def ssim(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float,
    taps: tuple[float, ...],
    k1: float,
    k2: float,
    border: str,
    sample_covariance: bool,
    clamp_variance: bool,
    valid: torch.Tensor | None,
    want_map: bool,
    want_components: bool,
    precision: str,
    isa: str | None = None,
) -> SSIMRows:
    """As `reference.ssim`, for CPU tensors; `isa` forces an instruction set.

    clamp_variance: variances never come out negative here, so there is nothing to switch.
    """
    setup = _Setup(
        taps,
        border == "reflect",
        # float64 moments: on request, for float64 images, and where speed is not the point
        precision == "float64" or x.dtype == torch.float64 or valid is not None or want_components,
        numbers(data_range, k1, k2, len(taps) ** 2, sample_covariance),
        want_map,
        want_components,
        isa,
    )
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        if setup.reflect and len(taps) > 1:  # torch folds the mirrored pixels' gradient back
            half = (len(taps) - 1) // 2
            x, y = (F.pad(v, (half, half, half, half), mode="reflect") for v in (x, y))
        setup = setup._replace(reflect=False)
        again = functools.partial(
            reference.ssim,
            data_range=data_range,
            taps=taps,
            k1=k1,
            k2=k2,
            border="valid",
            sample_covariance=sample_covariance,
            clamp_variance=clamp_variance,
            valid=None,
            want_map=want_map,
            want_components=False,
            precision=precision,
        )
        score, structure, ssim_map = _SSIM.apply(x, y, setup, again)
        return SSIMRows(score, structure, None, ssim_map, None)
    return _forward(x, y, valid, setup)


def _forward(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: _Setup) -> SSIMRows:
    n, c, h, w = x.shape
    rows = torch.empty((5 if s.want_components else 2, n, c), dtype=torch.float64)
    ssim_map = coverage = None
    if s.want_map:
        less = 0 if s.reflect else len(s.taps) - 1
        ssim_map = torch.empty((n, c, h - less, w - less), dtype=torch.float64 if s.double else torch.float32)
    if valid is not None:
        coverage = torch.empty(n, dtype=torch.float64)
    _native.module(s.isa).ssim_forward(
        _native.image(x),
        _native.image(y),
        _native.mask(valid),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        s.taps,
        (s.reflect, s.double),
        s.numbers,
        torch.get_num_threads(),
        rows.data_ptr(),
        s.want_components,
        0 if ssim_map is None else ssim_map.data_ptr(),
        0 if coverage is None else coverage.data_ptr(),
    )
    components = dict(zip(_COMPONENTS, rows[2:], strict=True)) if s.want_components else None
    return SSIMRows(rows[0], rows[1], components, ssim_map, coverage)


class _SSIM(torch.autograd.Function):
    """Score, contrast·structure and map of whole windows; first order in C++."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, setup: _Setup, again: Any) -> tuple[Any, ...]:  # type: ignore[override]
        ctx.save_for_backward(x, y)
        ctx.setup, ctx.again = setup, again
        ctx.set_materialize_grads(False)
        found = _forward(x, y, None, setup)
        return found.score, found.contrast_structure, found.map

    @staticmethod
    def backward(ctx: Any, *by: torch.Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        x, y = ctx.saved_tensors
        wanted, s = ctx.needs_input_grad[:2], ctx.setup
        if torch.is_grad_enabled():  # create_graph
            rows = ctx.again(x, y)
            pairs = [
                (out, g if out.dtype == g.dtype else g.to(out.dtype))
                for out, g in zip((rows.score, rows.contrast_structure, rows.map), by, strict=True)
                if g is not None
            ]
            found = _native.reference_gradient(tuple(o for o, _ in pairs), (x, y), tuple(g for _, g in pairs), wanted)
            return *found, None, None
        n, c, h, w = x.shape
        windows = (h - len(s.taps) + 1) * (w - len(s.taps) + 1)
        by_rows = torch.zeros((2, n, c), dtype=torch.float64)
        for row, g in zip(by_rows, by[:2], strict=True):
            if g is not None:
                torch.div(g, windows, out=row)
        dtype = torch.float64 if s.double else torch.float32
        by_map = None if by[2] is None else by[2].to(dtype).contiguous()
        out = [torch.empty(x.shape, dtype=dtype) if w else None for w in wanted]
        _native.module(s.isa).ssim_backward(
            _native.image(x),
            _native.image(y),
            _native.DTYPE_CODES[x.dtype],
            x.shape,
            s.taps,
            (False, s.double),
            s.numbers,
            torch.get_num_threads(),
            by_rows.data_ptr(),
            0 if by_map is None else by_map.data_ptr(),
            *(0 if g is None else g.data_ptr() for g in out),
        )
        return *(None if g is None else g.to(x.dtype) for g in out), None, None
