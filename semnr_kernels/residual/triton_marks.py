# mypy: disable-error-code="assignment"
"""The scan of the residual in Triton, from the map of the strongest on: figures of the tile, places, what they were."""

from __future__ import annotations

import triton
import triton.language as tl

from . import marking
from .triton_stages import filtered, law_of, moments_of, own_of, sigma_of, usual_of

CELL = 4  # px: a cell holds one largest place
GROUPS = 1024  # of cells, each with its largest
TRIED = 4 * marking.LISTED  # places that are looked at, strongest first
_CELL, _GROUPS, _TRIED = tl.constexpr(CELL), tl.constexpr(GROUPS), tl.constexpr(TRIED)
_LISTED, _AROUND = tl.constexpr(marking.LISTED), tl.constexpr(marking.AROUND)
_LOW = tl.constexpr(2**32 - 1)


@triton.jit(do_not_specialize=["rows", "windows", "count"])
def figures(
    density, moments, power, row_bands, areas, band_weight, blocks, out, limits, rows, windows, count,
    RATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (tiles, 66): variance, structure_z, power by bands; limits (tiles,): as `scanning.threshold`.

    power (tiles, windows, rows, 8); areas (windows,): 1 over the pixels a window sees and their number.
    """
    n = tl.program_id(0).to(tl.int64)
    first, second, pixels = moments_of(moments, n)
    tl.store(out + n * 66, tl.maximum(second - first * first / pixels, 0.0) / pixels)
    # |z| that noise exceeds: each step leaves a thirtieth of the distance
    rate = tl.load(density + n) * pixels * RATE
    u = rate * 0 + 3.0
    for _ in tl.static_range(12):
        u = tl.sqrt(tl.maximum(2 * tl.log(tl.maximum(rate * u, 2.718281828459045)), 4.0))
    tl.store(limits + n, u)
    lane, column = tl.arange(0, BLOCK), tl.arange(0, 8)
    for band in range(8):
        whole = tl.zeros([8], tl.float64)
        for window in range(windows):
            plane, part = power + (n * windows + window) * rows * 8, tl.zeros([8], tl.float64)
            for start in range(0, rows, BLOCK):
                row = start + lane
                mine = (row < rows) & (tl.load(row_bands + row, mask=row < rows, other=8) == band)
                part += tl.sum(tl.load(plane + row[:, None] * 8 + column[None, :], mask=mine[:, None], other=0), 0)
            whole += part * tl.load(areas + window)
        tl.store(out + n * 66 + 2 + band * 8 + column, whole / tl.load(band_weight + band * 8 + column))
    # as `spread.energy_at_edges`: all from sums over blocks
    zero = tl.zeros([BLOCK], tl.float64)
    weight, energy, edge, both, square = zero, zero, zero, zero, zero
    base = blocks + n * count * 5
    for start in range(0, count, BLOCK):
        at, live = base + (start + lane) * 5, start + lane < count
        weight += tl.load(at, mask=live, other=0)
        energy += tl.load(at + 1, mask=live, other=0)
        edge += tl.load(at + 2, mask=live, other=0)
        both += tl.load(at + 3, mask=live, other=0)
        square += tl.load(at + 4, mask=live, other=0)
    all_weight = tl.sum(weight, 0)
    e, g = tl.sum(energy, 0) / pixels, tl.sum(edge, 0) / pixels
    both_all = tl.sum(both, 0) - e * tl.sum(edge, 0) - g * tl.sum(energy, 0) + e * g * all_weight
    own = tl.sum(square, 0) - 2 * g * tl.sum(edge, 0) + g * g * all_weight
    slope = both_all / tl.maximum(own, 1e-12)
    error = zero
    for start in range(0, count, BLOCK):
        at, live = base + (start + lane) * 5, start + lane < count
        w, se, sg = (
            tl.load(at, mask=live, other=0),
            tl.load(at + 1, mask=live, other=0),
            tl.load(at + 2, mask=live, other=0),
        )
        seg, sgg = tl.load(at + 3, mask=live, other=0), tl.load(at + 4, mask=live, other=0)
        left = seg - e * sg - g * se + e * g * w - slope * (sgg - 2 * g * sg + g * g * w)
        error += left * left
    among = count.to(tl.float64)
    spread = tl.sqrt(tl.sum(error, 0) * among / tl.maximum(among - 1, 1.0))
    known = tl.where(spread > 0, both_all / tl.where(spread > 0, spread, 1.0), 0.0)
    tl.store(out + n * 66 + 1, tl.where(count < 4, float("nan"), known))


@triton.jit(do_not_specialize=["height", "width"])
def peaks(best, out, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out (tiles, cells): the largest place of each cell of 4 x 4 pixels that is the largest within 7 x 7.

    As whole numbers that sort by the value and, of equal ones, by the place, the first first.
    """
    n = tl.program_id(1).to(tl.int64)
    tiles = (width + COLUMNS - 1) // COLUMNS
    top, left = (tl.program_id(0) // tiles) * ROWS, (tl.program_id(0) % tiles) * COLUMNS
    y, x = top + tl.arange(0, ROWS)[:, None], left + tl.arange(0, COLUMNS)[None, :]
    live = (y < height) & (x < width)
    plane = best + n * height * width
    v = tl.load(plane + y * width + x, mask=live, other=0)
    most = v
    for i in range(-3, 4):
        line = plane + tl.minimum(tl.maximum(y + i, 0), height - 1) * width
        for j in tl.static_range(-3, 4):
            most = tl.maximum(most, tl.load(line + tl.minimum(tl.maximum(x + j, 0), width - 1)))
    bits = tl.where(v == most, v, 0.0).to(tl.int32, bitcast=True).to(tl.int64)
    key = tl.where(live, (bits << 32) | (height * width - 1 - (y * width + x)).to(tl.int64), -1)
    key = tl.reshape(key, [ROWS // _CELL, _CELL, COLUMNS // _CELL, _CELL])
    key = tl.max(tl.max(key, 3), 1)
    i = top // _CELL + tl.arange(0, ROWS // _CELL)[:, None]
    j = left // _CELL + tl.arange(0, COLUMNS // _CELL)[None, :]
    high, wide = (height + _CELL - 1) // _CELL, (width + _CELL - 1) // _CELL
    tl.store(out + n * high * wide + i * wide + j, key, mask=(i < high) & (j < wide))


@triton.jit
def _strongest(cells, count, LANES: tl.constexpr):
    """The keys of the TRIED largest cells, largest first; -1 where there are no more."""
    lane, slot, part = tl.arange(0, _GROUPS), tl.arange(0, _TRIED), tl.arange(0, LANES)
    tops = tl.zeros([_GROUPS], tl.int64) - 1
    for start in range(0, count, _GROUPS):
        tops = tl.maximum(tops, tl.load(cells + start + lane, mask=start + lane < count, other=-1))
    found = tl.zeros([_TRIED], tl.int64) - 1
    for k in range(_TRIED):
        most = tl.max(tops, 0)
        group = tl.max(tl.where(tops == most, lane, 0), 0)
        found = tl.where(slot == k, most, found)
        rest = tl.zeros([LANES], tl.int64) - 1
        for start in range(0, (count + _GROUPS - 1) // _GROUPS, LANES):
            at = (start + part) * _GROUPS + group
            key = tl.load(cells + at, mask=at < count, other=-1)
            rest = tl.maximum(rest, tl.where(key < most, key, -1))
        tops = tl.where(lane == group, tl.max(rest, 0), tops)
    return found


@triton.jit(do_not_specialize=["cells_count", "height", "width", "rows", "columns", "down", "across", "reach"])
def marks(
    cells, cells_count, limit, plane, taps, edges, d, d_level, gain_of, offset, floor, most, gain, own, room, radii,
    limits, levels, out, height, width, rows, columns, down, across, reach,
    SHAPES: tl.constexpr, FEW: tl.constexpr, SMALL: tl.constexpr, LARGE: tl.constexpr, RANKED: tl.constexpr,
    LEVELS: tl.constexpr, LIMITS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """out (tiles, 16, 5): row, column, shape, z over what is usual, height in grey levels; row -1 of what there is not.

    RANKED: where each shape of the bank's own order lies. radii (2, shapes): half sizes, as they are and as told.
    """
    n, slot = tl.program_id(0).to(tl.int64), tl.arange(0, _TRIED)
    key = _strongest(cells + n * cells_count, cells_count, LANES)
    value = (key >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    there = key >= 0
    flat = tl.where(there, height * width - 1 - (key & _LOW), 0).to(tl.int32)
    wanted = there & ((value.to(tl.float64) > tl.load(limit + n)) | (slot == 0))
    y, x = flat // width, flat % width
    base = plane + n * down * across * rows * columns
    sums = filtered(base, taps, y, x, height, width, rows, columns, down, across, reach, SHAPES)
    edge = tl.load(edges + n * height * width + flat)
    level = tl.zeros([_TRIED], tl.int32)
    for k in tl.static_range(LEVELS):
        level += (edge > tl.load(limits + n * LIMITS + k)).to(tl.int32)
    small = own_of(tl.load(own + n * SHAPES + SMALL), tl.load(room + SMALL))
    large = own_of(tl.load(own + n * SHAPES + LARGE), tl.load(room + LARGE))
    calm = usual_of(tl.load(levels + n * 2 * (LEVELS + 1) + level), small)
    calm_large = usual_of(tl.load(levels + (n * 2 + 1) * (LEVELS + 1) + level), large)
    size, raw = tl.zeros([_TRIED], tl.float32) - 1, tl.zeros([_TRIED], tl.float32)
    per, shape = tl.zeros([_TRIED], tl.float64) + 1, tl.zeros([_TRIED], tl.int32)
    for k in tl.static_range(SHAPES):
        at = n * SHAPES + RANKED[k]
        each = tl.load(gain + at)
        mine = sums[RANKED[k]] * (1 / (each * own_of(tl.load(own + at), tl.load(room + RANKED[k])))).to(tl.float32)
        mine *= calm if RANKED[k] < FEW else calm_large
        better = tl.abs(mine) > size
        size = tl.where(better, tl.abs(mine), size)
        raw = tl.where(better, sums[RANKED[k]], raw)
        per = tl.where(better, each, per)
        shape = tl.where(better, k, shape)
    # one region, one mark: a place is left out where a stronger one that is kept reaches it
    own_radius, told_radius = tl.load(radii + shape), tl.load(radii + SHAPES + shape)
    kept = tl.zeros([_TRIED], tl.int32)
    for k in range(_TRIED):
        me = slot == k
        down_by = (y - tl.sum(tl.where(me, y, 0), 0)).to(tl.float64)
        right_by = (x - tl.sum(tl.where(me, x, 0), 0)).to(tl.float64)
        reached = tl.sum(tl.where(me, own_radius, 0.0), 0) + told_radius + 2
        flank = (kept > 0) & (tl.sqrt(down_by * down_by + right_by * right_by) < reached)
        free = (tl.sum(flank.to(tl.int32), 0) == 0) & (tl.sum(kept, 0) < _LISTED)
        kept = tl.where(me & wanted & free, 1, kept)
    slope, offset_here, least = law_of(n, gain_of, offset, floor, d_level, most)
    spot = sigma_of(tl.load(d + n * height * width + flat), slope, offset_here, least).to(tl.float64)
    tall = raw.to(tl.float64) / (per * per) * spot  # z over the gain
    signed = tl.where(raw < 0, -value, value).to(tl.float64)
    place = tl.cumsum(kept, 0) - 1
    for k in range(_LISTED):
        me = (kept > 0) & (place == k)
        known = tl.sum(me.to(tl.int32), 0) > 0
        to = out + (n * _LISTED + k) * 5
        tl.store(to, tl.where(known, tl.sum(tl.where(me, y, 0), 0), -1).to(tl.float64))
        tl.store(to + 1, tl.sum(tl.where(me, x, 0), 0).to(tl.float64))
        tl.store(to + 2, tl.sum(tl.where(me, shape, 0), 0).to(tl.float64))
        tl.store(to + 3, tl.sum(tl.where(me, signed, 0.0), 0))
        tl.store(to + 4, tl.sum(tl.where(me, tall, 0.0), 0))


@triton.jit(do_not_specialize=["height", "width", "side"])
def made(d, found, templates, reaches, apart, out, height, width, side, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out (tiles, 16, 5): the places, the last number whether the denoiser made it, as `marking._made_by_denoiser`.

    The squared distance of the patch to each patch around, with the bump given back and without. templates: (shapes,
    side, side).
    """
    n, row = tl.program_id(1).to(tl.int64), tl.program_id(1).to(tl.int64) * _LISTED + tl.program_id(0)
    y = tl.load(found + row * 5).to(tl.int32)
    to = out + row * 5
    invented = tl.zeros([1], tl.float64)
    if y >= 0:
        x, shape = tl.load(found + row * 5 + 1).to(tl.int32), tl.load(found + row * 5 + 2).to(tl.int32)
        tall = tl.load(found + row * 5 + 4)
        reach, far = tl.load(reaches + shape).to(tl.int32), tl.load(apart + shape)
        span = 2 * (reach + _AROUND) + 1
        top = tl.maximum(tl.minimum(y - reach - _AROUND, height - span), 0)
        left = tl.maximum(tl.minimum(x - reach - _AROUND, width - span), 0)
        high, wide = tl.minimum(span, height - top) - 2 * reach, tl.minimum(span, width - left) - 2 * reach
        plane, bump = d + n * height * width, templates + shape * side * side + (side // 2 - reach) * (side + 1)
        given = tl.zeros([ROWS, COLUMNS], tl.float32) + float("inf")
        without = given
        for start in range(0, high, ROWS):
            i, j = start + tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
            live = (i < high) & (j < wide)
            i, j = tl.minimum(i, high - 1), tl.minimum(j, wide - 1)
            with_bump, alone = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
            for a in range(0, 2 * reach + 1):
                line = plane + tl.minimum(tl.maximum(y - reach + a, top), top + high + 2 * reach - 1) * width
                for b in range(0, 2 * reach + 1):
                    patch = tl.load(line + tl.minimum(tl.maximum(x - reach + b, left), left + wide + 2 * reach - 1))
                    left_over = tl.load(plane + (top + i + a) * width + left + j + b) - patch
                    alone += left_over * left_over
                    left_over -= (tl.load(bump + a * side + b).to(tl.float64) * tall).to(tl.float32)
                    with_bump += left_over * left_over
            down_by, right_by = (top + i + reach - y).to(tl.float64), (left + j + reach - x).to(tl.float64)
            live = live & (down_by * down_by + right_by * right_by > far * far)
            given = tl.minimum(given, tl.where(live, with_bump, float("inf")))
            without = tl.minimum(without, tl.where(live, alone, float("inf")))
        invented += (tl.min(given) < tl.min(without)).to(tl.float64)
    for k in tl.static_range(4):
        tl.store(to + k, tl.load(found + row * 5 + k))
    tl.store(to + 4 + tl.arange(0, 1), invented)
