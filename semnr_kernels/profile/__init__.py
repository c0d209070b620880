"""PSNR, SSIM and two-region CNR from one read of the pixels, where the CPU kernels can; see README.md."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .. import _native, _registry
from ..cnr.reference import Moments
from ..ssim import CONVENTIONS, window_taps
from ..ssim.native import numbers

_OPS = ("pixel", "ssim", "cnr")
# 16-bit floats are scored one metric at a time
_DTYPES = (torch.uint8, torch.uint16, torch.float32, torch.float64)


# As `ssim` states them in its result.
SSIM_SETTINGS = {"convention": "wang2004", **CONVENTIONS["wang2004"].__dict__, "downsample": 1, "precision": "float32"}


class Together(NamedTuple):
    """(N,) float64 rows: errors over the pixels, SSIM as `semnr.ssim` by default, moments of the two regions of x."""

    mse: torch.Tensor
    mae: torch.Tensor
    ssim: torch.Tensor
    signal: Moments
    background: Moments


def together(
    x: torch.Tensor,
    y: torch.Tensor,
    signal: torch.Tensor,
    background: torch.Tensor,
    *,
    data_range: float,
    backend: str | None = "auto",
) -> Together | None:
    """The rows of `pixel`, `ssim` and `cnr`'s moments of one call, or None where they must be asked one by one.

    x, y: as `_checks.pair` gives them, unmasked; signal, background: (N, 1, H, W) bool. One channel alone. None too
    where a row is not finite, a region empty or the two not disjoint: the op asked next says what is wrong.
    """
    n, c, h, w = x.shape
    settings = CONVENTIONS["wang2004"]
    if (
        c != 1
        or x.dtype not in _DTYPES
        or not x.is_cpu
        or (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad))
        or min(h, w) < settings.window_size
        or any(v.stride(-1) != 1 for v in (x, y, signal, background))
        or not all(_registry.native_by_default(op, backend) for op in _OPS)
    ):
        return None
    taps = window_taps(settings.window, settings.window_size, settings.sigma)
    module = _native.module()
    rows = torch.empty((n, module.PROFILE_ROW), dtype=torch.float64)
    module.profile_scores(
        _native.image(x),
        _native.image(y),
        _native.mask(signal),
        _native.mask(background),
        _native.DTYPE_CODES[x.dtype],
        x.shape,
        taps,
        (False, x.dtype == torch.float64),
        numbers(data_range, settings.k1, settings.k2, len(taps) ** 2, settings.sample_covariance),
        torch.get_num_threads(),
        rows.data_ptr(),
    )
    mse, mae, ssim, shared, *moments = rows.unbind(dim=1)
    if not bool(torch.isfinite(rows).all()) or bool(shared.any()):
        return None
    return Together(mse, mae, ssim, Moments(*moments[:3]), Moments(*moments[3:]))
