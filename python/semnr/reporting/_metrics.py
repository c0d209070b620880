"""What a report knows about each column: its name in words, unit, direction and digits; and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    @property
    def direction(self) -> str:
        """What a reader should hope for, in words."""
        return (
            f"{self.better} is better" if self.better in ("higher", "lower") else self.better and f"best {self.better}"
        )

    @property
    def heading(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label


METRICS = (
    Metric("psnr", "PSNR", "dB", "higher", 2),
    Metric("ssim", "SSIM", "", "higher", 4),
    Metric("fsim", "FSIM", "", "higher", 4),
    Metric("dists", "DISTS", "", "lower", 4, "a distance: 0 is identical"),
    Metric("cnr_fixed_noise", "CNR, fixed noise", "", "higher", 2, "contrast over the noise of the noisy input"),
    Metric("cnr_fixed_noise_worst", "CNR, worst window", "", "higher", 2, "the lowest 64 px window of the tile"),
    Metric("contrast_retention", "Contrast kept", "", "near 1", 3, "contrast of the candidate over the reference's"),
    Metric("transfer", "Evidence transfer T", "", "near 1", 3, "share of the structure that passed the denoiser"),
    Metric("cnr_two_roi", "CNR, own noise", "", "", 2, "rises under over-smoothing; not evidence on its own"),
    Metric("mse", "MSE", "grey²", "lower", -4),
    Metric("mae", "MAE", "grey", "lower", -4),
    Metric("psnr_noisy", "PSNR of the noisy input", "dB", "", 2),
    Metric("clipped_fraction", "Clipped pixels", "share", "lower", -3),
)
BY_COLUMN = {metric.column: metric for metric in METRICS}
# columns of the summary table after the two PSNR figures, and the panels of the distributions
SUMMARY = ("ssim", "fsim", "dists", "cnr_fixed_noise", "contrast_retention", "transfer")
RANKING = ("ssim", "fsim", "psnr")  # the first of these that was evaluated decides which tiles are "worst"
AXES = (("psnr", "PSNR"), ("ssim", "SSIM"), ("fsim", "FSIM"), ("dists", "DISTS"), ("cnr", "CNR"))


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


_EVIDENCE_WORDS = {"psnr": "PSNR", "ssim": "SSIM", "fsim": "FSIM", "dists": "DISTS", "cnr": "CNR"}


def evidence_rows(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Evidence numbers; `name` and `name_se` become one row, `value ± standard error`."""
    rows = []
    for key, value in flatten(evidence):
        if key.endswith("_se") and key.removesuffix("_se") in evidence:
            continue
        error = evidence.get(f"{key}_se")
        if isinstance(error, float) and isinstance(evidence[key], float) and 0 < error < math.inf:
            # two significant digits of the standard error, and the value to the same decimals
            digits = max(0, 1 - math.floor(math.log10(error)))
            value = f"{evidence[key]:.{digits}f} ± {error:.{digits}f}".replace("-", "−")
        elif key.startswith("share_") and isinstance(evidence[key], float):
            value = f"{evidence[key]:.0%}"
        name = " ".join(_EVIDENCE_WORDS.get(word, word) for word in key.split("_"))
        rows.append((name, value))
    return rows
