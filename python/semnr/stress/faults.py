"""The faults by name: what each does to a denoised image, its strengths, and the strength from which it is harmful.

A fault takes and returns a `Case`. Most change the candidate alone; lost and invented defects need a scene that has
them, or has not. Strengths are in the unit that is named; truth comes from what was done, never from a metric.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

HARMFUL, HARMLESS, GREY = "harmful", "harmless", "grey"
DEFECT_PX = 6.0
_BEAM_PX = 0.8


@dataclass(frozen=True)
class Case:
    """One tile: scene, noisy frame, the candidate before and after the fault, all (H, W) on the 0-1 scale."""

    scene: np.ndarray
    noisy: np.ndarray
    before: np.ndarray
    after: np.ndarray
    spread: np.ndarray  # σ of the noise at each pixel

    @property
    def sigma(self) -> float:
        return float(np.sqrt((self.spread**2).mean()))


@dataclass(frozen=True)
class Fault:
    """A way to harm a denoised image, and from which strength on it is harmful.

    Parameters
    ----------
    name : str
        Its name in `FAULTS`.
    unit : str
        Unit of the strengths.
    strengths : tuple of float
        The strengths that a stress test goes through, from weak to strong.
    apply : callable
        `apply(case, strength, rng)` gives the harmed case.
    judged : {"strength", "kept"}
        What `harmful` and `harmless` bound: the strength, or the share of small-feature contrast that is left.
    harmful, harmless : float
        Beyond the one a tile is harmed, up to the other it is not. What lies between is grey.
    defect_px : float
        Diameter of the defect that is erased or invented; 0 for other faults.

    Examples
    --------
    >>> blur = semnr.stress.FAULTS["blur"]
    >>> blur.unit, blur.strengths[:2]
    ('px', (0.4, 0.7))
    >>> blur.truth(strength=2.0, kept=0.7), blur.truth(strength=0.4, kept=0.97)
    ('harmful', 'harmless')
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[Case, float, np.random.Generator], Case]
    judged: str
    harmful: float
    harmless: float
    defect_px: float = 0.0

    def truth(self, strength: float, kept: float) -> str:
        """Whether a strength is harmful.

        Parameters
        ----------
        strength : float
            Strength of the fault.
        kept : float
            Share of the contrast of small features that is left.

        Returns
        -------
        {"harmful", "harmless", "grey"}
        """
        value = strength if self.judged == "strength" else kept
        if self.harmful < self.harmless:
            value, harmful, harmless = -value, -self.harmful, -self.harmless
        else:
            harmful, harmless = self.harmful, self.harmless
        return HARMFUL if value >= harmful else HARMLESS if value <= harmless else GREY


Filter = Callable[[np.ndarray, float, Case], np.ndarray]


def kept_contrast(fault: Fault, case: Case, strength: float, seed: int) -> float:
    """Contrast that is left of small features: 6-px discs of ±2 σ, put into the candidate before the fault."""
    if fault.judged != "kept":
        return float("nan")
    probe = probes(case.before.shape, seed) * 2 * case.sigma
    rng = np.random.default_rng
    one = fault.apply(replace(case, after=case.after + probe), strength, rng(seed)).after
    other = fault.apply(case, strength, rng(seed)).after
    return float(((one - other) * probe).sum() / (probe**2).sum())


def probes(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Small discs of both signs, far enough apart not to meet."""
    out, rng = np.zeros(shape), np.random.default_rng(seed)
    for row in range(16, shape[0] - 16, 24):
        for col in range(16, shape[1] - 16, 24):
            out[row - 8 : row + 9, col - 8 : col + 9] += rng.choice((-1.0, 1.0)) * disc((17, 17), 8.0, 8.0)
    return out


def disc(shape: tuple[int, ...], row: float, col: float, diameter: float = DEFECT_PX) -> np.ndarray:
    """A disc under a beam of 0.8 px, its peak 1."""
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    spot = ndimage.gaussian_filter(np.clip(diameter / 2 + 0.5 - np.hypot(rows - row, cols - col), 0, 1), _BEAM_PX)
    out: np.ndarray = spot / spot.max()
    return out


def _filtered(function: Filter) -> Callable[[Case, float, np.random.Generator], Case]:
    return lambda case, strength, rng: replace(case, after=function(case.after, strength, case))


def _blur(d: np.ndarray, sigma: float, case: Case) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(d, sigma, mode="reflect"))


def _sharpen(d: np.ndarray, amount: float, case: Case) -> np.ndarray:
    return np.asarray(d + amount * (d - ndimage.gaussian_filter(d, 1.5, mode="reflect")))


def _jpeg(d: np.ndarray, quality: float, case: Case) -> np.ndarray:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.rint(255 * d), 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=int(quality))
    return np.asarray(Image.open(buffer), dtype=np.float64) / 255


def _ring(d: np.ndarray, amount: float, case: Case) -> np.ndarray:
    """A peak of the transfer function at a wavelength of 8 px: ripples beside every edge."""
    pad = 24
    wide = np.pad(d, pad, mode="reflect")
    fy, fx = np.fft.fftfreq(wide.shape[0])[:, None], np.fft.rfftfreq(wide.shape[1])
    gain = 1 + amount * np.exp(-0.5 * ((np.hypot(fy, fx) - 0.125) / 0.03) ** 2)
    return np.asarray(np.fft.irfft2(np.fft.rfft2(wide) * gain, s=wide.shape)[pad:-pad, pad:-pad])


def _wash(d: np.ndarray, share: float, case: Case) -> np.ndarray:
    """Between the edges of the scene a share of what is finer than 3 px goes; the edges stay."""
    smooth = ndimage.gaussian_filter(case.scene, 1.5)
    steep = ndimage.gaussian_gradient_magnitude(smooth, 1.0)
    flat = ndimage.gaussian_filter((ndimage.maximum_filter(steep, 9) <= _calm(steep)).astype(float), 1.0)
    return np.asarray(d + share * flat * (ndimage.gaussian_filter(d, 3.0) - d))


def _calm(steep: np.ndarray) -> float:
    return max(0.25 * float(steep.max()), float(np.median(steep)))


def _contrast(d: np.ndarray, factor: float, case: Case) -> np.ndarray:
    return np.asarray(d.mean() + factor * (d - d.mean()))


def _gain(d: np.ndarray, change: float, case: Case) -> np.ndarray:
    return d * (1 + change)


def _offset(d: np.ndarray, change: float, case: Case) -> np.ndarray:
    return d + change


def _shift(case: Case, distance: float, rng: np.random.Generator) -> Case:
    by = (0.0, distance * float(rng.choice((-1, 1))))  # a shift along straight lines is none
    return replace(case, after=ndimage.shift(case.after, by, order=5, mode="mirror"))


def _rows(case: Case, sigmas: float, rng: np.random.Generator) -> Case:
    return replace(case, after=case.after + sigmas * case.sigma * rng.standard_normal((len(case.after), 1)))


def bump(spread: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One such disc of either sign, somewhere in the tile, its peak the σ of the noise there."""
    row, col = (rng.uniform(16, n - 17) for n in spread.shape)
    height = float(spread[round(row), round(col)])
    return disc(spread.shape, row, col) * height * float(rng.choice((-1.0, 1.0)))


def _erase(case: Case, sigmas: float, rng: np.random.Generator) -> Case:
    """A defect of the scene and of its frame that the candidate after the fault does not have."""
    defect = sigmas * bump(case.spread, rng)
    return replace(case, scene=case.scene + defect, noisy=case.noisy + defect, before=case.before + defect)


def _invent(case: Case, sigmas: float, rng: np.random.Generator) -> Case:
    return replace(case, after=case.after + sigmas * bump(case.spread, rng))


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("blur", "px", (0.4, 0.7, 1.0, 1.5, 2.0, 3.0), _filtered(_blur), "kept", 0.85, 0.95),
        Fault("over_sharpening", "amount", (0.1, 0.25, 0.5, 1.0, 2.0), _filtered(_sharpen), "kept", 1.15, 1.05),
        # JPEG adds blocks of its own: it is never counted as harmless
        Fault("jpeg", "quality", (95, 70, 40, 20, 8, 4), _filtered(_jpeg), "kept", 0.85, 2.0),
        Fault("ringing", "amount", (0.05, 0.15, 0.3, 0.6, 1.0), _filtered(_ring), "strength", 0.3, 0.05),
        Fault("texture_wash", "share", (0.05, 0.15, 0.3, 0.5, 0.8), _filtered(_wash), "strength", 0.3, 0.05),
        Fault("contrast_loss", "factor", (0.98, 0.9, 0.8, 0.6), _filtered(_contrast), "strength", 0.85, 0.95),
        Fault("gain", "share", (0.01, 0.03, 0.06, 0.1, 0.2), _filtered(_gain), "strength", 0.06, 0.01),
        Fault("offset", "of range", (0.004, 0.01, 0.02, 0.05, 0.1), _filtered(_offset), "strength", 0.02, 0.005),
        Fault("shift", "px", (0.05, 0.1, 0.2, 0.5, 1.0), _shift, "strength", 0.2, 0.05),
        Fault("erased_defect", "σ", (0.5, 1.0, 2.0, 3.0, 5.0), _erase, "strength", 2.0, 0.0, DEFECT_PX),
        Fault("invented_defect", "σ", (0.5, 1.0, 2.0, 3.0, 5.0), _invent, "strength", 3.0, 0.0, DEFECT_PX),
        Fault("row_noise", "σ", (0.02, 0.05, 0.1, 0.2, 0.4), _rows, "strength", 0.2, 0.02),
    )
}
