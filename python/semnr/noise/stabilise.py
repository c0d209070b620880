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
    """The generalised Anscombe transform of noise with variance gain · mean + offset, and its unbiased inverse.

    Parameters
    ----------
    gain : float
        Slope of the variance, above 0.
    offset : float
        Its intercept. A negative one is a pedestal below which no signal is expected.

    Examples
    --------
    >>> stabiliser = semnr.denoising.Stabiliser(gain=2.0, offset=30.0)
    >>> uniform = stabiliser.forward(np.array(100.0))  # its noise has standard deviation 1
    >>> float(stabiliser.inverse(uniform).round(1))  # the mean that such values belong to, not the value
    100.5
    """

    gain: float
    offset: float

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Transform grey levels into values whose noise has standard deviation 1.

        Parameters
        ----------
        x : ndarray
            Grey levels.

        Returns
        -------
        ndarray
        """
        return (2 / self.gain) * np.sqrt(np.maximum(self.gain * x + 0.375 * self.gain**2 + self.offset, 0.0))

    def inverse(self, d: np.ndarray) -> np.ndarray:
        """The mean, in grey levels, whose transformed noisy values average to `d`.

        Parameters
        ----------
        d : ndarray
            Transformed and denoised values.

        Returns
        -------
        ndarray
        """
        d = np.maximum(d, _LOWEST)
        root = math.sqrt(1.5)
        counts = d**2 / 4 + root / 4 / d - 11 / 8 / d**2 + root * 5 / 8 / d**3 - 1 / 8
        return self.gain * counts - self.offset / self.gain
