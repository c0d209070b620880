"""Pixel errors in Triton: both images read once in any layout, exact integer sums, two stages and no atomics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .. import native_support, triton_support
from ..registry import Call, no_loop, refusal
from . import reference

Pair = tuple[torch.Tensor, torch.Tensor]
_PIXELS = 2**31  # below this 64-bit integer sums are exact, and lanes of uint8 stay within 32 bits
_PROGRAMS = 1024  # an image; fixed by its shape alone, so that a sum does not depend on device or batch
_KINDS = {torch.uint8: "narrow", torch.uint16: "wide"}


def _many_images(call: Call) -> str | None:
    too_many = call.shape[0] > triton_support.SECOND_AXIS
    return f"takes at most {triton_support.SECOND_AXIS} images a call" if too_many else None


def _large_image(call: Call) -> str | None:
    _, channels, height, width = call.shape
    return None if channels * height * width < _PIXELS else "takes images below 2**31 pixels"


UNSUPPORTED = (no_loop, _many_images, _large_image)


def supports(call: Call) -> str | None:
    """Every dtype, layout and mask, up to 2³¹ pixels an image and 65,535 images."""
    return refusal(UNSUPPORTED, call)


@triton.jit
def _difference(
    x, y, valid, image, tile, rows, height, width, across,
    xn, xc, xh, xw, yn, yc, yh, yw, vn, vh, vw,
    MASKED: tl.constexpr, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """x − y of one tile, 0 outside the image and under the mask, with where it is inside and where it counts."""
    row = (tile // across) * ROWS + tl.arange(0, ROWS)
    column = ((tile % across) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)[None, :]
    inside = (row < rows)[:, None] & (column < width)
    n, c, h = image.to(tl.int64), (row // height).to(tl.int64), (row % height).to(tl.int64)
    a = tl.load(x + (n * xn + c * xc + h * xh)[:, None] + column * xw, mask=inside, other=0)
    b = tl.load(y + (n * yn + c * yc + h * yh)[:, None] + column * yw, mask=inside, other=0)
    d = (a.to(tl.float64) - b.to(tl.float64)) if DOUBLE else (a.to(tl.int32) - b.to(tl.int32))
    counts = inside
    if MASKED:
        counts = tl.load(valid + (n * vn + h * vh)[:, None] + column * vw, mask=inside, other=0) != 0
        d = tl.where(counts, d, tl.zeros_like(d))
    return d, inside, counts


# rows follow each other in the usual layout, where steps are 0 and whether 16 divides the width decides the loads
_SIZES = ["tiles", "rows", "across"]


@triton.jit(do_not_specialize=_SIZES)
def _sums(
    x, y, valid, partial, tiles, rows, height, width, across,
    xn, xc, xh, xw, yn, yc, yh, yw, vn, vh, vw,
    MASKED: tl.constexpr, KIND: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """partial[image, program] = Σ d², Σ |d|, number of pixels that count."""
    first, programs, image = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    # a lane adds at most 2³¹ / 2²² tiles: 65025 fits 32 bits that often, 65535² does not fit once
    wide = tl.float64 if KIND == "float" else tl.int64
    small = tl.float64 if KIND == "float" else tl.int32
    square = tl.zeros([ROWS, COLUMNS], tl.int32 if KIND == "narrow" else wide)
    absolute = tl.zeros([ROWS, COLUMNS], small)
    count = tl.zeros([ROWS, COLUMNS], tl.int32)
    for tile in range(first, tiles, programs):
        d, _, counts = _difference(
            x, y, valid, image, tile, rows, height, width, across,
            xn, xc, xh, xw, yn, yc, yh, yw, vn, vh, vw,
            MASKED, KIND == "float", ROWS, COLUMNS,
        )  # fmt: skip
        e = d.to(tl.int64) if KIND == "wide" else d
        square += e * e
        absolute += tl.abs(d)
        if MASKED:
            count += counts.to(tl.int32)
    out = partial + (image.to(tl.int64) * programs + first) * 3
    tl.store(out, tl.sum(square.to(wide)))
    tl.store(out + 1, tl.sum(absolute.to(wide)))
    tl.store(out + 2, tl.sum(count.to(tl.int64)).to(wide))


@triton.jit(do_not_specialize=_SIZES)
def _gradient(
    x, y, valid, scale, gx, gy, tiles, rows, height, width, across,
    xn, xc, xh, xw, yn, yc, yh, yw, vn, vh, vw,
    MASKED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """gx = scale[0] · 2 d + scale[1] · sign d, contiguous; gy = −gx. Either may be None."""
    tile, image = tl.program_id(0), tl.program_id(1)
    d, inside, counts = _difference(
        x, y, valid, image, tile, rows, height, width, across,
        xn, xc, xh, xw, yn, yc, yh, yw, vn, vh, vw,
        MASKED, True, ROWS, COLUMNS,
    )  # fmt: skip
    by_square = tl.load(scale + image)
    by_absolute = tl.load(scale + tl.num_programs(1) + image)
    sign = (d > 0).to(tl.float64) - (d < 0).to(tl.float64)
    g = tl.where(counts, by_square * 2 * d + by_absolute * sign, tl.zeros_like(d))
    row = (tile // across) * ROWS + tl.arange(0, ROWS)
    column = (tile % across) * COLUMNS + tl.arange(0, COLUMNS)
    place = (image.to(tl.int64) * rows + row)[:, None] * width + column[None, :]
    if gx is not None:
        tl.store(gx + place, triton_support.narrow(g, gx.dtype.element_ty), mask=inside)
    if gy is not None:
        tl.store(gy + place, triton_support.narrow(-g, gy.dtype.element_ty), mask=inside)


class _Plan(NamedTuple):
    """An image as rows × width of blocks, dimensions merged where memory is contiguous."""

    tiles: int
    rows: int
    height: int
    width: int
    across: int
    strides: tuple[int, ...]
    block: tuple[int, int]


def _plan(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, lanes: int) -> _Plan:
    _, channels, height, width = x.shape
    sx, sy = list(x.stride()), list(y.stride())
    sv = [0, 0, 0] if valid is None else [valid.stride(0), *valid.stride()[2:]]
    masks = [] if valid is None else [sv]
    if height > 1 and all(s[-2] == width * s[-1] for s in (sx, sy, *masks)):  # rows follow each other
        width, height = width * height, 1
    if channels > 1 and height == 1 and valid is None and all(s[1] == width * s[3] for s in (sx, sy)):
        width, channels = width * channels, 1
    for strides, dims in ((sx, (0, 1, 2)), (sy, (0, 1, 2)), (sv, (0, None, 1))):
        for place, size in zip(dims, (x.shape[0], channels, height), strict=True):
            if size == 1 and place is not None:  # never taken: no kernel need be compiled for it
                strides[place] = 0
    columns = min(lanes, triton_support.power_of_2(width))
    if channels * height > 1:  # several rows a block, each read in whole lines
        columns = min(columns, triton_support.block(256, lanes))
    block = (lanes // columns if channels * height > 1 else 1, columns)
    across, down = triton.cdiv(width, columns), triton.cdiv(channels * height, block[0])
    return _Plan(across * down, channels * height, height, width, across, (*sx, *sy, *sv), block)


def errors(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None) -> Pair:
    """As `reference.errors`."""
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        square, absolute, _ = _Errors.apply(x, y, valid)
        return square, absolute
    square, absolute, _ = _errors(x, y, valid)
    return square, absolute


def _errors(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Mean square, mean absolute error and number of pixels, (N,) float64 each."""
    kind = _KINDS.get(x.dtype, "float")
    plan = _plan(x, y, valid, triton_support.block(2048 if kind == "float" else 4096, 2**16))
    # four tiles a program: enough work to pay for its sums, enough programs to fill a device
    programs = min(_PROGRAMS, triton.cdiv(plan.tiles, 4))
    images = x.shape[0]
    wide = torch.float64 if kind == "float" else torch.int64
    partial = torch.empty((images, programs, 3), dtype=wide, device=x.device)
    triton_support.launch(
        _sums, (programs, images), x, y, valid, partial, *plan[:5], *plan.strides,
        MASKED=valid is not None, KIND=kind, ROWS=plan.block[0], COLUMNS=plan.block[1], threads=256,
    )  # fmt: skip
    square, absolute, count = triton_support.fold(partial)
    if valid is None:
        count = torch.full_like(square, x[0].numel())
    return square / count, absolute / count, count


class _Errors(torch.autograd.Function):
    """First order in Triton; a gradient of the gradient goes through the definition."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        square, absolute, count = _errors(x, y, valid)
        ctx.save_for_backward(x, y, valid, count)
        ctx.mark_non_differentiable(count)
        return square, absolute, count

    @staticmethod
    def backward(ctx: Any, g_square: torch.Tensor, g_absolute: torch.Tensor, _: Any) -> tuple[Any, ...]:  # type: ignore[override]
        x, y, valid, count = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # create_graph
            rows = reference.errors(x, y, valid)
            return *native_support.reference_gradient(rows, (x, y), (g_square, g_absolute), wanted), None
        scale = torch.stack((g_square, g_absolute)).double() / count
        out = [torch.empty(x.shape, dtype=x.dtype, device=x.device) if w else None for w in wanted]
        plan = _plan(x, y, valid, triton_support.block(1024, 2**16))
        triton_support.launch(
            _gradient, (plan.tiles, x.shape[0]), x, y, valid, scale, *out, *plan[:5], *plan.strides,
            MASKED=valid is not None, ROWS=plan.block[0], COLUMNS=plan.block[1],
        )  # fmt: skip
        return *out, None


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds: every dtype, a mask, a layout with gaps, the gradient."""
    for dtype in native_support.DTYPE_CODES:
        x = torch.zeros((1, 1, 96, 96), dtype=dtype)
        with triton_support.recording() as made:
            _errors(x, x, None)
        yield f"pixel sums {str(dtype).removeprefix('torch.')}", made[0]
        if dtype == torch.uint8:
            yield "fold int64", made[1]
        if dtype == torch.float64:
            yield "fold float64", made[1]
    x = torch.zeros((1, 1, 96, 96), dtype=torch.uint16)
    with triton_support.recording() as made:
        _errors(x, x, torch.ones((1, 1, 96, 96), dtype=torch.bool))
        _errors(x[..., ::2], x[..., ::2], None)
    yield "pixel sums uint16 masked", made[0]
    yield "pixel sums uint16 strided", made[2]
    leaf = torch.zeros((1, 1, 96, 96), requires_grad=True)
    with triton_support.recording() as made:
        errors(leaf, leaf.detach(), None)[0].sum().backward()
    yield "pixel gradient float32", made[-1]
