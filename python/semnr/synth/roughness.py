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
    """Two-sided power spectral density of an edge, in nm³, at `frequency` in cycles per nm.

    PSD(f) = 2 √π Γ(H + ½) / Γ(H) · σ² ξ / (1 + (2π f ξ)²)^(½ + H), which integrates to σ² over all f
    (Palasantzas 1993 in one dimension, as in Mack 2013).
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
    """`count` independent rough edges of `length` points, (count, length) float64, deviation from straight in nm.

    The spectrum is normalised over the discrete frequencies, so that the variance over the ensemble is sigma_nm²
    at any length and spacing. A single edge that is shorter than a few correlation lengths varies less about its
    own mean, as a real one does (Mack). Unless `periodic` (the rim of a hole), the edge is cut from a longer
    period, so that its two ends know nothing of each other.
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
