"""The plain engine: what `stream` asks of a backend, in torch, on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..convolution import conv2d
from . import sums
from .network import POOL_EPS, Network, hann_mean
from .stream import Rectangle
from .sums import Into


class Torch:
    """See `stream.Engine`."""

    memory_format = torch.contiguous_format

    def layer(
        self, network: Network, stage: int, layer: int, h: torch.Tensor, padding: tuple[int, int]
    ) -> torch.Tensor:
        layers = network.stages[stage]
        made = conv2d(h, *layers[layer], padding=padding)
        return made if layer == len(layers) - 1 else F.relu_(made)

    def finish(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None,
        at: Rectangle,
        share: torch.Tensor | None,
        into: Into | None,
        pooled: tuple[torch.Tensor | None, torch.Tensor | None],
        kept: torch.Tensor | None,
    ) -> None:
        rows, columns = slice(at.row, at.row + at.rows), slice(at.column, at.column + at.columns)
        maps = [None if v is None else self.rectified(v) for v in (x, y)]
        for h, to in zip(maps, pooled, strict=True):
            if h is not None and to is not None:
                to.copy_(self.pool(h, at))
        x, y = (v if h is None else h[:, :, rows, columns] for v, h in zip((x, y), maps, strict=True))  # type: ignore[assignment]
        if kept is not None:
            kept.copy_(x)
        if into is not None and y is not None:
            counted = slice(at.start, at.stop)
            self.planes(x[..., counted], y[..., counted], None if share is None else share[..., counted], into)

    def rectified(self, h: torch.Tensor) -> torch.Tensor:
        """With the ReLU of a stage's last convolution, which `layer` left out."""
        return F.relu(h)

    def pool(self, h: torch.Tensor, at: Rectangle) -> torch.Tensor:
        wide = h.to(torch.float64 if h.dtype == torch.float64 else torch.float32)
        # what is missing of the first and the last window lies beyond the image
        padding = (1 - at.column, at.columns % 2, 1 - at.row, at.rows % 2)
        return (hann_mean(F.pad(wide * wide, padding), padding=0) + POOL_EPS).sqrt()

    def planes(
        self, x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None, into: Into, scale: float = 1.0
    ) -> None:
        sums.add(into, x, y, share, scale)
