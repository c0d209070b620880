"""Whether two images are one: a window of one is laid on the other, and what is finer than shading is correlated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from .fingerprints import SIDE, SYMMETRIES, Candidate, Window, seen_as

_GRID = 64  # px a side that are compared
# of the search: which of the two bands, on how many px a side, steps of the window's edges
_STEPS = ((0, 32, (0.04, 0.02)), (1, _GRID, (0.012, 0.006, 0.003)))
_SMALLEST, _MOST_ROUNDS = 0.6, 8
_TRIED = 3  # placements from which the search starts, by the agreement of the coarse structure there
_HOPELESS, _SURE = 0.45, 0.95  # that agreement below which none is tried; at which a search may end
_FAR = 0.5  # agreement of the fine structure, after the largest of its steps, below which the search is given up
_BLOCKS = 4  # along each side
_MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, -1], [-1, 1]])  # of begin and size, in steps
_COARSE = 0.4  # of the coarse structure below which the fine one is not looked at


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


def _lines(image: np.ndarray, places: np.ndarray, grid: int) -> np.ndarray:
    """(n, grid, columns) of an image (SIDE, columns): rows at places of n ranges (begin, size), interpolated."""
    at = (places[:, :1] + places[:, 1:] * ((np.arange(grid) + 0.5) / grid)) * SIDE - 0.5
    at = np.clip(at, 0, SIDE - 1.001)
    low = at.astype(int)
    share = (at - low).astype(np.float32)[..., None]
    first = image[low]
    return first + share * (image[low + 1] - first)


def _laid(image: np.ndarray, window: np.ndarray, grid: int) -> np.ndarray:
    """(grid, grid): what a window of an image shows."""
    across = _lines(image.T, window[None, 2:], grid)[0]
    return _lines(np.ascontiguousarray(across.T), window[None, :2], grid)[0]


def _even(image: np.ndarray) -> np.ndarray:
    """Of mean 0 and length 1; zero where it is flat."""
    centred = image - image.mean()
    length = float(np.linalg.norm(centred))
    return centred / length if length > 1e-6 else np.zeros_like(centred)


def _correlations(images: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(n,) of images (n, grid, grid) with one that is even."""
    flat = images.reshape(len(images), -1)
    energy = np.einsum("np,np->n", flat, flat) - flat.mean(axis=1) ** 2 * flat.shape[1]
    return np.asarray(flat @ wanted.ravel() / np.sqrt(np.maximum(energy, 1e-9)))


def _around(image: np.ndarray, wanted: np.ndarray, window: np.ndarray, step: float) -> tuple[float, np.ndarray]:
    """The best of twelve windows near one: one edge moved, or the window moved as a whole, along either axis.

    What does not move is interpolated once for six of them.
    """
    best, found, grid = -1.0, window, len(wanted)
    for axis, turned, goal in ((0, image.T, wanted), (2, image, np.ascontiguousarray(wanted.T))):
        other = 2 - axis
        still = np.ascontiguousarray(_lines(turned, window[None, other : other + 2], grid)[0].T)
        places = window[axis : axis + 2] + step * _MOVES
        begin, size = places.T
        inside = (size >= _SMALLEST) & (begin >= -step) & (begin + size <= 1 + step)
        if inside.any():
            places = places[inside]
            values = _correlations(_lines(still, places, grid), goal)
            at = int(values.argmax())
            if values[at] > best:
                best, found = float(values[at]), window.copy()
                found[axis : axis + 2] = places[at]
    return best, found


def best_match(a: Bands, b: Bands, placements: Sequence[Candidate], enough: float) -> tuple[float, Window, Candidate]:
    """The greatest correlation of the fine structure over placements of `b` on `a`, the window of `a` that shows `b`,
    and the placement that led there. The search ends where `enough` is reached."""
    starts = []
    for k, one in enumerate(placements):
        begin, wanted = _laid(a.coarse, np.array(one.window), _STEPS[0][1]), _wanted(b, one, 0)
        starts.append((float(_correlations(begin[None], wanted)[0]), -k))
    best = (0.0, placements[0].window, placements[0])
    for value, k in sorted(starts, reverse=True)[:_TRIED]:
        if value < _HOPELESS:
            break
        found, window = _climbed(a, b, placements[-k])
        if found > best[0]:
            best = found, window, placements[-k]
        if found >= enough:
            break
    return best


def _wanted(b: Bands, placed: Candidate, step: int) -> np.ndarray:
    """What the part of `b` shows that is looked for, in the band and on the grid of a step."""
    band, grid, _ = _STEPS[step]
    return _even(_laid(seen_as((b.coarse, b.fine)[band], placed.symmetry), np.array(placed.part), grid))


def _climbed(a: Bands, b: Bands, placed: Candidate) -> tuple[float, Window]:
    """The correlation of the fine structure, and the window of `a` at which `b` shows it, from a placement on."""
    window = np.array(placed.window)
    for k, (band, grid, steps) in enumerate(_STEPS):
        one, wanted = (a.coarse, a.fine)[band], _wanted(b, placed, k)
        value = float(_correlations(_laid(one, window, grid)[None], wanted)[0])
        for step in steps:
            for _ in range(_MOST_ROUNDS):
                best, place = _around(one, wanted, window, step)
                if best <= value or value > _SURE:
                    break
                value, window = best, place
            if value < (_FAR if band else _COARSE):
                return 0.0, placed.window
    laid, other = _laid(a.fine, window, _GRID), _laid(seen_as(b.fine, placed.symmetry), np.array(placed.part), _GRID)
    top, height, left, width = window.tolist()
    return _by_block(laid, other), (top, height, left, width)


def _by_block(a: np.ndarray, b: np.ndarray) -> float:
    """Mean correlation of 4 × 4 blocks: a few edges that happen to agree do not make two images one."""
    side = _GRID // _BLOCKS
    places = [(slice(y, y + side), slice(x, x + side)) for y in range(0, _GRID, side) for x in range(0, _GRID, side)]
    return float(np.mean([(_even(a[place]) * _even(b[place])).sum() for place in places]))


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
