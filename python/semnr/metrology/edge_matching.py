"""Each row of an edge matched to the edge's own mean profile; the edges of an image together.

Places across an edge are counted in quarter pixels from the first column of its strip that a shifted row can reach, so
that bins and samples of a profile are whole numbers: a row that lies `shift` pixels to the right puts the sample of
column j at 4 j - 4 - 4 shift. The whole part says in which bin it lies, the same for all columns but for 4 j; so rows
of one whole part are added as they are, and what is done for each sample is that one addition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .monotone_cubic import coefficients, slopes

_SEARCH = 8  # px: how far a row may lie from its edge's mean
_PARTS = 4  # steps of the search, and bins of the profile, a pixel
_ROOM = _SEARCH + 1  # columns beyond the matched ones, on either side
_SHIFTS = 2 * _SEARCH * _PARTS + 1
_PASSES = 4
_TOGETHER = 4096  # rows of all edges that are matched at once: what is made of them stays in the cache
_GRID = 2.0**40  # shifts are rounded to 1 / this: rows that lie on one place but for rounding fall into one bin


def match(rows: np.ndarray, centres: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Shifts of all rows of all edges, and the edges' mean profiles.

    Parameters
    ----------
    rows : (L, W) float64
        The image, its lines along the first axis.
    centres : (E,) int
        Column near which each edge lies.
    reach : (E, 2) int
        Columns to the left and to the right of it that are matched.

    Returns
    -------
    (shifts, profiles) : (E, L) float64 and a list of E (N,) float64
        Pixels to the right of each edge's mean, of mean 0; levels at quarter pixels from `centre - left reach - 8` on.
    """
    shifts = np.empty((len(centres), len(rows)))
    profiles: list[np.ndarray] = []
    widths, left = reach.sum(axis=1) + 1, centres - reach[:, 0] - _ROOM
    together = min(len(centres), max(1, _TOGETHER // len(rows)))
    columns = np.arange(int(widths.max()) + 2 * _ROOM)
    strips = np.empty((together, len(rows), columns.size))
    # one piece of memory for what every part makes anew: its pages are not given back and cleared again
    space = np.empty(together * len(rows) * (_SHIFTS + columns.size))
    for first in range(0, len(centres), together):
        part = slice(first, first + together)
        for strip, start in zip(strips, left[part], strict=False):
            rows.take(start + columns, axis=1, out=strip, mode="clip")  # beyond the image, its last column
        shifts[part], found = _follow(strips[: len(widths[part])], widths[part], space)
        profiles += [profile[:size] for profile, size in zip(found, _sizes(widths[part]), strict=True)]
    return shifts, profiles


def profile_places(size: int, left: int) -> np.ndarray:
    """Pixels from the edge's centre at which a profile of `match` is given, its left reach being `left`."""
    return np.arange(size) / _PARTS - left - _SEARCH


def _follow(strips: np.ndarray, widths: np.ndarray, space: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((E, L) shifts, (E, N) profiles) of edges of which `widths` columns are matched; N is that of the widest."""
    columns, many = np.arange(widths.max()), strips.shape[:2]
    matched = (columns < widths[:, None])[:, None]
    size = many[0] * many[1]
    cost, beside = (
        space[: size * _SHIFTS].reshape(*many, _SHIFTS),
        space[: 2 * size * columns.size].reshape(2, size, -1),
    )
    rows = space[size * _SHIFTS :][: size * (columns.size + 1)].reshape(*many, -1)
    rows[..., -1] = 1.0  # meets the template's own power in one product
    np.multiply(strips[..., _ROOM : _ROOM + columns.size], matched, out=rows[..., :-1])
    correlation = np.zeros(len(strips))
    profiles = _mean_profiles(strips, alike := _Alike.of(np.zeros(strips.shape[:2])), widths)
    for turn in range(_PASSES):
        np.matmul(rows, _bank(profiles, correlation, matched).transpose(0, 2, 1), out=cost)
        shifts = _lowest(cost)
        shifts -= shifts.mean(axis=1, keepdims=True)
        alike = _Alike.of(-_PARTS * (np.rint(shifts * _GRID) / _GRID))
        if turn < _PASSES - 1:
            fitted = _fitted(profiles, alike, matched, *beside)
            rest = np.subtract(rows[..., :-1], fitted, out=fitted)
            correlation = _correlation(rest, widths)
        profiles = _mean_profiles(strips, alike, widths)
    return shifts, profiles


def _sizes(widths: np.ndarray) -> np.ndarray:
    """Of the profiles: quarter pixels over all that a shifted row can reach."""
    return np.asarray(_PARTS * (widths - 1 + 2 * _SEARCH) + 1)


@dataclass(frozen=True)
class _Alike:
    """Which rows of an edge lie at one whole quarter pixel.

    `steps` (S,): the whole parts that occur, from lowest to highest. `group` (E · L,): number of each row's edge and
    whole part. `rest` (E · L,): what is left of its place, 0 to 1.
    """

    steps: np.ndarray
    group: np.ndarray
    rest: np.ndarray

    @classmethod
    def of(cls, quarters: np.ndarray) -> _Alike:
        """Of (E, L) places."""
        whole = np.floor(quarters)
        steps = np.arange(int(whole.min()), int(whole.max()) + 1)
        group = whole.astype(np.int64) - steps[0] + steps.size * np.arange(len(whole))[:, None]
        return cls(steps, group.ravel(), (quarters - whole).ravel())


def _mean_profiles(strips: np.ndarray, alike: _Alike, widths: np.ndarray) -> np.ndarray:
    """(E, N) profile of each edge from all its rows, each moved back by its shift.

    The shifts spread the samples over the pixel: means of quarter-pixel bins, joined without overshoot, have next to no
    blur of interpolation. Bins that no sample meets (straight edges) are bridged.
    """
    from scipy.sparse import csc_array

    edges, length, columns = strips.shape
    sizes = _sizes(widths)
    size, groups, each = int(sizes.max()), edges * alike.steps.size, edges * length
    adding = csc_array((np.ones(each), alike.group, np.arange(each + 1)), shape=(groups, each))
    levels = adding @ strips.reshape(each, columns)
    rows = np.bincount(alike.group, minlength=groups).reshape(edges, -1, 1)
    rest = np.bincount(alike.group, alike.rest, groups).reshape(edges, -1, 1)
    # of each column, its rows alike: bin b holds places from b - 1 up to b; what lies in none goes to a last one
    starts = _PARTS * (np.arange(columns) - 1) + alike.steps[:, None]
    inside = (starts >= -1) & (starts < sizes[:, None, None])
    inside &= (np.arange(columns) < widths[:, None] + 2 * _ROOM)[:, None]
    bins = np.where(inside, starts + 1, size + 1)
    index = (bins + (size + 2) * np.arange(edges)[:, None, None]).ravel()

    def binned(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(index, values.ravel(), edges * (size + 2)).reshape(edges, -1)
        return sums[:, :-1].ravel()

    count = binned(np.broadcast_to(rows, bins.shape))
    there = np.flatnonzero(count)
    x = binned(rows * starts + rest)[there] / count[there]
    y = binned(levels)[there] / count[there]
    first = np.searchsorted(there, np.arange(edges) * (size + 1))
    last = np.append(first[1:], there.size) - 1
    before = np.cumsum(count.reshape(edges, -1) > 0, axis=1)[:, :size] - 1  # the last knot at or below each place
    knot = first[:, None] + np.clip(before, 0, (last - first - 1)[:, None])
    at = np.clip(np.arange(size), x[first][:, None], x[last][:, None])
    linear, square, cube = coefficients(x, y, slopes(x, y, first, last))
    t = (at - x[knot]) / (x[knot + 1] - x[knot])
    return np.asarray(((cube[knot] * t + square[knot]) * t + linear[knot]) * t + y[knot])


def _bank(profiles: np.ndarray, correlation: np.ndarray, matched: np.ndarray) -> np.ndarray:
    """(E, shifts, columns + 1): what a row of pixels and a one are multiplied with to give the cost of each shift.

    The noise is a first-order autoregression along the scan; W makes it white. The cost |W (row - template)|² is, but
    for what all shifts share, template · Wᵀ W template - 2 row · Wᵀ W template: only templates are whitened. Wᵀ W takes
    from 1 + c² times a column c times both its neighbours; from the first and from the last column, c times the one.
    """
    c = correlation[:, None]
    index = _PARTS * np.arange(matched.shape[-1]) + np.arange(_SHIFTS)[::-1, None]  # its places are whole numbers
    moved = np.pad(profiles, ((0, 0), (_PARTS, _PARTS)))
    white = (1 + c**2) * profiles - c * (moved[:, : -2 * _PARTS] + moved[:, 2 * _PARTS :])
    bank = np.empty((len(profiles), *index.shape[:1], index.shape[1] + 1))
    bank[..., :-1] = white.take(index, axis=1)
    edge, ends = np.arange(len(profiles)), matched[:, 0].sum(axis=1) - 1
    for column, beyond in ((0 * ends, -_PARTS), (ends, _PARTS)):
        at = index.T[column]  # (E, shifts)
        bank[edge, :, column] += c * moved[edge[:, None], at + _PARTS + beyond] - c**2 * profiles[edge[:, None], at]
    bank[..., :-1] *= matched
    bank[..., -1] = np.einsum("edu,edu->ed", profiles.take(index, axis=1), bank[..., :-1])
    bank[..., :-1] *= -2
    return bank


def _lowest(cost: np.ndarray) -> np.ndarray:
    """The shift of the lowest cost, px, by a parabola through it and its neighbours."""
    best = np.clip(cost.argmin(axis=-1), 1, _SHIFTS - 2)
    flat = cost.reshape(-1)
    index = best + _SHIFTS * np.arange(best.size).reshape(best.shape)
    before, here, after = flat[index - 1], flat[index], flat[index + 1]
    bend = before - 2 * here + after
    step = np.where(bend > 0, 0.5 * (before - after) / np.where(bend > 0, bend, 1), 0.0)
    return np.asarray((best + np.clip(step, -1, 1)) / _PARTS - _SEARCH)


def _fitted(profiles: np.ndarray, alike: _Alike, matched: np.ndarray, out: np.ndarray, term: np.ndarray) -> np.ndarray:
    """(E, L, columns) levels of each edge's profile where its shifted rows meet it; beyond its ends it stays level."""
    edges, size = profiles.shape
    columns = matched.shape[-1]
    ends, first = _sizes(matched[:, 0].sum(axis=1)) - 1, size * np.arange(edges)
    x = np.broadcast_to(np.arange(float(size)), profiles.shape)
    slope = slopes(x.ravel(), profiles.ravel(), first, first + ends).reshape(profiles.shape)
    # of 1, t, t² and t³ in each interval, one before the first and one after the last among them
    table = np.zeros((4, edges, size + 1))
    table[0, :, 0], table[0, :, 1:] = profiles[:, 0], profiles
    table[1:, :, 1:-1] = coefficients(x, profiles, slope)
    table[1:] *= np.arange(size + 1) <= ends[:, None]
    interval = _PARTS * (np.arange(columns) + _SEARCH) + alike.steps[:, None]
    interval = np.clip(interval, -1, ends[:, None, None]) + 1 + (size + 1) * np.arange(edges)[:, None, None]
    constant, *powers = (table.reshape(4, -1).take(interval, axis=1) * matched).reshape(4, -1, columns)
    t = alike.rest[:, None]
    out[:] = 0
    for levels in reversed(powers):
        out += levels.take(alike.group, axis=0, out=term, mode="clip")  # clip: the one mode that writes to `out`
        out *= t
    out += constant.take(alike.group, axis=0, out=term, mode="clip")
    return out.reshape(edges, -1, columns)


def _correlation(rest: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """(E,) of neighbours along the scan, in what the profiles leave; 0 to 0.95."""
    power = np.einsum("elu,elu->e", rest, rest) * (widths - 1)
    lagged = np.einsum("elu,elu->e", rest[..., 1:], rest[..., :-1]) * widths
    return np.clip(np.divide(lagged, power, out=np.zeros(len(rest)), where=power > 0), 0, 0.95)
