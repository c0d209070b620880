"""Everything that semnr reads off a candidate, for stacks of tiles: the profile, the evidence, the tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._profile import Profile

ADVERSE = {"psnr": -1, "ssim": -1, "fsim": -1, "dists": +1, "cnr": -1, "cnr_fixed_noise_worst": -1}


def measure(
    scene: np.ndarray, noisy: np.ndarray, candidate: np.ndarray, *, metrics: Sequence[str], dists_weights: Any = None
) -> Profile:
    """A profile of (N, H, W) tiles with the columns that a scored run has."""
    from ..guarding._inputs import image_columns
    from ..profiles import profile
    from ..transfer import evidence

    # float32, as tiles come: the compiled kernels take it
    r, x, d = (np.ascontiguousarray(v[:, None], dtype=np.float32) for v in (scene, noisy, candidate))
    options: dict[str, Any] = {"data_range": 1.0, "dists_weights": dists_weights}
    found = profile(d, r, metrics=metrics, noise=x, kind="denoised", **options)
    moved = evidence(x, d, reference=r, hints=False)
    columns, texts = image_columns({"noisy": x, "denoised": d, "reference": r}, 1.0)
    more = {
        "psnr_noisy": profile(x, r, data_range=1.0, metrics=("psnr",)).psnr,
        "transfer": moved.transfer[:, 0],
        "transfer_se": moved.se[:, 0],
    }
    return dataclasses.replace(found, columns={**found.columns, **columns, **more}, texts=texts)
