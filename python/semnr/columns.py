"""The columns of a scored run: which names hold results, so that nothing else can ever have one of them.

What a plan or a source says of a tile is metadata. A metadata column that has the name of a result is written as
`plan_NAME`, also where that result was not asked for; and a reader takes a result only from a run that computed it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

PREFIX = "plan_"
# What a row is: its tile, and what became of it.
ROW = ("tile", "path", "index", "status", "reason")
_OF_METRIC = {
    "psnr": ("mse", "mae", "psnr", "clipped_low", "clipped_high", "clipped_fraction"),
    "ssim": ("ssim", "ssim_luminance", "ssim_contrast", "ssim_structure", "ssim_contrast_structure"),
    "fsim": ("fsim",),
    "dists": ("dists",),
    "cnr": (
        *("cnr", "cnr_two_roi", "cnr_fixed_noise", "contrast_retention"),
        *("cnr_fixed_noise_worst", "contrast_retention_worst"),
    ),
}
_OF_REFERENCE = ("reference_mean", "reference_std")
_OF_NOISY = ("psnr_noisy", "transfer")
_OF_FRAMES = (
    *("mse_estimated", "psnr_estimated", "psnr_noisy_estimated", "structure_estimated", "cnr_fixed_noise_estimated"),
    *("contrast_retention_estimated", "mse_drop", "frames", "frames_usable", "frames_problem"),
)
_OF_TESTS = (
    *("residual_variance", "residual_spectrum", "residual_structure_z", "removed_z", "removed_count", "invented_z"),
    *("invented_count", "evidence_boxes", "gain_change", "offset_change", "shift_y_px", "shift_x_px", "transfer_high"),
    *("transfer_texture", "transfer_peak", "feature_contrast", "overshoot", "row_noise_added"),
)
_OF_METROLOGY = (
    *("cd_px", "cd_nm", "cd_change_px", "cd_bias_px", "edge_rms_px", "edge_error_px", "edge_error_noisy_px"),
    *("ler_noisy_px", "ler_px", "ler_change_px", "ler_noisy_unbiased_px", "ler_unbiased_px"),
    *("lwr_noisy_px", "lwr_px", "lwr_change_px", "lwr_noisy_unbiased_px", "lwr_unbiased_px", "unbiased_ok"),
    *("roundness_px", "roundness_change_px", "holes", "holes_lost"),
)
_OF_ALL = ("area", "mean_axis")
_EDGE_PSD = re.compile(r"edge_psd_\d+_\d+")
_RESULTS = frozenset(
    (*(name for names in _OF_METRIC.values() for name in names), *_OF_REFERENCE, *_OF_NOISY, *_OF_FRAMES)
    + (*_OF_TESTS, *_OF_METROLOGY, *_OF_ALL)
)


@lru_cache(maxsize=4096)
def is_result(name: str) -> bool:
    """Whether a column of this name holds something that scoring computes, or the standard error (`_se`) of it."""
    plain = _plain(name)
    return plain in _RESULTS or _EDGE_PSD.fullmatch(plain) is not None


@lru_cache(maxsize=4096)
def metadata_name(name: str) -> str:
    """The name that a column of a plan has in the rows. Two columns never get one name."""
    bare = name
    while bare.lower().startswith(PREFIX):
        bare = bare[len(PREFIX) :]
    return PREFIX + name if is_result(bare) or bare.lower() in ROW else name


def computed(info: Mapping[str, Any]) -> frozenset[str] | None:
    """The results that a run with this run.json can hold; None where it does not say what was asked for."""
    asked = info.get("requested") or info.get("settings") or {}
    if not isinstance(asked, Mapping) or not {"metrics", "reference", "noisy", "tests", "metrology"} <= set(asked):
        return None
    found: set[str] = set()
    if asked["reference"]:
        found.update(_OF_REFERENCE, *(_OF_METRIC.get(str(name), ()) for name in asked["metrics"]))
    else:
        found.update(_OF_FRAMES)
    if asked["noisy"]:
        found.update(_OF_NOISY, _OF_TESTS if asked["tests"] else ())
    if asked["metrology"]:
        found.update(_OF_METROLOGY)
    return frozenset(found)


def holds(name: str, results: frozenset[str] | None) -> bool:
    """Whether a column is to be read: metadata always, a result only of those that were computed."""
    plain = _plain(name)
    return results is None or not is_result(name) or plain in results or _edge_psd_of(plain, results)


def _plain(name: str) -> str:
    return name.lower().removesuffix("_se")


def _edge_psd_of(plain: str, results: frozenset[str]) -> bool:
    return "edge_rms_px" in results and _EDGE_PSD.fullmatch(plain) is not None
