"""Several frames of one site as one denoised image."""

from __future__ import annotations

from typing import Any

import numpy as np

from .frames import fuse
from .run import denoise
from .tiled import as_dtype


def denoise_frames(frames: Any, *, register: bool = True, reference: int = 0, **options: Any) -> np.ndarray:
    """Several frames of one site as one denoised image: registered, averaged, and denoised with the noise that the
    average has left, measured on it.

    Parameters
    ----------
    frames : (N, H, W), or a sequence of arrays (H, W), of one dtype
    register, reference
        See `fuse`.
    **options
        Those of `semnr.denoise` (model, data_range, ...).

    Returns
    -------
    ndarray, (H, W), of the frames' dtype
    """
    kind = np.asarray(frames[0]).dtype
    image, _ = fuse(frames, register=register, reference=reference)
    top = options.get("data_range")
    if kind.kind == "u" and top is None:
        top = float(np.iinfo(kind).max)
    # floats are not clipped on the way: an average has levels between those of the dtype
    done = denoise(image, **{**options, "data_range": top})
    return as_dtype(done, kind, top)
