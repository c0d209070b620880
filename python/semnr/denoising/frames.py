"""Several frames of one site: their noise from their difference, their drift, and one image of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from semnr_kernels.noise_law import LAGS, lag_products, line_through, points_of

from ..noise.model import NoiseModel, correlations


def estimate_noise_frames(frames: Any, *, data_range: float | None = None, register: bool = True) -> NoiseModel:
    """The noise law of one frame, from several frames of one site.

    The structure cancels in the difference of two frames. So every pixel counts, and texture is not taken for noise.

    Parameters
    ----------
    frames : (N, H, W) array, or sequence of (H, W) arrays
        At least two frames, sides of at least 32 pixels.
    data_range : float, optional
        Level at which the detector clips. Default: the range of an integer dtype.
    register : bool
        Take whole-pixel drift out first. A sub-pixel shift would filter the noise; what is left of the drift shows as
        variance at edges, which the robust fit over levels turns down.

    Returns
    -------
    NoiseModel

    Raises
    ------
    ValueError
        Fewer than 2 frames, frames of less than 32 pixels, or pixels that are not finite.

    Examples
    --------
    >>> law = semnr.denoising.estimate_noise_frames(np.stack([noisy, second]))
    >>> 15 < law.sigma() < 20
    True
    """
    stack = _stack(frames)
    kind = np.asarray(frames[0]).dtype
    if data_range is None and kind.kind == "u":
        data_range = float(np.iinfo(kind).max)
    top = np.inf if data_range is None else data_range
    levels, differences, products, clipped = [], [], np.zeros((LAGS, 2)), np.zeros(2)
    for a, b in pairwise(stack):
        if register:
            a, b = _overlap(a, b, np.rint(drift(a, b)).astype(int))
        from scipy import ndimage

        level = ndimage.uniform_filter((a + b) / 2, (3, 5), mode="nearest")
        d = (b - a) / np.sqrt(2.0)
        d -= np.median(d)  # brightness that drifts between frames
        clipped += ((a <= 0).mean(), (a >= top).mean())
        levels.append(level.ravel())
        differences.append(d.ravel())
        sigma = max(1.4826 * float(np.median(np.abs(d))), 1e-300)
        good = np.abs(d) < 4 * sigma
        products += lag_products(d, good)
    level, difference = np.concatenate(levels), np.concatenate(differences)
    low, high = (float(v) for v in np.quantile(level, (0.001, 0.999)))
    edges = np.linspace(low, high, 33)
    index = np.clip(np.searchsorted(edges, level, side="right") - 1, 0, 31)
    points = points_of(level, difference, index, np.ones(level.size, bool))
    sigma_points = np.sqrt(points[1])
    inside = (points[0] - 2.5 * sigma_points > 0) & (points[0] + 2.5 * sigma_points < top)
    if inside.sum() >= 2:
        points = points[:, inside]
    gain, offset, gain_se = line_through(points)
    if not abs(gain) > 4 * gain_se:
        gain, offset = 0.0, float(np.average(points[1], weights=points[2]))
    pairs = len(stack) - 1
    return NoiseModel(
        gain=gain,
        offset=offset,
        gain_se=gain_se,
        correlation=correlations(products),
        clipped_low=float(clipped[0] / pairs),
        clipped_high=float(clipped[1] / pairs),
        levels=tuple(points[0].tolist()),
        variances=tuple(points[1].tolist()),
        counts=tuple(int(n) for n in points[2]),
        floor=0.5 * float(points[1].min()),
    )


def drift(reference: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """How far the content of a frame lies from that of another, to a fraction of a pixel.

    Generalised cross-correlation (Knapp and Carter, doi 10.1109/TASSP.1976.1162830): each frequency counts by how well
    its phase is known over the noise. The peak is refined on finer grids and by a parabola. Where the frames have no
    structure across an axis, that component means nothing.

    Parameters
    ----------
    reference, frame : (H, W) arrays
        The two frames.

    Returns
    -------
    ndarray, (2,)
        (rows, columns) by which the content of `frame` lies further down and right.

    Examples
    --------
    >>> holes = semnr.synth.tile("holes", 128, seed=1).reference("uint8")
    >>> semnr.denoising.drift(holes, np.roll(holes, (2, -3), axis=(0, 1))).round().tolist()
    [2.0, -3.0]
    """
    a, b = (np.asarray(x, np.float64) for x in (reference, frame))
    first = _drift(a, b)
    whole = np.rint(first)
    if not whole.any():
        return first
    # once more on what both show: a window that lies on different places of the two pulls towards no drift
    return whole + _drift(*_overlap(a, b, whole))


def _drift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in a.shape))
    shape = a.shape
    a, b = (np.fft.rfft2((x - (x * window).sum() / window.sum()) * window) for x in (a, b))
    spectrum = np.conj(a) * b * _phase_weight((np.abs(a) ** 2 + np.abs(b) ** 2) / 2)
    whole = np.fft.irfft2(spectrum, s=shape)
    allowed = np.zeros(shape, bool)
    allowed[np.ix_(*[np.r_[0 : n // 4 + 1, n - n // 4 : n] for n in shape])] = True
    peak = np.unravel_index(int(np.where(allowed, whole, -np.inf).argmax()), shape)
    centre = np.array([p - n if p > n // 2 else p for p, n in zip(peak, shape, strict=True)], np.float64)
    weight = np.full(spectrum.shape[1], 2.0)  # each column of the half spectrum stands for two, but for its ends
    weight[0] = 1.0
    if shape[1] % 2 == 0:
        weight[-1] = 1.0
    for step in (0.25, 0.05):
        offsets = np.arange(-4, 5) * step
        rows = np.exp(2j * np.pi * np.outer(centre[0] + offsets, np.fft.fftfreq(shape[0])))
        columns = np.exp(2j * np.pi * np.outer(np.fft.rfftfreq(shape[1]), centre[1] + offsets)) * weight[:, None]
        near = (rows @ spectrum @ columns).real
        i, j = divmod(int(near.argmax()), near.shape[1])
        centre += np.array([_vertex(near[:, j], i), _vertex(near[i], j)]) * step
    return centre


def _phase_weight(power: np.ndarray) -> np.ndarray:
    """Weight of each frequency (rows of fftfreq, columns of rfftfreq) from the frames' mean power."""
    from scipy import ndimage

    smooth = ndimage.uniform_filter(power, (7, 5), mode=("wrap", "nearest"))
    # lines are independent: what is at high frequency across them is noise, at each frequency along them
    high = np.abs(np.fft.fftfreq(power.shape[0])) > 0.3
    noise = np.median(smooth[high], axis=0) + 1e-12 * float(smooth.max()) + 1e-300
    signal = np.maximum(smooth - 1.5 * noise, 0.0)  # the spare half: the noise's own power scatters
    return signal / (noise * (noise + 2 * signal))


def _vertex(values: np.ndarray, at: int) -> float:
    """Place of the maximum of the parabola through a peak and its neighbours, from the middle of `values`."""
    middle = len(values) // 2
    if not 0 < at < len(values) - 1:
        return float(at - middle)
    low, top, high = values[at - 1 : at + 2]
    bend = low - 2 * top + high
    return float(at - middle + (0.5 * (low - high) / bend if bend < 0 else 0.0))


def fuse(frames: Any, *, register: bool = True, reference: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One image of several frames of a site: registered to a fraction of a pixel, and averaged.

    Parameters
    ----------
    frames : (N, H, W) array, or sequence of (H, W) arrays
        At least two frames, sides of at least 32 pixels.
    register : bool
        Whether frames are registered; False: they are averaged as they are.
    reference : int
        The frame that the others are registered to.

    Returns
    -------
    (image, drift) : (H, W) float64, (N, 2) float64
        Sub-pixel shifts use a cubic spline, which smooths the noise of a frame a little. Measure the noise of the fused
        image on itself (`estimate_noise`), not from that of a frame over N.

    Raises
    ------
    ValueError
        Fewer than 2 frames, frames of less than 32 pixels, pixels that are not finite, or `reference` beyond the
        frames.

    Examples
    --------
    >>> image, moved = semnr.denoising.fuse([noisy, second], register=False)
    >>> image.shape, bool(semnr.psnr(image, clean.astype(float), data_range=255) > semnr.psnr(noisy, clean))
    ((128, 128), True)
    """
    from scipy import ndimage

    stack = _stack(frames)
    if not 0 <= reference < len(stack):
        raise ValueError(f"reference is {reference} for {len(stack)} frames; accepted: 0 to {len(stack) - 1}")
    moved = np.zeros((len(stack), 2))
    total = np.zeros_like(stack[0])
    for k, frame in enumerate(stack):
        if register and k != reference:
            moved[k] = drift(stack[reference], frame)
            # a shift of a few hundredths of a pixel is within the error of its measurement
            frame = ndimage.shift(frame, -moved[k], order=3, mode="nearest") if np.abs(moved[k]).max() > 0.02 else frame
        total += frame
    return total / len(stack), moved


def _overlap(a: np.ndarray, b: np.ndarray, moved: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts of two frames that show the same place, for a whole-pixel drift of b against a."""
    ours, theirs = [], []
    for n, s in zip(a.shape, moved, strict=True):
        ours.append(slice(max(0, -int(s)), n - max(0, int(s))))
        theirs.append(slice(max(0, int(s)), n - max(0, -int(s))))
    return a[tuple(ours)], b[tuple(theirs)]


def _stack(frames: Any) -> list[np.ndarray]:
    stack = [np.asarray(frame, np.float64) for frame in frames]
    shapes = {frame.shape for frame in stack}
    if len(stack) < 2 or len(shapes) != 1 or stack[0].ndim != 2 or min(stack[0].shape) < 32:
        raise ValueError(
            f"frames has {len(stack)} frames of shape {sorted(shapes)}; accepted: at least 2 of one shape (H, W), "
            "32 x 32 or more"
        )
    if not all(np.isfinite(frame).all() for frame in stack):
        raise ValueError("frames has non-finite pixels; accepted: finite values")
    return stack
