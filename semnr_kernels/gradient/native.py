"""Similarity of Scharr gradients in C++, float32 or float64 throughout: neither gradients nor terms are stored.

The gradient is fused and recomputes them; a gradient of the gradient goes through the definition.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import _native
from .._registry import Call, refusal
from . import reference
from .reference import GradientSimilarity

_NONE = (0, 0, 0, 0, 0)


def _no_loop(call: Call) -> str | None:
    dtypes = (torch.float32, torch.float64)
    return None if call.dtype in dtypes else f"has no {str(call.dtype).removeprefix('torch.')} loop"


UNSUPPORTED = (_no_loop,)


def supports(call: Call) -> str | None:
    """float32 and float64, any layout; gradients of either order."""
    return refusal(UNSUPPORTED, call)


def similarity(
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    *,
    constant: float,
    want_map: bool,
    isa: str | None = None,
) -> GradientSimilarity:
    """As `reference.similarity`, for CPU tensors, the map in the images' dtype; `isa` forces an instruction set."""
    weight = None if weight is None else weight.to(x.dtype)
    if torch.is_grad_enabled() and any(v is not None and v.requires_grad for v in (x, y, weight)):
        # one output a function: its backward then has one derivative to pass on
        by_map = _Map.apply(x, y, constant, isa) if want_map else None
        return GradientSimilarity(by_map, None if weight is None else _Total.apply(x, y, weight, constant, isa))
    return GradientSimilarity(*_forward(x, y, weight, constant, want_map, isa))


def _forward(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None, constant: float, want_map: bool, isa: str | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    found = _native.empty(x.shape, x.dtype) if want_map else None
    total = None if weight is None else _native.empty(x.shape[:2], torch.float64)
    _native.module(isa).gradient_forward(
        _native.image(x),
        _native.image(y),
        _NONE if weight is None else _native.image(weight),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        constant,
        torch.get_num_threads(),
        _native.address(found),
        _native.address(total),
    )
    return found, total


def _backward(
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    constant: float,
    isa: str | None,
    by: torch.Tensor,
    wanted: tuple[bool, ...],
) -> list[torch.Tensor | None]:
    out = [_native.empty(x.shape, x.dtype) if w else None for w in wanted]
    by = by.to(x.dtype if weight is None else torch.float64)
    by = by if weight is None else by.contiguous()
    _native.module(isa).gradient_backward(
        _native.image(x),
        _native.image(y),
        _NONE if weight is None else _native.image(weight),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        constant,
        torch.get_num_threads(),
        _native.image(by) if weight is None else _NONE,
        0 if weight is None else _native.address(by),
        *(_native.address(g) for g in (*out, *(None,) * (3 - len(out)))),
    )
    return out


class _Map(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, constant: float, isa: str | None) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, y)
        ctx.constant, ctx.isa = constant, isa
        found, _ = _forward(x, y, None, constant, True, isa)
        return found  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, by: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, y = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # create_graph
            found = reference.similarity(x, y, None, constant=ctx.constant, want_map=True).map
            return *_native.reference_gradient((found,), (x, y), (by.double(),), wanted), None, None  # type: ignore[arg-type]
        return *_backward(x, y, None, ctx.constant, ctx.isa, by, wanted), None, None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, constant: float, isa: str | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, y, weight)
        ctx.constant, ctx.isa = constant, isa
        return _forward(x, y, weight, constant, False, isa)[1]  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, by: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, y, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # create_graph
            total = reference.similarity(x, y, weight, constant=ctx.constant, want_map=False).total
            return *_native.reference_gradient((total,), (x, y, weight), (by,), wanted), None, None  # type: ignore[arg-type]
        return *_backward(x, y, weight, ctx.constant, ctx.isa, by, wanted), None, None
