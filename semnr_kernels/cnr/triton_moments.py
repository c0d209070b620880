"""The Triton kernels of the moments: pixels to cells, cells to windows."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _origin(x, plane, channels, xn, xc, live):
    """A pixel of the plane near which means are kept; any finite number is right."""
    n, c = (plane // channels).to(tl.int64), (plane % channels).to(tl.int64)
    first = tl.load(x + (n * xn + c * xc), mask=live, other=0).to(tl.float64)
    return tl.where(tl.abs(first) < float("inf"), first, tl.zeros_like(first))


@triton.jit
def _span(cell, STEP, parts, piece, first, piece_after, total, stride):
    """Start and length of a cell: every `stride` pixels `parts` cells make up the `first`, the others the rest."""
    period, q = cell // STEP, cell % STEP
    early = q < parts
    start = tl.where(early, q * piece, first + (q - parts) * piece_after)
    stop = tl.where(early, tl.minimum(start + piece, first), tl.minimum(start + piece_after, total))
    return period * stride + start, stop - start


@triton.jit
def _merge(n, mean, square, m, other, others_square):
    """Two sets of pixels as one. Where a mean is not finite, `square` tells only whether a pixel was: see `_close`."""
    total = n + m
    apart = other - mean
    share = m / tl.maximum(total, 1.0)
    merged = mean + apart * share
    finite = tl.abs(merged) < float("inf")
    squares = square + others_square + apart * apart * (n * share)
    nothing = tl.full(n.shape, -1, tl.float64)
    seen = tl.maximum(tl.where(n > 0, square, nothing), tl.where(m > 0, others_square, nothing))
    return total, tl.where(finite, merged, mean + other), tl.where(finite, squares, tl.minimum(seen, 0.0))


@triton.jit
def _close(mean, square, finite_pixels):
    """The `square` of a mean that is not finite: 0 where a finite pixel is among its own, else −1."""
    lacking = tl.where(finite_pixels, tl.zeros_like(square), tl.full(square.shape, -1, tl.float64))
    return tl.where(tl.abs(mean) < float("inf"), square, lacking)


@triton.jit
def _pool(n, mean, square):
    """All sets along the last axis as one: two passes around the mean of one of them, so that equals stay equal."""
    finite = (n > 0) & (tl.abs(mean) < float("inf"))
    near = tl.max(tl.where(finite, mean, tl.full(mean.shape, float("-inf"), tl.float64)), axis=1)[:, None]
    near = tl.where(near > float("-inf"), near, tl.zeros_like(near))
    d = tl.where(n > 0, mean - near, tl.zeros_like(mean))
    total = tl.sum(n, axis=1)[:, None]
    shift = tl.sum(n * d, axis=1)[:, None] / tl.maximum(total, 1.0)
    e = tl.where(n > 0, d - shift, tl.zeros_like(d))
    squares = tl.sum(square + n * (e * e), axis=1)[:, None]
    pooled = tl.where(total > 0, near + shift, tl.zeros_like(near))
    seen = tl.where(n > 0, tl.minimum(square, 0.0), tl.full(square.shape, -1, tl.float64))
    return total, pooled, tl.where(tl.abs(pooled) < float("inf"), squares, tl.max(seen, axis=1)[:, None])


@triton.jit
def _add_exact(v, inside, sums, WIDE: tl.constexpr):
    """Pixels, Σ v and Σ v² of a lane; those of uint8 stay within 32 bits."""
    n, s, ss = sums
    v = tl.where(inside, v.to(tl.int32), tl.zeros(v.shape, tl.int32))
    w = v.to(tl.int64) if WIDE else v
    return n + inside.to(tl.int32), s + v, ss + w * w


@triton.jit
def _add(v, inside, sums):
    """Pixels, finite pixels, the first finite one, and Σ z and Σ z² around it, of a lane."""
    n, known, pivot, s, ss = sums
    finite = inside & (tl.abs(v) < float("inf"))
    pivot = tl.where(finite & (known == 0), v, pivot)
    z = tl.where(inside, v - pivot, tl.zeros_like(v))
    return n + inside.to(tl.int32), known + finite.to(tl.int32), pivot, s + z, ss + z * z


@triton.jit
def _store(out, place, live, total, n, mean, square):
    tl.store(out + place, n, mask=live)
    tl.store(out + (place + total), mean, mask=live)
    tl.store(out + (place + total + total), square, mask=live)


@triton.jit
def _finish_exact(out, place, live, total, origin, n, s, ss):
    """The cell of a row of lanes, its mean relative to `origin`; the deviation is exact before its one rounding."""
    count = tl.sum(n.to(tl.int64), axis=1)[:, None]
    s, ss = tl.sum(s.to(tl.int64), axis=1)[:, None], tl.sum(ss.to(tl.int64), axis=1)[:, None]
    by = tl.maximum(count.to(tl.float64), 1.0)
    mean = (s - count * origin.to(tl.int64)).to(tl.float64) / by
    _store(out, place, live, total, count.to(tl.float64), mean, (count * ss - s * s).to(tl.float64) / by)


@triton.jit
def _finish(out, place, live, total, origin, n, known, pivot, s, ss):
    count = n.to(tl.float64)
    apart = s / tl.maximum(count, 1.0)
    mean = tl.where(n > 0, (pivot - origin) + apart, tl.zeros_like(s))
    mean = tl.where(mean == float("-inf"), tl.full(mean.shape, float("nan"), tl.float64), mean)
    count, mean, square = _pool(count, mean, _close(mean, tl.maximum(ss - s * apart, 0.0), known > 0))
    _store(out, place, live, total, count, mean, square)


@triton.jit
def _cells(
    x, r, q, out, cells, total, of_plane, channels, across, chunks, wrap,
    down_step, down_parts, down_piece, down_first, down_after, down_total, down_stride,
    across_step, across_parts, across_piece, across_first, across_after, across_total, across_stride,
    xn, xc, xh, xw, rn, rc, rh, rw, qn, qc, qh, qw,
    KIND: tl.constexpr, WRAPPED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[pixels · mean · square, region, cell]: ROWS cells a program, COLUMNS pixels of each side by side.

    r, q: one region, or two (else q is None). `cells` of a region, `total` of all of them. WRAPPED: the one row of
    cells is the plane's rows of `wrap` pixels one after another, wherever they lie.
    """
    cell = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    live = cell < cells
    plane, at = cell // of_plane, cell % of_plane
    top, high = _span(at // across, down_step, down_parts, down_piece, down_first, down_after, down_total, down_stride)
    left, wide = _span(
        at % across, across_step, across_parts, across_piece, across_first, across_after, across_total, across_stride
    )
    origin = _origin(x, plane, channels, xn, xc, live)
    n, c = (plane // channels).to(tl.int64), (plane % channels).to(tl.int64)
    x, r = x + (n * xn + c * xc), r + (n * rn + c * rc)
    if q is not None:
        q = q + (n * qn + c * qc)
    if not WRAPPED:
        i, j = top.to(tl.int64), left.to(tl.int64)
        x, r = x + (i * xh + j * xw), r + (i * rh + j * rw)
        if q is not None:
            q = q + (i * qh + j * qw)

    none = tl.zeros([ROWS, COLUMNS], tl.int32)
    zero = tl.zeros([ROWS, COLUMNS], tl.float64)
    if KIND == "float":
        first = (none, none, zero, zero, zero)
        second = (none, none, zero, zero, zero)
    elif KIND == "wide":
        first = (none, none, tl.zeros([ROWS, COLUMNS], tl.int64))  # type: ignore[assignment]
        second = (none, none, tl.zeros([ROWS, COLUMNS], tl.int64))  # type: ignore[assignment]
    else:
        first = (none, none, none)  # type: ignore[assignment]
        second = (none, none, none)  # type: ignore[assignment]
    rows = tl.max(tl.where(live, high, tl.zeros_like(high)))
    for step in range(rows * chunks):
        row = tl.zeros([1, 1], tl.int32) + step // chunks
        column = (step % chunks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        seen = live & (row < high) & (column < wide)
        if WRAPPED:
            row, column = (left + column) // wrap, (left + column) % wrap
        h, w = row.to(tl.int64), column.to(tl.int64)
        v = tl.load(x + (h * xh + w * xw), mask=seen, other=0)
        inside = tl.load(r + (h * rh + w * rw), mask=seen, other=0) != 0
        if KIND == "float":
            v = v.to(tl.float64)
            first = _add(v, inside, first)
        else:
            first = _add_exact(v, inside, first, KIND == "wide")
        if q is not None:
            inside = tl.load(q + (h * qh + w * qw), mask=seen, other=0) != 0
            second = _add(v, inside, second) if KIND == "float" else _add_exact(v, inside, second, KIND == "wide")
    place = cell.to(tl.int64)
    if KIND == "float":
        _finish(out, place, live, total, origin, *first)
        if q is not None:
            _finish(out, place + cells, live, total, origin, *second)
    else:
        _finish_exact(out, place, live, total, origin, *first)
        if q is not None:
            _finish_exact(out, place + cells, live, total, origin, *second)


@triton.jit
def _runs(
    source, begun, out, x, outputs, size, windows, inner, total, each, step, count, gap, offset, of_plane, channels,
    xn, xc,
    FINAL: tl.constexpr, OUT: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Runs of cells along an axis: out[k] = begun[k · step] and source[k · step + offset + j · gap] for j < count.

    source, begun: (3, lines, size, inner), `total` each of the 3; begun may be None.
    out: (3, lines, windows, inner). FINAL: pixels, mean and variance, (regions, 3, planes, ...), `each` of the 3.
    """
    o = (tl.program_id(0) * OUT + tl.arange(0, OUT))[:, None]
    live = o < outputs
    k = o // inner % windows
    start = (o // inner // windows).to(tl.int64) * size * inner + o % inner
    lane = tl.arange(0, LANES)[None, :]
    n = tl.zeros([OUT, LANES], tl.float64)
    mean, square = n, n
    if begun is not None:
        place = start + k * step * inner
        n = tl.load(begun + place, mask=live, other=0)
        mean = tl.load(begun + (place + total), mask=live, other=0)
        square = tl.load(begun + (place + total + total), mask=live, other=0)
    for j in range(0, count, LANES):
        cell = k * step + (offset + (j + lane) * gap)
        there = live & (j + lane < count) & (cell < size)
        place = start + cell * inner
        n, mean, square = _merge(
            n, mean, square,
            tl.load(source + place, mask=there, other=0),
            tl.load(source + (place + total), mask=there, other=0),
            tl.load(source + (place + total + total), mask=there, other=0),
        )  # fmt: skip
    if LANES > 1:
        n, mean, square = _pool(n, mean, square)
    if FINAL:
        near = _origin(x, o % each // of_plane, channels, xn, xc, live)
        nan = tl.full(n.shape, float("nan"), tl.float64)
        finite = tl.abs(mean) < float("inf")
        mean = tl.where((n > 0) & (square >= 0), near + mean, nan)
        square = tl.where((n > 0) & finite, square / tl.maximum(n, 1.0), nan)
        out = out + (o // each).to(tl.int64) * 2 * each
    _store(out, o.to(tl.int64), live, each, n, mean, square)
