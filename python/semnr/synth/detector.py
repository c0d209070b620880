"""A detector and the noise that it records.

The noise is Poisson-Gaussian and correlated along the scan line, with row noise, gain, offset and clipping.

Sources: A. Foi, M. Trimeche, V. Katkovnik, K. Egiazarian, "Practical Poissonian-Gaussian noise modeling and
fitting for single-image raw-data", IEEE Trans. Image Process. 17, 1737 (2008): var = a·mean + b. The correlation
along the line (a detector slower than the pixel clock) is of first order, as measured on real pairs of frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from semnr_kernels.noise_law import LAGS

from ..base.random_streams import number, whole
from ..noise.model import NoiseModel

DTYPES = ("uint8", "uint16", "float32", "float64")


@dataclass(frozen=True)
class Detector:
    """How an image is recorded, and so its noise. Levels are parts of the range (1 is full scale).

    Its law, as a `semnr.noise.NoiseModel`, is `law(data_range)`.

    Parameters
    ----------
    dose
        Detected electrons per pixel and frame at full scale (a grey level of 1).
    frames
        Independent frames that are averaged, each with this dose.
    read_noise, row_noise
        Standard deviation, per frame, of the additive Gaussian noise and of the offset of each scan line.
    correlation
        Correlation of the noise with the left neighbour (lag ρ, ρ², ...); the variance does not depend on it.
    gain, offset
        The recorded level is gain · (signal + noise) + offset.

    Examples
    --------
    >>> detector = semnr.synth.Detector(dose=200)
    >>> detector.changed(frames=4).frames
    4
    >>> detector.apply(site.clean, np.random.default_rng(0)).shape
    (128, 128)
    >>> detector.law().gain > 0
    True
    """

    dose: float = 80.0
    frames: int = 1
    read_noise: float = 0.01
    row_noise: float = 0.004
    correlation: float = 0.47
    gain: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        # numpy's Poisson stops at 2^63 and loses the unit well before
        number("dose", self.dose, 0, 1e12, above=True)
        whole("frames", self.frames, 1)
        number("read_noise", self.read_noise, 0)
        number("row_noise", self.row_noise, 0)
        number("correlation", self.correlation, 0, 0.99)
        number("gain", self.gain, 0, above=True)
        number("offset", self.offset, -1, 1)

    def changed(self, **changes: float | None) -> Detector:
        """A copy with other values.

        Parameters
        ----------
        **changes
            Fields to replace; None leaves a field as it is.

        Returns
        -------
        Detector

        Raises
        ------
        TypeError
            An unknown field.
        """
        known = [field.name for field in fields(self)]
        if unknown := sorted(set(changes) - set(known)):
            raise TypeError(f"unknown noise parameters {', '.join(map(repr, unknown))}; accepted: {', '.join(known)}")
        return replace(self, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]

    def law(self, data_range: float = 1.0) -> NoiseModel:
        """The noise law of images that it records, before clipping.

        Row noise is in the variance; the correlation is that of the noise beside it.

        Parameters
        ----------
        data_range : float
            Width of the intensity scale.

        Returns
        -------
        semnr.denoising.NoiseModel
        """
        top = number("data_range", data_range, 0, above=True)
        slope = self.gain / (self.dose * self.frames)
        constant = self.gain**2 * (self.read_noise**2 + self.row_noise**2) / self.frames - slope * self.offset
        lags = tuple(self.correlation**lag for lag in range(1, LAGS + 1)) if self.correlation else ()
        return NoiseModel(slope * top, constant * top**2, correlation=lags)

    def apply(self, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A noisy image, before it is clipped and quantised.

        Parameters
        ----------
        clean : ndarray, (H, W)
            The field, on the scale of 0 to 1.
        rng : numpy.random.Generator
            Where the noise is drawn from.

        Returns
        -------
        ndarray, (H, W), float64
        """
        electrons = self.dose * self.frames
        read = self.read_noise / np.sqrt(self.frames)
        noise = rng.poisson(clean * electrons) / electrons - clean
        if read:
            noise += read * rng.standard_normal(clean.shape)
        if self.correlation:
            # The normalised noise is filtered and scaled back, so that the variance law holds in every pixel.
            sigma = np.sqrt(clean / electrons + read**2)
            np.divide(noise, sigma, out=noise, where=sigma > 0)
            first_order(noise, self.correlation)
            noise *= sigma
        if self.row_noise:
            noise += self.row_noise / np.sqrt(self.frames) * rng.standard_normal((clean.shape[0], 1))
        noise += clean
        noise *= self.gain
        noise += self.offset
        return noise


def as_detector(noise: Detector | Mapping[str, float] | None, **changes: float | None) -> Detector:
    """A `Detector` from one, from a dict of its fields or from None (the default), with fields replaced."""
    if noise is not None and not isinstance(noise, Detector | Mapping):
        raise TypeError(f"noise is {type(noise).__name__}; accepted: a Detector, or a dict of its fields")
    model = noise if isinstance(noise, Detector) else Detector().changed(**(noise or {}))
    return model.changed(**changes)


def first_order(white: np.ndarray, rho: float) -> None:
    """In place, along the rows: y[i] = ρ y[i-1] + √(1-ρ²) x[i], y[0] = x[0]; variance 1 stays 1 in every column."""
    white[:, 1:] *= np.sqrt(1 - rho**2)
    # 1/(1 - ρB) = (1 + ρB)(1 + ρ²B²)(1 + ρ⁴B⁴)...: a few passes over the image and no loop over columns
    lag = 1
    while lag < white.shape[1] and rho**lag > 1e-9:
        white[:, lag:] += rho**lag * white[:, :-lag]
        lag *= 2


def as_dtype(dtype: object, data_range: float | None) -> tuple[np.dtype, float]:
    """The dtype and the level that stands for full scale: the dtype's own (1 for floats) or `data_range`."""
    try:
        kind = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        kind = np.dtype(object)
    if dtype is None or kind.name not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; accepted: {', '.join(map(repr, DTYPES))}")
    largest = float(np.iinfo(kind).max) if kind.kind == "u" else 1.0
    if data_range is None:
        return kind, largest
    top = number("data_range", data_range, 0, above=True)
    if kind.kind == "u" and (top > largest or top != int(top)):
        raise ValueError(f"data_range is {data_range} for {kind.name}; accepted: a whole number up to {largest:g}")
    return kind, top


def quantise(image: np.ndarray, dtype: object = "uint8", data_range: float | None = None) -> np.ndarray:
    """Grey levels of 0 to 1 as an image of a dtype: scaled to the range, clipped, and rounded for integers.

    Parameters
    ----------
    image : ndarray
        Levels on the scale of 0 to 1.
    dtype : {"uint8", "uint16", "float32", "float64"}
        Of the result.
    data_range : float, optional
        The level that stands for 1, such as 1023 or 4095 for 10- and 12-bit data in uint16.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> semnr.synth.quantise(np.array([0.0, 0.5, 2.0]), "uint8").tolist()
    [0, 128, 255]
    """
    kind, top = as_dtype(dtype, data_range)
    out = np.clip(image, 0, 1)
    out *= top
    if kind.kind == "u":
        np.rint(out, out=out)
    return out.astype(kind, copy=False)
