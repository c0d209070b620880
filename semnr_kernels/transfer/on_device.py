"""Evidence transfer in torch operations, all tiles of a batch at once, on any device: nothing waits for a value.

The Gaussians as taps; sums of products of the three images by matrix products of their rows, added in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from .. import batched
from ..batched import by_tile
from ..convolution import conv2d
from ..planes import Levelled, Tiles
from ..registry import Call, refusal
from .bands import _radius, _reach, taps_of
from .reference import Transfer
from .settings import Settings


def _one_channel(call: Call) -> str | None:
    return None if len(call.shape) == 4 and call.shape[1] == 1 else "takes one channel alone"


UNSUPPORTED = (_one_channel,)


def supports(call: Call) -> str | None:
    """One channel of any dtype, with a mask or without."""
    return refusal(UNSUPPORTED, call)


def transfer(x: Tiles, d: Tiles, r: Tiles, valid: torch.Tensor | None, settings: Settings) -> Transfer:
    """As `reference.transfer`, for images of one channel."""
    mask = None if valid is None else valid[:, 0]
    return rows(x.levelled(), d.levelled(), r.levelled(), mask, settings)


def rows(x: Levelled, d: Levelled, r: Levelled, valid: torch.Tensor | None, settings: Settings) -> Transfer:
    """(N,) float64 each. valid: (N, H, W) bool."""
    images = torch.stack([v.data for v in (x, d, r)])  # (3, N, H, W)
    weight = None if valid is None else valid.float()
    if weight is not None:
        images = images * weight
    bands = _bands(images, weight, settings)
    height, width = bands.shape[-2:]
    down, right = max(1, height // settings.block), max(1, width // settings.block)
    parts = _products(bands, down, right)  # (N, blocks, 3, 3)
    upper, lower = parts[..., 1, 2], parts[..., 0, 2]
    sums = parts.sum(1)
    own = sums[:, 0, 2]
    t, se, z = _ratio(upper, lower)
    few = ~(z >= settings.least_z)  # structure in few blocks only, or none
    other_se, other_z = _isolated(bands, sums, t)
    se, z = torch.where(few, other_se, se), torch.where(few, other_z, z)
    if not settings.noisy_reference:
        own = own.square() / sums[:, 2, 2]
    drop = torch.full_like(t, torch.nan)
    if settings.with_drop:
        drop = _mse_drop(images, weight, d.level - x.level, settings.noisy_reference)
    return Transfer(t, se, z, sums[:, 1, 1] / own, drop)


class _Plan(NamedTuple):
    taps: torch.Tensor  # (2, taps) float32: of the fine and of the coarse Gaussian
    inside: torch.Tensor  # (2, H, W) float32: the share of each that lies in the image


def _plan(height: int, width: int, low: float, high: float) -> tuple[np.ndarray, ...]:
    taps, down, along = _reaches(height, width, low, high)
    return taps.astype(np.float32), (down[:, :, None] * along[:, None]).astype(np.float32)


def _reaches(height: int, width: int, low: float, high: float) -> tuple[np.ndarray, ...]:
    """Taps of both Gaussians, and the part of each that lies inside, down (2, H) and along (2, W)."""
    like = torch.zeros(0, dtype=torch.float64)
    reach = _radius(high)
    taps = np.zeros((2, 2 * reach + 1))
    down, along = np.ones((2, height)), np.ones((2, width))
    for k, sigma in enumerate((low, high)):
        if sigma == 0:
            taps[k, reach] = 1
            continue
        cut = reach - _radius(sigma)
        taps[k, cut : 2 * reach + 1 - cut] = taps_of(sigma, like).numpy()
        down[k], along[k] = _reach(sigma, height, like).numpy(), _reach(sigma, width, like).numpy()
    return taps, down, along


def _bands(images: torch.Tensor, weight: torch.Tensor | None, settings: Settings) -> torch.Tensor:
    """The band of (3, N, H, W) images, 0 where they take no part; borders and masks by normalised convolution."""
    plan = _Plan(*batched.table(_plan, images.device, *images.shape[-2:], settings.low, settings.high))
    reach = plan.taps.shape[1] // 2

    def smooth(v: torch.Tensor) -> torch.Tensor:
        down = conv2d(v.flatten(0, -3)[:, None], plan.taps[:, None, :, None], padding=(reach, 0))
        return conv2d(down, plan.taps[:, None, None, :], padding=(0, reach), groups=2).unflatten(0, v.shape[:-2])

    found = smooth(images)
    if weight is None:
        found = found.div_(plan.inside)
        return found[:, :, 0] - found[:, :, 1]
    inside = smooth(weight)
    if settings.low == 0:
        inside[:, 0] = 1
    found = found.div_(torch.where(inside > 1e-9, inside, 1.0))
    return (found[:, :, 0] - found[:, :, 1]) * weight


def _products(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """(N, blocks, K, K) float64: sums of products of (K, N, H, W) images with each other, over near-equal blocks."""
    k, n, height, width = images.shape
    if width % right == 0:
        lines = images.reshape(k, n * height * right, width // right).transpose(0, 1)
        sums = batched.product(lines, lines.transpose(1, 2)).double().view(n, height, right, k, k)
        if height % down == 0:
            return sums.unflatten(1, (down, height // down)).sum(2).flatten(1, 2)
        return batched.block_sums(sums.permute(0, 3, 4, 1, 2), down, right).movedim(-1, 1)
    pairs = [[batched.block_sums(images[a] * images[b], down, right) for b in range(a + 1)] for a in range(k)]
    return torch.stack([torch.stack([pairs[max(a, b)][min(a, b)] for b in range(k)], -1) for a in range(k)], -2)


def _ratio(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `reference.ratio`, of sums over blocks."""
    k = a.shape[1]
    whole = b.sum(1)
    t = a.sum(1) / whole
    scale = k / (k - 1) if k > 1 else math.nan
    se = (scale * (a - t[:, None] * b).square().sum(1)).sqrt() / whole.abs()
    return t, se, whole / (scale * (b - b.mean(1, keepdim=True)).square().sum(1)).sqrt()


def _isolated(bands: torch.Tensor, sums: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `reference._isolated`, from half of the spectra."""
    cross = sums[:, 0, 2]
    height, width = bands.shape[-2:]
    x, d, r = torch.fft.rfft2(bands).unbind(0)
    gain, back, t = (by_tile(v, x).float() for v in (cross / sums[:, 2, 2], cross / sums[:, 0, 0], t))
    twice = batched.table(_twice, x.device, width)

    def sigma(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        power = torch.view_as_real(u).square().sum(-1) * torch.view_as_real(v).square().sum(-1)
        return (power.sum(1, dtype=torch.float64) @ twice).sqrt() / (height * width)

    z = cross / sigma(x - gain * r, r - back * x)
    return sigma(d - t * x, r) / cross.abs(), z


def _twice(width: int) -> np.ndarray:
    """How many columns of the whole spectrum each of the half stands for."""
    out = np.full(width // 2 + 1, 2.0)
    out[0] = 1
    if width % 2 == 0:
        out[-1] = 1
    return out


def _mse_drop(
    images: torch.Tensor, weight: torch.Tensor | None, apart: torch.Tensor, noisy_reference: bool
) -> torch.Tensor:
    """As `reference._mse_drop`; `apart`: how far the level that was taken off d lies above that of x."""
    height, width = images.shape[-2:]
    count = torch.full_like(apart, height * width) if weight is None else batched.total(weight, 1, 2)
    g = _products(images, 1, 1)[:, 0]
    x, d, r = batched.total(images, 2, 3)
    off = apart - x / count
    power_x, power_r = g[:, 0, 0] - x * x / count, g[:, 2, 2] - r * r / count
    x_r = g[:, 0, 2] - x * r / count
    power_d = g[:, 1, 1] + 2 * off * d + off * off * count
    d_r = g[:, 1, 2] - d * r / count
    slope = (power_x / power_r).sqrt() if noisy_reference else x_r / power_r
    slope = torch.where(power_r > 0, slope, 0.0)
    return (power_x - power_d - 2 * slope * (x_r - d_r)) / count
