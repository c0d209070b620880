"""Figures of a whole tile: the shape of the residual's spectrum, and its energy at edges."""

from __future__ import annotations

import numpy as np
import torch

BLOCK = 32  # px: blocks whose spread gives the standard error


def spectrum_distance(power: torch.Tensor) -> np.ndarray:
    """RMS of the logarithm of (N, 8, 8) band powers over the noise's, their mean taken out."""
    log = power.double().clamp(min=1e-12).log().flatten(1)
    return (log - log.mean(1, keepdim=True)).square().mean(1).sqrt().cpu().numpy()


def energy_at_edges(z: torch.Tensor, strength: torch.Tensor, weight: torch.Tensor) -> np.ndarray:
    """Regression of z² on the strength of the edges, in standard errors over blocks: 0 in noise alone.

    The strength is bounded (gradient over gradient plus its median): a step counts as an edge whatever its height, as
    in phase congruency (Kovesi 1999), and one bright particle does not decide. z² is capped, so that neither does
    one lost defect, which the scan reports.
    """
    bounded = strength / (strength + strength.flatten(1).median(1).values[:, None, None] + 1e-3)
    energy = z.square().clamp(max=16.0)
    n = len(z)
    w = weight.flatten(1)
    count = w.sum(1).clamp(min=1)

    def centred(v: torch.Tensor) -> torch.Tensor:
        mean = (v.flatten(1) * w).sum(1) / count
        return (v - mean[:, None, None]) * weight

    e, g = centred(energy).double(), centred(bounded).double()
    slope = (e * g).sum((1, 2)) / g.square().sum((1, 2)).clamp(min=1e-12)
    rows, columns = max(1, z.shape[1] // BLOCK), max(1, z.shape[2] // BLOCK)
    left = (e - slope[:, None, None] * g) * g
    i = torch.arange(z.shape[1], device=z.device) * rows // z.shape[1]
    j = torch.arange(z.shape[2], device=z.device) * columns // z.shape[2]
    sums = torch.zeros(n, rows, z.shape[2], dtype=left.dtype, device=z.device).index_add_(1, i, left)
    sums = torch.zeros(n, rows, columns, dtype=left.dtype, device=z.device).index_add_(2, j, sums).flatten(1)
    k = sums.shape[1]
    if k < 4:
        return np.full(n, np.nan)
    error = (sums.square().sum(1) * k / (k - 1)).sqrt()
    return torch.where(error > 0, (e * g).sum((1, 2)) / error, 0.0).cpu().numpy()
