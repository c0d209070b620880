"""LPIPS, as defined: whole maps, in torch, on any device, differentiable. Scores in float64."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ..dists.score import pair_on_1, resampled
from . import flow
from .network import Network
from .sums import EPS, Distance, Features, Settings, averaged, finite, groups, joined, share_at

# What one image needs beside the weights, in values of `work` a pixel, reckoned: input and output of the largest
# convolution, the map normalised, and its differences; doubled for what the convolution itself may hold.
VALUES_A_PIXEL = {"vgg": 400, "alex": 60}


def lpips(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, network: Network, settings: Settings
) -> Distance:
    """Compare candidate `x` with reference `y`, (N, C, H, W) of any dtype, C 1 or 3; valid: (N, 1, H, W) or None."""
    together = pairs_per_call(x.shape, network, settings.memory_budget)
    if together == 0 and not (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)):
        return flow.lpips(flow.Torch(), x, y, valid, network, settings)
    parts = []
    for some in groups(x.shape[0], together):
        masks = None if valid is None else valid[some]
        x1, y1, share = pair_on_1(x[some], y[some], masks, network, settings)  # type: ignore[arg-type]
        count = len(x1)
        pairs = ((both[:count], both[count:]) for both in network.maps(torch.cat((x1, y1))))
        parts.append(pooled(pairs, network, share, x1.shape[-2:] if settings.want_map else None))
    return joined(parts, x.shape[-2:])


def features(image: torch.Tensor, network: Network, settings: Settings) -> Features:
    """The maps of (N, C, H, W), at whole size."""
    on_1 = resampled(image.to(network.work) / settings.data_range, settings.resize)
    return Features(tuple(network.maps(on_1)), network, settings, (image.shape[-2], image.shape[-1]), finite(image))


def against(x: torch.Tensor, y: Features) -> Distance:
    """Candidates (N, C, H, W) with the kept maps of as many references, or of one."""
    maps = features(x, y.network, y.settings).maps
    return joined([pooled(zip(maps, y.maps, strict=True), y.network, None, None)], y.size)


def pooled(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]],
    network: Network,
    share: torch.Tensor | None,
    shown: torch.Size | tuple[int, int] | None,
) -> Distance:
    """The mean over positions of each map's differences, added up; shown: the size of a map of them."""
    sums, places = [], []
    for number, (x, y) in enumerate(pairs):
        each = differences(x, y, network.linear[number])
        sums.append(averaged(each, None if share is None else share_at(share, (each.shape[-2], each.shape[-1]))))
        if shown is not None:
            places.append(F.interpolate(each[:, None], size=tuple(shown), mode="bilinear"))
    layers = torch.stack(sums, dim=1)
    return Distance(layers.sum(1), layers, torch.stack(places).sum(0) if places else None)


def differences(x: torch.Tensor, y: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
    """Σ over channels of w (x / ‖x‖ − y / ‖y‖)², (N, h, w), in the dtype of `linear`."""
    a, b = (v / (_norm(v) + EPS) for v in (x.to(linear.dtype), y.to(linear.dtype)))
    return torch.einsum("nchw,c->nhw", (a - b).square(), linear)


def _norm(h: torch.Tensor) -> torch.Tensor:
    """Of a position's channels; where all are 0 its gradient is 0, not that of a root at 0."""
    squares = h.square().sum(1, keepdim=True)
    live = squares > 0
    return torch.where(live, torch.where(live, squares, 1).sqrt(), 0)


def pairs_per_call(shape: torch.Size, network: Network, memory_budget: int) -> int:
    """How many pairs fit into the budget as whole maps."""
    pixels = shape[-2] * shape[-1]
    return memory_budget // (2 * VALUES_A_PIXEL[network.name] * pixels * network.work.itemsize)
