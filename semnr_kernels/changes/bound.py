"""The largest transfer of structure that a noisy and a denoised image allow, by the law of the noise alone.

In a ring of frequencies X = S + N is the noisy image's spectrum, the sum of structure and noise; D is the denoised
one's. All powers are taken over the noise's own, which the law gives. How much of ⟨D, X⟩ = ⟨D, S⟩ + ⟨D, N⟩ is
structure cannot be seen. But D has to hold both parts, and S and N are orthogonal on average (Bessel's inequality):

    ⟨D, S⟩² / |S|² + ⟨D, N⟩² / |N|²  ≤  |D|².

The larger root is the most of ⟨D, S⟩. For a linear filter it is what the filter passes; for a denoiser that tells
structure from noise perfectly it is |S|²; for others it lies above what was passed, so it can refute and never confirm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..noise_law import spectrum_along
from .spectra import MIN_Z, NOTHING, Measured, Plan, plan_of

LAW = 0.02  # standard error of the law's variance, relative
LINES = 3  # frequencies along the scan line from 0 on that are left out: offsets of whole lines are noise of the tool
SUMS = 3  # |D|², |X|², Re⟨D, X⟩


class Noise(NamedTuple):
    """The noise of one noisy image: its mean variance, and the taps that make it white along the scan line."""

    variance: float
    taps: Sequence[float] | np.ndarray


def power(noise: Noise, shape: tuple[int, int], scan_axis: int) -> np.ndarray:
    """Power of noise of variance 1 at each frequency along the scan line, (columns // 2 + 1,) or (rows,); mean 1."""
    along = np.fft.rfftfreq(shape[1]) if scan_axis == -1 else np.fft.fftfreq(shape[0])
    return spectrum_along(noise.taps, along)


def weights(noise: Noise, shape: tuple[int, int], scan_axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) and (columns // 2 + 1,), whose product weighs a frequency: 1 over its noise, 0 where it is left out."""
    along = np.where(_taken(shape, scan_axis), 1 / power(noise, shape, scan_axis), 0.0)
    if scan_axis == -1:
        return np.ones(shape[0]), along
    return along, np.ones(shape[1] // 2 + 1)


def sums(plan: Plan, D: np.ndarray, X: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(SUMS, rings): |D|², |X|² and Re⟨D, X⟩ of each ring, over the noise's power at variance 1."""
    w = weight * plan.count
    values = w * (D.real**2 + D.imag**2), w * (X.real**2 + X.imag**2), w * (D * X.conj()).real
    inside = plan.rings >= 0
    count = len(plan.centres)
    return np.stack([np.bincount(plan.rings[inside], v[inside], minlength=count) for v in values])


def transfer_bound(found: np.ndarray, noise: Noise, shape: tuple[int, int], scan_axis: int) -> Measured:
    """From `sums`: the most of T in the 1-4 px band, and its standard error.

    Errors: ⟨S, N⟩ and |N|² of one draw of the noise, ring by ring, and `LAW` of the law's variance in all rings alike.
    """
    plan = plan_of(shape)
    energy, count, band = _tables(shape, scan_axis)
    if not noise.variance > 0:
        return NOTHING
    d, x, c = found / (noise.variance * energy)
    n = count.sum(axis=1)
    weight = band @ power(noise, shape, scan_axis) / np.maximum(n, 1)
    s = np.where(n > 0, np.maximum(x - n, 0.0), 0.0)
    most = _most(d, x, c, n)
    passed = np.divide(most, s, out=np.zeros_like(s), where=s > 0)
    leaked = (c - most) / np.maximum(n, 1)
    crossed, own = np.sqrt(s * plan.inflation), np.sqrt(2 * n * plan.inflation)
    steps = (  # of |D|², |X|², Re⟨D, X⟩ and |N|²
        (2 * passed * leaked * crossed, 2 * crossed, (passed + leaked) * crossed, 0 * n),
        (leaked**2 * own, own, leaked * own, 0 * n),
        (0 * n, 0 * n, 0 * n, LAW * n),
    )
    below = float(weight @ (x - n))
    moved = [(_most(d + a, x + b, c + e, n + f) - most, b - f) for a, b, e, f in steps]
    spread = math.hypot(*(float(np.sqrt(((weight * v) ** 2).sum())) for _, v in moved[:2]), float(weight @ moved[2][1]))
    if not below > MIN_Z * spread:
        return NOTHING
    t = float(weight @ most) / below
    parts = [weight * (a - t * v) for a, v in moved]
    error = math.hypot(*(float(np.sqrt((v**2).sum())) for v in parts[:2]), float(parts[2].sum()))
    return t, error / below


def _most(d: np.ndarray, x: np.ndarray, c: np.ndarray, n: np.ndarray) -> np.ndarray:
    """The most of ⟨D, S⟩ in each ring; 0 where no structure stands out of the noise."""
    s = np.maximum(x - n, 0.0)
    root = np.sqrt(np.maximum(s * n * (d * (s + n) - c**2), 0.0))
    return np.divide(c * s + root, s + n, out=np.zeros_like(s), where=s > 0)


def _taken(shape: tuple[int, int], scan_axis: int) -> np.ndarray:
    if scan_axis == -1:
        return np.arange(shape[1] // 2 + 1) >= LINES
    at = np.arange(shape[0])
    return np.minimum(at, shape[0] - at) >= LINES


@lru_cache(maxsize=8)
def _tables(shape: tuple[int, int], scan_axis: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy of the taper; by ring and frequency along the scan line: their number, and their weight in the band."""
    plan = plan_of(shape)
    taken = _taken(shape, scan_axis)
    across = 0 if scan_axis == -1 else 1
    rings = [plan.rings == k for k in range(len(plan.centres))]
    count, band = (
        np.stack([np.where(ring, v, 0.0).sum(axis=across) * taken for ring in rings]) for v in (plan.count, plan.band)
    )
    return float((plan.taper**2).sum()), count, band
