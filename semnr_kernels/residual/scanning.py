"""A matched-filter scan of a normalised residual: every place, several sizes, in units of the noise.

For noise n of unit variance with covariance C and a bump of shape t at a known place, no linear test sees more than
z = tᵀ C⁻¹ u / √(tᵀ C⁻¹ t), which is normal with variance 1 where there is noise alone (North 1943; Turin 1960). Here
C⁻¹ = AᵀA with A the whitening filter along the scan line, so that the whole scan is one product of spectra a size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ..transfer.bands import fast_size
from .templates import Shape, bank, template

BACKGROUND = 12.0  # px: Gaussian sigma of the surroundings that a bump stands out from
_OVERLAP = 0.4
_CORE, _HALO = 1024, 48  # px: side of the windows of a large image, and how far each sees beyond


@dataclass(frozen=True)
class Scan:
    """A residual ready to be scanned: `z(k)` is that of shape k."""

    windows: list[tuple[tuple[slice, slice], tuple[slice, slice], torch.Tensor]]  # place, part of it, spectrum
    size: tuple[int, int]
    padded: tuple[int, int]
    spectra: torch.Tensor  # of the shapes
    gain: torch.Tensor  # (shapes, N): z of such a bump of height 1
    shapes: tuple[Shape, ...]
    density: np.ndarray  # (N,): places a pixel that the search tries, see `threshold`
    power: torch.Tensor  # (N, 8, 8): power of the whitened residual by bands of |fy| and fx, 1 for noise alone

    def z(self, k: int) -> torch.Tensor:
        """(N, H, W) float32: the residual over what noise alone gives, filtered with shape k."""
        out = self.gain.new_empty((self.gain.shape[1], *self.size))
        for place, part, spectrum in self.windows:
            out[:, *place] = torch.fft.irfft2(spectrum * self.spectra[k], s=self.padded)[:, *part]
        return out.div_(self.gain[k, :, None, None])


@lru_cache(maxsize=8)
def _spectra(shapes: tuple[Shape, ...], rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Spectra of the shapes less their surroundings, (shapes, rows, columns/2+1) real, and that of the high pass."""
    fy, fx = np.fft.fftfreq(rows), np.fft.rfftfreq(columns)
    high = 1 - np.exp(-2 * (math.pi * BACKGROUND) ** 2 * (fy[:, None] ** 2 + fx**2))
    spectra = []
    for shape in shapes:
        t = template(shape)
        ring = np.zeros((rows, columns))
        ring[: t.shape[0], : t.shape[1]] = t
        ring = np.roll(ring, (-(t.shape[0] // 2), -(t.shape[1] // 2)), (0, 1))
        spectra.append(np.fft.rfft2(ring).real * high)
    return torch.from_numpy(np.stack(spectra)).float(), torch.from_numpy(high).float()


def scan(u: torch.Tensor, taps: list[np.ndarray], sizes: tuple[float, ...]) -> Scan:
    """Prepare (N, H, W) float32 residuals in units of the noise's σ, with the whitening taps of the noise of each.

    Large images are cut into windows that see their surroundings, so that the shapes' spectra stay small.
    """
    height, width = u.shape[1:]
    shapes = bank(sizes)
    cuts = [cuts_of(length) for length in (height, width)]
    room = max(template(s).shape[0] for s in shapes) + 8
    rows, columns = (fast_size(max(end - start for _, (start, end) in cut) + room) for cut in cuts)
    padded = (rows, columns)
    spectra, high = (v.to(u.device) for v in _spectra(shapes, rows, columns))
    fx = np.fft.rfftfreq(columns)
    white = np.stack([np.abs(np.exp(-2j * np.pi * np.outer(fx, np.arange(a.size))) @ a) ** 2 for a in taps])
    white_t = torch.from_numpy(white).float().to(u.device)  # (N, fx): |A|²
    windows, power = [], torch.zeros(len(u), 8, 8, device=u.device)
    for down, (top, bottom) in cuts[0]:
        for right, (left, end) in cuts[1]:
            spectrum = torch.fft.rfft2(u[:, top:bottom, left:end], s=padded) * white_t[:, None]
            part = (slice(down.start - top, down.stop - top), slice(right.start - left, right.stop - left))
            windows.append(((down, right), part, spectrum))
            power += _bands(spectrum.abs().square() / white_t[:, None], high) / ((bottom - top) * (end - left))
    # each rfft column but the first (and the last, of an even length) stands for two
    twice = np.full(fx.size, 2.0)
    twice[0] = 1.0
    if columns % 2 == 0:
        twice[-1] = 1.0
    energy = (spectra.square().sum(1).double().cpu().numpy() * twice) @ white.T / (rows * columns)  # (shapes, N)
    gain = torch.from_numpy(np.sqrt(energy)).float().to(u.device)
    density = _density(spectra, white, twice, padded)
    return Scan(windows, (height, width), padded, spectra, gain, shapes, density, power / len(windows))


def cuts_of(length: int) -> list[tuple[slice, tuple[int, int]]]:
    """The windows along a side: the pixels each answers for, and those it sees."""
    count = 1 if length <= 1.5 * _CORE else math.ceil(length / _CORE)
    cores = [slice(k * length // count, (k + 1) * length // count) for k in range(count)]
    return [(core, (max(0, core.start - _HALO), min(length, core.stop + _HALO))) for core in cores]


def _density(spectra: torch.Tensor, white: np.ndarray, twice: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(N,): Σ over shapes of √(λy λx), the second spectral moments of each filter's own output in noise."""
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    total = np.zeros(len(white))
    for t in spectra.double().cpu().numpy():
        square = t**2
        along = square.sum(0) * twice
        across = (2 * math.pi * fy[:, None]) ** 2 * square
        for i, a in enumerate(white):
            whole = along @ a
            total[i] += math.sqrt((across.sum(0) * twice) @ a * (along @ (a * (2 * math.pi * fx) ** 2))) / whole
    return total


def threshold(density: float, pixels: int, alpha: float) -> float:
    """|z| that noise alone exceeds anywhere among `pixels` places, of any shape and either sign, with probability
    `alpha`: the expected Euler characteristic of a Gaussian field's excursions (Adler 1981; Worsley 1996),
    2 · pixels · density · u e^(−u²/2) / (2π)^(3/2), times the share of it that is left where neighbouring sizes see the
    same noise and peaks fall between pixels (simulated: 0.31 to 0.38 in tiles of 128² to 512², white and correlated).
    """
    rate = _OVERLAP * 2 * pixels * density / (2 * math.pi) ** 1.5
    u = 3.0
    for _ in range(60):
        u = math.sqrt(max(2 * math.log(max(rate * u / alpha, math.e)), 4.0))
    return u


def _bands(power: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(N, 8, 8): weighted mean of (N, rows, columns) power in bands of |fy| and fx, an eighth of the range each."""
    n, rows, columns = power.shape
    y = (torch.fft.fftfreq(rows, device=power.device).abs() * 16).long().clamp(max=7)
    x = (torch.arange(columns, device=power.device) * 8 // columns).clamp(max=7)
    index = (y[:, None] * 8 + x).flatten()
    sums = torch.zeros(n, 64, device=power.device).index_add_(1, index, (power * weight).flatten(1))
    count = torch.zeros(64, device=power.device).index_add_(0, index, weight.flatten())
    return (sums / count).view(n, 8, 8)
