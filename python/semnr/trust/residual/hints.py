"""Figures of the residual, noisy − denoised, that need neither a reference nor a second frame. Hints only."""

from __future__ import annotations

import numpy as np
import torch

from semnr_kernels.transfer.bands import band_pass, smooth


def residual_hints(x: torch.Tensor, d: torch.Tensor, valid: torch.Tensor | None = None) -> dict[str, np.ndarray]:
    """Figures of noisy − denoised that look odd when structure was removed. Hints: they have no threshold.

    residual_sigma: standard deviation. residual_lag_x, residual_lag_y: correlation with the right and the lower
    neighbour; compare with the tool's own noise, which need not be white. residual_structure: correlation of the
    residual with the denoised image in the 1-4 px band (above 0: detail was held back). residual_edges:
    correlation of the squared residual with the local gradient energy, the part explained by brightness
    (variance law a + b · level) taken out. residual_law_gain: that b.
    """
    w = torch.ones_like(x[:, :1]) if valid is None else valid.double()
    dims = (1, 2, 3)
    res = (x - d) * w
    count = w.sum(dims, keepdim=True).clamp(min=1) * x.shape[1]
    res = (res - res.sum(dims, keepdim=True) / count) * w
    square = res.square()
    variance = square.sum(dims, keepdim=True) / count

    def lag(dim: int) -> torch.Tensor:
        size = res.shape[dim]
        here, there = res.narrow(dim, 0, size - 1), res.narrow(dim, 1, size - 1)
        both = w.narrow(dim, 0, size - 1) * w.narrow(dim, 1, size - 1)
        pairs = both.sum(dims).clamp(min=1) * x.shape[1]
        return (here * there * both).sum(dims) / pairs / variance.flatten()

    level = smooth(d * w, (2.0,), valid)[0] * w
    bd = band_pass(d, 1.0, 4.0, valid) * w
    energy = smooth(bd.square(), (2.0,), valid)[0]
    level0, square0, energy0 = (_centred(v, w) for v in (level, square, energy))
    gain = (square0 * level0).sum(dims) / level0.square().sum(dims)
    gain = torch.where(level0.square().sum(dims) > 0, gain, 0.0)
    rest = square0 - gain[:, None, None, None] * level0
    energy0 = energy0 - (energy0 * level0).sum(dims, keepdim=True) / level0.square().sum(dims, keepdim=True) * level0
    values = {
        "residual_sigma": variance.flatten().sqrt(),
        "residual_lag_x": lag(3),
        "residual_lag_y": lag(2),
        "residual_structure": _correlation(band_pass(res, 1.0, 4.0, valid) * w, bd),
        "residual_edges": _correlation(rest, energy0),
        "residual_law_gain": gain,
    }
    return {name: value.cpu().numpy() for name, value in values.items()}


def _centred(v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    count = w.sum((1, 2, 3), keepdim=True).clamp(min=1) * v.shape[1]
    return (v - (v * w).sum((1, 2, 3), keepdim=True) / count) * w


def _correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    dims = (1, 2, 3)
    return (a * b).sum(dims) / (a.square().sum(dims) * b.square().sum(dims)).sqrt()
