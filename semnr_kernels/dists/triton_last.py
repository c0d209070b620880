"""Statistics and L2 pooling of maps whose channels lie side by side, as tensor cores leave those of 16 bits.

The sums and the pooling are those of `triton_kernel`, which launches these kernels and has the others; forward alone.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import triton_support

_LANES = 1024  # channels times positions of a program: 16 bytes a thread and load; 512 spill on sm_90


@triton.jit
def moments(
    x, y, share, partial, positions, channels, steps, programs,
    SHARED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """As `triton_kernel._moments`, of x, y (images, positions, channels): partial[image · channel, program] = sums."""
    blocks = (channels + COLUMNS - 1) // COLUMNS
    program = tl.program_id(0) % programs
    image = (tl.program_id(0) // programs // blocks).to(tl.int64)
    channel = (tl.program_id(0) // programs % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    real = channel < channels
    base = image * positions * channels + channel
    near_x = tl.load(x + base, mask=real, other=0).to(tl.float64)[None, :]
    near_y = tl.load(y + base, mask=real, other=0).to(tl.float64)[None, :]
    zero = tl.zeros([ROWS, COLUMNS], tl.float64)
    sa, sb, saa, sbb, sab, sw = zero, zero, zero, zero, zero, zero
    for step in range(steps):
        at = (step * programs + program) * ROWS + tl.arange(0, ROWS)
        live = (at < positions)[:, None] & real[None, :]
        place = base[None, :] + at.to(tl.int64)[:, None] * channels
        a = tl.where(live, tl.load(x + place, mask=live, other=0).to(tl.float64) - near_x, zero)
        b = tl.where(live, tl.load(y + place, mask=live, other=0).to(tl.float64) - near_y, zero)
        wa, wb = a, b
        if SHARED:
            w = tl.load(share + image * positions + at, mask=at < positions, other=0).to(tl.float64)[:, None]
            wa, wb = w * a, w * b
            sw += tl.where(live, w, zero)
        sa += wa
        sb += wb
        saa += wa * a
        sbb += wb * b
        sab += wa * b
    to = partial + ((image * channels + channel) * programs + program) * (5 + SHARED)
    tl.store(to, tl.sum(sa, axis=0), mask=real)
    tl.store(to + 1, tl.sum(sb, axis=0), mask=real)
    tl.store(to + 2, tl.sum(saa, axis=0), mask=real)
    tl.store(to + 3, tl.sum(sbb, axis=0), mask=real)
    tl.store(to + 4, tl.sum(sab, axis=0), mask=real)
    if SHARED:
        tl.store(to + 5, tl.sum(sw, axis=0), mask=real)


@triton.jit
def pool(
    h, out, eps, height, width, down, across, channels,
    WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """As `triton_kernel._pool_forward`, of h (images, height, width, channels)."""
    blocks, tiles = (channels + COLUMNS - 1) // COLUMNS, (down * across + ROWS - 1) // ROWS
    channel = ((tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    at = (tl.program_id(0) // blocks % tiles) * ROWS + tl.arange(0, ROWS)
    image = (tl.program_id(0) // blocks // tiles).to(tl.int64)
    row, column = at // across, at % across
    live = (at < down * across)[:, None] & (channel < channels)
    total = tl.zeros([ROWS, COLUMNS], WORK)
    for i in tl.static_range(-1, 2):
        for j in tl.static_range(-1, 2):
            r, c = row * 2 + i, column * 2 + j
            inside = live & ((r >= 0) & (r < height) & (c >= 0) & (c < width))[:, None]
            of = (image * height * width + r * width + c)[:, None] * channels + channel
            v = tl.load(h + of, mask=inside, other=0).to(WORK)
            total += v * v * ((2 - i * i) * (2 - j * j) / 16)  # (½, 1, ½)² / 4
    root = tl.sqrt(total + tl.load(eps).to(WORK))
    to = out + (image * down * across + at)[:, None] * channels + channel
    tl.store(to, triton_support.narrow(root, out.dtype.element_ty), mask=live)


def is_last(h: torch.Tensor) -> bool:
    """Whether the channels of a map lie side by side, and its positions one after another."""
    return h.shape[1] > 1 and h.stride(1) == 1 and h.is_contiguous(memory_format=torch.channels_last)


def _block(channels: int, positions: int) -> tuple[int, int]:
    """Positions × channels of a program."""
    lanes = triton_support.block(_LANES, 2**15)
    columns = min(triton_support.power_of_2(channels), 64 if lanes == _LANES else 2**9)
    return min(lanes // columns, triton_support.power_of_2(positions)), columns


def sums(x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:
    """What `triton_support.fold` takes: (images · channels, programs, 5 or, with shares, 6)."""
    n, c, h, w = x.shape
    rows, columns = _block(c, h * w)
    programs = triton.cdiv(h * w, rows * 32)  # by the map's size alone
    partial = torch.empty((n * c, programs, 5 + (share is not None)), dtype=torch.float64, device=x.device)
    triton_support.launch(
        moments, (programs * triton.cdiv(c, columns) * n,), x, y, share, partial, h * w, c,
        triton.cdiv(h * w, rows * programs), programs, SHARED=share is not None, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return partial


def pooled(h: torch.Tensor, eps: torch.Tensor, work: Any, dtype: torch.dtype) -> torch.Tensor:
    """(N, C, h, w) to half the size, channels last both."""
    n, c, height, width = h.shape
    down, across = (height + 1) // 2, (width + 1) // 2
    out = torch.empty((n, c, down, across), dtype=dtype, device=h.device, memory_format=torch.channels_last)
    rows, columns = _block(c, down * across)
    triton_support.launch(
        pool, (triton.cdiv(down * across, rows) * triton.cdiv(c, columns) * n,), h, out, eps, height, width, down,
        across, c, WORK=work, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return out
