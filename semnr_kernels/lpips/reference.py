"""LPIPS, as defined: whole maps, in torch, on any device, differentiable. Scores in float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..dists.score import pair_on_1, resampled
from .network import Network

EPS = 1e-10  # beside the norm of a position's channels, as lpips 0.1.4

# What one image needs beside the weights, in values of `work` a pixel: the largest maps, normalised, and differences
# of them, and what the convolutions hold (measured: 330 and 40).
VALUES_A_PIXEL = {"vgg": 400, "alex": 60}


@dataclass(frozen=True)
class Settings:
    """All that LPIPS needs beside the pixels and the network."""

    data_range: float
    resize: str | None
    want_map: bool
    memory_budget: int


@dataclass(frozen=True)
class Distance:
    """Rows (N,), what each of the five maps adds to them, (N, 5), and the distance at each pixel, (N, 1, H, W)."""

    rows: torch.Tensor
    layers: torch.Tensor
    map: torch.Tensor | None = None


@dataclass(frozen=True)
class Features:
    """The compared maps of one batch, kept for comparisons: 127 values a pixel for VGG16, 6 for AlexNet."""

    maps: tuple[torch.Tensor, ...]  # (N, C, h, w) each, as the network gives them
    network: Network
    settings: Settings
    size: tuple[int, int]  # of the image that was passed
    seen: tuple[int, int]  # and as the network saw it

    @property
    def count(self) -> int:
        return self.maps[0].shape[0]


def lpips(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, network: Network, settings: Settings
) -> Distance:
    """Compare candidate `x` with reference `y`, (N, C, H, W) of any dtype, C 1 or 3; valid: (N, 1, H, W) or None."""
    parts = []
    for some in groups(x.shape[0], pairs_per_call(x.shape, network, settings.memory_budget)):
        masks = None if valid is None else valid[some]
        x1, y1, share = pair_on_1(x[some], y[some], settings.data_range, masks, network, settings.resize)  # type: ignore[arg-type]
        count = len(x1)
        pairs = ((both[:count], both[count:]) for both in network.maps(torch.cat((x1, y1))))
        parts.append(pooled(pairs, network, share, x1.shape[-2:] if settings.want_map else None))
    return joined(parts, x.shape[-2:])


def features(image: torch.Tensor, network: Network, settings: Settings) -> Features:
    """The maps of (N, C, H, W), at whole size."""
    on_1 = resampled(image.to(network.work) / settings.data_range, settings.resize)
    height, width = image.shape[-2:]
    return Features(tuple(network.maps(on_1)), network, settings, (height, width), tuple(on_1.shape[-2:]))  # type: ignore[arg-type]


def compare(x: Features, y: Features) -> Distance:
    """Maps of candidates with those of references; one of the two may hold a single image."""
    seen = x.seen if x.settings.want_map else None
    return joined([pooled(zip(x.maps, y.maps, strict=True), x.network, None, seen)], x.size)


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
        sums.append(averaged(each, None if share is None else share_at(share, each.shape[-2:])))
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


def averaged(each: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Mean over positions, (N,) float64; by weights (N, h, w)."""
    each = each.double()
    if weight is None:
        return each.mean(dim=(1, 2))
    return (each * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))


def share_at(share: torch.Tensor, size: tuple[int, int] | torch.Size) -> torch.Tensor:
    """The share of valid pixels under each position of a map of this size, (N, h, w)."""
    return F.adaptive_avg_pool2d(share, tuple(size))[:, 0]


def pairs_per_call(shape: torch.Size, network: Network, memory_budget: int) -> int:
    """How many pairs fit into the budget as whole maps."""
    pixels = shape[-2] * shape[-1]
    return memory_budget // (2 * VALUES_A_PIXEL[network.name] * pixels * network.work.itemsize)


def groups(count: int, together: int) -> list[slice]:
    together = max(1, together)
    return [slice(start, min(start + together, count)) for start in range(0, count, together)]


def joined(parts: list[Distance], size: torch.Size | tuple[int, ...]) -> Distance:
    """The parts of a batch, one after the other; the map at the size of the images."""
    maps = [part.map for part in parts if part.map is not None]
    shown = torch.cat(maps) if maps else None
    if shown is not None and tuple(shown.shape[-2:]) != tuple(size):
        shown = F.interpolate(shown, size=tuple(size), mode="bilinear")
    return Distance(torch.cat([p.rows for p in parts]), torch.cat([p.layers for p in parts]), shown)
