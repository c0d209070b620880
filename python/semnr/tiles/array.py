"""Tiles from memory: arrays, tensors, .npy files, sequences and streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .decoding import decode
from .pixels import ACCEPTED, as_pixels, known_dtype, to_numpy
from .planes import PlaneSource, default_id
from .source import Problem, TileKey, TileSource


class ArraySource(PlaneSource):
    """(H, W): a mosaic, cut. (T, H, W): one index a tile. (T, C, H, W) with 1 or 3 channels: the same."""

    def __init__(self, array: np.ndarray, name: str, tile: int | None) -> None:
        if not known_dtype(array.dtype):
            raise TypeError(f"{name} has dtype {array.dtype.name}; accepted: {ACCEPTED}")
        if array.ndim not in (2, 3, 4) or (array.ndim == 4 and array.shape[1] not in (1, 3)):
            raise ValueError(
                f"{name} has shape {array.shape}; accepted: (H, W) which is cut into tiles, "
                "(T, H, W) or (T, C, H, W) with one or three channels, one index a tile"
            )
        if array.size == 0:
            raise ValueError(f"{name} is empty, shape {array.shape}; accepted: at least one tile of one pixel")
        super().__init__(name, tile if array.ndim == 2 else None)
        self._array = array[None] if array.ndim == 2 else array

    def arrays(self) -> list[Any]:
        return [self._array]

    def sizes(self) -> list[tuple[int, int]]:
        return [self._array.shape[-2:]] * len(self._array)  # type: ignore[list-item]

    def window(self, tile: str, plane: int, rows: slice, columns: slice) -> np.ndarray:
        return as_pixels(tile, self._array[plane][..., rows, columns])


def open_array(value: Any, tile: int | None) -> ArraySource:
    """An ndarray or torch tensor, not copied."""
    try:
        array = to_numpy(value)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"source is a tensor that is no NumPy array: {error}; accepted: {ACCEPTED}") from error
    return ArraySource(array, "array", tile)


def open_npy(path: Path, tile: int | None) -> ArraySource:
    """A .npy file, memory-mapped: only the tiles that are read are read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:  # truncated, objects, not a .npy file
        raise ValueError(f"{path} cannot be opened: {error}; accepted: a whole .npy file of {ACCEPTED}") from error
    return ArraySource(array, path.name, tile)


class ImageSource(PlaneSource):
    """One PNG, BMP or JPEG, decoded as a whole on the first read and cut."""

    def __init__(self, path: Path, tile: int | None) -> None:
        from PIL import Image

        super().__init__(path.name, tile)
        self._path = path
        try:
            with Image.open(path) as image:
                self._size = (image.height, image.width)
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} cannot be opened: {error}; accepted: a whole PNG, BMP or JPEG") from error

    @cached_property
    def _pixels(self) -> np.ndarray:
        return decode(self._path)

    def sizes(self) -> list[tuple[int, int]]:
        return [self._size]

    def window(self, tile: str, plane: int, rows: slice, columns: slice) -> np.ndarray:
        return as_pixels(tile, self._pixels[..., rows, columns])


@dataclass(frozen=True)
class _HeldKey(TileKey):
    """A key that carries its pixels: they live exactly as long as the key does."""

    pixels: Any = None


def _item(value: Any, index: int) -> _HeldKey:
    """The key of one item: an array, (id, array) or (id, array, meta)."""
    if isinstance(value, tuple) and len(value) in (2, 3) and isinstance(value[0], str):
        meta = value[2] if len(value) == 3 else None
        if meta is not None and not isinstance(meta, Mapping):
            raise TypeError(f"item {index}: its meta is {type(meta).__name__}; accepted: a mapping")
        return _HeldKey(value[0], index, None, dict(meta or {}), value[1])
    return _HeldKey(default_id(index), index, None, {}, value)


class StreamSource(TileSource):
    """Any iterable of arrays, (id, array) or (id, array, meta): read once, in order, its length unknown.

    Nothing is kept: the pixels of a tile go when its key goes.
    """

    def __init__(self, items: Iterable[Any], name: str = "stream") -> None:
        self.name = name
        self.roles = ("image",)
        self._items: Iterable[Any] | None = items

    def __iter__(self) -> Iterator[TileKey]:
        items, self._items = self._items, None
        if items is None:
            raise ValueError(f"{self.name} was iterated before; a stream of tiles can be read once")
        return (_item(value, index) for index, value in enumerate(items))

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        self._check_role(role)
        if not isinstance(key, _HeldKey):
            raise ValueError(f"tile {key.tile} is not from this stream; accepted: keys got by iterating it")
        return as_pixels(key.tile, key.pixels)

    def find(self, tile: str) -> TileKey | None:
        raise TypeError(
            f"{self.name} is read once, in order, and cannot be searched for tile {tile}; "
            "accepted for pairing: a list, an array, a file or a folder"
        )


class SequenceSource(StreamSource):
    """A list or tuple of the same items: it has a length and can be searched and read again."""

    def __init__(self, items: Sequence[Any], name: str = "sequence") -> None:
        super().__init__(items, name)
        if len(items) == 0:
            raise ValueError(f"{name} is empty; accepted: at least one array, (id, array) or (id, array, meta)")
        keys: dict[str, _HeldKey] = {}
        problems = []
        for index, value in enumerate(items):
            key = _item(value, index)
            if key.tile in keys:
                problems.append(
                    Problem(key.tile, "duplicate", f"item {index} repeats the id of item {keys[key.tile].index}")
                )
            else:
                keys[key.tile] = key
        self._keys = keys
        self.problems = tuple(problems)

    def arrays(self) -> list[Any]:
        return [key.pixels for key in self._keys.values()]

    def __iter__(self) -> Iterator[TileKey]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, tile: str) -> TileKey | None:
        return self._keys.get(tile)
