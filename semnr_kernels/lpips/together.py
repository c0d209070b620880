"""LPIPS of VGG16 beside DISTS on CPU: the same two convolutions begin both, an eighth of the arithmetic."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..dists import native as dists_native
from ..dists import score, stream
from ..dists.network import Network as DistsNetwork
from . import native
from .flow import Flow, PairSums
from .network import Network
from .sums import joined

_SHARED = 3  # layers of LPIPS's VGG16: two convolutions and the pooling


class _FirstMaps:
    """Takes DISTS's first maps: their part of LPIPS's sums, and their pooling by maximum."""

    def __init__(self, engine: native.Native, network: Network, x: torch.Tensor) -> None:
        self.sums = PairSums(engine, network, tuple(x.shape), None, want_map=False)
        count, _, height, width = x.shape
        self.pooled = [
            torch.empty(
                (count, network.linear[0].numel(), height // 2, width // 2),
                dtype=network.dtype,
                memory_format=torch.channels_last,
            )
            for _ in range(2)
        ]

    def first_maps(self, some: slice, row: int, column: int, x: torch.Tensor, y: torch.Tensor) -> None:
        x, y = F.relu_(x), F.relu_(y)  # as DISTS does next
        self.sums.add(0, row, x, y, some)
        for pooled, h in zip(self.pooled, (x, y), strict=True):
            if min(h.shape[-2:]) > 1:
                made = F.max_pool2d(h, 2)
                down, across = row // 2, column // 2
                pooled[some, :, down : down + made.shape[2], across : across + made.shape[3]] = made


def both(
    x: torch.Tensor, y: torch.Tensor, data_range: float, network: Network, dists: DistsNetwork, memory_budget: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(DISTS, LPIPS) of each pair, float64, no gradient; None where a pair does not fit into the budget whole."""
    height, width = x.shape[-2:]
    shared = stream.plan(height, width, 2, dists, memory_budget // 2)
    if shared.rows < height or shared.columns < width:
        return None
    job = stream.Job(x, y, None, None, data_range)
    engine, beside_it = dists_native.Native(), native.Native()
    parts, distances = [], []
    for start in range(0, x.shape[0], shared.together):
        part = job.part(slice(start, start + shared.together))
        beside = _FirstMaps(beside_it, network, part.x)
        parts.append(score.whole(part, engine, dists, shared, beside))
        count = len(part.x)
        flow = Flow(beside_it, network, tuple(beside.pooled), 1.0, memory_budget // 2, first=_SHARED)
        for number, at, band in flow.maps():
            beside.sums.add(number, at, band[:count], band[count:])
        distances.append(beside.sums.distance())
    return torch.cat([p.rows for p in parts]), joined(distances, (height, width)).rows
