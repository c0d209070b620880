"""Moments of regions in CUDA C++: one read of the pixels for two regions, windows of any size at the same cost.

As in the C++ kernels (csrc/cnr), the edges of all windows cut the image into cells, each with its moments (exact sums
for integers), and windows are merged from cells in a fixed order: no bit depends on the number of blocks. No gradient
here: `supports` leaves that to the definition.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .. import cuda_support, native_support
from ..checks import FLOAT_DTYPES
from ..registry import Call, float64_values, no_gradient, no_loop, refusal, small_memory
from .reference import WHOLE, Moments, Settings

_REGIONS = 2  # a launch reads at most two
# Of a plane: 64 bits hold the sums of squares of integers, 32 bits count floats.
_INTEGER_PIXELS, _FLOAT_PIXELS = 2**34, 2**32
_THREADS = 256  # of a block: csrc/cnr/cnr_cuda.hpp
_ROWS = 32  # of a cell: 32 bits hold what a thread adds up
BLOCKS = 2112  # 16 for each of 132 multiprocessors; more tasks than that are taken in turn
_PART = 255 * 128  # values of a histogram that a block counts at once: csrc/cnr/histogram_cuda.hpp
_BINS = 1024
_BIN_BYTES = 128  # of shared memory, each
_TABLE = 2**25  # bytes of cells held at once: they stay in the second-level cache
# Windows that overlap so many times are merged from all their cells; beyond, by runs along one axis and the other.
_OVERLAP = 16


class Axis(NamedTuple):
    """Cells of one axis, as csrc/cnr/cnr_cuda.hpp has it: window k is the cells [k · step, k · step + length)."""

    windows: int
    stride: int
    rest: int
    longest: int
    first: int
    step: int
    length: int

    def cells(self, windows: int) -> int:
        return (windows - 1) * self.step + self.length

    def divides(self, pack: int) -> bool:
        """Whether every cell begins and ends at a multiple of `pack`."""
        return self.rest % pack == 0 and (self.windows == 1 or self.stride % pack == 0)


def axis(size: int, window: int, stride: int, longest: int) -> Axis:
    """The cells into which windows every `stride` of `size` pixels cut an axis; none longer than `longest`."""
    windows = (size - window) // stride + 1
    apart = windows == 1 or window <= stride
    whole, rest = (0, window) if apart else divmod(window, stride)
    first = -(-rest // longest)
    step = first + (0 if apart else -(-(stride - rest) // longest))
    return Axis(windows, stride, rest, longest, first, step, whole * step + first)


class Merging(NamedTuple):
    """How windows are merged: from all their cells by `together` threads, or along one axis and then the other."""

    down: Axis
    across: Axis
    direct: bool
    together: int


def merging(down: Axis, across: Axis) -> Merging:
    """As many threads a window as leave each about eight cells."""
    cells = down.length * across.length
    direct = cells <= _OVERLAP * down.step * across.step
    return Merging(down, across, direct, min(_THREADS, 1 << max(0, (cells - 1) // 8).bit_length()))


class Plan(NamedTuple):
    """How the kernels walk: cells, pixels that a thread takes at once, a block's width, how windows are merged."""

    down: Axis
    across: Axis
    pack: int
    packs: int
    straight: bool  # one load takes a pack
    direct: bool
    together: int


def _large_image(call: Call) -> str | None:
    most = _FLOAT_PIXELS if call.dtype in FLOAT_DTYPES else _INTEGER_PIXELS
    return f"takes planes below {most} pixels" if call.shape[-2] * call.shape[-1] >= most else None


UNSUPPORTED = (no_loop, _large_image, no_gradient)


def supports(call: Call) -> str | None:
    """Every dtype and layout, planes up to 2³⁴ pixels of integers or 2³² of floats; gradients are the definition's."""
    return refusal(UNSUPPORTED, call)


def plan(x: torch.Tensor, regions: Sequence[torch.Tensor], window: tuple[int, int], stride: tuple[int, int]) -> Plan:
    """For regions of the shape of x."""
    height, width = x.shape[-2:]
    down, uncut = axis(height, window[0], stride[0], _ROWS), axis(width, window[1], stride[1], width)
    size = x.element_size()

    def lies_straight(pack: int) -> bool:
        return all(
            v.stride(3) == 1
            and v.data_ptr() % (pack * v.element_size()) == 0
            and all(s % pack == 0 for s, n in zip(v.stride()[:3], v.shape[:3], strict=True) if n > 1)
            for v in (x, *regions)
        )

    if x.dtype in FLOAT_DTYPES:  # in every memory layout, so that no bit depends on that
        pack = 16 // size if uncut.divides(16 // size) else 1
    else:  # exact in any order
        pack = next((p for p in (16 // size, 4 // size) if uncut.divides(p) and lies_straight(p)), 1)
    # 1 KiB of a row and four rows side by side; single rows take the whole block
    packs = _THREADS // 4 if pack * size == 16 and min(down.longest, down.stride, height) >= 4 else _THREADS
    across = axis(width, window[1], stride[1], packs * pack)
    return Plan(down, across, pack, packs, lies_straight(pack), *merging(down, across)[2:])


def bands(walk: Plan, planes: int, regions: int) -> list[tuple[int, int, int, int]]:
    """(first plane, planes, first row of windows, rows): what a table of cells is held for at once.

    Where a plane is taken in bands, at least as many rows as share a row of pixels, so that no more than half is read
    twice.
    """
    down, across = walk.down, walk.across
    line = regions * 24 * (across.cells(across.windows) + (0 if walk.direct else across.windows))
    least = -(-down.length // down.step)
    rows = min(down.windows, max(least, (_TABLE // line - down.length) // down.step + 1))
    several = 1 if rows < down.windows else min(planes, max(1, _TABLE // (down.cells(rows) * line)))
    return [
        (plane, min(several, planes - plane), row, min(rows, down.windows - row))
        for plane in range(0, planes, several)
        for row in range(0, down.windows, rows)
    ]


def _many_bins(call: Call) -> str | None:
    return f"counts up to {_BINS} bins" if call.setting("bins", 0) > _BINS else None


def _small_memory(call: Call) -> str | None:
    return small_memory(call, call.setting("bins", 0) * _BIN_BYTES)


UNSUPPORTED_HISTOGRAM = (float64_values, _many_bins, _small_memory)


def supports_histogram(call: Call) -> str | None:
    """float64 values and up to 1024 bins, where a block has the shared memory for them."""
    return refusal(UNSUPPORTED_HISTOGRAM, call)


def histogram(
    values: torch.Tensor, edges: torch.Tensor, *, emulated: bool = False, blocks: int = BLOCKS
) -> torch.Tensor:
    """As `reference.histogram`."""
    values, edges = values.contiguous(), edges.contiguous()
    bins = edges.numel() - 1
    partial = torch.empty((-(-values.numel() // _PART), bins), dtype=torch.int32, device=values.device)
    counts = torch.empty(bins, dtype=torch.int64, device=values.device)
    with cuda_support.launching(emulated, values.device, (values, edges), (partial, counts)) as (module, stream):
        module.histogram(
            values.data_ptr(),
            values.numel(),
            edges.data_ptr(),
            bins,
            blocks,
            partial.data_ptr(),
            counts.data_ptr(),
            stream,
        )
    return counts


def of_regions(
    x: torch.Tensor,
    *regions: torch.Tensor,
    settings: Settings = WHOLE,
    emulated: bool = False,
    blocks: int = BLOCKS,
) -> tuple[Moments, ...]:
    """As `reference.of_regions`; at most `blocks` blocks a launch."""
    if len(regions) > _REGIONS:
        again = functools.partial(of_regions, x, settings=settings, emulated=emulated, blocks=blocks)
        return again(*regions[:_REGIONS]) + again(*regions[_REGIONS:])
    n, c, h, w = x.shape
    size, step = settings.grid(h, w)
    masks = [roi.expand(x.shape) for roi in regions]
    walk = plan(x, masks, size, step)
    down, across = walk.down, walk.across
    todo = bands(walk, n * c, len(masks))
    planes, rows = max(b[1] for b in todo), down.cells(max(b[3] for b in todo))
    lines = len(masks) * planes * 3 * rows

    def empty(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=x.device)

    out = empty(len(masks), 3, n, c, down.windows, across.windows)
    cells = empty(lines * across.cells(across.windows), dtype=torch.int64)
    reduced = None if walk.direct else empty(lines * across.windows, dtype=torch.int64)
    with cuda_support.launching(emulated, x.device, (x, *masks), (out,), (cells, reduced)) as (module, stream):
        for band in todo:
            module.cnr_moments(
                native_support.image(x),
                native_support.DTYPE_CODES[x.dtype],
                x.shape,
                [native_support.image(mask) for mask in masks],
                down,
                across,
                band,
                (walk.pack, walk.packs, walk.straight, walk.direct, walk.together, blocks),
                (cells.data_ptr(), 0 if reduced is None else reduced.data_ptr()),
                out.data_ptr(),
                stream,
            )
    return tuple(Moments(*(of[..., 0, 0] if settings.whole else of)) for of in out)
