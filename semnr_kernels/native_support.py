"""The only loader of the compiled CPU modules, and the step from tensors to addresses.

One extension module per instruction set (same sources, other flags), so that wide
instructions never leak into the baseline. The best one that this CPU runs is loaded;
a backend named "native-avx2" forces one.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

ABI = 11  # csrc/module.cpp exports the same number; a stale build is refused, not called
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")  # best last; on aarch64 the baseline is NEON

# csrc/image.hpp: enum class Dtype
DTYPE_CODES = {
    torch.uint8: 0,
    torch.uint16: 1,
    torch.float16: 2,
    torch.bfloat16: 3,
    torch.float32: 4,
    torch.float64: 5,
}


if hasattr(os, "register_at_fork"):
    # The kernels' own threads survive a fork (csrc/pool.cpp). Those of torch's OpenMP do not, and what torch does
    # around the kernels would wait for them for ever: in the child it runs on one thread, as in a DataLoader's worker.
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


class _NotLoaded(Exception):
    pass


@functools.cache
def _imported(isa: str) -> ModuleType:
    name = f"semnr_kernels._cpu_{isa}"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        reason = other_python(f"_cpu_{isa}") or f"compiled module {name} does not load ({error})"
        raise _NotLoaded(reason) from None
    if module.ABI != ABI:
        raise _NotLoaded(f"compiled module {name} has ABI {module.ABI}, this package needs {ABI}: rebuild it")
    return module


@functools.cache
def _load(isa: str) -> ModuleType:
    try:
        judge = _imported("baseline")
    except _NotLoaded:  # not built: the module's own entry, which is compiled for any CPU too, knows as much
        judge = _imported(isa)
    if not judge.cpu_runs(isa):
        raise _NotLoaded(f"this CPU does not run {isa}")
    return _imported(isa)


def other_python(name: str) -> str | None:
    """Where a compiled module is there, but for another Python: what to do."""
    there = sorted(p.name for p in Path(__file__).parent.glob(f"{name}.*") if p.suffix in (".so", ".pyd"))
    if not there or any(name + suffix in there for suffix in importlib.machinery.EXTENSION_SUFFIXES):
        return None
    return f"{there[0]} was built for another Python than this {sys.version_info[0]}.{sys.version_info[1]}: reinstall"


def probe(isa: str | None = None) -> str | None:
    """None where the module for `isa` (None: any) loads, else the reason."""
    try:
        module(isa)
    except _NotLoaded as error:
        return str(error)
    return None


@functools.cache
def module(isa: str | None = None) -> ModuleType:
    """The compiled module for `isa`; None: for the best instruction set of this CPU."""
    if isa is not None:
        return _load(isa)
    for best in INSTRUCTION_SETS[:0:-1]:
        try:
            return _load(best)
        except _NotLoaded:
            continue
    return _load("baseline")  # whose reason is the one to show


def describe(isa: str | None = None) -> str:
    """Instruction set in use, for `explain` and `semnr doctor`."""
    return f"C++, {module(isa).ISA}" if probe(isa) is None else ""


def empty(shape: Sequence[int] | int, dtype: torch.dtype) -> torch.Tensor:
    """Memory for a kernel to write: on the CPU, whatever torch's default device is."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def address(value: torch.Tensor | None) -> int:
    """Where the numbers of a tensor lie, on the CPU or a GPU; 0 for None, which the kernels take as "not there".

    Raises
    ------
    TypeError
        The tensor has no memory: a kernel must not be called.
    """
    if value is None:
        return 0
    pointer = value.data_ptr() if value.is_cpu or value.is_cuda else 0
    if not pointer and value.numel():
        raise TypeError(
            f"a {type(value).__name__} on {value.device} has no memory that a kernel can read; accepted: a "
            "torch.Tensor on the CPU, outside of modes that replace new tensors (FakeTensorMode)"
        )
    return pointer


def image(value: torch.Tensor) -> tuple[int, int, int, int, int]:
    """Address and strides of a (N, C, H, W) tensor: csrc takes any layout, nothing is copied."""
    n, c, h, w = value.stride()
    return (address(value), n, c, h, w)


def mask(valid: torch.Tensor | None) -> tuple[int, int, int, int]:
    """Address and strides of a (N, 1, H, W) bool tensor; address 0: every pixel is valid."""
    if valid is None:
        return (0, 0, 0, 0)
    n, _, h, w = valid.stride()
    return (address(valid), n, h, w)


def reference_gradient(
    outputs: tuple[torch.Tensor, ...],
    inputs: tuple[torch.Tensor, ...],
    gradients: tuple[torch.Tensor, ...],
    wanted: tuple[bool, ...],
) -> list[torch.Tensor | None]:
    """Gradients of `outputs` (computed by the reference) with a graph of their own: for double backward."""
    some = [v for v, w in zip(inputs, wanted, strict=True) if w]
    computed = iter(torch.autograd.grad(outputs, some, gradients, create_graph=True, allow_unused=True))
    return [next(computed) if w else None for w in wanted]
