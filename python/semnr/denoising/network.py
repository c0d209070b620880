"""The network behind `semnr-small`: a small residual U-Net of plain convolutions that sees noise of variance 1.

Family: residual U-Nets of bias-free convolutions conditioned on the noise (FFDNet, doi 10.1109/TIP.2018.2839891;
DRUNet, doi 10.1109/TPAMI.2021.3088914; bias-free networks, arXiv 1906.05478), on 2 x 2 cells of pixels. There is no
normalisation layer and no global pooling: each output pixel depends on a window of known size, so that tiles with
that halo give the result of the whole.

The network never sees grey levels, and no noise but of variance 1. With the noise law var = gain · level + offset
the image enters through the variance-stabilising transform (Anscombe, doi 10.1093/biomet/35.3-4.246; with read noise:
Starck, Murtagh and Bijaoui 1998), z = 2 (s(x) − s(centre)) / gain with s² the law's variance at a pixel; what the
network takes from z is taken from x by that transform's inverse. So any gain and offset of the recording cancels, a
noise that grows with the signal is one noise on either side of an edge, and where there is no noise (an image of
zeros) nothing is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..base.jsonable import from_plain

CELL = 2  # pixels a side of a cell; the network works on cells
_PIXELS = CELL * CELL
_INPUTS = _PIXELS + 3  # the pixels of a cell, the noise's sigma (1 by construction), its correlations
_ANSCOMBE = 3 / 8
_GRAIN_REACH = 4  # cells: two convolutions, and half of five for the mean
_SHY = 2.0  # a fresh part gives back little: sigmoid(-2)
# px: Gaussians that part the removed noise; below the first, texture cannot be told from it
_BANDS = (0.7, 1.2, 2.0, 3.2)
_MOST = 2.0  # of a band: what the finest one loses, the next makes up for
# axes of the mirrored copies that `ensemble` averages over; not turned by 90 degrees: the noise runs along the lines
_MIRRORED: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
_LIMIT = 1e4  # sigma units beyond which a pixel is no signal of a recording; keeps float32 and bfloat16 finite


@dataclass(frozen=True)
class Layout:
    """Channels at each resolution (cells, pairs of cells, ...), residual blocks on each but the last, and there;
    channels of the part that gives texture back."""

    widths: tuple[int, ...] = (32, 96)
    blocks: tuple[int, ...] = (2,)
    middle: int = 4
    grain: int = 32

    def __post_init__(self) -> None:
        whole = (*self.widths, *self.blocks, self.middle, self.grain)
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
        """Pixels around a pixel that its result can depend on."""
        return CELL * self._reach(0) + CELL - 1

    def _reach(self, level: int) -> int:
        """In units of that level: head and tail count at the first one."""
        if level == len(self.widths) - 1:
            inner = 2 * self.middle
        else:
            # a coarser unit covers two of these, wherever in it the pixel lies
            inner = 4 * self.blocks[level] + 2 * self._reach(level + 1) + 1
        return inner + (2 + _GRAIN_REACH if level == 0 else 0)

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


class Grain(nn.Module):
    """What of the removed noise is to stay where faint texture may lie in it: (N, 4, h, w).

    A share of each band of it in each neighbourhood, at most twice the band; what is finer than all bands stays out.
    Nothing flows back from here into the network before: who wants the least error does not pay for texture.
    """

    taps: Tensor

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        # with biases, unlike the rest: a share is bounded whatever it sees
        self.look = nn.Sequential(
            nn.Conv2d(features + 2 * _PIXELS, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, len(_BANDS), 1),
            # a share of a neighbourhood: pixel by pixel it would follow the noise itself
            nn.AvgPool2d(5, 1, 2, count_include_pad=False),
        )
        at = torch.arange(-CELL * _GRAIN_REACH, CELL * _GRAIN_REACH + 1)
        taps = torch.exp(-0.5 * (at / torch.tensor(_BANDS)[:, None]) ** 2)
        self.register_buffer("taps", (taps / taps.sum(dim=1, keepdim=True))[:, None, None], persistent=False)

    def forward(self, features: Tensor, cells: Tensor, removed: Tensor) -> Tensor:
        removed = removed.detach()
        seen = torch.cat([features.detach(), cells[:, :_PIXELS], removed], dim=1)
        shares = _MOST * torch.sigmoid(self.look(seen) - _SHY)
        shares = functional.interpolate(shares, scale_factor=CELL)
        stays = shares * self.bands(functional.pixel_shuffle(removed, CELL))
        return functional.pixel_unshuffle(stays.sum(dim=1, keepdim=True), CELL)

    def bands(self, pixels: Tensor) -> Tensor:
        """(N, 1, H, W) to (N, 4, H, W), fine to coarse."""
        taps, n = self.taps.to(pixels.dtype), self.taps.shape[-1] // 2
        smooth = functional.conv2d(pixels, taps, padding=(0, n))
        smooth = functional.conv2d(smooth, taps.transpose(2, 3), padding=(n, 0), groups=len(_BANDS))
        return torch.cat([smooth[:, :-1] - smooth[:, 1:], smooth[:, -1:]], dim=1)


class Network(nn.Module):
    """(N, 7, h, w) cells to features and (N, 4, h, w): the noise of each pixel, in units of its sigma."""

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
        self.tail = nn.Conv2d(widths[0], _PIXELS, 3, padding=1, bias=False)
        with torch.no_grad():  # a fresh network removes little: training starts near the noisy image
            self.tail.weight.mul_(0.1)
            for block in (m for m in self.modules() if isinstance(m, Block)):
                block.second.weight.mul_(0.3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.head(x)
        kept = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            kept.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder, skip in zip(reversed(self.ups), reversed(self.decoders), reversed(kept), strict=True):  # type: ignore[call-overload]
            x = decoder(up(x) + skip)
        return x, self.tail(x)


class SemDenoiser(nn.Module):
    """Noisy image and noise law in, denoised image out.

    `forward(x, law)`: x (N, 1, H, W) float32, sides multiples of `layout.align`; law (N, 7): gain, offset, floor
    (var = max(gain · level + offset, floor)), centre (a level that is taken out of the image; the median will do),
    correlations of the noise with the first and the second pixel before on the line, and how much noise may stay
    where faint texture may lie in it (0 to 1). Any unit of grey, as long as x and law share it. `plain` is the same
    for a last entry of 0, and spares the part that it asks for.

    With an `ensemble` of 2 or 4 the noise is the mean of what the network finds in that many mirrored copies of the
    stabilised image (self-ensemble: Timofte, Rothe and Van Gool, doi 10.1109/CVPR.2016.206): the errors that depend on
    how a copy lies average out. It costs the network once for each copy.
    """

    def __init__(self, layout: Layout | None = None, ensemble: int = 1) -> None:
        super().__init__()
        self.layout, self.ensemble = layout or Layout(), ensemble
        self.network = Network(self.layout)
        self.grain = Grain(self.layout.widths[0], self.layout.grain)

    def averaging(self, ensemble: int) -> SemDenoiser:
        """The same weights, not copied, with another ensemble."""
        if ensemble == self.ensemble:
            return self
        made = SemDenoiser(self.layout, ensemble)
        made.network, made.grain = self.network, self.grain
        return made.train(self.training)

    def removed(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the cells as they lie, and the noise of each pixel in units of its sigma."""
        features, removed = self.network(cells)
        for axes in _MIRRORED[1 : self.ensemble]:
            removed = removed + _mirrored(self.network(_mirrored(cells, axes))[1], axes)
        return features, removed / self.ensemble

    def forward(self, x: Tensor, law: Tensor) -> Tensor:
        cells, sigma, gain = self.cells(x, law)
        features, removed = self.removed(cells)
        stays = law[:, 6].reshape(-1, 1, 1, 1) * self.grain(features, cells, removed)
        return _without(x, removed - stays, sigma, gain)

    def plain(self, x: Tensor, law: Tensor) -> Tensor:
        cells, sigma, gain = self.cells(x, law)
        _, removed = self.removed(cells)
        return _without(x, removed, sigma, gain)

    def both(self, x: Tensor, law: Tensor, asking: int) -> tuple[Tensor, Tensor]:
        """For training: the images with no texture asked for, and the first `asking` of them with all of it."""
        cells, sigma, gain = self.cells(x, law)
        features, removed = self.network(cells)
        first = slice(asking)
        stays = self.grain(features[first], cells[first], removed[first])
        textured = _without(x[first], removed[first].detach() - stays, sigma[first], gain[first])
        return _without(x, removed, sigma, gain), textured

    def cells(self, x: Tensor, law: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the network sees (N, 7, H/2, W/2), the noise's sigma at each pixel, and the gain."""
        gain, offset, floor, centre, *told = (law[:, i].reshape(-1, 1, 1, 1) for i in range(6))
        sigma, middle = (self.sigma(level, gain, offset, floor) for level in (x, centre))
        # 2 (sigma − middle) / gain, written so that it holds for a gain of 0, where it is (x − centre) / sigma
        whole = sigma + middle
        z = torch.where(whole > 0, 2 * (x - centre) / torch.where(whole > 0, whole, 1.0), 0.0).clamp(-_LIMIT, _LIMIT)
        unit = functional.pixel_unshuffle(z, CELL)
        ones = torch.ones_like(unit[:, :1])
        return torch.cat([unit, ones, *(ones * value for value in told)], dim=1), sigma, gain

    @staticmethod
    def sigma(level: Tensor, gain: Tensor, offset: Tensor, floor: Tensor) -> Tensor:
        """Standard deviation of the noise at a level."""
        variance = torch.maximum(gain * level + offset, floor).clamp(min=0)
        return torch.sqrt(variance + _ANSCOMBE * gain**2)

    @property
    def halo(self) -> int:
        return self.layout.halo

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def macs(self, textured: bool = False) -> float:
        """Multiply-adds of the convolutions a pixel, of all copies of the ensemble."""
        total = 0.0
        sizes = {id(m): CELL for m in (self.network.head, self.network.tail)}
        for k, group in enumerate(zip(self.network.encoders, self.network.decoders, strict=True)):
            sizes |= {id(m): CELL * 2**k for part in group for m in part.modules()}
        for k, (down, up) in enumerate(zip(self.network.downs, self.network.ups, strict=True)):
            sizes |= {id(down): CELL * 2 ** (k + 1), id(up): CELL * 2 ** (k + 1)}
        sizes |= {id(m): CELL * 2 ** (len(self.layout.widths) - 1) for m in self.network.middle.modules()}
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                total += self.ensemble * module.weight.numel() / sizes[id(module)] ** 2
        looks = [m for m in self.grain.modules() if isinstance(m, nn.Conv2d)] if textured else []
        return total + sum(look.weight.numel() for look in looks) / CELL**2


def _mirrored(v: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Cells of the image mirrored along `axes`; of the channels the pixels of a cell come first, row by row."""
    pixels = [row * CELL + column for row in _order(-2 in axes) for column in _order(-1 in axes)]
    return v[:, pixels + list(range(_PIXELS, v.shape[1]))].flip(axes)


def _order(reverse: bool) -> list[int]:
    return list(range(CELL))[:: -1 if reverse else 1]


def _without(x: Tensor, removed: Tensor, sigma: Tensor, gain: Tensor) -> Tensor:
    """The image without noise that was taken from its stabilised values: x(z) − x(z − removed) is the mean of both
    ends' sigma times the step between them."""
    # back to float32 before the sum: a residual in bfloat16 errs by its own size, the image does not
    removed = functional.pixel_shuffle(removed.to(x.dtype), CELL)
    return x - removed * (sigma - 0.25 * gain * removed)
