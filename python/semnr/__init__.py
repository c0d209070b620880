"""semnr: metrics that say whether a denoised SEM image can still be trusted.

Everything here is imported on first use, so that `import semnr` and `semnr --help` load no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> the module that holds it
_HOME = {
    **dict.fromkeys(
        ("mse", "mae", "psnr", "ssim", "ms_ssim", "fsim", "dists", "cnr", "cnr_map", "explain"), "semnr.metrics"
    ),
    **dict.fromkeys(("backends", "use_backend"), "semnr_kernels._registry"),
    **dict.fromkeys(("Profile", "Reference", "profile"), "semnr.profiles"),
    **dict.fromkeys(("DEFAULT_RULES", "Signal", "Verdict", "guard"), "semnr.guarding"),
    "compare": "semnr.profiles.comparison",
    **dict.fromkeys(("learn_rules", "stress_test"), "semnr.stress"),
    "evidence": "semnr.trust.transfer",
    **dict.fromkeys(("NoReference", "without_reference"), "semnr.trust.two_frames"),
    **dict.fromkeys(("ResidualTests", "residual_tests"), "semnr.trust.residual"),
    "open_tiles": "semnr.tiles",
    **dict.fromkeys(("Run", "score"), "semnr.scoring"),
    "denoise": "semnr.pipeline",
    "report": "semnr.reporting",
    **dict.fromkeys(("BackendUnavailable", "SemnrError", "TileError", "WeightsUnavailable"), "semnr_kernels._errors"),
    "Result": "semnr_kernels._result",
    **dict.fromkeys(("otsu_masks", "worst_windows"), "semnr.metrics"),
    "Sigma": "semnr_kernels.cnr",
}
_MODULES = ("losses", "stress", "synth", "torchmetrics", "weights")

__all__ = ["__version__", *sorted(_HOME), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"semnr.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'semnr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
