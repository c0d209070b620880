"""Maps of each tile beside its row: `maps.zarr` in the run, an array (tiles, h, w) a metric, one chunk a tile."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.parquet import MAPS as FOLDER

MAPS = ("ssim", "cnr", "evidence", "image")


def maps_of(given: Sequence[str] | str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    if unknown := [name for name in names if name not in MAPS]:
        raise ValueError(f"maps is {list(names)!r}; accepted: {', '.join(MAPS)}; not {unknown[0]!r}")
    return names


class MapSink:
    """Writes maps by tile index, from any thread. A tile that is scored again replaces its map.

    float32, or "image" in the tiles' dtype. Maps smaller than the largest are padded with NaN, integers with 0.
    """

    def __init__(self, run: Path, names: Sequence[str]) -> None:
        self.names, self._path = tuple(names), run / FOLDER
        self._lock = threading.Lock()
        self._arrays: dict[str, Any] = {}

    def write(self, name: str, index: int, values: np.ndarray) -> None:
        values = values if name == "image" else values.astype(np.float32)
        array = self._array(name, index, values.shape, values.dtype)
        array[index, : values.shape[0], : values.shape[1]] = values

    def _array(self, name: str, index: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        import zarr

        with self._lock:
            if name not in self._arrays:
                if not (self._path / "zarr.json").exists():
                    entry = {"format": "maps", "written": list(self.names)}
                    zarr.create_group(str(self._path), zarr_format=3, attributes={"semnr": entry})
                group = zarr.open_group(str(self._path), mode="r+", zarr_format=3)
                empty: float = np.nan if dtype.kind == "f" else 0
                self._arrays[name] = group.get(name) or group.create_array(
                    name, shape=(0, *shape), chunks=(1, *shape), dtype=dtype, fill_value=empty
                )
            array = self._arrays[name]
            # grown ahead, so that a long stream does not rewrite the metadata for each tile
            length = array.shape[0] if index < array.shape[0] else max(index + 1, 2 * array.shape[0])
            wanted = (length, max(array.shape[1], shape[0]), max(array.shape[2], shape[1]))
            if wanted != array.shape:
                array.resize(wanted)
            return array

    def trim(self, tiles: int) -> None:
        """Cut the spare length off."""
        for array in self._arrays.values():
            array.resize((tiles, *array.shape[1:]))
