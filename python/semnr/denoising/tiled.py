"""Denoising by windows: a window is its tile and the halo around it, from real neighbours wherever there are any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .model import Filter, There

Read = Callable[[slice, slice], np.ndarray]

DEFAULT_TILE = 512  # side of the windows that large images are worked on in


class Tile(NamedTuple):
    top: int
    bottom: int
    left: int
    right: int


class Window(NamedTuple):
    """Rows and columns that are read, how many are mirrored on each side of them, and where the tile lies then."""

    rows: slice
    columns: slice
    margins: tuple[tuple[int, int], tuple[int, int]]
    inner: tuple[slice, slice]


@dataclass(frozen=True)
class Runner:
    """A filter with its halo and the scale that results are brought back to."""

    apply: Filter
    halo: int
    align: int
    data_range: float | None  # of integers
    there: There | None = None  # the filter on its device

    def tile(self, read: Read, shape: tuple[int, int], tile: Tile, name: str) -> np.ndarray:
        """The denoised pixels of one tile of a plane of this shape, in the dtype that `read` gives.

        `read` gets rows and columns and gives (h, w) or (C, h, w). Beyond the border of the plane the pixels are
        mirrored, edge pixel included, by the halo: the same for a tile as for the whole plane.
        """
        rows, columns, margins, inner = self.window(tile, shape)
        raw = np.asarray(read(rows, columns))
        x = raw.astype(np.float64)
        if not np.isfinite(x).all():
            raise ValueError(
                f"{name} has {int((~np.isfinite(x)).sum())} non-finite pixels in rows {rows.start} to {rows.stop - 1}, "
                f"columns {columns.start} to {columns.stop - 1}; accepted: finite values"
            )
        planes = [self.apply(np.pad(plane, margins, "symmetric"))[inner] for plane in x.reshape(-1, *x.shape[-2:])]
        result = np.stack(planes) if x.ndim == 3 else planes[0]
        return as_dtype(result, raw.dtype, self.data_range)

    def window(self, tile: Tile, shape: tuple[int, int]) -> Window:
        """What is read and mirrored for one tile of a plane of this shape."""
        rows, above, below = self._reach(tile.top, tile.bottom, shape[0])
        columns, before, after = self._reach(tile.left, tile.right, shape[1])
        top, left = tile.top - rows.start + above, tile.left - columns.start + before
        inner = (slice(top, top + tile.bottom - tile.top), slice(left, left + tile.right - tile.left))
        return Window(rows, columns, ((above, below), (before, after)), inner)

    def _reach(self, first: int, last: int, side: int) -> tuple[slice, int, int]:
        """Pixels to read for first..last along an axis, and how many are missing before and after them."""
        start = max((first - self.halo) // self.align * self.align, -self.halo)
        stop = last + self.halo
        return slice(max(start, 0), min(stop, side)), max(-start, 0), max(stop - side, 0)


def as_dtype(x: np.ndarray, dtype: np.dtype[Any], data_range: float | None) -> np.ndarray:
    """Integers are rounded and kept inside [0, data_range]; floats are as computed."""
    if dtype.kind == "u":
        x = np.clip(np.rint(x), 0, top_of(dtype, data_range))
    return x.astype(dtype)


def top_of(dtype: np.dtype[Any], data_range: float | None) -> float:
    """The highest value that integers of this dtype are given."""
    return np.iinfo(dtype).max if data_range is None else min(data_range, np.iinfo(dtype).max)


def cut(shape: tuple[int, int], side: int) -> Iterator[Tile]:
    """Tiles of a plane, row by row."""
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            yield Tile(top, min(top + side, shape[0]), left, min(left + side, shape[1]))


def default_workers() -> int:
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
