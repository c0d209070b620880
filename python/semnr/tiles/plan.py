"""Plans: a CSV or Parquet table that names the files of each tile and where on the wafer they are from."""

from __future__ import annotations

import csv
import math
import posixpath
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels import TileError

from .decoding import decode
from .instrument import Instrument
from .journal import plain
from .names import one_form, tile_id
from .places import Place, instrument_in
from .reasons import explained
from .source import ROLES, Problem, TileKey, TileSource

ROLE_COLUMNS = tuple(role for role in ROLES if role != "image")
TEXT = ("path", "tile", *ROLE_COLUMNS, "lot_id", "wafer_id")
NUMBERS = ("die_x", "die_y", "x_um", "y_um", "wafer_x_um", "wafer_y_um", "pixel_nm", "data_range")
COLUMNS = (
    *("path", "tile", "reference", "noisy", "candidate", "noisy_2", "lot_id", "wafer_id", "slot"),
    *("die_x", "die_y", "site_id", "frame", "x_um", "y_um", "pixel_nm", "wafer_x_um", "wafer_y_um"),
)
Columns = dict[str, "np.ndarray | list[Any]"]
_NULLS = ("", "na", "n/a", "nan", "null", "none")  # in columns of numbers; text is empty only where it is
_HEADER = 2**16  # characters of the first line that are looked at
_SHOWN = 5  # offending rows that an error lists


def read_columns(path: Path) -> Columns:
    """The plan by column: text where text is meant, numbers where they are, None (NaN) for empty cells."""
    if path.suffix.lower() in (".parquet", ".pq"):
        import pyarrow as pa
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path, partitioning=None)
            names, columns = table.column_names, [_stripped(column.to_pylist()) for column in table.columns]
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise ValueError(f"{path} cannot be read as a plan: {error}") from error
    else:
        try:
            names, columns = _read_csv(path)
        except (csv.Error, UnicodeError) as error:
            raise ValueError(f"{path} cannot be read as a plan: {error}; accepted: CSV in UTF-8 or UTF-16") from error
    return checked_columns(_spelt([str(name).strip() for name in names]), columns, path)


def _spelt(names: list[str]) -> list[str]:
    """Column names; those that mean something here in their spelling, where only the capitals differ ("Path")."""
    known = [name for name in (*COLUMNS, *ROLE_COLUMNS, *NUMBERS) if name not in names]
    return [name.lower() if name.lower() in known and names.count(name) == 1 else name for name in names]


def _delimiter(header: str) -> str:
    """What parts the cells: a comma, or a semicolon or tab where those give the header its `path`."""
    for mark in ",;\t":
        if "path" in (name.strip().strip('"').lower() for name in header.split(mark)):
            return mark
    return ","


def _stripped(values: list[Any]) -> list[Any]:
    """Without the blanks that fill columns of a fixed width."""
    return [value.strip() if isinstance(value, str) else value for value in values]


def _read_csv(path: Path) -> tuple[list[str], list[list[Any]]]:
    with path.open("rb") as raw:
        marked = raw.read(2) in (b"\xff\xfe", b"\xfe\xff")
    with path.open(encoding="utf-16" if marked else "utf-8-sig", newline="") as file:
        header = file.readline(_HEADER)
        delimiter, exact = _delimiter(header), header.startswith('"')  # where it is quoted, blanks in quotes are meant
        file.seek(0)
        reader = csv.reader(file, strict=True, delimiter=delimiter)
        names = next(reader, [])
        columns: list[list[Any]] = [[] for _ in names]
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                raise ValueError(
                    f"{path} line {reader.line_num} has {len(row)} cells; accepted: {len(names)}, as the header"
                )
            for column, cell in zip(columns, row, strict=True):
                column.append((cell if exact else cell.strip()) or None)
    return names, columns


def checked_columns(names: list[str], columns: list[list[Any]], path: Path) -> Columns:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if "path" not in names or repeated:
        fault = f"names the columns {', '.join(repeated)} twice" if repeated else "has no column path"
        raise ValueError(f"{path} {fault} (it has: {', '.join(names)}); accepted columns: {', '.join(COLUMNS)}")
    if not columns[0]:
        raise ValueError(f"{path} lists no tiles; accepted: at least one row of {', '.join(COLUMNS)}")
    typed: Columns = {}
    for name, values in zip(names, columns, strict=True):
        if name in TEXT:
            typed[name] = [None if value is None else str(value) for value in values]
        elif name:
            typed[name] = _typed(values)
        if name in NUMBERS and not isinstance(typed[name], np.ndarray):
            value = next(v for v in typed[name] if _number(v) is None and v is not None)
            raise ValueError(f"{path}: column {name} holds {value!r}; accepted: numbers")
    return typed


def _number(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and value.lower() in _NULLS):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _typed(values: list[Any]) -> np.ndarray | list[Any]:
    """int64 where every cell is an integer, float64 where every cell is a number or empty, else as it is."""
    if any(isinstance(value, bool) for value in values):
        return [plain(value) for value in values]
    numbers = [_number(value) for value in values]
    if any(number is None for number in numbers):
        return [plain(value) for value in values]
    floats = np.array(numbers, np.float64)
    whole = np.isfinite(floats) & (np.abs(floats) < 2**53) & (floats == np.round(floats))
    if whole.all() and not any(
        isinstance(v, float) or (isinstance(v, str) and not v.lstrip("+-").isdigit()) for v in values
    ):
        return floats.astype(np.int64)
    return floats


def _posix(path: str | None) -> str:
    """A path cell, also one written on Windows; empty where there is none."""
    return (path or "").replace("\\", "/")


def cell(column: Any, row: int) -> Any:
    """A value of a column as a plain Python value; None where it is NaN, empty or beyond the end."""
    value = column[row] if column is not None and row < len(column) else None
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


class PlanSource(TileSource):
    """Tiles in the plan's order; id = column `tile`, or the path without its suffix. "image" is column path."""

    def __init__(self, columns: Columns, name: str, place: Place) -> None:
        self.name, self._place, self._columns = name, place, columns
        self.roles = ("image", *(role for role in ROLE_COLUMNS if role in columns))
        self._meta_columns = [name for name in columns if name and name not in (*ROLE_COLUMNS, "path", "tile")]
        self._refuse_outsiders()
        self._rows: list[int] = []
        self._tiles: list[str] = []
        self._choose_rows()
        self._places: dict[str, int] = {}
        self.data_range = self._constant("data_range")
        self.ranges = self._several("data_range")
        self.pixel_nm = self._constant("pixel_nm")
        if self.pixel_nm is None and self._rows and "pixel_nm" not in columns:
            self.pixel_nm = place.pixel_nm(self._cell("path", self._rows[0]))

    def _column(self, name: str) -> np.ndarray | list[Any]:
        return self._columns.get(name) or [None] * len(self._columns["path"])

    def _cell(self, name: str, row: int) -> Any:
        value = cell(self._columns[name], row)
        return _posix(value) or None if name in ("path", *ROLE_COLUMNS) else value

    def _refuse_outsiders(self) -> None:
        refused = []
        for name in ("path", *self.roles[1:]):
            for row, value in enumerate(self._column(name)):
                reason = self._place.refusal(_posix(value)) if value else None
                if reason is not None:
                    refused.append(f"row {row + 1} {name}={value!r} ({reason})")
        if refused:
            more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
            raise ValueError(
                f"{self.name} names files outside its folder: {', '.join(refused[:_SHOWN])}{more}; "
                f"accepted: relative paths inside {self._place.name}, or root=DIR (--root DIR) that contains them"
            )

    def _choose_rows(self) -> None:
        """Rows that are tiles; empty and repeated ones become problems.

        A tile is known by its id. Without one it is known by its files: the path names it, with a number from the
        second row on that pairs the path with others ("a", "a#2").
        """
        problems: list[Problem] = []
        by_tile: dict[str, int] = {}
        by_files: dict[tuple[Any, ...], int] = {}
        paths: Counter[str] = Counter()
        partners = [self._column(role) for role in self.roles[1:]]
        for row, (raw, given) in enumerate(zip(self._column("path"), self._column("tile"), strict=True)):
            if not _posix(raw).strip():
                problems.append(Problem(given or f"row {row + 1}", "missing", f"row {row + 1} has an empty path"))
                continue
            path = posixpath.normpath(_posix(raw))
            tile, first, what = one_form(given) if given else tile_id(path), None, f"path {path}"
            if not given:
                first = by_files.setdefault((path, *(_posix(column[row]) for column in partners)), row)
                if first == row:
                    first = None
                    paths[path] += 1
                    tile = tile if paths[path] == 1 else f"{tile}#{paths[path]}"
            if first is None and tile in by_tile:
                first, what = by_tile[tile], f"tile {tile}"
            if first is not None:
                problems.append(Problem(tile, "duplicate", f"row {row + 1} repeats {what} of row {first + 1}"))
                continue
            by_tile[tile] = row
            self._rows.append(row)
            self._tiles.append(tile)
        self.problems = tuple(problems)

    def _constant(self, name: str) -> float | None:
        """The one value of a column that has one value in every row."""
        values = self._columns.get(name)
        if not isinstance(values, np.ndarray) or not np.isfinite(values[0]) or not (values == values[0]).all():
            return None
        return float(values[0])

    def _several(self, name: str) -> str | None:
        """What a column holds where that is more than one value, or none in some rows; else None."""
        values = self._columns.get(name)
        if not isinstance(values, np.ndarray):
            return None
        distinct, counts = np.unique(values[self._rows], return_counts=True)  # NaN counts as one value
        if distinct.size < 2:
            return None
        named = ["nothing" if np.isnan(value) else f"{value:g}" for value in distinct.astype(np.float64)]
        parts = [f"{value} in {count} rows" for value, count in zip(named, counts, strict=True)]
        return ", ".join(parts[:_SHOWN]) + (", ..." if len(parts) > _SHOWN else "")

    def files(self) -> list[str]:
        columns = (self._columns[name] for name in ("path", *self.roles[1:]))
        return [_posix(value) for column in columns for value in column if value]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[TileKey]:
        return (self._key(index) for index in range(len(self)))

    def _key(self, index: int) -> TileKey:
        row = self._rows[index]
        path = self._cell("path", row)
        meta = {name: self._cell(name, row) for name in self._meta_columns}
        if meta.get("pixel_nm") is None and (size := self._place.pixel_nm(path)) is not None:
            meta["pixel_nm"] = size
        return TileKey(self._tiles[index], index, path, meta)

    def find(self, tile: str) -> TileKey | None:
        if not self._places:
            self._places.update((name, index) for index, name in enumerate(self._tiles))
        return self._key(self._places[tile]) if tile in self._places else None

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        self._check_role(role)
        if not 0 <= key.index < len(self):
            raise ValueError(f"key.index is {key.index}; {self.name} has tiles 0 to {len(self) - 1}")
        path = self._cell("path" if role == "image" else role, self._rows[key.index])
        if path is None:
            raise TileError(key.tile, f"{self.name} row {self._rows[key.index] + 1} has no {role}", "missing")
        with explained(key.tile, path), self._place.file(path) as file:
            return decode(file, key.tile)

    def instrument(self, key: TileKey, role: str = "image") -> Instrument | None:
        path = self._cell("path" if role == "image" else role, self._rows[key.index])
        return instrument_in(self._place, path)
