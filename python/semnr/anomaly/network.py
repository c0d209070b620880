"""The autoencoder: it gives back what normal tiles look like, without what does not belong there.

A denoising autoencoder (Vincent et al. 2008) on 2 × 2 cells of pixels. Its input is a normal tile with planted faults,
its target the tile without them. It says what to take away from its input (`removes`), or makes the tile anew. There is
no normalisation layer and no global pooling: any tile whose sides are multiples of `align`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..base.jsonable import from_plain

CELL = 2  # pixels a side of a cell
_SHY = 0.03  # of the spread of the tiles: what a fresh network takes away


@dataclass(frozen=True)
class Layout:
    """Channels at each resolution (cells, pairs of cells, ...), and residual blocks at the coarsest one.

    `code`: channels of the coarsest resolution, all that it may hand on. `skips`: whether the finer resolutions are
    handed on as well. `removes`: whether the network says what to take away from its input, and begins with nothing;
    else it makes the tile anew.
    """

    widths: tuple[int, ...] = (24, 48, 64)
    middle: int = 3
    code: int = 32
    skips: bool = True
    removes: bool = True

    def __post_init__(self) -> None:
        for name, value in (("widths", self.widths), ("middle", (self.middle,)), ("code", (self.code,))):
            if not value or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in value):
                raise ValueError(f"model.{name} is {getattr(self, name)!r}; accepted: integers of at least 1")
        for name in ("skips", "removes"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"model.{name} is {getattr(self, name)!r}; accepted: true or false")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Layout:
        made: Layout = from_plain(cls, "model", given)
        return made

    @property
    def align(self) -> int:
        """Sides of a tile are brought to a multiple of this many pixels."""
        return int(CELL * 2 ** (len(self.widths) - 1))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = x + self.two(functional.relu(self.one(functional.relu(x))))
        return made


class Autoencoder(nn.Module):
    """(N, 1, H, W) grey levels to grey levels; `centre` and `spread` are those of the normal tiles."""

    centre: Tensor
    spread: Tensor

    def __init__(self, layout: Layout, centre: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("centre", torch.tensor(float(centre)))
        self.register_buffer("spread", torch.tensor(float(spread)))
        widths = layout.widths
        self.head = nn.Conv2d(CELL * CELL, widths[0], 3, padding=1)
        pairs = list(itertools.pairwise(widths))
        self.enter = nn.ModuleList(_Block(width) for width in widths[:-1])
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.middle = nn.Sequential(*(_Block(widths[-1]) for _ in range(layout.middle)))
        self.code = nn.Conv2d(widths[-1], layout.code, 1)
        self.decode = nn.Conv2d(layout.code, widths[-1], 1)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in reversed(pairs))
        self.leave = nn.ModuleList(_Block(width) for width in reversed(widths[:-1]))
        self.tail = nn.Conv2d(widths[0], CELL * CELL, 3, padding=1)
        if layout.removes:
            nn.init.normal_(self.tail.weight, std=_SHY / (3 * widths[0] ** 0.5))
            assert self.tail.bias is not None
            nn.init.zeros_(self.tail.bias)

    def forward(self, x: Tensor) -> Tensor:
        z = self.head(functional.pixel_unshuffle((x - self.centre) / self.spread, CELL))
        finer = []
        for block, down in zip(self.enter, self.down, strict=True):
            z = block(z)
            finer.append(z)
            z = down(z)
        z = self.decode(self.code(self.middle(z)))
        for up, block in zip(self.up, self.leave, strict=True):
            z = up(z)
            skip = finer.pop()
            z = block(z + skip if self.layout.skips else z)
        made: Tensor = functional.pixel_shuffle(self.tail(z), CELL) * self.spread
        return x - made if self.layout.removes else made + self.centre

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def reconstruct(network: Autoencoder, tiles: Tensor, batch: int = 8) -> Tensor:
    """(N, H, W) of any size, mirrored at the border up to a multiple of `align`."""
    align = network.layout.align
    height, width = tiles.shape[-2:]
    more = (0, -width % align, 0, -height % align)
    parts = []
    with torch.inference_mode():
        for part in tiles[:, None].split(batch):
            padded = functional.pad(part, more, mode="reflect") if any(more) else part
            parts.append(network(padded)[:, 0, :height, :width])
    return torch.cat(parts)
