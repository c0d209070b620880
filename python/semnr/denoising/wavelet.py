"""BayesShrink (Chang, Yu and Vetterli 2000, doi 10.1109/83.862633) with thresholds of the run, not of the window.

scikit-image's denoise_wavelet sets the thresholds from the image it is given, so that two tiles of one image are
treated differently. Here they come from sample windows of the run, once; windows start on the grid of the coarsest
level; so tiles equal the whole. The noise of a subband follows from the noise's correlation along the scan line.
"""

from __future__ import annotations

import math

import numpy as np

from ..noise.model import line_spectrum
from .model import Built, Setting

Bands = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def build(setting: Setting) -> Built:
    import pywt

    params = setting.params
    accepted = pywt.wavelist(kind="discrete")
    if params["wavelet"] not in accepted:
        raise ValueError(f"wavelet is {params['wavelet']!r}; accepted: {', '.join(accepted[:60])}, ...")
    wavelet, levels, shifts = pywt.Wavelet(params["wavelet"]), params["levels"], params["shifts"]
    thresholds = _thresholds(setting, wavelet, levels)

    def shrink(x: np.ndarray) -> np.ndarray:
        approximation, *bands = pywt.wavedec2(x, wavelet, "symmetric", levels)
        kept = [
            tuple(pywt.threshold(band, limit, "soft") for band, limit in zip(level, limits, strict=True))
            for level, limits in zip(bands, thresholds, strict=True)
        ]
        return pywt.waverec2([approximation, *kept], wavelet, "symmetric")[: x.shape[0], : x.shape[1]]

    def apply(x: np.ndarray) -> np.ndarray:
        total = np.zeros_like(x)
        for row in range(shifts):
            for column in range(shifts):  # the first rows and columns lie in the halo: what they miss is cut away
                total[row:, column:] += shrink(x[row:, column:])
        return total / shifts**2

    align = 2**levels
    # a coefficient of the coarsest level sees (length - 1)(2^levels - 1) px, and so does what is rebuilt from it
    reach = 2 * (wavelet.dec_len - 1) * (align - 1) + shifts
    return Built(apply, align * math.ceil(reach / align), align)


def _thresholds(setting: Setting, wavelet: object, levels: int) -> list[tuple[float, ...]]:
    """Noise variance over signal deviation of every subband, pooled over the sample windows."""
    import pywt

    power: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for window in setting.samples():
        if min(window.shape) < 2**levels:
            continue
        bands = pywt.wavedec2(window, wavelet, "symmetric", levels)[1:]
        power.append(np.array([[float((band**2).sum()) for band in level] for level in bands]))
        counts.append(np.array([[band.size for band in level] for level in bands]))
    if not power:
        raise ValueError(
            f"levels is {levels}; accepted: so few that the image's shorter side is at least 2**levels = {2**levels}"
        )
    noise = (setting.params["strength"] * setting.sigma) ** 2 * _noise_power(setting, wavelet, levels)
    observed = sum(power) / sum(counts)
    signal = np.sqrt(np.maximum(observed - noise, 0.0))
    with np.errstate(divide="ignore"):
        limits = np.where(signal > 0, noise / signal, np.inf)  # nothing but noise: all of it goes
    return [tuple(float(limit) for limit in level) for level in limits]


def _noise_power(setting: Setting, wavelet: object, levels: int, side: int = 512) -> np.ndarray:
    """Variance of every subband for unit noise correlated along the line, from one seeded field."""
    import pywt

    correlation = setting.noise.correlation if setting.noise else ()
    field = np.random.default_rng(0).standard_normal((side, side))
    field = np.fft.ifft(np.fft.fft(field, axis=1) * np.sqrt(line_spectrum(correlation, side)), axis=1).real
    bands = pywt.wavedec2(field, wavelet, "periodization", levels)[1:]
    return np.array([[float((band**2).mean()) for band in level] for level in bands])
