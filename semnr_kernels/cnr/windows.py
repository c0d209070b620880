"""The lowest windows of a map, as rectangles of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import checks


@dataclass(frozen=True)
class Window:
    """One window of a map: pixels [top, bottom) × [left, right) of `image`."""

    image: int
    row: int
    column: int
    top: int
    left: int
    bottom: int
    right: int
    value: float


def worst_windows(
    values: torch.Tensor, *, window: int | tuple[int, int], stride: int | tuple[int, int], count: int = 5
) -> tuple[Window, ...]:
    """The `count` lowest finite windows, lowest first, of a (N, rows, columns) or (rows, columns) map.

    Works on any map of `cnr_map`, `contrast_retention` included. Ties: first in reading order.
    """
    if not isinstance(values, torch.Tensor) or values.ndim not in (2, 3):
        shape = getattr(values, "shape", type(values).__name__)
        raise TypeError(f"values is {shape}; accepted: a map, (N, rows, columns) or (rows, columns)")
    height, width = checks.sides("window", window)
    down, right = checks.sides("stride", stride)
    count = checks.integer("count", count, 0)
    flat = values.detach().flatten()
    order = torch.argsort(torch.where(torch.isfinite(flat), flat, torch.inf), stable=True)
    keep = order[: min(count, int(torch.isfinite(flat).sum()))].tolist()
    rows, columns = values.shape[-2:]
    worst = []
    for at in keep:
        image, rest = divmod(at, rows * columns)
        row, column = divmod(rest, columns)
        top, left = row * down, column * right
        value = float(values.reshape(-1, rows, columns)[image, row, column])
        worst.append(Window(image, row, column, top, left, top + height, left + width, value))
    return tuple(worst)
