"""The drawings that need no script: radar, histograms and the small multiples, as SVG text with classes for colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape

from ..columns import Column
from .metrics import AXES, number

# viridis (CC0), 17 stops: perceptually uniform, monotone in lightness, readable with colour-vision deficiency
VIRIDIS = (
    "#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e", "#21918c",
    "#1fa088", "#28ae80", "#3fbc73", "#5ec962", "#84d44b", "#addc30", "#d8e219", "#fde725",
)  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letter(index: int) -> str:
    """The key of a candidate: it stands beside its colour everywhere, so colour is never alone."""
    return LETTERS[index] if index < len(LETTERS) else str(index + 1)


def lookup_table() -> np.ndarray:
    """(256, 3) uint8: the map above, interpolated."""
    return _interpolated(VIRIDIS, 256)


# removed structure in orange, invented in purple, nothing in between: told apart with any colour vision
DIVERGING = (
    "#2d004b", "#542788", "#8073ac", "#b2abd2", "#e4e4ee",
    "#f7f7f7", "#f6e9d6", "#fdb863", "#e08214", "#b35806", "#7f3b08",
)  # fmt: skip


def diverging_table(count: int) -> np.ndarray:
    """(count, 3) uint8 of the colours above, from invented to removed."""
    return _interpolated(DIVERGING, count)


def _interpolated(colours: Sequence[str], count: int) -> np.ndarray:
    stops = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in colours], dtype=float)
    at = np.linspace(0, len(stops) - 1, count)
    return np.stack([np.interp(at, np.arange(len(stops)), stops[:, k]) for k in range(3)], axis=1).round().astype("u1")


Bands = Mapping[str, tuple[float, float]]


def radar(profiles: Sequence[tuple[str, Mapping[str, float], Bands]]) -> Markup:
    """Five axes from the top, clockwise, in the article's order, a bar over each interval. A missing axis breaks the
    line."""
    size, radius = 400, 128
    cx, cy = size / 2, size / 2 - 4
    count = len(AXES)

    def at(i: int, r: float) -> tuple[float, float]:
        angle = 2 * math.pi * i / count - math.pi / 2
        return cx + radius * r * math.cos(angle), cy + radius * r * math.sin(angle)

    parts = []
    for level in (0.25, 0.5, 0.75, 1.0):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(i, level) for i in range(count)))
        parts.append(f'<polygon class="grid" points="{points}"/>')
    for i, (key, name) in enumerate(AXES):
        x, y = at(i, 1)
        parts.append(f'<line class="grid" x1="{cx}" y1="{cy}" x2="{x:.1f}" y2="{y:.1f}"/>')
        lx, ly = at(i, 1.14)
        anchor = "middle" if abs(lx - cx) < 12 else "start" if lx > cx else "end"
        lacking = [letter(k) for k, (_, axes, _) in enumerate(profiles) if not math.isfinite(axes.get(key, math.nan))]
        ly += 12 if ly > cy + radius / 2 else 4
        parts.append(f'<text class="axis" x="{lx:.1f}" y="{ly:.1f}" text-anchor="{anchor}">{name}</text>')
        if lacking:
            who = "missing" if len(lacking) == len(profiles) else f"missing: {', '.join(lacking)}"
            parts.append(f'<text class="tick" x="{lx:.1f}" y="{ly + 14:.1f}" text-anchor="{anchor}">{who}</text>')
    for k, (_, axes, bands) in enumerate(profiles):
        parts.append(_polygon(k, [axes.get(key, math.nan) for key, _ in AXES], at))
        ends = [(at(i, bands[key][0]), at(i, bands[key][1])) for i, (key, _) in enumerate(AXES) if key in bands]
        bars = "".join(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" for a, b in ends)
        parts.append(f'<path class="interval c{k % 6}" d="{bars}"/>' if bars else "")
    for level in (0.5, 1.0):
        x, y = at(0, level)
        parts.append(f'<text class="tick" x="{x + 5:.1f}" y="{y + 11:.1f}">{level:g}</text>')
    spoken = "; ".join(
        f"{name}: " + ", ".join(f"{label} {number(axes.get(key, math.nan), 2)}" for key, label in AXES)
        for name, axes, _ in profiles
    )
    return Markup(  # every text above is escaped or a constant
        f'<svg class="radar" viewBox="0 0 {size} {size - 40}" role="img" aria-label="Radar of the profiles, 0 to 1. '
        f'{escape(spoken)}">{"".join(parts)}</svg>'
    )


def _polygon(k: int, values: list[float], at) -> str:  # type: ignore[no-untyped-def]
    count = len(values)
    points = [at(i, v) if math.isfinite(v) else None for i, v in enumerate(values)]
    parts = []
    if all(points):
        joined = " ".join(f"{p[0]:.1f},{p[1]:.1f}" for p in points if p)
        parts.append(f'<polygon class="area" points="{joined}"/>')
    else:
        for i in range(count):
            a, b = points[i], points[(i + 1) % count]
            if a and b:
                parts.append(f'<path class="edge" d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}"/>')
    parts += [_marker(k, *p) for p in points if p]
    return f'<g class="c{k % 6} d{k % 4}">{"".join(parts)}</g>'


def _marker(k: int, x: float, y: float) -> str:
    if k % 4 == 0:
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if k % 4 == 1:
        return f'<rect class="dot" x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2"/>'
    sign = -1 if k % 4 == 2 else 1
    return f'<path class="dot" d="M{x - 4.5:.1f} {y - sign * 3.5:.1f}h9l-4.5 {sign * 8}z"/>'


def key_mark(k: int) -> Markup:
    """The same line and marker as in the radar, with the letter."""
    return Markup(  # constants only
        f'<svg class="key c{k % 6} d{k % 4}" viewBox="0 0 30 12" width="30" height="12" aria-hidden="true">'
        f'<path class="edge" d="M1 6h28"/>{_marker(k, 15, 6)}</svg><b class="letter">{letter(k)}</b>'
    )


def histograms(
    metric: Column,
    columns: Sequence[np.ndarray],
    names: Sequence[str],
    limits: Sequence[float] = (),
    keys: Sequence[str] | None = None,
) -> Markup | None:
    """One row a candidate on a common axis: bars, a tick at the median, lines at the limits. None without values.

    keys: what stands before each row, in place of the candidates' letters.
    """
    finite = [values[np.isfinite(values)] for values in columns]
    if not any(len(values) for values in finite):
        return None
    pooled = np.concatenate(finite)
    low, high, ticks = nice_range(min([float(pooled.min()), *limits]), max([float(pooled.max()), *limits]))
    bins = 28 if len(pooled) / len(columns) > 30 else 16
    several = len(columns) > 1
    width, left, row, gap = 340.0, 22.0 if several else 14.0, 42.0 if several else 64.0, 12.0
    left = left if keys is None else 12.0 + 6.6 * max(map(len, keys))
    inner = width - left - 18
    edges = np.linspace(low, high, bins + 1)
    counts = [np.histogram(values, edges)[0] for values in finite]
    # every row is scaled by the same share of tiles, so that heights compare
    top = max(float(c.max()) / len(v) for c, v in zip(counts, finite, strict=True) if len(v))

    def px(value: float) -> float:
        return left + inner * (value - low) / (high - low)

    parts = []
    bottom = len(columns) * (row + gap) - gap + 4
    for tick in ticks:
        x = px(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 13:.1f}" text-anchor="middle">{tick_text(tick, ticks)}</text>'
        )
    spoken = []
    for k, (values, c) in enumerate(zip(finite, counts, strict=True)):
        base = k * (row + gap) + row
        if several:
            key = letter(k) if keys is None else str(escape(keys[k]))
            parts.append(f'<text class="rowkey" x="0" y="{base - 2:.1f}">{key}</text>')
        parts.append(f'<line class="base" x1="{left}" y1="{base:.1f}" x2="{left + inner:.1f}" y2="{base:.1f}"/>')
        if not len(values):
            parts.append(f'<text class="tick" x="{left + 6}" y="{base - 6:.1f}">not evaluated</text>')
            spoken.append(f"{names[k]}: not evaluated")
            continue
        step = inner / bins
        unit = 0.92 * row / len(values) / top
        bars = "".join(
            f"M{left + i * step + 0.5:.1f} {base:.1f}v{-unit * n:.1f}h{step - 1:.1f}V{base:.1f}z"
            for i, n in enumerate(c)
            if n
        )
        median = float(np.median(values))
        x = px(median)
        parts.append(f'<g class="c{k % 6}"><path class="bars" d="{bars}"/></g>')
        parts.append(f'<path class="median" d="M{x:.1f} {base + 4:.1f}v{-row - 2:.1f}"/>')
        spoken.append(f"{names[k]}: median {number(median, metric.digits)}, {len(values)} tiles")
    for limit in limits:
        parts.append(f'<path class="limit" d="M{px(limit):.1f} 0V{bottom:.1f}"/>')
        spoken.append(f"limit {number(limit, metric.digits)}")
    return Markup(  # names are escaped, the rest are numbers
        f'<svg class="hist" viewBox="0 0 {width:.0f} {bottom + 18:.0f}" role="img" '
        f'aria-label="Histogram of {escape(metric.heading)}. {escape("; ".join(spoken))}">{"".join(parts)}</svg>'
    )


def nice_range(low: float, high: float) -> tuple[float, float, list[float]]:
    """A range on round numbers that holds both ends, with three to six ticks."""
    if high - low < 1e-12 * max(1.0, abs(high)):
        pad = max(abs(high) * 0.05, 1e-6)
        low, high = low - pad, high + pad
    raw = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [round(i * step, 12) for i in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def tick_text(value: float, ticks: list[float]) -> str:
    step = ticks[1] - ticks[0]
    if value and (abs(ticks[-1]) >= 1e5 or step < 1e-4):
        return f"{value:.2g}".replace("-", "−")
    digits = max(0, next((d for d in range(5) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 4))
    return f"{value:.{digits}f}".replace("-", "−")
