"""CUDA kernels without nvcc: NVRTC compiles them for the chip at hand when they are first launched, and keeps them.

The launches are in `semnr_kernels._cuda_hosted`, an extension module that every Linux build has: it carries the text of
the kernels, and asks here for the function of a kernel by its name. NVRTC is the one that torch ships; the driver is
called through ctypes. What was compiled lies in a folder of the version of NVRTC and of the sources, each file with its
checksum; `folder` says where. It never ran on a GPU: it compiles here, and its launches go to a driver of the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .errors import SemnrError

NO_DEVICE = "torch sees no CUDA device"
LEAST_CHIP = 75  # NVRTC 13 knows none before
PROBE = 'extern "C" __global__ void semnr_probe() {}'
_OPTIONS = ("-std=c++17", "-default-device", "-w")


class Unavailable(SemnrError):
    """NVRTC or the driver is missing, or refused: the message says which and what it said."""


# --- NVRTC ----------------------------------------------------------------------------------------------------


def libraries() -> list[Path]:
    """Every libnvrtc of the wheels that torch installs, the latest first."""
    found = importlib.util.find_spec("nvidia")
    roots = [] if found is None else list(found.submodule_search_locations or ())
    paths = [
        p for root in roots for p in Path(root).glob("*/lib/libnvrtc.so.*") if re.fullmatch(r"\d+.*", p.suffix[1:])
    ]
    return sorted(paths, key=lambda p: int(p.suffix[1:]), reverse=True)


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded NVRTC.

    Raises
    ------
    Unavailable
        There is none, or it does not load.
    """
    tried = [*map(str, libraries()), "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
    said = ""
    for name in tried:
        try:
            loaded = ctypes.CDLL(name)
        except OSError as error:
            said = said or str(error)
            continue
        loaded.nvrtcGetErrorString.restype = ctypes.c_char_p
        return loaded
    raise Unavailable(f"no NVRTC ({said}); torch's CUDA wheels bring it")


def version() -> tuple[int, int]:
    """Of NVRTC, which is that of the CUDA toolkit it belongs to."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return major.value, minor.value


def chips() -> list[int]:
    """Chips that this NVRTC compiles machine code for, in order."""
    count = ctypes.c_int()
    _check(library().nvrtcGetNumSupportedArchs(ctypes.byref(count)), "nvrtcGetNumSupportedArchs")
    room = (ctypes.c_int * count.value)()
    _check(library().nvrtcGetSupportedArchs(room), "nvrtcGetSupportedArchs")
    return sorted(room)


@dataclass(frozen=True)
class Compiled:
    """A kernel's machine code for one chip (PTX where NVRTC does not know the chip yet), and its name therein."""

    symbol: str
    code: bytes


def compiled(source: str, kernel: str, chip: int, *, ptx: bool = False) -> Compiled:
    """`kernel`, a name as C++ writes it, of `source`, compiled for `chip` (10 × major + minor).

    Raises
    ------
    Unavailable
        NVRTC is missing, knows neither the chip nor an older one, or refused the source.
    """
    nvrtc, known = library(), [one for one in chips() if one <= chip]
    if not known:
        raise Unavailable(f"NVRTC {_text(version())} compiles for no chip up to sm_{chip}")
    ptx = ptx or known[-1] != chip
    kind = f"compute_{known[-1]}" if ptx else f"sm_{chip}"
    program, name = ctypes.c_void_p(), kernel.encode()
    _check(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"semnr.cu", 0, None, None),
        "nvrtcCreateProgram",
    )
    try:
        _check(nvrtc.nvrtcAddNameExpression(program, name), "nvrtcAddNameExpression")
        options = [one.encode() for one in (*_OPTIONS, f"--gpu-architecture={kind}")]
        status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if status:
            raise Unavailable(f"NVRTC refused {kernel} for {kind}: {_log(program)}")
        symbol = ctypes.c_char_p()
        _check(nvrtc.nvrtcGetLoweredName(program, name, ctypes.byref(symbol)), "nvrtcGetLoweredName")
        return Compiled((symbol.value or b"").decode(), _taken(program, "PTX" if ptx else "CUBIN"))
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _taken(program: ctypes.c_void_p, what: str) -> bytes:
    nvrtc, size = library(), ctypes.c_size_t()
    _check(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), f"nvrtcGet{what}Size")
    room = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc, f"nvrtcGet{what}")(program, room), f"nvrtcGet{what}")
    return room.raw


def _log(program: ctypes.c_void_p) -> str:
    text = _taken(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
    return text.strip()[:2000] or "it does not say why"


def _check(status: int, what: str) -> None:
    if status:
        said = library().nvrtcGetErrorString(status)
        raise Unavailable(f"{what}: {said.decode() if said else f'error {status}'}")


def _text(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))


# --- what was compiled is kept --------------------------------------------------------------------------------


def folder() -> Path:
    """Where compiled kernels lie, beside the weights in torch's cache: TORCH_HOME moves it."""
    return Path(torch.hub.get_dir()) / "semnr" / "kernels" / f"nvrtc-{_text(version())}"


def kept(source: str, kernel: str, chip: int) -> Compiled:
    """As `compiled`, from the folder where it is there and whole; one process compiles, others wait for it."""
    said = json.dumps([source, kernel, chip, _OPTIONS])
    path = folder() / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.kernel"
    if (found := _read(path)) is not None:
        return found
    with _only_compiler(path):
        if (found := _read(path)) is not None:
            return found
        made = compiled(source, kernel, chip)
        _write(path, made)
        return made


def _read(path: Path) -> Compiled | None:
    """None where there is no file, or one that is not what was written."""
    try:
        head, _, code = path.read_bytes().partition(b"\n")
        told = json.loads(head)
        whole = hashlib.sha256(code).hexdigest() == told["sha256"]
        return Compiled(told["symbol"], code) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, made: Compiled) -> None:
    """Whole or not at all. A folder that cannot be written to costs the next process its time."""
    head = json.dumps({"symbol": made.symbol, "sha256": hashlib.sha256(made.code).hexdigest()})
    with contextlib.suppress(OSError):
        number, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(number, "wb") as file:
            file.write(head.encode() + b"\n" + made.code)
        Path(name).replace(path)


@contextlib.contextmanager
def _only_compiler(path: Path) -> Iterator[None]:
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError:  # read-only: everybody compiles for himself
        yield
        return
    try:
        yield
    finally:
        lock.release()


# --- the driver -----------------------------------------------------------------------------------------------


class Driver:
    """The CUDA driver, by its C interface, in the context that torch has made current."""

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise Unavailable(f"no CUDA driver ({error})") from None
        self.launch = ctypes.cast(self._cuda.cuLaunchKernel, ctypes.c_void_p).value or 0
        self.attribute = ctypes.cast(self._cuda.cuFuncSetAttribute, ctypes.c_void_p).value or 0

    def function(self, made: Compiled) -> int:
        """The address of the loaded kernel; it stays loaded while the process lives."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._check(self._cuda.cuModuleLoadData(ctypes.byref(module), made.code), "cuModuleLoadData")
        self._check(
            self._cuda.cuModuleGetFunction(ctypes.byref(function), module, made.symbol.encode()), "cuModuleGetFunction"
        )
        return function.value or 0

    def _check(self, status: int, what: str) -> None:
        if status:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(status, ctypes.byref(text))
            raise Unavailable(f"{what}: {(text.value or b'').decode() or f'CUDA error {status}'}")


driver = functools.cache(Driver)


# --- the module -----------------------------------------------------------------------------------------------


_lock = threading.Lock()
_ready: list[ModuleType] = []
served: set[int] = set()  # devices that were found to run what NVRTC makes


def ready(module: ModuleType) -> ModuleType:
    """The module of the launches with the driver in its hands; it asks here for the functions of its kernels.

    Raises
    ------
    Unavailable
        There is no driver.
    """
    with _lock:
        if module not in _ready:
            module.use_driver(driver().launch, driver().attribute, functools.partial(function_of, module.SOURCES))
            _ready[:] = [module]
    return module


def function_of(sources: Mapping[str, str], text: str, source: str, device: int, sizes: Sequence[int]) -> int:
    """The function of a kernel on a device. text: of `Named<Kernel>::text()`; source: the .cu that launches it."""
    return driver().function(kept(sources[Path(source).name], name_in(text), chip_of(device)))


def name_in(text: str) -> str:
    """A kernel's name with its template's arguments, out of what the compiler calls a function of it."""
    match = re.search(r"Kernel = \(?&?(.+?)\)?\]$", text)
    if match is None:
        raise SemnrError(f"{text!r} names no kernel")
    name = match[1]
    return name if name.startswith("semnr::") else f"semnr::{name}"


def chip_of(device: int) -> int:
    """10 × major + minor of a device's compute capability."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@functools.cache
def why_not_on(device: int) -> str | None:
    """None where kernels that NVRTC makes run on this device: the least one was compiled and loaded there."""
    try:
        if torch.version.hip is not None or not torch.cuda.is_available():
            return NO_DEVICE
        if (chip := chip_of(device)) < LEAST_CHIP:
            return f"cuda:{device} is sm_{chip}, NVRTC compiles for sm_{LEAST_CHIP} and later"
        made = kept(PROBE, "semnr_probe", chip)
        with torch.cuda.device(device):
            torch.empty(1, device=f"cuda:{device}")  # torch makes the context
            driver().function(made)
    except Unavailable as error:
        return f"NVRTC: {error}"
    served.add(device)
    return None


def describe() -> str:
    """For `explain` and `semnr doctor`."""
    return f"CUDA C++, compiled by NVRTC {_text(version())} for the chip at hand, kept in {folder()}"


def state() -> dict[str, Any]:
    """For `semnr doctor`: the version of NVRTC, or why there is none, and the folder of what it compiled."""
    try:
        return {"version": _text(version()), "folder": str(folder()), "reason": None}
    except Unavailable as error:
        return {"version": None, "folder": None, "reason": str(error)}
