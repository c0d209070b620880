"""The only loader of the compiled CPU modules.

One extension module per instruction set (same sources, other flags), so that wide
instructions never leak into the baseline. The best one that this CPU runs is loaded.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

ABI = 1  # csrc/module.cpp exports the same number; a stale build is refused, not called
MODULES = ("baseline",)  # best last


class _NotLoaded(Exception):
    pass


@functools.cache
def _load(isa: str) -> ModuleType:
    name = f"semnr_kernels._cpu_{isa}"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise _NotLoaded(f"compiled module {name} does not load ({error})") from None
    if module.ABI != ABI:
        raise _NotLoaded(f"compiled module {name} has ABI {module.ABI}, this package needs {ABI}: rebuild it")
    return module


def probe() -> str | None:
    """None where a compiled module loads, else the reason."""
    try:
        module()
    except _NotLoaded as error:
        return str(error)
    return None


def module() -> ModuleType:
    """The compiled module for the best instruction set of this CPU."""
    return _load(MODULES[-1])


def describe() -> str:
    """Instruction set in use, for `explain` and `semnr doctor`."""
    return f"C++, {module().ISA}" if probe() is None else ""
