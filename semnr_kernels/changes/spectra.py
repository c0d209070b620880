"""Tapered spectra of a tile, and ratios of their products with the noise that they carry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

Measured = tuple[float, float]  # value, standard error
NOTHING: Measured = (math.nan, math.nan)

MIN_Z = 4.0  # structure must stand this many standard errors above 0 before a ratio over it means anything
BAND, HIGH, TEXTURE = (1.0, 4.0), (0.7, 2.0), (1.0, 3.0)  # sigmas in px of the Gaussians whose difference is the band
EDGES = np.geomspace(0.02, 0.42, 13)  # rings of the transfer function, cycles/px
CENTRES = np.sqrt(EDGES[1:] * EDGES[:-1])
_TAPER = 0.125  # of each side, at each end


@dataclass(frozen=True)
class Plan:
    """What depends on the size of the tile alone. Weights count each frequency of the half plane as often as it is."""

    taper: np.ndarray
    sides: tuple[np.ndarray, ...]  # of which the taper is the product
    fy: np.ndarray
    fx: np.ndarray
    band: np.ndarray
    high: np.ndarray
    texture: np.ndarray
    rings: np.ndarray  # of each frequency, which ring of `centres` it lies in; -1: none
    centres: np.ndarray
    count: np.ndarray
    inflation: float  # of variances: the taper makes neighbouring frequencies alike
    order: np.ndarray  # of the flat spectrum, by ring, and where each begins
    starts: np.ndarray

    def spectrum(self, v: np.ndarray) -> np.ndarray:
        mean = float((v * self.taper).sum() / self.taper.sum())
        out: np.ndarray = fft.rfft2((v - mean) * self.taper)
        return out


@lru_cache(maxsize=8)
def plan_of(shape: tuple[int, int]) -> Plan:
    sides = []
    for n in shape:
        t = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / (_TAPER * n)
        sides.append(np.sin(np.pi / 2 * np.minimum(t, 1.0)) ** 2)
    taper = sides[0][:, None] * sides[1]
    fy, fx = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None, :]
    count = np.full((shape[0], fx.size), 2.0)
    count[:, 0] = 1.0
    if shape[1] % 2 == 0:
        count[:, -1] = 1.0
    f2 = fy**2 + fx**2

    def band(low: float, high: float) -> np.ndarray:
        fine, coarse = (np.exp(-2 * (np.pi * s) ** 2 * f2) for s in (low, high))
        out: np.ndarray = (fine - coarse) ** 2 * count
        return out

    rings = np.digitize(np.sqrt(f2), EDGES) - 1
    rings[rings == len(EDGES) - 1] = -1
    inflation = float((taper**4).mean() / (taper**2).mean() ** 2)
    around = np.digitize(np.sqrt(f2), EDGES).ravel()  # with what lies inside the first and outside the last
    order = np.argsort(around, kind="stable")
    starts = np.unique(around[order], return_index=True)[1]
    bands = band(*BAND), band(*HIGH), band(*TEXTURE)
    return Plan(taper, tuple(sides), fy, fx, *bands, rings, CENTRES, count, inflation, order, starts)


def ratio(plan: Plan, weight: np.ndarray, D: np.ndarray, X: np.ndarray | None, R: np.ndarray) -> Measured:
    """⟨D, R⟩ / ⟨X, R⟩ under a weight; without X over ⟨R, R⟩. Its error from the noise of D - T X, ring by ring."""
    dr = float((weight * (D * R.conj()).real).sum())
    power = weight * (R.real**2 + R.imag**2)
    if X is None:
        below, noise = float(power.sum()), 0.0
    else:
        below = float((weight * (X * R.conj()).real).sum())
        noise = _product_sigma(plan, X - below / max(float(power.sum()), 1e-300) * R, weight * power)
    if not below > MIN_Z * noise or below <= 0:
        return NOTHING
    t = dr / below
    return t, _product_sigma(plan, D - t * (R if X is None else X), weight * power) / below


def _product_sigma(plan: Plan, rest: np.ndarray, power: np.ndarray) -> float:
    """Standard deviation of Re Σ w E R*, `power` being w² |R|²: the noise power of E in each ring by the median, which
    a few frequencies that hold the pattern do not move."""
    squares = (rest.real**2 + rest.imag**2).ravel()[plan.order]
    sums = np.add.reduceat(power.ravel()[plan.order], plan.starts)
    ends = (*plan.starts[1:], squares.size)
    total = sum(
        float(np.median(squares[i:j])) * total for i, j, total in zip(plan.starts, ends, sums, strict=True) if total
    )
    return math.sqrt(plan.inflation * total / (2 * math.log(2)))
