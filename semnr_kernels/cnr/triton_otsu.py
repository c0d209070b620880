"""What Otsu masks need beside moments, in Triton: an exact histogram and the smoothed image.

The thresholding and the guard band are torch's own kernels on the device (`reference.split`, `reference.guard_band`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from .. import triton_support
from ..registry import Call, float64_values, no_loop, refusal
from .reference import Smoothed

_BINS = 2048  # the largest histogram that a program keeps
_PROGRAMS = 1024
_PIXELS = 2**31  # of an image: its places fit 32 bits


# --- histogram ------------------------------------------------------------------------------------------------


@triton.jit
def _counts(values, edges, partial, size, bins, STEPS: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr):
    """partial[program, bin]. The bin is searched among the edges themselves: one that is guessed may be its neighbour.

    A NaN counts in the last bin, as a search sorts it.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    counts = tl.zeros([BINS], tl.int32)
    for start in range(program * BLOCK, size, programs * BLOCK):
        place = start + tl.arange(0, BLOCK)
        live = place < size
        v = tl.load(values + place, mask=live, other=0)
        low = tl.zeros([BLOCK], tl.int32)  # the last edge that is not above v, if any
        for step in tl.static_range(STEPS):
            middle = low + (1 << (STEPS - 1 - step))
            above = v < tl.load(edges + tl.minimum(middle, bins))
            low = tl.where((middle < bins) & (above == 0), middle, low)
        counts += tl.histogram(low, BINS, mask=live)
    tl.store(partial + program * BINS + tl.arange(0, BINS), counts)


def _many_bins(call: Call) -> str | None:
    return f"counts at most {_BINS} bins" if call.setting("bins", 0) > _BINS else None


def _many_values(call: Call) -> str | None:
    return None if math.prod(call.shape) < _PIXELS else "counts fewer than 2**31 values"


UNSUPPORTED_HISTOGRAM = (float64_values, _many_bins, _many_values)


def supports_histogram(call: Call) -> str | None:
    """Float64 values and at most 2,048 bins."""
    return refusal(UNSUPPORTED_HISTOGRAM, call)


def histogram(values: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """As `reference.histogram`."""
    values, edges = values.contiguous(), edges.contiguous()
    size, bins = values.numel(), edges.numel() - 1
    block, held = (
        min(triton_support.block(1024, 2**17), triton_support.power_of_2(size)),
        triton_support.power_of_2(bins),
    )
    programs = max(1, min(_PROGRAMS, triton.cdiv(size, 4 * block)))
    partial = torch.empty((programs, held), dtype=torch.int32, device=values.device)
    triton_support.launch(
        _counts, (programs,), values, edges, partial, size, bins,
        STEPS=(bins - 1).bit_length(), BINS=held, BLOCK=block,
    )  # fmt: skip
    return partial[:, :bins].sum(dim=0, dtype=torch.int64)


# --- smoothing ------------------------------------------------------------------------------------------------


@triton.jit
def _mean(
    x, valid, mean, lowest, bad, pixels, width, channels, xn, xc, xh, xw, vn, vh, vw,
    MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """mean[image, pixel] over channels; the lowest finite valid one of a program, and how many valid are not finite."""
    block, image = tl.program_id(0), tl.program_id(1)
    place = block * BLOCK + tl.arange(0, BLOCK)
    live = place < pixels
    n, h, w = image.to(tl.int64), (place // width).to(tl.int64), (place % width).to(tl.int64)
    at = x + (n * xn + h * xh + w * xw)
    total = tl.load(at, mask=live, other=0).to(tl.float64)
    for c in range(1, channels):
        total += tl.load(at + c * xc, mask=live, other=0).to(tl.float64)
    total = total / channels
    counts = live
    if MASKED:
        counts = live & (tl.load(valid + (n * vn + h * vh + w * vw), mask=live, other=0) != 0)
    finite = tl.abs(total) < float("inf")
    tl.store(mean + n * pixels + place, total, mask=live)
    out = image * tl.num_programs(0) + block
    tl.store(lowest + out, tl.min(tl.where(counts & finite, total, tl.full(total.shape, float("inf"), tl.float64))))
    tl.store(bad + out, tl.sum((counts & (finite == 0)).to(tl.int32)))


@triton.jit
def _pixel(mean, inside, place, live, pivot, ih, iw, width, MASKED: tl.constexpr):
    """Mean less pivot where a pixel is inside, else 0; and whether it is."""
    v = tl.load(mean + place, mask=live, other=0) - pivot
    if MASKED:
        counts = tl.load(inside + (place // width * ih + place % width * iw), mask=live, other=0) != 0
        return tl.where(counts, v, tl.zeros_like(v)), counts.to(tl.float64)
    return tl.where(live, v, tl.zeros_like(v)), live.to(tl.float64)


@triton.jit
def _columns(
    mean, inside, pivots, taps, out, weights, pixels, height, width, radius, vn, vh, vw,
    MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Σ over taps down the columns, the nearest first, each weighing the sum of its two pixels; those outside are 0."""
    block, image = tl.program_id(0), tl.program_id(1)
    place = block * BLOCK + tl.arange(0, BLOCK)
    live = place < pixels
    row, pivot = place // width, tl.load(pivots + image)
    mean = mean + image.to(tl.int64) * pixels
    if MASKED:
        inside = inside + image.to(tl.int64) * vn
    vh, vw = tl.zeros([1], tl.int64) + vh, tl.zeros([1], tl.int64) + vw
    v, w = _pixel(mean, inside, place, live, pivot, vh, vw, width, MASKED)
    total, weight = v * tl.load(taps), w * tl.load(taps)
    for j in range(1, radius + 1):
        above, below = live & (row >= j), live & (row + j < height)
        a, u = _pixel(mean, inside, place - j * width, above, pivot, vh, vw, width, MASKED)
        b, w = _pixel(mean, inside, place + j * width, below, pivot, vh, vw, width, MASKED)
        total += (a + b) * tl.load(taps + j)
        if MASKED:
            weight += (u + w) * tl.load(taps + j)
    out_place = image.to(tl.int64) * pixels + place
    tl.store(out + out_place, total, mask=live)
    if MASKED:
        tl.store(weights + out_place, weight, mask=live)


@triton.jit
def _weight(one, at, size, taps, radius):
    """The sum over taps of a pixel whose neighbours all are `one`, where there are any."""
    total, nothing = one * tl.load(taps), tl.zeros_like(one)
    for j in range(1, radius + 1):
        total += (tl.where(at >= j, one, nothing) + tl.where(at + j < size, one, nothing)) * tl.load(taps + j)
    return total


@triton.jit
def _rows(
    columns, weights, inside, taps, out, lowest, highest, pixels, height, width, radius, vn, vh, vw,
    MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same along the rows, divided by the weight inside; the extremes of a program."""
    block, image = tl.program_id(0), tl.program_id(1)
    place = block * BLOCK + tl.arange(0, BLOCK)
    live = place < pixels
    row, column = place // width, place % width
    columns = columns + image.to(tl.int64) * pixels
    total = tl.load(columns + place, mask=live, other=0) * tl.load(taps)
    for j in range(1, radius + 1):
        before = tl.load(columns + place - j, mask=live & (column >= j), other=0)
        after = tl.load(columns + place + j, mask=live & (column + j < width), other=0)
        total += (before + after) * tl.load(taps + j)
    counts = live
    if MASKED:
        at = image.to(tl.int64) * vn + row.to(tl.int64) * vh + column.to(tl.int64) * vw
        counts = live & (tl.load(inside + at, mask=live, other=0) != 0)
        weights = weights + image.to(tl.int64) * pixels
        weight = tl.load(weights + place, mask=live, other=0) * tl.load(taps)
        for j in range(1, radius + 1):
            before = tl.load(weights + place - j, mask=live & (column >= j), other=0)
            after = tl.load(weights + place + j, mask=live & (column + j < width), other=0)
            weight += (before + after) * tl.load(taps + j)
    else:
        weight = _weight(
            _weight(tl.full(total.shape, 1, tl.float64), row, height, taps, radius), column, width, taps, radius
        )
    v = tl.where(counts, total / tl.where(counts, weight, tl.full(weight.shape, 1, tl.float64)), tl.zeros_like(total))
    tl.store(out + (image.to(tl.int64) * pixels + place), v, mask=live)
    program = image * tl.num_programs(0) + block
    tl.store(lowest + program, tl.min(tl.where(counts, v, tl.full(v.shape, float("inf"), tl.float64))))
    tl.store(highest + program, tl.max(tl.where(counts, v, tl.full(v.shape, float("-inf"), tl.float64))))


def _large_image(call: Call) -> str | None:
    return None if call.shape[2] * call.shape[3] < _PIXELS else "takes images below 2**31 pixels"


UNSUPPORTED_SMOOTHED = (no_loop, _large_image)


def supports_smoothed(call: Call) -> str | None:
    """Every dtype, layout and mask, up to 2³¹ pixels an image."""
    return refusal(UNSUPPORTED_SMOOTHED, call)


def smoothed(image: torch.Tensor, valid: torch.Tensor | None, taps: tuple[float, ...]) -> Smoothed:
    """As `reference.smoothed`; on a device whose compiler fuses products and sums, to rounding."""
    n, channels, height, width = image.shape
    pixels, device = height * width, image.device
    block = min(triton_support.block(512, 2**17), triton_support.power_of_2(pixels))
    grid = (triton.cdiv(pixels, block), n)

    def plane() -> torch.Tensor:
        return torch.empty((n, 1, height, width), dtype=torch.float64, device=device)

    def of_programs() -> torch.Tensor:
        return torch.empty((n, grid[0]), dtype=torch.float64, device=device)

    def by_mask(of: torch.Tensor | None) -> tuple[int, int, int]:
        return (0, 0, 0) if of is None else (of.stride(0), of.stride(2), of.stride(3))

    mean, lowest, bad = plane(), of_programs(), torch.zeros((n, grid[0]), dtype=torch.int32, device=device)
    triton_support.launch(
        _mean, grid, image, valid, mean, lowest, bad, pixels, width, channels, *image.stride(), *by_mask(valid),
        MASKED=valid is not None, BLOCK=block,
    )  # fmt: skip
    pivot, bad = lowest.amin(dim=1), bad.sum(dim=1)
    pivot = torch.where(torch.isfinite(pivot), pivot, 0.0)
    # on a device it is not asked whether any is not finite: the host would wait for the answer
    if image.is_floating_point() and (image.is_cuda or bool(bad.any())):
        finite = torch.isfinite(mean)
        valid = finite if valid is None else valid & finite
    columns, weights = plane(), None if valid is None else plane()
    weighing = triton_support.numbers(device, *taps)
    radius, masked = len(taps) - 1, valid is not None
    triton_support.launch(
        _columns, grid, mean, valid, pivot, weighing, columns, weights, pixels, height, width, radius, *by_mask(valid),
        MASKED=masked, BLOCK=block,
    )  # fmt: skip
    values, low, high = mean, of_programs(), of_programs()
    triton_support.launch(
        _rows, grid, columns, weights, valid, weighing, values, low, high, pixels, height, width, radius,
        *by_mask(valid), MASKED=masked, BLOCK=block,
    )  # fmt: skip
    return Smoothed(values, valid, pivot, low.amin(dim=1), high.amax(dim=1), bad)


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds."""
    with triton_support.recording() as made:
        histogram(torch.zeros(4096, dtype=torch.float64), torch.zeros(257, dtype=torch.float64))
        histogram(torch.zeros(4096, dtype=torch.float64), torch.zeros(_BINS + 1, dtype=torch.float64))
    yield "cnr histogram, 256 bins", made[0]
    yield f"cnr histogram, {_BINS} bins", made[1]
    for dtype in (torch.uint8, torch.bfloat16, torch.float32):
        with triton_support.recording() as made:
            smoothed(torch.zeros((1, 1, 64, 64), dtype=dtype), None, (0.5, 0.25))
        yield f"cnr otsu mean {str(dtype).removeprefix('torch.')}", made[0]
    yield "cnr otsu columns", made[1]
    yield "cnr otsu rows", made[2]
    x = torch.zeros((1, 3, 64, 64), dtype=torch.uint16)[..., ::2]
    with triton_support.recording() as made:
        smoothed(x, torch.ones((1, 1, 64, 32), dtype=torch.bool), (0.5, 0.25))
    for name, launch in zip(("mean", "columns", "rows"), made, strict=True):
        yield f"cnr otsu {name}, strided, masked", launch
