"""The fit of the noise law in torch operations, all tiles of a batch at once, on any device: nothing waits for a value.

Pixels are sorted by bin and size of their difference once; which of them take part is a mask over that order, so that
counts, ranks and sums of a bin are differences of running sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .. import batched
from ..batched import by_tile
from ..convolution import conv2d
from ..noise_law import (
    _BINS,
    _LEAST_FREE,
    _MUCH_CLIPPED,
    _TIE,
    _TRUNCATED,
    CUT,
    FAINT,
    KEPT,
    LAGS,
    LEAST_FLAT,
    NEAR,
    PILED,
    SIGNIFICANT,
    SOME,
    STEPS,
    STOPPED,
    TAIL,
    Ends,
    Fitted,
    Spacing,
)

_LEAST_BIN, _SHARE_OF_BIN = 50, 0.002  # pixels that a bin must hold
_FEW = math.ceil(_BINS * _LEAST_BIN)  # of fewer pixels, it may be that no bin holds enough
_ROUNDS, _CUTS, _LINES = 4, 6, 10
_PREDICTABLE, _SHRINK, _ORDER = 0.02, 0.98, 3  # as `semnr.noise.NoiseModel.whitening`
_SHRINKS = 256  # 0.98 to that power leaves nothing


class Laws(NamedTuple):
    """(N, ...) float64 each: as `noise_law.Fitted`, the points of all bins with those that count marked."""

    gain: torch.Tensor
    offset: torch.Tensor
    gain_se: torch.Tensor
    clipped_low: torch.Tensor
    clipped_high: torch.Tensor
    levels: torch.Tensor  # (N, bins)
    variances: torch.Tensor
    sizes: torch.Tensor
    counted: torch.Tensor  # (N, bins) bool, or 0 and 1
    unclipped: torch.Tensor
    products: torch.Tensor  # (N, LAGS, 2)
    spacing: torch.Tensor  # (N, 6), see `Spacing`
    floor: torch.Tensor  # half of the smallest variance measured


def fit(sets: Sequence[Sequence[torch.Tensor]], ends: Sequence[Ends]) -> list[Fitted]:
    """As `reference.fit`: sets whose windows have the same sizes together."""
    return fitted(sets, ends, laws)


def fitted(sets: Sequence[Sequence[torch.Tensor]], ends: Sequence[Ends], laws: Callable[..., Laws]) -> list[Fitted]:
    """As `fit`, by the function that fits a batch."""
    groups: dict[tuple[torch.Size, ...], list[int]] = {}
    for i, windows in enumerate(sets):
        groups.setdefault(tuple(window.shape for window in windows), []).append(i)
    found: dict[int, Fitted] = {}
    for members in groups.values():
        stacks = [torch.stack(same) for same in zip(*(sets[i] for i in members), strict=True)]
        limits = torch.tensor([ends[i] for i in members], dtype=torch.float64).to(stacks[0].device)
        for i, law in zip(members, told(batched.on_host(laws(stacks, *limits.unbind(1))._asdict())), strict=True):
            found[i] = law
    return [found[i] for i in range(len(sets))]


def told(rows: dict[str, np.ndarray]) -> list[Fitted]:
    """Laws that have come back from the device, one a tile."""
    out = []
    for i, kept in enumerate(rows["counted"].astype(bool)):
        points = [tuple(rows[name][i][kept].tolist()) for name in ("levels", "variances", "sizes")]
        numbers = [float(rows[name][i]) for name in ("gain", "offset", "gain_se", "clipped_low", "clipped_high")]
        products = tuple((float(p), float(q)) for p, q in rows["products"][i])
        spacing = Spacing(*rows["spacing"][i].tolist())
        out.append(Fitted(*numbers, *points, float(rows["unclipped"][i]), products, spacing))  # type: ignore[call-arg, arg-type]
    return out


def laws(windows: Sequence[torch.Tensor], low: torch.Tensor, high: torch.Tensor, piled: torch.Tensor) -> Laws:
    """One law a tile.

    windows: (N, h, w) each, at least 5 x 5, finite, scan lines as rows. low, high, piled: (N,) float64, see `Ends`.
    """
    pixels = sum(v.shape[1] * v.shape[2] for v in windows)
    windows = [v if v.dtype in (torch.uint8, torch.float64) else v.float() for v in windows]
    first = windows[0]
    level = first.sum((1, 2), dtype=torch.float64) / first[0].numel()
    level = (
        level.float().double() if first.is_floating_point() else level
    ).round()  # of integers what is left is exact
    below, above = ([_beyond(v, end, side) for v in windows] for end, side in ((low, -1), (high, 1)))
    clipped_low, clipped_high = (
        sum(v.sum((1, 2)) for v in ends).double() / pixels  # type: ignore[union-attr]
        for ends in (below, above)
    )
    at_low, at_high = clipped_low > piled, clipped_high > piled
    inside = torch.where(at_low, low, -torch.inf), torch.where(at_high, high, torch.inf)
    centred = [(v - by_tile(level, v).to(_kind(v))).float() for v in windows]
    fields = [_fields(v) for v in centred]
    flat = [torch.cat([one[k].flatten(1) for one in fields], 1) for k in range(3)]
    near = torch.cat(
        [
            _near((one & by_tile(at_low, one)) | (other & by_tile(at_high, other))).flatten(1)
            for one, other in zip(below, above, strict=True)
        ],
        1,
    )
    free = ~(near & (clipped_low + clipped_high > _MUCH_CLIPPED)[:, None])
    enough = free.sum(1) >= _LEAST_FREE
    unclipped = torch.where(enough, free.double().mean(1), 0.0)
    free = free | ~enough[:, None]
    level_at, difference, slope = flat
    line, points, keep, flattest = _line_of(level_at, difference, slope, free, level, inside)
    gain, offset, gain_se = line
    known = gain.abs() > SIGNIFICANT * gain_se  # not where the levels are too few for a line
    flat_line = _average(points.variance, points.size, points.used)
    gain, offset = torch.where(known, gain, 0.0), torch.where(known, offset, flat_line)
    floor = 0.5 * torch.where(points.used, points.variance, torch.inf).amin(1)
    sigma = _sigma_at(level_at, gain, offset + gain * level, floor)
    unit = torch.where(sigma > 0, difference / sigma, difference)
    unit = torch.where(keep & (unit.abs() < 4), unit, torch.nan)  # NaN: takes no part
    sizes = [one[0].shape[1:] for one in fields]
    products, spacing = _products(unit, sizes), _spacing(centred, flattest, sigma, sizes)
    return Laws(
        gain, offset, gain_se, clipped_low, clipped_high, *points, unclipped, products, spacing, floor
    )  # fmt: skip


def ends(windows: Sequence[torch.Tensor], data_range: float | None) -> tuple[torch.Tensor, ...]:
    """As `noise_law.ends_of`: low, high and piled of (N, h, w) windows, (N,) float64 each."""
    parts = [(v if v.dtype == torch.float64 else v.float()).flatten(1) for v in windows]
    v = torch.cat(parts, 1)
    low, high = v.amin(1).double(), v.amax(1).double()
    if not data_range:
        return low, high, torch.full_like(low, PILED)
    near = NEAR * (high - low)
    found = []
    for side, end in ((1, low), (-1, high)):
        piled = (v == end[:, None].to(v.dtype)).sum(1)
        around = (side * v <= (side * end + near)[:, None].to(v.dtype)).sum(1) - piled
        stops = (piled > STOPPED * v.shape[1]) & (piled > TAIL * around) & (around > FAINT * piled)
        inside = end > 0 if side > 0 else end < data_range
        found.append(torch.where(stops & inside, end, 0.0 if side > 0 else data_range))
    return *found, torch.zeros_like(low)


def steps(windows: Sequence[torch.Tensor]) -> torch.Tensor:
    """As `noise_law.step_of`: (N,) float64."""
    first = windows[0]
    if any(v.dtype.is_floating_point for v in windows):
        return torch.zeros(len(first), dtype=torch.float64, device=first.device)
    some = torch.cat([v.flatten(1)[:, :: max(1, v[0].numel() // SOME)].int() for v in windows], 1)
    left = some - some.amin(1, keepdim=True)
    while (size := left.shape[1]) > 1:
        left = torch.gcd(left[:, : size - size // 2], F.pad(left[:, size - size // 2 :], (0, size % 2)))
    return left[:, 0].clamp(min=1).double()


def whitening(products: torch.Tensor) -> torch.Tensor:
    """(N, 4) float64: taps that make the noise white along the line, as `semnr.noise.NoiseModel.whitening`.

    The prediction by Levinson's recursion for lags that are measured, and for those times 0.98, 0.98², ...: the first
    that some process can have is taken.
    """
    p, q = products.unbind(-1)
    lags = torch.where(q > 0, p / torch.where(q > 0, q, 1.0), 0.0)[:, :_ORDER, None]
    one, two, three = (lags * batched.table(_shrinks, products.device)).unbind(1)  # (N, shrinks)
    e1 = 1 - one.square()
    k2 = (two - one * one) / e1
    a1, e2 = one * (1 - k2), e1 * (1 - k2.square())
    k3 = (three - a1 * two - k2 * one) / e2
    left = e2 * (1 - k3.square())
    good = (e1 > 0) & (e2 > 0) & (left > _PREDICTABLE)
    taps = torch.stack([torch.ones_like(one), -(a1 - k3 * k2), -(k2 - k3 * a1), -k3], 1) / left.sqrt()[:, None]
    first = good.byte().argmax(1)
    return taps.gather(2, first[:, None, None].expand(-1, 4, 1))[..., 0]


def _shrinks() -> np.ndarray:
    out: np.ndarray = _SHRINK ** np.arange(_SHRINKS)
    return out


# --- pixels ---


def _kind(v: torch.Tensor) -> torch.dtype:
    return v.dtype if v.is_floating_point() else torch.float32


def _beyond(v: torch.Tensor, end: torch.Tensor, side: int) -> torch.Tensor:
    """Where a window is clipped."""
    at = by_tile(end, v).to(_kind(v))
    return v <= at if side < 0 else v >= at


def _near(clipped: torch.Tensor) -> torch.Tensor:
    """Of the interior: where a pixel that enters the level or the difference is clipped."""
    return F.max_pool2d(clipped.float()[:, None], (3, 5), 1)[:, 0] > 0


def _masks() -> np.ndarray:
    """(5, 1, 5, 15): level, difference, the slopes across and along, the bend, each times a number that makes its
    weights whole, so that whole grey levels give whole numbers."""
    out = np.zeros((5, 5, 15), np.float32)
    middle, near = slice(5, 10), slice(1, 4)
    out[0, near, middle] = 1
    out[1, near, 7] = 1, -2, 1
    out[2, 1, middle], out[2, 3, middle] = -1, 1
    out[3, :, middle] = -1, -1, 0, 1, 1
    for columns in (slice(0, 5), slice(10, 15)):
        out[4, near, columns] = np.array([1, -2, 1])[:, None]
    return out[:, None]


def _fields(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Level, second difference across lines (scaled to the noise's variance) and squared structure, on the interior."""
    around = F.pad(v[:, None], (5, 5, 1, 1), mode="replicate")
    found = conv2d(around, batched.table(_masks, v.device))
    level, difference, across, along, bend = found.unbind(1)
    structure = torch.maximum(across.square() / 50, along.square() / 100)
    return level / 15, difference / math.sqrt(6.0), torch.maximum(structure, bend.square() / 300)


def _sigma_at(level: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    return _variance_at(level, gain, offset, floor).sqrt()


def _variance_at(level: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """At (N, pixels) levels over the windows' own, `offset` at that level."""
    gain, offset, floor = (by_tile(v, level).float() for v in (gain, offset, floor))
    return torch.maximum(gain * level + offset, floor)


def _products(unit: torch.Tensor, sizes: Sequence[torch.Size]) -> torch.Tensor:
    """(N, LAGS, 2): of neighbours along the line that both take part."""
    parts = unit.split([h * w for h, w in sizes], 1)
    out = unit.new_zeros((len(unit), LAGS, 2), dtype=torch.float64)
    for part, (h, w) in zip(parts, sizes, strict=True):
        v = part.reshape(-1, h, w)
        for lag in range(1, min(LAGS, w - 1) + 1):
            a, b = v[..., lag:], v[..., :-lag]
            product = a * b
            both = torch.where(torch.isnan(product), 0.0, torch.addcmul(a * a, b, b))
            out[:, lag - 1, 0] += product.nansum((1, 2), dtype=torch.float64)
            out[:, lag - 1, 1] += 0.5 * batched.total(both, 1, 2)
    return out


def _spacing(
    windows: Sequence[torch.Tensor], flattest: torch.Tensor, sigma: torch.Tensor, sizes: Sequence[torch.Size]
) -> torch.Tensor:
    """(N, 6): as `noise_law._spacing`, of windows less a level."""
    lengths = [h * w for h, w in sizes]
    count, sums = [], []
    alternate = torch.zeros(len(sigma), dtype=torch.float64, device=sigma.device)
    for v, part, unit, size in zip(windows, flattest.split(lengths, 1), sigma.split(lengths, 1), sizes, strict=True):
        if size[0] < 5:
            continue
        good, scale = (x.reshape(-1, *size)[:, 2:-2] for x in (part, unit))
        scale = math.sqrt(6.0) * torch.where(scale > 0, scale, 1.0)
        inner, rows, columns = v[:, 3:-3, 2:-2], v.shape[1], v.shape[2]
        found = []
        for axis, apart in STEPS:
            a, b = (apart, 0) if axis == 0 else (0, apart)
            before = v[:, 3 - a : rows - 3 - a, 2 - b : columns - 2 - b]
            after = v[:, 3 + a : rows - 3 + a, 2 + b : columns - 2 + b]
            found.append(torch.where(good, (before - 2 * inner + after) / scale, 0.0))
        sums.append(torch.stack([batched.total(u.square().clamp(max=CUT), 1, 2) for u in found], 1))
        here = good.sum((1, 2))
        count.append(here)
        sign = batched.table(_signs, v.device, inner.shape[1])[:, None]
        alternate = alternate + batched.total(found[0] * sign, 1, 2).square() / here.clamp(min=1)
    if not sums:
        return sigma.new_full((len(sigma), len(STEPS) + 1), torch.nan, dtype=torch.float64)
    pixels, all_sums = sum(count[1:], count[0]), sum(sums[1:], sums[0])
    out = torch.cat(
        [all_sums / pixels.clamp(min=1)[:, None], (alternate / all_sums[:, 0].clamp(min=1e-300))[:, None]], 1
    )
    return torch.where((pixels >= LEAST_FLAT)[:, None], out, torch.nan)


def _signs(rows: int) -> np.ndarray:
    return (1 - 2 * (np.arange(rows) % 2)).astype(np.float32)


# --- the line ---


class _Points(NamedTuple):
    """(N, bins): mean level, robust variance, count of each bin, and which count."""

    level: torch.Tensor
    variance: torch.Tensor
    size: torch.Tensor
    used: torch.Tensor


class _Sorted(NamedTuple):
    """Pixels by bin, then by the square of the difference; those that take no part at all come last."""

    key: torch.Tensor  # (N, P) int64
    square: torch.Tensor
    level: torch.Tensor
    start: torch.Tensor  # (N, bins + 1)
    bins: torch.Tensor  # (bins,): upper bits of the keys

    @classmethod
    def of(
        cls, square: torch.Tensor, level: torch.Tensor, index: torch.Tensor, free: torch.Tensor
    ) -> tuple[_Sorted, torch.Tensor]:
        """With the order that they are put in."""
        bits = torch.where(free, index, _BINS) << batched.FLOAT_BITS
        key, order = (bits | batched.float_bits(square)).sort(dim=1)
        edges = batched.table(_bin_keys, level.device)
        start = torch.searchsorted(key, edges.expand(len(key), -1).contiguous())
        return cls(key, batched.bits_float(key & (2**32 - 1)), level.gather(1, order), start, edges[:-1]), order

    def below(self, value: torch.Tensor) -> torch.Tensor:
        """(N, bins): where in each bin the squares end that are no larger than `value`."""
        keys = self.bins | batched.float_bits(value.clamp(max=3e38))
        return torch.searchsorted(self.key, keys, right=True)


def _bin_keys() -> np.ndarray:
    return np.arange(_BINS + 1) << batched.FLOAT_BITS


def _running(v: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(N, P + 1): sums of what comes before."""
    out = torch.empty((len(v), v.shape[1] + 1), dtype=dtype, device=v.device)
    out[:, :1].zero_()
    torch.cumsum(v, 1, dtype=dtype, out=out[:, 1:])
    return out


_Line = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # gain, offset at level 0, the gain's standard error


def _line_of(
    level: torch.Tensor,
    difference: torch.Tensor,
    slope: torch.Tensor,
    free: torch.Tensor,
    middle: torch.Tensor,
    ends: tuple[torch.Tensor, torch.Tensor],
) -> tuple[_Line, _Points, torch.Tensor, torch.Tensor]:
    """Reject structure, measure the variance a level, fit the line; four rounds, each with the last one's line.

    level: (N, P) over `middle`, (N,). The masks (kept, and its flattest part) are in the order of the pixels.
    """
    shares = batched.table(_shares, level.device)
    values, count = batched.ordered(level, free)
    low, high = batched.quantiles(values, count, shares[:2]).unbind(1)
    width = (high - low) / _BINS
    at = (level - (low - _TIE * width)[:, None].float()) / torch.where(width > 0, width, 1.0)[:, None].float()
    index = torch.where(width[:, None] > 0, at.clamp(0, _BINS - 1), _BINS - 1.0).long()
    pixels, order = _Sorted.of(difference.square(), level, index, free)
    values, count = batched.ordered(slope, free)
    limit = batched.quantiles(values, count, shares[2:3])[:, 0] * (1 + 1e-5)
    keep = (slope <= limit[:, None].float()) & free
    for _ in range(_ROUNDS):
        points = _points(pixels, keep.gather(1, order), middle)
        sigma = points.variance.clamp(min=0).sqrt()
        inside = (points.level - 2.5 * sigma > ends[0][:, None]) & (points.level + 2.5 * sigma < ends[1][:, None])
        inside &= points.used
        some = inside.sum(1, keepdim=True)
        line = _through(points._replace(used=torch.where(some >= 2, inside, points.used)))
        floor = 0.25 * batched.quantiles(*batched.ordered(points.variance, points.used), shares[2:3])[:, 0]
        variance = _variance_at(level, line[0], line[1] + line[0] * middle, floor)
        ratio = slope / torch.where(variance > 0, variance, 1.0)
        values, count = batched.ordered(ratio, free)
        limit = batched.quantiles(values, count, shares[3:])[:, 0]
        keep = (ratio <= (KEPT * limit)[:, None].float()) & free
    flattest = (ratio <= limit[:, None].float()) & free
    return line, points._replace(used=torch.where(some > 0, inside, points.used)), keep, flattest


def _shares() -> np.ndarray:
    return np.array([0.001, 0.999, 0.25, 0.2])


def _points(pixels: _Sorted, keep: torch.Tensor, middle: torch.Tensor) -> _Points:
    """Of every bin that holds enough pixels; where none does, of all pixels together, in the first."""
    kept = _running(keep, torch.int64)
    squares = _running(torch.where(keep, pixels.square, 0.0), torch.float64)
    levels = _running(torch.where(keep, pixels.level, 0.0), torch.float64)
    first, last = (kept.gather(1, v) for v in (pixels.start[:, :-1], pixels.start[:, 1:]))
    count = last - first
    begin = squares.gather(1, pixels.start[:, :-1])

    def rank(k: torch.Tensor) -> torch.Tensor:
        found = torch.searchsorted(kept, first + k + 1) - 1
        return batched.at_rank(pixels.square, found)

    some = count.clamp(min=1)
    variance = (rank((some - 1) // 2) + rank(some // 2)) / 2 / 0.4549
    mean = (squares.gather(1, pixels.start[:, 1:]) - begin) / some
    variance = torch.where(variance > 0, variance, mean)
    for _ in range(_CUTS):
        end = pixels.below(9 * variance)
        core = kept.gather(1, end) - first
        inner = (squares.gather(1, end) - begin) / core.clamp(min=1) / _TRUNCATED
        variance = torch.where(core > 0, inner, variance)
    sums = levels.gather(1, pixels.start)
    level = (sums[:, 1:] - sums[:, :-1]) / some
    total = kept[:, -1]
    used = count >= (_SHARE_OF_BIN * total[:, None]).clamp(min=_LEAST_BIN)
    none = ~used.any(1)
    all_of_them = _few(pixels.square, kept, squares[:, -1])
    alone = none[:, None] & (batched.table(_bin_keys, keep.device)[:-1] == 0)
    level = torch.where(alone, (levels[:, -1] / total.clamp(min=1))[:, None], level)
    variance = torch.where(alone, all_of_them[:, None], variance)
    return _Points(level + middle[:, None], variance, torch.where(alone, total[:, None], count).double(), used | alone)


def _few(square: torch.Tensor, kept: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """(N,): the robust variance of everything that is kept, where that is little."""
    count = kept[:, -1].clamp(max=_FEW)
    rank = torch.arange(_FEW, device=square.device)
    at = torch.searchsorted(kept, (rank + 1).expand(len(kept), -1).contiguous()) - 1
    values, count = batched.ordered(batched.at_rank(square, at), rank < count[:, None])
    there = rank < count[:, None]
    values = torch.where(there, values, 0.0)
    variance = batched.middle(values, count) / 0.4549
    variance = torch.where(variance > 0, variance, total / count.clamp(min=1))
    for _ in range(_CUTS):
        core = there & (values <= 9 * variance[:, None])
        size = core.sum(1)
        inner = torch.where(core, values, 0.0).sum(1) / size.clamp(min=1) / _TRUNCATED
        variance = torch.where(size > 0, inner, variance)
    return variance


def _average(v: torch.Tensor, weight: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    weight = torch.where(used, weight, 0.0)
    return (torch.where(used, v, 0.0) * weight).sum(1) / weight.sum(1)


def _through(points: _Points) -> _Line:
    """Weighted line through (level, variance), outliers turned down; its gain's standard error."""
    used = points.used
    size = used.sum(1)
    flat = _average(points.variance, points.size, used)
    middle = torch.where(used, points.level, 0.0).sum(1) / size
    level = torch.where(used, points.level - middle[:, None], 0.0)
    variance = torch.where(used, points.variance, 0.0)
    span = torch.where(used, points.level, -torch.inf).amax(1) - torch.where(used, points.level, torch.inf).amin(1)
    failed = (size < 3) | ~(span > 0)
    least = torch.where(used, 0.25 * torch.where(used, points.variance, torch.inf).amin(1, keepdim=True), 0.0)
    count = torch.where(used, points.size, 0.0)
    one = used.double()
    # columns of a product each: (n00 n11 - n01 n01, n11 y0 - n01 y1, n00 y1 - n01 y0) are the determinant and, over it,
    # gain and offset, for the sums n00 of w·level², n01 of w·level, n11 of w, y0 of w·level·variance, y1 of w·variance
    n00, n01, n11, y0, y1 = level.square(), level, one, level * variance, variance
    terms = torch.stack([n00, n11, n00, n11, y0, y1, n01, n01, n01, n01, y1, y0], 2)  # (N, bins, 12)
    design = torch.stack([level, one], 2)
    pair = torch.stack([(size - 1).clamp(min=0) // 2, size // 2], 1)
    fitted, robust, straight, det = flat[:, None] * one, one, one, one[:, :1]
    for _ in range(_LINES):
        least_weight = 1e-3 * fitted.amax(1, keepdim=True) + 1e-300
        weight = robust * count / torch.maximum(fitted, least_weight).square()
        sums = (weight[:, None] @ terms)[:, 0]
        ahead = sums[:, :3] * sums[:, 3:6]
        solved = ahead - sums[:, 6:9] * sums[:, 9:]
        det = solved[:, :1]
        failed = failed | ~(det > 1e-12 * ahead[:, :1])[:, 0]
        line = solved[:, 1:] / det
        straight = (design @ line[..., None])[..., 0]
        fitted = torch.maximum(straight, least)
        off = ((variance - fitted) / fitted.clamp(min=1e-300)).abs()
        spread = torch.where(used, off, torch.inf).sort(dim=1).values.gather(1, pair).mean(1, keepdim=True)
        robust = 1 / (off / (1.5 * (1.4826 * spread + 0.01))).clamp(min=1)
    chi2 = (weight * (variance - straight).square()).sum(1) / (size - 2).clamp(min=1)
    error = (chi2 * sums[:, 1] / det[:, 0]).sqrt()
    gain, offset = line.unbind(1)
    return (
        torch.where(failed, 0.0, gain),
        torch.where(failed, flat, offset - gain * middle),
        torch.where(failed, torch.nan, error),
    )
