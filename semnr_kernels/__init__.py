"""The compute layer: tensors in, tensors out. One folder an op; knows no files, wafers or reports.

Ops are imported on first use, so that the errors and `import semnr_kernels` do not load torch. The functions of an op
take tensors and return tensors; `semnr` above them also takes NumPy arrays.

Examples
--------
All examples of this package use these two images, each (192, 192) uint8. The reference `y` shows vertical lines of 16
pixels. The columns of the candidate `x` are 0, 1, 2, 3, 4, 0, 1, ... grey levels brighter:

>>> import torch
>>> import semnr_kernels as kernels
>>> columns = torch.arange(192)
>>> y = torch.where(columns % 32 < 16, 80, 160).to(torch.uint8).repeat(192, 1)
>>> x = y + (columns % 5).to(torch.uint8)

>>> kernels.pixel.psnr(x, y)
tensor(40.3910, dtype=torch.float64)
>>> kernels.explain(kernels.Call.of("ssim", x, y), backend="reference").chosen
'reference'
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
