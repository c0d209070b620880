"""The tile stack: a Zarr v3 group, one array a role, one chunk a tile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .owned import clear_zarr, written_arrays, zarr_files
from .planes import default_id
from .source import TileKey
from .writer import BaseWriter, explained_full, refuse
from .zarr import ABSENT


class ZarrWriter(BaseWriter):
    """zarr's local store writes a chunk to a temporary file and renames it (since 3.1.3): a tile is whole or absent.

    Every chunk is stored, also one of zeros, so that an absent chunk means a tile that was never written.
    """

    def __init__(self, out: Path, *, compress: bool = True, **options: Any) -> None:
        self._owned = {*(written_arrays(out) or ()), *options["roles"]}
        super().__init__(out, **options)
        self._compress = compress
        self._arrays: dict[str, Any] = {role: array for role, array in self._group.arrays() if role in self._roles}
        with explained_full(out, "create"):
            self._mark()
            if self._shape is not None:
                for role, dtype in self._dtypes.items():
                    if role not in self._arrays:
                        self._create(role, dtype)

    def _journal_folder(self) -> Path:
        """Inside columns/, where listing the arrays of the stack does not meet a file that is not Zarr's."""
        import zarr

        if not (self._out / "zarr.json").exists():  # with its mark from the first moment on
            zarr.create_group(str(self._out), zarr_format=3, attributes={"semnr": self._entry()})
        self._group = zarr.open_group(str(self._out), mode="r+", zarr_format=3)
        self._group.require_group("columns")
        return self._out / "columns"

    def _entry(self) -> dict[str, Any]:
        numbers = {"version": 1, "pixel_nm": self._pixel_nm, "data_range": self._data_range}
        plain = {name: None if value is None else plain_number(value) for name, value in numbers.items()}
        return {"format": "tile-stack", **plain, "written": sorted(self._owned)}

    def _mark(self) -> None:
        """What this is, and which of its arrays are ours; others may have added attributes since it was opened."""
        import zarr

        zarr.open_group(str(self._out), mode="r+").attrs["semnr"] = self._entry()

    def _create(self, role: str, dtype: np.dtype[Any]) -> None:
        from zarr.codecs import ZstdCodec

        assert self._shape is not None
        self._arrays[role] = self._group.create_array(
            role,
            shape=(self._count or 0, *self._shape),
            chunks=(1, *self._shape),
            dtype=dtype,
            # the checksum tells damage from pixels
            compressors=[ZstdCodec(level=1, checksum=True)] if self._compress else None,
            fill_value=0,
            attributes=dict(ABSENT),
            config={"write_empty_chunks": True},
        )

    def _fit(self, key: TileKey, pixels: np.ndarray) -> tuple[int, int] | None:
        if pixels.ndim != 2:
            raise ValueError(f"tile {key.tile} has shape {pixels.shape}; accepted: (H, W) (RGB goes to a TIFF folder)")
        if self._shape is None:
            self._shape = pixels.shape
        height, width = pixels.shape
        if height > self._shape[0] or width > self._shape[1]:
            raise ValueError(
                f"tile {key.tile} has shape {pixels.shape}; accepted: up to {self._shape}, the shape= of create_tiles "
                "or, where that is None, of the first tile"
            )
        return None if pixels.shape == self._shape else (height, width)

    def _store(self, key: TileKey, pixels: np.ndarray, role: str) -> None:
        with self._lock:
            if role not in self._arrays:
                self._create(role, self._dtypes[role])
            array = self._arrays[role]
            if key.index >= array.shape[0]:
                array.resize((int(key.index) + 1, *array.shape[1:]))
        if pixels.shape != array.shape[1:]:
            padded = np.zeros(array.shape[1:], pixels.dtype)
            padded[: pixels.shape[0], : pixels.shape[1]] = pixels
            pixels = padded
        array[int(key.index)] = pixels  # one chunk, no other thread's

    def _describe(self) -> None:
        length = max((array.shape[0] for array in self._arrays.values()), default=0)
        for array in self._arrays.values():
            if array.shape[0] < length:  # roles of one stack are equally long
                array.resize((length, *array.shape[1:]))
        rows = dict(self._written())
        names = list(dict.fromkeys(name for row in rows.values() for name in row.meta))
        columns: dict[str, list[Any]] = {
            name: [rows[i].meta.get(name) if i in rows else None for i in range(length)] for name in names
        }
        if any(row.tile != default_id(index) for index, row in rows.items()):
            columns["tile"] = [rows[i].tile if i in rows else None for i in range(length)]
        if any(row.size for row in rows.values()):
            sizes = [(rows[i].size if i in rows else None) or self._shape for i in range(length)]
            columns["tile_height"], columns["tile_width"] = ([size[k] for size in sizes if size] for k in (0, 1))
        self._owned |= {f"columns/{name}" for name in columns}
        self._mark()
        group = self._group.require_group("columns")
        for name, values in columns.items():
            group.create_array(name, data=as_column(values), overwrite=True)


def make_room(out: Path, overwrite: bool, resume: bool, roles: Sequence[str]) -> bool:
    """Whether a run is resumed at `out`. Refuses what is another's; deletes what is ours where that is asked for."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"out is {out}, a file; accepted: a folder that does not exist yet")
    there = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else []
    if "columns" in there and "zarr.json" not in there and zarr_files(out, ())[1] is None:
        there = []  # a lock, and perhaps the torso of zarr.json that a kill left: nothing was begun
    if not there:
        return False
    written = written_arrays(out)
    if written is None:
        refuse(out, ", ".join(there[:3]), ours=False)
    if resume:
        if written and (others := [role for role in roles if role in there and role not in written]):
            refuse(out, others[0], ours=False)
        return True
    files, stranger = zarr_files(out, written)
    if stranger is not None:
        refuse(out, stranger, ours=False)
    if not overwrite:
        refuse(out, ", ".join(there[:3]), ours=True)
    clear_zarr(out, files)
    return False


def plain_number(value: Any) -> Any:
    return value if isinstance(value, str | int) else float(value)


def as_column(values: Sequence[Any]) -> np.ndarray:
    """int64 where all are integers, float64 (None as NaN) where all are numbers, else UTF-8 rows (T, bytes)."""
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, int) and abs(value) < 2**53 for value in present):
        if len(present) == len(values):
            return np.array(values, np.int64)
        return np.array([np.nan if value is None else value for value in values], np.float64)
    if all(isinstance(value, int | float) for value in present):
        return np.array([np.nan if value is None else float(value) for value in values], np.float64)
    rows = [b"" if value is None else str(value).encode() for value in values]
    width = max((len(row) for row in rows), default=0) or 1
    return np.frombuffer(b"".join(row.ljust(width, b"\0") for row in rows), np.uint8).reshape(len(rows), width)
