"""DISTS, as defined. The network runs in its own dtype, statistics in float32 or wider, scores in float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from . import score
from .engine import Torch
from .local import local_map, upsampled
from .network import Network
from .score import Distance, Features, Settings, resized
from .sums import C1, C2
from .weights import CHANNELS, alpha_beta_of

__all__ = ["Distance", "Features", "Settings", "compare", "dists", "features", "pairs_per_call", "resized"]

# What one image needs beside the weights, in maps of 64 channels at full size (measured: 3 to 5): input and output of
# the second convolution, and the copies and products of the statistics.
_FULL_MAPS = 5
_FULL_MAPS_FLOAT64 = 13  # float64 convolution unrolls its input: nine more


def dists(
    x: torch.Tensor,
    y: torch.Tensor | Features,
    valid: torch.Tensor | None,
    network: Network,
    s: Settings,
) -> Distance:
    """Compare candidate `x` with reference `y`, (N, C, H, W) of any dtype, C 1 or 3; valid: (N, 1, H, W) or None.

    A pair that exceeds the budget is scored by `stream`, to the same sums; under autograd it runs whole all the same.
    """
    if isinstance(y, Features):
        x, data_range = score.candidate(x, y)
        return compare(features(x, None, None, network, replace(s, data_range=data_range)), y, s)
    group = pairs_per_call(x.shape, network, s)
    if group == 0 and not (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)):
        return score.dists(Torch(), x, y, valid, network, s)
    parts = []
    for start in range(0, x.shape[0], max(1, group)):
        some = slice(start, start + max(1, group))
        masks = None if valid is None else valid[some]
        x1, y1, share = score.pair_on_1(x[some], y[some], masks, network, s)  # [N, C, h, w] each, [N, 1, h, w]
        both = network.maps(torch.cat((x1, y1)).expand(-1, 3, -1, -1))  # one call of the network for both images
        shares = None if share is None else score.carried(share)
        parts.append(_pool(((m[: len(x1)], m[len(x1) :]) for m in both), shares, s.window))
    return score.joined(parts, x.shape[-2:])


def features(
    image: torch.Tensor,
    valid: torch.Tensor | None,
    reference: torch.Tensor | None,
    network: Network,
    s: Settings,
) -> Features:
    """Maps of one batch; masked pixels take the local mean of `reference`, or of the image itself."""
    if not (torch.is_grad_enabled() and image.requires_grad):
        return score.features(Torch(), image, valid, reference, network, s)
    frame = score.unfilled(image, valid, reference, network, s)
    first, *maps = network.maps(frame.maps[0])
    return replace(frame, maps=(first, *(m.to(s.store or network.dtype) for m in maps)))


def compare(fx: Features, fy: Features, s: Settings) -> Distance:
    """Compare the maps of candidates with those of references."""
    shares = fy.shares if fy.shares is not None else fx.shares
    return score.joined([_pool(zip(fx.maps, fy.maps, strict=True), shares, s.window)], fx.size)


def pairs_per_call(shape: Iterable[int], network: Network, s: Settings) -> int:
    """How many pairs fit into the budget as whole maps."""
    _, _, height, width = shape
    height, width = resized(height, width, s.resize)
    full_maps = _FULL_MAPS_FLOAT64 if network.dtype == torch.float64 else _FULL_MAPS
    one_image = full_maps * CHANNELS[1] * height * width * network.work.itemsize
    return s.memory_budget // (2 * one_image)


def _pool(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], shares: Iterable[torch.Tensor] | None, window: int | None
) -> Distance:
    """1 − Σ (α l + β s) over the channels of all maps (Ding 2020, eq. 8)."""
    waiting = None if shares is None else iter(shares)
    structure, texture, places = [], [], []
    for number, (x, y) in enumerate(pairs):
        share = None if waiting is None else next(waiting)
        a, b = alpha_beta_of(number, x.device)
        lum, tex = _similarities(x, y, share)
        structure.append(((1 - lum) * a).sum(1))
        texture.append(((1 - tex) * b).sum(1))
        if window is not None:
            places.append(local_map(number, x, y, share, a, b, window))
        if number == 0:
            size = tuple(x.shape[-2:])
    s, t = torch.stack(structure, dim=1), torch.stack(texture, dim=1)
    return Distance(s.sum(1) + t.sum(1), s, t, upsampled(torch.stack(places).sum(0), *size) if places else None)


def _similarities(x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarity of the means and of the variances, (N, C) float64 each."""
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    weight = None if share is None else share.to(work)

    def mean(v: torch.Tensor) -> torch.Tensor:
        if weight is None:
            return v.mean(dim=(2, 3))
        return (v * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))

    x, y = x.to(work), y.to(work)  # [N, C, h, w]
    # Moments about a point near the mean: a small variance on a large mean keeps its digits.
    near_x, near_y = mean(x).detach(), mean(y).detach()  # [N, C], as all that follows
    dx, dy = x - near_x[:, :, None, None], y - near_y[:, :, None, None]
    means = (near_x, near_y, mean(dx), mean(dy), mean(dx * dx), mean(dy * dy), mean(dx * dy))
    # widened at once: on a device each is a launch
    from_x, from_y, mx, my, xx, yy, xy = torch.stack(torch.broadcast_tensors(*means)).double()
    var_x, var_y, covariance = xx - mx * mx, yy - my * my, xy - mx * my
    mean_x, mean_y = from_x + mx, from_y + my
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * covariance + C2) / (var_x + var_y + C2)
