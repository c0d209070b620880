"""Whether two images are one: a window of one is laid on the other, and what is finer than shading is correlated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from .fingerprints import SIDE, SYMMETRIES, Candidate, Window, seen_as

_GRID = 64  # px that are compared
_STEPS = ((0, (0.04, 0.02)), (1, (0.012, 0.006, 0.003)))  # of the search: which of the two bands, steps of its edges
_SMALLEST, _MOST_ROUNDS = 0.6, 8
_HOPELESS, _SURE = 0.2, 0.95  # correlation at which the search is given up, and at which it may end
_BLOCKS = 4  # along each side
_COARSE = 0.4  # correlation of the coarse structure below which the fine one is not looked at


@dataclass(frozen=True)
class Bands:
    """A thumbnail without its shading: what is coarse, and what is fine."""

    coarse: np.ndarray
    fine: np.ndarray


def bands(thumbnail: np.ndarray) -> Bands:
    """What is compared of a thumbnail (SIDE, SIDE): structure of about 20 and of about 5 px."""
    shading = gaussian_filter(thumbnail, 12, mode="nearest")
    return Bands(
        (gaussian_filter(thumbnail, 3, mode="nearest") - shading).astype(np.float32),
        (gaussian_filter(thumbnail, 0.8, mode="nearest") - gaussian_filter(thumbnail, 3, mode="nearest")).astype(
            np.float32
        ),
    )


def _sampled(begin: float, size: float) -> np.ndarray:
    """(_GRID, SIDE): linear interpolation of a line at _GRID places of a window."""
    at = (begin + size * (np.arange(_GRID) + 0.5) / _GRID) * SIDE - 0.5
    at = np.clip(at, 0, SIDE - 1.001)
    low = at.astype(int)
    taps = np.zeros((_GRID, SIDE), np.float32)
    taps[np.arange(_GRID), low] = 1 - (at - low)
    taps[np.arange(_GRID), low + 1] = at - low
    return taps


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    energy = float((a * a).sum() * (b * b).sum())
    return float((a * b).sum()) / np.sqrt(energy) if energy > 1e-9 else 0.0


def correlation(a: Bands, b: Bands, candidate: Candidate) -> tuple[float, Window]:
    """The greatest correlation of the fine structure, and the window of `a` at which `b` shows it."""
    window, part = list(candidate.window), candidate.part
    down, right = _sampled(*part[:2]), _sampled(*part[2:]).T
    value = -1.0
    for band, steps in _STEPS:
        one, other = ((x.coarse, x.fine)[band] for x in (a, b))
        wanted = down @ seen_as(other, candidate.symmetry) @ right

        def at(place: list[float], one: np.ndarray = one, wanted: np.ndarray = wanted) -> float:
            return _correlation(_sampled(*place[:2]) @ one @ _sampled(*place[2:]).T, wanted)

        value = at(window)
        if not band and value < _HOPELESS:
            return 0.0, candidate.window
        for step in steps:
            for _ in range(_MOST_ROUNDS):
                tried = [(at(place), place) for place in _near(window, step)]
                best, place = max(tried, key=lambda pair: pair[0], default=(-1.0, window))
                if best <= value or value > _SURE:
                    break
                value, window = best, place
        if value < _COARSE:
            return value if band else 0.0, candidate.window
    laid = _sampled(*window[:2]) @ a.fine @ _sampled(*window[2:]).T
    other = down @ seen_as(b.fine, candidate.symmetry) @ right
    return _by_block(laid, other), (window[0], window[1], window[2], window[3])


def _by_block(a: np.ndarray, b: np.ndarray) -> float:
    """Mean correlation of 4 × 4 blocks: a few edges that happen to agree do not make two images one."""
    side = _GRID // _BLOCKS
    places = [(slice(y, y + side), slice(x, x + side)) for y in range(0, _GRID, side) for x in range(0, _GRID, side)]
    return float(np.mean([_correlation(a[place], b[place]) for place in places]))


def _near(window: list[float], step: float) -> list[list[float]]:
    """Windows with one edge moved, or moved as a whole, by a step; inside the image."""
    moved = []
    for axis in (0, 2):
        for begin, size in ((step, 0), (-step, 0), (0, step), (0, -step), (step, -step), (-step, step)):
            place = list(window)
            place[axis], place[axis + 1] = window[axis] + begin, window[axis + 1] + size
            if place[axis + 1] >= _SMALLEST and place[axis] >= -step and place[axis] + place[axis + 1] <= 1 + step:
                moved.append(place)
    return moved


def described(window: Window, part: Window, symmetry: int) -> str:
    """How the second image of a pair was made of the first, in words."""
    turned, down, right = SYMMETRIES[symmetry]
    _, height, _, width = window
    told = []
    if turned and down != right:
        told.append("turned by a quarter")
    elif turned:
        told.append("mirrored at a diagonal")
    elif down and right:
        told.append("turned by half")
    elif down or right:
        told.append("mirrored")
    if min(part[1], part[3]) < 1:
        told.append("fields that overlap")
    elif min(height, width) < 0.985:
        told.append(f"cropped to {min(width, 1):.0%} × {min(height, 1):.0%}")
    return ", ".join(told) or "the same field"
