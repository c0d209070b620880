"""Whether a kernel may read the memory of a tensor: its kind, its layout, and what torch is doing around the call.

A kernel reads addresses. Of a tensor that only stands for memory (FakeTensor, a wrapper subclass, "meta"), and of one
that a transform of torch.func or forward-mode differentiation has wrapped, there is none to read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.autograd import forward_ad

_KEYS = torch._C.DispatchKey
_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter)


def quiet() -> bool:
    """Whether nothing of torch stands between a call and its tensors: no mode, transform, dual level or trace."""
    if torch.compiler.is_compiling():  # which cannot be asked for the rest
        return False
    return (
        forward_ad._current_level < 0
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.maybe_current_level() is None
        and torch._C._get_tracing_state() is None
    )


def ordinary(values: Iterable[Any]) -> bool:
    """Whether a contract may run on these arguments as it stands; it says itself what is wrong with them."""
    return quiet() and not any(isinstance(v, torch.Tensor) and stands_in(v) for v in values)


def stands_in(value: torch.Tensor) -> bool:
    """Whether `value` has no memory of its own, or code of its own that answers for it (__torch_dispatch__)."""
    return value.is_meta or (type(value) not in _PLAIN_TYPES and torch._C._dispatch_keys(value).has(_KEYS.Python))


def is_wrapped(value: torch.Tensor) -> bool:
    """Whether a transform of torch.func holds `value`, or it carries a tangent of forward-mode differentiation."""
    if torch._C._functorch.maybe_current_level() is not None and torch._C._functorch.is_functorch_wrapped_tensor(value):
        return True
    if forward_ad._current_level < 0 or not torch._C._is_fwd_grad_enabled() or stands_in(value):
        return False
    return forward_ad.unpack_dual(value).tangent is not None


def needs_reference(values: Iterable[torch.Tensor], needs_grad: bool) -> bool:
    """Whether only code made of torch's own ops can take these: see `registry`."""
    if any(is_wrapped(v) for v in values):
        return True
    # An autograd.Function of ours has no rules for transforms.
    return needs_grad and torch._C._functorch.maybe_current_level() is not None


def what(value: torch.Tensor) -> str | None:
    """What `value` is where no metric takes it, with what to do; None for a dense tensor."""
    if value.is_nested:
        return "a nested tensor; accepted: a dense one (torch.nested.to_padded_tensor, or one image a call)"
    if value.layout is not torch.strided:
        return f"a {str(value.layout).removeprefix('torch.')} tensor; accepted: a dense one (value.to_dense())"
    if quiet() and stands_in(value):
        kind = 'a tensor on the device "meta"' if value.is_meta else f"a {type(value).__name__}"
        return f"{kind}, without pixels in memory of its own; accepted: a torch.Tensor that has them"
    return None


def plain(value: torch.Tensor) -> torch.Tensor:
    """`value` without its subclass and without a pending negation: its memory holds its values."""
    if type(value) not in _PLAIN_TYPES:
        value = value.as_subclass(torch.Tensor)
    return value.resolve_neg()


def is_recorded() -> bool:
    """Whether what runs becomes part of a graph, or runs on tensors without pixels, though these may have some."""
    keys = torch._C._TorchDispatchModeKey.__members__.values()
    return torch._C._get_tracing_state() is not None or any(
        torch._C._get_dispatch_mode(key) is not None for key in keys
    )


def bare(value: torch.Tensor) -> torch.Tensor:
    """The numbers under every wrapper of torch.func: what may be read back."""
    while torch._C._functorch.is_functorch_wrapped_tensor(value):
        value = torch._C._functorch.get_unwrapped(value)
    return value.detach()


def holds(condition: torch.Tensor) -> bool:
    """Whether `condition` holds everywhere; reads it back."""
    return bool(bare(condition).all())


def finite(rows: torch.Tensor) -> bool:
    """Whether every number is; reads them back."""
    rows = bare(rows)  # of one number, the usual small call: a third of the time of the general question
    return math.isfinite(rows.item()) if rows.numel() == 1 else bool(torch.isfinite(rows).all())
