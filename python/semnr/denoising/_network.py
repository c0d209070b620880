"""The network behind `semnr-small`: a small residual U-Net of plain convolutions that sees noise of variance 1.

Family: residual U-Nets of bias-free convolutions conditioned on the noise (FFDNet, doi 10.1109/TIP.2018.2839891;
DRUNet, doi 10.1109/TPAMI.2021.3088914; bias-free networks, arXiv 1906.05478), on 2 x 2 cells of pixels. There is no
normalisation layer and no global pooling: each output pixel depends on a window of known size, so that tiles with
that halo give the result of the whole.

The network never sees grey levels. With the noise law var = gain · level + offset, the noise's standard deviation n
is taken at the level of a small window, the image enters as (x - centre) / n, and what the network removes comes back
as n · residual. So any gain and offset of the recording cancels exactly, and where there is no noise (n = 0: an image
of zeros) nothing is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from semnr._plain import from_plain

CELL = 2  # pixels a side of a cell; the network works on cells
_LEVEL = (7, 9)  # rows, columns of the window that the noise's level is taken from (wider along the correlated line)
_INPUTS = CELL * CELL + 4  # the pixels of a cell, the noise's sigma (1 by construction), its correlations, texture
_LIMIT = 1e4  # sigma units beyond which a pixel is no signal of a recording; keeps float32 and bfloat16 finite


@dataclass(frozen=True)
class Layout:
    """Channels at each resolution (cells, pairs of cells, ...), residual blocks on each but the last, and there."""

    widths: tuple[int, ...] = (32, 96)
    blocks: tuple[int, ...] = (2,)
    middle: int = 4

    def __post_init__(self) -> None:
        whole = (*self.widths, *self.blocks, self.middle)
        if not self.widths or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in whole):
            raise ValueError(f"layout is {asdict(self)}; accepted: integers of at least 1")
        if len(self.blocks) != len(self.widths) - 1:
            raise ValueError(
                f"blocks has {len(self.blocks)} entries for {len(self.widths)} widths; accepted: one fewer than widths"
            )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Layout:
        made: Layout = from_plain(cls, "layout", given)
        return made

    @property
    def align(self) -> int:
        """Windows must start at a multiple of this many pixels."""
        return CELL * 2 ** (len(self.widths) - 1)

    @property
    def reach(self) -> int:
        """Pixels around a pixel that its result can depend on, the network's and the level window's."""
        cells = self._reach(0)
        return CELL * cells + CELL - 1 + max(_LEVEL) // 2 + 1

    def _reach(self, level: int) -> int:
        """In units of that level: head and tail count at the first one."""
        if level == len(self.widths) - 1:
            inner = 2 * self.middle
        else:
            # a coarser unit covers two of these, wherever in it the pixel lies
            inner = 4 * self.blocks[level] + 2 * self._reach(level + 1) + 1
        return inner + (2 if level == 0 else 0)

    @property
    def halo(self) -> int:
        return self.align * math.ceil(self.reach / self.align)


class Block(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.relu(self.first(x)))


class Network(nn.Module):
    """(N, 8, h, w) cells to (N, 4, h, w): the noise of each pixel, in units of its sigma."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        widths, blocks = layout.widths, layout.blocks
        self.head = nn.Conv2d(_INPUTS, widths[0], 3, padding=1, bias=False)
        pairs = list(zip(widths[:-1], widths[1:], blocks, strict=True))
        self.encoders = nn.ModuleList(nn.Sequential(*[Block(a) for _ in range(n)]) for a, _, n in pairs)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b, _ in pairs)
        self.middle = nn.Sequential(*[Block(widths[-1]) for _ in range(layout.middle)])
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b, _ in pairs)
        self.decoders = nn.ModuleList(nn.Sequential(*[Block(a) for _ in range(n)]) for a, _, n in pairs)
        self.tail = nn.Conv2d(widths[0], CELL * CELL, 3, padding=1, bias=False)
        with torch.no_grad():  # a fresh network removes little: training starts near the noisy image
            self.tail.weight.mul_(0.1)
            for block in (m for m in self.modules() if isinstance(m, Block)):
                block.second.weight.mul_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        kept = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            kept.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder, skip in zip(reversed(self.ups), reversed(self.decoders), reversed(kept), strict=True):  # type: ignore[call-overload]
            x = decoder(up(x) + skip)
        return self.tail(x)


class SemDenoiser(nn.Module):
    """Noisy image and noise law in, denoised image out.

    `forward(x, law)`: x (N, 1, H, W) float32, sides multiples of `layout.align`; law (N, 7): gain, offset, floor
    (var = max(gain · level + offset, floor)), centre (a level that is taken out of the image; the median will do),
    correlations of the noise with the first and the second pixel before on the line, and how much noise may stay
    where faint texture may lie in it (0 to 1). Any unit of grey, as long as x and law share it.
    """

    def __init__(self, layout: Layout | None = None) -> None:
        super().__init__()
        self.layout = layout or Layout()
        self.network = Network(self.layout)

    def forward(self, x: Tensor, law: Tensor) -> Tensor:
        cells, sigma = self.cells(x, law)
        removed = self.network(cells)
        # back to float32 before the sum: a residual in bfloat16 errs by its own size, the image does not
        return x - functional.pixel_shuffle(removed.to(x.dtype) * sigma, CELL)

    def cells(self, x: Tensor, law: Tensor) -> tuple[Tensor, Tensor]:
        """What the network sees, and sigma of each cell."""
        gain, offset, floor, centre, *told = (law[:, i].reshape(-1, 1, 1, 1) for i in range(7))
        sigma = self.sigma(x, gain, offset, floor)
        unit = functional.pixel_unshuffle(x - centre, CELL)
        unit = torch.where(sigma > 0, unit / torch.where(sigma > 0, sigma, 1.0), 0.0).clamp(-_LIMIT, _LIMIT)
        ones = torch.ones_like(sigma)
        return torch.cat([unit, ones, *(ones * value for value in told)], dim=1), sigma

    @staticmethod
    def sigma(x: Tensor, gain: Tensor, offset: Tensor, floor: Tensor) -> Tensor:
        """(N, 1, h, w): standard deviation of the noise in each cell."""
        margins = (_LEVEL[0] // 2, _LEVEL[1] // 2)
        level = functional.avg_pool2d(x, _LEVEL, CELL, margins, count_include_pad=False)
        return torch.sqrt(torch.maximum(gain * level + offset, floor).clamp(min=0))

    @property
    def halo(self) -> int:
        return self.layout.halo

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def macs(self) -> float:
        """Multiply-adds of the convolutions a pixel."""
        total = 0.0
        sizes = {id(m): CELL for m in (self.network.head, self.network.tail)}
        for k, group in enumerate(zip(self.network.encoders, self.network.decoders, strict=True)):
            sizes |= {id(m): CELL * 2**k for part in group for m in part.modules()}
        for k, (down, up) in enumerate(zip(self.network.downs, self.network.ups, strict=True)):
            sizes |= {id(down): CELL * 2 ** (k + 1), id(up): CELL * 2 ** (k + 1)}
        sizes |= {id(m): CELL * 2 ** (len(self.layout.widths) - 1) for m in self.network.middle.modules()}
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                total += module.weight.numel() / sizes[id(module)] ** 2
        return total
