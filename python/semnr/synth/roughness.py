"""Rough edges: random lines of given sigma, correlation length and Hurst exponent.

Sources: E. I. Thorsos, J. Acoust. Soc. Am. 83, 78 (1988): a rough line from its spectrum by filtering white
noise; G. Palasantzas, Phys. Rev. B 48, 14472 (1993): the self-affine spectrum; C. A. Mack, "Generating random
rough edges, surfaces, and volumes", Appl. Opt. 52, 1472 (2013): its use for line-edge roughness.
"""

from __future__ import annotations

import math

import numpy as np

from ..base.random_streams import number, whole


def roughness_psd(frequency: np.ndarray, sigma_nm: float, correlation_nm: float, hurst: float) -> np.ndarray:
    """The two-sided power spectral density of a rough edge.

    PSD(f) = 2 √π Γ(H + ½) / Γ(H) · σ² ξ / (1 + (2π f ξ)²)^(½ + H), which integrates to σ² over all f (Palasantzas 1993
    in one dimension, as in Mack 2013).

    Parameters
    ----------
    frequency : ndarray
        In cycles per nm.
    sigma_nm, correlation_nm, hurst : float
        Standard deviation σ, correlation length ξ and Hurst exponent H of the edge.

    Returns
    -------
    ndarray
        In nm³.

    Examples
    --------
    >>> frequency = np.linspace(0, 0.5, 5)
    >>> density = semnr.synth.roughness_psd(frequency, sigma_nm=1.0, correlation_nm=20.0, hurst=0.6)
    >>> bool((np.diff(density) < 0).all())
    True
    """
    sigma = number("sigma_nm", sigma_nm, 0)
    xi = number("correlation_nm", correlation_nm, 0, above=True)
    h = number("hurst", hurst, 0, 1, above=True)
    scale = 2 * math.sqrt(math.pi) * math.gamma(h + 0.5) / math.gamma(h) * sigma**2 * xi
    return scale / (1 + (2 * math.pi * np.asarray(frequency, np.float64) * xi) ** 2) ** (0.5 + h)


def rough_edges(
    count: int,
    length: int,
    rng: np.random.Generator,
    *,
    spacing_nm: float = 1.0,
    sigma_nm: float = 1.0,
    correlation_nm: float = 20.0,
    hurst: float = 0.6,
    periodic: bool = False,
) -> np.ndarray:
    """Independent rough edges: how far each of their points lies from straight.

    The spectrum is normalised over the discrete frequencies, so that the variance over the ensemble is sigma_nm² at any
    length and spacing. A single edge that is shorter than a few correlation lengths varies less about its own mean, as
    a real one does.

    Parameters
    ----------
    count, length : int
        How many edges of how many points.
    rng : numpy.random.Generator
        Where they are drawn from.
    spacing_nm : float
        Distance between points.
    sigma_nm, correlation_nm, hurst : float
        As for `roughness_psd`.
    periodic : bool
        True: the two ends meet (the rim of a hole). False: they know nothing of each other.

    Returns
    -------
    ndarray, (count, length), float64
        In nm.

    Examples
    --------
    >>> edges = semnr.synth.rough_edges(200, 256, np.random.default_rng(0), sigma_nm=2.0)
    >>> edges.shape, 1.8 < edges.std() < 2.2
    ((200, 256), np.True_)
    """
    n = whole("length", length, 1)
    spacing = number("spacing_nm", spacing_nm, 0, above=True)
    xi = number("correlation_nm", correlation_nm, 0, above=True)
    # ten correlation lengths between the ends; more than 16 lengths of padding buys nothing
    padding = 0 if periodic else min(math.ceil(10 * xi / spacing), 16 * n)
    period = n if periodic else 64 * math.ceil((n + padding) / 64)
    density = roughness_psd(np.fft.rfftfreq(period, spacing), 1.0, xi, hurst)
    # rfft keeps one of each pair of conjugate frequencies: all but zero and Nyquist count twice
    twice = np.full(density.size, 2.0)
    twice[0] = 1
    if period % 2 == 0:
        twice[-1] = 1
    gain = np.sqrt(period * density / (density * twice).sum()) * number("sigma_nm", sigma_nm, 0)
    white = rng.standard_normal((whole("count", count), period))
    return np.fft.irfft(np.fft.rfft(white, axis=1) * gain, period, axis=1)[:, :n]
