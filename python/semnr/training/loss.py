"""The profile as a loss on batches. Patches are in units of their own noise, so that all tools have equal weight."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..losses import DISTSLoss, FSIMLoss, LPIPSLoss, SSIMLoss

_TYPICAL = 0.08  # noise that a patch's errors are scaled to
_BANDS = ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0))  # px: differences of Gaussians, fine to coarse
_EDGES = (0.12, 0.16, 0.2, 0.25, 0.32)  # cycles a pixel: rings where an edge may come out sharper than it is
_BLOCK = 32  # px: side of the blocks that transfer is taken over
_KEPT = 0.95  # transfer of a patch that costs nothing
_GRAIN_KEPT = 0.98  # of its texture, where asked for: the last hundredths cost the most noise
_UNASKED = 0.03  # weight of that where no texture is asked for
_UNASKED_DEFECTS = 0.25  # and of the defects' contrast there
_LOOKED_AT = 1  # patches of a batch that a large network scores: it costs several times the denoiser
_STRUCTURE = 0.2  # share of the noise's band energy below which a block's structure does not count


class TrainingLoss(nn.Module):
    """Weighted sum of terms; `forward` gives it and each term, of images with texture asked for (`asked`) or without.

    charbonnier, mse
        Error of the pixels, over the noise's sigma. With "mse" against a second frame (Noise2Noise) the minimum is
        the clean image's mean.
    ssim, fsim
        1 − SSIM, 1 − FSIM at data_range 1, of the pixels as they are.
    fsim_half
        1 − FSIM at half the resolution, as it is taken of images of 512 px; a fifth of the cost.
    dists, lpips
        DISTS with trained weights, LPIPS of AlexNet, of the first patch of the batch. Their weights come from
        `semnr weights fetch vgg16 alexnet lpips`.
    gradient
        Error of the differences to the next pixels, over sigma: edges.
    texture
        (1 − T)² of the evidence transfer in blocks of 32 px and three bands: what a least error would shrink.
    transfer
        Evidence transfer of the patch as `semnr.evidence` takes it, squared where it falls short of 0.95: it costs
        nothing but where the denoiser would wipe structure out, and leaves some noise there. All of the weight stands
        where texture is asked for, a thirtieth where it is not: there it costs 0.3 dB.
    sharpening
        What of the transfer is above 1, squared, ring by ring of high frequency: edges sharper than they are.
    grain
        (0.98 − T)² between the edges, in a finer band, where texture is asked for: for those who want it to stay, with
        the noise that cannot be told from it.
    defects
        Squared relative error of each small defect's contrast, by projection of the error on its shape; a quarter of
        the weight where no texture is asked for.
    """

    def __init__(self, weights: Mapping[str, float], margin: int, second_frame: bool = False) -> None:
        super().__init__()
        self.weights = {name: float(weight) for name, weight in weights.items() if weight}
        self.margin, self.second_frame = margin, second_frame
        self.ssim = SSIMLoss(1.0)
        self.fsim = {"fsim": FSIMLoss(1.0, downsample=1), "fsim_half": FSIMLoss(1.0, downsample=2)}
        self.networks = {"dists": DISTSLoss(1.0), "lpips": LPIPSLoss(1.0, net="alex")}

    def forward(
        self, out: Tensor, batch: Mapping[str, Tensor], asked: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        m = self.margin
        inner = (..., slice(m, out.shape[-2] - m), slice(m, out.shape[-1] - m))
        out, target, noisy = (v.float()[inner] for v in (out, batch["target"], batch["noisy"]))
        scale = _TYPICAL / batch["sigma"].float().clamp(min=1e-4)
        terms: dict[str, Tensor] = {}
        for name in self.weights:
            if name in ("charbonnier", "mse"):
                d = (out - target) * scale
                if "where" in batch:  # blind spot: the hidden pixels alone
                    seen = batch["where"][inner]
                    terms[name] = (d[seen] ** 2).mean()
                else:
                    terms[name] = torch.sqrt(d * d + 1e-6).mean() if name == "charbonnier" else (d * d).mean()
            elif name == "ssim":
                terms[name] = self.ssim(out, target)
            elif name in self.fsim:
                terms[name] = self.fsim[name](out.clamp(0, 1), target)
            elif name in self.networks:
                few = slice(_LOOKED_AT)
                terms[name] = self.networks[name](out[few].clamp(0, 1), target[few].clamp(0, 1))
            elif name == "gradient":
                d = (out - target) * scale
                terms[name] = d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()
            elif name == "texture":
                terms[name] = self._texture(out, target, noisy, batch["sigma"].float())
            elif name == "transfer":
                terms[name] = (1.0 if asked else _UNASKED) * _transfer(out, target, batch["sigma"].float())
            elif name == "sharpening":
                terms[name] = _sharpening(out, target, batch["sigma"].float())
            elif name == "grain" and asked:
                terms[name] = _grain(out, target, batch["sigma"].float())
            elif name == "defects":
                lost = _defects(out - target, batch["specks"][inner], batch["sigma"].float())
                terms[name] = (1.0 if asked else _UNASKED_DEFECTS) * lost
        total = sum((self.weights[name] * term for name, term in terms.items()), out.new_zeros(()))
        return total, {name: term.detach() for name, term in terms.items()}

    def _texture(self, out: Tensor, target: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
        total = out.new_zeros(())
        for low, high in _BANDS:
            r, d, x = (_band(v, low, high) for v in (target, out, noisy))
            if self.second_frame:  # noise in the target is independent of the input's: it cancels in both products
                known, error = _blocks(x * r), _blocks((d - x) * r)
                known = known.clamp(min=0)
            else:
                known, error = _blocks(r * r), _blocks((d - r) * r)
            # noise of the band, and no more than a fraction of it: blocks without structure do not count
            floor = _STRUCTURE * sigma**2 * _white_energy(low, high)
            total = total + (error / (known + floor)).square().clamp(max=4).mean()
        return total / len(_BANDS)


def _transfer(out: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
    return _short(_band(out, 1.0, 4.0), _band(target, 1.0, 4.0), sigma, _KEPT, 0.0).mean()


def _sharpening(out: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
    window, rings = (v.to(out) for v in _rings(*out.shape[-2:]))
    d, r = (torch.fft.rfft2((v - v.mean(dim=(-2, -1), keepdim=True)) * window).flatten(1) for v in (out, target))
    energy = (r.real**2 + r.imag**2) @ rings
    above = ((d.real * r.real + d.imag * r.imag) @ rings / energy.clamp(min=1e-9) - 1).clamp(0, 2)
    z2 = energy / (sigma.reshape(-1, 1) ** 2 * (window**2).sum())
    return (z2 / (z2 + 4) * above**2).mean()


@functools.lru_cache(maxsize=8)
def _rings(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A window, and (frequencies of rfft2, rings): which frequency lies in which ring."""
    f = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)).flatten()
    limits = torch.tensor(_EDGES)
    rings = (f[:, None] >= limits[:-1]) & (f[:, None] < limits[1:])
    return torch.outer(torch.hann_window(height), torch.hann_window(width)), rings.float()


def _grain(out: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
    smooth = _gaussian(target, 1.5)
    steep = torch.hypot(smooth.diff(dim=-1)[..., 1:, :], smooth.diff(dim=-2)[..., 1:])
    steep = functional.max_pool2d(functional.pad(steep, (1, 0, 1, 0), mode="replicate"), 9, 1, 4)
    flat = steep.flatten(1)
    limit = torch.maximum(0.25 * flat.amax(dim=1), flat.median(dim=1).values).reshape(-1, 1, 1, 1)
    calm = steep <= limit
    # texture that comes out stronger than it went in is invented: both ways count
    return _short(_band(out, 1.0, 3.0) * calm, _band(target, 1.0, 3.0) * calm, sigma, _GRAIN_KEPT, -2.0).mean()


def _short(d: Tensor, r: Tensor, sigma: Tensor, kept: float, least: float) -> Tensor:
    """By how much the transfer of each patch falls short of `kept`, at least `least`, squared."""
    energy = (r * r).sum(dim=(1, 2, 3))
    short = (kept - (d * r).sum(dim=(1, 2, 3)) / energy.clamp(min=1e-12)).clamp(least, 2)
    z2 = energy / sigma.flatten() ** 2  # a patch counts as far as its structure stands out of the noise at all
    return z2 / (z2 + 64) * short**2


def _defects(error: Tensor, specks: Tensor, sigma: Tensor) -> Tensor:
    """specks (N, K, h, w): each shape times its contrast."""
    energy = (specks**2).sum(dim=(2, 3))
    lost = (error * specks).sum(dim=(2, 3)) / energy.clamp(min=1e-12)
    # a defect counts as far as it stands out of the noise at all: matched-filter z of 5 counts half
    z2 = energy / sigma.reshape(-1, 1) ** 2
    weight = z2 / (z2 + 25)
    there = energy > 1e-9
    return (weight * lost.square().clamp(max=4))[there].mean() if bool(there.any()) else error.new_zeros(())


def _blocks(v: Tensor) -> Tensor:
    side = min(_BLOCK, *v.shape[-2:])
    return functional.avg_pool2d(v, side)


def _band(v: Tensor, low: float, high: float) -> Tensor:
    fine = _gaussian(v, low) if low else v
    return fine - _gaussian(v, high)


def _gaussian(v: Tensor, sigma: float) -> Tensor:
    """Blur as two products with banded matrices: on small patches much faster than convolving one channel."""
    rows, columns = (_blur(n, sigma).to(v) for n in v.shape[-2:])
    return rows @ v @ columns.T


@functools.lru_cache(maxsize=32)
def _blur(n: int, sigma: float) -> Tensor:
    """(n, n): a Gaussian along one axis, normalised at the borders."""
    at = torch.arange(n, dtype=torch.float32)
    far = at[:, None] - at
    weights = torch.exp(-0.5 * (far / sigma) ** 2) * (far.abs() <= math.ceil(3 * sigma))
    return weights / weights.sum(dim=1, keepdim=True)


def _taps(sigma: float) -> Tensor:
    reach = math.ceil(3 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    return taps / taps.sum()


def _white_energy(low: float, high: float) -> float:
    """Variance that a band leaves of white noise of variance 1."""
    wide = _taps(high)
    kernel = -torch.outer(wide, wide)
    if low:
        fine = _taps(low)
        gap = (len(wide) - len(fine)) // 2
        kernel[gap : gap + len(fine), gap : gap + len(fine)] += torch.outer(fine, fine)
    else:
        kernel[len(wide) // 2, len(wide) // 2] += 1
    return float((kernel**2).sum())
