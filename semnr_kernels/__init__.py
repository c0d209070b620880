"""The compute layer: tensors in, tensors out. One folder an op; knows no files, wafers or reports.

Ops are imported on first use, so that the errors and `import semnr_kernels` cost no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from .errors import BackendUnavailable, SemnrError, TileError, WeightsUnavailable
from .result import Result

if TYPE_CHECKING:
    from . import cnr, dists, fsim, lpips, pixel, ssim
    from .registry import Call, Explanation, backends, explain, use_backend

_REGISTRY = ("Call", "Explanation", "backends", "explain", "use_backend")

__all__ = [
    "BackendUnavailable",
    "Call",
    "Explanation",
    "Result",
    "SemnrError",
    "TileError",
    "WeightsUnavailable",
    "backends",
    "cnr",
    "dists",
    "explain",
    "fsim",
    "lpips",
    "pixel",
    "ssim",
    "use_backend",
]


def op_names() -> tuple[str, ...]:
    """The packages beside this file: an op is a folder, and being there is all it takes to be found."""
    return tuple(sorted(entry.name for entry in pkgutil.iter_modules(__path__) if entry.ispkg))


def __getattr__(name: str) -> Any:
    if name in op_names():
        return importlib.import_module(f"semnr_kernels.{name}")
    if name in _REGISTRY:
        return getattr(importlib.import_module("semnr_kernels.registry"), name)
    raise AttributeError(f"module 'semnr_kernels' has no attribute {name!r}")
