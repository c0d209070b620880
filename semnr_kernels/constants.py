"""Small constants on the device that reads them: copied once, not with every call.

A copy makes the host wait, and no CUDA graph can hold one. What a graph was captured with is kept for good: the graph
reads it by its address.
"""

from __future__ import annotations

import functools

import torch

from . import tensor_kinds

_KEPT = 1024  # of each value in use there is one of 512 bytes on a device
_captured: dict[int, torch.Tensor] = {}


def constant(device: torch.device, dtype: torch.dtype, *values: float) -> torch.Tensor:
    """The 1-D tensor of these values. It is shared: nobody writes to it."""
    if not tensor_kinds.quiet():  # what is made under a mode or a transform may be its own kind of tensor
        return _made.__wrapped__(device, dtype, values)  # type: ignore[no-any-return]
    return kept(_made(device, dtype, values))


def kept(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`, out of any cache's reach where a graph is being captured on its device."""
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        _captured[id(tensor)] = tensor
    return tensor


@functools.lru_cache(maxsize=_KEPT)
def _made(device: torch.device, dtype: torch.dtype, values: tuple[float, ...]) -> torch.Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return torch.tensor(values, dtype=dtype, device=device)
