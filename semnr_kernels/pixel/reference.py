"""Pixel errors, as defined: sums over valid pixels, exact for integers, float64 otherwise."""

from __future__ import annotations

import torch

from ..checks import INTEGER_DTYPES

# Integer sums stay exact while count · 65535² < 2⁶³, that is below 2³¹ pixels an image.
_EXACT_PIXELS = 2**31


def errors(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Per image mean squared and mean absolute error, (N,) float64. NaN where no pixel is valid.

    x, y: (N, C, H, W); valid: (N, 1, H, W) bool or None.
    """
    if x.dtype in INTEGER_DTYPES and x[0].numel() < _EXACT_PIXELS:
        d = x.to(torch.int64) - y.to(torch.int64)
    else:
        d = x.double() - y.double()
    if valid is None:
        count = torch.full((x.shape[0],), x[0].numel(), dtype=torch.float64, device=x.device)
    else:
        # where, not a product: a masked NaN must not reach the sum
        d = torch.where(valid, d, torch.zeros((), dtype=d.dtype, device=d.device))
        count = valid.sum(dim=(1, 2, 3), dtype=torch.float64) * x.shape[1]
    square = (d * d).sum(dim=(1, 2, 3)).double()
    absolute = d.abs().sum(dim=(1, 2, 3)).double()
    return square / count, absolute / count
