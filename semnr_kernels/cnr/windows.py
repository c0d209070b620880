"""The lowest windows of a map, as rectangles of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import checks


@dataclass(frozen=True)
class Window:
    """One window of a map, with the pixels that it covers.

    Attributes
    ----------
    image : int
        Index of the image in the batch.
    row, column : int
        Where in the map.
    top, left, bottom, right : int
        The rectangle of pixels [top, bottom) × [left, right) of the image.
    value : float
        The value of the map there.

    Examples
    --------
    >>> [window] = kernels.cnr.worst_windows(kernels.cnr.cnr_map(x, y), window=64, stride=32, count=1)
    >>> window.top, window.left, window.bottom, window.right, round(window.value, 1)
    (0, 96, 64, 160, 56.6)
    """

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
    """The lowest finite windows of a map of `cnr_map`, lowest first.

    Any map of `cnr_map` is accepted, also `contrast_retention`. Equal windows stand in reading order.

    Parameters
    ----------
    values : Tensor, (N, rows, columns) or (rows, columns)
        The map.
    window, stride : int or (int, int)
        Those with which the map was made: rows and columns, in pixels.
    count : int
        How many windows to list, at least 0.

    Returns
    -------
    tuple of Window
        At most `count`.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.

    Examples
    --------
    >>> ratios = kernels.cnr.cnr_map(x, y)
    >>> [(w.row, w.column) for w in kernels.cnr.worst_windows(ratios, window=64, stride=32, count=2)]
    [(0, 3), (1, 3)]
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
