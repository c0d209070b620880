"""The only loader of the compiled CUDA module, and the step from tensors to a launch.

Where nvcc made no module, or one without code for the device, NVRTC makes the kernels at run time (nvrtc.py).
The same kernels run on the host under the emulation of csrc/emulation, a test tool that is not in the package:
tests/support/emulated.py builds it and hands it over with `use_emulated`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from . import native_support, nvrtc
from .errors import SemnrError

ABI = 4  # csrc/cuda/module.cpp exports the same number; a stale build is refused, not called

_emulated: list[ModuleType] = []  # at most one: what `use_emulated` loaded


class EmulationError(SemnrError):
    """An emulated launch raced, left its memory, read what nothing wrote, or met a barrier or shuffle alone."""

    def __init__(self, report: str, faults: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(report)
        self.faults = tuple(faults)


# --- loading --------------------------------------------------------------------------------------------------


@functools.cache
def compiled() -> ModuleType | str:
    """The module that nvcc compiled, or why there is none."""
    return _loaded("_cuda_kernels")


@functools.cache
def hosted() -> ModuleType | str:
    """The module of the launches alone, whose kernels NVRTC makes; or why there is none."""
    return _loaded("_cuda_hosted")


def _loaded(name: str) -> ModuleType | str:
    full = f"semnr_kernels.{name}"
    try:
        extension = importlib.import_module(full)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            return native_support.other_python(name) or "not built"
        return f"compiled module {full} does not load ({error})"
    if extension.ABI != ABI:
        return f"compiled module {full} has ABI {extension.ABI}, this package needs {ABI}: rebuild it"
    return extension


def probe() -> str | None:
    """None where a device can run the kernels, of nvcc or of NVRTC, else the reason."""
    if (built := _probe_built()) is None:
        return None
    made = [_not_made_on(device) for device in range(max(1, torch.cuda.device_count()))]
    return None if None in made else _both(built, made[0])


def why_not_on(device: int) -> str | None:
    """None where this device, of several, can run the kernels, else the reason."""
    extension = compiled()
    built = extension if isinstance(extension, str) else _no_image(extension, device)
    if built is None or (made := _not_made_on(device)) is None:
        return None
    return _both(built, made)


def _not_made_on(device: int) -> str | None:
    """Why NVRTC makes no kernels for this device."""
    found = hosted()
    return f"_cuda_hosted: {found}" if isinstance(found, str) else nvrtc.why_not_on(device)


def _both(built: str, made: str | None) -> str:
    return built if made == nvrtc.NO_DEVICE else f"{built}; {made}"


def _probe_built() -> str | None:
    extension = compiled()
    if isinstance(extension, str):
        return extension
    count, code, text = extension.devices()
    if code or not count:
        words = {35: "no driver, or one older than the kernels' CUDA", 100: "no device"}
        return f"built, no device ({words.get(code, text or 'none is visible')})"
    reasons = [_no_image(extension, i) for i in range(count)]
    return None if None in reasons else reasons[0]


def _no_image(extension: ModuleType, device: int) -> str | None:
    """Machine code serves later chips of its generation; of the latest there is also PTX, which serves all after it."""
    chip, built = extension.compute_capability(device), extension.ARCHITECTURES
    if chip >= max(built) or any(a // 10 == chip // 10 and a <= chip for a in built):
        return None
    return f"built for {', '.join(f'sm_{a}' for a in built)}, cuda:{device} is sm_{chip}: build with it among the chips"


def probe_emulated() -> str | None:
    """None where the emulated module was handed over, else how to get it."""
    return None if _emulated else "not built"


def describe() -> str:
    """Architectures that the module holds, or what makes the kernels, for `explain` and `semnr doctor`."""
    extension = compiled()
    if _probe_built() is None and not isinstance(extension, str):
        return "CUDA C++, " + ", ".join(f"sm_{a}" for a in extension.ARCHITECTURES)
    return nvrtc.describe() if _not_made_on(0) is None else ""


def load_emulated(path: Path) -> ModuleType:
    """An emulated module, as tests/support/emulated.py built it."""
    spec = importlib.util.spec_from_file_location(path.name.split("-")[0], path)
    if spec is None or spec.loader is None:
        raise SemnrError(f"{path} is no extension module")
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    if extension.ABI != ABI:
        raise SemnrError(f"{path} has ABI {extension.ABI}, this package needs {ABI}: rebuild it")
    return extension


def use_emulated(path: Path) -> None:
    """Make the module at `path` what "cuda-emulated" runs on."""
    _emulated[:] = [load_emulated(path)]


def module(emulated: bool = False, device: int = 0) -> ModuleType:
    """The module whose kernels run on a device, or the emulated one."""
    if emulated:
        if not _emulated:
            raise SemnrError(f"cuda-emulated: {probe_emulated()}")
        return _emulated[0]
    extension = compiled()
    if not isinstance(extension, str) and device not in nvrtc.served:
        return extension
    launches = hosted()
    if isinstance(launches, str):
        raise SemnrError(f"cuda: {extension if isinstance(extension, str) else launches}")
    return nvrtc.ready(launches)


# --- launching ------------------------------------------------------------------------------------------------


@contextmanager
def launching(
    emulated: bool | ModuleType,
    device: torch.device,
    reads: Sequence[torch.Tensor | None] = (),
    writes: Sequence[torch.Tensor | None] = (),
    scratch: Sequence[torch.Tensor | None] = (),
) -> Iterator[tuple[ModuleType, int]]:
    """The module to call and the caller's stream, for launches that touch these tensors and no others.

    `reads` are inputs, `writes` outputs (every element of theirs must be written by the end), `scratch` outputs of
    which a part may stay untouched. A tensor that is updated in place belongs to `reads` and `writes`.

    Raises
    ------
    EmulationError
        An emulated kernel is at fault; the message says where.
    """
    if emulated is False:
        index = torch.cuda.current_device() if device.index is None else device.index
        launches = module(False, index)
        with torch.cuda.device(index):
            launches.set_device(index)
            yield launches, torch._C._cuda_getCurrentRawStream(index)  # type: ignore[attr-defined]
        return
    with _emulating:
        yield from _emulated_launching(module(True) if emulated is True else emulated, reads, writes, scratch)


_emulating = threading.RLock()  # the emulation is one for the process


def _emulated_launching(
    host: ModuleType,
    reads: Sequence[torch.Tensor | None],
    writes: Sequence[torch.Tensor | None],
    scratch: Sequence[torch.Tensor | None],
) -> Iterator[tuple[ModuleType, int]]:
    named = [
        (f"{kind}[{i}]", tensor, mode)
        for kind, tensors, mode in (("reads", reads, 1), ("writes", writes, 6), ("scratch", scratch, 2))
        for i, tensor in enumerate(tensors)
        if tensor is not None
    ]
    host.begin([(n, t.data_ptr(), t.element_size(), list(t.shape), list(t.stride()), mode) for n, t, mode in named])
    try:
        yield host, 0
    except host.Stop as stop:
        if not host.faults():
            raise
        raise EmulationError(_report(host, named), host.faults()) from stop
    if host.faults() or host.unwritten():
        raise EmulationError(_report(host, named), host.faults())
    if (record := _recorded.get()) is not None:
        record.append(Emulated(host.counters(), host.launches()))


def counters(emulated: ModuleType | None = None) -> dict[str, dict[str, Any]]:
    """What the launches of the last `launching` did, by kernel name; see csrc/emulation/README.md."""
    return (emulated or module(True)).counters()


@dataclass(frozen=True)
class Emulated:
    """What one `launching` did on the emulation."""

    counters: dict[str, dict[str, Any]]
    launches: list[dict[str, Any]]


_recorded: ContextVar[list[Emulated] | None] = ContextVar("semnr_emulated", default=None)


@contextmanager
def recording() -> Iterator[list[Emulated]]:
    """Collect counters and launches of every `launching` inside the `with` block."""
    calls: list[Emulated] = []
    token = _recorded.set(calls)
    try:
        yield calls
    finally:
        _recorded.reset(token)


# --- reports --------------------------------------------------------------------------------------------------

Named = Sequence[tuple[str, torch.Tensor, int]]


def _report(host: ModuleType, named: Named) -> str:
    lines = []
    places = _lines(str(host.__file__), [pc for f in host.faults() for pc in (f["pc"], f["other_pc"]) if pc])
    for fault in host.faults():
        block, thread = (",".join(map(str, fault[k])) for k in ("block", "thread"))
        at = places.get(fault["pc"], fault["site"] or "unknown place")
        text = f"{fault['kernel']}: {fault['kind']} at {at}, block ({block}), thread ({thread}): {fault['message']}"
        if fault["other_pc"]:
            text += f" (at {places.get(fault['other_pc'], 'unknown place')})"
        if fault["where"] == "device":
            text += f"; {_element(named, fault['address'])}"
        elif fault["where"] == "shared" and fault["kind"] == "race":
            text += f"; byte {fault['address']} of shared memory"
        if fault["count"] > 1:
            text += f" [{fault['count']} times]"
        lines.append(text)
    for index, size, first in host.unwritten() if not lines else ():
        lines.append(f"output never written: {size} bytes of {named[index][0]}; first {_element(named, first)}")
    return "\n".join(lines)


def _element(named: Named, address: int) -> str:
    """The element of a registered tensor that holds `address`, or the tensor nearest to it."""
    nearest, distance = "no tensor is registered", None
    for name, tensor, _ in named:
        if not tensor.numel():
            continue
        size = tensor.element_size()
        reach = [(n - 1) * s * size for n, s in zip(tensor.shape, tensor.stride(), strict=True)]
        low, high = tensor.data_ptr() + sum(min(r, 0) for r in reach), tensor.data_ptr() + sum(max(r, 0) for r in reach)
        about = f"{name}, {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        if low <= address < high + size:
            index, rest = [], (address - tensor.data_ptr()) // size
            order = sorted(range(tensor.dim()), key=lambda d: -tensor.stride()[d])
            at = dict.fromkeys(order, 0)
            for d in order:
                if tensor.stride(d):
                    at[d], rest = divmod(rest, tensor.stride(d))
            index = [at[d] for d in range(tensor.dim())]
            inside = not rest and all(i < n for i, n in zip(index, tensor.shape, strict=True))
            return f"{about}, element {tuple(index)}" if inside else f"{about}, between its elements"
        away = address - (high + size) if address >= high + size else address - low
        if distance is None or abs(away) < abs(distance):
            distance = away
            side = f"{away} bytes past the end" if away >= 0 else f"{-away} bytes before the start"
            nearest = f"{side} of {about}"
    return nearest


def _lines(path: str, addresses: Sequence[int]) -> dict[int, str]:
    """Source lines of addresses in a module, by binutils; what is inlined is told with its caller."""
    tool = shutil.which("addr2line")
    if tool is None or not addresses:
        return {}
    lines: dict[int, str] = {}
    for address in dict.fromkeys(addresses):
        done = subprocess.run([tool, "-s", "-i", "-e", path, hex(address)], capture_output=True, text=True, check=False)
        frames = [f for f in done.stdout.split() if ":" in f and not f.startswith("??")]
        # the load and store helpers are not where a fault is
        frames = [f for f in frames if not f.startswith(("device.hpp", "cuda_names.hpp", "runtime.hpp"))] or frames
        if frames:
            lines[address] = frames[0] + (f" (from {frames[1]})" if len(frames) > 1 else "")
    return lines
