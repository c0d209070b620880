# mypy: disable-error-code="assignment"
"""The changes in Triton: place, levels and what is made of a tile's sums, a program a tile."""

from __future__ import annotations

import math

import triton
import triton.language as tl

from .spectra import MIN_Z
from .triton_stages import _GROUPS, _SHIFTS, _SUMS, _often, _pass, _value

PARTS = 8  # of the rows of a spectrum
NEWTON = 6
LEAST_BLOCKS = 16
_PARTS, _NEWTON, _LEAST = tl.constexpr(PARTS), tl.constexpr(NEWTON), tl.constexpr(LEAST_BLOCKS)
_REACH = tl.constexpr(8)
_MIN_Z = tl.constexpr(MIN_Z)
_TWO_PI = tl.constexpr(2 * math.pi)


# --- place ----------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["tiles", "height", "width"])
def cross(
    spectra, bells_down, bells_right, turns, out, columns_sums, tiles, height, width, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The cross-power of both images in the 1-4 px band, each frequency as often as it is, and its columns shifted.

    out (tiles, rows, columns, 2). columns_sums (tiles, parts, 17, columns, 2): sums down a part of the rows, turned by
    whole shifts within 8 px. turns: (rows, 32, 2) float32.
    """
    part, n = tl.program_id(1), tl.program_id(2).to(tl.int64)
    columns = width // 2 + 1
    x, shift = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :], tl.arange(0, 32)[:, None]
    live, plane = x < columns, height.to(tl.int64) * columns * 2
    often = _often(x, width)
    re, im = tl.zeros([32, COLUMNS], tl.float32), tl.zeros([32, COLUMNS], tl.float32)
    for row in range(part * height // _PARTS, (part + 1) * height // _PARTS):
        at = row * columns + x
        are, aim = _value(spectra + n * plane, at, live)
        bre, bim = _value(spectra + (tiles + n) * plane, at, live)
        bell = _pass(bells_down, bells_right, row, tl.minimum(x, columns - 1), height, columns, 1, 4)
        band = (bell * bell * often).to(tl.float32)
        cre, cim = (are * bre + aim * bim) * band, (are * bim - aim * bre) * band
        to = out + n * plane + at * 2
        tl.store(to, cre, mask=live)
        tl.store(to + 1, cim, mask=live)
        cosine, sine = tl.load(turns + (row * 32 + shift) * 2), tl.load(turns + (row * 32 + shift) * 2 + 1)
        re += cosine * cre - sine * cim
        im += cosine * cim + sine * cre
    to = columns_sums + (((n * _PARTS + part) * _SHIFTS + shift) * columns + x) * 2
    tl.store(to, re, mask=live & (shift < _SHIFTS))
    tl.store(to + 1, im, mask=live & (shift < _SHIFTS))


@triton.jit(do_not_specialize=["columns"])
def peak(columns_sums, turns, out, columns):
    """out (tiles, 10): the whole shift of the largest correlation, the first of equal ones. turns: (columns, 32, 2)."""
    n = tl.program_id(0).to(tl.int64)
    down, right = tl.arange(0, 32)[:, None], tl.arange(0, 32)[None, :]
    total = tl.zeros([32, 32], tl.float64)
    for x in range(columns):
        re, im = tl.zeros([32, 1], tl.float64), tl.zeros([32, 1], tl.float64)
        for part in tl.static_range(_PARTS):
            at = columns_sums + (((n * _PARTS + part) * _SHIFTS + down) * columns + x) * 2
            re += tl.load(at, mask=down < _SHIFTS, other=0).to(tl.float64)
            im += tl.load(at + 1, mask=down < _SHIFTS, other=0).to(tl.float64)
        total += re * tl.load(turns + (x * 32 + right) * 2) - im * tl.load(turns + (x * 32 + right) * 2 + 1)
    inside = (down < _SHIFTS) & (right < _SHIFTS)
    most = tl.max(tl.where(inside, total, float("-inf")))
    place = tl.min(tl.where(inside & (total == most), down * _SHIFTS + right, _SHIFTS * _SHIFTS))
    tl.store(out + n * 10, (place // _SHIFTS - _REACH).to(tl.float64))
    tl.store(out + n * 10 + 1, (place % _SHIFTS - _REACH).to(tl.float64))


@triton.jit
def _frequency(i, n):
    """Cycles a pixel of bin `i` of `n`."""
    return tl.where(i < (n + 1) // 2, i, i - n).to(tl.float64) / n.to(tl.float64)


@triton.jit
def _turn(turns):
    """Cosine and sine of so many turns. Series at an eighth of a turn at most, then its angle doubled twice: the
    library's own functions keep a table in local memory."""
    turns -= tl.floor(turns + 0.5)
    angle = turns * (_TWO_PI / 4)
    square = angle * angle
    cosine, sine = square * 0 + 1, square * 0 + 1
    for j in tl.static_range(9):  # the last term comes first
        cosine = 1 - cosine * square * (1 / ((17 - 2 * j) * (18 - 2 * j)))
        sine = 1 - sine * square * (1 / ((18 - 2 * j) * (19 - 2 * j)))
    sine *= angle
    for _ in tl.static_range(2):
        cosine, sine = 1 - 2 * sine * sine, 2 * sine * cosine
    return cosine, sine


@triton.jit
def _derivatives(plane, y, x, rows, columns, width, SQUARES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of the cross-power turned by a shift: (Σ wy I, Σ wx I, Σ wy² R, Σ wy wx R, Σ wx² R), R + iI the turned
    value; SQUARES: the last three with I² in place of R."""
    a, b, c = tl.zeros([ROWS, COLUMNS], tl.float64), tl.zeros([ROWS, COLUMNS], tl.float64), tl.zeros(
        [ROWS, COLUMNS], tl.float64
    )  # fmt: skip
    d, e = a, a
    for left in range(0, columns, COLUMNS):
        column = left + tl.arange(0, COLUMNS)[None, :]
        wx = _frequency(column, width)
        turned_re, turned_im = _turn(wx * x)
        wx *= _TWO_PI
        for top in range(0, rows, ROWS):
            row = top + tl.arange(0, ROWS)[:, None]
            wy = _frequency(row, rows)
            cosine, sine = _turn(wy * y)
            wy *= _TWO_PI
            live = (row < rows) & (column < columns)
            vre, vim = _value(plane, row * columns + column, live)
            vre, vim = vre.to(tl.float64), vim.to(tl.float64)
            fre, fim = vre * cosine - vim * sine, vre * sine + vim * cosine
            re, im = fre * turned_re - fim * turned_im, fre * turned_im + fim * turned_re
            a += wy * im
            b += wx * im
            if SQUARES:
                re = im * im
            c += wy * wy * re
            d += wy * wx * re
            e += wx * wx * re
    return tl.sum(a), tl.sum(b), tl.sum(c), tl.sum(d), tl.sum(e)


@triton.jit(do_not_specialize=["height", "width"])
def newton(spectrum, inflation, out, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out (tiles, 10), of which the shift is a whole one: the shift, the curvature and the spread, as
    `reference._shift`."""
    n, columns = tl.program_id(0).to(tl.int64), width // 2 + 1
    plane = spectrum + n * height * columns * 2
    y, x = tl.load(out + n * 10), tl.load(out + n * 10 + 1)
    at_y, at_x, live = y, x, y == y
    yy, yx, xx = y * 0, y * 0, y * 0
    for _ in range(_NEWTON):
        gy, gx, a, b, c = _derivatives(plane, y, x, height, columns, width, False, ROWS, COLUMNS)
        at_y, at_x = tl.where(live, y, at_y), tl.where(live, x, at_x)
        yy, yx, xx = tl.where(live, a, yy), tl.where(live, b, yx), tl.where(live, c, xx)
        det, trace = a * c - b * b, tl.maximum(a + c, 1e-300)
        live = live & (det > trace * trace * 1e-9)
        safe = tl.where(live, det, y * 0 + 1)
        step_y, step_x = (b * gx - c * gy) / safe, (b * gy - a * gx) / safe
        step_y, step_x = tl.where(live, step_y, 0.0), tl.where(live, step_x, 0.0)
        y += tl.minimum(tl.maximum(step_y, -0.5), 0.5)
        x += tl.minimum(tl.maximum(step_x, -0.5), 0.5)
        live = live & (tl.maximum(tl.abs(step_y), tl.abs(step_x)) >= 1e-4)
    _, _, a, b, c = _derivatives(plane, at_y, at_x, height, columns, width, True, ROWS, COLUMNS)
    to, more = out + n * 10, tl.load(inflation)
    tl.store(to, y)
    tl.store(to + 1, x)
    tl.store(to + 2, yy)
    tl.store(to + 3, yx)
    tl.store(to + 4, yx)
    tl.store(to + 5, xx)
    tl.store(to + 6, a * more)
    tl.store(to + 7, b * more)
    tl.store(to + 8, b * more)
    tl.store(to + 9, c * more)


# --- levels ---------------------------------------------------------------------------------------------------


@triton.jit
def _at_rank(key, rank):
    """The key of `rank`, from 0: the largest that no more than `rank` lie below."""
    zero = rank.to(tl.int64) * 0
    step = zero + 4611686018427387904
    below = tl.sum((key < zero).to(tl.int32), 0)
    found = tl.where(below <= rank, zero, zero - 2 * step)
    for _ in range(63):
        below = tl.sum((key < found + step).to(tl.int32), 0)
        found = tl.where(below <= rank, found + step, found)
        step = step >> 1
    return found


@triton.jit
def _median(v, kept):
    """NumPy's median of float64 values that are kept."""
    bits = v.to(tl.int64, bitcast=True)
    last = 9223372036854775807  # beyond every number: what is not kept
    key = tl.where(kept, bits ^ ((bits >> 63) & last), last)
    count = tl.sum(kept.to(tl.int32), 0)
    low = _at_rank(key, tl.maximum(count - 1, 0) // 2)
    upto = tl.sum((key <= low).to(tl.int32), 0)
    after = tl.min(tl.where(key > low, key, last), 0)
    high = tl.where(upto > count // 2, low, after)
    low, high = low ^ ((low >> 63) & last), high ^ ((high >> 63) & last)
    return (low.to(tl.float64, bitcast=True) + high.to(tl.float64, bitcast=True)) / 2


@triton.jit
def _centred(blocks, lane, kept, count):
    """What is kept, less its mean; loaded where it is used, since a program cannot hold all that it uses."""
    v = tl.load(blocks + lane, mask=kept, other=0)
    return tl.where(kept, v - tl.sum(v, 0) / count, 0.0)


@triton.jit
def _total(blocks, lane, kept):
    return tl.sum(tl.load(blocks + lane, mask=kept, other=0), 0)


@triton.jit(do_not_specialize=["high", "wide", "ranges", "turns"])
def levels(
    blocks, own_level, level, span, out, high, wide, ranges, turns,
    IMAGES: tl.constexpr, WITNESS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """out (tiles, 4): gain and offset with their errors, as `reference._levels`, from means of blocks.

    blocks (tiles, IMAGES, high * wide) float64; span: of the grey scale, `ranges` numbers apart from tile to tile;
    turns: 3, a number that the compiler does not know, so that it keeps the loop.
    """
    n, lane = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCKS)
    count = high * wide
    live = lane < count
    base = blocks + n * IMAGES * count
    a, b, there = base, base + count, base + WITNESS * count
    steps = tl.zeros([BLOCKS], tl.float64)
    for side in range(4):  # the blocks above, below, left and right
        ahead = tl.where(side % 2 == 0, -1, 1)
        at = tl.where(side < 2, lane // wide, lane % wide) + ahead
        beside = live & (at >= 0) & (at < tl.where(side < 2, high, wide))
        at = lane + tl.where(side < 2, wide, 1) * ahead
        step = tl.load(there + tl.minimum(tl.maximum(at, 0), count - 1)) - tl.load(there + tl.minimum(lane, count - 1))
        steps = tl.maximum(steps, tl.where(beside, tl.abs(step), 0.0))
    kept = live & (steps <= _median(steps, live))
    going = tl.sum(kept.to(tl.int32), 0) > 0
    zero = tl.sum(steps, 0) * 0
    below, noise, error, gain, among = zero, zero, zero, zero, zero
    for turn in range(turns):  # the fit, then twice without what lies far off: a lost defect is no change of brightness
        among = tl.sum(kept.to(tl.int32), 0).to(tl.float64)
        z = _centred(there, lane, kept, among)
        square = tl.sum(z * z, 0)
        u = _centred(a, lane, kept, among)
        below = tl.sum(z * u, 0)
        aside = u - z * (below / tl.where(square > 0, square, 1.0))
        noise = tl.sum(aside * z * aside * z, 0)
        v = _centred(b, lane, kept, among)
        gain = tl.sum(z * v, 0) / tl.where(below != 0, below, 1.0)
        rest = v - tl.where((below != 0) & (tl.abs(gain) < float("inf")), gain, 1.0) * u
        error = tl.sum(z * rest * z * rest, 0)
        rest = tl.abs(rest - _median(rest, kept))
        spread = 1.4826 * _median(rest, kept)
        inside = kept & (rest <= 3.5 * spread)
        going = going & (turn + 1 < turns) & (spread > 0) & (tl.sum(inside.to(tl.int32), 0) >= _LEAST)
        kept = kept & (inside | (going == 0))
    finite = (below != 0) & (tl.abs(gain) < float("inf"))
    error = tl.sqrt(error) / tl.abs(tl.where(below != 0, below, 1.0))
    known = finite & (below > tl.sqrt(noise) * _MIN_Z) & (error < 0.25)
    apart = _centred(b, lane, kept, among) - _centred(a, lane, kept, among)
    spread = tl.sqrt(tl.sum(apart * apart, 0) / (among - 1))
    mean = (_total(b, lane, kept) - _total(a, lane, kept)) / among
    scale = tl.load(span + n * ranges)
    to = out + n * 4
    tl.store(to, tl.where(known, gain - 1, float("nan")))
    tl.store(to + 1, error)
    tl.store(to + 2, (mean + (tl.load(level + n) - tl.load(own_level + n))) / scale)
    tl.store(to + 3, spread / tl.sqrt(among) / scale)


# --- transfers ------------------------------------------------------------------------------------------------


@triton.jit
def _noise(medians, sums, group, inside, inflation, REST: tl.constexpr, WEIGHT: tl.constexpr, RESTS: tl.constexpr):
    """Variance of a sum over a ring: from the median power of a rest, as `spectra._product_sigma`."""
    at = medians + (REST * _GROUPS + group) * 2
    low, high = tl.load(at, mask=inside, other=0), tl.load(at + 1, mask=inside, other=0)
    middle = (low.to(tl.float64) + high.to(tl.float64)) / 2
    energy = tl.load(sums + group * _SUMS + WEIGHT, mask=inside, other=0)
    return tl.where(energy > 0, middle * energy, 0.0) * (inflation / 1.3862943611198906)


@triton.jit(do_not_specialize=["count"])
def transfers(
    sums, medians, blocks, scales, inflation, out, count,
    NOISY: tl.constexpr, CLEAN: tl.constexpr, BOUND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (tiles, 64): T in each ring with its error (24), in the 0.7-2 px band (2), of the texture (2), the sums that
    bound T (36)."""
    n, group = tl.program_id(0).to(tl.int64), tl.arange(0, 16)
    inside, ring = group < _GROUPS, (group > 0) & (group < _GROUPS - 1)
    mine, to = sums + n * _GROUPS * _SUMS, out + n * 64
    here = mine + group * _SUMS
    if CLEAN:
        RESTS: tl.constexpr = 4 if NOISY else 2
        rests, more = medians + n * RESTS * _GROUPS * 2, tl.load(inflation)
        over, below = tl.load(here, mask=inside, other=0), tl.load(here + 1, mask=inside, other=0)
        over_band = tl.sum(tl.load(here + 3, mask=inside, other=0), 0)
        below_band = tl.sum(tl.load(here + 4, mask=inside, other=0), 0)
        known, known_band = below > 0, below_band > 0
        if NOISY:
            known = known & (below > tl.sqrt(_noise(rests, mine, group, inside, more, 2, 6, RESTS)) * _MIN_Z)
            whole = tl.sqrt(tl.sum(_noise(rests, mine, group, inside, more, 3, 7, RESTS), 0))
            known_band = known_band & (below_band > whole * _MIN_Z)
        error = tl.sqrt(_noise(rests, mine, group, inside, more, 0, 6, RESTS))
        error_band = tl.sqrt(tl.sum(_noise(rests, mine, group, inside, more, 1, 7, RESTS), 0))
        safe, safe_band = tl.where(below > 0, below, 1.0), tl.where(below_band > 0, below_band, 1.0)
        tl.store(to + (group - 1) * 2, tl.where(known, over / safe, float("nan")), mask=ring)
        tl.store(to + (group - 1) * 2 + 1, error / safe, mask=ring)
        tl.store(to + 24, tl.where(known_band, over_band / safe_band, float("nan")))
        tl.store(to + 25, error_band / safe_band)
        lane, base = tl.arange(0, BLOCK), blocks + n * count * 2
        a, b = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        for start in range(0, count, BLOCK):
            at = start + lane
            a += tl.load(base + at * 2, mask=at < count, other=0)
            b += tl.load(base + at * 2 + 1, mask=at < count, other=0)
        over, below = tl.sum(a, 0), tl.sum(b, 0)
        mean, t = below / count.to(tl.float64), over / tl.where(below > 0, below, 1.0)
        spread, error = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        for start in range(0, count, BLOCK):
            at = start + lane
            x = tl.load(base + at * 2, mask=at < count, other=0)
            y = tl.load(base + at * 2 + 1, mask=at < count, other=0)
            away = tl.where(at < count, y - mean, 0.0)
            spread += away * away
            error += (x - t * y) * (x - t * y)
        known = (below > 0) & (below > tl.sqrt(tl.sum(spread, 0)) * _MIN_Z)
        tl.store(to + 26, tl.where(known, t, float("nan")))
        tl.store(to + 27, tl.sqrt(tl.sum(error, 0)) / tl.where(below > 0, below, 1.0))
    if BOUND:
        scale = tl.load(scales + n).to(tl.float64)
        for k in tl.static_range(3):
            found = tl.load(here + 8 + k, mask=inside, other=0) / (scale * scale)
            tl.store(to + 28 + k * 12 + group - 1, found, mask=ring)
