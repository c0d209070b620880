"""The fit of the noise law by its definition, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..noise_law import Ends, Fitted, fitted


def fit(sets: Sequence[Sequence[torch.Tensor]], ends: Sequence[Ends]) -> list[Fitted]:
    """One law for each set of (H, W) windows."""
    return [fitted([v.double().cpu().numpy() for v in windows], end) for windows, end in zip(sets, ends, strict=True)]
