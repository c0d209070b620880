"""`planes.Levelled` in Triton: images of one channel less a level of their own, in two launches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from . import native_support, triton_support
from .planes import Levelled

_BLOCK, _PARTS = 2048, 64  # pixels at a time; programs an image, which a later one adds up


@triton.jit
def _finite(v):
    """Whether values are numbers: neither NaN nor infinite."""
    return (v - v) == 0


@triton.jit(do_not_specialize=["apart", "down", "right", "width", "pixels", "parts"])
def sums(
    images, partial, apart, down, right, width, pixels, parts, FLOAT: tl.constexpr, WORK: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """partial[n, program] = sum and number of the finite pixels among every `parts`-th block."""
    n, program = tl.program_id(1).to(tl.int64), tl.program_id(0)
    total, count = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.int32)
    for start in range(program * BLOCK, pixels, parts * BLOCK):
        at = start + tl.arange(0, BLOCK)
        live = at < pixels
        v = tl.load(images + n * apart + (at // width) * down + (at % width) * right, mask=live, other=0).to(WORK)
        if FLOAT:
            live = live & _finite(v)
        total += tl.where(live, v, 0).to(tl.float64)
        count += live.to(tl.int32)
    to = partial + (n * parts + program) * 2
    tl.store(to, tl.sum(total))
    tl.store(to + 1, tl.sum(count).to(tl.float64))


@triton.jit(do_not_specialize=["apart", "down", "right", "width", "pixels", "parts"])
def levelled(
    images, partial, data, level, finite, apart, down, right, width, pixels, parts, FLOAT: tl.constexpr,
    WORK: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """data = the images less level[n], 0 where not finite; finite[n]: whether all pixels are."""
    n, program = tl.program_id(1).to(tl.int64), tl.program_id(0)
    lane = tl.arange(0, PARTS)
    row = partial + (n * parts + lane) * 2
    count = tl.sum(tl.load(row + 1, mask=lane < parts, other=0))
    mean = tl.sum(tl.load(row, mask=lane < parts, other=0)) / tl.maximum(count, 1.0)
    mean = mean.to(tl.float32).to(tl.float64) if FLOAT else tl.floor(mean + 0.5)
    if program == 0:
        tl.store(level + n, mean)
        if FLOAT:
            tl.store(finite + n, count == pixels)
    for start in range(program * BLOCK, pixels, parts * BLOCK):
        at = start + tl.arange(0, BLOCK)
        live = at < pixels
        v = tl.load(images + n * apart + (at // width) * down + (at % width) * right, mask=live, other=0).to(WORK)
        less = (v - mean.to(WORK)).to(tl.float32)
        if FLOAT:
            less = tl.where(_finite(v), less, 0.0)
        tl.store(data + n * pixels + at, less, mask=live)


def of(images: torch.Tensor) -> Levelled:
    """As `Levelled.of`, of (N, 1, H, W) images of any dtype that kernels read."""
    n, _, height, width = images.shape
    device, number = images.device, images.dtype.is_floating_point
    block = triton_support.block(_BLOCK, 2**14)
    parts = min(_PARTS, triton.cdiv(height * width, block))
    partial = torch.empty((n, parts, 2), dtype=torch.float64, device=device)
    data = torch.empty((n, height, width), dtype=torch.float32, device=device)
    level = torch.empty(n, dtype=torch.float64, device=device)
    finite = torch.empty(n, dtype=torch.bool, device=device) if number else None
    steps = (images.stride(0), *images.stride()[2:], width, height * width, parts)
    work = tl.float64 if images.dtype == torch.float64 else tl.float32
    read, folded = images.numel() * images.element_size(), 16 * n * parts
    triton_support.launch(
        sums, (parts, n), images, partial, *steps, FLOAT=number, WORK=work, BLOCK=block, moved=read + folded
    )
    triton_support.launch(
        levelled, (parts, n), images, partial, data, level, finite, *steps, FLOAT=number, WORK=work, PARTS=_PARTS,
        BLOCK=block, moved=read + parts * folded + 4 * data.numel(),
    )  # fmt: skip
    return Levelled(data, level, finite)


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds: both kernels for every dtype."""
    for dtype in native_support.DTYPE_CODES:
        with triton_support.recording() as made:
            of(torch.zeros((2, 1, 64, 80), dtype=dtype))
        yield from ((f"planes {one.kernel.fn.__name__} {str(dtype).removeprefix('torch.')}", one) for one in made)
