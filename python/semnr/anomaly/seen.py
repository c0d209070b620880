"""What a model sees of a tile: the tile after a denoiser, so that its noise is no anomaly."""

from __future__ import annotations

import numpy as np

from ..base.threads import in_order, pool
from ..denoising import denoise
from ..denoising.tiled import default_workers
from ..noise import NoiseModel

DENOISER = "semnr-small"


def denoised(image: np.ndarray, model: str, noise: NoiseModel, top: float, scan_axis: int) -> np.ndarray:
    """One (H, W) tile after a denoiser of `semnr.denoise`, float32 within the range."""
    lines = image if scan_axis == -1 else np.ascontiguousarray(image.T)  # scan lines as rows
    clean = np.asarray(denoise(lines, model=model, data_range=top, noise=noise), np.float32)
    return np.clip(clean if scan_axis == -1 else clean.T, 0, top)


def seen(images: np.ndarray, model: str | None, noise: NoiseModel, top: float, scan_axis: int) -> np.ndarray:
    """(N, H, W) float32 tiles after a denoiser, each on its own, several at a time; None: as they are."""
    if model is None:
        return np.ascontiguousarray(images, np.float32)
    name = model
    workers = min(len(images), default_workers())
    with pool(workers, "anomaly") as executor:
        made = in_order(executor, lambda image: denoised(image, name, noise, top, scan_axis), images, 2 * workers)
        return np.ascontiguousarray(np.stack([clean for _, clean in made]))
