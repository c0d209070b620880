"""Line edges one after another with SciPy's interpolators: what `semnr.metrology.lines` is held against.

Every edge, pass and row is written out as it is defined; nothing is shared between edges.
"""

from __future__ import annotations

import numpy as np

from semnr.metrology.lines import _coarse, _crossing, _reach

_SEARCH, _STEP = 8.0, 0.25  # px: how far a row may lie from its edge's mean, and the steps of the search
_PASSES = 4


def find_edges(image: np.ndarray, orientation: str, level: float | None = None) -> np.ndarray:
    """(edges, length) places of the edges of an image whose lines run as `orientation` says."""
    rows = image if orientation == "vertical" else image.T
    coarse, rising, low, high = _coarse(rows.mean(axis=0))
    level = (low + high) / 2 if level is None else level
    edges = enumerate(zip(coarse, rising, strict=True))
    return np.stack([_follow(rows, at, up, _reach(coarse, i, rows.shape[1]), level) for i, (at, up) in edges])


def _follow(rows: np.ndarray, at: float, up: bool, reach: tuple[int, int], level: float) -> np.ndarray:
    """(length,) places of one edge."""
    from scipy.interpolate import PchipInterpolator

    centre = round(at)
    room = int(_SEARCH) + 1
    offsets = np.arange(-reach[0], reach[1] + 1)
    left, right = centre - reach[0] - room, centre + reach[1] + room
    padded = np.pad(rows, ((0, 0), (max(0, -left), max(0, right + 1 - rows.shape[1]))), mode="edge")
    shift0 = max(0, -left)
    grid = np.arange(left, right + 1)
    strip = padded[:, grid + shift0]  # (L, U + 2 room)
    window = strip[:, room : room + offsets.size]
    search = np.arange(-_SEARCH, _SEARCH + _STEP / 2, _STEP)
    shifts, correlation = np.zeros(rows.shape[0]), 0.0
    fine = np.arange(offsets[0] - _SEARCH, offsets[-1] + _SEARCH + _STEP / 2, _STEP)
    for _ in range(_PASSES):
        template = _mean_profile(strip, grid - centre, shifts, fine)
        curve = PchipInterpolator(fine, template)
        bank = curve(np.clip(offsets[None] - search[:, None], fine[0], fine[-1]))  # (D, U)
        a, b = _whiten(window, correlation), _whiten(bank, correlation)
        cost = (b**2).sum(1)[None] - 2 * a @ b.T  # (L, D)
        shifts = _refine(cost, search)
        shifts -= shifts.mean()
        fitted = curve(np.clip(offsets[None] - shifts[:, None], fine[0], fine[-1]))
        rest = window - fitted
        power = float((rest**2).mean())
        correlation = float(np.clip((rest[:, 1:] * rest[:, :-1]).mean() / power, 0, 0.95)) if power > 0 else 0.0
    template = _mean_profile(strip, grid - centre, shifts, fine)
    return centre + _crossing(fine, template, level, at - centre, up) + shifts


def _mean_profile(strip: np.ndarray, at: np.ndarray, shifts: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """The edge's profile from all rows, each moved back by its shift.

    The shifts spread the samples over the pixel: means of quarter-pixel bins, joined without overshoot, have next to no
    blur of interpolation. Bins that no sample meets (straight edges) are bridged.
    """
    from scipy.interpolate import PchipInterpolator

    u = at[None] - shifts[:, None]
    inside = (u >= fine[0] - _STEP) & (u <= fine[-1] + _STEP)
    u, v = u[inside], strip[inside]
    index = np.floor((u - fine[0] + _STEP) / _STEP).astype(np.int64)
    count = np.bincount(index)
    there = count > 0
    places = np.bincount(index, u)[there] / count[there]
    means = np.bincount(index, v)[there] / count[there]
    return np.asarray(PchipInterpolator(places, means)(np.clip(fine, places[0], places[-1])))


def _whiten(a: np.ndarray, correlation: float) -> np.ndarray:
    """Rows whose noise is a first-order autoregression along the scan, as rows of white noise."""
    if correlation <= 0:
        return a
    first = a[:, :1] * np.sqrt(1 - correlation**2)
    return np.concatenate([first, a[:, 1:] - correlation * a[:, :-1]], axis=1)


def _refine(cost: np.ndarray, search: np.ndarray) -> np.ndarray:
    """The lowest cost of each row, by a parabola through it and its neighbours."""
    best = np.clip(cost.argmin(axis=1), 1, search.size - 2)
    rows = np.arange(len(cost))
    before, here, after = cost[rows, best - 1], cost[rows, best], cost[rows, best + 1]
    bend = before - 2 * here + after
    step = np.where(bend > 0, 0.5 * (before - after) / np.where(bend > 0, bend, 1), 0.0)
    return search[best] + np.clip(step, -1, 1) * _STEP
