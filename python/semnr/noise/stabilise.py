"""Generalised Anscombe transform: signal-dependent noise made uniform, and back without bias.

Forward: Murtagh, Starck and Bijaoui 1995. Back: the closed form of the exact unbiased inverse, Mäkitalo and Foi
2011 (doi 10.1109/TIP.2011.2121085) for Poisson counts, moved by the Gaussian part as in their paper of 2013
(doi 10.1109/TIP.2012.2202675). The algebraic inverse would leave the mean of a denoised image too low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_LOWEST = 2 * math.sqrt(3 / 8)  # the transform of zero counts; the unbiased inverse there is zero


@dataclass(frozen=True)
class Stabiliser:
    """For noise of variance gain · mean + offset; a negative offset is a pedestal below which nothing is expected.

    >>> stabiliser = Stabiliser(gain=2.0, offset=30.0)
    >>> float(stabiliser.inverse(stabiliser.forward(np.array(100.0))).round(1))  # mean of a value, not the value
    100.5
    """

    gain: float
    offset: float

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Values whose noise has standard deviation 1."""
        return (2 / self.gain) * np.sqrt(np.maximum(self.gain * x + 0.375 * self.gain**2 + self.offset, 0.0))

    def inverse(self, d: np.ndarray) -> np.ndarray:
        """The mean, in grey levels, whose transformed noisy values average to `d`."""
        d = np.maximum(d, _LOWEST)
        root = math.sqrt(1.5)
        counts = d**2 / 4 + root / 4 / d - 11 / 8 / d**2 + root * 5 / 8 / d**3 - 1 / 8
        return self.gain * counts - self.offset / self.gain
