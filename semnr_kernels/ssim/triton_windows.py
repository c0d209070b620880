"""SSIM's windows in Triton: a lane walks down one column of them, the sums of the last rows in its registers.

The launches are in `triton_kernel`; the gradient's second pass in `triton_gradient`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import triton_gradient


@triton.jit
def _mirrored(at, size, REFLECT: tl.constexpr, HALF: tl.constexpr):
    """Index of a pixel of the padded image in the image itself."""
    if REFLECT:
        at = tl.abs(at - HALF)
        at = size - 1 - tl.abs(size - 1 - at)
    return at.to(tl.int64)


@triton.jit
def _seen(pointer, live, valid, MASKED: tl.constexpr, WORK: tl.constexpr):
    """Pixels as numbers, and whether they may serve as a shift: a NaN must spoil its own windows alone."""
    value = tl.load(pointer, mask=live, other=0).to(WORK)
    usable = live & (tl.abs(value) < float("inf"))
    if MASKED:
        usable = usable & valid
    return tl.where(usable, value, tl.zeros_like(value)), usable.to(WORK)


@triton.jit
def _row_moments(
    xr, yr, vr, column, width, xw, yw, vw, sx, sy, live,
    TAPS: tl.constexpr, SIZE: tl.constexpr, REFLECT: tl.constexpr, MASKED: tl.constexpr, SPLIT: tl.constexpr,
    WORK: tl.constexpr,
):  # fmt: skip
    """Window-weighted sums along one row of a = x − sx, b = y − sy: a, b, a² + b², (a − b)², [a² − b²], [valid]."""
    zero = tl.zeros(column.shape, WORK)
    ma, mb, ms, me, md, mv = zero, zero, zero, zero, zero, zero
    for j in tl.static_range(SIZE):
        at = _mirrored(column + j, width, REFLECT, (SIZE - 1) // 2)
        a = tl.load(xr + at * xw, mask=live, other=0).to(WORK) - sx
        b = tl.load(yr + at * yw, mask=live, other=0).to(WORK) - sy
        if MASKED:
            counts = tl.load(vr + at * vw, mask=live, other=0) != 0
            a, b = tl.where(counts, a, zero), tl.where(counts, b, zero)
            mv += counts.to(WORK) * TAPS[j]
        e = a - b
        aa, bb = a * a, b * b
        ma += a * TAPS[j]
        mb += b * TAPS[j]
        ms += (aa + bb) * TAPS[j]
        me += (e * e) * TAPS[j]
        if SPLIT:
            md += (aa - bb) * TAPS[j]
    moments = (ma, mb, ms, me)
    if SPLIT:
        moments = moments + (md,)  # type: ignore[assignment]
    if MASKED:
        moments = moments + (mv,)  # type: ignore[assignment]
    return moments


@triton.jit
def _positive(v):
    """max(v, 0) that keeps NaN: rounding may leave a variance just below zero."""
    return tl.where(v < 0, tl.zeros_like(v), v)


@triton.jit
def _terms(m, sx, sy, c1, c2, scale, MASKED: tl.constexpr, SPLIT: tl.constexpr):
    """1 − l·c·s, 1 − c·s, [1 − l, 1 − c, 1 − s], [weight] of one window: small numbers keep their digits."""
    ma, mb, ms, me = m[0], m[1], m[2], m[3]
    if MASKED:
        weight = m[4 + SPLIT]
        share = 1 / tl.where(weight > 0, weight, tl.full(weight.shape, 1, weight.dtype))
        ma, mb, ms, me = ma * share, mb * share, ms * share, me * share
    mean_e = ma - mb
    total = _positive(ms - ma * ma - mb * mb) * scale  # σx² + σy²
    apart = _positive(me - mean_e * mean_e) * scale  # σx² + σy² − 2 σxy
    ux, uy, ue = sx + ma, sy + mb, (sx - sy) + mean_e
    light = ue * ue / (ux * ux + uy * uy + c1)
    rest = apart / (total + c2)
    terms = (light + rest - light * rest, rest)
    if SPLIT:
        md = m[4]
        if MASKED:
            md = md * share
        unlike = (md - ma * ma + mb * mb) * scale  # σx² − σy²
        deviations = tl.sqrt(_positive(total + unlike) * _positive(total - unlike))  # 2 σx σy
        terms = terms + (  # type: ignore[assignment]
            light,
            1 - (deviations + c2) / (total + c2),
            1 - (total - apart + c2) / (deviations + c2),
        )
    if MASKED:
        terms = terms + (weight,)  # type: ignore[assignment]
    return terms


# a program's loads are one element a lane: that sizes or steps divide by 16 would only compile it again
@triton.jit(do_not_specialize=triton_gradient.SIZES)
def walk(
    x, y, valid, numbers, partial, out, windows, by_rows, by_map, channels, height, width, down, across, segments, rows,
    xn, xc, xh, xw, yn, yc, yh, yw, vn, vh, vw,
    TAPS: tl.constexpr, SIZE: tl.constexpr, REFLECT: tl.constexpr, MASKED: tl.constexpr, SPLIT: tl.constexpr,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr, APART: tl.constexpr = 0,
):  # fmt: skip
    """partial[plane, program] = sums of `_terms` over the windows of a block of lanes; out: the map, or None.

    windows: for the gradient, (4, planes, down, across), what `triton_gradient` spreads, or None.
    APART: then come Σ |x − y|, Σ (x − y)² and the least and greatest pixel of both; a lane owns the columns `across`
    apart from its own, APART at most, of the rows of its windows, and the last lane of a column the rows below. Neither
    mask nor mirrored border.
    """
    WORK: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    MOMENTS: tl.constexpr = 4 + SPLIT + MASKED
    TERMS: tl.constexpr = 2 + 3 * SPLIT + MASKED
    HALF: tl.constexpr = (SIZE - 1) // 2
    block, plane = tl.program_id(0), tl.program_id(1)
    n, c = (plane // channels).to(tl.int64), (plane % channels).to(tl.int64)
    x, y = x + n * xn + c * xc, y + n * yn + c * yc
    if MASKED:
        valid = valid + n * vn
    c1, c2, scale = (tl.load(numbers).to(WORK), tl.load(numbers + 1).to(WORK), tl.load(numbers + 2).to(WORK))

    lane = block * BLOCK + tl.arange(0, BLOCK)
    active = lane < segments * across
    top, column = (lane // across) * rows, lane % across

    # The shift: what three centre pixels of this lane hold. Any number is right, a near one keeps float32 exact.
    zero = tl.zeros([BLOCK], WORK)
    sx, sy, nx, ny = zero, zero, zero, zero
    for k in tl.static_range(3):
        row = tl.minimum(top + k * (rows - 1) // 2, down - 1)
        r = _mirrored(row + HALF, height, REFLECT, HALF)
        at = _mirrored(column + HALF, width, REFLECT, HALF)
        counts = active
        if MASKED:
            counts = tl.load(valid + r * vh + at * vw, mask=active, other=0) != 0
        v, u = _seen(x + r * xh + at * xw, active, counts, MASKED, WORK)
        sx, nx = sx + v, nx + u
        v, u = _seen(y + r * yh + at * yw, active, counts, MASKED, WORK)
        sy, ny = sy + v, ny + u
    sx = sx / tl.where(nx > 0, nx, zero + 1)
    sy = sy / tl.where(ny > 0, ny, zero + 1)

    # ring[k] holds the window that started k rows ago. Each row moves every sum one place on and weighs in with tap k:
    # one multiply-add a sum, whose result lands in the next register, so that moving costs nothing.
    ring = (zero,) * (SIZE * MOMENTS)
    wide = tl.zeros([BLOCK], tl.float64)
    sums = (wide,) * TERMS
    count = tl.zeros([BLOCK], tl.int32)
    absolute, square = wide, wide
    least, most = zero + float("inf"), zero - float("inf")
    for step in range(rows + SIZE - 1):
        row = top + step
        live = active & (row < down + SIZE - 1)
        r = _mirrored(row, height, REFLECT, HALF)
        vr = valid
        if MASKED:
            vr = valid + r * vh
        h = _row_moments(
            x + r * xh, y + r * yh, vr, column, width, xw, yw, vw, sx, sy, live,
            TAPS, SIZE, REFLECT, MASKED, SPLIT, WORK,
        )  # fmt: skip
        for part in tl.static_range(APART):
            pixel = (column + part * across).to(tl.int64)
            own = live & (pixel < width) & ((step < rows) | (top + rows >= down))
            a = tl.load(x + r * xh + pixel * xw, mask=own, other=0).to(WORK)
            b = tl.load(y + r * yh + pixel * yw, mask=own, other=0).to(WORK)
            distance = tl.abs(a - b).to(tl.float64)
            absolute += distance
            square += distance * distance
            least = tl.where(own & ((a < least) | (b < least)), tl.minimum(a, b), least)
            most = tl.where(own & ((a > most) | (b > most)), tl.maximum(a, b), most)
        moved = ()
        for k in tl.static_range(SIZE * MOMENTS):
            if k < MOMENTS:
                moved = moved + (h[k] * TAPS[0],)  # type: ignore[assignment]
            else:
                moved = moved + (ring[k - MOMENTS] + h[k % MOMENTS] * TAPS[k // MOMENTS],)  # type: ignore[assignment]
        ring = moved
        # the window that this row completes
        terms = _terms(ring[(SIZE - 1) * MOMENTS :], sx, sy, c1, c2, scale, MASKED, SPLIT)
        window = row - (SIZE - 1)
        whole = active & (window >= top) & (window < down)
        pooled = whole
        if MASKED:
            centre = _mirrored(window + HALF, height, REFLECT, HALF)
            at = _mirrored(column + HALF, width, REFLECT, HALF)
            pooled = whole & (tl.load(valid + centre * vh + at * vw, mask=whole, other=0) != 0)
            count += pooled.to(tl.int32)
        added = ()
        for k in tl.static_range(TERMS):
            added = added + (sums[k] + tl.where(pooled, terms[k], zero).to(tl.float64),)  # type: ignore[assignment]
        sums = added
        if out is not None:
            index = tl.where(pooled, 1 - terms[0], zero + float("nan"))
            place = (plane.to(tl.int64) * down + window) * across + column
            tl.store(out + place, index, mask=whole)
        if windows is not None:
            place = (plane.to(tl.int64) * down + window) * across + column
            by_index = tl.load(by_rows + plane) + zero.to(tl.float64)
            if by_map is not None:
                by_index += tl.load(by_map + place, mask=whole, other=0)
            fields = triton_gradient.fields(
                ring[(SIZE - 1) * MOMENTS :], sx, sy, tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2),
                by_index, tl.load(by_rows + tl.num_programs(1) + plane),
            )  # fmt: skip
            for k in tl.static_range(4):
                tl.store(windows + k * (tl.num_programs(1).to(tl.int64) * down * across) + place, fields[k], mask=whole)

    if partial is not None:
        WIDTH: tl.constexpr = TERMS + MASKED + (4 if APART else 0)
        to = partial + (plane.to(tl.int64) * tl.num_programs(0) + block) * WIDTH
        for k in tl.static_range(TERMS):
            tl.store(to + k, tl.sum(sums[k], axis=0))
        if MASKED:
            tl.store(to + TERMS, tl.sum(count, axis=0).to(tl.float64))
        if APART:
            tl.store(to + TERMS, tl.sum(absolute, axis=0))
            tl.store(to + TERMS + 1, tl.sum(square, axis=0))
            tl.store(to + TERMS + 2, tl.min(least, axis=0).to(tl.float64))
            tl.store(to + TERMS + 3, tl.max(most, axis=0).to(tl.float64))
