"""What one denoised frame is worth in noisy ones, from frames alone.

With x the noisy frame that was denoised to d, s the unknown clean image, a a second frame of the site and b a third,
whose noise is independent of that of x:

    two frames, a of k times the dose of x:   σ² = mean (a − x)² · k/(k + 1)
                                              MSE = mean (a − d)² − mean (a − x)² / (k + 1)
    three frames:                             σ² = mean (x − a)(x − b),   MSE = mean (a − d)(b − d)

and N = σ² / MSE: the mean of N frames of the dose of x has the error σ²/N. Each is a mean over pixels, so that noise
which varies with the grey level counts with its mean variance. Noise that is correlated along the line, or shared by a
whole line, is in both σ² and MSE, and averages out between frames as any other; strips of whole lines are resampled,
because pixels of one line are not independent.

Bias: a frame that is shifted, drifted or charged against x adds to MSE alone and lowers N; clipped pixels lower σ². The
ratio of two unbiased means is biased by about N · var(MSE)/MSE², which the interval covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from semnr_kernels.checks import as_mask

from ..noise.model import check_scan_axis
from .images import as_tiles
from .two_frames import without_reference
from .worth import LEAST_UNITS, DoseEquivalence, pooled, ratio

__all__ = ["dose_equivalence"]

_STRIP = 8  # lines
_WEIGHT = 4 / 9  # of the control variate, as in `without_reference`


def dose_equivalence(
    noisy: Any,
    denoised: Any,
    second_frame: Any,
    third_frame: Any = None,
    *,
    second_dose: float = 1.0,
    fields: Sequence[Any] | None = None,
    mask: Any = None,
    scan_axis: int = -1,
    confidence: float = 0.95,
    seed: int = 0,
) -> DoseEquivalence:
    """How many noisy frames one denoised frame is worth, from frames alone.

    Parameters
    ----------
    noisy, denoised, second_frame, third_frame : Tensor or ndarray, (N, C, H, W), (1, H, W) or (H, W)
        As for `semnr.without_reference`: registered, of one intensity scale. The denoiser must not have seen the
        further frames.
    second_dose : float
        Dose of the second frame as a multiple of that of `noisy`; with a third frame, 1 says that all have one dose.
    fields : sequence, (N,), optional
        The field of each tile. Default: each tile is one. Fields are resampled where there are 8 or more, else strips
        of 8 lines.
    mask : bool, (H, W), (N, H, W) or (N, 1, H, W), optional
        Valid pixels: leave out the border of registered images.
    scan_axis : int
        -1 where scan lines are rows, -2 where they are columns.
    confidence : float
        Of the interval, between 0 and 1.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DoseEquivalence

    Raises
    ------
    TypeError, ValueError
        The argument, what it was, what is accepted.

    Notes
    -----
    N is of the mean squared error. A denoiser that drops a faint defect can be worth many frames: hold it against the
    guardrails as well.

    Examples
    --------
    >>> print(semnr.dose_equivalence(noisy, denoised, second))
    one denoised frame is worth ... noisy ones (95%: ... to ...); two frames, 16 strips of lines resampled
    """
    check_scan_axis(scan_axis)
    if not (isinstance(second_dose, int | float) and second_dose > 0):
        raise ValueError(f"second_dose is {second_dose!r}; accepted: a number above 0")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; accepted: a share between 0 and 1")
    x = as_tiles("noisy", noisy)
    given = {"denoised": denoised, "second_frame": second_frame, "third_frame": third_frame}
    if second_frame is None:
        raise ValueError("second_frame is None; accepted: another noisy frame of the site")
    further = {name: as_tiles(name, v, like=x) for name, v in given.items() if v is not None}
    if fields is not None and len(fields) != len(x):
        raise ValueError(f"fields has {len(fields)} names for {len(x)} tiles; accepted: one a tile")
    valid = None if mask is None else as_mask(torch.as_tensor(mask), x)
    found = without_reference(noisy, *given.values(), data_range=1.0, mask=mask)  # what speaks against the frames
    pixels = [np.asarray(v.detach().cpu(), np.float64) for v in (x, *further.values())]
    noise, error = _squares(*pixels, dose=float(second_dose))
    counted = np.ones((1, 1, 1, 1)) if valid is None else np.asarray(valid.cpu(), np.float64)
    w = np.broadcast_to(counted, noise.shape)
    sums = [_strips(v * w, scan_axis) for v in (noise, error)]
    weight = _strips(w, scan_axis)
    n, strips = weight.shape
    sites = np.arange(n) if fields is None else np.unique([str(one) for one in fields], return_inverse=True)[1]
    owner = np.repeat(sites, strips)
    by_field = len(np.unique(owner)) >= LEAST_UNITS
    units = owner if by_field else np.arange(n * strips)
    held = weight.ravel() > 0
    tops, errors = (v.ravel()[held] / weight.ravel()[held] for v in sums)
    return pooled(
        tops, errors, weight.ravel()[held], units[held], basis="two frames" if third_frame is None else "three frames",
        resampled="fields" if by_field else "strips of lines", confidence=confidence, seed=seed,
        tile=ratio(*(v.sum(1) for v in sums)), problems=found.problems,
    )  # fmt: skip


def _squares(
    x: np.ndarray, d: np.ndarray, a: np.ndarray, b: np.ndarray | None = None, *, dose: float
) -> tuple[np.ndarray, np.ndarray]:
    """By pixel, what means are taken of: σ² and MSE."""
    if b is None:
        apart = (a - x) ** 2 / (dose + 1)
        return dose * apart, (a - d) ** 2 - apart
    noise, error = (x - a) * (x - b), (a - d) * (b - d)
    if dose == 1:  # a mean of zero for frames of one dose, which takes noise away
        calm = (a - b) ** 2 / 2 - ((a - x) ** 2 + (b - x) ** 2) / 4
        noise, error = ((x - a) ** 2 + (x - b) ** 2 + (a - b) ** 2) / 6, error + _WEIGHT * calm
    return noise, error


def _strips(values: np.ndarray, scan_axis: int) -> np.ndarray:
    """Sums over strips of lines, (N, strips)."""
    lines = values.sum(axis=(1, 3 if scan_axis == -1 else 2))
    count = max(1, lines.shape[1] // _STRIP)
    return np.stack([part.sum(axis=1) for part in np.array_split(lines, count, axis=1)], axis=1)
