"""Triton kernels of evidence transfer: two Gaussians down the columns and along the rows, sums, spectra.

Images are (N, H, W) float32, less a level, 0 where they take no part; `mask` is None where all pixels do.
"""

from __future__ import annotations

import triton
import triton.language as tl

ROOM = 16  # of a row of sums
DROP, BANDS = 10, 6  # sums of the images: six products, three sums, the pixels; of the bands: six products
STATE = 8  # T, its error, z, energy, drop; then what the spectra are compared with: cross, gain, back
_ROOM, _STATE = tl.constexpr(ROOM), tl.constexpr(STATE)


@triton.jit
def _tile(height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    across = (width + COLUMNS - 1) // COLUMNS
    i = (tl.program_id(0) // across) * ROWS + tl.arange(0, ROWS)
    j = (tl.program_id(0) % across) * COLUMNS + tl.arange(0, COLUMNS)
    return i[:, None], j[None, :], (i < height)[:, None] & (j < width)[None, :]


@triton.jit
def _sum(v):
    return tl.sum(v.to(tl.float64))


@triton.jit
def _pixels(image, mask, at, live):
    v = tl.load(image + at, mask=live, other=0)
    if mask is not None:
        v = tl.where(tl.load(mask + at, mask=live, other=0) != 0, v, 0.0)
    return v


@triton.jit(do_not_specialize=["height", "width", "reach"])
def down(x, d, r, mask, taps, smooth, partial, height, width, reach, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """smooth[image, gaussian, n]: x, d, r and, where there is one, the mask under both Gaussians down the columns.

    partial[n, program] = xx, dd, rr, xd, xr, dr, x, d, r summed, and how many pixels take part.
    """
    n, tiles = tl.program_id(1).to(tl.int64), tl.num_programs(1).to(tl.int64)
    i, j, live = _tile(height, width, ROWS, COLUMNS)
    pixels = height * width
    place = n * pixels
    zero = tl.zeros([ROWS, COLUMNS], tl.float32)
    x1, x2, d1, d2, r1, r2, m1, m2 = zero, zero, zero, zero, zero, zero, zero, zero
    for t in range(2 * reach + 1):
        row = i + t - reach
        here = live & (row >= 0) & (row < height)
        at = place + row * width + j
        one, two = tl.load(taps + t), tl.load(taps + 2 * reach + 1 + t)
        v = _pixels(x, mask, at, here)
        x1 += v * one
        x2 += v * two
        v = _pixels(d, mask, at, here)
        d1 += v * one
        d2 += v * two
        v = _pixels(r, mask, at, here)
        r1 += v * one
        r2 += v * two
        if mask is not None:
            v = (tl.load(mask + at, mask=here, other=0) != 0).to(tl.float32)
            m1 += v * one
            m2 += v * two
    step = tiles * pixels
    at = place + i * width + j
    to = smooth + at
    tl.store(to, x1, mask=live)
    tl.store(to + step, x2, mask=live)
    tl.store(to + 2 * step, d1, mask=live)
    tl.store(to + 3 * step, d2, mask=live)
    tl.store(to + 4 * step, r1, mask=live)
    tl.store(to + 5 * step, r2, mask=live)
    if mask is not None:
        tl.store(to + 6 * step, m1, mask=live)
        tl.store(to + 7 * step, m2, mask=live)
    a, b, c = _pixels(x, mask, at, live), _pixels(d, mask, at, live), _pixels(r, mask, at, live)
    count = live
    if mask is not None:
        count = live & (tl.load(mask + at, mask=live, other=0) != 0)
    to = partial + (n * tl.num_programs(0) + tl.program_id(0)) * _ROOM
    tl.store(to, _sum(a * a))
    tl.store(to + 1, _sum(b * b))
    tl.store(to + 2, _sum(c * c))
    tl.store(to + 3, _sum(a * b))
    tl.store(to + 4, _sum(a * c))
    tl.store(to + 5, _sum(b * c))
    tl.store(to + 6, _sum(a))
    tl.store(to + 7, _sum(b))
    tl.store(to + 8, _sum(c))
    tl.store(to + 9, _sum(count))


@triton.jit
def _first(k, size, count):
    """Where the k-th of `count` near-equal blocks begins."""
    return (k * size + count - 1) // count


@triton.jit
def _band(planes, at, j, live, taps, step, inside, width, reach, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """One Gaussian along the rows less the other, each over its own weight."""
    one, two = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    for t in range(2 * reach + 1):
        off = t - reach
        here = live & (j + off >= 0) & (j + off < width)
        one += tl.load(planes + at + off, mask=here, other=0) * tl.load(taps + t)
        two += tl.load(planes + step + at + off, mask=here, other=0) * tl.load(taps + 2 * reach + 1 + t)
    return one / inside[0] - two / inside[1]


@triton.jit
def _shares(rows, columns, i, j, height, width):
    """The part of both Gaussians that lies in the image."""
    one = tl.load(rows + i, mask=i < height, other=1) * tl.load(columns + j, mask=j < width, other=1)
    two = tl.load(rows + height + i, mask=i < height, other=1) * tl.load(columns + width + j, mask=j < width, other=1)
    return one.to(tl.float32), two.to(tl.float32)


@triton.jit(do_not_specialize=["height", "width", "reach", "rows_of_blocks", "columns_of_blocks"])
def along(
    smooth, mask, taps, rows, columns, bands, sums, height, width, reach, rows_of_blocks, columns_of_blocks,
    FINE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """bands[image, n] = the band of x, d, r; sums[n, block] = xx, dd, rr, xd, xr, dr of them. One program a block.

    rows, columns: (2, H) and (2, W) float64, the part of each Gaussian inside. FINE: whether the first is one.
    """
    n, tiles, block = tl.program_id(1).to(tl.int64), tl.num_programs(1).to(tl.int64), tl.program_id(0)
    down, right = block // columns_of_blocks, block % columns_of_blocks
    top, bottom = _first(down, height, rows_of_blocks), _first(down + 1, height, rows_of_blocks)
    left, edge = _first(right, width, columns_of_blocks), _first(right + 1, width, columns_of_blocks)
    pixels = height * width
    step = tiles * pixels
    zero = tl.zeros([ROWS, COLUMNS], tl.float64)
    xx, dd, rr, xd, xr, dr = zero, zero, zero, zero, zero, zero
    for row in range(top, bottom, ROWS):
        for column in range(left, edge, COLUMNS):
            i, j = (row + tl.arange(0, ROWS))[:, None], (column + tl.arange(0, COLUMNS))[None, :]
            live = (i < bottom) & (j < edge)
            at = n * pixels + i * width + j
            if mask is None:
                inside = _shares(rows, columns, i, j, height, width)
            else:
                one = (1.0, 1.0)
                own = _weights(smooth + 6 * step, at, j, live, taps, step, width, reach, ROWS, COLUMNS)
                inside = (own[0] if FINE else one[0], own[1])
            a = _band(smooth, at, j, live, taps, step, inside, width, reach, ROWS, COLUMNS)
            b = _band(smooth + 2 * step, at, j, live, taps, step, inside, width, reach, ROWS, COLUMNS)
            c = _band(smooth + 4 * step, at, j, live, taps, step, inside, width, reach, ROWS, COLUMNS)
            taking = live
            if mask is not None:
                taking = live & (tl.load(mask + at, mask=live, other=0) != 0)
            a, b, c = tl.where(taking, a, 0.0), tl.where(taking, b, 0.0), tl.where(taking, c, 0.0)
            tl.store(bands + at, a, mask=live)
            tl.store(bands + step + at, b, mask=live)
            tl.store(bands + 2 * step + at, c, mask=live)
            xx += (a * a).to(tl.float64)
            dd += (b * b).to(tl.float64)
            rr += (c * c).to(tl.float64)
            xd += (a * b).to(tl.float64)
            xr += (a * c).to(tl.float64)
            dr += (b * c).to(tl.float64)
    to = sums + (n * tl.num_programs(0) + block) * _ROOM
    tl.store(to, tl.sum(xx))
    tl.store(to + 1, tl.sum(dd))
    tl.store(to + 2, tl.sum(rr))
    tl.store(to + 3, tl.sum(xd))
    tl.store(to + 4, tl.sum(xr))
    tl.store(to + 5, tl.sum(dr))


@triton.jit
def _weights(planes, at, j, live, taps, step, width, reach, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The mask under both Gaussians, 1 where nothing of it is near."""
    one, two = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    for t in range(2 * reach + 1):
        off = t - reach
        here = live & (j + off >= 0) & (j + off < width)
        one += tl.load(planes + at + off, mask=here, other=0) * tl.load(taps + t)
        two += tl.load(planes + step + at + off, mask=here, other=0) * tl.load(taps + 2 * reach + 1 + t)
    return tl.where(one > 1e-9, one, 1.0), tl.where(two > 1e-9, two, 1.0)


@triton.jit
def _column(sums, parts, k, BLOCK: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, parts, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(sums + at * _ROOM + k, mask=at < parts, other=0)
    return tl.sum(total)


@triton.jit(do_not_specialize=["blocks", "programs"])
def ratio(
    sums, partial, x_level, d_level, state, blocks, programs, NOISY: tl.constexpr, WITH_DROP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """state[n] = T, its error and z over the blocks, energy, drop of the MSE; cross, gain, back. One program a tile."""
    n = tl.program_id(0).to(tl.int64)
    sums += n * blocks * _ROOM
    xx, dd, rr = _column(sums, blocks, 0, BLOCK), _column(sums, blocks, 1, BLOCK), _column(sums, blocks, 2, BLOCK)
    lower, upper = _column(sums, blocks, 4, BLOCK), _column(sums, blocks, 5, BLOCK)
    t = upper / lower
    many = blocks.to(tl.float64)
    mean = lower / many
    off, spread = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for start in range(0, blocks, BLOCK):
        at = start + tl.arange(0, BLOCK)
        live = at < blocks
        b = tl.load(sums + at * _ROOM + 4, mask=live, other=0)
        a = tl.load(sums + at * _ROOM + 5, mask=live, other=0) - t * b
        off += tl.where(live, a * a, 0.0)
        spread += tl.where(live, (b - mean) * (b - mean), 0.0)
    scale = tl.where(blocks > 1, many / tl.maximum(many - 1, 1.0), float("nan"))
    own = lower if NOISY else lower * lower / rr
    to = state + n * _STATE
    tl.store(to, t)
    tl.store(to + 1, tl.sqrt(scale * tl.sum(off)) / tl.abs(lower))
    tl.store(to + 2, lower / tl.sqrt(scale * tl.sum(spread)))
    tl.store(to + 3, dd / own)
    tl.store(to + 5, lower)
    tl.store(to + 6, lower / rr)
    tl.store(to + 7, lower / xx)
    drop = tl.zeros([], tl.float64) + float("nan")
    if WITH_DROP:
        partial += n * programs * _ROOM
        x, d = _column(partial, programs, 6, BLOCK), _column(partial, programs, 7, BLOCK)
        r, count = _column(partial, programs, 8, BLOCK), _column(partial, programs, 9, BLOCK)
        apart = tl.load(d_level + n) - tl.load(x_level + n) - x / count
        power_x = _column(partial, programs, 0, BLOCK) - x * x / count
        power_r = _column(partial, programs, 2, BLOCK) - r * r / count
        x_r = _column(partial, programs, 4, BLOCK) - x * r / count
        power_d = _column(partial, programs, 1, BLOCK) + 2 * apart * d + apart * apart * count
        d_r = _column(partial, programs, 5, BLOCK) - d * r / count
        slope = tl.sqrt(power_x / power_r) if NOISY else x_r / power_r
        slope = tl.where(power_r > 0, slope, 0.0)
        drop = (power_x - power_d - 2 * slope * (x_r - d_r)) / count
    tl.store(to + 4, drop)


# --- spectra ---


@triton.jit
def _complex(plane, at, live):
    both = tl.expand_dims(at, 1) * 2 + tl.arange(0, 2)[None, :]
    return tl.split(tl.load(plane + both, mask=tl.expand_dims(live, 1), other=0))


@triton.jit
def _power(a, b):
    return a[0] * a[0] + a[1] * a[1], b[0] * b[0] + b[1] * b[1]


@triton.jit(do_not_specialize=["height", "width"])
def spectra(spectrum, state, partial, height, width, BLOCK: tl.constexpr):
    """partial[n, program] = Σ |x - gain·r|² |r - back·x|² and Σ |d - T·x|² |r|² over the whole spectrum.

    spectrum: (3, N, H, W // 2 + 1, 2), half of it.
    """
    n, tiles, program = tl.program_id(1).to(tl.int64), tl.num_programs(1).to(tl.int64), tl.program_id(0)
    kept = width // 2 + 1
    size = height * kept
    at = program * BLOCK + tl.arange(0, BLOCK)
    live = at < size
    row = state + n * _STATE
    t, gain, back = tl.load(row).to(tl.float32), tl.load(row + 6).to(tl.float32), tl.load(row + 7).to(tl.float32)
    place, step = spectrum + n * size * 2, tiles * size * 2
    xa, xb = _complex(place, at, live)
    da, db = _complex(place + step, at, live)
    ra, rb = _complex(place + 2 * step, at, live)
    u, v = _power((xa - gain * ra, xb - gain * rb), (ra - back * xa, rb - back * xb))
    p, q = _power((da - t * xa, db - t * xb), (ra, rb))
    column = at % kept
    alone = (column == 0) | ((column == kept - 1) & (width % 2 == 0))
    twice = tl.where(live, tl.where(alone, 1.0, 2.0), 0.0).to(tl.float64)
    to = partial + (n * tl.num_programs(0) + program) * 2
    tl.store(to, tl.sum(tl.where(live, (u * v).to(tl.float64) * twice, 0.0)))
    tl.store(to + 1, tl.sum(tl.where(live, (p * q).to(tl.float64) * twice, 0.0)))


@triton.jit(do_not_specialize=["programs", "pixels"])
def settle(partial, state, least, programs, pixels, BLOCK: tl.constexpr):
    """Error and z from the spectra, where blocks do not tell. One program a tile."""
    n = tl.program_id(0).to(tl.int64)
    partial += n * programs * 2
    first, second = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for start in range(0, programs, BLOCK):
        at = start + tl.arange(0, BLOCK)
        first += tl.load(partial + at * 2, mask=at < programs, other=0)
        second += tl.load(partial + at * 2 + 1, mask=at < programs, other=0)
    to = state + n * _STATE
    cross, many = tl.load(to + 5), pixels.to(tl.float64)
    se, z = tl.load(to + 1), tl.load(to + 2)
    told = z >= tl.load(least)
    tl.store(to + 1, tl.where(told, se, tl.sqrt(tl.sum(second)) / many / tl.abs(cross)))
    tl.store(to + 2, tl.where(told, z, cross / (tl.sqrt(tl.sum(first)) / many)))
