"""A GPU that is not there, for machines without one: tensors that say cuda:0 and lie in host memory.

Below Python they are tensors of "meta", which torch's engine takes as they are; whoever asks is told cuda:0.
They refuse what a device refuses (host tensors beside them, `.numpy()`); what waits for a device or crosses to it is
counted. The CUDA kernels behind them run under the emulation; Triton has nothing to run on. `present()` puts it there
and takes it away again; inside, `x.to("cuda")` and `device="cuda"` work as with a GPU, in threads too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import traceback
import types
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from unittest import mock

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from semnr_kernels import batched, constants, convolution, cuda_support, graphs, registry, ssim, tensor_kinds
from semnr_kernels.dists import network, weights
from semnr_kernels.fsim import reference as fsim_reference
from semnr_kernels.lpips import network as lpips_network

DEVICES = 2
CUDA = torch.device("cuda", 0)
# The host waits for their answer.
_WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2", "unique_dim")
# Nothing runs on the device.
_FREE = (
    "view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "as_strided", "slice", "select", "detach", "alias",
    "t", "transpose", "permute", "unbind", "split", "split_with_sizes", "squeeze", "unsqueeze", "unfold", "lift_fresh",
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "diagonal", "real", "imag",
    "view_as_real", "view_as_complex", "chunk", "narrow", "record_stream", "set_",
    "resize_", "is_same_size", "movedim",
)  # fmt: skip
_BETWEEN = ("copy_", "_to_copy")


@dataclasses.dataclass
class Counts:
    """What a stretch of work asked of the device: operations, waits of the host, and copies, by name and place."""

    thread: int | None = None  # None: every one
    launches: Counter[str] = dataclasses.field(default_factory=Counter)
    waits: Counter[str] = dataclasses.field(default_factory=Counter)  # reads of a device value, copies to the host too
    uploads: Counter[str] = dataclasses.field(default_factory=Counter)  # copies from the host that it waits for
    sent: Counter[str] = dataclasses.field(default_factory=Counter)  # those that it does not


_counts: list[Counts] = []
_home = ["cpu"]  # where the numbers lie: "meta" keeps none


@contextlib.contextmanager
def counting(thread: int | None = None) -> Iterator[Counts]:
    """What happens inside the `with` block, in every thread or in one."""
    found = Counts(thread)
    _counts.append(found)
    try:
        yield found
    finally:
        _counts[:] = [one for one in _counts if one is not found]


def _count(kind: str, name: str) -> None:
    for counts in list(_counts):
        if counts.thread not in (None, threading.get_ident()):
            continue
        getattr(counts, kind)[f"{name} at {_place()}" if kind != "launches" else name] += 1


def _place() -> str:
    ours = [f for f in traceback.extract_stack() if "semnr" in f.filename and "mock_gpu" not in f.filename]
    return f"{ours[-1].filename.split('/semnr', 1)[-1]}:{ours[-1].lineno}" if ours else "?"


class OnDevice(torch.Tensor):
    """A tensor of the mock: `held` are its numbers, in host memory."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device="meta", requires_grad=False,
        )  # fmt: skip
        made.held = held
        return made

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    def get_device(self) -> int:
        return 0

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Where it is, nothing moves."""
        device, dtype, _, layout = torch._C._nn._parse_to(*args, **{k: v for k, v in kwargs.items() if k != "copy"})
        if device is None or device.type == "cpu":
            return super().to(*args, **kwargs)
        same = {"copy": kwargs.get("copy", False), **({} if layout is None else {"memory_format": layout})}
        return super().to(self.dtype if dtype is None else dtype, **same)

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def tolist(self) -> Any:
        _count("waits", "tolist")
        return self.held.tolist()

    def numpy(self, **options: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def record_stream(self, stream: Any) -> None:
        pass

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    leaves = tree_leaves((args, kwargs))
    ours = [v for v in leaves if isinstance(v, OnDevice)]
    hosts = [v for v in leaves if isinstance(v, torch.Tensor) and not isinstance(v, OnDevice)]
    to = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    to = "cuda" if to == "meta" else to
    if not ours and to != "cuda":
        return func(*args, **{**kwargs, "pin_memory": False} if kwargs.get("pin_memory") else kwargs)
    if ours and any(v.dim() for v in hosts) and name not in (*_BETWEEN, "index", "index_put_", "_index_put_impl_"):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({name})")
    _tell(name, args, ours, hosts, to, bool(kwargs.get("non_blocking")))
    known = {id(v.held): v for v in ours}
    a, k = tree_map(lambda v: v.held if isinstance(v, OnDevice) else v, (args, kwargs))
    if to == "cuda":
        k["device"] = _home[0]
    if k.get("pin_memory"):
        k["pin_memory"] = False
    out = _HERE.get(name, func)(*a, **k)
    if to == "cpu" or (name == "copy_" and not isinstance(args[0], OnDevice)):
        return out

    def there(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else OnDevice(value)

    return tree_map(there, out)


# What only a device has, by what the host makes of it.
_HERE: dict[str, Callable[..., torch.Tensor]] = {
    "cudnn_convolution_relu": lambda x, w, bias, *options: F.relu(F.conv2d(x, w, bias, *options)),
}


def _tell(name: str, args: Any, ours: list[Any], hosts: list[Any], to: str | None, flowing: bool) -> None:
    """Count what an operation is for the device."""
    if name in _WAITING or (name == "index" and any(getattr(v, "dtype", None) == torch.bool for v in args[1])):
        _count("waits", name)
    elif name in _BETWEEN and ours and (to == "cpu" or (name == "copy_" and args[0] in hosts)):
        _count("waits", "to the host")
    elif name in _BETWEEN and (to == "cuda" or ours) and hosts:
        _count("sent" if flowing else "uploads", "from the host")
        return
    if name not in _FREE:
        _count("launches", name)


def _is_cuda(value: Any) -> bool:
    named = isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda"))
    return named and torch.device(value).type == "cuda"


class _Names(TorchFunctionMode):
    """Python's "cuda" is "meta" to torch, which has no CUDA device here to ask."""

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor) and _is_cuda(kwargs.get("device")):  # of "meta" they keep no data
            return func(*args, **{k: v for k, v in kwargs.items() if k != "device"}).to("meta")
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func is torch.Tensor.cuda:
            return args[0].to("meta")
        meta = [torch.device("meta") if _is_cuda(v) else v for v in args]
        return func(*meta, **{k: torch.device("meta") if _is_cuda(v) else v for k, v in kwargs.items()})


class _Mode(TorchDispatchMode):
    """Sends what names a device, and no tensor of it yet, to the mock."""

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


class _Stream:
    """The one stream there is: work is done when its call returns."""

    cuda_stream = 0
    device = CUDA

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def wait_event(self, event: Any) -> None: ...
    def wait_stream(self, stream: Any) -> None: ...
    def synchronize(self) -> None: ...
    def record(self, *_: Any) -> None: ...
    def query(self) -> bool:
        return True


class Graph:
    """A CUDA graph: the operations and launches of a capture, which a replay does again, into the same memory."""

    made: ClassVar[list[Graph]] = []

    def __init__(self) -> None:
        self.steps: list[tuple[Any, Any, Any, list[torch.Tensor]] | Callable[[], None]] = []
        self.replays = 0
        Graph.made.append(self)

    def replay(self) -> None:
        self.replays += 1
        for step in self.steps:
            if callable(step):
                step()
                continue
            func, args, kwargs, outputs = step
            again = [v for v in tree_leaves(func(*args, **kwargs)) if isinstance(v, torch.Tensor)]
            for new, old in zip(again, outputs, strict=True):
                if new.data_ptr() != old.data_ptr():  # neither a view of what was filled nor filled in place
                    old.copy_(new)


_capturing: dict[int, Graph] = {}  # by the thread that captures: others go on as they do


class _Launching:
    """The compiled module, or what was made of it, of which each call is written down to be made again."""

    def __init__(self, of: Any, calls: list[tuple[Any, Any]]) -> None:
        self._of, self._calls = of, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)

        def called(*args: Any) -> Any:
            self._calls.append((found, args))
            return found(*args)

        return called


@contextlib.contextmanager
def _graph(graph: Graph, **_: Any) -> Iterator[None]:
    """As torch.cuda.graph: what waits for the device, or comes from the host, cannot be captured."""
    dispatch = _dispatch

    def recorded(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() not in _capturing:
            return dispatch(func, args, kwargs)
        with counting(threading.get_ident()) as found:
            out = dispatch(func, args, kwargs)
        if found.waits or found.uploads:
            raise RuntimeError(f"operation not permitted when stream is capturing ({func})")
        held = tree_map(lambda v: v.held if isinstance(v, OnDevice) else v, (args, kwargs))
        outs = [v.held for v in tree_leaves(out) if isinstance(v, OnDevice)]
        if held[1].get("device") is not None:
            held[1]["device"] = "cpu"
        if outs:
            graph.steps.append((func, *held, outs))
        return out

    _capturing[threading.get_ident()] = graph
    try:
        with mock.patch.dict(globals(), {"_dispatch": recorded}):
            yield
    finally:
        _capturing.clear()


def _forget() -> None:
    """What the project keeps on a device, by device: another mock is another device."""
    constants._made.cache_clear()
    convolution.fuses.cache_clear()
    batched._tables.cache_clear()
    weights._alpha_beta_on.cache_clear()
    network._networks.clear()
    lpips_network._networks.clear()
    fsim_reference._banks.clear()
    ssim._prepared.clear()
    graphs.forget()
    Graph.made.clear()


def _properties(*_: Any) -> Any:
    return types.SimpleNamespace(
        name="mock GPU", total_memory=16 * 2**30, multi_processor_count=80, warp_size=32,
        shared_memory_per_block_optin=99 * 1024,
    )  # fmt: skip


class Current:
    """The device that is current, by thread, as CUDA has it; each thread begins with the first."""

    def __init__(self) -> None:
        self._by_thread = threading.local()

    def get(self) -> int:
        return getattr(self._by_thread, "index", 0)

    def set(self, device: Any) -> None:
        self._by_thread.index = device if isinstance(device, int) else torch.device(device).index or 0

    @contextlib.contextmanager
    def within(self, device: Any) -> Iterator[None]:
        before = self.get()
        if torch.device(device).index is not None:
            self.set(device)
        try:
            yield
        finally:
            self.set(before)


@contextlib.contextmanager
def present(*, numbers: bool = True) -> Iterator[None]:
    """A process with two mock GPUs. The emulated module must be there: `backends.require(..., "cuda-emulated")`.

    numbers: False keeps shapes alone, so that large images cost nothing: to count with.
    """
    launching, run, current = cuda_support.launching, threading.Thread.run, Current()
    passes = ssim.cuda.Plain.passes

    def passes_there(plain: Any, of: Any) -> Any:
        # what is kept of the module is called through the module of this launch
        return _Launching(passes(plain, of._of), of._calls) if isinstance(of, _Launching) else passes(plain, of)

    @contextlib.contextmanager
    def emulated(mode: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        graph, calls = _capturing.get(threading.get_ident()), []
        with launching(True if mode is False else mode, *args, **kwargs) as found:
            yield found if graph is None else (_Launching(found[0], calls), found[1])

        def again() -> None:
            with launching(True, *args, **kwargs):
                for call, given in calls:
                    call(*given)

        if graph is not None:
            graph.steps.append(again)
        if mode is False:
            for launch in found[0].launches():
                _count("launches", launch["kernel"])

    def run_there(thread: threading.Thread) -> None:
        with _Names(), _Mode():
            run(thread)

    backends = dict(registry.BACKENDS)
    backends["cuda"] = dataclasses.replace(backends["cuda"], probe=lambda: None, why_not_on=lambda _: None)
    backends["triton"] = dataclasses.replace(backends["triton"], probe=lambda: "a mock GPU runs no Triton")
    only_host = torch._C._only_lift_cpu_tensors()
    patches = [
        mock.patch.multiple(
            torch.cuda, _lazy_init=lambda: None, is_available=lambda: True, device_count=lambda: DEVICES,
            current_device=current.get, set_device=current.set, device=current.within, Stream=_Stream, Event=_Stream,
            current_stream=_Stream, default_stream=_Stream, stream=lambda _: contextlib.nullcontext(),
            synchronize=lambda *_: None, get_device_name=lambda *_: "mock GPU", get_device_properties=_properties,
            is_current_stream_capturing=lambda: threading.get_ident() in _capturing, CUDAGraph=Graph, graph=_graph,
            graph_pool_handle=lambda: (0, 0),
        ),
        # the tensors of inference mode have no version, which a subclass's views ask for
        mock.patch.object(torch, "inference_mode", lambda on=True: torch.no_grad() if on else contextlib.nullcontext()),
        mock.patch.object(cuda_support, "launching", emulated),
        mock.patch.object(ssim.cuda.Plain, "passes", passes_there),
        # of a GPU torch has no mode, and no subclass
        mock.patch.multiple(tensor_kinds, quiet=lambda: True, _PLAIN_TYPES=(*tensor_kinds._PLAIN_TYPES, OnDevice)),
        mock.patch.dict(registry.BACKENDS, backends),
        mock.patch.object(threading.Thread, "run", run_there),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        registry._probe.cache_clear()
        registry._probe_on.cache_clear()
        torch._C._set_only_lift_cpu_tensors(True)
        _home[0] = "cpu" if numbers else "meta"
        _forget()
        try:
            with _Names(), _Mode():
                yield
        finally:
            torch._C._set_only_lift_cpu_tensors(only_host)
            _home[0] = "cpu"
            _forget()
            registry._probe.cache_clear()
            registry._probe_on.cache_clear()
