"""The noise of tiles one by one, by the kernel where there is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from semnr_kernels.noise import ends_of, fit

from ..noise import NoiseModel
from ..noise.model import from_fitted


def fit_each(windows: Sequence[Sequence[np.ndarray]], *, data_range: float | None) -> list[NoiseModel]:
    """One model for each list of finite (H, W) windows, scan lines as rows; as `semnr.noise.fit_noise` of each."""
    ends = [ends_of(some, data_range) for some in windows]
    tensors = [[torch.from_numpy(window) for window in some] for some in windows]
    return [from_fitted(*one) for one in fit(tensors, ends)]
