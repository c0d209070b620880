"""Similarity of Scharr gradients, as FSIM defines it (semnr_kernels/fsim/reference.py), in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..fsim.reference import _similarity, gradient_magnitude


class GradientSimilarity(NamedTuple):
    map: torch.Tensor | None  # (N, C, H, W)
    total: torch.Tensor | None  # (N, C) float64: Σ weight · map


def similarity(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None, *, constant: float, want_map: bool
) -> GradientSimilarity:
    """x, y and weight: (N, C, H, W); `total` where there is a weight."""
    n, c, h, w = x.shape
    a, b = (gradient_magnitude(v.double().reshape(n * c, 1, h, w)).reshape(x.shape) for v in (x, y))
    found = _similarity(a, b, constant)
    total = None if weight is None else (found * weight.double()).sum(dim=(2, 3))
    return GradientSimilarity(found if want_map else None, total)
