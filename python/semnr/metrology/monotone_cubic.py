"""Monotone cubic interpolation (PCHIP) of many short curves at once.

The definition is SciPy's `PchipInterpolator`: F. N. Fritsch and J. Butland, SIAM J. Sci. Stat. Comput. 5, 300 (1984),
with three-point ends. Curves of different lengths stand one after another in one flat array, so that a call of NumPy
serves all of them.
"""

from __future__ import annotations

import numpy as np


def slopes(x: np.ndarray, y: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Derivatives at the knots.

    Parameters
    ----------
    x, y : (K,) float64
        Knots of all curves, one curve after another; x rises within a curve.
    first, last : (curves,) int
        Where each curve begins and ends (inclusive); at least three knots each.

    Returns
    -------
    (K,) float64
    """
    gap, rise = np.diff(x), np.diff(y)
    gap[last[:-1]], rise[last[:-1]] = 1.0, 0.0  # from one curve to the next: no interval
    chord = rise / gap
    before, after = chord[:-1], chord[1:]
    out = np.zeros_like(y)
    wide, narrow = 2 * gap[1:] + gap[:-1], gap[1:] + 2 * gap[:-1]
    # the weighted harmonic mean of both chords where they go one way, else 0
    down = wide * after + narrow * before
    one_way = before * after > 0
    np.divide((wide + narrow) * before * after, down, out=out[1:-1], where=one_way)
    out[first] = _end(gap[first], gap[first + 1], chord[first], chord[first + 1])
    out[last] = _end(gap[last - 1], gap[last - 2], chord[last - 1], chord[last - 2])
    return out


def coefficients(x: np.ndarray, y: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of t, t² and t³ in each interval, t from 0 to 1 across it; the constant is y at its left knot.

    Parameters
    ----------
    x, y, slope : (..., K) float64
        Knots, values and derivatives of `slopes`.

    Returns
    -------
    tuple of three (..., K - 1) float64
    """
    gap, rise = x[..., 1:] - x[..., :-1], y[..., 1:] - y[..., :-1]
    left, right = gap * slope[..., :-1], gap * slope[..., 1:]
    return left, 3 * rise - 2 * left - right, left + right - 2 * rise


def _end(gap: np.ndarray, next_gap: np.ndarray, chord: np.ndarray, next_chord: np.ndarray) -> np.ndarray:
    """The three-point derivative at an end, kept from turning and from overshooting."""
    d = ((2 * gap + next_gap) * chord - gap * next_chord) / (gap + next_gap)
    d = np.where((np.sign(chord) != np.sign(next_chord)) & (np.abs(d) > 3 * np.abs(chord)), 3 * chord, d)
    return np.asarray(np.where(np.sign(d) != np.sign(chord), 0.0, d))
