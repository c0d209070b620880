"""Triton kernels of the noise law, part one: ends of the scale, fields, quantiles, and pixels put in order by bin.

`images` is an address from which windows are told by `geometry`, (windows, 8) int64: where its first pixel lies,
height, width, steps down and along, interior pixels of those before, and programs before. `state`: (N, STATE) float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import noise_law as law
from .triton_select import (
    _DIGITS,
    _LAST,
    digit_of,
    pair,
    plain_key,
    plain_value,
    signed_key,
    signed_value,
)

BINS = law._BINS
ROOM = 64  # of a table of bins: a power of 2
SAMPLED = 16  # of so many chunks of 8 pixels one tells where a quantile lies, about
# places in `state`
LEVEL, CLIPPED_LOW, CLIPPED_HIGH, INSIDE_LOW, INSIDE_HIGH, QUANTILE, UNCLIPPED = 0, 1, 2, 3, 4, 5, 8
GAIN, OFFSET, FLOOR, LIMIT = 9, 10, 11, 12  # of a round: pixels whose ratio lies below the limit are kept
TELLS = 13  # gain, offset at the windows' level and floor that the differences are divided by
STATE = 16

_BINS, _ROOM, _SAMPLED, _STATE = (tl.constexpr(v) for v in (BINS, ROOM, SAMPLED, STATE))
_TIE = tl.constexpr(law._TIE)
_MUCH_CLIPPED, _LEAST_FREE = tl.constexpr(law._MUCH_CLIPPED), tl.constexpr(law._LEAST_FREE)
_PILED, _STOPPED, _NEAR = tl.constexpr(law.PILED), tl.constexpr(law.STOPPED), tl.constexpr(law.NEAR)
_FAINT, _TAIL = tl.constexpr(law.FAINT), tl.constexpr(law.TAIL)
_UNCLIPPED, _QUANTILE, _GAIN = tl.constexpr(UNCLIPPED), tl.constexpr(QUANTILE), tl.constexpr(GAIN)


@triton.jit
def window(geometry, k):
    """Place, height, width, steps down and along, interior pixels before."""
    row = geometry + k * 8
    return (
        tl.load(row), tl.load(row + 1).to(tl.int32), tl.load(row + 2).to(tl.int32), tl.load(row + 3), tl.load(row + 4),
        tl.load(row + 5).to(tl.int32),
    )  # fmt: skip


@triton.jit
def window_of(geometry, windows, program):
    """Which window a program works on, and which of its programs it is."""
    k = tl.zeros([], tl.int32)
    for q in range(1, windows):
        k += (program >= tl.load(geometry + q * 8 + 6)).to(tl.int32)
    return k, program - tl.load(geometry + k * 8 + 6).to(tl.int32)


@triton.jit
def _all_of(images, place, width, down, right, at, live, WORK: tl.constexpr):
    """Pixels of a window by their number."""
    i, j = at // width, at % width
    return tl.load(images + place + i * down + j * right, mask=live, other=0).to(WORK)


@triton.jit(do_not_specialize=["apart", "windows"])
def ends(
    images, geometry, data_range, out, apart, windows, KNOWN: tl.constexpr, WORK: tl.constexpr, BLOCK: tl.constexpr
):
    """out[:, n] = low, high, piled of a tile, (3, N): as `noise_law.ends_of`. One program a tile."""
    n, tiles = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    images += n * apart
    low, high = tl.full([BLOCK], float("inf"), WORK), tl.full([BLOCK], -float("inf"), WORK)
    pixels = tl.zeros([], tl.int32)
    for k in range(windows):
        place, h, w, down, right, _ = window(geometry, k)
        pixels += h * w
        for start in range(0, h * w, BLOCK):
            at = start + tl.arange(0, BLOCK)
            live = at < h * w
            v = _all_of(images, place, w, down, right, at, live, WORK)
            low, high = tl.where(live, tl.minimum(low, v), low), tl.where(live, tl.maximum(high, v), high)
    least, most = tl.min(low), tl.max(high)
    first, last = least.to(tl.float64), most.to(tl.float64)
    if KNOWN:
        near = (last - first) * _NEAR
        up, under = (first + near).to(WORK), (near - last).to(WORK)
        at_low, at_high, by_low, by_high = (tl.zeros([BLOCK], tl.int32),) * 4
        for k in range(windows):
            place, h, w, down, right, _ = window(geometry, k)
            for start in range(0, h * w, BLOCK):
                at = start + tl.arange(0, BLOCK)
                live = at < h * w
                v = _all_of(images, place, w, down, right, at, live, WORK)
                at_low += (live & (v == least)).to(tl.int32)
                at_high += (live & (v == most)).to(tl.int32)
                by_low += (live & (v <= up)).to(tl.int32)
                by_high += (live & (-v <= under)).to(tl.int32)
        top = tl.load(data_range)
        first = tl.where(_stops(tl.sum(at_low), tl.sum(by_low), pixels) & (first > 0), first, 0.0)
        last = tl.where(_stops(tl.sum(at_high), tl.sum(by_high), pixels) & (last < top), last, top)
    tl.store(out + n, first)
    tl.store(out + tiles + n, last)
    tl.store(out + 2 * tiles + n, (tl.zeros([], tl.float64) if KNOWN else tl.zeros([], tl.float64) + _PILED))


@triton.jit
def _stops(piled, by, pixels):
    """Whether an extreme holds as many pixels as no tail of noise does."""
    there, beside = piled.to(tl.float64), (by - piled).to(tl.float64)
    return (there > pixels.to(tl.float64) * _STOPPED) & (there > beside * _TAIL) & (beside > there * _FAINT)


@triton.jit(do_not_specialize=["apart", "windows", "some"])
def steps(images, geometry, out, apart, windows, some, BLOCK: tl.constexpr):
    """out[n] = the greatest common divisor of the differences of about `some` pixels a window: Euclid, all at once."""
    n = tl.program_id(0).to(tl.int64)
    images += n * apart
    first = tl.load(images + tl.load(geometry)).to(tl.int32)
    step = tl.zeros([], tl.int32)
    lane = tl.arange(0, BLOCK)
    for k in range(windows):
        place, h, w, down, right, _ = window(geometry, k)
        every = tl.maximum(h * w // some, 1)
        for start in range(0, (h * w + every - 1) // every, BLOCK - 1):
            at = (start + lane) * every
            live = (at < h * w) & (lane < BLOCK - 1)
            v = _all_of(images, place, w, down, right, at, live, tl.int32)
            v = tl.where(live, tl.abs(v - first), 0)
            v = tl.where(lane == BLOCK - 1, step, v)  # what was found so far goes on with the others
            least = tl.min(tl.where(v > 0, v, 2147483647))
            while tl.max(v) > least:
                v = tl.where(v == least, v, v % least)
                least = tl.min(tl.where(v > 0, v, 2147483647))
            step = tl.max(v)
    tl.store(out + n, tl.maximum(step, 1).to(tl.float64))


@triton.jit(do_not_specialize=["apart", "windows"])
def begin(images, geometry, low, high, piled, state, near, apart, windows, WORK: tl.constexpr, BLOCK: tl.constexpr):
    """A tile's level, the shares that are clipped, the ends that count. Clears near[n]. One program a tile."""
    n = tl.program_id(0).to(tl.int64)
    images += n * apart
    floor, ceiling, share = tl.load(low + n), tl.load(high + n), tl.load(piled + n)
    under, over = floor.to(WORK), ceiling.to(WORK)
    total = tl.zeros([BLOCK], tl.float64)
    below, above = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32)
    pixels, first = tl.zeros([], tl.int32), tl.zeros([], tl.int32)
    for k in range(windows):
        place, h, w, down, right, _ = window(geometry, k)
        if k == 0:
            first = h * w
        pixels += h * w
        for start in range(0, h * w, BLOCK):
            at = start + tl.arange(0, BLOCK)
            live = at < h * w
            v = _all_of(images, place, w, down, right, at, live, WORK)
            total += tl.where(live & (k == 0), v, 0).to(tl.float64)
            below += (live & (v <= under)).to(tl.int32)
            above += (live & (v >= over)).to(tl.int32)
    level = tl.floor(tl.sum(total) / first.to(tl.float64) + 0.5)
    at_low = tl.sum(below).to(tl.float64) / pixels.to(tl.float64)
    at_high = tl.sum(above).to(tl.float64) / pixels.to(tl.float64)
    to = state + n * _STATE
    tl.store(to, level)
    tl.store(to + 1, at_low)
    tl.store(to + 2, at_high)
    tl.store(to + 3, tl.where(at_low > share, floor, -float("inf")))
    tl.store(to + 4, tl.where(at_high > share, ceiling, float("inf")))
    tl.store(near + n, 0)


@triton.jit(do_not_specialize=["apart", "windows", "pixels"])
def fields(
    images, geometry, state, near, levels, differences, slopes, apart, windows, pixels,
    WORK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Level, second difference and squared structure of the interior, (N, pixels) each. The sign of the structure tells
    that a clipped pixel enters, where many are clipped; near[n] counts those."""
    n = tl.program_id(1).to(tl.int64)
    k, block = window_of(geometry, windows, tl.program_id(0))
    place, h, w, down, right, begins = window(geometry, k)
    images += n * apart + place
    row = state + n * _STATE
    base = tl.load(row).to(WORK)
    low, high = tl.load(row + 3), tl.load(row + 4)
    much = tl.load(row + 1) + tl.load(row + 2) > _MUCH_CLIPPED
    under, over = low.to(WORK), high.to(WORK)
    at = block * BLOCK + tl.arange(0, BLOCK)
    live = at < (h - 2) * (w - 4)
    i, j = at // (w - 4), at % (w - 4)
    zero = tl.zeros([BLOCK], tl.float32)
    level, difference, across, along, bend = (zero,) * 5
    clipped = at < 0
    for C in tl.static_range(15):
        column = tl.minimum(tl.maximum(j + (C - 5), 0), w - 1) * right
        total, second = zero, zero
        for R in tl.static_range(5):
            if (R >= 1 and R <= 3) or (C >= 5 and C <= 9):
                line = tl.minimum(tl.maximum(i + (R - 1), 0), h - 1) * down
                raw = tl.load(images + line + column, mask=live, other=0).to(WORK)
                v = (raw - base).to(tl.float32)
                total += v
                if R == 2:
                    second -= 2 * v
                if R == 1 or R == 3:
                    second += v
                if C >= 5 and C <= 9:
                    if R >= 1 and R <= 3:
                        level += v
                        clipped = clipped | (raw <= under) | (raw >= over)
                    if R == 1:
                        across -= v
                    if R == 3:
                        across += v
        if C < 5 or C >= 10:
            bend += second
        if C == 5 or C == 6:
            along -= total
        if C == 8 or C == 9:
            along += total
        if C == 7:
            difference = second
    structure = tl.maximum(tl.div_rn(across * across, 50.0), tl.div_rn(along * along, 100.0))
    structure = tl.maximum(structure, tl.div_rn(bend * bend, 300.0))
    marked = (clipped & live).to(tl.int32) * much.to(tl.int32)
    to = n * pixels + begins + at
    tl.store(levels + to, tl.div_rn(level, 15.0), mask=live)
    tl.store(differences + to, tl.div_rn(difference, 2.449489742783178), mask=live)
    bits = structure.to(tl.int32, bitcast=True)
    tl.store(slopes + to, tl.where(marked > 0, bits | -2147483648, bits).to(tl.float32, bitcast=True), mask=live)
    tl.atomic_add(near + n, tl.sum(marked), sem="relaxed")


# --- quantiles ---


@triton.jit
def _marked(slope):
    """Whether a clipped pixel enters: the sign, of a zero too."""
    return slope.to(tl.int32, bitcast=True) < 0


@triton.jit
def ratio_of(level, slope, gain, offset, floor):
    """Structure over the variance that a line tells, float32."""
    variance = tl.maximum(gain * level + offset, floor)
    return tl.div_rn(slope, tl.where(variance > 0, variance, 1.0))


@triton.jit
def _key(levels, slopes, at, live, some, gain, offset, floor, KIND: tl.constexpr):
    """Keys of levels (0), of structure (1) or of structure over the variance (2)."""
    if KIND == 0:
        key = signed_key(tl.load(levels + at, mask=live, other=0))
        slope = tl.load(slopes + at, mask=live & (some > 0), other=0)
        return tl.where(live & (_marked(slope) == 0), key, _LAST)
    slope = tl.load(slopes + at, mask=live, other=0)
    if KIND == 1:
        return tl.where(live & ((_marked(slope) == 0) | (some == 0)), plain_key(tl.abs(slope)), _LAST)
    level = tl.load(levels + at, mask=live, other=0)
    return tl.where(live, plain_key(ratio_of(level, slope, gain, offset, floor)), _LAST)


@triton.jit
def quantile(
    levels, slopes, room, pixels, count, share, some, gain, offset, floor, KIND: tl.constexpr, BLOCK: tl.constexpr
):
    """The linear quantile `share` of `count` values among `pixels`, float64. room: as many int32, to be written over.

    One chunk in SAMPLED tells in which digits it lies, about; a pass over all of them counts and keeps what lies there.
    Where it lies elsewhere there is a second pass.
    """
    lane = tl.arange(0, BLOCK)
    at = share * tl.maximum(count - 1, 0).to(tl.float64)
    k = tl.floor(at).to(tl.int32)
    counts = tl.zeros([_DIGITS], tl.int32)
    for start in range(0, pixels, BLOCK * _SAMPLED):
        here = start + (lane // 8) * (8 * _SAMPLED) + lane % 8
        key = _key(levels, slopes, here, here < pixels, some, gain, offset, floor, KIND)
        counts += tl.histogram((key >> 21).to(tl.int32), _DIGITS, mask=key < _LAST)
    sampled = tl.sum(counts).to(tl.float32)
    middle = share.to(tl.float32) * sampled
    off = 4 * tl.sqrt(middle * (1 - share.to(tl.float32))) + 2
    first, _ = digit_of(counts, 0, tl.maximum(middle - off, 0).to(tl.int32))
    last, _ = digit_of(counts, 0, tl.minimum(middle + off, sampled - 1).to(tl.int32))
    if middle - off < 0:
        first = 0
    if middle + off >= sampled:
        last = _DIGITS - 1
    digit, kept, below = -tl.full([], 1, tl.int32), tl.zeros([], tl.int32), tl.zeros([], tl.int32)
    after = tl.zeros([], tl.uint32) + _LAST
    while (digit < first) | (digit > last):
        if digit >= 0:
            first, last = digit, digit
        kept, after = tl.zeros([], tl.int32), tl.zeros([], tl.uint32) + _LAST
        counts = tl.zeros([_DIGITS], tl.int32)
        for start in range(0, pixels, BLOCK):
            here = start + lane
            key = _key(levels, slopes, here, here < pixels, some, gain, offset, floor, KIND)
            top = (key >> 21).to(tl.int32)
            counts += tl.histogram(top, _DIGITS, mask=key < _LAST)
            inside = (top >= first) & (top <= last) & (key < _LAST)
            place = kept + tl.cumsum(inside.to(tl.int32)) - 1
            tl.store(room + place, key.to(tl.int32, bitcast=True), mask=inside)
            kept += tl.sum(inside.to(tl.int32))
            after = tl.minimum(after, tl.min(tl.where(top > last, key, _LAST)))
        digit, _ = digit_of(counts, 0, k)
        digit = tl.minimum(digit, _DIGITS - 1)
        below = tl.sum(tl.where(tl.arange(0, _DIGITS) < first, counts, 0))
    tl.debug_barrier()  # other threads read what these wrote
    head = tl.load(room + lane, mask=lane < kept, other=-1).to(tl.uint32, bitcast=True)
    one, two = pair(head, room, 0, kept, k - below, after, BLOCK)
    if k + 1 >= count:
        two = one
    if KIND == 0:
        low, high = signed_value(one).to(tl.float64), signed_value(two).to(tl.float64)
    else:
        low, high = plain_value(one).to(tl.float64), plain_value(two).to(tl.float64)
    return low + (high - low) * (at - tl.floor(at))


@triton.jit
def free_of(near, pixels):
    """Whether pixels near clipped ones are left out, and how many take part."""
    free = pixels - near
    enough = free >= _LEAST_FREE
    return (enough & (near > 0)).to(tl.int32), tl.where(enough, free, pixels), enough


@triton.jit(do_not_specialize=["pixels"])
def quantiles(
    state, near, starts, shares, levels, slopes, room, pixels, KIND: tl.constexpr, PLACE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """state[n, PLACE + program] = the quantile shares[program] of the level (KIND 0), the structure (1), or, of pixels
    in order by bin, the structure over the variance of the line (2). room: (programs, N, pixels) int32."""
    which, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = state + n * _STATE
    gain, offset, floor = tl.zeros([], tl.float32), tl.zeros([], tl.float32), tl.zeros([], tl.float32)
    if KIND == 2:
        some, count = tl.zeros([], tl.int32), tl.load(starts + n * _ROOM + _BINS)
        size = count
        gain, offset = tl.load(row + _GAIN).to(tl.float32), tl.load(row + _GAIN + 1).to(tl.float32)
        floor = tl.load(row + _GAIN + 2).to(tl.float32)
    else:
        some, count, enough = free_of(tl.load(near + n), pixels)
        size = pixels
        if KIND == 1:
            tl.store(row + _UNCLIPPED, tl.where(enough, count.to(tl.float64) / pixels, 0.0))
    room += (which * tl.num_programs(1).to(tl.int64) + n) * pixels
    levels += n * pixels
    slopes += n * pixels
    share = tl.load(shares + which)
    found = quantile(levels, slopes, room, size, count, share, some, gain, offset, floor, KIND, BLOCK)
    tl.store(row + PLACE + which, found)


# --- pixels by bin ---


@triton.jit
def _index(level, slope, low, high, some):
    """The bin of a pixel; the one beyond all where it takes no part."""
    width = (high - low) / _BINS
    edge = (low - width * _TIE).to(tl.float32)
    at = tl.div_rn(level - edge, tl.where(width > 0, width, 1.0).to(tl.float32))
    index = tl.minimum(tl.maximum(at, 0.0), _BINS - 1.0).to(tl.int32)
    index = tl.where(width > 0, tl.minimum(tl.maximum(index, 0), _BINS - 1), _BINS - 1)
    return tl.where(_marked(slope) & (some > 0), _BINS, index)


@triton.jit(do_not_specialize=["pixels"])
def count(state, near, levels, slopes, table, pixels, SEGMENT: tl.constexpr):
    """table[n, segment] = how many pixels of a segment each bin holds: (ROOM,) int32."""
    n, segment = tl.program_id(1).to(tl.int64), tl.program_id(0)
    some, _, _ = free_of(tl.load(near + n), pixels)
    row = state + n * _STATE + _QUANTILE
    at = segment * SEGMENT + tl.arange(0, SEGMENT)
    live = at < pixels
    level = tl.load(levels + n * pixels + at, mask=live, other=0)
    slope = tl.load(slopes + n * pixels + at, mask=live & (some > 0), other=0)
    index = _index(level, slope, tl.load(row), tl.load(row + 1), some)
    to = (n * tl.num_programs(0) + segment) * _ROOM
    tl.store(table + to + tl.arange(0, _ROOM), tl.histogram(index, _ROOM, mask=live))


@triton.jit(do_not_specialize=["segments"])
def scan(table, starts, segments, ROWS: tl.constexpr):
    """starts[n] = where each bin starts, (ROOM,); table: of a segment and bin, the place of its first pixel. One
    program a tile."""
    n = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, _ROOM)
    table += n * segments * _ROOM
    whole = tl.zeros([_ROOM], tl.int32)
    for start in range(0, segments, ROWS):
        row = start + tl.arange(0, ROWS)
        at = row[:, None] * _ROOM + lane[None, :]
        whole += tl.sum(tl.load(table + at, mask=(row < segments)[:, None], other=0), 0)
    running = tl.cumsum(whole) - whole
    tl.store(starts + n * _ROOM + lane, running)
    for start in range(0, segments, ROWS):
        row = start + tl.arange(0, ROWS)
        at = row[:, None] * _ROOM + lane[None, :]
        counts = tl.load(table + at, mask=(row < segments)[:, None], other=0)
        before = tl.cumsum(counts, 0) - counts
        tl.store(table + at, running[None, :] + before, mask=(row < segments)[:, None])
        running += tl.sum(counts, 0)


@triton.jit(do_not_specialize=["pixels"])
def put(
    state, near, levels, differences, slopes, table, level, square, slope, pixels, SEGMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Level, squared difference and structure of the pixels in the order of their bins: stable."""
    n, segment = tl.program_id(1).to(tl.int64), tl.program_id(0)
    some, _, _ = free_of(tl.load(near + n), pixels)
    row = state + n * _STATE + _QUANTILE
    low, high = tl.load(row), tl.load(row + 1)
    bins = tl.arange(0, _ROOM)
    ahead = tl.load(table + (n * tl.num_programs(0) + segment) * _ROOM + bins)
    for start in range(segment * SEGMENT, min((segment + 1) * SEGMENT, pixels), BLOCK):
        at = start + tl.arange(0, BLOCK)
        live = at < pixels
        at += n * pixels
        here, structure = tl.load(levels + at, mask=live, other=0), tl.load(slopes + at, mask=live, other=0)
        index = _index(here, structure, low, high, some)
        own = ((index[:, None] == bins[None, :]) & live[:, None]).to(tl.int32)
        place = tl.sum(own * (tl.cumsum(own, 0) - 1 + ahead[None, :]), 1)
        ahead += tl.sum(own, 0)
        to = n * pixels + place
        difference = tl.load(differences + at, mask=live, other=0)
        tl.store(level + to, here, mask=live)
        tl.store(square + to, difference * difference, mask=live)
        tl.store(slope + to, tl.abs(structure), mask=live)
