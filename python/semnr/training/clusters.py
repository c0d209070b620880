"""Rare clusters of noise, drawn as often as common ones (importance sampling).

Of a thousand tiles without structure a few have a cluster of noise that looks like a small particle. A training meets
none of them, but particles of that contrast in every other patch, and so takes the cluster for a particle. Here the
noise of a patch is drawn under the condition that its mean over a disc is several standard deviations from zero: for
Gaussian noise n with the autocorrelation C and the disc d, that is n + C d (a - d·n) / (d·C d).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .noise import Tools, second_lag

MOST = 3  # clusters of a patch
DEVIATIONS = (3.5, 6.5)  # of the mean over the disc: 4.5 comes once in 10^5 places
RADIUS = (1.5, 4.0)  # px
_REACH = 16  # px to both sides that a template has


def add_clusters(noisy: Tensor, target: Tensor, tools: Tools, k: int, rng: np.random.Generator) -> Tensor:
    """Recording `k` of a batch, (1, H, W) of the range, with up to three clusters in its noise."""
    noise = (noisy - target)[0].numpy().astype(np.float64)
    sigma, side = noise.std(), noise.shape[0]
    for _ in range(int(rng.integers(1, MOST + 1))):
        radius = rng.uniform(*RADIUS)
        deviations = rng.uniform(*DEVIATIONS) * rng.choice([-1, 1])
        row, column = rng.integers(_REACH, side - _REACH, 2)
        around = np.s_[row - _REACH : row + _REACH + 1, column - _REACH : column + _REACH + 1]
        disc, template, spread = _conditional(tools, k, radius)
        noise[around] += template * (deviations * sigma * spread - (disc * noise[around]).sum())
    out = (target + torch.from_numpy(noise).to(noisy)).clamp(0, 1)
    return torch.round(out * 255) / 255 if bool(tools.rounded[k]) else out


def _conditional(tools: Tools, k: int, radius: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(disc of sum 1, what noise of a mean of 1 over it has in expectation, standard deviation of that mean over the
    noise's)."""
    at = np.arange(-_REACH, _REACH + 1)
    disc = (np.hypot(*np.meshgrid(at, at, indexing="ij")) <= radius).astype(np.float64)
    disc /= disc.sum()
    first = float(tools.correlation[k])
    second = float(second_lag(tools.correlation, tools.kernel, tools.pole)[k])
    decay = second / first if first > 1e-6 else 0.0
    lag = np.abs(at[:, None] - at)
    line = np.where(lag == 0, 1.0, first * decay ** np.maximum(lag - 1, 0))  # the noise correlates along the line alone
    covariance = disc @ line
    variance = float((disc * covariance).sum())
    return disc, covariance / variance, variance**0.5
