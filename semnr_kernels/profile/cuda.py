"""PSNR, SSIM and the moments of two regions in CUDA C++, from one read of the pixels: SSIM's walk with sums beside it.

What the walk leaves by cells (one a block, or those of a grid of windows) is merged to regions and windows by the last
stage of csrc/cnr.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .. import _cuda, _native
from .._checks import INTEGER_DTYPES
from ..cnr import cuda as cnr
from ..cnr.reference import Moments
from ..ssim import _taps
from ..ssim import cuda as ssim

_DTYPES = (*INTEGER_DTYPES, torch.float16, torch.bfloat16, torch.float32)
_SIZE = 11  # of SSIM's window
_TALLIES = 3  # csrc/profile/profile_cuda.hpp: signal, background, all of y
_GROUP = 8  # pixels of a row that a thread has


class Scores(NamedTuple):
    """(N,) float64 rows; `shared`: pixels that both regions hold. windows: maps of the two regions, where asked."""

    mse: torch.Tensor
    mae: torch.Tensor
    ssim: torch.Tensor
    shared: torch.Tensor
    signal: Moments
    background: Moments
    reference: Moments
    windows: tuple[Moments, Moments] | None


class _Grid(NamedTuple):
    """Windows of a map, and the cells into which their edges cut one axis of the image, to its end."""

    size: int
    window: int
    stride: int

    @property
    def rest(self) -> int:
        return self.window % self.stride

    @property
    def step(self) -> int:
        return 2 if self.rest else 1

    @property
    def cells(self) -> int:
        whole, left = divmod(self.size, self.stride)
        return whole * self.step + (0 if not left else 2 if self.rest and left > self.rest else 1)

    @property
    def axis(self) -> cnr.Axis:
        windows = (self.size - self.window) // self.stride + 1
        length = self.window // self.stride * self.step + (1 if self.rest else 0)
        return cnr.Axis(windows, self.stride, self.rest, self.stride, 1, self.step, length)


def why_not(
    x: torch.Tensor,
    y: torch.Tensor,
    regions: Sequence[torch.Tensor],
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
) -> str | None:
    """None where one read serves this call of one channel, else the reason."""
    height, width = x.shape[2:]
    if x.dtype not in _DTYPES:
        return f"scores {str(x.dtype).removeprefix('torch.')} one metric at a time"
    if min(height, width) < _SIZE:
        return f"takes images of {_SIZE} pixels and more a side"
    if max(s for v in (x, y) for s in v.stride()[-2:]) * x.element_size() >= 2**31 or height * width >= 2**31:
        return "takes images below 2**31 pixels, rows less than 2**31 bytes apart"
    if window is None or stride is None:
        return None
    down, across = (_Grid(*axis) for axis in zip((height, width), window, stride, strict=True))
    plan = _plan(height, width, down)
    if any(g.stride % _GROUP or g.rest % _GROUP or g.window > g.size for g in (down, across)):
        return "takes maps of windows and strides that are multiples of 8 pixels"
    if plan.threads % across.stride:
        return f"takes maps of strides across that divide {plan.threads} pixels"
    if width > plan.strips * plan.threads:
        return "takes no map of images whose last columns begin no window of SSIM"
    unit = _GROUP if x.element_size() == 1 else 16
    straight = all(_lies_straight(v, unit) for v in (x, y)) and all(_lies_straight(v, _GROUP) for v in regions)
    return None if width % _GROUP == 0 and straight else "takes maps of rows that lie straight and aligned"


def _lies_straight(v: torch.Tensor, unit: int) -> bool:
    """Pixels side by side, rows and images at multiples of `unit` bytes."""
    apart = [s * v.element_size() for s, n in zip(v.stride()[:3], v.shape[:3], strict=True) if n > 1]
    return v.stride(3) == 1 and not any(step % unit for step in (v.data_ptr(), *apart))


def _plan(height: int, width: int, down: _Grid | None) -> ssim.Plan:
    """SSIM's, so that its score is the same to the last bit; for a map, segments that begin at cells."""
    plan = ssim.forward_plan(height - _SIZE + 1, width - _SIZE + 1, _SIZE)
    if down is None:
        return plan
    rows = down.stride * max(1, round(plan.rows / down.stride))
    return plan._replace(rows=rows, segments=-(-(height - _SIZE + 1) // rows))


def scores(
    x: torch.Tensor,
    y: torch.Tensor,
    signal: torch.Tensor,
    background: torch.Tensor,
    *,
    taps: tuple[float, ...],
    numbers: tuple[float, float, float, float],
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    emulated: bool = False,
) -> Scores:
    """Of images of one channel for which `why_not` has nothing to say; regions: (N, 1, H, W) bool."""
    n, _, height, width = x.shape
    grids = None
    if window is not None and stride is not None:
        grids = [_Grid(*axis) for axis in zip((height, width), window, stride, strict=True)]
    plan = _plan(height, width, grids[0] if grids else None)
    cells = (grids[0].cells, grids[1].cells) if grids else (plan.segments, plan.strips)

    def empty(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=x.device)

    partial, errors = empty(n * plan.blocks, 2), empty(n * plan.blocks, 3, dtype=torch.int64)
    table = empty(_TALLIES, n, 3, *cells, dtype=torch.int64)
    rows, whole = empty(5, n), empty(_TALLIES, 3, n)
    maps = empty(2, 3, n, grids[0].axis.windows, grids[1].axis.windows) if grids else None
    walk = None if maps is None or grids is None else cnr.merging(grids[0].axis, grids[1].axis)
    reduced = None
    if walk is not None and maps is not None and not walk.direct:
        reduced = empty(2, n, 3, walk.down.cells(walk.down.windows), maps.shape[-1], dtype=torch.int64)
    writes = (partial, errors, table, rows, whole, maps, reduced)
    code = _native.DTYPE_CODES[x.dtype]
    with _cuda.launching(emulated, x.device, (x, y, signal, background), writes) as (module, stream):
        module.profile_scores(
            _native.image(x),
            _native.image(y),
            _native.mask(signal),
            _native.mask(background),
            code,
            x.shape,
            _taps.over_first(taps),
            numbers,
            plan,
            cells,
            tuple(g.stride for g in grids) if grids else (0, 0),
            tuple(g.rest for g in grids) if grids else (0, 0),
            [v.data_ptr() for v in (partial, errors, table)],
            rows.data_ptr(),
            stream,
        )
        one = [cnr.Axis(1, 1, 1, 1, count, count, count) for count in cells]
        asked: list[tuple[int, cnr.Merging, torch.Tensor, torch.Tensor | None]]
        asked = [(_TALLIES, cnr.merging(*one), whole, None)]
        if walk is not None and maps is not None:
            asked.append((2, walk, maps, reduced))
        for regions, how, out, between in asked:
            module.cnr_windows(
                code,
                x.shape,
                regions,
                how.down,
                how.across,
                cells,
                (0, n, 0, how.down.windows),
                (how.direct, how.together, cnr.BLOCKS),
                (table.data_ptr(), 0 if between is None else between.data_ptr()),
                out.data_ptr(),
                stream,
            )
    mse, mae, shared, score, _ = rows
    found = None if maps is None else (Moments(*maps[0]), Moments(*maps[1]))
    signals, backgrounds, references = (Moments(*of) for of in whole)
    return Scores(mse, mae, score, shared, signals, backgrounds, references, found)
