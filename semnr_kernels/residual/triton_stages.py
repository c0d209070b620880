# mypy: disable-error-code="assignment"
"""The scan of the residual in Triton, up to the map of the strongest: what lies around the transforms.

A tile is the grid's last axis. Sums are those of a fixed number of programs (`PARTS`), or of a line or a block of the
tile, each in float64 and added up in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import marking, scanning

PARTS = 16  # programs a tile, where a sum of all its pixels is taken
TOGETHER = 4  # rows of a spectrum that a program filters
_PARTS, _TOGETHER = tl.constexpr(PARTS), tl.constexpr(TOGETHER)
_HALO = tl.constexpr(scanning._HALO)
_CALMEST = tl.constexpr(marking.CALMEST)
_QUANTILE = tl.constexpr(marking.QUANTILE)


@triton.jit
def law_of(n, gain, offset, floor, level, most):
    """Gain, offset at the levelled image, and least variance of a tile's noise, float64."""
    slope = tl.load(gain + n)
    top = tl.max(tl.load(most + n * _PARTS + tl.arange(0, _PARTS)), 0)
    return slope, tl.load(offset + n) + slope * tl.load(level + n), tl.maximum(
        tl.load(floor + n), top * top * 1e-12 + 1e-12
    )  # fmt: skip


@triton.jit
def sigma_of(d, gain, offset, floor):
    """Of the noise, float32; in float64 on the way, since gain and offset may nearly cancel."""
    return tl.sqrt(tl.maximum(d.to(tl.float64) * gain + offset, floor)).to(tl.float32)


@triton.jit
def own_of(value, room):
    """As `marking._own`, of the level that 68 % stay below."""
    own = value.to(tl.float64)
    return tl.where(own > 1, own, tl.minimum(tl.maximum(own * room, _CALMEST), 1.0))


@triton.jit
def usual_of(level, own):
    """What z is multiplied with at edges of a strength: at most 1."""
    return 1 / tl.maximum(level / (own.to(tl.float32) * _QUANTILE), 1.0)


# --- the residual ---------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["pixels"])
def extremes(d, level, out, pixels, BLOCK: tl.constexpr):
    """out[n, part]: the largest |d|, its level included."""
    n, part = tl.program_id(1).to(tl.int64), tl.program_id(0)
    own = tl.load(level + n)
    most = tl.zeros([BLOCK], tl.float64)
    for start in range(part * BLOCK, pixels, _PARTS * BLOCK):
        at = start + tl.arange(0, BLOCK)
        v = tl.load(d + n * pixels + at, mask=at < pixels, other=0).to(tl.float64)
        most = tl.maximum(most, tl.where(at < pixels, tl.abs(v + own), 0.0))
    tl.store(out + n * _PARTS + part, tl.max(most, 0))


@triton.jit(do_not_specialize=["pixels"])
def moments(x, d, valid, x_level, d_level, gain, offset, floor, most, out, pixels, BLOCK: tl.constexpr):
    """out[n, part]: sum of the residual over the noise, of its square, and how many pixels take part."""
    n, part = tl.program_id(1).to(tl.int64), tl.program_id(0)
    slope, base, least = law_of(n, gain, offset, floor, d_level, most)
    apart = (tl.load(x_level + n) - tl.load(d_level + n)).to(tl.float32)
    first, second, count = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for start in range(part * BLOCK, pixels, _PARTS * BLOCK):
        at = start + tl.arange(0, BLOCK)
        live = at < pixels
        b = tl.load(d + n * pixels + at, mask=live, other=0)
        u = (tl.load(x + n * pixels + at, mask=live, other=0) - b + apart) / sigma_of(b, slope, base, least)
        if valid is not None:
            live = live & (tl.load(valid + n * pixels + at, mask=live, other=0) != 0)
        u = tl.where(live, u, 0.0).to(tl.float64)
        first += u
        second += u * u
        count += live.to(tl.float64)
    to = out + (n * _PARTS + part) * 3
    tl.store(to, tl.sum(first, 0))
    tl.store(to + 1, tl.sum(second, 0))
    tl.store(to + 2, tl.sum(count, 0))


@triton.jit
def moments_of(sums, n):
    """Both sums and the count, at least 1, of what `moments` left."""
    at = sums + (n * _PARTS + tl.arange(0, _PARTS)) * 3
    return tl.sum(tl.load(at), 0), tl.sum(tl.load(at + 1), 0), tl.maximum(tl.sum(tl.load(at + 2), 0), 1.0)


@triton.jit(do_not_specialize=["height", "width", "rows", "columns", "down", "across"])
def lines(
    x, d, valid, x_level, d_level, gain, offset, floor, most, sums, out, height, width, rows, columns, down, across,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """One line of a window, less the mean and its own offset, and the zeros beside and below it.

    out: (tiles, windows, rows, columns).
    """
    row, window, n = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    wy, wx = window // across, window % across
    top, left = tl.maximum(wy * height // down - _HALO, 0), tl.maximum(wx * width // across - _HALO, 0)
    bottom = tl.where(wy + 1 == down, height, (wy + 1) * height // down + _HALO)
    right = tl.where(wx + 1 == across, width, (wx + 1) * width // across + _HALO)
    bottom, right = tl.minimum(bottom, height), tl.minimum(right, width)
    column, y = tl.arange(0, COLUMNS), top + row
    live = (column < width) & (y < bottom)
    slope, base, least = law_of(n, gain, offset, floor, d_level, most)
    apart = (tl.load(x_level + n) - tl.load(d_level + n)).to(tl.float32)
    total, _, count = moments_of(sums, n)
    at = (n * height + y) * width + column
    b = tl.load(d + at, mask=live, other=0)
    u = (tl.load(x + at, mask=live, other=0) - b + apart) / sigma_of(b, slope, base, least)
    if valid is not None:
        live = live & (tl.load(valid + at, mask=live, other=0) != 0)
    u = tl.where(live, u - (total / count).to(tl.float32), 0.0)
    inside = tl.sum(tl.minimum(tl.maximum(u, -3.0), 3.0), 0)
    u = tl.where(live, u - inside / tl.maximum(tl.sum(live.to(tl.int32), 0), 1).to(tl.float32), 0.0)
    to = out + ((n * down * across + window) * rows + row) * columns
    tl.store(to + column - left, u, mask=(column >= left) & (column < right))
    tl.store(to + right - left + column, tl.zeros_like(u), mask=right - left + column < columns)


@triton.jit(do_not_specialize=["taps_count", "size", "pixels", "shapes"])
def gains(
    taps, turns, along, across, right, white, gain, density, taps_count, size, pixels, shapes,
    SHAPES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What the whitening filter of a tile leaves of each shape.

    white (tiles, size) float32: its power along the line. gain (tiles, shapes): z of such a bump of height 1. density
    (tiles,): places a pixel that the search tries.
    """
    n, shape = tl.program_id(0).to(tl.int64), tl.arange(0, SHAPES)[None, :]
    energy, down, flat = tl.zeros([SHAPES], tl.float64), tl.zeros([SHAPES], tl.float64), tl.zeros([SHAPES], tl.float64)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        live = at < size
        even, odd = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        for k in range(taps_count):
            tap = tl.load(taps + n * taps_count + k)
            even += tl.load(turns + k * size + at, mask=live, other=0) * tap
            odd += tl.load(turns + (8 + k) * size + at, mask=live, other=0) * tap
        power = even * even + odd * odd
        tl.store(white + n * size + at, power.to(tl.float32), mask=live)
        place, there = at[:, None] * shapes + shape, live[:, None] & (shape < shapes)
        own = tl.load(along + place, mask=there, other=0) * power[:, None]
        energy += tl.sum(own, 0)
        down += tl.sum(tl.load(across + place, mask=there, other=0) * power[:, None], 0)
        flat += tl.sum(own * tl.load(right + at, mask=live, other=0)[:, None], 0)
    shape = tl.arange(0, SHAPES)
    tl.store(gain + n * shapes + shape, tl.sqrt(energy / pixels), mask=shape < shapes)
    each = tl.where(shape < shapes, tl.sqrt(down * flat) / tl.where(shape < shapes, energy, 1.0), 0.0)
    tl.store(density + n, tl.sum(each, 0))


@triton.jit(do_not_specialize=["rows", "columns", "size", "windows"])
def bands(spectrum, white, gone_down, gone_right, out, rows, columns, size, windows, LANES: tl.constexpr):
    """Rows of a spectrum, filtered in place, over the pixels; out[window, row, band]: its power by bands of fx.

    spectrum: (tiles * windows, rows, size, 2). gone: what the surroundings' Gaussian leaves.
    """
    window = tl.program_id(1).to(tl.int64)
    band = tl.arange(0, 8)[:, None]
    first, stop = (band * size + 7) // 8, ((band + 1) * size + 7) // 8
    column = first + tl.arange(0, LANES)[None, :]
    live = column < stop
    gone = tl.load(gone_right + column, mask=live, other=0)
    thin = tl.load(white + (window // windows) * size + column, mask=live, other=0)
    begins = tl.program_id(0) * _TOGETHER
    for row in range(begins, tl.minimum(begins + _TOGETHER, rows)):
        at = spectrum + ((window * rows + row) * size + column) * 2
        re, im = tl.load(at, mask=live, other=0), tl.load(at + 1, mask=live, other=0)
        high = 1 - tl.load(gone_down + row) * gone
        a, b = re.to(tl.float64), im.to(tl.float64)
        power = (a * a + b * b) * (high * thin.to(tl.float64))
        tl.store(out + (window * rows + row) * 8 + tl.arange(0, 8), tl.sum(power, 1))
        left = (high / (rows * columns)).to(tl.float32) * thin
        tl.store(at, re * left, mask=live)
        tl.store(at + 1, im * left, mask=live)


@triton.jit(do_not_specialize=["height", "width", "step"])
def strength(
    d, level, gain, offset, floor, most, taps, out, sampled, height, width, step,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient under a Gaussian over the noise's σ; and every `step`-th row and column of it again.

    taps: (2, 9): of the Gaussian and of its derivative, from the middle on.
    """
    n, tiles = tl.program_id(1).to(tl.int64), (width + COLUMNS - 1) // COLUMNS
    y = (tl.program_id(0) // tiles) * ROWS + tl.arange(0, ROWS)[:, None]
    x = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    live = (y < height) & (x < width)
    plane = d + n * height * width
    down, right = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    for k in range(-8, 9):
        line = plane + tl.minimum(tl.maximum(y + k, 0), height - 1) * width
        flat = tl.load(line + tl.minimum(x, width - 1)) * tl.load(taps)
        steep = tl.zeros([ROWS, COLUMNS], tl.float32)
        for j in tl.static_range(1, 9):
            a = tl.load(line + tl.maximum(tl.minimum(x, width) - j, 0))
            b = tl.load(line + tl.minimum(x + j, width - 1))
            flat += (a + b) * tl.load(taps + j)
            steep += (b - a) * tl.load(taps + 9 + j)
        away = tl.abs(k)
        turned = tl.load(taps + 9 + away)
        down += flat * tl.where(k < 0, -turned, turned)
        right += steep * tl.load(taps + away)
    slope, base, least = law_of(n, gain, offset, floor, level, most)
    v = tl.load(plane + y * width + x, mask=live, other=0)
    found = tl.sqrt(down * down + right * right) / sigma_of(v, slope, base, least)
    tl.store(out + n * height * width + y * width + x, found, mask=live)
    high, wide = (height + step - 1) // step, (width + step - 1) // step
    to = sampled + n * high * wide + (y // step) * wide + x // step
    tl.store(to, found, mask=live & (y % step == 0) & (x % step == 0))


# --- the bank of shapes ---------------------------------------------------------------------------------------


@triton.jit
def _round(v, length):
    """Within a side that is round: the first is the neighbour of the last."""
    v = tl.where(v < 0, v + length, v)
    return tl.where(v >= length, v - length, v)


@triton.jit
def filtered(plane, taps, y, x, height, width, rows, columns, down, across, reach, SHAPES: tl.constexpr):
    """Every shape at pixels (y, x) of a tile: a tuple of sums, not yet over the gains.

    Shapes are the same turned by 90° and mirrored, so one tap serves the eight places of its orbit. taps: (orbits,
    shapes); what lies on an axis or a diagonal is met more than once, and its tap is the less.
    """
    wy, wx = ((y + 1) * down - 1) // height, ((x + 1) * across - 1) // width
    here = plane + (wy * across + wx) * (rows * columns)
    y -= tl.maximum(wy * height // down - _HALO, 0)
    x -= tl.maximum(wx * width // across - _HALO, 0)
    sums = ()
    for _ in tl.static_range(SHAPES):
        sums = sums + ((y + x).to(tl.float32) * 0,)
    for a in range(0, reach + 1):
        up, low = _round(y - a, rows) * columns, _round(y + a, rows) * columns
        left, right = _round(x - a, columns), _round(x + a, columns)
        for b in range(0, a + 1):
            before, after = _round(x - b, columns), _round(x + b, columns)
            v = tl.load(here + up + before) + tl.load(here + up + after)
            v += tl.load(here + low + before) + tl.load(here + low + after)
            before, after = _round(y - b, rows) * columns, _round(y + b, rows) * columns
            v += tl.load(here + before + left) + tl.load(here + before + right)
            v += tl.load(here + after + left) + tl.load(here + after + right)
            tap = taps + (a * (a + 1) // 2 + b) * SHAPES
            more = ()
            for k in tl.static_range(SHAPES):
                more = more + (sums[k] + v * tl.load(tap + k),)
            sums = more
    return sums


@triton.jit(do_not_specialize=["height", "width", "rows", "columns", "down", "across", "reach", "step"])
def sample(
    plane, taps, gain, out, height, width, rows, columns, down, across, reach, step,
    SHAPES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out (tiles, shapes, samples): |z| at every `step`-th row and column."""
    n = tl.program_id(1).to(tl.int64)
    high, wide = (height + step - 1) // step, (width + step - 1) // step
    tiles = (wide + COLUMNS - 1) // COLUMNS
    i = (tl.program_id(0) // tiles) * ROWS + tl.arange(0, ROWS)[:, None]
    j = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    y, x = tl.minimum(i, high - 1) * step, tl.minimum(j, wide - 1) * step
    own = plane + n * down * across * rows * columns
    sums = filtered(own, taps, y, x, height, width, rows, columns, down, across, reach, SHAPES)
    for k in tl.static_range(SHAPES):
        scale = (1 / tl.load(gain + n * SHAPES + k)).to(tl.float32)
        to = out + (n * SHAPES + k) * high * wide + i * wide + j
        tl.store(to, tl.abs(sums[k] * scale), mask=(i < high) & (j < wide))


@triton.jit(do_not_specialize=["samples"])
def grouped(
    sampled, z, limits, below, bounds, out, samples, SHAPES: tl.constexpr, SMALL: tl.constexpr, LARGE: tl.constexpr,
    LEVELS: tl.constexpr, LIMITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (tiles, 2, samples): |z| of the two shapes that stand for others, those at the weakest edges first.

    Equal strengths in the order of the pixels. limits, below (tiles, LIMITS): strengths where a level ends, and how
    many are less; bounds (LEVELS + 1,): where each level begins.
    """
    n = tl.program_id(1).to(tl.int64)
    channel = tl.where(tl.program_id(0) == 0, SMALL, LARGE)
    to = out + (n * 2 + tl.program_id(0)) * samples
    ties, filled = (), ()
    for k in tl.static_range(LEVELS):
        ties = ties + (tl.load(below + n * LIMITS + k),)
    for k in tl.static_range(LEVELS + 1):
        filled = filled + (tl.load(bounds + k),)
    for start in range(0, samples, BLOCK):
        at = start + tl.arange(0, BLOCK)
        live = at < samples
        s = tl.load(sampled + n * samples + at, mask=live, other=0)
        v = tl.load(z + (n * SHAPES + channel) * samples + at, mask=live, other=0)
        group = tl.zeros([BLOCK], tl.int32)
        more = ()
        for k in tl.static_range(LEVELS):
            limit = tl.load(limits + n * LIMITS + k)
            same = (live & (s == limit)).to(tl.int32)
            rank = ties[k] + tl.cumsum(same, 0) - same
            beyond = (s > limit) | ((same > 0) & (rank >= tl.load(bounds + k + 1)))
            group += beyond.to(tl.int32)
            more = more + (ties[k] + tl.sum(same, 0),)
        ties = more
        further = ()
        for k in tl.static_range(LEVELS + 1):
            mine = (live & (group == k)).to(tl.int32)
            tl.store(to + filled[k] + tl.cumsum(mine, 0) - 1, v, mask=mine > 0)
            further = further + (filled[k] + tl.sum(mine, 0),)
        filled = further


@triton.jit(do_not_specialize=["height", "width", "rows", "columns", "down", "across", "reach", "high", "wide"])
def strongest(
    plane, taps, edges, valid, gain, own, room, limits, levels, usual, best, blocks, largest,
    height, width, rows, columns, down, across, reach, high, wide,
    SHAPES: tl.constexpr, FEW: tl.constexpr, SMALL: tl.constexpr, LARGE: tl.constexpr, LEVELS: tl.constexpr,
    LIMITS: tl.constexpr, PER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The largest |z| of all shapes, over what is usual; and of each of high x wide blocks five sums.

    blocks (tiles, high * wide, 5): pixels that take part, their z² of the shape SMALL (at most 16), their bounded
    strength, the product of both, the square of the strength. largest: also the largest |z| as it is, or None.
    """
    n = tl.program_id(1).to(tl.int64)
    strips = (wide + PER - 1) // PER
    block_row, strip = tl.program_id(0) // strips, tl.program_id(0) % strips
    half = tl.load(usual + n)
    small = own_of(tl.load(own + n * SHAPES + SMALL), tl.load(room + SMALL))
    large = own_of(tl.load(own + n * SHAPES + LARGE), tl.load(room + LARGE))
    top, bottom = (block_row * height + high - 1) // high, ((block_row + 1) * height + high - 1) // high
    for block in range(strip * PER, tl.minimum(strip * PER + PER, wide)):
        left, right = (block * width + wide - 1) // wide, ((block + 1) * width + wide - 1) // wide
        y, x = top + tl.arange(0, ROWS)[:, None], left + tl.arange(0, COLUMNS)[None, :]
        live = (y < bottom) & (x < right)
        y, x = tl.minimum(y, height - 1), tl.minimum(x, width - 1)
        at = n * height * width + y * width + x
        base = plane + n * down * across * rows * columns
        sums = filtered(base, taps, y, x, height, width, rows, columns, down, across, reach, SHAPES)
        edge = tl.load(edges + at)
        level = tl.zeros([ROWS, COLUMNS], tl.int32)
        for k in tl.static_range(LEVELS):
            level += (edge > tl.load(limits + n * LIMITS + k)).to(tl.int32)
        calm = usual_of(tl.load(levels + n * 2 * (LEVELS + 1) + level), small)
        calm_large = usual_of(tl.load(levels + (n * 2 + 1) * (LEVELS + 1) + level), large)
        found, raw = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
        for k in tl.static_range(SHAPES):
            per = tl.load(gain + n * SHAPES + k)
            size = tl.abs(sums[k])
            mine = (1 / (per * own_of(tl.load(own + n * SHAPES + k), tl.load(room + k)))).to(tl.float32)
            found = tl.maximum(found, size * mine * (calm if k < FEW else calm_large))
            if largest is not None:
                raw = tl.maximum(raw, size * (1 / per).to(tl.float32))
        tl.store(best + at, found, mask=live)
        if largest is not None:
            tl.store(largest + at, raw, mask=live)
        if valid is not None:
            live = live & (tl.load(valid + at) != 0)
        z = sums[SMALL] * (1 / tl.load(gain + n * SHAPES + SMALL)).to(tl.float32)
        weight = live.to(tl.float64)
        e = tl.minimum(z * z, 16.0).to(tl.float64) * weight
        g = (edge / (edge + (half + 1e-3))).to(tl.float64) * weight
        to = blocks + (n * high * wide + block_row * wide + block) * 5
        tl.store(to, tl.sum(weight))
        tl.store(to + 1, tl.sum(e))
        tl.store(to + 2, tl.sum(g))
        tl.store(to + 3, tl.sum(e * g))
        tl.store(to + 4, tl.sum(g * g))
