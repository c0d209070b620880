"""Several frames of one site as one denoised image."""

from __future__ import annotations

from typing import Any

import numpy as np

from .frames import fuse
from .run import denoise
from .tiled import as_dtype


def denoise_frames(frames: Any, *, register: bool = True, reference: int = 0, **options: Any) -> np.ndarray:
    """Several frames of one site as one denoised image.

    They are registered, averaged, and denoised with the noise that the average has left, measured on it.

    Parameters
    ----------
    frames : (N, H, W) array, or sequence of (H, W) arrays
        At least two frames of one dtype.
    register, reference
        As for `fuse`.
    **options
        Those of `semnr.denoise` (model, data_range, ...).

    Returns
    -------
    ndarray, (H, W)
        Of the dtype of the frames.

    Raises
    ------
    TypeError, ValueError
        As `fuse` and `semnr.denoise`.

    Examples
    --------
    >>> image = semnr.denoising.denoise_frames([noisy, second], model="gaussian", sigma=1.0)
    >>> image.dtype, bool(semnr.psnr(image, clean) > semnr.psnr(noisy, clean))
    (dtype('uint8'), True)
    """
    kind = np.asarray(frames[0]).dtype
    image, _ = fuse(frames, register=register, reference=reference)
    top = options.get("data_range")
    if kind.kind == "u" and top is None:
        top = float(np.iinfo(kind).max)
    # floats are not clipped on the way: an average has levels between those of the dtype
    done = denoise(image, **{**options, "data_range": top})
    return as_dtype(done, kind, top)
