"""The noise of tiles one by one, by the kernel where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from semnr_kernels.noise import ends_of, fit, step_of

from ..noise import NoiseModel
from ..noise.model import array_windows, from_fitted

SAMPLES = 2  # windows of 256² that a tile's noise is taken from


def fit_each(windows: Sequence[Sequence[np.ndarray]], *, data_range: float | None) -> list[NoiseModel]:
    """One model for each list of finite (H, W) windows, scan lines as rows; as `semnr.noise.fit_noise` of each."""
    ends = [ends_of(some, data_range) for some in windows]
    tensors = [[torch.from_numpy(window) for window in some] for some in windows]
    steps = map(step_of, windows)
    return [from_fitted(*one, step=step) for one, step in zip(fit(tensors, ends), steps, strict=True)]


def fit_tiles(tiles: torch.Tensor, data_range: float | None) -> list[NoiseModel]:
    """The noise of each of (N, C, H, W) tiles, channels averaged."""
    whole = tiles.shape[1] == 1 and tiles.dtype in (torch.uint8, torch.uint16)
    planes = (tiles[:, 0] if whole else tiles.float().mean(1)).cpu().numpy()
    return fit_each([array_windows(plane, limit=SAMPLES) for plane in planes], data_range=data_range)


def as_models(noise: Any, n: int) -> list[NoiseModel] | None:
    """What a caller gives as the noise of N tiles, one a tile; None: not known."""
    if noise is None:
        return None
    models = [noise] * n if isinstance(noise, NoiseModel) else list(noise) if isinstance(noise, Sequence) else [noise]
    if any(not isinstance(model, NoiseModel) for model in models):
        raise TypeError(f"noise is {type(noise).__name__}; accepted: a NoiseModel, one a tile, or None")
    if len(models) != n:
        raise ValueError(f"noise has {len(models)} models for {n} tiles; accepted: one, or one a tile")
    return models
