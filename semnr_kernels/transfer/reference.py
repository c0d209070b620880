"""Evidence transfer in float64, on any device: the definition."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ..planes import Tiles
from .bands import band_pass
from .blocks import block_sums
from .settings import Settings


class Transfer(NamedTuple):
    """(N,) float64 each; see `semnr.evidence`."""

    transfer: torch.Tensor
    se: torch.Tensor
    structure_z: torch.Tensor
    energy: torch.Tensor
    mse_drop: torch.Tensor


def transfer(x: Tiles, d: Tiles, r: Tiles, valid: torch.Tensor | None, settings: Settings) -> Transfer:
    """x, d, r: (N, C, H, W); valid: (N, 1, H, W) bool or None, pixels that are not finite not among them."""
    images, weight = _clean((x, d, r), valid)
    bx, bd, br = _bands(images, weight, valid, settings)
    upper, lower = (bd * br).sum(1), (bx * br).sum(1)
    t, se, z = ratio(upper, lower, settings.block)
    few = torch.nonzero(~(z >= settings.least_z)).flatten()  # structure in few blocks only, or none
    if len(few):
        se[few], z[few] = _isolated(bx[few], bd[few], br[few], t[few, None, None, None])
    own = lower.sum((1, 2))
    if not settings.noisy_reference:
        own = own.square() / br.square().sum((1, 2, 3))
    energy = bd.square().sum((1, 2, 3)) / own
    drop = torch.full_like(t, math.nan)
    if settings.with_drop:
        drop = _mse_drop(*images, weight, settings.noisy_reference)
    return Transfer(t, se, z, energy, drop)


def products(
    x: Tiles, d: Tiles, r: Tiles, valid: torch.Tensor | None, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, H, W) each: B·d B·r and B·x B·r, whose sums make T, for a map of it."""
    images, weight = _clean((x, d, r), valid)
    bx, bd, br = _bands(images, weight, valid, settings)
    return (bd * br).sum(1), (bx * br).sum(1)


_Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _clean(tiles: tuple[Tiles, Tiles, Tiles], valid: torch.Tensor | None) -> tuple[_Three, torch.Tensor]:
    """float64 images, 0 where a pixel is not valid, and the weight of the pixels."""
    x, d, r = (v.images.double() if valid is None else torch.where(valid, v.images.double(), 0.0) for v in tiles)
    return (x, d, r), torch.ones_like(x[:, :1]) if valid is None else valid.double()


def _bands(images: _Three, weight: torch.Tensor, valid: torch.Tensor | None, settings: Settings) -> _Three:
    x, d, r = (band_pass(v, settings.low, settings.high, valid) * weight for v in images)
    return x, d, r


def ratio(upper: torch.Tensor, lower: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Σ upper / Σ lower per tile, its standard error, and Σ lower over its own standard error.

    upper, lower: (N, H, W) products. Blocks of `side` px are taken as independent; the delete-one-block
    jackknife in its linear form: the spread of upper − T · lower over the blocks.
    """
    a, b = block_sums(upper, side), block_sums(lower, side)
    k = a.shape[1]
    total_b = b.sum(1)
    t = a.sum(1) / total_b
    scale = k / (k - 1) if k > 1 else math.nan
    se = (scale * (a - t[:, None] * b).square().sum(1)).sqrt() / total_b.abs()
    se_b = (scale * (b - b.mean(1, keepdim=True)).square().sum(1)).sqrt()
    return t, se, total_b / se_b


def _isolated(
    bx: torch.Tensor, bd: torch.Tensor, br: torch.Tensor, t: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard error of T and z of ⟨Bx, Br⟩ for structure that lies in too few blocks for their spread to tell
    (one edge, one defect): from the spectra, as if what is left after regression were stationary and independent."""
    dims = (1, 2, 3)
    cross = (bx * br).sum(dims)
    gain = (cross / br.square().sum(dims))[:, None, None, None]
    back = (cross / bx.square().sum(dims))[:, None, None, None]
    z = cross / _product_sigma(bx - gain * br, br - back * bx)
    return _product_sigma(bd - t * bx, br) / cross.abs(), z


def _product_sigma(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Standard deviation of ⟨u, v⟩ for independent stationary fields: √(Σ |U|² |V|²) / pixels."""
    power = torch.fft.fft2(u).abs().square() * torch.fft.fft2(v).abs().square()
    return power.sum((1, 2, 3)).sqrt() / (u.shape[2] * u.shape[3])


def _mse_drop(
    x: torch.Tensor, d: torch.Tensor, r: torch.Tensor, weight: torch.Tensor, noisy_reference: bool
) -> torch.Tensor:
    """MSE(x) − MSE(d) against a·r + b. A clean r is fitted by least squares; the noise of a second frame would
    pull that slope towards 0, so there the ratio of the standard deviations is the gain (equal doses)."""
    dims = (1, 2, 3)
    count = weight.sum(dims, keepdim=True) * x.shape[1]

    def centre(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = (v * weight).sum(dims, keepdim=True) / count
        return (v - mean) * weight, mean

    (x0, mean_x), (r0, _) = centre(x), centre(r)
    power_r = r0.square().sum(dims, keepdim=True)
    slope = (x0 * r0).sum(dims, keepdim=True) / power_r
    if noisy_reference:
        slope = (x0.square().sum(dims, keepdim=True) / power_r).sqrt()
    slope = torch.where(power_r > 0, slope, 0.0)
    target = slope * r0
    d0 = (d - mean_x) * weight
    return (((x0 - target).square() - (d0 - target).square()).sum(dims, keepdim=True) / count).flatten()
