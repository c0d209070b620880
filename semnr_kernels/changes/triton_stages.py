# mypy: disable-error-code="assignment"
"""The changes in Triton: what is done to pixels and to frequencies. A tile is the grid's last axis.

Frequencies are met in the order of their rings (`order`), in pieces of one ring each: a ring's sums are those of its
pieces. Of up to three images the first is what the denoised one, the second, is compared with; the third is the
reference where there is a noisy image too. Sums are in float64 and added up in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .spectra import EDGES

SUMS = 11  # of a ring, see `rings`
GROUPS = len(EDGES) + 1  # rings, what lies inside the first and outside the last
SHIFTS = 17
_SUMS, _GROUPS, _SHIFTS = tl.constexpr(SUMS), tl.constexpr(GROUPS), tl.constexpr(SHIFTS)
_BLOCK = tl.constexpr(8)  # px, of the levels and of the texture


@triton.jit(do_not_specialize=["height", "width", "strips"])
def means(
    taper_down, taper_right, images, levels, parts, blocks, lines, height, width, strips,
    DOWN: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Eight rows of each image: parts (tiles, images, strips, 2) under the taper, and the largest; means of blocks of
    8 x 8; means of the lines, their level included, or, DOWN, sums of each strip's columns."""
    strip, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    y = strip * 8 + tl.arange(0, 8)[:, None]
    side = tl.load(taper_down + y, mask=y < height, other=0)
    high, wide = height // _BLOCK, width // _BLOCK
    for k in tl.static_range(len(images)):
        which = n * len(images) + k
        weighed, largest = tl.zeros([8, COLUMNS], tl.float64), tl.zeros([8, COLUMNS], tl.float32)
        whole = tl.zeros([8], tl.float64)
        for start in range(0, width, COLUMNS):
            x = start + tl.arange(0, COLUMNS)[None, :]
            live = (y < height) & (x < width)
            v = tl.load(images[k] + n * height * width + y * width + x, mask=live, other=0)
            taper = (side * tl.load(taper_right + x, mask=x < width, other=0)).to(tl.float32)
            v64 = v.to(tl.float64)
            weighed += v64 * taper.to(tl.float64)
            largest = tl.maximum(largest, tl.abs(v))
            down = tl.sum(v64, 0)
            block = tl.sum(tl.reshape(down, [COLUMNS // _BLOCK, _BLOCK]), 1) / (_BLOCK * _BLOCK)
            at = start // _BLOCK + tl.arange(0, COLUMNS // _BLOCK)
            tl.store(blocks + (which * high + strip) * wide + at, block, mask=(at < wide) & (strip < high))
            if DOWN:
                flat = start + tl.arange(0, COLUMNS)
                tl.store(lines + (which * strips + strip) * width + flat, down, mask=flat < width)
            else:
                whole += tl.sum(v64, 1)
        if not DOWN:
            row = strip * 8 + tl.arange(0, 8)
            whole = whole / width + tl.load(levels[k] + n)
            tl.store(lines + which * height + row, whole, mask=row < height)
        to = parts + (which * strips + strip) * 2
        tl.store(to, tl.sum(weighed))
        tl.store(to + 1, tl.max(largest).to(tl.float64))


@triton.jit(do_not_specialize=["tiles", "height", "width", "strips"])
def tapered(
    taper_down, taper_right, images, whole, parts, out, scales, tiles, height, width, strips,
    COLUMNS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """out (images, tiles, height, width): less the mean, under the taper, on one scale: a power of two."""
    strip, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    y = strip * 8 + tl.arange(0, 8)[:, None]
    side = tl.load(taper_down + y, mask=y < height, other=0)
    largest, averages = tl.zeros([PARTS], tl.float64), ()
    for k in tl.static_range(len(images)):
        total = tl.zeros([PARTS], tl.float64)
        for start in range(0, strips, PARTS):
            at = start + tl.arange(0, PARTS)
            part = parts + ((n * len(images) + k) * strips + at) * 2
            total += tl.load(part, mask=at < strips, other=0)
            largest = tl.maximum(largest, tl.load(part + 1, mask=at < strips, other=0))
        averages = averages + (tl.sum(total, 0) / tl.load(whole),)
    bits = tl.max(largest, 0).to(tl.float32).to(tl.int32, bitcast=True)
    power = tl.where(bits > 0, tl.maximum(253 - (bits >> 23), 1), 127)
    scale = (power << 23).to(tl.float32, bitcast=True)
    tl.store(scales + n, scale)
    for k in tl.static_range(len(images)):
        level = (averages[k] * scale.to(tl.float64)).to(tl.float32)
        for start in range(0, width, COLUMNS):
            x = start + tl.arange(0, COLUMNS)[None, :]
            live = (y < height) & (x < width)
            v = tl.load(images[k] + n * height * width + y * width + x, mask=live, other=0)
            taper = (side * tl.load(taper_right + x, mask=x < width, other=0)).to(tl.float32)
            to = out + (k * tiles.to(tl.int64) + n) * height * width + y * width + x
            tl.store(to, (v * scale - level) * taper, mask=live)


@triton.jit(do_not_specialize=["count", "size"])
def whitened(taps, turns, out, count, size, BLOCK: tl.constexpr):
    """out (tiles, size): power of the whitening filter along the scan line. turns: (2, 8, size)."""
    n, at = tl.program_id(1).to(tl.int64), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    even, odd = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for k in range(count):
        tap = tl.load(taps + n * count + k)
        even += tl.load(turns + k * size + at, mask=at < size, other=0) * tap
        odd += tl.load(turns + (8 + k) * size + at, mask=at < size, other=0) * tap
    tl.store(out + n * size + at, (even * even + odd * odd).to(tl.float32), mask=at < size)


# --- frequencies ----------------------------------------------------------------------------------------------


@triton.jit
def _pass(bells_down, bells_right, row, column, rows, columns, FINE: tl.constexpr, COARSE: tl.constexpr):
    """The difference of two Gaussians at a frequency, float64. bells: (Gaussians, frequencies)."""
    fine = tl.load(bells_down + FINE * rows + row) * tl.load(bells_right + FINE * columns + column)
    return fine - tl.load(bells_down + COARSE * rows + row) * tl.load(bells_right + COARSE * columns + column)


@triton.jit
def _value(plane, at, live):
    """Real and imaginary part, 0 where not live."""
    return tl.load(plane + at * 2, mask=live, other=0), tl.load(plane + at * 2 + 1, mask=live, other=0)


@triton.jit
def _often(column, width):
    """How often a frequency of the half plane is."""
    return tl.where((column == 0) | (column * 2 == width), 1.0, 2.0).to(tl.float32)


@triton.jit(do_not_specialize=["tiles", "height", "width", "along_rows"])
def rings(
    spectra, order, pieces, bells_down, bells_right, white, out, tiles, height, width, along_rows,
    NOISY: tl.constexpr, CLEAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (tiles, pieces, 11): with a reference R, and O the noisy image or else R, Re D R*, Re O R*, |R|² of each
    frequency as often as it is; the same in the 0.7-2 px band; |R|² of the squares of both weights; |D|², |X|²,
    Re D X* over the power of the noise."""
    piece, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = width // 2 + 1
    first, stop = tl.load(pieces + piece * 3), tl.load(pieces + piece * 3 + 1)
    live = first + tl.arange(0, BLOCK) < stop
    at = tl.load(order + first + tl.arange(0, BLOCK), mask=live, other=0)
    row, column = at // columns, at % columns
    plane = height.to(tl.int64) * columns * 2
    often = _often(column, width)
    to = out + (n * tl.num_programs(0) + piece) * _SUMS
    dre, dim = _value(spectra + (tiles + n) * plane, at, live)
    xre, xim = _value(spectra + n * plane, at, live)
    if CLEAN:
        rre, rim = _value(spectra + (2 * tiles + n) * plane, at, live) if NOISY else (xre, xim)
        dr, own, power = dre * rre + dim * rim, xre * rre + xim * rim, rre * rre + rim * rim
        bell = _pass(bells_down, bells_right, row, column, height, columns, 0, 2)
        high = (bell * bell * often).to(tl.float32)
        tl.store(to, tl.sum((dr * often).to(tl.float64), 0))
        tl.store(to + 1, tl.sum((own * often).to(tl.float64), 0))
        tl.store(to + 2, tl.sum((power * often).to(tl.float64), 0))
        tl.store(to + 3, tl.sum((dr * high).to(tl.float64), 0))
        tl.store(to + 4, tl.sum((own * high).to(tl.float64), 0))
        tl.store(to + 5, tl.sum((power * high).to(tl.float64), 0))
        tl.store(to + 6, tl.sum((power * (often * often)).to(tl.float64), 0))
        tl.store(to + 7, tl.sum((power * (high * high)).to(tl.float64), 0))
    if white is not None:
        place = tl.where(along_rows != 0, n * columns + column, n * height + row)
        weight = tl.load(white + place, mask=live, other=0) * often
        tl.store(to + 8, tl.sum(((dre * dre + dim * dim) * weight).to(tl.float64), 0))
        tl.store(to + 9, tl.sum(((xre * xre + xim * xim) * weight).to(tl.float64), 0))
        tl.store(to + 10, tl.sum(((dre * xre + dim * xim) * weight).to(tl.float64), 0))


@triton.jit(do_not_specialize=["count"])
def gathered(parts, pieces, out, count, BLOCK: tl.constexpr):
    """out (tiles, groups, 11): the sums of `rings`, those of a ring's pieces together. One program a ring and tile."""
    group, n, lane = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.arange(0, 16)[None, :]
    total = tl.zeros([16], tl.float64)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)[:, None]
        mine = (at < count) & (tl.load(pieces + at * 3 + 2, mask=at < count, other=-1) == group)
        total += tl.sum(tl.load(parts + (n * count + at) * _SUMS + lane, mask=mine & (lane < _SUMS), other=0), 0)
    lane = tl.arange(0, 16)
    tl.store(out + (n * _GROUPS + group) * _SUMS + lane, total, mask=lane < _SUMS)


@triton.jit
def _ratio(over, below):
    return tl.where(below > 0, over / tl.where(below > 0, below, 1.0), 0.0).to(tl.float32)


@triton.jit(do_not_specialize=["tiles", "height", "width"])
def rests(
    spectra, order, pieces, bells_down, bells_right, sums, out, tiles, height, width,
    NOISY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (tiles, 2 or 4, frequencies): |D - T O|² by the rings' T and by the band's; of a noisy image also |X - T R|².

    In the order of the rings. The spectra are left in the 1-3 px band, over the pixels.
    """
    piece, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = width // 2 + 1
    size = height * columns
    first, stop = tl.load(pieces + piece * 3), tl.load(pieces + piece * 3 + 1)
    place = first + tl.arange(0, BLOCK)
    live = place < stop
    at = tl.load(order + place, mask=live, other=0)
    row, column = at // columns, at % columns
    mine = sums + (n * _GROUPS + tl.load(pieces + piece * 3 + 2)) * _SUMS
    group = tl.arange(0, 16)
    every = sums + (n * _GROUPS + group) * _SUMS
    inside = group < _GROUPS
    dr, own, power = (
        tl.sum(tl.load(every + 3, mask=inside, other=0), 0),
        tl.sum(tl.load(every + 4, mask=inside, other=0), 0),
        tl.sum(tl.load(every + 5, mask=inside, other=0), 0),
    )
    bell = _pass(bells_down, bells_right, row, column, height, columns, 1, 3)
    root = (bell / (height * width)).to(tl.float32)
    plane = tiles.to(tl.int64) * size * 2
    base = spectra + n * size * 2
    xre, xim = _value(base, at, live)
    dre, dim = _value(base + plane, at, live)
    t, band = _ratio(tl.load(mine), tl.load(mine + 1)), _ratio(dr, own)
    to = out + n * (4 if NOISY else 2) * size + place
    a, b = dre - t * xre, dim - t * xim
    tl.store(to, a * a + b * b, mask=live)
    a, b = dre - band * xre, dim - band * xim
    tl.store(to + size, a * a + b * b, mask=live)
    if NOISY:
        rre, rim = _value(base + 2 * plane, at, live)
        t, band = _ratio(tl.load(mine + 1), tl.load(mine + 2)), _ratio(own, power)
        a, b = xre - t * rre, xim - t * rim
        tl.store(to + 2 * size, a * a + b * b, mask=live)
        a, b = xre - band * rre, xim - band * rim
        tl.store(to + 3 * size, a * a + b * b, mask=live)
        tl.store(base + 2 * plane + at * 2, rre * root, mask=live)
        tl.store(base + 2 * plane + at * 2 + 1, rim * root, mask=live)
    tl.store(base + at * 2, xre * root, mask=live)
    tl.store(base + at * 2 + 1, xim * root, mask=live)
    tl.store(base + plane + at * 2, dre * root, mask=live)
    tl.store(base + plane + at * 2 + 1, dim * root, mask=live)


# --- texture --------------------------------------------------------------------------------------------------


@triton.jit
def _mirrored(v, length):
    """Within a side, mirrored about its edges; what lies further beyond one takes any place."""
    v = tl.where(v < 0, -1 - v, v)
    return tl.maximum(tl.minimum(v, 2 * length - 1 - v), 0)


@triton.jit(do_not_specialize=["height", "width"])
def steepness(r, taps, out, height, width, REACH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Gradient under a Gaussian, borders mirrored. taps: (2, REACH + 1), from the middle on."""
    n, across = tl.program_id(1).to(tl.int64), (width + COLUMNS - 1) // COLUMNS
    y = (tl.program_id(0) // across) * ROWS + tl.arange(0, ROWS)[:, None]
    x = (tl.program_id(0) % across) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    live = (y < height) & (x < width)
    plane = r + n * height * width
    down, right = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    for k in range(-REACH, REACH + 1):
        line = plane + _mirrored(y + k, height) * width
        flat = tl.load(line + _mirrored(x, width)) * tl.load(taps)
        steep = tl.zeros([ROWS, COLUMNS], tl.float32)
        for j in tl.static_range(1, REACH + 1):
            a, b = tl.load(line + _mirrored(x - j, width)), tl.load(line + _mirrored(x + j, width))
            flat += (a + b) * tl.load(taps + j)
            steep += (b - a) * tl.load(taps + REACH + 1 + j)
        away = tl.abs(k)
        turned = tl.load(taps + REACH + 1 + away)
        down += flat * tl.where(k < 0, -turned, turned)
        right += steep * tl.load(taps + away)
    tl.store(out + n * height * width + y * width + x, tl.sqrt(down * down + right * right), mask=live)


@triton.jit(do_not_specialize=["tiles", "height", "width"])
def calm(
    steep, ranks, bands, out, tiles, height, width,
    CALM: tl.constexpr, NOISY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out (tiles, blocks, 2): means of D R and of O R over blocks of 8 x 8, of pixels away from what is steep.

    ranks (tiles, 3): the two in the middle, and the steepest. bands: (images, tiles, height, width).
    """
    n, across = tl.program_id(1).to(tl.int64), (width + COLUMNS - 1) // COLUMNS
    top, left = (tl.program_id(0) // across) * ROWS, (tl.program_id(0) % across) * COLUMNS
    y, x = top + tl.arange(0, ROWS)[:, None], left + tl.arange(0, COLUMNS)[None, :]
    live = (y < height) & (x < width)
    low, high, most = tl.load(ranks + n * 3), tl.load(ranks + n * 3 + 1), tl.load(ranks + n * 3 + 2)
    middle = ((low.to(tl.float64) + high.to(tl.float64)) / 2).to(tl.float32)
    limit = tl.maximum(most * 0.25, middle)
    plane = steep + n * height * width
    around = tl.zeros([ROWS, COLUMNS], tl.float32)
    for i in range(-CALM, CALM + 1):
        line = plane + tl.minimum(tl.maximum(y + i, 0), height - 1) * width
        for j in tl.static_range(-CALM, CALM + 1):
            around = tl.maximum(around, tl.load(line + tl.minimum(tl.maximum(x + j, 0), width - 1)))
    live = live & (around <= limit)
    one, at = tiles.to(tl.int64) * height * width, n * height * width + y * width + x
    own, d = tl.load(bands + at, mask=live, other=0), tl.load(bands + one + at, mask=live, other=0)
    r = tl.load(bands + 2 * one + at, mask=live, other=0) if NOISY else own
    i = top // _BLOCK + tl.arange(0, ROWS // _BLOCK)[:, None]
    j = left // _BLOCK + tl.arange(0, COLUMNS // _BLOCK)[None, :]
    wide = width // _BLOCK
    to = out + (n * (height // _BLOCK) * wide + i * wide + j) * 2
    there = (i < height // _BLOCK) & (j < wide)
    for k in tl.static_range(2):
        product = ((d if k == 0 else own) * r).to(tl.float64)
        product = tl.reshape(product, [ROWS // _BLOCK, _BLOCK, COLUMNS // _BLOCK, _BLOCK])
        tl.store(to + k, tl.sum(tl.sum(product, 3), 1) / (_BLOCK * _BLOCK), mask=there)
