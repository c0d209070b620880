"""FSIM of an image too large for one transform: the same filters over overlapping blocks. README.md has the error.

A block holds a tile and, around it, a halo of neighbours: at the image's border those of the opposite side, which the
transform of the whole sees there. The noise thresholds are the whole image's: a first pass over the blocks counts
amplitudes, of which the median is read off.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch

from .. import _native
from .._registry import Call, refusal
from . import native
from .reference import Comparison, Features, Settings


def _no_gradient(call: Call) -> str | None:
    return "has no gradient of tiles" if call.needs_grad else None


def _no_mask(call: Call) -> str | None:
    return "takes no mask with tiles" if call.options.get("masked") else None


def _no_sampling(call: Call) -> str | None:
    settings = call.options.get("settings")
    sampled = settings is not None and settings.authors
    return 'takes no downsample="authors" above factor 1 with tiles' if sampled else None


UNSUPPORTED = (_no_gradient, _no_mask, _no_sampling, *native.UNSUPPORTED)


def supports(call: Call) -> str | None:
    """As `native.supports`, without gradients, masks and MATLAB's sampling."""
    return refusal(UNSUPPORTED, call)


@dataclass(frozen=True)
class Axis:
    """How one side is cut. Blocks have one size; a side that fits one is not cut."""

    length: int
    size: int
    tile: int
    halo: int

    @classmethod
    def of(cls, length: int, tile: int, halo: int) -> Axis:
        tile = math.ceil(length / math.ceil(length / tile))  # all alike
        size = tile + 2 * halo
        while size % 2 or not _smooth(size):  # even, because odd sides have other frequencies
            size += 1
        return cls(length, length, length, 0) if size >= length else cls(length, size, tile, halo)

    @property
    def divisor(self) -> float:
        """Of the block's frequencies: the whole's, which are stretched where the side is odd."""
        return self.size * (self.length - self.length % 2) / self.length

    def cuts(self) -> Iterator[tuple[int, int]]:
        """First pixel and end of each tile."""
        for start in range(0, self.length, self.tile):
            yield start, min(start + self.tile, self.length)

    def block(self, start: int, factor: int) -> torch.Tensor:
        """Pixels of the block around a tile, in an image not yet averaged over `factor` pixels."""
        first = (start - self.halo) * factor
        return torch.arange(first, first + self.size * factor, device="cpu") % (self.length * factor)


def fsim(
    x: torch.Tensor,
    y: torch.Tensor,
    data_range: float,
    valid: torch.Tensor | None,
    s: Settings,
    *,
    tile: int,
    halo: int,
    want_maps: bool = True,
    isa: str | None = None,
) -> Comparison:
    """As `native.fsim`, in tiles of at most `tile` pixels and a halo of `halo`, both after averaging."""
    height, width = (side // s.factor for side in x.shape[-2:])
    axes = Axis.of(height, tile, halo), Axis.of(width, tile, halo)
    rows, maps = [], []
    for pair in zip(x, y, strict=True):
        a, b = (_Image(v[None], data_range, s, axes, isa) for v in pair)
        row, found = _compare(a, b, want_maps)
        rows.append(row)
        maps.append(found)
    planes = [torch.cat(parts) for parts in zip(*maps, strict=True)]
    return Comparison(torch.tensor(rows, dtype=torch.float64, device=x.device), *planes)


def _compare(a: _Image, b: _Image, want_maps: bool) -> tuple[float, list[torch.Tensor]]:
    maps: list[torch.Tensor] = []
    local = weight = 0.0
    for rows, columns in product(*(axis.cuts() for axis in a.axes)):
        row, total, found = native.compare_sums(a.features(rows, columns), b.features(rows, columns), want_maps, a.isa)
        local += row * total
        weight += total
        if want_maps and not maps:
            maps = [_native.empty((1, 1, *(axis.length for axis in a.axes)), v.dtype) for v in found]
        for whole, part in zip(maps, found, strict=True):
            whole[..., slice(*rows), slice(*columns)] = part
    return local / weight, maps


class _Image:
    """One image, (1, C, H, W), and the thresholds of the whole of it."""

    def __init__(
        self, image: torch.Tensor, data_range: float, s: Settings, axes: tuple[Axis, Axis], isa: str | None
    ) -> None:
        # gathering knows no uint16
        self.image = image.view(torch.int16) if image.dtype == torch.uint16 else image
        self.dtype, self.scale, self.settings, self.axes, self.isa = image.dtype, 255.0 / data_range, s, axes, isa
        double = s.precision == "float64"
        self.plane = torch.float64 if double else torch.float32
        divisor = (axes[0].divisor, axes[1].divisor)
        self.tables = native.tables(axes[0].size, axes[1].size, s.filters, double, isa, divisor)
        self.thresholds = self._thresholds()

    def features(self, rows: tuple[int, int], columns: tuple[int, int]) -> Features:
        """Of the tile of these pixels."""
        s, t, cut = self.settings, self.tables, (rows, columns)
        phase = _native.empty((1, 1, *t.size), self.plane)
        block = self._block(rows[0], columns[0])
        native.run((block,), self.scale, s, t, self.isa, (phase, None, None, None), self.thresholds)
        phase = _window(phase, [(x.halo, x.halo + b - a) for x, (a, b) in zip(self.axes, cut, strict=True)])

        # the gradient sees black beyond the image, not its other side
        ring = [(max(a - 1, 0), min(b + 1, x.length)) for x, (a, b) in zip(self.axes, cut, strict=True)]
        size = ring[0][1] - ring[0][0], ring[1][1] - ring[1][0]
        part = _window(self.image, [(a * s.factor, b * s.factor) for a, b in ring]).view(self.dtype)
        gradient = _native.empty((1, 1, *size), self.plane)
        chroma = _native.empty((1, 2, *size), self.plane) if s.chromatic else None
        native.run((part,), self.scale, s, dataclasses.replace(t, size=size), self.isa, (None, gradient, chroma, None))
        inside = [(a - c, b - c) for (a, b), (c, _) in zip(cut, ring, strict=True)]
        return Features(phase, _window(gradient, inside), None if chroma is None else _window(chroma, inside), None, s)

    def _block(self, row: int, column: int) -> torch.Tensor:
        factor = self.settings.factor
        rows, columns = self.axes[0].block(row, factor), self.axes[1].block(column, factor)
        return self.image[..., rows, :][..., columns].view(self.dtype)

    def _thresholds(self) -> torch.Tensor:
        """Gains times the lower medians of the finest amplitudes, from counts of their squares' leading bits."""
        module, t = _native.module(self.isa), self.tables
        counts = _native.empty((self.settings.filters.orientations, module.FSIM_BINS), torch.int64).zero_()
        for rows, columns in product(*(axis.cuts() for axis in self.axes)):
            block = self._block(rows[0], columns[0])
            halo = [axis.halo for axis in self.axes]
            module.fsim_histogram(
                _native.image(block),
                _native.DTYPE_CODES[self.dtype],
                block.shape,
                self.scale,
                self.settings.factor,
                t.kind,
                t.size,
                t.double,
                _native.address(t.memory),
                (halo[0], halo[0] + rows[1] - rows[0], halo[1], halo[1] + columns[1] - columns[0]),
                torch.get_num_threads(),
                _native.address(counts),
            )
        rank = (math.prod(axis.length for axis in self.axes) - 1) // 2
        upto = counts.cumsum(1)
        bins = (upto <= rank).sum(1, keepdim=True).clamp(max=module.FSIM_BINS - 1)
        inside, before = counts.gather(1, bins), upto.gather(1, bins)
        share = (rank - (before - inside) + 0.5) / inside  # as if spread evenly within the bin
        edges = [((bins + i).int() << module.FSIM_BIN_SHIFT).view(torch.float32).double() for i in (0, 1)]
        squares = torch.where(bins == 0, 0.0, edges[0] + share * (edges[1] - edges[0]))
        return squares.new_tensor(t.gains) * squares[:, 0].sqrt()


def _window(planes: torch.Tensor, cut: Sequence[tuple[int, int]]) -> torch.Tensor:
    return planes[..., slice(*cut[0]), slice(*cut[1])]


def _smooth(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1
