"""Sources made of planes: a stack with one tile a plane, or mosaics that are cut into tiles."""

from __future__ import annotations

import abc
import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .source import TileKey, TileSource

if TYPE_CHECKING:
    from .instrument import Instrument

# Tiles from so many px on -> how narrow a rest belongs to the tile before it: narrower than SSIM's window, and where
# FSIM works at half the resolution or less, than the 48 px it needs there for every 256 px of the tile.
_WINDOW, _SMALL, _HALVED = 11, 192, 384
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


def tiles_along(side: int, tile: int) -> int:
    """How many tiles a side is cut into. A rest that is too narrow for the metrics belongs to the tile before it;
    tiles of fewer than 192 px are cut as they are asked for.
    """
    whole, rest = divmod(side, tile)
    least = 0 if tile < _SMALL else _WINDOW if tile < _HALVED else 48 * round(tile / 256)
    return max(1, whole if rest < least or not rest else whole + 1)


class PlaneSource(TileSource):
    """Planes, each one tile ("t000003") or cut into tiles of `tile` pixels a side (see `tiles_along` for the last
    ones), named by their place: "r0002_c0005", row and column counted in tiles, after "t000003_" where there are
    several planes.
    """

    def __init__(self, name: str, tile: int | None) -> None:
        self.name = name
        self.roles = ("image",)
        self._tile = tile

    @abc.abstractmethod
    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each plane."""

    @abc.abstractmethod
    def window(self, tile: str, plane: int, rows: slice, columns: slice) -> np.ndarray:
        """Pixels of one window of one plane. Raises TileError."""

    @property
    def is_cut(self) -> bool:
        """Whether its tiles are parts of larger planes, which can be read across their borders."""
        return self._tile is not None

    def _plane_meta(self, plane: int) -> dict[str, Any]:
        return {}

    def instrument_of_plane(self, plane: int) -> Instrument | None:
        """What the file says of a plane beside its pixels; None where it says nothing that a TIFF could keep."""
        return None

    @cached_property
    def _grids(self) -> list[tuple[int, int]]:
        if self._tile is None:
            return [(1, 1)] * len(self.sizes())
        return [(tiles_along(h, self._tile), tiles_along(w, self._tile)) for h, w in self.sizes()]

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
        return self.window(key.tile, *self.place(key))

    def place(self, key: TileKey) -> tuple[int, slice, slice]:
        """(plane, rows, columns) of a tile."""
        if not 0 <= key.index < len(self):
            raise ValueError(f"key.index is {key.index}; {self.name} has tiles 0 to {len(self) - 1}")
        plane = int(np.searchsorted(self._starts, key.index, side="right")) - 1
        (height, width), (down, across) = self.sizes()[plane], self._grids[plane]
        row, column = divmod(key.index - int(self._starts[plane]), across)
        return plane, self._along(row, down, height), self._along(column, across, width)

    def largest(self) -> tuple[int, int]:
        """(H, W) that every tile fits into."""
        longest = [0, 0]
        for sides, counts in zip(self.sizes(), self._grids, strict=True):
            for axis in (0, 1):
                for at in {0, counts[axis] - 1}:
                    span = self._along(at, counts[axis], sides[axis])
                    longest[axis] = max(longest[axis], span.stop - span.start)
        return longest[0], longest[1]

    def _along(self, at: int, count: int, side: int) -> slice:
        """Pixels of the tile `at` of `count` along a side; the last one ends where the side does."""
        tile = self._tile or side
        return slice(at * tile, side if at == count - 1 else (at + 1) * tile)
