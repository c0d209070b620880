"""SSIM in C++: float32 moments shifted per tile (or float64), any odd symmetric window, masks, maps and components."""

from __future__ import annotations

import torch

from .. import _native
from .._registry import Call
from .reference import SSIMRows


def supports(call: Call) -> str | None:
    if call.dtype not in _native.DTYPE_CODES:
        return f"has no {str(call.dtype).removeprefix('torch.')} loop"
    if call.needs_grad:
        return "has no gradient yet"
    return None


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
    isa: str | None = None,
) -> SSIMRows:
    """As `reference.ssim`, for CPU tensors; `isa` forces an instruction set.

    clamp_variance: variances never come out negative here, so there is nothing to switch.
    """
    n, c, h, w = x.shape
    size = len(taps)
    double = precision == "float64" or valid is not None or want_components
    reflect = border == "reflect"
    count = size * size
    rows = torch.empty((5 if want_components else 2, n, c), dtype=torch.float64)
    windows = (h, w) if reflect else (h - size + 1, w - size + 1)
    ssim_map = torch.empty((n, c, *windows), dtype=torch.float64 if double else torch.float32) if want_map else None
    coverage = torch.empty(n, dtype=torch.float64) if valid is not None else None
    _native.module(isa).ssim_forward(
        _native.image(x),
        _native.image(y),
        _native.mask(valid),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        taps,
        (reflect, double),
        (
            (k1 * data_range) ** 2,
            (k2 * data_range) ** 2,
            data_range,
            count / (count - 1) if sample_covariance and count > 1 else 1.0,
        ),
        torch.get_num_threads(),
        rows.data_ptr(),
        want_components,
        0 if ssim_map is None else ssim_map.data_ptr(),
        0 if coverage is None else coverage.data_ptr(),
    )
    components = dict(zip(("luminance", "contrast", "structure"), rows[2:], strict=True)) if want_components else None
    return SSIMRows(rows[0], rows[1], components, ssim_map, coverage)
