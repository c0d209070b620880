"""What is kept of two maps: six sums a channel, from which the similarities of means and of variances follow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

CELL = 16  # pixels: side of the squares whose sums make a map of DISTS
COUNT = 6  # weight, a, b, a², b², a b, with a and b counted from a value near the channel's mean
C1 = C2 = 1e-6  # Ding 2020, eq. 6 and 7


@dataclass(frozen=True)
class Into:
    """Where a backend adds the sums of some images; float64 throughout."""

    near: torch.Tensor  # (n, 2, C)
    totals: torch.Tensor  # (n, 6, C)
    fresh: bool  # `near` is not set yet
    cells: torch.Tensor | None  # (n, rows, columns, 6, C) of squares of `cell` positions
    cell: int


class Sums:
    """The sums of one map of each pair of a job, as they grow."""

    def __init__(self, count: int, channels: int, device: torch.device) -> None:
        self.near = torch.zeros((count, 2, channels), dtype=torch.float64, device=device)
        self.totals = torch.zeros((count, COUNT, channels), dtype=torch.float64, device=device)
        self._begun: set[int] = set()

    def of(self, some: slice, cells: torch.Tensor | None = None, cell: int = 0) -> Into:
        fresh = some.start not in self._begun
        self._begun.add(some.start)
        return Into(self.near[some], self.totals[some], fresh, cells, cell)

    def similarities(self) -> tuple[torch.Tensor, torch.Tensor]:
        return similarities(self.near, self.totals)


def similarities(near: torch.Tensor, totals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarity of the means and of the variances, (..., C) each; NaN where the weight is 0."""
    weight, a, b, aa, bb, ab = totals.unbind(-2)
    ma, mb = a / weight, b / weight
    mean_x, mean_y = near.select(-2, 0) + ma, near.select(-2, 1) + mb
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    variances = (aa / weight - ma * ma) + (bb / weight - mb * mb)
    return luminance, (2 * (ab / weight - ma * mb) + C2) / (variances + C2)


def products(x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None, near: torch.Tensor) -> torch.Tensor:
    """The six numbers at each position of two maps, (n, 6, C, h, w), of which each position counts by its share."""
    a, b = (v.double() - near[:, i, :, None, None] for i, v in enumerate((x, y)))
    w = torch.ones_like(a[:, :1]) if share is None else share
    return torch.stack((w.expand_as(a), w * a, w * b, w * a * a, w * b * b, w * a * b), dim=1)


def cell_sums(each: torch.Tensor, cell: int) -> torch.Tensor:
    """(n, 6, C, h, w) summed over squares, the last ones cut: (n, rows, columns, 6, C)."""
    n, k, c, h, w = each.shape
    down, across = -(-h // cell), -(-w // cell)
    wide = F.pad(each, (0, across * cell - w, 0, down * cell - h))
    return wide.reshape(n, k, c, down, cell, across, cell).sum(dim=(4, 6)).permute(0, 3, 4, 1, 2)


def add(into: Into, x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None, scale: float = 1.0) -> None:
    """Add two maps, (n, C, h, w), times `scale`; in torch, on any device."""
    channels = into.totals.shape[-1]
    x, y = (v.double().expand(-1, channels, -1, -1) * scale for v in (x, y))
    if into.fresh:
        into.near.copy_(torch.stack((x[:, :, 0, 0], y[:, :, 0, 0]), dim=1))
    each = products(x, y, share, into.near)
    into.totals.add_(each.sum(dim=(3, 4)))
    if into.cells is not None:
        into.cells.add_(cell_sums(each, into.cell))
