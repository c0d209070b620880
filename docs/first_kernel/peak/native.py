"""The same in C++: addresses go to the compiled module, which knows nothing of torch."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from semnr_kernels import native_support
from semnr_kernels.registry import Call, no_gradient, no_loop, refusal

UNSUPPORTED = (no_loop, no_gradient)  # what this backend says it does not do


def supports(call: Call) -> str | None:
    return refusal(UNSUPPORTED, call)


def _module(isa: str | None) -> ModuleType:
    """An op of csrc asks `native_support.module(isa)`; the example was compiled by its test."""
    return importlib.import_module("first_kernel")


def peak(x: torch.Tensor, y: torch.Tensor, *, isa: str | None = None) -> torch.Tensor:
    """As `reference.peak`, for CPU tensors of any layout."""
    largest = native_support.empty(x.shape[0], torch.float64)
    _module(isa).peak_errors(
        native_support.image(x),
        native_support.image(y),
        native_support.DTYPE_CODES[x.dtype],
        x.shape,
        torch.get_num_threads(),
        native_support.address(largest),
    )
    return largest
