"""LPIPS in bounded memory: a trunk a band of rows at a time, nothing computed twice.

Each layer keeps the rows of its input that it still needs and waits until they make a piece worth computing; what it
gives goes on to the next, and the compared maps are added up, position by position, and dropped. The sums are those of
whole maps, so any size comes out as the whole does, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F

from ..dists.score import pair_on_1, resampled, resized
from .network import Layer, Network, applied, normalised
from .sums import EPS, Distance, Features, Settings, finite, groups, joined, share_at

PIECE = 2**22  # bytes of a layer's output: what two cores keep in their second caches
DEVICE_PIECE = 2**28  # on a GPU a launch costs more than a piece that leaves the cache
_LEAST_ROWS = 8


class Engine(Protocol):
    """What a backend does with a layer; tensors of its device in and out."""

    memory_format: torch.memory_format

    def layer(self, network: Network, number: int, h: torch.Tensor, padding: tuple[int, int]) -> torch.Tensor:
        """Layer `number` with its ReLU; padding: of zeros, down and across."""

    def differences(self, x: torch.Tensor, y: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
        """Σ over channels of linear (x / ‖x‖ − y / ‖y‖)², (N, h, w), in the dtype of `linear`."""


class Torch:
    """See `Engine`: in torch, on any device."""

    memory_format = torch.contiguous_format

    def layer(self, network: Network, number: int, h: torch.Tensor, padding: tuple[int, int]) -> torch.Tensor:
        return applied(*network.layers[number], h, padding)

    def differences(self, x: torch.Tensor, y: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
        a, b = (v * (1 / (torch.linalg.vector_norm(v, dim=1, keepdim=True) + EPS)) for v in (
            x.to(linear.dtype), y.to(linear.dtype)
        ))  # fmt: skip
        squares = a.sub_(b).square_().permute(0, 2, 3, 1)
        return (squares.reshape(-1, x.shape[1]) @ linear).reshape(x.shape[0], *x.shape[2:])


def lpips(
    engine: Engine,
    x: torch.Tensor,
    y: torch.Tensor,
    valid: torch.Tensor | None,
    network: Network,
    settings: Settings,
) -> Distance:
    """As `reference.lpips`, without a gradient."""
    size = (x.shape[-2], x.shape[-1])
    parts = []
    for some in groups(x.shape[0], _together(x, network, settings)):
        masks = None if valid is None else valid[some]
        x1, y1, share, scale = x[some], y[some], None, settings.data_range
        if masks is not None or resized(*size, settings.resize) != size:
            x1, y1, share = pair_on_1(x1, y1, masks, network, settings)  # type: ignore[arg-type]
            scale = 1.0
        found, count = PairSums(engine, network, tuple(x1.shape), share, settings.want_map), len(x1)
        for number, at, band in Flow(engine, network, (x1, y1), scale, settings.memory_budget).maps():
            found.add(number, at, band[:count], band[count:])
        parts.append(found.distance())
    return joined(parts, size)


def _together(x: torch.Tensor, network: Network, settings: Settings) -> int:
    """Pairs whose first map makes a piece."""
    first, weight, _ = network.layers[0]
    assert weight is not None
    positions = first.size(x.shape[-2]) * first.size(x.shape[-1])
    most = _piece(network, settings.memory_budget)
    return most // (2 * positions * weight.shape[0] * network.dtype.itemsize)


def _piece(network: Network, memory_budget: int) -> int:
    return max(2**20, min(PIECE if network.device.type == "cpu" else DEVICE_PIECE, memory_budget // 16))


def features(engine: Engine, image: torch.Tensor, network: Network, settings: Settings) -> Features:
    """As `reference.features`, a band at a time."""
    on_1 = resampled(image.to(network.work) / settings.data_range, settings.resize)
    kept: dict[int, list[torch.Tensor]] = {}
    for number, _, band in Flow(engine, network, (on_1,), 1.0, settings.memory_budget).maps():
        kept.setdefault(number, []).append(band)
    maps = tuple(torch.cat(kept[number], dim=2) for number in sorted(kept))
    return Features(maps, network, settings, (image.shape[-2], image.shape[-1]), finite(image))


def against(engine: Engine, x: torch.Tensor, y: Features) -> Distance:
    """Candidates with kept maps of references: the maps of the candidates are not kept."""
    settings = y.settings
    on_1 = resampled(x.to(y.network.work) / settings.data_range, settings.resize)
    found = PairSums(engine, y.network, tuple(on_1.shape), None, settings.want_map)
    for number, at, band in Flow(engine, y.network, (on_1,), 1.0, settings.memory_budget).maps():
        other = y.maps[number][:, :, at : at + band.shape[2]]
        found.add(number, at, band, other.expand(band.shape[0], -1, -1, -1))
    return joined([found.distance()], y.size)


class Flow:
    """Images on their way through a trunk, a band of rows at a time."""

    def __init__(
        self,
        engine: Engine,
        network: Network,
        images: tuple[torch.Tensor, ...],
        data_range: float,
        memory_budget: int,
        first: int = 0,
    ) -> None:
        """`first`: the layer that takes `images`; above 0 they are what the layer before it gave."""
        self.engine, self.network, self.images, self.data_range, self.first = engine, network, images, data_range, first
        count, (height, width) = sum(map(len, images)), images[0].shape[-2:]
        piece, size = _piece(network, memory_budget), network.dtype.itemsize
        self.layers, a_row = [], 0
        channels = 3
        for number, (layer, weight, _) in list(enumerate(network.layers))[first:]:
            channels = channels if weight is None else weight.shape[0]
            out = layer.size(width)
            rows = max(_LEAST_ROWS, piece // (count * channels * out * size))
            self.layers.append(_Waiting(layer, number, height, rows))
            a_row += count * channels * out * size
            height, width = layer.size(height), out
        most = max(_LEAST_ROWS, memory_budget // (4 * a_row))  # a layer's input and output, and what waits
        for waiting in self.layers:
            waiting.least = min(waiting.least, most)
        enters = self.layers[0]
        self.rows = min(enters.height, max(enters.least * enters.layer.stride, _LEAST_ROWS))

    def maps(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        """(number of a compared map, its first row, a band of it), in the order of rows."""
        for row in range(0, self.layers[0].height, self.rows):
            rows = [v[:, :, row : row + self.rows] for v in self.images]
            if self.first == 0:  # converted when their turn comes
                on_1 = torch.cat([v.to(self.network.work) / self.data_range for v in rows])
                rows = [normalised(on_1).to(self.network.dtype)]
            yield from self._through(torch.cat(rows).contiguous(memory_format=self.engine.memory_format))

    def _through(self, band: torch.Tensor) -> Iterator[tuple[int, int, torch.Tensor]]:
        number = sum(layer.compared for layer, _, _ in self.network.layers[: self.first])
        for waiting in self.layers:
            at = waiting.done
            made = waiting.push(band, self)
            if made is None:
                return
            band = made
            if waiting.layer.compared:
                yield number, at, band
                number += 1


class _Waiting:
    """The rows of a layer's input that have come and that it still needs."""

    def __init__(self, layer: Layer, number: int, height: int, least: int) -> None:
        self.layer, self.number, self.height, self.least = layer, number, height, least
        self.out_height = layer.size(height)
        self.rows: torch.Tensor | None = None
        self.top = self.done = 0  # the first row that is held; output rows that have been made

    def push(self, band: torch.Tensor, flow: Flow) -> torch.Tensor | None:
        """The output rows that these input rows complete, where they are many or the last."""
        layer = self.layer
        self.rows = band if self.rows is None else torch.cat((self.rows, band), dim=2)
        bottom = self.top + self.rows.shape[2]
        last = bottom == self.height
        end = self.out_height if last else max(0, (bottom + layer.padding - layer.side) // layer.stride + 1)
        if end <= self.done or (end - self.done < self.least and not last):
            return None
        first = self.done * layer.stride - layer.padding
        beyond = (end - 1) * layer.stride - layer.padding + layer.side
        part = self.rows[:, :, max(first, 0) - self.top : min(beyond, self.height) - self.top]
        above, below = max(-first, 0), max(beyond - self.height, 0)
        down = layer.padding if above == below == layer.padding else 0
        if (above or below) and not down:
            part = F.pad(part, (0, 0, above, below)).contiguous(memory_format=flow.engine.memory_format)
        made = flow.engine.layer(flow.network, self.number, part, (down, layer.padding))
        self.done = end
        keep = max(end * layer.stride - layer.padding, 0)
        self.rows = None if last or keep >= bottom else self.rows[:, :, keep - self.top :]
        self.top = bottom if self.rows is None else keep
        return made


class PairSums:
    """What each compared map adds to the distance of each pair, as it grows."""

    def __init__(
        self, engine: Engine, network: Network, shape: tuple[int, ...], share: torch.Tensor | None, want_map: bool
    ) -> None:
        self.engine, self.network, self.size, self.share = engine, network, shape[-2:], share
        device, maps = network.device, len(network.linear)
        self.sums = torch.zeros((shape[0], maps), dtype=torch.float64, device=device)
        self.weights = torch.zeros_like(self.sums)
        self.places: list[list[torch.Tensor]] | None = [[] for _ in range(maps)] if want_map else None
        self.shares: list[torch.Tensor] | None = None
        if share is not None:
            (height, width), self.shares = self.size, []
            for layer, _, _ in network.layers:
                height, width = layer.size(height), layer.size(width)
                if layer.compared:
                    self.shares.append(share_at(share, (height, width)))

    def add(self, number: int, at: int, x: torch.Tensor, y: torch.Tensor, some: slice = slice(None)) -> None:
        """Rows of a map from row `at` on, of some of the pairs."""
        each = self.engine.differences(x, y, self.network.linear[number])
        h, w = each.shape[1:]
        if self.places is not None:
            self.places[number].append(each)
        wide = each.double()
        if self.shares is None:
            self.sums[some, number] += wide.sum(dim=(1, 2))
            self.weights[some, number] += h * w
        else:
            weight = self.shares[number][:, at : at + h]
            self.sums[:, number] += (wide * weight).sum(dim=(1, 2))
            self.weights[:, number] += weight.sum(dim=(1, 2))

    def distance(self) -> Distance:
        layers = self.sums / self.weights
        shown = None
        if self.places is not None:
            whole = [torch.cat(rows, dim=1)[:, None] for rows in self.places]
            shown = torch.stack([F.interpolate(v, size=self.size, mode="bilinear") for v in whole]).sum(0)
        return Distance(layers.sum(1), layers, shown)
