"""Rows to Parquet, part by part: a part is there whole or not at all, so that a kill loses only what was in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._files import atomic
from ._ids import TileIds

FOLDER = "tiles"


class ParquetSink:
    """Buffers rows and writes a part after `rows` of them or `seconds`, whichever comes first."""

    def __init__(self, run: Path, *, rows: int = 2000, seconds: float = 5.0) -> None:
        self.folder = run / FOLDER
        for left in self.folder.glob(".part-*.tmp"):  # of a run that was killed while it wrote
            left.unlink(missing_ok=True)
        self.rows, self.seconds = rows, seconds
        self.buffer: list[dict[str, Any]] = []
        self.written = time.monotonic()
        numbers = [int(p.stem.removeprefix("part-")) for p in self.folder.glob("part-*.parquet")]
        self.next = max(numbers, default=-1) + 1

    def add(self, row: dict[str, Any]) -> None:
        self.buffer.append(row)
        if len(self.buffer) >= self.rows or time.monotonic() - self.written > self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows. A full disk leaves them buffered and every earlier part readable."""
        if not self.buffer:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = list(dict.fromkeys(name for row in self.buffer for name in row))
        table = pa.table({name: [row.get(name) for row in self.buffer] for name in columns})
        path = self.folder / f"part-{self.next:05d}.parquet"
        try:
            self.folder.mkdir(exist_ok=True)
            with atomic(path) as temporary:
                pq.write_table(table, temporary)
        except OSError as error:
            cause = error.strerror or str(error)
            raise OSError(
                error.errno,
                f"{cause if str(path) in cause else f'cannot write {path}: {cause}'}; {self.next} earlier parts are "
                "kept, free some space and continue with resume",
            ) from error
        self.next += 1
        self.buffer.clear()
        self.written = time.monotonic()


def read_rows(run: Path, columns: list[str] | None = None) -> Any:
    """Every row of a scored run as one pyarrow Table, in the order of the source."""
    import pyarrow as pa

    tables = list(parts(run, columns))
    if not tables:
        raise ValueError(f"{run} holds no scored tiles; accepted: a folder that semnr.score wrote")
    table = pa.concat_tables(tables, promote_options="permissive")
    return table.sort_by("index") if "index" in table.column_names else table  # problems of the source come last


def part_files(run: Path) -> list[Path]:
    """In the order in which they were written."""
    return sorted((run / FOLDER).glob("part-*.parquet"))


def parts(run: Path, columns: list[str] | None = None) -> Iterator[Any]:
    """The parts as pyarrow Tables, one at a time; columns that a part does not have are left out of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in part_files(run):
        file = pq.ParquetFile(path)
        wanted = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
        yield file.read(columns=wanted, use_threads=False)  # small parts: threads only hold memory
    pa.default_memory_pool().release_unused()


def done_tiles(run: Path) -> TileIds:
    """Ids of the tiles that a run already holds."""
    return TileIds(tile for table in parts(run, ["tile"]) for tile in table.column("tile").to_pylist())
