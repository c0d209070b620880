"""What a denoiser changed beside noise: brightness, place, fine contrast, overshoot, texture and rows, tile by tile.

Everything is measured against the noisy input where it is known, since its structure lies exactly where the
denoiser found it, with the reference as the witness of what is structure: ⟨D, R⟩ / ⟨X, R⟩, free of noise on average,
as evidence transfer is. Each image is Fourier transformed once, under a taper; sums over frequencies do the rest.
A figure that the tile cannot hold (no structure in the band, straight lines along the shift) is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from semnr_kernels.changes import NAMES, Figures, Noise, Settings
from semnr_kernels.changes import changes as measured
from semnr_kernels.planes import Tiles

from ..metrics import to_tensor
from ..noise import NoiseModel
from .images import own_range

COLUMNS = NAMES
MIN_SIDE = 32  # px: less holds too few blocks and frequencies for a standard error


def columns(
    noisy: Any,
    denoised: Any,
    reference: Any,
    *,
    data_range: float | None = None,
    scan_axis: int = -1,
    noise: Sequence[NoiseModel] | None = None,
) -> dict[str, np.ndarray]:
    """Changes of a denoised image against its noisy input, or its reference.

    Parameters
    ----------
    noisy, denoised, reference : array, (N, C, H, W), (C, H, W) or (H, W)
        On one intensity scale; channels are averaged. `noisy` or `reference` may be None. The reference may be a
        second frame of the site; it need not lie on the noisy image to the pixel, nor have its gain and offset, as
        long as the noisy image is given.
    data_range : float, optional
        What `offset_change` is a share of; default: the range of an integer dtype of `denoised`, else the span between
        the 0.1 % and 99.9 % quantiles of what it is compared with.
    scan_axis : int
        -1 where scan lines are rows, -2 where they are columns: the lines that `row_noise_added` is taken over.

    noise : sequence of N NoiseModel, optional
        The noise of the noisy images; needed for `transfer_bound`.

    Returns
    -------
    dict of ndarray, (N,), float64; NaN where not evaluated
        Each name with its standard error as `name_se`.

        gain_change : slope of the denoised levels over the input's on plateaus (blocks of 8 px away from edges),
            less 1: -0.05 is 5 % of contrast lost, blur apart.
        offset_change : change of the mean level there, as a share of `data_range`.
        shift_y_px, shift_x_px : how far the image moved down and to the right: peak of the cross-correlation in the
            1-4 px band. NaN where its standard error exceeds 0.25 px (along straight lines). The taper stays where it
            is, so that tiles of 128 px read up to a tenth low, larger ones less.
        transfer_high : evidence transfer in the 0.7-2 px band; above 1: sharpened. Needs a reference.
        transfer_texture : evidence transfer in the 1-3 px band, between the edges of the reference. Needs one.
        feature_contrast : contrast that a disc of 6 px under a beam of 0.8 px keeps under the transfer function
            measured on the tile's structure, ring of frequency by ring. Needs a reference.
        transfer_peak : the largest of the transfer function's rings (by value less twice its error), over that at
            frequency 0; above 1: a band of structure is amplified, as by ringing. Needs a reference.
        overshoot : by how much of its step an edge of 1 px sigma overshoots after the transfer function that was
            measured. About 0 for a denoiser, 0.09 for an ideal low-pass. Needs a reference.
        row_noise_added : variance of the row means (their second differences) that the rows of input and reference
            do not explain, over the input's own; at most about 1/4 after any smoothing, more where rows were added.
            Needs the noisy input.
        transfer_bound : the largest evidence transfer in the 1-4 px band that the noisy image, the denoised one and
            the law of the noise allow; no clean image is needed. About the transfer itself for a linear filter, above
            it for others: below 1 structure was lost, above it nothing is known. Needs the noisy input and its noise.

    Raises
    ------
    ValueError
        Shapes differ, or there is nothing to compare with.
    """
    d = _tiles("denoised", denoised)
    others = {k: _tiles(k, v) for k, v in (("noisy", noisy), ("reference", reference)) if v is not None}
    if not others:
        raise ValueError("noisy and reference are both None; accepted: one of them, or both")
    for name, other in others.items():
        if other.images.shape != d.images.shape:
            shape = tuple(other.images.shape)
            raise ValueError(f"{name} has shape {shape}; accepted: that of denoised, {tuple(d.images.shape)}")
    data_range = own_range(d.images, data_range)
    if min(d.images.shape[2:]) < MIN_SIDE:
        return as_columns([{}] * len(d.images))
    laws = None if noise is None else laws_at(noise, d.levels().tolist())
    return as_columns(measured(others.get("noisy"), d, others.get("reference"), Settings(data_range, scan_axis), laws))


def as_columns(found: Sequence[Figures]) -> dict[str, np.ndarray]:
    """The figures of tiles as columns; NaN where there is none."""
    out = {f"{name}{se}": np.full(len(found), np.nan) for name in COLUMNS for se in ("", "_se")}
    for i, figures in enumerate(found):
        for name, (value, se) in figures.items():
            out[name][i], out[f"{name}_se"][i] = value, se
    return out


def laws_at(models: Sequence[NoiseModel], levels: Sequence[float]) -> list[Noise | None]:
    """The mean variance of each tile's noise, at the level that its denoised pixels have on average."""
    known = (math.isfinite(level) and not model.problem for model, level in zip(models, levels, strict=True))
    return [
        Noise(float(model.variance(level)), model.whitening()) if told else None
        for model, level, told in zip(models, levels, known, strict=True)
    ]


def _tiles(name: str, value: Any) -> Tiles:
    if isinstance(value, Tiles):
        return value
    if np.ndim(value) not in (2, 3, 4):
        raise ValueError(f"{name} has shape {np.shape(value)}; accepted: (N, C, H, W), (C, H, W) or (H, W)")
    tensor = to_tensor(name, value)
    return Tiles(tensor.reshape((1,) * (4 - tensor.ndim) + tuple(tensor.shape)))
