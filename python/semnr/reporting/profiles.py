"""The profiles: five axes of each candidate with their intervals, what a candidate gained and paid, what is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semnr_kernels.errors import SemnrError

from ..columns import BY_NAME, Column
from ..profiles.radar import RANGES
from ..profiles.reading import BETTER, READINGS, WORSE
from ..runs.comparison import compare
from ..runs.scored import as_profile
from ..trust.unknown import UNKNOWN
from . import draw
from .metrics import AXES, number, words
from .runs import RunData

_RESAMPLES = 500  # of the bootstrap: the ends of a 95 % interval to a few per cent of its width


def load(runs: Sequence[RunData]) -> list[Any]:
    """The `semnr.Profile` of each run, or the reason (str) why it has none."""
    loaded: list[Any] = []
    for run in runs:
        try:
            loaded.append(run.rows if run.path is None else as_profile("run_or_path", run.path))
        except (ValueError, SemnrError) as error:
            loaded.append(f"the profile of {run.label} cannot be formed: {error}")
    return loaded


def profiles(runs: Sequence[RunData], loaded: Sequence[Any]) -> list[dict[str, Any]]:
    """The radar's axes of each run, as the profile defines them; the reason where there is no profile."""
    shown = []
    for k, (run, profile) in enumerate(zip(runs, loaded, strict=True)):
        reason = profile if isinstance(profile, str) else ""
        spans: dict[str, Any] = {"axes": {}} if reason else profile.intervals(resamples=_RESAMPLES)
        axes = {} if reason else profile.axes()
        # one tile has no interval, nor has an axis that is missing (NaN)
        bands = {key: (low, high) for key, (_, low, high) in spans["axes"].items() if low < high}
        area, mean = (spans.get(name, (math.nan,) * 3) for name in ("area", "mean_axis"))
        shown.append({
            "label": run.label, "mark": draw.key_mark(k) if len(runs) > 1 else "", "axes": axes, "reason": reason,
            "bands": bands, "values": [number(axes.get(key, math.nan), 2) for key, _ in AXES],
            "spans": [_span(bands.get(key)) for key, _ in AXES],
            "cnr": "" if reason else BY_NAME[profile.cnr_axis].label,
            "area_span": _span(area[1:]), "mean_span": _span(mean[1:]),
            "lacking": [name for key, name in AXES if not math.isfinite(axes.get(key, math.nan))],
            "area": number(area[0], 2), "mean": number(mean[0], 2), "area_value": area[0], "mean_value": mean[0],
        })  # fmt: skip
    return shown


def ranges() -> str:
    """What 0 and 1 stand for on each axis."""
    units = {"psnr": " dB"}
    return ", ".join(f"{name} {RANGES[key][0]:g} to {RANGES[key][1]:g}{units.get(key, '')}" for key, name in AXES)


def _span(ends: tuple[float, float] | None) -> str:
    if ends is None or not all(map(math.isfinite, ends)):
        return ""
    return f"{number(ends[0], 2)}–{number(ends[1], 2)}"


# --- what it gained, what it paid -------------------------------------------------------------------------------


def gains(
    runs: Sequence[RunData], loaded: Sequence[Any], verdicts: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """For each candidate, against its baseline on the same tiles: the mean change and its 95 % interval."""
    tables = []
    for k, run in enumerate(runs):
        named = next((v.get("before") for v in verdicts if v["run"] == run.label and v.get("before")), None)
        base = next((i for i, r in enumerate(runs) if r.label == named), 0)
        if base == k or isinstance(loaded[k], str) or isinstance(loaded[base], str):
            continue
        rows: list[dict[str, Any]] = []
        reason = ""
        try:
            comparison = compare(loaded[base], loaded[k], resamples=_RESAMPLES)
            rows = [_gain(d) for differences in comparison.candidates.values() for d in differences]
        except ValueError as error:  # other tiles, another reference
            reason = str(error)
        tables.append({
            "mark": draw.key_mark(k), "label": run.label, "before": runs[base].label, "reason": reason,
            "rows": sorted(rows, key=lambda row: READINGS.index(row["word"])),
            "gained": [row["name"] for row in rows if row["word"] == BETTER],
            "paid": [row["name"] for row in rows if row["word"] == WORSE],
        })  # fmt: skip
    return tables


def _gain(difference: Any) -> dict[str, Any]:
    metric = BY_NAME.get(difference.column) or Column(difference.column, words(difference.column), "", "", -3, "all")
    low, high = (number(v, metric.digits) for v in (difference.low, difference.high))
    return {
        "column": metric.name,
        "name": metric.label,
        "heading": metric.heading,
        "before": number(difference.before, metric.digits),
        "after": number(difference.after, metric.digits),
        "change": ("+" if difference.change > 0 else "") + number(difference.change, metric.digits),
        "interval": f"{low} to {high}",
        "p": f"{difference.p_holm:.2g}" if math.isfinite(difference.p_holm) else "–",
        "tiles": difference.tiles,
        "word": difference.verdict,
    }


# --- what is measured, estimated, unknown -----------------------------------------------------------------------


def basis(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """For each axis and kind of evidence: on what it rests, a cell a candidate."""
    wanted = [("cnr_fixed_noise" if key == "cnr" else key, name) for key, name in AXES]
    wanted += [
        ("transfer", "Evidence transfer"),
        ("removed_z", "Scan for removed and invented structure"),
        ("residual_variance", "Residual tests"),
        ("cd_px", "Metrology"),
    ]
    rows = []
    for column, name in wanted:
        cells = [_rests(run, column) for run in runs]
        rows.append({"name": name, "cells": cells, "same": len(set(cells)) == 1})
    return rows


def _rests(run: RunData, column: str) -> tuple[str, str]:
    """(measured, estimated or unknown; in words)."""
    if column == "cnr_fixed_noise" and not run.has(column) and run.has("cnr_two_roi"):
        return "measured", "over the image's own noise, which smoothing lowers: the noisy input is not known"
    if run.has(f"{column}_estimated"):
        frames = run.values("frames")
        count = int(frames[frames > 0].max()) if (frames > 0).any() else 0
        return "estimated", f"from {count or 'several'} noisy frames: there is no clean reference"
    if not run.has(column):
        return "unknown", _why_unknown(run, column)
    if column == "transfer" and not run.meta.get("reference"):
        return "measured", "against a second noisy frame"
    name = Path(str(run.meta.get("reference") or "")).name or "the reference"
    if column in ("removed_z", "residual_variance"):
        return "measured", "against the noisy input and the noise fitted to it; needs no reference"
    if column == "cd_px":
        return "measured", "edges found in the pixels"
    if column == "dists" and (run.settings.get("dists") or {}).get("calibrated") is False:
        return "estimated", "uncalibrated: random network weights, no evidence on texture"
    return "measured", f"against {name}"


def _why_unknown(run: RunData, column: str) -> str:
    if not run.meta.get("reference") and column in UNKNOWN:
        return f"no clean reference: {UNKNOWN[column]}"
    if column in ("transfer", "removed_z", "residual_variance") and not run.settings.get("noisy"):
        return "not evaluated: the noisy input is not known"
    return "not evaluated"
