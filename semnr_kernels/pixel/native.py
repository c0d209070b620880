"""Pixel errors in C++: one pass over both images of any layout, exact integer accumulation, fused gradient."""

from __future__ import annotations

from typing import Any

import torch

from .. import _library, _native
from .._registry import Call, no_loop, refusal
from . import reference

Pair = tuple[torch.Tensor, torch.Tensor]


UNSUPPORTED = (no_loop,)


def supports(call: Call) -> str | None:
    """Every dtype, layout and mask; uint16 and float16 included."""
    return refusal(UNSUPPORTED, call)


def errors(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, *, isa: str | None = None) -> Pair:
    """As `reference.errors`, for CPU tensors; `isa` forces an instruction set."""
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        return _Errors.apply(x, y, valid, isa)
    return _errors(x, y, valid, isa)


def one_image(x: torch.Tensor, y: torch.Tensor, *, absolute: bool) -> float:
    """MSE, or MAE, over all pixels of a plain pair (`_checks.is_plain`)."""
    return _native.module().pixel_flat(
        _native.address(x),
        _native.address(y),
        x.numel(),
        _native.DTYPE_CODES[x.dtype],
        torch.get_num_threads(),
        absolute,
    )


def _errors(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, isa: str | None) -> Pair:
    out = _native.empty((2, x.shape[0]), torch.float64)
    _native.module(isa).pixel_errors(
        _native.image(x),
        _native.image(y),
        _native.mask(valid),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        torch.get_num_threads(),
        _native.address(out),
    )
    return out[0], out[1]


class _Errors(torch.autograd.Function):
    """First order in C++; a gradient of the gradient goes through the definition."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, isa: str | None) -> Pair:  # type: ignore[override]
        ctx.save_for_backward(x, y, valid)
        ctx.isa = isa
        if _library.gradient_only():
            square, absolute = _native.empty((2, x.shape[0]), torch.float64).zero_()
            return square, absolute
        return _errors(x, y, valid, isa)

    @staticmethod
    def backward(ctx: Any, g_square: torch.Tensor, g_absolute: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, y, valid = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # create_graph
            return (
                *_native.reference_gradient(reference.errors(x, y, valid), (x, y), (g_square, g_absolute), wanted),
                None,
                None,
            )
        weights = torch.stack((g_square, g_absolute)).double().contiguous()
        out = [_native.empty(x.shape, x.dtype) if w else None for w in wanted]
        _native.module(ctx.isa).pixel_gradient(
            _native.image(x),
            _native.image(y),
            _native.mask(valid),
            _native.DTYPE_CODES[x.dtype],
            x.shape,
            torch.get_num_threads(),
            _native.address(weights),
            *(_native.address(g) for g in out),
        )
        return *out, None, None
