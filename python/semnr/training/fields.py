"""What scenes are made of: random fields, a beam, and the pixels around a place."""

from __future__ import annotations

import numpy as np


def around(y: float, x: float, reach: float) -> tuple[slice, ...]:
    """The rows and columns within reach of a place."""
    return tuple(slice(max(0, int(c - reach)), max(0, int(c + reach) + 1)) for c in (y, x))


def field(rng: np.random.Generator, side: int, slope: float, stretch: float = 1.0) -> np.ndarray:
    """Gaussian field of power-law spectrum, mean 0, variance 1."""
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    angle = rng.uniform(0, np.pi)
    u, v = fy * np.sin(angle) + fx * np.cos(angle), (fy * np.cos(angle) - fx * np.sin(angle)) * stretch
    power = (u**2 + v**2 + (1.5 / side) ** 2) ** (-slope / 2)
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) * power
    made = np.fft.irfft2(spectrum, s=(side, side))
    return (made - made.mean()) / made.std()


def beam(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The image under a beam of a random width."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, rng.uniform(0.5, 1.3), mode="nearest")
