"""Where on the wafer: the profile along the radius, the zones, and how the flagged tiles pile up by die and pattern."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from ..columns import BY_NAME, Column
from .draw import VIRIDIS, letter, nice_range, tick_text
from .metrics import PLACES, number
from .runs import RunData
from .wafer import Layout

BINS = 8  # of the radius, of one width
ZONES = ((0.0, 0.5, "centre"), (0.5, 0.8, "middle"), (0.8, math.inf, "edge"))  # shares of the wafer's radius
QUADRANTS = ("top right", "top left", "bottom left", "bottom right")
BARS = 10  # of a Pareto chart; the rest is one bar
PATTERNS = 8  # values of a column that still are patterns
_LINES = 3  # metrics with a radial profile


def pattern_of(run: RunData) -> list[str] | None:
    """What each tile shows: the column `pattern`, else its category, else its site in the die; None without any."""
    for name in ("pattern", "plan_pattern", "category", "site_id"):
        if name in run.texts:
            values = [str(v or "") for v in run.texts[name]]
        elif name in run.numbers:
            values = ["" if math.isnan(v) else f"site {v:g}" for v in run.values(name)]
        else:
            continue
        kinds = {v for v in values if v}
        if 2 <= len(kinds) <= PATTERNS:
            return values
    return None


def zones(runs: Sequence[RunData], layout: Layout, limits: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Radial profiles and zone maps; None where tiles have no place on a wafer."""
    metrics = [BY_NAME[c] for c in PLACES if any(run.has(c) for run in runs)]
    if not layout.outline or not metrics:
        return None
    at = {tile: i for i, tile in enumerate(layout.tiles)}
    rows = [np.array([at[tile] for tile in run.tiles]) for run in runs]
    radius = np.hypot(layout.x, layout.y)
    if np.isfinite(radius).sum() < 4 or np.ptp(radius[np.isfinite(radius)]) < 0.1:
        return None
    lines = [
        {"metric": m, "svg": _radial(m, [run.values(m.name) for run in runs], [radius[r] for r in rows],
                                     [run.label for run in runs], limits.get(m.name, ()))}
        for m in metrics[:_LINES]
    ]  # fmt: skip
    metric = metrics[0]
    angle = np.arctan2(layout.y, layout.x) % (2 * math.pi)
    values = [_by_zone(run.values(metric.name), radius[r], angle[r]) for run, r in zip(runs, rows, strict=True)]
    every = [mean for means in values for mean, _ in means.values() if math.isfinite(mean)]
    maps = [
        {"label": run.label, "letter": letter(k) if len(runs) > 1 else "",
         "svg": _bullseye(metric, means, min(every), max(every), run.label)}
        for k, (run, means) in enumerate(zip(runs[:4], values, strict=False))
    ] if every else []  # fmt: skip
    return {"lines": lines, "metric": metric, "maps": maps}


def _radial(
    metric: Column,
    columns: Sequence[np.ndarray],
    radii: Sequence[np.ndarray],
    names: Sequence[str],
    limits: Sequence[Mapping[str, Any]],
) -> Markup:
    """Mean ± 2 standard errors in rings of one width, from the centre to the edge."""
    edges = np.linspace(0, max(1.0, *(float(np.nanmax(r)) for r in radii)), BINS + 1)
    lines = []
    for values, radius in zip(columns, radii, strict=True):
        points = []
        for low, high in pairwise(edges.tolist()):
            inside = values[(radius >= low) & (radius < high + 1e-9) & np.isfinite(values)]
            if inside.size:
                se = float(inside.std(ddof=1)) / math.sqrt(inside.size) if inside.size > 1 else 0.0
                points.append(((low + high) / 2, float(inside.mean()), se))
        lines.append(points)
    every = [end for points in lines for _, mean, se in points for end in (mean - 2 * se, mean + 2 * se)]
    if not every:
        return Markup("")
    marks = [float(v) for limit in limits for v in (limit.get("below"), limit.get("above")) if v is not None]
    low, high, ticks = nice_range(min([*every, *marks]), max([*every, *marks]))
    width, height, left, bottom = 340.0, 170.0, 52.0, 38.0

    def px(value: float) -> float:
        return left + (width - left - 12) * value / float(edges[-1])

    def py(value: float) -> float:
        return 8 + (height - bottom - 8) * (high - value) / (high - low)

    parts = [
        f'<line class="grid" x1="{left}" y1="{py(t):.1f}" x2="{width}" y2="{py(t):.1f}"/>'
        f'<text class="tick" x="{left - 6}" y="{py(t) + 4:.1f}" text-anchor="end">{tick_text(t, ticks)}</text>'
        for t in ticks
    ]
    parts += [
        f'<text class="tick" x="{px(t):.1f}" y="{height - 22}" text-anchor="middle">{t:g}</text>'
        for t in (0, 0.25, 0.5, 0.75, 1)
    ]
    parts.append(
        f'<text class="tick" x="{px(0.5):.1f}" y="{height - 5}" text-anchor="middle">radius of the wafer</text>'
    )
    parts += [f'<line class="limit" x1="{left}" y1="{py(v):.1f}" x2="{width}" y2="{py(v):.1f}"/>' for v in marks]
    spoken = []
    for k, points in enumerate(lines):
        path = "".join(f"{'L' if i else 'M'}{px(r):.1f} {py(m):.1f}" for i, (r, m, _) in enumerate(points))
        bars = "".join(f"M{px(r):.1f} {py(m - 2 * s):.1f}V{py(m + 2 * s):.1f}" for r, m, s in points)
        dots = "".join(f'<circle class="dot" cx="{px(r):.1f}" cy="{py(m):.1f}" r="3.5"/>' for r, m, _ in points)
        parts.append(
            f'<g class="c{k % 6} d{k % 4}"><path class="edge" d="{path}"/><path class="whisker" d="{bars}"/>{dots}</g>'
        )
        said = ", ".join(f"{r:.2f}: {number(m, metric.digits)}" for r, m, _ in points)
        spoken.append(f"{names[k]}: {said}")
    return Markup(  # names are escaped, the rest are numbers
        f'<svg class="hist" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(metric.heading)} '
        f'along the radius. {escape("; ".join(spoken))}">{"".join(parts)}</svg>'
    )


def _by_zone(values: np.ndarray, radius: np.ndarray, angle: np.ndarray) -> dict[tuple[int, int], tuple[float, int]]:
    """(zone, quadrant) -> (mean, tiles); the centre is one zone, quadrant 0."""
    means = {}
    quadrant = np.floor(np.nan_to_num(angle) / (math.pi / 2)).astype(int) % 4
    for z, (low, high, _) in enumerate(ZONES):
        for q in range(4 if z else 1):
            inside = (radius >= low) & (radius < high) & np.isfinite(values) & ((quadrant == q) if z else True)
            means[(z, q)] = (float(values[inside].mean()) if inside.any() else math.nan, int(inside.sum()))
    return means


def _bullseye(
    metric: Column, means: Mapping[tuple[int, int], tuple[float, int]], low: float, high: float, name: str
) -> Markup:
    size, radii = 240.0, (46.0, 82.0, 118.0)
    centre = size / 2
    parts, spoken = [], []
    for (z, q), (mean, tiles) in means.items():
        share = 0.5 if high == low or math.isnan(mean) else (mean - low) / (high - low)
        fill = "none" if math.isnan(mean) else VIRIDIS[round(share * (len(VIRIDIS) - 1))]
        ink = "zone-light" if share < 0.55 else "zone-dark"
        if z == 0:
            parts.append(f'<circle class="zone" cx="{centre}" cy="{centre}" r="{radii[0]}" fill="{fill}"/>')
            x = y = centre
        else:
            parts.append(f'<path class="zone" fill="{fill}" d="{_sector(centre, radii[z - 1], radii[z], q)}"/>')
            middle = (q + 0.5) * math.pi / 2
            r = (radii[z - 1] + radii[z]) / 2
            x, y = centre + r * math.cos(middle), centre - r * math.sin(middle)
        if math.isnan(mean):
            continue
        text = number(mean, min(metric.digits, 3) if metric.digits > 0 else metric.digits)
        parts.append(f'<text class="{ink}" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{text}</text>')
        where = ZONES[z][2] + (f" {QUADRANTS[q]}" if z else "")
        spoken.append(f"{where}: {text}, {tiles} tiles")
    return Markup(
        f'<svg class="zones" viewBox="0 0 {size:.0f} {size:.0f}" role="img" aria-label="{escape(metric.heading)} by '
        f'zone, {escape(name)}. {"; ".join(spoken)}">{"".join(parts)}</svg>'
    )


def _sector(centre: float, inner: float, outer: float, quadrant: int) -> str:
    start, end = quadrant * math.pi / 2, (quadrant + 1) * math.pi / 2

    def at(r: float, angle: float) -> str:
        return f"{centre + r * math.cos(angle):.1f} {centre - r * math.sin(angle):.1f}"

    return (
        f"M{at(inner, start)}L{at(outer, start)}A{outer} {outer} 0 0 0 {at(outer, end)}"
        f"L{at(inner, end)}A{inner} {inner} 0 0 1 {at(inner, start)}z"
    )


def paretos(
    runs: Sequence[RunData], flags: Mapping[str, Mapping[str, Sequence[str]]], layout: Layout
) -> list[dict[str, Any]]:
    """For each candidate with flagged tiles: how many by guardrail, by die and by pattern, most first."""
    dies = dict(zip(layout.tiles, _dies(layout), strict=True))
    charts = []
    for k, run in enumerate(runs):
        marked = flags.get(run.label)
        if not marked:
            continue
        patterns = pattern_of(run)
        kind = dict(zip(run.tiles, patterns, strict=True)) if patterns else {}
        counts = [
            ("guardrail", Counter(name for names in marked.values() for name in names)),
            ("die", Counter(dies[tile] for tile in marked if dies.get(tile))),
            ("pattern", Counter(kind[tile] for tile in marked if kind.get(tile))),
        ]
        charts.append({
            "label": run.label, "letter": letter(k) if len(runs) > 1 else "", "tiles": len(marked),
            "columns": [{"by": by, "bars": _bars(tally)} for by, tally in counts if tally],
        })  # fmt: skip
    return charts


def _bars(counts: Counter[str]) -> list[dict[str, Any]]:
    total, most = counts.total(), max(counts.values())
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ordered[:BARS]
    rest = total - sum(count for _, count in shown)
    shown += [(f"{len(ordered) - BARS} more", rest)] if rest else []
    bars, running = [], 0
    for name, count in shown:
        running += count
        bars.append({"name": name, "count": count, "share": min(1.0, count / most), "running": running / total})
    return bars


def _dies(layout: Layout) -> list[str]:
    """The die of each tile in words, with its wafer where there are several; "" where unknown."""
    several = len(set(layout.wafer)) > 1
    names = []
    for place, wafer in zip(layout.place, layout.wafer, strict=True):
        die = next((part for part in place.split(" · ") if part.startswith("die ")), "")
        names.append(f"{wafer} · {die}" if die and several and wafer else die)
    return names
