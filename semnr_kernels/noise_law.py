"""The noise law of images in NumPy and float64: the definition of the op `noise`, for those who do without torch too.

The model is Poisson-Gaussian (Foi et al. 2008, doi 10.1109/TIP.2008.2001399): var = gain · mean + offset. The noise
of a real detector is low-passed along the scan line (neighbours correlate by about 0.5) while lines are independent,
so every variance here is taken from differences *across* lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

_BINS = 48  # intensity levels that are told apart
_TIE = 4e-4  # of a bin
LAGS = 4  # pixels along the line over which the correlation is followed
_TRUNCATED = 0.97334  # variance left of a normal distribution cut at 3 sigma
SIGNIFICANT = 4.0  # standard errors from which a gain counts
_MUCH_CLIPPED = 0.05  # share of clipped pixels from which these, and their neighbours, take no part
_LEAST_FREE = 2000  # pixels that a law can be taken from, where many are clipped
PILED = 1e-4  # share of the pixels at an extreme from which it is an end of the scale, where nothing says
STOPPED = 2e-4  # the same within a scale that is known: 12-bit data in 16 bits, a detector with an offset
NEAR = 0.02  # of the range of the pixels
FAINT = 1e-3  # of them lie next to it, or nothing was cut off: the image is drawn
TAIL = 0.25  # times the pixels in it: more lie at an extreme that is an end
KEPT = 3.5  # times the ratio of the flattest fifth, up to which pixels are kept
CUT = 16.0  # squared differences over the law's variance are cut here, so that structure cannot outweigh the rest
SOME = 4096  # pixels of a window that tell the step of its scale
LEAST_FLAT = 500  # pixels that `Spacing` is taken from, at least


def spectrum_along(taps: Sequence[float] | np.ndarray, frequency: Any) -> np.ndarray:
    """Power along the scan line, at frequencies in cycles per pixel, of the noise that `taps` make white."""
    phase = np.exp(-2j * np.pi * np.multiply.outer(np.asarray(frequency, np.float64), np.arange(len(taps))))
    power: np.ndarray = 1 / np.abs(phase @ np.asarray(taps, np.float64)) ** 2
    return power


class Ends(NamedTuple):
    """Ends of the scale in grey levels, and the share of the pixels from which one counts as clipping."""

    low: float
    high: float
    piled: float


class Spacing(NamedTuple):
    """Mean squares of second differences over the law's variance, in the flattest fifth of the pixels.

    across1, across2, across3: between lines 1, 2 and 3 apart; along1, along2: between pixels 1 and 2 apart on a line.
    Lines that are independent have across = 1; where they were averaged, scaled or filtered, across1 is less than
    across2. alternate: share of `across1` that even and odd lines owe to a difference of their levels. All NaN: too few
    pixels.
    """

    across1: float = math.nan
    across2: float = math.nan
    across3: float = math.nan
    along1: float = math.nan
    along2: float = math.nan
    alternate: float = math.nan


class Fitted(NamedTuple):
    """The line variance = gain · level + offset, its points, the share of the pixels that it was taken from (0 where
    all are clipped, or nearly), products of neighbours along the line by lag, how differences grow with distance."""

    gain: float
    offset: float
    gain_se: float
    clipped_low: float
    clipped_high: float
    levels: tuple[float, ...]
    variances: tuple[float, ...]
    counts: tuple[float, ...]
    unclipped: float
    products: tuple[tuple[float, float], ...]
    spacing: Spacing = Spacing()


def ends_of(windows: Sequence[np.ndarray], data_range: float | None) -> Ends:
    """Where nothing says how far the scale goes, the extremes are its ends, if pixels pile up there.

    A scale that is known may end earlier for the detector: then pixels pile up at a level inside it.
    """
    low, high = min(float(x.min()) for x in windows), max(float(x.max()) for x in windows)
    if not data_range:
        return Ends(low, high, PILED)
    near = NEAR * (high - low)
    stops_low = low > 0 and _stops(windows, lambda x: x == low, lambda x: x <= low + near)
    stops_high = high < data_range and _stops(windows, lambda x: x == high, lambda x: x >= high - near)
    return Ends(low if stops_low else 0.0, high if stops_high else data_range, 0.0)


def step_of(windows: Sequence[np.ndarray]) -> float:
    """Step of the grey scale that whole-numbered windows use, by the first pixels of each; 0 for floating windows."""
    if any(x.dtype.kind not in "ui" for x in windows):
        return 0.0
    some = np.concatenate([x.ravel()[:: max(1, x.size // SOME)] for x in windows]).astype(np.int64)
    return float(np.gcd.reduce(some - some.min()) or 1)


def _stops(windows: Sequence[np.ndarray], at: Callable[..., Any], near: Callable[..., Any]) -> bool:
    """Whether an extreme holds as many pixels as no tail of noise does, beside those of the levels next to it."""
    piled = sum(int(np.count_nonzero(at(x))) for x in windows)
    if piled <= STOPPED * sum(x.size for x in windows):
        return False
    beside = sum(int(np.count_nonzero(near(x))) for x in windows) - piled
    return beside > FAINT * piled and piled > TAIL * beside


def fitted(windows: Sequence[np.ndarray], ends: Ends) -> Fitted:
    """One law for float64 windows of at least 5 x 5 finite pixels, scan lines as rows."""
    pixels = sum(x.size for x in windows)
    clipped_low = sum(int((x <= ends.low).sum()) for x in windows) / pixels
    clipped_high = sum(int((x >= ends.high).sum()) for x in windows) / pixels
    inside = (
        ends.low if clipped_low > ends.piled else -math.inf,
        ends.high if clipped_high > ends.piled else math.inf,
    )
    fields = [_fields(x) for x in windows]
    level, difference, slope = (np.concatenate([f[i].ravel() for f in fields]) for i in range(3))
    free = np.ones(level.size, dtype=bool)
    if clipped_low + clipped_high > _MUCH_CLIPPED:  # a pixel that is clipped has no noise, nor tells its neighbours'
        free = np.concatenate([_unclipped(x, inside).ravel() for x in windows])
    enough = int(free.sum()) >= _LEAST_FREE
    if not enough:
        free[:] = True
    gain, offset, gain_se, points, kept, flattest = _fit(level[free], difference[free], slope[free], inside)
    keep, flat = np.zeros(level.size, dtype=bool), np.zeros(level.size, dtype=bool)
    keep[free], flat[free] = kept, flattest
    if not abs(gain) > SIGNIFICANT * gain_se:  # also where the levels are too few for a line
        gain, offset = 0.0, float(np.average(points[1], weights=points[2]))
    floor = 0.5 * float(points[1].min())

    def sigma(at: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(gain * at + offset, floor))

    found = tuple((float(p), float(q)) for p, q in _products(fields, keep, sigma))
    unclipped = float(free.mean()) if enough else 0.0
    levels, variances, counts = (tuple(v.tolist()) for v in points)
    spacing = _spacing(windows, flat, sigma(level))
    return Fitted(
        gain, offset, gain_se, clipped_low, clipped_high, levels, variances, counts, unclipped, found, spacing
    )


STEPS = ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2))  # axis and distance of the differences of `Spacing`


def _spacing(windows: Sequence[np.ndarray], flat: np.ndarray, sigma: np.ndarray) -> Spacing:
    """Of the pixels `flat` that are 3 lines from the border or more; both as in `fitted`, window after window."""
    start, count = 0, 0
    sums, alternate = np.zeros(len(STEPS)), 0.0
    for x in windows:
        inner = (x.shape[0] - 2, x.shape[1] - 4)
        part = slice(start, start + inner[0] * inner[1])
        start = part.stop
        if inner[0] < 5:
            continue
        good, unit = flat[part].reshape(inner)[2:-2], sigma[part].reshape(inner)[2:-2]
        scale = math.sqrt(6.0) * np.where(unit > 0, unit, 1.0)
        middle = x[3:-3, 2:-2]
        found = []
        for axis, apart in STEPS:
            ends = np.roll(x, apart, axis) + np.roll(x, -apart, axis)
            found.append(((ends[3:-3, 2:-2] - 2 * middle) / scale)[good])
        sums += [np.minimum(u**2, CUT).sum() for u in found]
        sign = np.broadcast_to(1.0 - 2.0 * (np.arange(middle.shape[0]) % 2)[:, None], middle.shape)[good]
        here = found[0].size
        count += here
        if here:
            alternate += float((sign * found[0]).sum()) ** 2 / here
    if count < LEAST_FLAT:
        return Spacing()
    return Spacing._make([*(float(v) / count for v in sums), alternate / max(float(sums[0]), 1e-300)])


def _fields(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level, second difference across lines (scaled to the noise's variance) and squared structure, on the interior."""
    from scipy import ndimage

    difference = np.zeros_like(x)
    difference[1:-1] = (x[:-2] - 2 * x[1:-1] + x[2:]) / math.sqrt(6.0)
    # the three lines of the level enter with equal weight, which makes it uncorrelated with the difference
    level = ndimage.uniform_filter(x, (3, 5), mode="nearest")
    # Three looks for structure, each scaled to a fifth of the noise's variance in plain noise: slope across the
    # lines, slope along them, and a bend across the lines that neighbours to both sides share (columns so far off
    # that their noise is another one: choosing by it does not choose small differences).
    side = ndimage.uniform_filter1d(x, 5, axis=1, mode="nearest")
    across = ndimage.correlate1d(side, np.array([-1, 0, 1]) / math.sqrt(2), axis=0, mode="nearest")
    side = ndimage.uniform_filter1d(x, 5, axis=0, mode="nearest")
    along = ndimage.correlate1d(side, np.array([-1, -1, 0, 1, 1]) / 2, axis=1, mode="nearest")
    ring = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]) / 10
    bend = math.sqrt(2) * ndimage.correlate1d(difference, ring, axis=1, mode="nearest")
    structure = np.maximum(np.maximum(across**2, along**2), bend**2)
    inner = (slice(1, -1), slice(2, -2))
    return level[inner], difference[inner], structure[inner]


def _unclipped(x: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Of the interior: where no pixel that enters the level or the difference is clipped."""
    from scipy import ndimage

    clipped = (x <= ends[0]) | (x >= ends[1])
    near = ndimage.maximum_filter(clipped, (3, 5), mode="nearest")
    free: np.ndarray = ~near[1:-1, 2:-2]
    return free


def _fit(
    level: np.ndarray, difference: np.ndarray, slope: np.ndarray, ends: tuple[float, float]
) -> tuple[float, float, float, np.ndarray, np.ndarray, np.ndarray]:
    """Reject structure, measure the variance per level, fit the line; four rounds, each with the last one's line.

    Also which pixels were kept, and the flattest fifth.
    """
    low, high = np.quantile(level, (0.001, 0.999))
    # off the levels that whole grey levels make: a pixel on an edge would go by the rounding of its mean
    edges = np.linspace(low, high, _BINS + 1) - _TIE * (high - low) / _BINS
    index = np.clip(np.searchsorted(edges, level, side="right") - 1, 0, _BINS - 1)
    keep = slope <= np.quantile(slope, 0.25) * (1 + 1e-5)
    gain, offset, gain_se = 0.0, 0.0, math.nan
    for _ in range(4):
        points = points_of(level, difference, index, keep)
        sigma = np.sqrt(np.maximum(points[1], 0))
        inside = (points[0] - 2.5 * sigma > ends[0]) & (points[0] + 2.5 * sigma < ends[1])
        gain, offset, gain_se = line_through(points[:, inside] if inside.sum() >= 2 else points)
        floor = 0.25 * float(np.quantile(points[1], 0.25))
        variance = np.maximum(gain * level + offset, floor)
        # in noise alone slope / variance has the same law everywhere; its lowest fifth says what is usual
        ratio = slope / np.where(variance > 0, variance, 1.0)
        flattest = float(np.quantile(ratio, 0.2))
        keep = ratio <= KEPT * flattest
    points = points[:, inside] if inside.any() else points
    return gain, offset, gain_se, points, keep, ratio <= flattest


def points_of(level: np.ndarray, difference: np.ndarray, index: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Rows: mean level, robust variance, count of every bin that holds enough pixels."""
    order = np.argsort(index[keep], kind="stable")
    bounds = np.searchsorted(index[keep][order], np.arange(_BINS + 1))
    values, levels = difference[keep][order], level[keep][order]
    enough = max(50, 0.002 * values.size)
    rows = []
    for a, b in pairwise(bounds):
        if b - a >= enough:
            rows.append((levels[a:b].mean(), _variance(values[a:b]), b - a))
    return np.array(rows or [(levels.mean(), _variance(values), values.size)]).T


def _variance(values: np.ndarray) -> float:
    """Variance about zero of the core of a distribution: cut at 3 sigma, corrected for the cut."""
    square = values**2
    variance = float(np.median(square)) / 0.4549
    if variance <= 0:  # integers with almost no noise: the median difference is zero
        variance = float(square.mean())
    for _ in range(6):
        core = square <= 9 * variance
        variance = float(square[core].mean()) / _TRUNCATED if core.any() else variance
    return variance


def line_through(points: np.ndarray) -> tuple[float, float, float]:
    """Weighted line through (level, variance), outliers turned down; its gain's standard error."""
    level, variance, count = points
    if level.size < 3 or np.ptp(level) <= 0:
        return 0.0, float(np.average(variance, weights=count)), math.nan
    middle = level.mean()
    level = level - middle  # the fit must not feel a pedestal: 40,000 grey levels under a spread of 2
    fitted = np.full_like(variance, np.average(variance, weights=count))
    robust = np.ones_like(variance)
    design = np.stack([level, np.ones_like(level)], axis=1)
    for _ in range(10):
        weight = robust * count / np.maximum(fitted, 1e-3 * fitted.max() + 1e-300) ** 2
        normal = design.T @ (weight[:, None] * design)
        if not np.linalg.det(normal) > 1e-12 * normal[0, 0] * normal[1, 1]:  # the levels that count are one
            return 0.0, float(np.average(variance, weights=count)), math.nan
        gain, offset = np.linalg.solve(normal, design.T @ (weight * variance))
        fitted = np.maximum(gain * level + offset, 0.25 * variance.min())
        relative = (variance - fitted) / np.maximum(fitted, 1e-300)
        spread = 1.4826 * np.median(np.abs(relative)) + 0.01
        robust = 1 / np.maximum(1, np.abs(relative) / (1.5 * spread))
    chi2 = float((weight * (variance - gain * level - offset) ** 2).sum()) / max(1, level.size - 2)
    return float(gain), float(offset - gain * middle), float(math.sqrt(chi2 * np.linalg.inv(normal)[0, 0]))


def _products(fields: Sequence[tuple[np.ndarray, ...]], keep: np.ndarray, sigma: Callable[..., Any]) -> np.ndarray:
    """By lag, of neighbours along the line that are kept, over the normalised differences."""
    start = 0
    products = np.zeros((LAGS, 2))
    for level, difference, _ in fields:
        here = sigma(level)
        unit = difference / np.where(here > 0, here, 1.0)
        good = keep[start : start + level.size].reshape(level.shape) & (np.abs(unit) < 4)
        start += level.size
        products += lag_products(unit, good)
    return products


def lag_products(x: np.ndarray, good: np.ndarray) -> np.ndarray:
    """(lags, 2): sum of the products of neighbours on the line, both of them good, and of their mean squares."""
    products = np.zeros((LAGS, 2))
    for lag in range(1, min(LAGS, x.shape[1] - 1) + 1):
        both = good[:, lag:] & good[:, :-lag]
        a, b = x[:, lag:][both], x[:, :-lag][both]
        products[lag - 1] = ((a * b).sum(), 0.5 * ((a**2).sum() + (b**2).sum()))
    return products
