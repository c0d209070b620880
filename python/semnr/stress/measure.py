"""Everything that semnr measures on a candidate, for stacks of tiles: the profile, the evidence, the tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..columns import BY_NAME
from ..profiles import Profile, profile
from ..trust.columns import Trust

# Which way is worse; a CNR over the output's own noise has no such way as such, but falls under most harm.
_NAMES = ("psnr", "ssim", "fsim", "dists", "lpips", "cnr", "cnr_fixed_noise_worst")
ADVERSE = {name: +1 if BY_NAME[name].better == "lower" else -1 for name in _NAMES}


def measure(
    scene: np.ndarray, noisy: np.ndarray, candidate: np.ndarray, *, metrics: Sequence[str], dists_weights: Any = None
) -> Profile:
    """A profile of (N, H, W) tiles with the columns that a scored run has."""
    # float32, as tiles come: the compiled kernels take it
    r, x, d = (np.ascontiguousarray(v[:, None], dtype=np.float32) for v in (scene, noisy, candidate))
    options: dict[str, Any] = {"data_range": 1.0, "dists_weights": dists_weights}
    scores = profile(d, r, metrics=metrics, noise=x, kind="denoised", **options)
    trust = Trust().measure({"noisy": x, "denoised": d, "reference": r}, data_range=1.0)
    more = {"psnr_noisy": profile(x, r, data_range=1.0, metrics=("psnr",)).psnr}
    return dataclasses.replace(scores, columns={**scores.columns, **trust.columns, **more}, texts=trust.texts)
