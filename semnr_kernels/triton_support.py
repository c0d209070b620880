"""What the Triton kernels share: launching, block sizes, the last stage of every sum, ahead-of-time compilation.

Imported only through `registry.register_triton`, when a Triton backend is chosen: triton itself loads here.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

from .constants import constant
from .device import lanes_of

# Pointer types of a signature, as the just-in-time compiler names them.
TYPES = {
    torch.bool: "i1",
    torch.uint8: "u8",
    torch.uint16: "u16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}
SECOND_AXIS = 65535  # programs that a grid's second axis takes (CUDA)
# (backend, architecture, lanes of a warp)
TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}


def interpreted() -> bool:
    """Whether this process interprets kernels on the CPU (TRITON_INTERPRET=1 before the first import)."""
    return bool(triton.knobs.runtime.interpret)


def block(on_device: int, interpreting: int) -> int:
    """A block size: the interpreter pays per operation, not per lane, and wants few large programs."""
    return interpreting if interpreted() else on_device


def power_of_2(n: int) -> int:
    """The smallest power of 2 that is at least `n`."""
    return 1 << max(0, n - 1).bit_length()


def lanes(wanted: int, on_device: int, interpreting: int) -> int:
    """Lanes of a program for `wanted` columns: one number on a device, so that all sizes share one compiled kernel."""
    return on_device if not interpreted() else min(interpreting, max(32, power_of_2(wanted)))


# --- launching ------------------------------------------------------------------------------------------------


def numbers(device: torch.device, *values: float) -> torch.Tensor:
    """Float64 arguments by address (by value a kernel takes float32); copied to the device once."""
    return constant(device, torch.float64, *values)


@dataclass(frozen=True)
class Launch:
    """A launch that was recorded instead of made: all that ahead-of-time compilation needs."""

    kernel: Any
    args: tuple[Any, ...]
    constants: dict[str, Any]
    threads: int
    moved: int | None = None  # bytes of device memory, where what it takes is not read or written once

    @property
    def bytes(self) -> int:
        """Read and written."""
        given = [v for v in self.args if isinstance(v, torch.Tensor)]
        return sum(v.numel() * v.element_size() for v in given) if self.moved is None else self.moved


_recorded: ContextVar[list[Launch] | None] = ContextVar("semnr_launches", default=None)


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Inside the `with` block launches are collected and nothing runs (what an op returns is then undefined)."""
    launches: list[Launch] = []
    token = _recorded.set(launches)
    try:
        yield launches
    finally:
        _recorded.reset(token)


_lanes = functools.cache(lanes_of)


def launch(
    kernel: Any, grid: tuple[int, ...], *args: Any, threads: int = 128, moved: int | None = None, **constants: Any
) -> None:
    """Run `kernel` on the device of its first argument, on the caller's stream. `moved`: see `Launch`."""
    if (record := _recorded.get()) is not None:
        record.append(Launch(kernel, args, constants, threads, moved))
        return
    if args[0].is_cuda:
        lanes = _lanes(args[0].device)
        with torch.cuda.device(args[0].device):
            kernel[grid](*args, num_warps=max(1, threads // lanes), **constants)
    else:
        kernel[grid](*args, **constants)


@triton.jit(do_not_specialize=["images", "programs", "rows"])
def _fold(partial, out, images, programs, rows, IMAGES: tl.constexpr, BLOCK: tl.constexpr):
    """out[row, image] = Σ over programs of partial[image, program, row], in a fixed order."""
    image, row = tl.program_id(0) * IMAGES + tl.arange(0, IMAGES), tl.program_id(1)
    base = partial + (image.to(tl.int64) * programs * rows + row)[:, None]
    total = tl.zeros([IMAGES, BLOCK], partial.dtype.element_ty)
    for start in range(0, programs, BLOCK):
        p = (start + tl.arange(0, BLOCK))[None, :]
        total += tl.load(base + p * rows, mask=(image < images)[:, None] & (p < programs), other=0)
    tl.store(out + row * images + image, tl.sum(total, axis=1).to(tl.float64), mask=image < images)


def fold(partial: torch.Tensor) -> torch.Tensor:
    """Sums (rows, images), float64, of partial sums (images, programs, rows), int64 or float64; no atomics."""
    images, programs, rows = partial.shape
    out = torch.empty((rows, images), dtype=torch.float64, device=partial.device)
    if interpreted():
        each = min(1024, power_of_2(programs))
        together = min(power_of_2(images), 2**15 // each)
    else:  # two programs for all sizes: sums of few parts of many images, and of many parts
        each = 32 if programs <= 32 else 1024
        together = 1024 // each
    launch(
        _fold, (triton.cdiv(images, together), rows), partial, out, images, programs, rows, IMAGES=together, BLOCK=each
    )
    return out


@triton.jit
def narrow(value, dtype: tl.constexpr):
    """`value` as an element of a tensor; bfloat16 by way of float32, as torch rounds it."""
    if dtype == tl.bfloat16:
        return value.to(tl.float32).to(tl.bfloat16)
    return value.to(dtype)


# --- ahead-of-time compilation --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """One kernel for one chip, as the compiler left it. Nothing here was run."""

    kernel: str
    target: str
    binary: int  # bytes of the cubin or hsaco
    registers: int
    spills: int  # bytes (NVIDIA) or registers (AMD) moved to memory
    shared: int  # bytes a program
    threads: int


def _type(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"*{TYPES[value.dtype]}"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _address(value: Any) -> int:
    """A number, or a tensor's address as far as its alignment goes: devices give memory by hundreds of bytes, and where
    the host has put a tensor must not decide what is compiled."""
    return int(value.storage_offset()) * value.element_size() if isinstance(value, torch.Tensor) else value


def signature(made: Launch) -> tuple[dict[str, Any], dict[str, Any], dict[tuple[int, ...], list[list[Any]]]]:
    """Types, constants and attributes of a launch by the rules of the just-in-time compiler."""
    types: dict[str, Any] = {}
    constants = dict(made.constants)
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for index, name in enumerate(made.kernel.arg_names):
        if name in constants:
            types[name] = "constexpr"
            continue
        value = made.args[index]
        if isinstance(value, tuple):
            types[name] = tuple(_type(v) for v in value)
            aligned: list[tuple[int, ...]] = [(index, place) for place, v in enumerate(value) if _address(v) % 16 == 0]
        else:
            fixed = made.kernel.params[index].do_not_specialize
            if value is None or (isinstance(value, int) and value == 1 and not fixed):
                types[name], constants[name] = "constexpr", value
                continue
            types[name] = _type(value)
            aligned = [(index,)] if not fixed and _address(value) % 16 == 0 else []
        attributes |= {place: [["tt.divisibility", 16]] for place in aligned}
    return types, constants, attributes


def build_for(made: Launch, target: str) -> tuple[Any, int]:
    """A recorded launch compiled for a chip that need not be present, and the threads of its programs.

    Raises
    ------
    RuntimeError
        This process interprets kernels, so there is nothing to compile.
    """
    if interpreted():
        raise RuntimeError("TRITON_INTERPRET=1: compile ahead of time in a process of its own, without it")
    from triton.backends.compiler import GPUTarget

    chip = GPUTarget(*TARGETS[target])
    warps = max(1, made.threads // chip.warp_size)
    return triton.compile(source_of(made), target=chip, options={"num_warps": warps}), warps * chip.warp_size


def source_of(made: Launch) -> Any:
    """What `triton.compile` takes; its hash() is that of the kernel, all that it calls, its types and constants."""
    from triton.compiler import ASTSource

    types, constants, attributes = signature(made)
    return ASTSource(fn=made.kernel, signature=types, constexprs=constants, attrs=attributes)


def describe(name: str, target: str, built: Any, threads: int) -> Compiled:
    """The figures of what `build_for` returned."""
    registers, spills = _amd(built.asm["amdgcn"]) if "amdgcn" in built.asm else _nvidia(built.kernel)
    return Compiled(name, target, len(built.kernel), registers, spills, built.metadata.shared, threads)


def tool(name: str) -> Path:
    """A binary tool that the triton wheel carries: ptxas, cuobjdump, nvdisasm."""
    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name


def _nvidia(cubin: bytes) -> tuple[int, int]:
    """Registers a thread and bytes of local memory (the stack included) a thread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = subprocess.run(
            [tool("cuobjdump"), "-res-usage", path], check=True, capture_output=True, text=True
        ).stdout
    used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return used["REG"], used["STACK"] + used["LOCAL"]


def _amd(assembly: str) -> tuple[int, int]:
    """Vector registers a lane and spilled registers, from the kernel's metadata."""
    used = {key: int(value) for key, value in re.findall(r"\.(\w+_count|\w+_fixed_size):\s+(\d+)", assembly)}
    return used["vgpr_count"], used["vgpr_spill_count"] + used["sgpr_spill_count"] + used["private_segment_fixed_size"]


def versions() -> dict[str, str]:
    """The compilers that a table of compiled kernels rests on."""
    known = {"triton": triton.__version__}
    for name in ("ptxas", "ptxas-blackwell"):
        text = subprocess.run([tool(name), "--version"], check=True, capture_output=True, text=True).stdout
        known[name] = re.search(r"V([\d.]+)", text).group(1)  # type: ignore[union-attr]
    return known
