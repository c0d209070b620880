"""The metrology section: CD, roughness and places of edges, and the share of the edges' spectrum that is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from ..columns import Column, shown
from .draw import letter
from .metrics import number
from .runs import RunData

_BANDS = "edge_psd_"


def measures(runs: Sequence[RunData]) -> dict[str, Any] | None:
    """Means of the metrology columns, a column a candidate; None where no run has any."""
    columns = [m for m in shown(c for run in runs for c in run.numbers if run.has(c)) if m.group == "metrology"]
    rows = [
        {"metric": m, "cells": [_mean(run, m) for run in runs]}
        for m in columns
        if not m.name.startswith(_BANDS) and m.name != "unbiased_ok"
    ]
    bands = [m for m in columns if m.name.startswith(_BANDS)]
    if not rows:
        return None
    return {
        "rows": rows,
        "tiles": _counts(runs),
        "refused": [_refused(run, letter(k) if len(runs) > 1 else "") for k, run in enumerate(runs)],
        "spectrum": _spectrum(bands, runs) if bands else None,
    }


def _counts(runs: Sequence[RunData]) -> str:
    counts = [int(np.isfinite(run.values("cd_px")).sum()) for run in runs]
    if len(set(counts)) == 1:
        return f"{counts[0]} tiles"
    return " / ".join(map(str, counts)) + " tiles of the candidates in order"


def _mean(run: RunData, metric: Column) -> str:
    values = run.values(metric.name)
    values = values[np.isfinite(values)]
    if not values.size:
        return number(math.nan, 0)
    text = number(float(values.mean()), metric.digits)
    if values.size > 1:
        text += f" ± {number(float(values.std(ddof=1)) / math.sqrt(values.size), metric.digits)}"
    return text


def _refused(run: RunData, key: str) -> str:
    """On how many tiles the unbiased figure was refused, in words; "" where nothing was asked for."""
    allowed = run.values("unbiased_ok")
    known = np.isfinite(allowed)
    if not known.any():
        return ""
    count = int((allowed[known] == 0).sum())
    who = f"{key} {run.label}: ".lstrip() if key else ""
    if not count:
        return f"{who}the noise plateau is there on all {int(known.sum())} tiles, so the unbiased figures stand."
    return (
        f"{who}unbiased roughness refused on {count} of {int(known.sum())} tiles: the denoiser took the noise plateau, "
        "and what would be subtracted is no noise floor any more."
    )


def _spectrum(bands: Sequence[Column], runs: Sequence[RunData]) -> Markup:
    """Share of the edges' power left, from long waves to short ones."""
    width, height, left, bottom = 460.0, 190.0, 44.0, 40.0
    means = [[_finite_mean(run.values(m.name)) for m in bands] for run in runs]
    top = max(1.2, min(2.0, max((v for row in means for v in row if math.isfinite(v)), default=1.0) * 1.1))
    step = (width - left - 34) / max(1, len(bands) - 1)

    def py(value: float) -> float:
        return 8 + (height - bottom - 8) * (1 - min(max(value, 0.0), top) / top)

    parts = [
        f'<line class="grid" x1="{left}" y1="{py(v):.1f}" x2="{width}" y2="{py(v):.1f}"/>'
        f'<text class="tick" x="{left - 6}" y="{py(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in (0, 0.5, 1.0, 1.5, 2.0)
        if v <= top
    ]
    for i, metric in enumerate(bands):
        long, short = metric.name.removeprefix(_BANDS).split("_")
        parts.append(
            f'<text class="tick" x="{left + 10 + i * step:.1f}" y="{height - 22}" text-anchor="middle">'
            f"{long}–{short}</text>"
        )
    parts.append(
        f'<text class="tick" x="{(left + width) / 2:.0f}" y="{height - 5}" text-anchor="middle">wavelength, px</text>'
    )
    spoken = []
    for k, row in enumerate(means):
        points = [(left + 10 + i * step, v) for i, v in enumerate(row) if math.isfinite(v)]
        path = "".join(f"{'L' if i else 'M'}{x:.1f} {py(v):.1f}" for i, (x, v) in enumerate(points))
        dots = "".join(f'<circle class="dot" cx="{x:.1f}" cy="{py(v):.1f}" r="3.5"/>' for x, v in points)
        parts.append(f'<g class="c{k % 6} d{k % 4}"><path class="edge" d="{path}"/>{dots}</g>')
        spoken.append(
            f"{runs[k].label}: " + ", ".join(f"{m.label} {number(v, 2)}" for m, v in zip(bands, row, strict=True))
        )
    return Markup(  # names are escaped, the rest are numbers
        f'<svg class="hist" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="Share of the edges\' power '
        f'left by wavelength. {escape("; ".join(spoken))}">{"".join(parts)}</svg>'
    )


def _finite_mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else math.nan
