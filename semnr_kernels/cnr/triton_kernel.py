"""Moments of regions in Triton: one read of the pixels for two regions, whole or by windows, without atomics.

As in csrc/cnr, the edges of all windows cut the image into cells, each with the moments of its pixels, and a window is
a run of cells along each axis. Cells are merged by Chan's formula, all terms of which are positive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton

from .. import native_support, triton_support
from ..registry import Call, no_gradient, no_loop, refusal
from . import triton_otsu
from .reference import WHOLE, Moments, Settings
from .triton_moments import _cells, _runs

histogram, supports_histogram = triton_otsu.histogram, triton_otsu.supports_histogram
smoothed, supports_smoothed = triton_otsu.smoothed, triton_otsu.supports_smoothed
UNSUPPORTED_HISTOGRAM, UNSUPPORTED_SMOOTHED = triton_otsu.UNSUPPORTED_HISTOGRAM, triton_otsu.UNSUPPORTED_SMOOTHED

_PIXELS = 2**31  # of a plane: its places fit 32 bits
_REGIONS = 2  # from one read
# The longest cell of windows, and of a whole plane taken as one line. Integer cells are exact in 64 bits:
# n Σv² and (Σv)² are below 2¹⁴ · 2¹⁴ · 2³².
_HIGH, _WIDE, _LINE = 64, 256, 2**14
_TOGETHER = 32  # cells or runs of cells that one merge takes in turn
_TABLE = 2**25  # cells held at once, of several images; 24 bytes each
_KINDS = {torch.uint8: "narrow", torch.uint16: "wide"}


def _large_image(call: Call) -> str | None:
    too_large = call.shape[2] * call.shape[3] >= _PIXELS
    return "takes images below 2**31 pixels a channel" if too_large else None


def _many_cells(call: Call) -> str | None:
    window, stride = (call.settings or WHOLE).grid(*call.shape[2:])
    cells = [_axis(*side).cells for side in zip(call.shape[2:], window, stride, (_HIGH, _WIDE), strict=True)]
    too_many = _REGIONS * call.shape[1] * cells[0] * cells[1] >= _PIXELS
    return "keeps the moments of fewer than 2**31 cells" if too_many else None


UNSUPPORTED = (no_loop, _large_image, _many_cells, no_gradient)


def supports(call: Call) -> str | None:
    """Every dtype, layout and region, up to 2³¹ pixels a plane; no gradient."""
    return refusal(UNSUPPORTED, call)


class _Axis(NamedTuple):
    """One axis: window k is the cells [k · step, k · step + length)."""

    windows: int
    length: int
    cells: int
    longest: int
    spans: tuple[int, ...]  # arguments of `_span`; the first is `step`

    @property
    def step(self) -> int:
        return self.spans[0]


def _axis(size: int, window: int, stride: int, longest: int) -> _Axis:
    windows = (size - window) // stride + 1
    apart = windows == 1 or window <= stride
    stride = size if windows == 1 else stride  # any would do: one that keeps the alignment of rows
    whole, first = (0, window) if apart else divmod(window, stride)
    rest = 0 if apart else stride - first

    def pieces(length: int) -> tuple[int, int]:
        piece = triton.cdiv(length, max(1, triton.cdiv(length, longest)))
        return (triton.cdiv(length, piece), piece) if piece else (0, 0)

    (parts, piece), (parts_after, piece_after) = pieces(first), pieces(rest)
    step = parts + parts_after
    length = whole * step + parts
    spans = (step, parts, piece, first, piece_after, first + rest, stride)
    return _Axis(windows, length, (windows - 1) * step + length, max(piece, piece_after), spans)


def of_regions(
    x: torch.Tensor,
    *regions: torch.Tensor,
    settings: Settings = WHOLE,
) -> tuple[Moments, ...]:
    """As `reference.of_regions`."""
    h, w = x.shape[2:]
    size, step = settings.grid(h, w)
    moments: list[Moments] = []
    for first in range(0, len(regions), _REGIONS):
        views = [x, *(roi.expand(x.shape) for roi in regions[first : first + _REGIONS])]
        if size == (h, w):  # one line of pixels, the same whatever the layout
            out = _moments(views, _axis(1, 1, 1, 1), _axis(h * w, h * w, 1, _LINE))
        else:
            out = _moments(views, _axis(h, size[0], step[0], _HIGH), _axis(w, size[1], step[1], _WIDE))
        moments += (Moments(*(of[..., 0, 0] if settings.whole else of)) for of in out)
    return tuple(moments)


def _moments(views: list[torch.Tensor], down: _Axis, across: _Axis) -> torch.Tensor:
    """(regions, 3, N, C, rows, columns): pixels, mean, variance."""
    x, r = views[:2]
    q = views[2] if len(views) > 2 else None
    regions, planes, cells = len(views) - 1, x.shape[0] * x.shape[1], down.cells * across.cells
    together = max(1, _TABLE // (regions * x.shape[1] * cells))
    if together < len(x):
        parts = [[v[i : i + together] for v in views] for i in range(0, len(x), together)]
        return torch.cat([_moments(part, down, across) for part in parts], dim=2)
    kind = _KINDS.get(x.dtype, "float")
    lanes = triton_support.block({"float": 512, "wide": 1024, "narrow": 2048}[kind], 2**16)
    width = min(lanes, triton_support.power_of_2(across.longest))
    block = min(lanes // width, triton_support.power_of_2(planes * cells))
    table = torch.empty((3, regions, planes * cells), dtype=torch.float64, device=x.device)
    line = across.spans[3] == x.shape[2] * x.shape[3]  # and where its rows follow each other in memory, one row
    wrapped = line and not all(v.stride(2) == v.shape[3] * v.stride(3) for v in views)
    strides = [(0, 0, 0, 0) if v is None else v.stride() for v in (x, r, q)]
    triton_support.launch(
        _cells, (triton.cdiv(planes * cells, block),), x, r, q, table, planes * cells, regions * planes * cells, cells,
        x.shape[1], across.cells, triton.cdiv(across.longest, width), x.shape[3], *down.spans, *across.spans,
        *strides[0], *strides[1], *strides[2], KIND=kind, WRAPPED=wrapped, ROWS=block, COLUMNS=width,
    )  # fmt: skip
    if down.windows == across.windows == 1:
        merged = _merged(table, x, cells, 1, 1, cells, cells, regions)
    else:
        part = _merged(table, x, across.cells, 1, across.windows, across.length, across.step, 0)
        merged = _merged(part, x, down.cells, across.windows, down.windows, down.length, down.step, regions)
    return merged.reshape(regions, 3, *x.shape[:2], down.windows, across.windows)


def _merged(
    source: torch.Tensor, x: torch.Tensor, size: int, inner: int, windows: int, length: int, step: int, regions: int
) -> torch.Tensor:
    """Windows of `length` cells from (3, lines · size · inner); with `regions`, their last merge."""
    lines = source.numel() // (3 * size * inner)

    def run(
        source: torch.Tensor, begun: torch.Tensor | None, count: int, gap: int, offset: int, of: int, every: int,
        last: int = 0,
    ) -> torch.Tensor:  # fmt: skip
        outputs = lines * of * inner
        out = torch.empty(3 * outputs, dtype=torch.float64, device=x.device)
        lanes = min(1024, triton_support.power_of_2(count)) if count > _TOGETHER else 1
        block = min(max(1, triton_support.block(256, 2**17) // lanes), triton_support.power_of_2(outputs))
        each = outputs // max(1, last)
        triton_support.launch(
            _runs, (triton.cdiv(outputs, block),), source, begun, out, x, outputs, size, of, inner,
            source.numel() // 3, each, every, count, gap, offset, each // (x.shape[0] * x.shape[1]) if last else 1,
            x.shape[1], *x.stride()[:2], FINAL=last > 0, OUT=block, LANES=lanes,
        )  # fmt: skip
        return out

    begun: torch.Tensor | None = None
    done, unit, left = 0, 1, length
    while step < length and left > _TOGETHER:  # windows share cells: by runs of 32, of 32², ...
        left, digit = divmod(left, _TOGETHER)
        longer = run(source, None, _TOGETHER, unit, 0, size, 1)
        if digit:
            begun, done = run(source, begun, digit, unit, done, size, 1), done + digit * unit
        source, unit = longer, unit * _TOGETHER
    return run(source, begun, left, unit, done, windows, step, regions)


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds: every dtype, whole and by windows, layouts with gaps, the merges."""

    def made(x: torch.Tensor, regions: int = 2, **grid: Any) -> list[triton_support.Launch]:
        roi = torch.ones(x.shape, dtype=torch.bool)
        with triton_support.recording() as launches:
            of_regions(x, *(roi,) * regions, settings=Settings(**grid))
        return launches

    for dtype in native_support.DTYPE_CODES:
        x, name = torch.zeros((1, 1, 256, 256), dtype=dtype), str(dtype).removeprefix("torch.")
        yield f"cnr cells {name}", made(x)[0]
        if dtype in (torch.uint8, torch.float32):
            yield f"cnr cells {name}, windows", made(x, window=(64, 64), stride=(32, 32))[0]
    x = torch.zeros((1, 1, 1024, 1024))
    yield "cnr merges of an image", made(x)[1]
    merges = made(x, window=(64, 64), stride=(32, 32))
    yield "cnr merges of rows", merges[1]
    yield "cnr merges of columns", merges[2]
    yield "cnr merges of runs", made(x, window=(70, 70), stride=(1, 1))[3]
    yield "cnr cells float32, one region, strided", made(x[..., ::2], 1, window=(7, 7), stride=(1, 1))[0]
    yield "cnr cells uint16, one region", made(x.to(torch.uint16), 1)[0]
    yield "cnr cells uint8, transposed", made(x.to(torch.uint8).mT)[0]
    yield from triton_otsu.launches()
