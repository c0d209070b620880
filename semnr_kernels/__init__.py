"""The compute layer: tensors in, tensors out. One folder an op; knows no files, wafers or reports."""

from . import cnr, dists, fsim, pixel, ssim
from ._errors import BackendUnavailable, SemnrError, TileError, WeightsUnavailable
from ._registry import Call, Explanation, backends, explain, use_backend
from ._result import Result

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
    "pixel",
    "ssim",
    "use_backend",
]
