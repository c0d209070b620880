"""Tiles whose reference is the same image as the candidate or the noisy input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# By which a tile shows that its reference is the very image that is judged against it; see `same_pixels`.
IDENTITY = ("psnr", "mse", "ssim", "fsim", "dists", "psnr_noisy")


def same_pixels(column: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Tiles whose reference is pixel by pixel the candidate ("candidate"), or the noisy input ("noisy"): (N,) bool.

    `column` gives each of IDENTITY, NaN where it is not known. Nothing that was measured may speak against it.
    """
    psnr, mse, ssim, fsim, dists, noisy = (column(name) for name in IDENTITY)
    with np.errstate(invalid="ignore"):
        signs: list[tuple[np.ndarray, np.ndarray]] = [
            *((psnr, np.isposinf(psnr)), (mse, mse == 0)),
            *((ssim, ssim >= 1 - 1e-9), (fsim, fsim >= 1 - 1e-6), (dists, np.abs(dists) <= 1e-6)),
        ]
    known = np.logical_or.reduce([~np.isnan(values) for values, _ in signs])
    alike = np.logical_and.reduce([np.isnan(values) | sign for values, sign in signs])
    return {"candidate": known & alike, "noisy": np.isposinf(noisy)}
