"""The two rivals of the trust layer, written from what their papers define; neither has public code.

sFRC: scanning Fourier ring correlation (arXiv 2603.04673). It needs the clean image of every tile. Our reading: windows
half overlapped under a Hann window; rings one frequency step wide, from the first above 0 to Nyquist; x_c is where the
correlation first falls below the level, interpolated between rings, as a share of Nyquist.

CHEM: conformal estimation of hallucinations (arXiv 2512.09806). It needs clean images for calibration alone. Our
reading: an undecimated wavelet transform; quantiles of the clean coefficient given the output's coefficient and the
energy around it, as a table over quantile bins of both; one conformal correction a band, from tiles that the table has
not seen; the score of a place is how far the output's own coefficient lies outside its interval.

Both give scores that are larger where they see more harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pywt
from scipy import ndimage

Image = np.ndarray

# --- sFRC


def cut_offs(d: Image, r: Image, window: int, level: str) -> Image:
    """x_c of every window, (n,), as a share of Nyquist; d and r (H, W). level: "0.5" or "half-bit"."""
    step = window // 2
    pieces = []
    taper = np.outer(np.hanning(window + 1)[:-1], np.hanning(window + 1)[:-1])
    for image in (d, r):
        cut = np.lib.stride_tricks.sliding_window_view(image, (window, window))[::step, ::step]
        cut = cut.reshape(-1, window, window)
        pieces.append(np.fft.fft2((cut - cut.mean((1, 2), keepdims=True)) * taper))
    f = np.fft.fftfreq(window) * window
    ring = np.rint(np.hypot(f[:, None], f)).astype(int).ravel()
    rings = np.arange(1, step + 1)
    sums = []
    for product in (pieces[0] * pieces[1].conj(), np.abs(pieces[0]) ** 2, np.abs(pieces[1]) ** 2):
        flat = product.reshape(len(product), -1)
        sums.append(np.stack([flat[:, ring == k].sum(axis=1) for k in rings], axis=1))
    power = np.sqrt(sums[1].real * sums[2].real)
    frc = np.divide(np.abs(sums[0]), power, out=np.zeros_like(power), where=power > 0)
    limit = _limit(level, np.array([(ring == k).sum() for k in rings]))
    above = frc - limit
    below = above < 0
    first = np.where(below.any(axis=1), below.argmax(axis=1), len(rings))
    found = np.ones(len(frc))
    for i, k in enumerate(first):
        if k == 0:
            found[i] = 0.0
        elif k < len(rings):
            a, b = above[i, k - 1], above[i, k]
            found[i] = (rings[k - 1] + a / (a - b)) / step
    return found


def _limit(level: str, pixels: Image) -> Image:
    if level == "0.5":
        return np.full(len(pixels), 0.5)
    n = np.sqrt(pixels / 2)  # each frequency and its mirror are one
    return np.asarray((0.2071 + 1.9102 / n) / (1.2071 + 0.9102 / n))  # half-bit: doi 10.1016/j.jsb.2005.05.009


SFRC = [(window, level) for window in (32, 64) for level in ("0.5", "half-bit")]


def sfrc(d: Image, r: Image) -> dict[str, float | list[float]]:
    """Scores of one tile by setting: minus the lowest and minus the mean x_c; x_c of all windows for the share."""
    out: dict[str, Any] = {}
    for window, level in SFRC:
        found = cut_offs(d, r, window, level)
        name = f"{window} px, {level}"
        out |= {f"{name}, lowest": -float(found.min()), f"{name}, mean": -float(found.mean())}
        out[f"{name}, share"] = found.tolist()
    return out


# --- CHEM

BINS, ENERGIES, LEVELS = 16, 6, 3


@dataclass(frozen=True)
class Band:
    """Interval of the clean coefficient by bins of the output's coefficient and of the energy around it."""

    edges: Image  # of the coefficient
    energy: Image
    low: Image  # (BINS, ENERGIES)
    high: Image

    def of(self, c: Image) -> tuple[Image, Image]:
        at = np.searchsorted(self.edges, c), np.searchsorted(self.energy, _energy(c))
        # outside of what was learnt the interval moves with the coefficient it was learnt at: it cannot grow
        return self.low[at], self.high[at]


@dataclass(frozen=True)
class Chem:
    """One setting: wavelet, share of true coefficients outside, and what was learnt of each band."""

    wavelet: str
    outside: float
    bands: tuple[Band, ...]

    def scores(self, d: Image) -> dict[str, float]:
        """Of one tile: the energy-weighted share of coefficients outside; the excess over the energy; the largest
        excess in a block of 16 px; the width of intervals that hold no 0."""
        share = excess = energy = width = 0.0
        worst = np.zeros(d.shape)
        for c, band in zip(transform(d, self.wavelet), self.bands, strict=True):
            low, high = band.of(c)
            over = np.maximum(np.maximum(low - c, c - high), 0.0)
            share += float((c**2)[over > 0].sum())
            excess += float((over**2).sum())
            energy += float((c**2).sum())
            apart = (low > 0) | (high < 0)
            width += float(((high - low) ** 2)[apart].sum())
            worst += over**2
        block = ndimage.uniform_filter(worst, 16)[::8, ::8]
        return {
            "share outside": share / energy,
            "excess": excess / energy,
            "largest excess": float(block.max()),
            "width": width / energy,
        }


CHEM = [(wavelet, outside) for wavelet in ("haar", "db2") for outside in (0.1, 0.01)]


def learn(
    wavelet: str, outside: float, train: Sequence[tuple[Image, Image]], hold: Sequence[tuple[Image, Image]]
) -> Chem:
    """From (output, clean) of one set of tiles the quantiles, from those of another the conformal correction."""
    bands = []
    for k in range(3 * LEVELS):
        c, y = _band(train, wavelet, k)
        edges = np.quantile(c, np.linspace(0, 1, BINS + 1)[1:-1])
        e = _band_energy(train, wavelet, k)
        energy = np.quantile(e, np.linspace(0, 1, ENERGIES + 1)[1:-1])
        at = np.searchsorted(edges, c) * ENERGIES + np.searchsorted(energy, e)
        order = np.argsort(at, kind="stable")
        cells = np.split(y[order], np.searchsorted(at[order], np.arange(1, BINS * ENERGIES)))
        ends = np.quantile(y, [outside / 2, 1 - outside / 2])
        found = [np.quantile(v, [outside / 2, 1 - outside / 2]) if len(v) >= 20 else ends for v in cells]
        low, high = np.array(found).T.reshape(2, BINS, ENERGIES)
        first = Band(edges, energy, low, high)
        off = []
        for d, clean in hold:
            given, true = transform(d, wavelet)[k], transform(clean, wavelet)[k]
            a, b = first.of(given)
            off.append(np.maximum(a - true, true - b).ravel())
        v = np.sort(np.concatenate(off))
        add = v[min(len(v) - 1, int(np.ceil((1 - outside) * (len(v) + 1))) - 1)]
        bands.append(Band(edges, energy, low - add, high + add))
    return Chem(wavelet, outside, tuple(bands))


def transform(image: Image, wavelet: str) -> list[Image]:
    """Detail bands of the undecimated transform, three a level, each (H, W); sides are multiples of 8."""
    levels = pywt.swt2(image, wavelet, LEVELS, trim_approx=True, norm=True)
    return [np.asarray(band) for level in levels[1:] for band in level]


def _energy(c: Image) -> Image:
    return np.asarray(np.sqrt(ndimage.uniform_filter(c**2, 5)))


def _band(pairs: Sequence[tuple[Image, Image]], wavelet: str, k: int) -> tuple[Image, Image]:
    found = [(transform(d, wavelet)[k].ravel(), transform(y, wavelet)[k].ravel()) for d, y in pairs]
    c, y = (np.concatenate(v) for v in zip(*found, strict=True))
    return c, y


def _band_energy(pairs: Sequence[tuple[Image, Image]], wavelet: str, k: int) -> Image:
    return np.concatenate([_energy(transform(d, wavelet)[k]).ravel() for d, _ in pairs])
