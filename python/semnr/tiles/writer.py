"""Writing tiles: what both forms, the Zarr tile stack and the TIFF folder, have in common."""

from __future__ import annotations

import abc
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from semnr_kernels.errors import TileError

from .journal import Journal, plain
from .pixels import ACCEPTED, as_pixels, known_dtype
from .source import ROLES, TileKey, TileSource, TileWriter

_NOT_META = frozenset((*ROLES, "path", "tile", "tile_height", "tile_width"))


class Row:
    """What is known of a tile that was written."""

    __slots__ = ("meta", "roles", "size", "tile")

    def __init__(self, tile: str) -> None:
        self.tile = tile
        self.meta: dict[str, Any] = {}
        self.roles: set[str] = set()
        self.size: tuple[int, int] | None = None  # where it is smaller than the others


class BaseWriter(TileWriter):
    """Checks, bookkeeping and the journal; a form says how pixels and, at the end, the rows are stored."""

    def __init__(
        self,
        out: Path,
        *,
        count: int | None,
        shape: Sequence[int] | None,
        dtype: Any,
        roles: Sequence[str],
        pixel_nm: float | None,
        data_range: float | None,
        before: TileSource | None = None,
    ) -> None:
        self._before = before  # what an interrupted run left at `out`
        self._out, self._count, self._roles = out, count, tuple(roles)
        self._pixel_nm, self._data_range = pixel_nm, data_range
        self._shape = None if shape is None else tuple(int(n) for n in shape)
        self._dtypes: dict[str, np.dtype[Any]] = {} if dtype is None else dict.fromkeys(roles, np.dtype(dtype))
        self._rows: dict[int, Row] = {}
        self._index_of: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closed = False
        with explained_full(out, "create"):
            out.mkdir(parents=True, exist_ok=True)
            self._journal = Journal(self._journal_folder())

    def _journal_folder(self) -> Path:
        return self._out

    def claim(self, name: str) -> Path:
        return self._out / name

    @abc.abstractmethod
    def _store(self, key: TileKey, pixels: np.ndarray, role: str) -> None:
        """Store the pixels, whole or not at all."""

    @abc.abstractmethod
    def _describe(self) -> None:
        """Store the rows."""

    def _fit(self, key: TileKey, pixels: np.ndarray) -> tuple[int, int] | None:
        """Refuse pixels that this form cannot hold; the size where it has to be recorded. Called with the lock held."""
        return None

    def write(self, key: TileKey, pixels: np.ndarray, role: str = "image") -> None:
        """Store one tile; `key.index` is its place, `key.meta` becomes columns. See `create_tiles` for the errors."""
        if role not in self._roles:
            raise ValueError(f"role is {role!r}; accepted (roles of create_tiles): {', '.join(map(repr, self._roles))}")
        try:
            pixels = as_pixels(key.tile, pixels)
        except TileError as error:
            raise ValueError(f"pixels: {error}") from error
        if isinstance(key.index, bool) or not isinstance(key.index, int | np.integer) or key.index < 0:
            raise ValueError(f"key.index is {key.index!r}; accepted: an integer of at least 0")
        if self._count is not None and key.index >= self._count:
            raise ValueError(f"key.index is {key.index}; accepted (count={self._count}): 0 to {self._count - 1}")
        _check_id(key.tile)
        meta = {name: plain(value) for name, value in key.meta.items() if name not in _NOT_META}
        with explained_full(self._out, f"write tile {key.tile} ({role})"):
            with self._lock:
                self._register(key, pixels, role, meta)
            self._store(key, pixels, role)
        with self._lock:
            self._rows.setdefault(key.index, Row(key.tile)).roles.add(role)

    def keep(self, key: TileKey, role: str = "image") -> bool:
        """Read back, so that a damaged tile is written anew."""
        earlier = None if self._before is None else self._before.find(key.tile)
        if self._before is None or earlier is None:
            return False
        try:
            pixels = self._before.read(earlier, role)
        except TileError:
            return False
        with self._lock:
            self._register(key, pixels, role, {n: plain(value) for n, value in key.meta.items() if n not in _NOT_META})
            self._rows[key.index].roles.add(role)
        return True

    def __len__(self) -> int:
        with self._lock:
            return len(self._written())

    def _register(self, key: TileKey, pixels: np.ndarray, role: str, meta: Mapping[str, Any]) -> None:
        """Check against what was written before and note the tile in the journal, before its pixels are there."""
        if self._closed:
            raise ValueError(f"{self._out} is closed; accepted: writes before close()")
        row = self._rows.get(key.index)
        if row is not None and row.tile != key.tile:
            raise ValueError(f"index {key.index} is tile {row.tile}, not {key.tile}; accepted: one tile an index")
        if self._index_of.setdefault(key.tile, int(key.index)) != key.index:
            raise ValueError(
                f"tile {key.tile} has index {self._index_of[key.tile]}, not {key.index}; accepted: one index a tile"
            )
        dtype = self._dtypes.setdefault(role, pixels.dtype)
        if dtype != pixels.dtype:
            raise TypeError(f"tile {key.tile} has dtype {pixels.dtype.name}; accepted: {dtype.name}, as {role} has")
        size = self._fit(key, pixels)
        self._journal.append(int(key.index), key.tile, role, meta, size)
        row = self._rows.setdefault(key.index, Row(key.tile))
        row.meta.update(meta)
        row.size = size or row.size

    def _written(self) -> list[tuple[int, Row]]:
        """Rows of tiles that are there, by index."""
        return sorted((index, row) for index, row in self._rows.items() if row.roles)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                with explained_full(self._out, "describe the tiles"):
                    self._describe()
            except OSError:
                self._journal.close(remove=False)  # it stands in for the description
                self._closed = True
                raise
            self._journal.close(remove=True)
            self._closed = True


class explained_full:
    """Name the path and the tile in an OSError (a full disk above all), and say what is still there."""

    def __init__(self, out: Path, action: str) -> None:
        self._out, self._action = out, action

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileExistsError):
            cause = error.strerror or str(error)
            raise OSError(
                error.errno, f"{cause}: cannot {self._action}; tiles written before stay readable", str(self._out)
            ) from error


class IdError(ValueError):
    """An id of a tile that is no name of a file."""


def _check_id(tile: str) -> None:
    """An id becomes a file name: it must stay below the folder it is written to."""
    parts = tile.split("/")
    if not tile or any(part in ("", ".", "..") for part in parts) or any(c in tile for c in "\\:\0\n\r"):
        raise IdError(f"key.tile is {tile!r}; accepted: a relative name without '..', '\\', ':' or line breaks")


def refuse(out: Path, what: str, ours: bool) -> NoReturn:
    """`out` holds `what`; `ours`: it may be replaced if that is asked for."""
    remedy = "another path, or overwrite=True" if ours else "another path (it was not written by semnr)"
    raise FileExistsError(f"out is {out}, which holds {what}; accepted: {remedy}")


def check_arguments(count: Any, shape: Any, dtype: Any, roles: Sequence[str], data_range: Any, pixel_nm: Any) -> None:
    if count is not None and (isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0):
        raise ValueError(f"count is {count!r}; accepted: an integer of at least 0, or None (it grows)")
    if shape is not None and (len(shape) != 2 or min(shape) < 1):
        raise ValueError(f"shape is {tuple(shape)}; accepted: (H, W) of a tile, or None (that of the first tile)")
    if dtype is not None and not known_dtype(np.dtype(dtype)):
        raise TypeError(f"dtype is {np.dtype(dtype).name}; accepted: {ACCEPTED}")
    unknown = [role for role in roles if role not in ROLES]
    if isinstance(roles, str) or not roles or unknown:
        raise ValueError(f"roles is {roles!r}; accepted: a tuple of {', '.join(map(repr, ROLES))}")
    for name, value in (("data_range", data_range), ("pixel_nm", pixel_nm)):
        if value is not None and not (isinstance(value, int | float | np.number) and 0 < float(value) < float("inf")):
            raise ValueError(f"{name} is {value!r}; accepted: a finite number above 0, or None")
