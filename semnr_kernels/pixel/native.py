"""Pixel errors in C++: one pass over both images of any layout, exact integer accumulation, fused gradient."""

from __future__ import annotations

from typing import Any

import torch

from .. import library, native_support
from ..registry import Call, no_loop, refusal
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
    """MSE, or MAE, over all pixels of a plain pair (`checks.is_plain`)."""
    return native_support.module().pixel_flat(
        native_support.address(x),
        native_support.address(y),
        x.numel(),
        native_support.DTYPE_CODES[x.dtype],
        torch.get_num_threads(),
        absolute,
    )


def _errors(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, isa: str | None) -> Pair:
    out = native_support.empty((2, x.shape[0]), torch.float64)
    native_support.module(isa).pixel_errors(
        native_support.image(x),
        native_support.image(y),
        native_support.mask(valid),
        native_support.DTYPE_CODES[x.dtype],
        x.shape,
        torch.get_num_threads(),
        native_support.address(out),
    )
    return out[0], out[1]


class _Errors(torch.autograd.Function):
    """First order in C++; a gradient of the gradient goes through the definition."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, isa: str | None) -> Pair:  # type: ignore[override]
        ctx.save_for_backward(x, y, valid)
        ctx.isa = isa
        if library.gradient_only():
            square, absolute = native_support.empty((2, x.shape[0]), torch.float64).zero_()
            return square, absolute
        return _errors(x, y, valid, isa)

    @staticmethod
    def backward(ctx: Any, g_square: torch.Tensor, g_absolute: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, y, valid = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # create_graph
            return (
                *native_support.reference_gradient(
                    reference.errors(x, y, valid), (x, y), (g_square, g_absolute), wanted
                ),
                None,
                None,
            )
        weights = torch.stack((g_square, g_absolute)).double().contiguous()
        out = [native_support.empty(x.shape, x.dtype) if w else None for w in wanted]
        native_support.module(ctx.isa).pixel_gradient(
            native_support.image(x),
            native_support.image(y),
            native_support.mask(valid),
            native_support.DTYPE_CODES[x.dtype],
            x.shape,
            torch.get_num_threads(),
            native_support.address(weights),
            *(native_support.address(g) for g in out),
        )
        return *out, None, None
