"""What `noise=` may be, and the noise variance that it stands for in a pair of regions."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .. import checks
from . import reference

MomentsOf = Callable[..., tuple[reference.Moments, ...]]  # of an image and its regions
_ACCEPTED = (
    "a σ (a number, or one an image as a (N,) tensor), the noisy image (shape and dtype of x), "
    "or Sigma(map) for a map of σ"
)


@dataclass(frozen=True)
class Sigma:
    """Marks `noise=Sigma(map)` as a map of standard deviations, and not as a noisy image.

    Parameters
    ----------
    map : array or Tensor, (H, W), (N, H, W) or (N, 1, H, W); or (1, H, W) for all images
        In the units of the images.

    Examples
    --------
    >>> deviations = np.full((128, 128), 17.0)
    >>> print(f"{semnr.cnr(denoised, clean, kind='fixed_noise', noise=semnr.Sigma(deviations)):.1f}")
    4.3
    """

    map: Any


@dataclass(frozen=True)
class Noise:
    """A checked `noise=`; `how` is "none", "sigma", "map" or "image" and is kept in the result."""

    how: str
    value: torch.Tensor | None = None  # (N, 1) σ; (N, 1, H, W) σ²; or the (N, C, H, W) noisy image
    finite: torch.Tensor | None = None  # (N, C, H, W), under nan="omit"

    def variance(
        self, of: MomentsOf, signal: torch.Tensor, background: torch.Tensor, like: torch.Tensor
    ) -> torch.Tensor:
        """σ² in each pair of regions, of the shape of `like`; NaN without noise or without a region."""
        if self.value is None:
            return torch.full_like(like, torch.nan)
        if self.how == "sigma":
            sigma = self.value.reshape(self.value.shape + (1,) * (like.ndim - 2))
            return (sigma * sigma).expand_as(like)
        if self.finite is not None:
            signal, background = signal & self.finite, background & self.finite
        s, b = of(self.value, signal, background)
        pooled = (s.mean + b.mean) / 2 if self.how == "map" else (s.variance + b.variance) / 2
        return pooled.expand_as(like)


def resolve(noise: Any, kind: str, x: torch.Tensor, shape: tuple[int, ...], nan: str) -> Noise:
    """Check `noise` against x, (N, C, H, W), that the caller passed with `shape`."""
    if noise is None:
        return Noise("none")
    if kind != "fixed_noise":
        raise ValueError(
            f"noise is given, but kind={kind!r} does not read it; accepted: kind='fixed_noise', or noise=None"
        )
    if isinstance(noise, Sigma):
        return Noise("map", _sigma_map(noise.map, x))
    if isinstance(noise, torch.Tensor):
        return _from_tensor(noise, x, shape, nan)
    if isinstance(noise, bool) or not isinstance(noise, numbers.Real):
        raise TypeError(f"noise is {type(noise).__name__}; accepted: {_ACCEPTED}")
    if not math.isfinite(noise) or noise < 0:
        raise ValueError(f"noise is σ = {noise}; accepted: a finite number of at least 0")
    return Noise("sigma", torch.full((x.shape[0], 1), float(noise), dtype=torch.float64, device=x.device))


def _from_tensor(noise: torch.Tensor, x: torch.Tensor, shape: tuple[int, ...], nan: str) -> Noise:
    n = x.shape[0]
    if noise.ndim < 2 and noise.numel() in (1, n):
        sigma = noise.to(device=x.device, dtype=torch.float64).reshape(-1, 1).expand(n, 1)
        _check_sigma(sigma)
        return Noise("sigma", sigma)
    if tuple(noise.shape) != shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)} and x {shape}; accepted: {_ACCEPTED}")
    if noise.dtype != x.dtype:
        raise TypeError(
            f"noise has dtype {checks.dtype_name(noise.dtype)} and x {checks.dtype_name(x.dtype)}; "
            f"accepted: {_ACCEPTED}"
        )
    if noise.device != x.device:
        raise ValueError(f"noise is on {noise.device} and x on {x.device}; accepted: the same device")
    image = noise.reshape(x.shape)
    omit = nan == "omit" and noise.dtype in checks.FLOAT_DTYPES
    return Noise("image", image, torch.isfinite(image) if omit else None)


def _sigma_map(value: Any, x: torch.Tensor) -> torch.Tensor:
    n, _, h, w = x.shape
    sigma = torch.as_tensor(value).to(device=x.device, dtype=torch.float64)
    if tuple(sigma.shape) not in ((h, w), (1, h, w), (n, h, w), (1, 1, h, w), (n, 1, h, w)):
        raise ValueError(
            f"noise=Sigma(map) has shape {tuple(sigma.shape)}; "
            f"accepted: ({h}, {w}), ({n}, {h}, {w}) or ({n}, 1, {h}, {w})"
        )
    _check_sigma(sigma)
    return (sigma * sigma).reshape(-1, 1, h, w).expand(n, 1, h, w)


def _check_sigma(sigma: torch.Tensor) -> None:
    bad = int((~(torch.isfinite(sigma) & (sigma >= 0))).sum())
    if bad:
        raise ValueError(f"noise holds {bad} values of σ that are negative or not finite; accepted: σ of at least 0")
