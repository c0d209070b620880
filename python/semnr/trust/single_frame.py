"""How much structure came through at most, from one noisy frame and its denoised image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..noise import NoiseModel
from ..noise.model import check_scan_axis
from . import changes
from .fits import as_models, fit_tiles
from .images import as_tiles_once, own_range


class TransferBound(NamedTuple):
    """The largest evidence transfer that each tile allows, and its standard error.

    Parameters
    ----------
    bound : ndarray, (N,), float64
        Share of the structure in the 1-4 px band that the denoised image holds at most; NaN where the tile has too
        little structure for its noise.
    se : ndarray, (N,), float64
        Standard error of `bound`.

    Examples
    --------
    >>> found = semnr.transfer_bound(noisy, denoised)
    >>> found.bound.shape == found.se.shape == (1,)
    True
    """

    bound: np.ndarray
    se: np.ndarray


def transfer_bound(
    noisy: Any,
    denoised: Any,
    *,
    noise: NoiseModel | Sequence[NoiseModel] | None = None,
    data_range: float | None = None,
    scan_axis: int = -1,
) -> TransferBound:
    """Bound the evidence transfer from above without a clean image and without a second frame.

    The noisy image is structure and noise, and the law of the noise tells how much of its power is noise. The denoised
    image must hold what it let through of both. In each ring of frequencies this leaves a largest share of the
    structure that can have come through (Bessel's inequality). For a linear filter the bound is the transfer itself;
    for other denoisers it lies above. So a low bound proves that structure was lost, and a high one proves nothing.

    Parameters
    ----------
    noisy, denoised : Tensor or ndarray, (N, C, H, W) with C of 1 or 3, (1, H, W) or (H, W)
        Input and output of the denoiser on one intensity scale. Channels are averaged.
    noise : NoiseModel, sequence of N, optional
        The noise of `noisy`; default: fitted to each tile (`semnr.denoising.estimate_noise`).
    data_range : float, optional
        Level at which the detector clips, for the fit of the noise; default as `estimate_noise`.
    scan_axis : -1 or -2
        Along which axis the beam scans; -1 (default): scan lines are rows.

    Returns
    -------
    TransferBound
        Named tuple of `bound` and `se`, (N,) each. NaN where a side is below 32 px, where the tile has too little
        structure, and where its noise law is unknown.

    Raises
    ------
    TypeError, ValueError
        The argument, what it was, what is accepted.

    Notes
    -----
    Structure that varies only across the scan lines (horizontal edges) is left out, because offsets of whole lines are
    noise of the tool. Formula: semnr_kernels/changes/README.md. How tight it is: docs/trust.md.

    Examples
    --------
    >>> import scipy.ndimage
    >>> blurred = scipy.ndimage.gaussian_filter(noisy.astype(float), 2.0).astype(noisy.dtype)
    >>> blurred_at_most = semnr.transfer_bound(noisy, blurred).bound[0]
    >>> bool(blurred_at_most < semnr.transfer_bound(noisy, denoised).bound[0])
    True
    """
    check_scan_axis(scan_axis)
    x = as_tiles_once("noisy", noisy)
    d = as_tiles_once("denoised", denoised, like=x)
    models = as_models(noise, len(x.images))
    if models is None:
        lines = x.images if scan_axis == -1 else x.images.transpose(2, 3)
        models = fit_tiles(lines, own_range(x.images, data_range))
    found = changes.columns(x, d, None, data_range=data_range, scan_axis=scan_axis, noise=models)
    return TransferBound(found["transfer_bound"], found["transfer_bound_se"])
