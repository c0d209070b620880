"""Which columns the parts of a report show, and how numbers and words are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..runs.readings import column_of, readings, tiles_of
from ..runs.readings import words as phrase

MISSING = "–"


GROUPS = {
    "scores": "Scores",
    "estimated": "Estimated",
    "evidence": "Evidence",
    "changes": "Changes",
    "metrology": "Metrology",
    "category": "Category",
    "anomaly": "Anomaly",
}


# columns of the summary table after the two PSNR figures, and the panels of the distributions
PANELS = (
    *("psnr", "ssim", "fsim", "dists", "cnr_fixed_noise", "cnr_fixed_noise_worst", "contrast_retention"),
    *("psnr_estimated", "transfer", "removed_z", "invented_z", "anomaly_score"),
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
    "anomaly_score",
)
SUMMARY = ("ssim", "fsim", "dists", "cnr_fixed_noise", "contrast_retention", "transfer")
# from one noisy frame
ALONE = ("transfer_bound", "residual_variance", "residual_structure_z", "removed_z", "invented_z")
TREND = ("psnr", "psnr_estimated", "ssim", "fsim", "transfer", "cnr_fixed_noise", "removed_z")
PLACES = ("transfer", "ssim", "cnr_fixed_noise", "psnr_estimated")
RANKING = (
    "anomaly_score",
    "ssim",
    "fsim",
    "psnr",
    "transfer",
    "psnr_estimated",
    "residual_structure_z",
)  # the first of these that was evaluated decides which tiles are "worst"
SHOWN_BY, JUDGED_ON = "tiles that show it", "judged on"  # how the rows of a signal begin
_COUNTED = ("tiles_judged", "tiles_compared", "tiles_fired", "share_fired")
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
    if not text.strip("-0."):
        text = text.lstrip("-")  # nothing is smaller than nothing
    return text.replace("-", "−") if "e" not in text else text


def words(name: str) -> str:
    """An identifier as a reader's phrase: over_smoothing -> Over-smoothing."""
    text = phrase(name)
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


def evidence_rows(evidence: Mapping[str, Any], limits: Sequence[Mapping[str, Any]] = ()) -> list[tuple[str, str]]:
    """Evidence numbers as (name, text): how many tiles show it, then each number with its standard error and limit."""
    counted = tiles_of(evidence).removeprefix("on ")
    rows = [(JUDGED_ON if counted.startswith("the mean") else SHOWN_BY, counted)] if counted else []
    for reading in readings(evidence, limits):
        rows.append((reading.label, reading.text))
    known = {key for key in evidence if column_of(key) or key in _COUNTED}
    for key, value in flatten({k: v for k, v in evidence.items() if k not in known}):
        rows.append((words(key).lower(), value))
    return rows
