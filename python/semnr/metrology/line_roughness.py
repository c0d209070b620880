"""Line-edge and line-width roughness: biased, and unbiased by the noise floor of the power spectral density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_PLATEAU = (0.30, 0.50)  # cycles a pixel: where only the noise of the edge's detection is left
_LEAST = 24  # frequencies in the plateau, over all edges, that tell a plateau from a slope


@dataclass(frozen=True)
class Roughness:
    """Roughness of a set of edges or widths.

    Attributes
    ----------
    biased : float
        3σ of the places as measured, in `unit`: what is there and the noise of the detection together.
    unbiased : float
        3σ with the noise floor taken off; NaN where `refused` says why.
    noise : float
        σ of the detection's noise in a place, from the floor.
    correlation : float
        Correlation length: lag at which the autocorrelation, its noise taken off, falls to 1/e.
    refused : str
        Why there is no unbiased figure; "" where there is one.

    unit : str
        "px" or "nm".

    Examples
    --------
    >>> edges = semnr.metrology.find_edges(clean)
    >>> ler = semnr.metrology.roughness(edges.positions)
    >>> ler.unit, ler.biased > 0
    ('px', True)
    """

    biased: float
    unbiased: float
    noise: float
    correlation: float
    refused: str
    unit: str


def edge_psd(positions: Any, pixel_nm: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The one-sided power spectral density of edges, their mean.

    A Hann window keeps the jump between the two ends of an edge out of the high frequencies.

    Parameters
    ----------
    positions : (edges, length) array
        Places of edges, in pixels; at least 64 an edge.
    pixel_nm : float
        Size of a pixel.

    Returns
    -------
    (frequencies, density) : tuple of ndarray
        In cycles per nm, and in nm³: the sum of the density times the frequency step is the variance of an edge about
        its mean, in nm².

    Examples
    --------
    >>> frequency, density = semnr.metrology.edge_psd(semnr.metrology.find_edges(clean).positions)
    >>> frequency.shape == density.shape, float(frequency[-1])
    (True, 0.5)
    """
    places = _checked(positions) * pixel_nm
    length = places.shape[1]
    window = np.hanning(length)
    spectrum = np.fft.rfft((places - places.mean(axis=1, keepdims=True)) * window, axis=1)
    density = (np.abs(spectrum) ** 2).mean(axis=0) * pixel_nm / (window**2).sum()
    density[1 : -1 if length % 2 == 0 else None] *= 2
    return np.fft.rfftfreq(length, pixel_nm)[1:], density[1:]


def roughness(positions: Any, *, pixel_nm: float | None = None) -> Roughness:
    """Line-edge roughness of edge positions, or line-width roughness of widths.

    The noise floor is the mean PSD from 0.3 to 0.5 cycles a pixel. It is one only where the PSD is flat there. A filter
    or a denoiser bends it down, and what is left is no floor; then the unbiased figure is refused.

    Parameters
    ----------
    positions : (edges, length) or (length,) array
        Places or widths in pixels, each row an edge; at least 64 an edge.
    pixel_nm : float, optional
        Size of a pixel. With it figures are in nm, else in pixels.

    Returns
    -------
    Roughness

    Raises
    ------
    ValueError
        Fewer than 64 places an edge, or places that are not finite.

    Examples
    --------
    >>> edges = semnr.metrology.find_edges(noisy)
    >>> ler = semnr.metrology.roughness(edges.positions, pixel_nm=1.0)
    >>> ler.unit, ler.biased > ler.noise
    ('nm', True)
    """
    places = _checked(positions)
    scale, unit = (1.0, "px") if pixel_nm is None else (float(pixel_nm), "nm")
    total = float(places.var(axis=1).mean())
    frequency, density = edge_psd(places)
    plateau = (frequency >= _PLATEAU[0]) & (frequency <= _PLATEAU[1])
    floor = float(density[plateau].mean())
    refused = _why_no_plateau(frequency, density, plateau, len(places))
    noise = floor * 0.5  # a white floor fills 0 to 0.5 cycles a pixel
    clean = total - noise
    if not refused and clean <= 0:
        refused = "the edges vary by no more than the noise of their detection"
    return Roughness(
        biased=3 * scale * float(np.sqrt(total)),
        unbiased=float("nan") if refused else 3 * scale * float(np.sqrt(clean)),
        noise=scale * float(np.sqrt(max(noise, 0.0))),
        correlation=scale * _correlation_length(places, 0.0 if refused else noise),
        refused=refused,
        unit=unit,
    )


def _why_no_plateau(frequency: np.ndarray, density: np.ndarray, plateau: np.ndarray, edges: int) -> str:
    """Compare the plateau's two halves; the PSD of n edges at m frequencies scatters by 1/√(n m)."""
    low = plateau & (frequency < sum(_PLATEAU) / 2)
    high = plateau & ~low
    count = min(low.sum(), high.sum()) * edges
    if count < _LEAST:
        return f"the plateau holds {2 * count} samples; accepted: at least {2 * _LEAST} (longer edges, or more of them)"
    ratio = float(density[low].mean() / max(density[high].mean(), np.finfo(float).tiny))
    # neighbouring frequencies are correlated by the window: half as many are independent
    spread = np.sqrt(2 / (count / 2))
    if ratio > 1 + 4 * spread + 0.1:
        return (
            f"the noise plateau is missing: the PSD falls by a factor of {ratio:.2f} from {_PLATEAU[0]} to "
            f"{_PLATEAU[1]} cycles a pixel; a filter or a denoiser took it"
        )
    return ""


def _correlation_length(places: np.ndarray, noise: float) -> float:
    """Lag, px, at which the autocorrelation falls to 1/e; NaN where it does not."""
    d = places - places.mean(axis=1, keepdims=True)
    length = d.shape[1]
    power = np.abs(np.fft.rfft(d, 2 * length, axis=1)) ** 2
    correlation = np.fft.irfft(power, axis=1)[:, : length // 2].mean(axis=0) / (length - np.arange(length // 2))
    correlation[0] -= noise
    if correlation[0] <= 0:
        return float("nan")
    below = np.flatnonzero(correlation < correlation[0] / np.e)
    if not below.size or below[0] == 0:
        return float("nan")
    i = int(below[0])
    return float(i - 1 + (correlation[i - 1] - correlation[0] / np.e) / (correlation[i - 1] - correlation[i]))


def _checked(positions: Any) -> np.ndarray:
    places = np.atleast_2d(np.asarray(positions, dtype=np.float64))
    if places.ndim != 2 or places.shape[1] < 64 or not places.size:
        raise ValueError(
            f"positions has shape {places.shape}; accepted: (edges, length) with at least 64 places an edge"
        )
    if not np.isfinite(places).all():
        raise ValueError("positions holds non-finite places; accepted: finite ones")
    return places
