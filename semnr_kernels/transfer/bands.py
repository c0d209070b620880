"""Band passes in float64 by FFT, with exact borders and masks: normalised convolution, zeros beyond the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_TRUNCATE = 4.0  # Gaussians end at 4 sigma


def band_pass(v: torch.Tensor, low: float, high: float, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Gaussian(low) − Gaussian(high) of (N, C, H, W) float64; borders and masked pixels by normalised convolution.

    On a constant image the result is 0 up to rounding, also at borders and beside masked pixels.
    """
    # A large pedestal costs digits: take each image's mean out first.
    w = torch.ones_like(v[:, :1]) if valid is None else valid.to(v.dtype)
    mean = (v * w).sum((2, 3), keepdim=True) / w.sum((2, 3), keepdim=True).clamp(min=1)
    fine, coarse = smooth((v - mean) * w, (low, high), valid)
    return fine - coarse


def smooth(v: torch.Tensor, sigmas: Sequence[float], valid: torch.Tensor | None = None) -> list[torch.Tensor]:
    """`v` under a normalised Gaussian of each sigma; `v` must be 0 where it is not valid."""
    size = (v.shape[2], v.shape[3])
    room = max(_radius(s) for s in sigmas)
    padded = (fast_size(size[0] + room), fast_size(size[1] + room))
    spectrum = torch.fft.rfft2(v, s=padded)
    inside = None if valid is None else torch.fft.rfft2(valid.to(v.dtype), s=padded)
    out = []
    for sigma in sigmas:
        if sigma == 0:
            out.append(v)
            continue
        rows, columns = (_response(sigma, n, v) for n in padded)
        response = rows[:, None] * columns[: padded[1] // 2 + 1]
        value = torch.fft.irfft2(spectrum * response, s=padded)[..., : size[0], : size[1]]
        if inside is None:
            total = _reach(sigma, size[0], v)[:, None] * _reach(sigma, size[1], v)
        else:
            total = torch.fft.irfft2(inside * response, s=padded)[..., : size[0], : size[1]]
            total = torch.where(total > 1e-9, total, 1.0)
        out.append(value / total)
    return out


def _radius(sigma: float) -> int:
    return math.ceil(_TRUNCATE * sigma)


def taps_of(sigma: float, like: torch.Tensor) -> torch.Tensor:
    offset = torch.arange(-_radius(sigma), _radius(sigma) + 1, dtype=like.dtype, device=like.device)
    taps = torch.exp(-0.5 * (offset / sigma).square())
    return taps / taps.sum()


def _response(sigma: float, size: int, like: torch.Tensor) -> torch.Tensor:
    """The Gaussian's frequency response on `size` samples: real, because the taps are symmetric."""
    taps, radius = taps_of(sigma, like), _radius(sigma)
    ring = torch.zeros(size, dtype=like.dtype, device=like.device)
    index = torch.arange(-radius, radius + 1, device=like.device) % size
    return torch.fft.fft(ring.index_add_(0, index, taps)).real


def _reach(sigma: float, size: int, like: torch.Tensor) -> torch.Tensor:
    """The part of the Gaussian's weight that falls inside, at each of `size` positions."""
    taps, radius = taps_of(sigma, like), _radius(sigma)
    up = torch.cat([torch.zeros(1, dtype=like.dtype, device=like.device), taps.cumsum(0)])
    at = torch.arange(size, device=like.device)
    first, last = (radius - at).clamp(min=0), (radius + size - at).clamp(max=2 * radius + 1)
    return up[last] - up[first]


def fast_size(size: int) -> int:
    """The next length of small prime factors."""
    while True:
        rest = size
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return size
        size += 1
