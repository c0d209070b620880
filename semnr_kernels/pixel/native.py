"""Pixel errors in C++: one pass over both images, exact integer accumulation."""

from __future__ import annotations

import torch

from .. import _native
from .._registry import Call


def supports(call: Call) -> str | None:
    if call.needs_grad:
        return "has no gradient yet"
    if call.options.get("masked"):
        return "has no mask yet"
    if call.dtype not in (torch.uint8, torch.uint16, torch.float32, torch.float64):
        return f"has no {str(call.dtype).removeprefix('torch.')} loop yet"
    return None


def errors(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """As `reference.errors`, for CPU tensors without a mask."""
    x, y = x.detach().contiguous(), y.detach().contiguous()
    n, out = x.shape[0], torch.empty((2, x.shape[0]), dtype=torch.float64)
    dtype = str(x.dtype).removeprefix("torch.")
    _native.module().pixel_errors(x.data_ptr(), y.data_ptr(), dtype, n, x[0].numel(), out.data_ptr())
    return out[0], out[1]
