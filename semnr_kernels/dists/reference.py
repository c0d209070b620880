"""DISTS, as defined. The network runs in its own dtype, statistics in float32 or wider, scores in float64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .._fill import fill_masked
from .network import Network, hann_mean
from .weights import CHANNELS, alpha_beta

C1 = C2 = 1e-6  # Ding 2020, eq. 6 and 7
RESIZED_SIDE = 256
# What one image needs beside the weights, in maps of 64 channels at full size (measured: 3 to 5): input and output of
# the second convolution, and the copies and products of the statistics.
_FULL_MAPS = 5
_FULL_MAPS_FLOAT64 = 13  # float64 convolution unrolls its input: nine more


@dataclass(frozen=True)
class Features:
    """The maps of one batch and, where a mask was given, the share of valid pixels under each position."""

    maps: tuple[torch.Tensor, ...]  # (N, C, h, w) each: the image and five stages
    shares: tuple[torch.Tensor, ...] | None  # (N, 1, h, w) each
    network: Network
    resize: str | None


@dataclass(frozen=True)
class Distance:
    """Rows (N,) and what each of the six maps adds to them through its means and through its variances, (N, 6)."""

    rows: torch.Tensor
    structure: torch.Tensor
    texture: torch.Tensor


def dists(
    x: torch.Tensor,
    y: torch.Tensor,
    data_range: float,
    valid: torch.Tensor | None,
    network: Network,
    resize: str | None,
    memory_budget: int,
) -> Distance:
    """Compare candidate `x` with reference `y`, (N, C, H, W) of any dtype, C 1 or 3; valid: (N, 1, H, W) or None."""
    group = pairs_per_call(x.shape, network, resize, memory_budget)
    parts = []
    for start in range(0, x.shape[0], group):
        some = slice(start, start + group)
        ready = _pair_on_1(x[some], y[some], data_range, None if valid is None else valid[some], network, resize)
        count = ready[0].shape[0]
        both = network.maps(torch.cat(ready[:2]))  # one call of the network for both images
        parts.append(_pool(((m[:count], m[count:]) for m in both), _shares(ready[2])))
    return Distance(*(torch.cat([getattr(p, name) for p in parts]) for name in ("rows", "structure", "texture")))


def features(
    image: torch.Tensor,
    data_range: float,
    valid: torch.Tensor | None,
    reference: torch.Tensor | None,
    network: Network,
    resize: str | None,
) -> Features:
    """Maps of one batch; masked pixels take the local mean of `reference`, or of the image itself."""
    other = image if reference is None else reference
    ready, _, share = _pair_on_1(image, other, data_range, valid, network, resize)
    shares = _shares(share)
    return Features(tuple(network.maps(ready)), None if shares is None else tuple(shares), network, resize)


def compare(fx: Features, fy: Features) -> Distance:
    return _pool(zip(fx.maps, fy.maps, strict=True), fy.shares if fy.shares is not None else fx.shares)


def pairs_per_call(shape: Iterable[int], network: Network, resize: str | None, memory_budget: int) -> int:
    """How many pairs go through the network at once; at least one, even where that exceeds the budget."""
    _, _, height, width = shape
    height, width = resized(height, width, resize)
    full_maps = _FULL_MAPS_FLOAT64 if network.dtype == torch.float64 else _FULL_MAPS
    one_image = full_maps * CHANNELS[1] * height * width * network.work.itemsize
    return max(1, memory_budget // (2 * one_image))


def resized(height: int, width: int, resize: str | None) -> tuple[int, int]:
    """The size at which the network sees the image."""
    short = min(height, width)
    if resize is None or short <= RESIZED_SIDE:
        return height, width
    if resize == "piq":
        scale = RESIZED_SIDE / short
        return int(height * scale), int(width * scale)
    return tuple(RESIZED_SIDE if side == short else int(RESIZED_SIDE * side / short) for side in (height, width))  # type: ignore[return-value]


def _pair_on_1(
    x: torch.Tensor,
    y: torch.Tensor,
    data_range: float,
    valid: torch.Tensor | None,
    network: Network,
    resize: str | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Both images as the network takes them, (N, 3, h, w) on the 0-1 scale, and the share of valid pixels."""
    x, y = (v.to(network.work) / data_range for v in (x, y))
    x, y = fill_masked(x, y, valid)
    share = None if valid is None else _resize(valid.to(network.work), resize)
    x, y = (_resize(v, resize).expand(-1, 3, -1, -1) for v in (x, y))
    return x, y, share


def _resize(image: torch.Tensor, resize: str | None) -> torch.Tensor:
    height, width = image.shape[-2:]
    short = min(height, width)
    if resize is None or short <= RESIZED_SIDE:
        return image
    if resize == "piq":  # sampled at the stated scale, not at the ratio of the rounded sizes
        scale = RESIZED_SIDE / short
        return F.interpolate(image, scale_factor=scale, recompute_scale_factor=False, mode="bilinear")
    return F.interpolate(image, size=resized(height, width, resize), mode="bilinear", antialias=True)


def _shares(share: torch.Tensor | None) -> Iterator[torch.Tensor] | None:
    """Share of valid pixels at the size of each map: the image's, then through the network's own pooling windows."""
    if share is None:
        return None

    def each(share: torch.Tensor) -> Iterator[torch.Tensor]:
        yield share
        for stage in range(5):
            if stage:
                share = hann_mean(share) / hann_mean(torch.ones_like(share))
            yield share

    return each(share)


def _pool(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], shares: Iterable[torch.Tensor] | None) -> Distance:
    """1 − Σ (α l + β s) over the channels of all maps (Ding 2020, eq. 8)."""
    alpha, beta = (v.split(CHANNELS) for v in alpha_beta())
    waiting = None if shares is None else iter(shares)
    structure, texture = [], []
    for number, (x, y) in enumerate(pairs):
        lum, tex = _similarities(x, y, None if waiting is None else next(waiting))
        structure.append(((1 - lum) * alpha[number].to(lum.device)).sum(1))
        texture.append(((1 - tex) * beta[number].to(tex.device)).sum(1))
    s, t = torch.stack(structure, dim=1), torch.stack(texture, dim=1)
    return Distance(s.sum(1) + t.sum(1), s, t)


def _similarities(x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarity of the means and of the variances, (N, C) float64 each."""

    def mean(v: torch.Tensor) -> torch.Tensor:
        if share is None:
            return v.mean(dim=(2, 3))
        return (v * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3))

    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    x, y = x.to(work), y.to(work)
    # Moments about a point near the mean: a small variance on a large mean keeps its digits.
    near_x, near_y = mean(x).detach(), mean(y).detach()
    dx, dy = x - near_x[:, :, None, None], y - near_y[:, :, None, None]
    mx, my = mean(dx).double(), mean(dy).double()
    var_x, var_y = mean(dx * dx).double() - mx * mx, mean(dy * dy).double() - my * my
    covariance = mean(dx * dy).double() - mx * my
    mean_x, mean_y = near_x.double() + mx, near_y.double() + my
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * covariance + C2) / (var_x + var_y + C2)
