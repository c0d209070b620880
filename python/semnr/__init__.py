"""Metrics that say whether a denoised SEM image can still be trusted.

`x` is always the candidate (the denoised image) and `y` the reference. Images are NumPy arrays or torch tensors of
shape (H, W), (C, H, W) or (N, C, H, W). Everything here is imported on first use, so that `import semnr` and
`semnr --help` load no torch. docs/api.md in the repository lists what is public.

Examples
--------
All examples of the documentation use these images, each (128, 128) uint8:

>>> import numpy as np
>>> import semnr
>>> site = semnr.synth.tile("lines", 128, seed=1)  # a synthetic site of lines, its truth known
>>> clean = site.reference("uint8")
>>> noisy = site.noisy(dtype="uint8")
>>> second = site.noisy(dtype="uint8", frame=1)  # another frame of the same site
>>> denoised = semnr.denoise(noisy, model="gaussian")

>>> print(f"{semnr.psnr(noisy, clean):.1f} dB before, {semnr.psnr(denoised, clean):.1f} dB after")
23.3 dB before, 30.7 dB after
>>> print(semnr.evidence(noisy, denoised, clean))
evidence transfer against reference, 1 tile(s)
  band 1-4 px: T mean 0.781, lowest 0.781; 1 known, 0 unknown

PSNR rose by 7 dB, and the transfer T says that a fifth of the fine structure is gone.
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
