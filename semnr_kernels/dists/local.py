"""A map of DISTS: the distance of the windows about each place, from the sums of cells of 16 pixels.

A window is a square of an odd number of cells, cut where the image ends. Each stage adds what its channels differ in
there; a window that covers the image gives the score.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .sums import CELL, COUNT, cell_sums, products, similarities


class LocalMap:
    """What one map (the image or a stage) adds to the map of DISTS, row of cells by row of cells."""

    def __init__(
        self, columns: int, cell: int, window: int, near: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor
    ) -> None:
        self.columns, self.cell = columns, cell  # cells across the image; positions across a cell
        self.reach = window // 2  # cells to each side of the one in the middle
        self.near, self.alpha, self.beta = near, alpha, beta
        self.cells: torch.Tensor | None = None  # rows [top, ...) of cells
        self.top = self.made = 0
        self.rows: list[torch.Tensor] = []  # (count, r, columns) each

    def room(self, first: int, rows: int) -> torch.Tensor:
        """The sums of `rows` rows of cells from `first` on, to be added to: (count, rows, columns, 6, C)."""
        stop = first + rows - self.top
        held = 0 if self.cells is None else self.cells.shape[1]
        if held < stop:
            more = torch.zeros(
                (self.near.shape[0], stop - held, self.columns, COUNT, self.near.shape[-1]),
                dtype=torch.float64,
                device=self.near.device,
            )
            self.cells = more if self.cells is None else torch.cat((self.cells, more), dim=1)
        assert self.cells is not None
        return self.cells[:, first - self.top : stop]

    def advance(self, *, last: bool) -> None:
        """Everything that `room` gave is complete: make the rows whose windows are."""
        assert self.cells is not None
        bottom = self.top + self.cells.shape[1]
        end = bottom if last else bottom - self.reach
        if end > self.made:
            across = _windows(self.cells, self.reach, 2, 0, self.columns)
            summed = _windows(across, self.reach, 1, self.made - self.top, end - self.top)
            self.rows.append(_weighed(self.near, summed, self.alpha, self.beta))
            self.made = end
        keep = max(self.top, self.made - self.reach)
        self.cells = None if last else self.cells[:, keep - self.top :]
        self.top = keep

    def values(self) -> torch.Tensor:
        """(count, rows, columns) of cells."""
        return torch.cat(self.rows, dim=1)


def cell_of(number: int) -> int:
    """Positions across a cell of map `number`: the image, then the stages."""
    return CELL >> max(0, number - 1)


def local_map(
    number: int,
    x: torch.Tensor,
    y: torch.Tensor,
    share: torch.Tensor | None,
    alpha: torch.Tensor,
    beta: torch.Tensor,
    window: int,
) -> torch.Tensor:
    """What map `number` adds, from whole maps (n, C, h, w): (n, rows, columns) of cells."""
    near = torch.stack((x[:, :, 0, 0], y[:, :, 0, 0]), dim=1).detach().double()
    sums = cell_sums(products(x, y, share, near), cell_of(number))
    for dim in (1, 2):
        sums = _windows(sums, window // 2, dim, 0, sums.shape[dim])
    return _weighed(near, sums, alpha, beta)


def _weighed(near: torch.Tensor, sums: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    luminance, texture = similarities(near[:, None, None], sums)
    return ((1 - luminance) * alpha).sum(-1) + ((1 - texture) * beta).sum(-1)


def _windows(cells: torch.Tensor, reach: int, dim: int, start: int, stop: int) -> torch.Tensor:
    """Sums over [i - reach, i + reach], as far as there are cells, for i in [start, stop)."""
    size = cells.shape[dim]
    if stop - start == 1 or reach * 2 + 1 > 9:
        sums = cells.cumsum(dim)
        sums = torch.cat((torch.zeros_like(sums.narrow(dim, 0, 1)), sums), dim)
        at = torch.arange(start, stop, device=cells.device)
        return sums.index_select(dim, (at + reach + 1).clamp(max=size)) - sums.index_select(
            dim, (at - reach).clamp(min=0)
        )
    total = torch.zeros_like(cells.narrow(dim, start, stop - start))
    for shift in range(-reach, reach + 1):
        low, high = max(start, -shift), min(stop, size - shift)
        if high > low:
            total.narrow(dim, low - start, high - low).add_(cells.narrow(dim, low + shift, high - low))
    return total


def upsampled(cells: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A value a cell, (n, rows, columns), as a map of the image: bilinear between the middles of the cells."""
    return F.interpolate(cells[:, None], scale_factor=CELL, mode="bilinear")[:, :, :height, :width]
