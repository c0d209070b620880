"""Sources made of planes: a stack with one tile a plane, or mosaics that are cut into tiles."""

from __future__ import annotations

import abc
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from .source import TileKey, TileSource

_ID = re.compile(r"(?:t(\d+))?_?(?:r(\d+)_c(\d+))?")


def default_id(index: int) -> str:
    return f"t{index:06d}"


def tile_side(tile: int | None) -> int | None:
    """`tile` checked: the side of the tiles that a mosaic is cut into, or None for "do not cut"."""
    if tile is None:
        return None
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 1:
        raise ValueError(f"tile is {tile!r}; accepted: an integer of at least 1, or None (planes are not cut)")
    return tile


class PlaneSource(TileSource):
    """Planes, each one tile ("t000003") or cut into tiles of at most `tile` pixels a side, named by their place:
    "r0002_c0005", row and column counted in tiles, after "t000003_" where there are several planes.
    """

    def __init__(self, name: str, tile: int | None) -> None:
        self.name = name
        self.roles = ("image",)
        self._tile = tile

    @abc.abstractmethod
    def _sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each plane."""

    @abc.abstractmethod
    def _window(self, tile: str, plane: int, rows: slice, columns: slice) -> np.ndarray:
        """Pixels of one window of one plane. Raises TileError."""

    def _plane_meta(self, plane: int) -> dict[str, Any]:
        return {}

    @cached_property
    def _grids(self) -> list[tuple[int, int]]:
        if self._tile is None:
            return [(1, 1)] * len(self._sizes())
        return [(-(-h // self._tile), -(-w // self._tile)) for h, w in self._sizes()]

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([down * across for down, across in self._grids], dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[TileKey]:
        for plane, (down, across) in enumerate(self._grids):
            for place in range(down * across):
                yield self._key(plane, place // across, place % across)

    def _key(self, plane: int, row: int, column: int) -> TileKey:
        index = int(self._starts[plane]) + row * self._grids[plane][1] + column
        meta = self._plane_meta(plane)
        if self._tile is None:
            return TileKey(default_id(plane), index, None, meta)
        prefix = f"{default_id(plane)}_" if len(self._grids) > 1 else ""
        place = {"row_px": row * self._tile, "col_px": column * self._tile}
        return TileKey(f"{prefix}r{row:04d}_c{column:04d}", index, None, {**meta, **place})

    def find(self, tile: str) -> TileKey | None:
        match = _ID.fullmatch(tile)
        if match is None:
            return None
        plane, row, column = (int(group or 0) for group in match.groups())
        if plane >= len(self._grids) or row >= self._grids[plane][0] or column >= self._grids[plane][1]:
            return None
        key = self._key(plane, row, column)
        return key if key.tile == tile else None

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        self._check_role(role)
        if not 0 <= key.index < len(self):
            raise ValueError(f"key.index is {key.index}; {self.name} has tiles 0 to {len(self) - 1}")
        plane = int(np.searchsorted(self._starts, key.index, side="right")) - 1
        height, width = self._sizes()[plane]
        if self._tile is None:
            return self._window(key.tile, plane, slice(0, height), slice(0, width))
        row, column = divmod(key.index - int(self._starts[plane]), self._grids[plane][1])
        top, left = row * self._tile, column * self._tile
        rows, columns = slice(top, min(height, top + self._tile)), slice(left, min(width, left + self._tile))
        return self._window(key.tile, plane, rows, columns)
