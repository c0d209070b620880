"""The noise law of an SEM frame, fitted to the frame: variance as a line in the mean, correlation along the scan.

The model is Poisson-Gaussian (Foi et al. 2008, doi 10.1109/TIP.2008.2001399): var = gain · mean + offset. The noise
of a real detector is low-passed along the scan line (neighbours correlate by about 0.5) while lines are independent,
so every variance here is taken from differences *across* lines; differences along a line, and the usual median
estimators over them, see a third of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from semnr_kernels.noise_law import SIGNIFICANT, Spacing, ends_of, fitted, spectrum_along, step_of

MAX_WINDOWS = 16  # windows that an estimate reads, spread over an image or a run
_WINDOW = 256  # their side: a million pixels in all
_ALIKE = 1.5  # differences between lines 2 apart over those 1 apart, mean squares, from which lines are not independent
_NOTED = 1.2  # ... from which it is said
_STRUCTURE, _SOME_STRUCTURE = 0.35, 0.1  # share of the variance that may be structure
_GROWTH = ((1.0, 1.667, 2.714, 4.333), (1.0, 2.0, 3.0, 4.0))  # (3ᵖ − 2ᵖ) / (2ᵖ − 1) and p
_ALONG = 1.15  # along the lines over across, from which the lines may be columns
_SCATTERED, _LOOSE = 0.5, 0.25  # relative distance of the measured variances from the line, root mean square
_BELOW_STEP = 0.5  # of a step of the scale: a noise smaller than that is mostly the rounding's
_ALTERNATE, _SOME_ALTERNATE = 0.2, 0.05  # share of the variance that even and odd lines owe to their levels
_SINGULAR = 1e-12  # eigenvalue of the lags' table below which nothing is predicted from them
_PREDICTABLE = 0.02  # share of the variance that a line's past must leave open, for the noise to be a noise


@dataclass(frozen=True)
class NoiseModel:
    """The noise law of an image: variance(level) = gain · level + offset, in grey levels.

    Parameters
    ----------
    gain, offset : float
        Slope and intercept of the variance over the grey level.
    gain_se : float
        Standard error of the gain; 0 for a law that is given.
    correlation : tuple of float
        Autocorrelation of the noise along the scan line, at 1, 2, ... pixels.
    clipped_low, clipped_high : float
        Share of the pixels at the two ends of the range.
    levels, variances, counts : tuple
        The measured points under the line.
    floor : float
        The variance is never taken below this.
    unclipped : float
        Share of the image that the law was taken from; 0 where all of it, or nearly all, is clipped.
    spacing : tuple of float
        How differences grow with distance, in the flattest fifth of the pixels: mean squares of second differences over
        the law's variance between lines 1, 2 and 3 apart, then pixels 1 and 2 apart on a line; then the share of the
        first that even and odd lines owe to a difference of their levels. Empty for a law that is given.
    step : float
        Step of the grey scale that the pixels use (16 for 12-bit data shifted into 16 bits); 0 for floating pixels.

    Examples
    --------
    >>> law = semnr.denoising.NoiseModel(gain=2.0, offset=30.0, correlation=(0.47, 0.22))
    >>> float(law.variance(100)), round(float(law.sigma(100)), 1)
    (230.0, 15.2)
    >>> law.whitening(order=1).round(2)  # taps of the filter that makes this noise white along the line
    array([ 1.13, -0.53])
    >>> bool(law.spectrum(0.0) > law.spectrum(0.5))  # most of its power at low frequencies
    True
    >>> law.signal_dependent, law.to_dict()["gain"]
    (True, 2.0)
    """

    gain: float
    offset: float
    gain_se: float = 0.0
    correlation: tuple[float, ...] = ()
    clipped_low: float = 0.0
    clipped_high: float = 0.0
    levels: tuple[float, ...] = ()
    variances: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    floor: float = 0.0  # the line is not followed below this variance (the smallest one measured, halved)
    unclipped: float = 1.0  # share of the image that the law was taken from; 0: all of it is clipped, or nearly
    spacing: tuple[float, ...] = ()
    step: float = 0.0

    def variance(self, level: Any) -> Any:
        """Variance of the noise at an intensity, never below `floor`.

        Parameters
        ----------
        level : float or array
            Grey level.

        Returns
        -------
        float or ndarray
        """
        return np.maximum(self.gain * np.asarray(level, dtype=np.float64) + self.offset, self.floor)

    def sigma(self, level: Any = None) -> Any:
        """Standard deviation of the noise at an intensity.

        Parameters
        ----------
        level : float or array, optional
            Grey level. Without one: the root mean variance of the measured pixels, or of a law that was given the value
            at 0.

        Returns
        -------
        float or ndarray
        """
        if level is not None or not self.counts:
            return np.sqrt(self.variance(0.0 if level is None else level))
        return float(math.sqrt(np.average(self.variances, weights=self.counts)))

    def whitening(self, order: int = 3) -> np.ndarray:
        """Taps of the filter along the scan line that turns this noise, at variance 1, into white noise of variance 1.

        It is the linear prediction from the pixels before (Yule and Walker). Lines are independent in the model, so
        that nothing is done across them.

        Parameters
        ----------
        order : int
            How many pixels before it looks at.

        Returns
        -------
        ndarray
            (1, −a1, −a2, ...) over the root of the variance that is left.
        """
        lags = np.array([1.0, *self.correlation[:order]])
        while True:
            table = lags[np.abs(np.subtract.outer(np.arange(lags.size - 1), np.arange(lags.size - 1)))]
            if lags.size == 1 or np.linalg.eigvalsh(table)[0] > _SINGULAR:
                taps = np.concatenate([[1.0], -np.linalg.solve(table, lags[1:])]) if lags.size > 1 else np.ones(1)
                if (left := float(taps @ lags)) > _PREDICTABLE:
                    return taps / math.sqrt(left)
            lags[1:] *= 0.98  # measured lags need not be those of any process

    def spectrum(self, frequency: Any, order: int = 3) -> np.ndarray:
        """Power spectral density along the scan line of the noise at variance 1.

        Parameters
        ----------
        frequency : float or array
            In cycles per pixel.
        order : int
            Order of the prediction, as for `whitening`.

        Returns
        -------
        ndarray
            Mean 1 over all frequencies; across the lines the spectrum is flat.
        """
        return spectrum_along(self.whitening(order), frequency)

    @property
    def signal_dependent(self) -> bool:
        """Whether the variance grows with the signal.

        Beyond doubt (4 standard errors), and by enough to matter (by half over the range of the measured pixels).
        """
        if self.gain <= 0 or not self.gain > SIGNIFICANT * self.gain_se:
            return False
        if not self.levels:
            return True
        low, high = self._level(0.05), self._level(0.95)
        return bool(self.variance(high) > 1.5 * self.variance(low))

    @property
    def stabilisable(self) -> bool:
        """Whether a square root can make the noise uniform: the dark pixels lie where the line is above zero."""
        if self.gain <= 0 or not self.levels:
            return self.gain > 0
        dark = self._level(0.05)
        return bool(dark - 2 * self.sigma(dark) > -self.offset / self.gain - 0.375 * self.gain)

    def _level(self, share: float) -> float:
        """Level below which this share of the measured pixels lies."""
        order = np.argsort(self.levels)
        below = np.cumsum(np.asarray(self.counts)[order])
        return float(np.asarray(self.levels)[order][np.searchsorted(below, share * below[-1])])

    @property
    def scatter(self) -> float:
        """Relative distance of the measured variances from the line, root mean square; 0 for a law that is given."""
        if not self.counts:
            return 0.0
        expected = np.maximum(self.variance(self.levels), 1e-300)
        return float(np.sqrt(np.average((np.asarray(self.variances) / expected - 1) ** 2, weights=self.counts)))

    @cached_property
    def problem(self) -> str:
        """Why the law is not to be relied on, in words; "" where it is."""
        unknown = "the noise cannot be told from this image"
        if self.unclipped == 0:
            return (
                f"{unknown}: {self.clipped_low:.0%} of the pixels are clipped at the lower "
                f"end, {self.clipped_high:.0%} at the top"
            )
        if not self.counts:
            return ""
        if not max(self.variances) > 0:
            return "the image shows no noise at all: it was filtered before, drawn, or is one grey level"
        if self.sigma() < _BELOW_STEP * self.step:
            return (
                f"{unknown}: σ is {self.sigma():.2g} at a step of the grey scale of "
                f"{self.step:g}, which is mostly rounding"
            )
        if self._alternate > _ALTERNATE:
            return (
                f"{unknown}: even and odd lines differ in level, which makes up {self._alternate:.0%} of the variance "
                "between lines (an interlaced scan?)"
            )
        if self._lines > _ALIKE and not self._grows:
            _, _, _, along1, along2, _ = self.spacing
            if along1 > _ALONG * self.spacing[0] and along2 < _NOTED * along1:
                return (
                    f"{unknown} along this scan axis: neighbouring rows are alike and neighbouring columns are not, as "
                    "where the beam scans along y (scan_axis=-2, --scan-axis y)"
                )
            return (
                f"{unknown}: differences between lines grow {self._lines:.1f} times from 1 to 2 lines apart, then no "
                "more, so that they are not independent (averaged, scaled, filtered or compressed before)"
            )
        if self._structure > _STRUCTURE:
            return (
                f"{unknown}: no part of it is flat, or it was filtered before (structure may make up "
                f"{min(self._structure, 1):.0%} of the variance between lines)"
            )
        if self.scatter > _SCATTERED:
            return (
                f"{unknown}: its variance does not follow a line in the grey level "
                f"(off by {self.scatter:.0%}, root mean square)"
            )
        return ""

    @property
    def _lines(self) -> float:
        """Mean square of the differences between lines 2 apart over that of lines 1 apart: 1 for independent lines."""
        return self.spacing[1] / self.spacing[0] if self.spacing and self.spacing[0] > 0 else 1.0

    @property
    def _growth(self) -> float:
        """What the mean square gains from 2 lines to 3, over what it gains from 1 to 2.

        Structure, whose differences grow as a power of the distance, gains 1 and more; lines that are like their
        neighbours alone gain nothing.
        """
        one, two, three = self.spacing[:3]
        return (three - two) / (two - one)

    @property
    def _grows(self) -> bool:
        return self._lines > 1 and self._growth > 1

    @property
    def _structure(self) -> float:
        """Share of the variance between lines that structure may make up, from how it grows with the distance."""
        if not self._grows:
            return 0.0
        return float((self._lines - 1) / (2.0 ** np.interp(self._growth, *_GROWTH) - 1))

    @property
    def _alternate(self) -> float:
        return self.spacing[5] if self.spacing else 0.0

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the law should know: its `problem`, or what it rests on and how well it fits."""
        if self.problem:
            return (self.problem,)
        found = []
        if self.unclipped < 1:
            clipped = self.clipped_low + self.clipped_high
            found.append(
                f"{clipped:.0%} of the pixels are clipped: the noise is that of the other {self.unclipped:.0%}"
            )
        if self._alternate > _SOME_ALTERNATE:
            found.append(
                f"even and odd lines differ in level, which makes up {self._alternate:.0%} of the variance measured "
                "between lines (an interlaced scan?): the noise is overestimated by it"
            )
        if self._lines > _NOTED and not self._grows:
            found.append(
                f"differences between lines grow {self._lines:.1f} times from 1 line apart to 2: σ may be too small by "
                f"{1 - 1 / math.sqrt(self._lines):.0%}"
            )
        if self._structure > _SOME_STRUCTURE:
            found.append(
                f"little of the image is flat: structure may make up {self._structure:.0%} of the variance between "
                "lines, and σ be too large"
            )
        if self.scatter > _LOOSE:
            found.append(
                f"the noise's variance is off a line in the grey level by {self.scatter:.0%} (root mean square)"
            )
        if self.gain < 0:
            found.append("the noise falls with the grey level: the scale is inverted or not linear (gamma, saturation)")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """The law in plain Python, for JSON.

        Returns
        -------
        dict
        """
        return {**asdict(self), "sigma": self.sigma(), "signal_dependent": self.signal_dependent}


def check_scan_axis(scan_axis: int) -> None:
    """Refuse what is no axis that a beam scans along."""
    if scan_axis not in (-1, -2):
        raise ValueError(f"scan_axis is {scan_axis!r}; accepted: -1 (scan lines are rows), -2 (they are columns)")


def estimate_noise(image: np.ndarray, *, data_range: float | None = None, scan_axis: int = -1) -> NoiseModel:
    """Fit the noise model to an image, or one model to a stack.

    Parameters
    ----------
    image : array (H, W) or (T, H, W), uint8, uint16 or floating
        Up to 16 windows of 256², evenly spread, are read.
    data_range : float, optional
        Level at which the detector clips; default the range of an integer dtype, the largest value of floats.
    scan_axis : -1 or -2
        Along which axis the beam scans: -1 (default) where scan lines are rows.

    Returns
    -------
    NoiseModel
        On 200,000 pixels of which half are flat, gain and sigma come out within about 5 %. Levels that reach
        within 2.5 sigma of the clipping ends do not enter the fit.

    Raises
    ------
    TypeError, ValueError
        Not such an image; fewer than 5 scan lines or 5 pixels a line; non-finite pixels.

    Examples
    --------
    >>> law = semnr.denoising.estimate_noise(noisy)
    >>> 15 < law.sigma() < 20, 0.4 < law.correlation[0] < 0.6  # grey levels; correlation with the next pixel
    (True, True)
    """
    check_scan_axis(scan_axis)
    if getattr(image, "ndim", 0) not in (2, 3):
        raise ValueError(f"image has shape {getattr(image, 'shape', None)}; accepted: (H, W) or a stack (T, H, W)")
    kind = np.dtype(image.dtype)
    if kind not in (np.uint8, np.uint16) and kind.kind != "f":
        raise TypeError(f"image has dtype {kind}; accepted: uint8, uint16, floating")
    if min(image.shape[-2:]) < 5:
        raise ValueError(f"image has shape {tuple(image.shape)}; accepted: at least 5 rows and 5 columns")
    if data_range is None and kind.kind == "u":
        data_range = float(np.iinfo(kind).max)
    return fit_noise(array_windows(image), data_range=data_range, scan_axis=scan_axis)


def array_windows(image: Any, limit: int = MAX_WINDOWS) -> list[np.ndarray]:
    """Sample windows of an (H, W) or (T, H, W) array."""
    stacked = len(image.shape) == 3
    sizes = [tuple(image.shape[-2:])] * (image.shape[0] if stacked else 1)
    return sample_windows(
        sizes, lambda plane, rows, columns: image[plane, rows, columns] if stacked else image[rows, columns], limit
    )


def sample_windows(
    sizes: Sequence[tuple[int, int]], read: Callable[[int, slice, slice], np.ndarray], limit: int = MAX_WINDOWS
) -> list[np.ndarray]:
    """At most `limit` windows of at most _WINDOW², evenly spread: the same ones however a run is tiled."""
    return [np.asarray(read(*place)) for place in window_places(sizes, limit)]


def window_places(sizes: Sequence[tuple[int, int]], limit: int = MAX_WINDOWS) -> list[tuple[int, slice, slice]]:
    """Where those windows lie: plane, rows, columns."""
    grids = [math.ceil(height / _WINDOW) * math.ceil(width / _WINDOW) for height, width in sizes]
    ends = np.cumsum(grids)
    places = []
    for index in evenly(int(ends[-1]), limit):
        plane = int(np.searchsorted(ends, index, side="right"))
        height, width = sizes[plane]
        place = divmod(index - int(ends[plane]) + grids[plane], math.ceil(width / _WINDOW))
        spans = []
        for at, side in zip(place, (height, width), strict=True):
            parts = math.ceil(side / _WINDOW)  # of nearly equal length
            spans.append(slice(at * side // parts, (at + 1) * side // parts))
        rows, columns = spans
        places.append((plane, rows, columns))
    return places


def evenly(total: int, limit: int = MAX_WINDOWS) -> list[int]:
    """Up to `limit` of `total` indices."""
    if limit == 1:
        return [total // 2]
    return sorted({int(i) for i in np.linspace(0, total - 1, min(total, limit)).round()})


def fit_noise(
    windows: Iterable[np.ndarray], *, data_range: float | None, scan_axis: int = -1, name: str = "image"
) -> NoiseModel:
    """One model for a set of images, each at least 5 x 5."""
    given = [np.asarray(window) for window in windows]
    images, step = [x.astype(np.float64) for x in given], step_of(given)
    if not images:
        raise ValueError("no image to take the noise from; accepted: at least one")
    bad = sum(int((~np.isfinite(x)).sum()) for x in images)
    if bad:
        raise ValueError(f"{name} has {bad} non-finite pixels; accepted: finite values")
    lines = [x if scan_axis == -1 else x.T for x in images]
    return from_fitted(*fitted(lines, ends_of(lines, data_range)), step=step)


def from_fitted(
    gain: float,
    offset: float,
    gain_se: float,
    clipped_low: float,
    clipped_high: float,
    levels: tuple[float, ...],
    variances: tuple[float, ...],
    counts: tuple[float, ...],
    unclipped: float = 1.0,
    products: Any = (),
    spacing: Spacing = Spacing(),  # noqa: B008 (an immutable tuple)
    step: float = 0.0,
) -> NoiseModel:
    """The model of a fit: its line, its points, and by lag the products of neighbours along the line."""
    return NoiseModel(
        gain=gain,
        offset=offset,
        gain_se=gain_se,
        correlation=correlations(products),
        clipped_low=clipped_low,
        clipped_high=clipped_high,
        levels=levels,
        variances=variances,
        counts=tuple(int(n) for n in counts),
        floor=0.5 * min(variances),
        unclipped=unclipped,
        spacing=tuple(spacing) if math.isfinite(spacing.across1) else (),
        step=step,
    )


def correlations(products: Any) -> tuple[float, ...]:
    return tuple(float(p / q) if q > 0 else 0.0 for p, q in products)


def line_spectrum(correlation: tuple[float, ...], width: int) -> np.ndarray:
    """Power spectrum along a line of noise of this autocorrelation (lags 1, 2, ...), mean 1."""
    row = np.zeros(width)
    row[0] = 1.0
    for lag, value in enumerate(correlation[: max(0, (width - 1) // 2)], start=1):
        row[lag] = row[-lag] = max(value, 0.0)
    spectrum = np.maximum(np.fft.fft(row).real, 0.0)
    return spectrum / spectrum.mean()
