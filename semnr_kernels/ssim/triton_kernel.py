"""SSIM in Triton: a lane walks down one column of windows and keeps the sums of the last rows in registers.

No shared memory but for the last sums, no barrier in the walk, no atomics. The arithmetic is in README.md.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from .. import _native, _triton
from .._registry import Call
from . import reference, triton_gradient
from .reference import SSIMRows

_COMPONENTS = ("luminance", "contrast", "structure")
_ROWS = 122  # windows that a lane walks down, about: the rows above them are read twice
_WINDOW = 25  # the largest, in float32; beyond it the sums leave the registers
_SUMS = 66  # rows of a window × sums a row, in float64; so a window of 15, of 11 with a mask and components


def _double(dtype: torch.dtype, precision: str, masked: bool, components: bool) -> bool:
    """float64 moments: on request, for float64 images, and where speed is not the point."""
    return precision == "float64" or dtype == torch.float64 or masked or components


def supports(call: Call) -> str | None:
    """Any layout and dtype; the window must fit the registers; gradients without masks and components."""
    if call.dtype not in _native.DTYPE_CODES:
        return f"has no {str(call.dtype).removeprefix('torch.')} loop"
    if call.needs_grad and (call.options.get("valid") or call.options.get("want_components")):
        return "has no gradient of masked images and of components"
    if call.shape[2] * call.shape[3] >= 2**31:
        return "takes images below 2**31 pixels a channel"
    o = call.options
    double = call.needs_grad or _double(
        call.dtype, o.get("precision", "float32"), bool(o.get("valid")), bool(o.get("want_components"))
    )
    sums = 4 + bool(o.get("want_components")) + bool(o.get("valid"))
    if (size := len(o.get("taps", ()))) > (_SUMS // sums if double else _WINDOW):
        return f"keeps no window of {size} with {sums} {'float64' if double else 'float32'} sums in registers"
    return None


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
    found = (ma, mb, ms, me)
    if SPLIT:
        found = found + (md,)  # type: ignore[assignment]
    if MASKED:
        found = found + (mv,)  # type: ignore[assignment]
    return found


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
    found = (light + rest - light * rest, rest)
    if SPLIT:
        md = m[4]
        if MASKED:
            md = md * share
        unlike = (md - ma * ma + mb * mb) * scale  # σx² − σy²
        deviations = tl.sqrt(_positive(total + unlike) * _positive(total - unlike))  # 2 σx σy
        found = found + (  # type: ignore[assignment]
            light,
            1 - (deviations + c2) / (total + c2),
            1 - (total - apart + c2) / (deviations + c2),
        )
    if MASKED:
        found = found + (weight,)  # type: ignore[assignment]
    return found


@triton.jit
def _walk(
    x, y, valid, numbers, partial, out, windows, by_rows, by_map, channels, height, width, down, across, segments, rows,
    xn, xc, xh, xw, yn, yc, yh, yw, vn, vh, vw,
    TAPS: tl.constexpr, SIZE: tl.constexpr, REFLECT: tl.constexpr, MASKED: tl.constexpr, SPLIT: tl.constexpr,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """partial[plane, program] = sums of `_terms` over the windows of a block of lanes; out: the map, or None.

    windows: for the gradient, (4, planes, down, across), what `triton_gradient` spreads, or None.
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
            found = triton_gradient.fields(
                ring[(SIZE - 1) * MOMENTS :], sx, sy, tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2),
                by_index, tl.load(by_rows + tl.num_programs(1) + plane),
            )  # fmt: skip
            for k in tl.static_range(4):
                tl.store(windows + k * (tl.num_programs(1).to(tl.int64) * down * across) + place, found[k], mask=whole)

    if partial is not None:
        to = partial + (plane.to(tl.int64) * tl.num_programs(0) + block) * (TERMS + MASKED)
        for k in tl.static_range(TERMS):
            tl.store(to + k, tl.sum(sums[k], axis=0))
        if MASKED:
            tl.store(to + TERMS, tl.sum(count, axis=0).to(tl.float64))


class _Plan(NamedTuple):
    """How the windows of one channel are dealt to lanes; fixed by the image's size alone."""

    down: int  # windows
    across: int
    segments: int  # lanes one above the other
    rows: int  # windows that a lane walks down
    programs: int
    block: int


def _plan(height: int, width: int, size: int, reflect: bool) -> _Plan:
    less = 0 if reflect else size - 1
    down, across = height - less, width - less
    # the interpreter pays a row, not a lane: short walks of many lanes
    rows = triton.cdiv(down, triton.cdiv(down, _triton.block(_ROWS, 3)))
    segments = triton.cdiv(down, rows)
    block = min(_triton.block(256, 8192), max(32, _triton.power_of_2(segments * across)))
    return _Plan(down, across, segments, rows, triton.cdiv(segments * across, block), block)


@functools.lru_cache(maxsize=64)
def _numbers(device: torch.device, *values: float) -> torch.Tensor:
    """Float64 arguments by address (by value a kernel takes float32); copied to the device once."""
    return torch.tensor(values, dtype=torch.float64, device=device)


class _Setup(NamedTuple):
    """What a kernel needs beside the pixels."""

    taps: tuple[float, ...]
    reflect: bool
    double: bool
    numbers: tuple[float, float, float]  # C1, C2, n / (n − 1)
    want_map: bool
    want_components: bool


def ssim(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float,
    taps: tuple[float, ...],
    k1: float,
    k2: float,
    border: str,
    sample_covariance: bool,
    clamp_variance: bool,
    valid: torch.Tensor | None,
    want_map: bool,
    want_components: bool,
    precision: str,
) -> SSIMRows:
    """As `reference.ssim`.

    clamp_variance: variances never come out negative here, so there is nothing to switch.
    """
    samples = len(taps) ** 2
    setup = _Setup(
        taps,
        border == "reflect" and len(taps) > 1,
        _double(x.dtype, precision, valid is not None, want_components),
        (
            (k1 * data_range) ** 2,
            (k2 * data_range) ** 2,
            samples / (samples - 1) if sample_covariance and samples > 1 else 1.0,
        ),
        want_map,
        want_components,
    )
    if not (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)):
        return _forward(x, y, valid, setup)
    if setup.reflect:  # torch folds the mirrored pixels' gradient back
        half = (len(taps) - 1) // 2
        x, y = (F.pad(v, (half, half, half, half), mode="reflect") for v in (x, y))
        setup = setup._replace(reflect=False)
    again = functools.partial(
        reference.ssim,
        data_range=data_range,
        taps=taps,
        k1=k1,
        k2=k2,
        border="valid",
        sample_covariance=sample_covariance,
        clamp_variance=clamp_variance,
        valid=None,
        want_map=want_map,
        want_components=False,
        precision=precision,
    )
    score, structure, ssim_map = _SSIM.apply(x, y, setup, again)
    return SSIMRows(score, structure, None, ssim_map, None)


def _forward(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: _Setup) -> SSIMRows:
    n, c, h, w = x.shape
    plan, masked = _plan(h, w, len(s.taps), s.reflect), valid is not None
    width = 2 + 3 * s.want_components + 2 * masked
    partial = torch.empty((n * c, plan.programs, width), dtype=torch.float64, device=x.device)
    ssim_map = None
    if s.want_map:
        work = torch.float64 if s.double else torch.float32
        ssim_map = torch.empty((n, c, plan.down, plan.across), dtype=work, device=x.device)
    _launch(x, y, valid, s, plan, partial, ssim_map, None, None, None)
    sums = _triton.fold(partial).reshape(width, n, c)
    count = sums[-1] if masked else torch.full((), plan.down * plan.across, dtype=torch.float64, device=x.device)
    means = 1 - sums / count
    components = dict(zip(_COMPONENTS, means[2:5], strict=True)) if s.want_components else None
    coverage = (sums[-2] / count)[:, 0] if masked else None
    return SSIMRows(means[0], means[1], components, ssim_map, coverage)


def _launch(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: _Setup, plan: _Plan, *outputs: torch.Tensor | None
) -> None:
    n, c, h, w = x.shape
    by_mask = (0, 0, 0) if valid is None else (valid.stride(0), *valid.stride()[2:])
    _triton.launch(
        _walk, (plan.programs, n * c), x, y, valid, _numbers(x.device, *s.numbers), *outputs, c, h, w,
        *plan[:4], *x.stride(), *y.stride(), *by_mask,
        TAPS=s.taps, SIZE=len(s.taps), REFLECT=s.reflect, MASKED=valid is not None, SPLIT=s.want_components,
        DOUBLE=s.double, BLOCK=plan.block, threads=plan.block,
    )  # fmt: skip


class _SSIM(torch.autograd.Function):
    """Score, contrast·structure and map of whole windows; first order in Triton, two passes in float64."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, setup: _Setup, again: Any) -> tuple[Any, ...]:  # type: ignore[override]
        ctx.save_for_backward(x, y)
        ctx.setup, ctx.again = setup, again
        ctx.set_materialize_grads(False)
        found = _forward(x, y, None, setup)
        return found.score, found.contrast_structure, found.map

    @staticmethod
    def backward(ctx: Any, *by: torch.Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        x, y = ctx.saved_tensors
        wanted, s = ctx.needs_input_grad[:2], ctx.setup
        if torch.is_grad_enabled():  # create_graph
            rows = ctx.again(x, y)
            outputs = (rows.score, rows.contrast_structure, rows.map)
            pairs = [(out, g.to(out.dtype)) for out, g in zip(outputs, by, strict=True) if g is not None]
            found = _native.reference_gradient(tuple(o for o, _ in pairs), (x, y), tuple(g for _, g in pairs), wanted)
            return *found, None, None
        n, c, h, w = x.shape
        plan = _plan(h, w, len(s.taps), False)
        by_rows = torch.zeros((2, n * c), dtype=torch.float64, device=x.device)
        for row, g in zip(by_rows, by[:2], strict=True):
            if g is not None:
                row.copy_(g.reshape(-1) / (plan.down * plan.across))
        by_map = None if by[2] is None else by[2].double().contiguous()
        windows = torch.empty((4, n * c, plan.down, plan.across), dtype=torch.float64, device=x.device)
        _launch(x, y, None, s._replace(double=True), plan, None, None, windows, by_rows, by_map)
        return (*triton_gradient.spread(x, y, windows, s.taps, wanted, _triton.block(_ROWS, 3)), None, None)


def launches() -> Iterator[tuple[str, _triton.Launch]]:
    """What ahead-of-time compilation builds: the default window in every dtype, and each option once."""
    from . import window_taps

    def one(dtype: torch.dtype, size: int = 11, **changed: Any) -> _triton.Launch:
        x = torch.zeros((1, 1, 160, 160), dtype=dtype)
        options = {
            "data_range": 1.0, "taps": window_taps("gaussian", size, 1.5), "k1": 0.01, "k2": 0.03, "border": "valid",
            "sample_covariance": False, "clamp_variance": False, "valid": None, "want_map": False,
            "want_components": False, "precision": "float32", **changed,
        }  # fmt: skip
        with _triton.recording() as made:
            ssim(x, x, **options)  # type: ignore[arg-type]
        return made[0]

    for dtype in _native.DTYPE_CODES:
        yield f"ssim {str(dtype).removeprefix('torch.')}", one(dtype)
    yield "ssim float32, map", one(torch.float32, want_map=True)
    yield "ssim float32, reflect", one(torch.float32, border="reflect")
    yield f"ssim float32, window {_WINDOW}", one(torch.float32, _WINDOW)
    yield ("ssim float32, window 15 in float64", one(torch.float32, 15, precision="float64"))
    yield "ssim uint16 in float64", one(torch.uint16, precision="float64")
    leaf = torch.zeros((1, 1, 160, 160), requires_grad=True)
    for dtype, size in ((torch.float32, 11), (torch.bfloat16, 11), (torch.float64, 15)):
        name = f"{str(dtype).removeprefix('torch.')}{', window 15' if size == 15 else ''}"
        with _triton.recording() as made:
            setup = _Setup(window_taps("gaussian", size, 1.5), False, False, (1.0, 1.0, 1.0), False, False)
            _SSIM.apply(leaf.to(dtype), leaf.detach().to(dtype), setup, None)[0].sum().backward()
        yield f"ssim gradient, windows, {name}", made[-2]
        yield f"ssim gradient, pixels, {name}", made[-1]
    mask = torch.ones((1, 1, 160, 160), dtype=torch.bool)
    yield "ssim float32, mask, window 13", one(torch.float32, 13, valid=mask)
    everything: dict[str, Any] = {"valid": mask, "want_components": True, "want_map": True}
    yield "ssim uint8, mask, map, components", one(torch.uint8, **everything)
