"""PSNR, SSIM and the moments of two regions in CUDA C++, from one read of the pixels: SSIM's walk with sums beside it.

What the walk leaves by blocks is merged to regions by the last stage of csrc/cnr.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .. import cuda_support, native_support
from ..checks import INTEGER_DTYPES
from ..cnr import cuda as cnr
from ..cnr.reference import Moments
from ..ssim import cuda as ssim
from ..ssim import float32_window
from ..ssim.settings import Settings

_DTYPES = (*INTEGER_DTYPES, torch.float16, torch.bfloat16, torch.float32)
_SIZE = 11  # of SSIM's window
_TALLIES = 3  # csrc/profile/profile_cuda.hpp: signal, background, all of y


class Scores(NamedTuple):
    """(N,) float64 rows; `shared`: pixels that both regions hold."""

    mse: torch.Tensor
    mae: torch.Tensor
    ssim: torch.Tensor
    shared: torch.Tensor
    signal: Moments
    background: Moments
    reference: Moments


def why_not(x: torch.Tensor, y: torch.Tensor) -> str | None:
    """None where one read serves this call of one channel, else the reason."""
    height, width = x.shape[2:]
    if x.dtype not in _DTYPES:
        return f"scores {str(x.dtype).removeprefix('torch.')} one metric at a time"
    if min(height, width) < _SIZE:
        return f"takes images of {_SIZE} pixels and more a side"
    if max(s for v in (x, y) for s in v.stride()[-2:]) * x.element_size() >= 2**31 or height * width >= 2**31:
        return "takes images below 2**31 pixels, rows less than 2**31 bytes apart"
    return None


def scores(
    x: torch.Tensor,
    y: torch.Tensor,
    signal: torch.Tensor,
    background: torch.Tensor,
    settings: Settings,
    *,
    emulated: bool = False,
) -> Scores:
    """Of images of one channel for which `why_not` has nothing to say; regions: (N, 1, H, W) bool."""
    n, _, height, width = x.shape
    # SSIM's, so that its score is the same to the last bit
    plan, parts = ssim.even_walk(n, height - _SIZE + 1, width - _SIZE + 1, _SIZE, ssim.slots(x.device))
    cells = (parts, plan.strips)

    def empty(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=x.device)

    partial, errors = empty(plan.blocks, 2), empty(plan.blocks, 3, dtype=torch.int64)
    table = empty(_TALLIES, n, 3, *cells, dtype=torch.int64)
    rows, whole = empty(5, n), empty(_TALLIES, 3, n)
    merging = cnr.merging(*(cnr.Axis(1, 1, 1, 1, count, count, count) for count in cells))
    code = native_support.DTYPE_CODES[x.dtype]
    writes = (partial, errors, table, rows, whole)
    with cuda_support.launching(emulated, x.device, (x, y, signal, background), writes) as (module, stream):
        module.profile_scores(
            native_support.image(x),
            native_support.image(y),
            native_support.mask(signal),
            native_support.mask(background),
            code,
            x.shape,
            float32_window.over_first(settings.taps),
            settings.constants,
            plan,
            [v.data_ptr() for v in (partial, errors, table)],
            rows.data_ptr(),
            stream,
        )
        module.cnr_windows(
            code,
            x.shape,
            _TALLIES,
            merging.down,
            merging.across,
            cells,
            (0, n, 0, 1),
            (merging.direct, merging.together, cnr.BLOCKS),
            (table.data_ptr(), 0),
            whole.data_ptr(),
            stream,
        )
    mse, mae, shared, score, _ = rows
    return Scores(mse, mae, score, shared, *(Moments(*of) for of in whole))
