"""What the scan itself does to the field: beam drift while lines are written, and the charge that bright structure
leaves behind on its line. Both are signal, not noise: they are the same in every pixel's expectation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..base.random_streams import number


@dataclass(frozen=True)
class Scan:
    """One recording's scan.

    Parameters
    ----------
    drift_px
        How far the field moves during one frame, (rows, columns) in pixels, evenly: line r of frame k of H lines shows
        it displaced by (k + r / H) · drift_px.
    trail
        Part of the signal above its line's mean that is missing behind it on the line (negative: added). The ramp over
        the field is `Look.shading`.
    trail_px
        Length over which that decays to 1/e.

    Examples
    --------
    >>> scan = semnr.synth.Scan(drift_px=(0.0, 2.0))
    >>> site.noisy(dtype="uint8", scan=scan, frame=1).shape  # the second frame, drifting on
    (128, 128)
    >>> scan.apply(site.clean).shape
    (128, 128)
    """

    drift_px: tuple[float, float] = (0.0, 0.0)
    trail: float = 0.0
    trail_px: float = 25.0

    def __post_init__(self) -> None:
        if len(self.drift_px) != 2:
            raise ValueError(f"scan.drift_px is {self.drift_px}; accepted: two numbers, rows and columns")
        for name, value in zip(("rows", "columns"), self.drift_px, strict=True):
            number(f"scan.drift_px ({name})", value, -100, 100)
        number("scan.trail", self.trail, -1, 1)
        number("scan.trail_px", self.trail_px, 0, above=True)

    def apply(self, clean: np.ndarray, frame: int = 0) -> np.ndarray:
        """The field as one frame shows it, without noise.

        Parameters
        ----------
        clean : ndarray, (H, W)
            The field, on the scale of 0 to 1.
        frame : int
            Number of the frame, from 0.

        Returns
        -------
        ndarray, (H, W)
        """
        out = clean
        if any(self.drift_px):
            from scipy.ndimage import affine_transform

            down, right = self.drift_px
            share = 1 / clean.shape[0]
            matrix = np.array([[1 - down * share, 0.0], [-right * share, 1.0]])
            start = (-frame * down, -frame * right)
            out = np.clip(affine_transform(out, matrix, start, order=3, mode="nearest"), 0, 1)
        if self.trail:
            from scipy.signal import lfilter

            decay = math.exp(-1 / self.trail_px)
            above = out - out.mean(axis=1, keepdims=True)
            out = np.clip(out - self.trail * lfilter([1 - decay], [1, -decay], above, axis=1), 0, 1)
        return out
