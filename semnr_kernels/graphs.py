"""CUDA graphs of calls that the host is too slow for: FSIM and DISTS, captured by shape and replayed as one launch.

Off unless SEMNR_CUDA_GRAPHS=1 or `graphs.use(True)`: no GPU has run it. Where it is on, a call without a gradient and
without a mask runs as usual the first time it is met, which compiles kernels and copies constants; the second time it
is captured, and from then on its images are copied into those of the capture, the graph is replayed, and what it left
is cloned. At most `MOST` graphs are kept, the oldest goes first. The graphs of a device share their memory and are
replayed one after another, whatever thread or stream asks. What cannot be captured (a wait inside it, say) runs as
usual for good.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch

from . import tensor_kinds

MOST = 16
_MET = 256  # kinds of calls that are remembered as met, or as not to be captured

_asked: ContextVar[bool | None] = ContextVar("semnr_graphs", default=None)


@contextlib.contextmanager
def use(on: bool) -> Iterator[None]:
    """Replay graphs, or do not, inside the `with` block, whatever SEMNR_CUDA_GRAPHS says.

    Parameters
    ----------
    on : bool
        Whether graphs are captured and replayed. It holds for the thread (the context) that entered the block.

    Examples
    --------
    >>> from semnr_kernels import graphs
    >>> with graphs.use(False):
    ...     score = semnr.fsim(denoised, clean)
    """
    token = _asked.set(on)
    try:
        yield
    finally:
        _asked.reset(token)


def forget() -> None:
    """Drop every graph that is kept, and the memory that they hold."""
    with _lock:
        _kept.clear()
        _met.clear()
        _devices.clear()


@dataclasses.dataclass
class _Device:
    """What the graphs of one device share."""

    lock: threading.Lock
    pool: Any
    done: Any  # event after the last replay: another stream waits for it before it fills the images


@dataclasses.dataclass
class _Graph:
    graph: Any
    inputs: tuple[torch.Tensor, ...]
    outputs: Any
    rest: tuple[Any, ...]  # a network that it reads by its address


_lock = threading.Lock()
_kept: OrderedDict[Any, _Graph] = OrderedDict()
_met: OrderedDict[Any, bool] = OrderedDict()  # whether it may be captured
_devices: dict[int, _Device] = {}


def run(name: str, function: Callable[..., Any], images: tuple[torch.Tensor, ...], *rest: Any, key: Any) -> Any:
    """`function(*images, *rest)`, by a graph where that is on and possible; the same numbers either way.

    name, key: what tells this call's graph from others, beside the images' shapes, strides, dtypes and device. The
    result may hold tensors in dataclasses, tuples, lists and dicts.
    """
    if not _usable(images):
        return function(*images, *rest)
    index = images[0].get_device()
    whole = (name, key, index, *((v.shape, v.stride(), v.dtype) for v in images))
    with _lock:
        may = _met.get(whole)
        if may is None:
            _met[whole] = True
            while len(_met) > _MET:
                _met.popitem(last=False)
        device = _devices.get(index)
        if device is None:
            device = _devices[index] = _Device(threading.Lock(), torch.cuda.graph_pool_handle(), torch.cuda.Event())
    if may is not True:  # met for the first time, or not to be captured
        return function(*images, *rest)
    with torch.cuda.device(index), device.lock:
        stream = torch.cuda.current_stream()
        stream.wait_event(device.done)
        with _lock:
            found = _kept.get(whole)
            if found is not None:
                _kept.move_to_end(whole)
        if found is None and (found := _captured(device, whole, function, images, rest)) is None:
            return function(*images, *rest)
        for static, image in zip(found.inputs, images, strict=True):
            static.copy_(image)
        found.graph.replay()
        result = each(found.outputs, torch.clone)
        device.done.record(stream)
    return result


def _usable(images: tuple[torch.Tensor, ...]) -> bool:
    on = _asked.get()
    if not (os.environ.get("SEMNR_CUDA_GRAPHS") == "1" if on is None else on):
        return False
    grad = torch.is_grad_enabled() and any(v.requires_grad for v in images)
    return (
        not grad
        and all(v.is_cuda for v in images)
        and tensor_kinds.quiet()
        and not torch.cuda.is_current_stream_capturing()
    )


def _captured(
    device: _Device, key: Any, function: Callable[..., Any], images: tuple[torch.Tensor, ...], rest: tuple[Any, ...]
) -> _Graph | None:
    """The graph of a call, kept; None where it cannot be captured, which is remembered."""
    inputs = tuple(v.detach().clone() for v in images)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.no_grad(), torch.cuda.graph(graph, pool=device.pool, capture_error_mode="thread_local"):
            outputs = function(*inputs, *rest)
    except RuntimeError:
        with _lock:
            _met[key] = False
        return None
    made = _Graph(graph, inputs, outputs, rest)
    with _lock:
        _kept[key] = made
        while len(_kept) > MOST:
            _kept.popitem(last=False)
    return made


def each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """`value` with every tensor in it changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{f.name: each(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        )
    if isinstance(value, tuple | list):
        return type(value)(each(one, change) for one in value)
    if isinstance(value, dict):
        return {name: each(one, change) for name, one in value.items()}
    return value
