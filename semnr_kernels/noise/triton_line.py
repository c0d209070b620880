"""Triton kernels of the noise law, part two: points of the bins, the line through them, and what is read off the law.

`row` is (N, ROW) float64: what `Laws` holds, in its order. Of a bin that holds more pixels than a program keeps in its
registers, the rest is read again: four bytes a pixel, nine times.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import noise_law as law
from . import triton_stages as stages
from .triton_select import _LAST, OUT, pair, plain_key, plain_value
from .triton_stages import _BINS, _ROOM, _STATE, _marked, free_of, ratio_of, window, window_of

LEAST_BIN, SHARE_OF_BIN = 50, 0.002  # pixels that a bin must hold
CUTS, LINES = 6, 10
SUMS = 16  # of a program of `tail`: lag products, then the sums of `Spacing`, its alternating sum, its pixels
POINTS = 6  # where the points begin in `row`
PRODUCTS = POINTS + 4 * stages.BINS
ROW = PRODUCTS + 2 * law.LAGS + 7

_LEAST_BIN, _SHARE_OF_BIN = tl.constexpr(LEAST_BIN), tl.constexpr(SHARE_OF_BIN)
_CUTS, _LINES, _SUMS = tl.constexpr(CUTS), tl.constexpr(LINES), tl.constexpr(SUMS)
_POINTS, _PRODUCTS, _ROW = tl.constexpr(POINTS), tl.constexpr(PRODUCTS), tl.constexpr(ROW)
_TRUNCATED, _KEPT, _SIGNIFICANT = tl.constexpr(law._TRUNCATED), tl.constexpr(law.KEPT), tl.constexpr(law.SIGNIFICANT)
_LAGS, _CUT, _LEAST_FLAT = tl.constexpr(law.LAGS), tl.constexpr(law.CUT), tl.constexpr(law.LEAST_FLAT)
_GAIN, _TELLS, _LIMIT = tl.constexpr(stages.GAIN), tl.constexpr(stages.TELLS), tl.constexpr(stages.LIMIT)
_UNCLIPPED, _QUANTILE = tl.constexpr(stages.UNCLIPPED), tl.constexpr(stages.QUANTILE)


# --- points ---


@triton.jit
def _law(state, FIRST: tl.constexpr):
    """Gain, offset, floor in float32, and the limit of what is kept: in the first round, of the structure itself."""
    if FIRST:
        zero, one = tl.zeros([], tl.float32), tl.zeros([], tl.float32) + 1
        return zero, one, one, (tl.load(state + _QUANTILE + 2) * (1 + 1e-5)).to(tl.float32)
    gain, offset = tl.load(state + _GAIN).to(tl.float32), tl.load(state + _GAIN + 1).to(tl.float32)
    return gain, offset, tl.load(state + _GAIN + 2).to(tl.float32), (tl.load(state + _LIMIT) * _KEPT).to(tl.float32)


@triton.jit
def _kept(levels, squares, slopes, at, end, gain, offset, floor, limit):
    """Keys of the squares that are kept, their levels, and how many they are."""
    live = at < end
    level = tl.load(levels + at, mask=live, other=0)
    slope = tl.load(slopes + at, mask=live, other=0)
    keep = live & (ratio_of(level, slope, gain, offset, floor) <= limit)
    square = tl.load(squares + at, mask=keep, other=float("inf"))
    return plain_key(square), tl.sum(tl.where(keep, level, 0).to(tl.float64)), tl.sum(keep.to(tl.int32))


@triton.jit
def _core(head, room, begin, end, most, BLOCK: tl.constexpr):
    """Sum and count of the squares that are no larger than `most`."""
    v = plain_value(head)
    inside = v <= most
    total, size = tl.sum(tl.where(inside, v, 0).to(tl.float64)), tl.sum(inside.to(tl.int32))
    for start in range(begin + BLOCK, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        v = tl.load(room + at, mask=at < end, other=OUT).to(tl.float32, bitcast=True)
        inside = v <= most
        total += tl.sum(tl.where(inside, v, 0).to(tl.float64))
        size += tl.sum(inside.to(tl.int32))
    return total, size


@triton.jit
def _robust(levels, squares, slopes, room, begin, end, gain, offset, floor, limit, least, BLOCK: tl.constexpr):
    """Mean level, robust variance (of `least` or more) and number of the pixels that are kept from `begin` to `end`."""
    at = begin + tl.arange(0, BLOCK)
    head, level, size = _kept(levels, squares, slopes, at, end, gain, offset, floor, limit)
    for start in range(begin + BLOCK, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        key, more, some = _kept(levels, squares, slopes, at, end, gain, offset, floor, limit)
        tl.store(room + at, key.to(tl.int32, bitcast=True), mask=at < end)
        level += more
        size += some
    tl.debug_barrier()  # other threads read what these wrote
    variance = tl.zeros([], tl.float64)
    if size >= least:
        one, two = pair(head, room, begin, end, (size - 1) // 2, tl.zeros([], tl.uint32) + _LAST, BLOCK)
        if size % 2 == 1:
            two = one
        low, high = plain_value(one).to(tl.float64), plain_value(two).to(tl.float64)
        variance = (low + high) / 2 / 0.4549
        total, _ = _core(head, room, begin, end, tl.full([], 3e38, tl.float32), BLOCK)
        variance = tl.where(variance > 0, variance, total / size.to(tl.float64))
        for _ in range(_CUTS):
            most = tl.minimum(9 * variance, 3e38).to(tl.float32)
            total, core = _core(head, room, begin, end, most, BLOCK)
            inner = total / tl.maximum(core, 1).to(tl.float64) / _TRUNCATED
            variance = tl.where(core > 0, inner, variance)
    return level / tl.maximum(size, 1).to(tl.float64), variance, size


@triton.jit(do_not_specialize=["pixels"])
def points(
    state, starts, levels, squares, slopes, room, found, pixels, FIRST: tl.constexpr, ALONE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """found[n, :, bin] = mean level over the windows' own, robust variance, count. One program a bin and tile; where
    no bin holds enough, all pixels together (ALONE) as one more."""
    b, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    gain, offset, floor, limit = _law(state + n * _STATE, FIRST)
    to, bounds = found + n * 3 * _ROOM + b, starts + n * _ROOM
    if ALONE:
        enough, _ = _enough(to)
        begin, end = tl.zeros([], tl.int32), tl.load(bounds + _BINS)
        to += _BINS
        end = tl.where(tl.sum(enough.to(tl.int32)) > 0, begin, end)
    else:
        begin, end = tl.load(bounds + b), tl.load(bounds + b + 1)
    place = n * pixels
    level, variance, size = tl.zeros([], tl.float64), tl.zeros([], tl.float64), tl.zeros([], tl.int32)
    if end > begin:
        level, variance, size = _robust(
            levels + place, squares + place, slopes + place, room + place, begin, end, gain, offset, floor, limit,
            1 if ALONE else _LEAST_BIN, BLOCK,
        )  # fmt: skip
    tl.store(to, level)
    tl.store(to + _ROOM, variance)
    tl.store(to + 2 * _ROOM, size.to(tl.float64))


@triton.jit
def _enough(found):
    """Which bins hold enough pixels, and how many each holds: (ROOM,)."""
    b = tl.arange(0, _ROOM)
    size = tl.load(found + 2 * _ROOM + b, mask=b < _BINS, other=0)
    return (b < _BINS) & (size >= tl.maximum(tl.sum(size) * _SHARE_OF_BIN, _LEAST_BIN)), size


# --- the line ---


@triton.jit
def _rank(v, used):
    """Of each value, how many of those that are used are smaller: (ROOM,) int32."""
    v = tl.where(used, v, float("inf"))
    rank = tl.zeros([_ROOM], tl.int32)
    for part in range(2):  # all at once would not fit the registers of every chip
        some = tl.gather(v, part * 32 + tl.arange(0, 32), 0)
        rank += tl.sum((some[None, :] < v[:, None]).to(tl.int32), 1)
    return rank


@triton.jit
def _at(v, rank, used, k):
    """The value at rank k: the largest that has no more than k below."""
    return tl.max(tl.where(used & (rank <= k), v, -float("inf")))


@triton.jit
def _average(v, weight, used):
    weight = tl.where(used, weight, 0.0)
    return tl.sum(tl.where(used, v, 0.0) * weight) / tl.sum(weight)


@triton.jit
def _through(levels, variances, counts, used):
    """Weighted line through the points, outliers turned down: gain, offset at level 0, the gain's standard error."""
    many = tl.sum(used.to(tl.int32))
    size = many.to(tl.float64)
    flat = _average(variances, counts, used)
    middle = tl.sum(tl.where(used, levels, 0.0)) / size
    x, y = tl.where(used, levels - middle, 0.0), tl.where(used, variances, 0.0)
    count = tl.where(used, counts, 0.0)
    inf = float("inf")
    span = tl.max(tl.where(used, levels, -inf)) - tl.min(tl.where(used, levels, inf))
    failed = ((many < 3) | (span <= 0)).to(tl.int32)
    least = tl.where(used, tl.min(tl.where(used, variances, inf)) * 0.25, 0.0)
    one = tl.where(used, 1.0, 0.0).to(tl.float64)
    fitted, robust, straight, weight = one * flat, one, one, one
    gain, offset = flat, flat
    det, n11 = flat, flat
    for _ in range(_LINES):
        scale = tl.maximum(fitted, tl.max(fitted) * 1e-3 + 1e-300)
        weight = robust * count / (scale * scale)
        n00, n01, n11 = tl.sum(weight * x * x), tl.sum(weight * x), tl.sum(weight * one)
        y0, y1 = tl.sum(weight * x * y), tl.sum(weight * y)
        ahead = n00 * n11
        det = ahead - n01 * n01
        failed = tl.where(det > ahead * 1e-12, failed, 1)
        gain, offset = (n11 * y0 - n01 * y1) / det, (n00 * y1 - n01 * y0) / det
        straight = x * gain + one * offset
        fitted = tl.maximum(straight, least)
        off = tl.abs((y - fitted) / tl.maximum(fitted, one * 0 + 1e-300))
        rank = _rank(off, used)
        spread = (_at(off, rank, used, (many - 1) // 2) + _at(off, rank, used, many // 2)) / 2
        robust = one / tl.maximum(off / ((spread * 1.4826 + 0.01) * 1.5), 1.0)
    left = y - straight
    chi2 = tl.sum(weight * left * left) / tl.maximum(size - 2, 1.0)
    error = tl.sqrt(chi2 * n11 / det)
    return (
        tl.where(failed > 0, 0.0, gain),
        tl.where(failed > 0, flat, offset - gain * middle),
        tl.where(failed > 0, float("nan"), error),
    )


@triton.jit
def line(state, found, row):
    """The line through the points of a round: into `state`, and into `row` what the law would be if no round followed.
    One program a tile."""
    n = tl.program_id(0).to(tl.int64)
    state += n * _STATE
    row += n * _ROW
    b = tl.arange(0, _ROOM)
    bins = b < _BINS
    own = found + n * 3 * _ROOM
    used, size = _enough(own)
    alone = tl.sum(used.to(tl.int32)) == 0  # no bin holds enough: all pixels together, in the first
    used = tl.where(alone, b == 0, used)
    at = own + tl.where(alone & (b == 0), _BINS, b)
    level, variance = tl.load(at, mask=bins, other=0), tl.load(at + _ROOM, mask=bins, other=0)
    size = tl.load(at + 2 * _ROOM, mask=bins, other=0)
    middle = tl.load(state)
    level += middle
    sigma = tl.sqrt(tl.maximum(variance, 0.0)) * 2.5
    inside = used & (level - sigma > tl.load(state + 3)) & (level + sigma < tl.load(state + 4))
    some = tl.sum(inside.to(tl.int32))
    gain, offset, error = _through(level, variance, size, tl.where(some >= 2, inside, used))
    rank, many = _rank(variance, used), tl.sum(used.to(tl.int32))
    at = (many - 1).to(tl.float64) * 0.25
    k = tl.floor(at).to(tl.int32)
    low, high = _at(variance, rank, used, k), _at(variance, rank, used, tl.minimum(k + 1, many - 1))
    floor = (low + (high - low) * (at - tl.floor(at))) * 0.25
    tl.store(state + _GAIN, gain)
    tl.store(state + _GAIN + 1, offset + gain * middle)
    tl.store(state + _GAIN + 2, floor)

    counted = tl.where(some > 0, inside, used)
    known = tl.abs(gain) > error * _SIGNIFICANT  # not where the levels are too few for a line
    flat = _average(variance, size, counted)
    gain, offset = tl.where(known, gain, 0.0), tl.where(known, offset, flat)
    floor = tl.min(tl.where(counted, variance, float("inf"))) * 0.5
    tl.store(state + _TELLS, gain)
    tl.store(state + _TELLS + 1, offset + gain * middle)
    tl.store(state + _TELLS + 2, floor)
    tl.store(row, gain)
    tl.store(row + 1, offset)
    tl.store(row + 2, error)
    tl.store(row + 3, tl.load(state + 1))
    tl.store(row + 4, tl.load(state + 2))
    tl.store(row + 5, tl.load(state + _UNCLIPPED))
    to = row + _POINTS + b
    tl.store(to, level, mask=bins)
    tl.store(to + _BINS, variance, mask=bins)
    tl.store(to + 2 * _BINS, size, mask=bins)
    tl.store(to + 3 * _BINS, counted.to(tl.float64), mask=bins)
    tl.store(row + _ROW - 1, floor)


# --- what the law tells of the pixels ---


@triton.jit
def _unit(levels, differences, slopes, at, live, some, round, tells):
    """Difference over its standard deviation; whether a pixel takes part."""
    level = tl.load(levels + at, mask=live, other=0)
    slope = tl.load(slopes + at, mask=live, other=0)
    free = live & ((_marked(slope) == 0) | (some == 0))
    sigma = tl.sqrt_rn(tl.maximum(tells[0] * level + tells[1], tells[2]))
    unit = tl.load(differences + at, mask=live, other=0) / tl.where(sigma > 0, sigma, 1.0)
    ratio = ratio_of(level, tl.abs(slope), round[0], round[1], round[2])
    return unit, free & (ratio <= round[3]) & (tl.abs(unit) < 4), sigma, free & (ratio <= round[4])


@triton.jit(do_not_specialize=["apart", "windows", "pixels"])
def tail(
    images, geometry, state, near, levels, differences, slopes, partial, apart, windows, pixels,
    WORK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """partial[n, program] = the sums that a block of pixels adds to the products of lags and to `Spacing`, (SUMS,)."""
    n, program = tl.program_id(1).to(tl.int64), tl.program_id(0)
    k, block = window_of(geometry, windows, program)
    place, h, w, down, right, begins = window(geometry, k)
    images += n * apart + place
    row = state + n * _STATE
    some, _, _ = free_of(tl.load(near + n), pixels)
    gain, offset, floor, most = _law(row, False)
    flat = tl.load(row + _LIMIT).to(tl.float32)
    tells = (
        tl.load(row + _TELLS).to(tl.float32), tl.load(row + _TELLS + 1).to(tl.float32),
        tl.load(row + _TELLS + 2).to(tl.float32),
    )  # fmt: skip
    round = (gain, offset, floor, most, flat)
    at = block * BLOCK + tl.arange(0, BLOCK)
    live = at < (h - 2) * (w - 4)
    i, j = at // (w - 4), at % (w - 4)
    base = n * pixels + begins + at
    a, good, sigma, flattest = _unit(levels, differences, slopes, base, live, some, round, tells)
    to = partial + (n * tl.num_programs(0) + program) * _SUMS
    for LAG in tl.static_range(1, _LAGS + 1):
        b, fine, _, _ = _unit(levels, differences, slopes, base - LAG, live & (j >= LAG), some, round, tells)
        both = good & fine
        tl.store(to + 2 * LAG - 2, tl.sum(tl.where(both, a * b, 0).to(tl.float64)))
        tl.store(to + 2 * LAG - 1, tl.sum(tl.where(both, a * a + b * b, 0).to(tl.float64)) * 0.5)

    own = tl.load(row).to(WORK)
    flattest = flattest & (i >= 2) & (i < h - 4) & (h >= 7)
    scale = tl.where(sigma > 0, sigma, 1.0) * 2.449489742783178
    pixel = images + (i + 1) * down + (j + 2) * right
    middle = (tl.load(pixel, mask=flattest, other=0).to(WORK) - own).to(tl.float32)
    for STEP in tl.static_range(5):
        step = down * (STEP + 1) if STEP < 3 else right * (STEP - 2)
        one = (tl.load(pixel - step, mask=flattest, other=0).to(WORK) - own).to(tl.float32)
        two = (tl.load(pixel + step, mask=flattest, other=0).to(WORK) - own).to(tl.float32)
        u = tl.where(flattest, (one - 2 * middle + two) / scale, 0.0)
        tl.store(to + 2 * _LAGS + STEP, tl.sum(tl.minimum(u * u, _CUT).to(tl.float64)))
        if STEP == 0:
            tl.store(to + 2 * _LAGS + 5, tl.sum(tl.where(i % 2 == 0, u, -u).to(tl.float64)))
    tl.store(to + 2 * _LAGS + 6, tl.sum(flattest.to(tl.float64)))


@triton.jit(do_not_specialize=["programs", "windows"])
def finish(partial, geometry, row, programs, windows, BLOCK: tl.constexpr):
    """The products of lags and `Spacing` into `row`, window after window. One program a tile."""
    n = tl.program_id(0).to(tl.int64)
    partial += n * programs * _SUMS
    to = row + n * _ROW + _PRODUCTS
    lane = tl.arange(0, _SUMS)
    total, alternate = tl.zeros([_SUMS], tl.float64), tl.zeros([], tl.float64)
    for k in range(windows):
        first = tl.load(geometry + k * 8 + 6).to(tl.int32)
        last = tl.load(geometry + k * 8 + 7).to(tl.int32)
        own = tl.zeros([_SUMS], tl.float64)
        for start in range(first, last, BLOCK):
            p = start + tl.arange(0, BLOCK)
            at = p[:, None] * _SUMS + lane[None, :]
            own += tl.sum(tl.load(partial + at, mask=(p < last)[:, None] & (lane < _SUMS - 1)[None, :], other=0), 0)
        total += own
        sign = tl.sum(tl.where(lane == 2 * _LAGS + 5, own, 0.0))
        alternate += sign * sign / tl.maximum(tl.sum(tl.where(lane == 2 * _LAGS + 6, own, 0.0)), 1.0)
    tl.store(to + lane, total, mask=lane < 2 * _LAGS)
    size = tl.sum(tl.where(lane == 2 * _LAGS + 6, total, 0.0))
    across = tl.sum(tl.where(lane == 2 * _LAGS, total, 0.0))
    share = tl.where(lane == 2 * _LAGS + 5, alternate / tl.maximum(across, 1e-300), total / tl.maximum(size, 1.0))
    share = tl.where(size >= _LEAST_FLAT, share, float("nan"))
    tl.store(to + lane, share, mask=(lane >= 2 * _LAGS) & (lane < 2 * _LAGS + 6))


@triton.jit(do_not_specialize=["apart"])
def whiten(products, shrinks, out, apart, BLOCK: tl.constexpr):
    """out[n] = taps that make the noise white, (4,): Levinson for BLOCK shrinks of the lags at once, the first that
    some process can have. products: rows of (lags, 2), `apart` from one another."""
    n = tl.program_id(0).to(tl.int64)
    at = products + n * apart
    lane = tl.arange(0, BLOCK)
    shrink = tl.load(shrinks + lane)
    one, two, three = _lag(at, shrink), _lag(at + 2, shrink), _lag(at + 4, shrink)
    e1 = 1 - one * one
    k2 = (two - one * one) / e1
    a1, e2 = one * (1 - k2), e1 * (1 - k2 * k2)
    k3 = (three - a1 * two - k2 * one) / e2
    left = e2 * (1 - k3 * k3)
    good = (e1 > 0) & (e2 > 0) & (left > 0.02)
    first = tl.min(tl.where(good, lane, BLOCK))
    here = lane == tl.where(first < BLOCK, first, 0)
    scale = tl.sqrt(left)
    to = out + n * 4
    tl.store(to, tl.sum(tl.where(here, 1 / scale, 0.0)))
    tl.store(to + 1, tl.sum(tl.where(here, -(a1 - k3 * k2) / scale, 0.0)))
    tl.store(to + 2, tl.sum(tl.where(here, -(k2 - k3 * a1) / scale, 0.0)))
    tl.store(to + 3, tl.sum(tl.where(here, -k3 / scale, 0.0)))


@triton.jit
def _lag(at, shrink):
    p, q = tl.load(at), tl.load(at + 1)
    return tl.where(q > 0, p / tl.where(q > 0, q, 1.0), 0.0) * shrink
