"""What a report knows about each column: its name in words, unit, direction and digits; and how numbers are written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

MISSING = "–"


@dataclass(frozen=True)
class Metric:
    column: str
    label: str
    unit: str
    better: str  # "higher", "lower", "near 1" or "" (neither end is good as such)
    digits: int
    note: str = ""
    group: str = "scores"  # one of GROUPS

    @property
    def direction(self) -> str:
        """What a reader should hope for, in words."""
        return (
            f"{self.better} is better" if self.better in ("higher", "lower") else self.better and f"best {self.better}"
        )

    @property
    def heading(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label


GROUPS = {
    "scores": "Scores",
    "estimated": "Estimated",
    "evidence": "Evidence",
    "changes": "Changes",
    "metrology": "Metrology",
}


def _group(name: str, *metrics: Metric) -> tuple[Metric, ...]:
    return tuple(replace(metric, group=name) for metric in metrics)


METRICS = (
    Metric("psnr", "PSNR", "dB", "higher", 2),
    Metric("ssim", "SSIM", "", "higher", 4),
    Metric("fsim", "FSIM", "", "higher", 4),
    Metric("dists", "DISTS", "", "lower", 4, "a distance: 0 is identical"),
    Metric("cnr_fixed_noise", "CNR, fixed noise", "", "higher", 2, "contrast over the noise of the noisy input"),
    Metric("cnr_fixed_noise_worst", "CNR, worst window", "", "higher", 2, "the lowest 64 px window of the tile"),
    Metric("contrast_retention", "Contrast kept", "", "near 1", 3, "contrast of the candidate over the reference's"),
    Metric("contrast_retention_worst", "Contrast kept, worst window", "", "near 1", 3, "the lowest 64 px window"),
    Metric("transfer", "Evidence transfer T", "", "near 1", 3, "share of the structure that passed the denoiser"),
    Metric("cnr_two_roi", "CNR, own noise", "", "", 2, "rises under over-smoothing; not evidence on its own"),
    Metric("mse", "MSE", "grey²", "lower", -4),
    Metric("mae", "MAE", "grey", "lower", -4),
    Metric("psnr_noisy", "PSNR of the noisy input", "dB", "", 2),
    Metric("clipped_fraction", "Clipped pixels", "share", "lower", -3),
    *_group(
        "estimated",
        Metric("psnr_estimated", "PSNR, estimated", "dB", "higher", 2, "from noisy frames, no reference"),
        Metric("mse_estimated", "MSE, estimated", "grey²", "lower", -4, "unbiased; may be below 0"),
        Metric("psnr_noisy_estimated", "PSNR of the input, estimated", "dB", "", 2),
        Metric(
            "structure_estimated", "Structure, estimated", "", "higher", 3, "correlation with the unknown clean image"
        ),
        Metric("contrast_retention_estimated", "Contrast kept, estimated", "", "near 1", 3),
        Metric("cnr_fixed_noise_estimated", "CNR, fixed noise, estimated", "", "higher", 2),
    ),
    *_group(
        "evidence",
        Metric("removed_z", "Structure removed", "z", "lower", 1, "strongest match in noisy − denoised, in noise σ"),
        Metric("removed_count", "Places removed", "", "lower", 2),
        Metric("invented_z", "Structure invented", "z", "lower", 1, "strongest match that the input does not support"),
        Metric("invented_count", "Places invented", "", "lower", 2),
        Metric("residual_variance", "Residual variance", "", "near 1", 3, "over what the noise law says"),
        Metric("residual_spectrum", "Residual spectrum", "", "lower", 3, "distance to the noise's own spectrum"),
        Metric(
            "residual_structure_z", "Structure in the residual", "z", "lower", 1, "what was taken follows the edges"
        ),
    ),
    *_group(
        "changes",
        Metric("gain_change", "Change of gain", "", "near 0", 4),
        Metric("offset_change", "Change of offset", "", "near 0", 4),
        Metric("shift_y_px", "Shift down", "px", "near 0", 3),
        Metric("shift_x_px", "Shift right", "px", "near 0", 3),
        Metric("transfer_high", "Transfer, fine band", "", "near 1", 3, "above 1 is sharpening"),
        Metric("transfer_texture", "Transfer, texture", "", "near 1", 3, "between the edges; below 1 is washed out"),
        Metric("transfer_peak", "Transfer, strongest band", "", "near 1", 3, "above 1 is sharpening"),
        Metric("feature_contrast", "Contrast of small features", "", "near 1", 3, "what a defect of 6 px would keep"),
        Metric("overshoot", "Overshoot", "", "lower", 3, "of an edge, as a share of its step"),
        Metric("row_noise_added", "Row noise added", "", "lower", 3, "over the input's own"),
    ),
    *_group(
        "metrology",
        Metric("cd_px", "CD", "px", "", 2, "mean width of lines or diameter of holes"),
        Metric("cd_nm", "CD", "nm", "", 2),
        Metric("cd_change_px", "CD, change", "px", "near 0", 3, "against the noisy image"),
        Metric("cd_bias_px", "CD, bias", "px", "near 0", 3, "against the reference"),
        Metric("edge_rms_px", "Edges moved, RMS", "px", "lower", 3, "against the noisy image, its own noise included"),
        Metric("edge_error_px", "Edge error, RMS", "px", "lower", 3, "against the reference"),
        Metric("edge_error_noisy_px", "Edge error of the input", "px", "", 3, "noisy against the reference"),
        Metric("ler_px", "LER 3σ, biased", "px", "", 2),
        Metric("ler_unbiased_px", "LER 3σ, unbiased", "px", "", 2, "refused where the noise plateau is gone"),
        Metric("ler_noisy_px", "LER 3σ of the input, biased", "px", "", 2),
        Metric("ler_noisy_unbiased_px", "LER 3σ of the input, unbiased", "px", "", 2),
        Metric("ler_change_px", "LER 3σ, change", "px", "", 2),
        Metric("lwr_px", "LWR 3σ, biased", "px", "", 2),
        Metric("lwr_unbiased_px", "LWR 3σ, unbiased", "px", "", 2, "refused where the noise plateau is gone"),
        Metric("lwr_noisy_px", "LWR 3σ of the input, biased", "px", "", 2),
        Metric("lwr_noisy_unbiased_px", "LWR 3σ of the input, unbiased", "px", "", 2),
        Metric("lwr_change_px", "LWR 3σ, change", "px", "", 2),
        Metric("unbiased_ok", "Unbiased figure allowed", "share", "", 2, "1 where the noise plateau is still there"),
        Metric("holes", "Holes found", "", "", 1),
        Metric("holes_lost", "Holes lost", "", "near 0", 2),
        Metric("roundness_px", "Hole roundness 3σ", "px", "", 2),
        Metric("roundness_change_px", "Roundness, change", "px", "near 0", 2),
    ),
)
_BAND = re.compile(r"edge_psd_(\d+)_(\d+)")
BY_COLUMN = {metric.column: metric for metric in METRICS}
# columns of the summary table after the two PSNR figures, and the panels of the distributions
PANELS = (
    *("psnr", "ssim", "fsim", "dists", "cnr_fixed_noise", "cnr_fixed_noise_worst", "contrast_retention"),
    *("psnr_estimated", "transfer", "removed_z", "invented_z"),
)
WORST = (
    "psnr",
    "ssim",
    "fsim",
    "dists",
    "cnr_fixed_noise",
    "contrast_retention",
    "transfer",
    "removed_z",
    "invented_z",
)
SUMMARY = ("ssim", "fsim", "dists", "cnr_fixed_noise", "contrast_retention", "transfer")
TREND = ("psnr", "psnr_estimated", "ssim", "fsim", "transfer", "cnr_fixed_noise", "removed_z")
PLACES = ("transfer", "ssim", "cnr_fixed_noise", "psnr_estimated")
RANKING = (
    "ssim",
    "fsim",
    "psnr",
    "transfer",
    "psnr_estimated",
)  # the first of these that was evaluated decides which tiles are "worst"
AXES = (("psnr", "PSNR"), ("ssim", "SSIM"), ("fsim", "FSIM"), ("dists", "DISTS"), ("cnr", "CNR"))


def catalogue(columns: Iterable[str]) -> list[Metric]:
    """The metrics among `columns`, in the order of a report; bands of the edge spectrum from long to short waves."""
    there = set(columns)
    bands = sorted(((int(m[1]), int(m[2])) for m in map(_BAND.fullmatch, there) if m), reverse=True)
    return [metric for metric in METRICS if metric.column in there] + [
        Metric(f"edge_psd_{a}_{b}", f"Edge PSD left, {a} to {b} px", "share", "near 1", 2, group="metrology")
        for a, b in bands
    ]


def number(value: float | None, digits: int) -> str:
    """`value` with `digits` decimals, or with -digits significant figures (trailing zeros kept) where negative."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if digits < 0 and value == 0:
        return "0"
    if digits < 0:
        whole = abs(value) >= 10.0**-digits
        text = f"{value:.0f}" if whole else f"{value:#.{-digits}g}".rstrip(".")
    else:
        text = f"{value:.{digits}f}"
    if not text.strip("-0."):
        text = text.lstrip("-")  # nothing is smaller than nothing
    return text.replace("-", "−") if "e" not in text else text


def words(name: str) -> str:
    """An identifier as a reader's phrase: over_smoothing -> Over-smoothing."""
    text = str(name).replace("_", " ").strip()
    text = {"over smoothing": "over-smoothing", "over sharpening": "over-sharpening"}.get(text, text)
    return text[:1].upper() + text[1:]


def plain(value: Any) -> str:
    """Any JSON value as short text."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else number(value, 0)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(plain(item) for item in value[:8])
        return shown + (f", … ({len(value)} in all)" if len(value) > 8 else "")
    return str(value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows of dotted name and text."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", plain(value) if not isinstance(value, Mapping) else "none"))
    return rows


_EVIDENCE_WORDS = {"db": "dB", "psnr": "PSNR", "ssim": "SSIM", "fsim": "FSIM", "dists": "DISTS", "cnr": "CNR"}


def _evidence_name(key: str) -> str:
    return " ".join(_EVIDENCE_WORDS.get(word, word) for word in key.split("_"))


def evidence_rows(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Evidence numbers; `name` and `name_se` become one row, `value ± standard error`."""
    rows = []
    evidence = dict(evidence)
    judged = next((evidence.pop(k) for k in ("tiles_judged", "tiles_compared") if k in evidence), None)
    if judged is not None and "tiles_fired" in evidence:
        fired = evidence.pop("tiles_fired")
        evidence.pop("share_fired", None)
        share = f" ({fired / judged:.0%})" if isinstance(judged, int) and judged else ""
        rows.append(("tiles that show it", f"{plain(fired)} of {plain(judged)}{share}"))
    for key, value in flatten(evidence):
        if key.endswith("_furthest") and key.removesuffix("_furthest") in evidence:
            continue
        if key.endswith("_se") and key.removesuffix("_se") in evidence:
            continue
        error = evidence.get(f"{key}_se")
        if isinstance(error, float) and isinstance(evidence[key], float) and 0 < error < math.inf:
            # two significant digits of the standard error, and the value to the same decimals
            digits = max(0, 1 - math.floor(math.log10(error)))
            value = f"{evidence[key]:.{digits}f} ± {error:.{digits}f}".replace("-", "−")
        if f"{key}_furthest" in evidence:
            value += f" (furthest {plain(evidence[f'{key}_furthest'])})"
        elif key.startswith("share_") and isinstance(evidence[key], float):
            value = f"{evidence[key]:.0%}"
        name = BY_COLUMN[key].label if key in BY_COLUMN else _evidence_name(key)
        rows.append((name, value))
    return rows
