"""Writes rows to Parquet parts, each complete or absent, so that a kill loses only the rows in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import columns as catalogue
from ..base.files import atomic
from .info import NAME as INFO
from .info import read_info
from .schema import Schema
from .seen_ids import TileIds

FOLDER = "tiles"
ALARMS = "alarms.jsonl"
MAPS = "maps.zarr"


class ParquetSink:
    """Buffers rows and writes a part after `rows` of them or `seconds`, whichever comes first.

    Every part has the same columns, of the same types.
    """

    def __init__(self, run: Path, *, rows: int = 2000, seconds: float = 5.0) -> None:
        self.folder = run / FOLDER
        for left in self.folder.glob(".part-*.tmp"):  # of a run that was killed while it wrote
            left.unlink(missing_ok=True)
        self.rows, self.seconds = rows, seconds
        self.buffer: list[dict[str, Any]] = []
        self.written = time.monotonic()
        self.next = max(map(_number, part_files(run)), default=-1) + 1
        self.schema, self.common = Schema(), None  # common: what all parts on the disk have
        for path in part_files(run):
            self.schema.learn_part(path)
        self.stale: set[str] = set()  # tiles in the parts that are scored again

    def add(self, row: dict[str, Any]) -> None:
        self.buffer.append(row)
        if len(self.buffer) >= self.rows or time.monotonic() - self.written > self.seconds:
            self.flush()

    def forget(self, tile: str) -> None:
        """Drop the tile's rows: it is scored again. Those on the disk go when its new row is written."""
        self.buffer = [row for row in self.buffer if row["tile"] != tile]
        self.stale.add(tile)

    def flush(self) -> None:
        """Write the buffered rows. A full disk leaves them buffered and every earlier part readable."""
        if not self.buffer:
            return
        path = self.folder / f"part-{self.next:05d}.parquet"
        try:
            self.folder.mkdir(exist_ok=True)
            self.schema.learn(self.buffer)
            self._renew()  # first: after a kill in between, a tile is scored once more, and is never there twice
            _write(self.schema.table(self.buffer), path)
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

    def _renew(self) -> None:
        """Bring the earlier parts to the schema, and take the rows of forgotten tiles out."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        schema = self.schema.arrow()
        if not self.stale and schema == self.common:
            return
        for path in part_files(self.folder.parent):
            if not self.stale and pq.read_schema(path) == schema:
                continue
            table = pq.ParquetFile(path).read(use_threads=False)
            old = pc.is_in(table.column("tile"), pa.array(sorted(self.stale), pa.string()))
            if pc.any(old).as_py() or table.schema != schema:
                _write(self.schema.fitted(table.filter(pc.invert(old))), path)
        self.common = schema
        self.stale.clear()


def _write(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    with atomic(path) as temporary:
        pq.write_table(table, temporary)


def _number(part: Path) -> int:
    return int(part.stem.removeprefix("part-"))


def _schema_of(files: list[Path]) -> Schema:
    """What all of these parts fit in, also those of earlier versions, which differ among themselves."""
    import pyarrow.parquet as pq

    differ = len({pq.read_schema(path) for path in files}) > 1
    schema = Schema()
    for path in files if differ else files[:1]:
        schema.learn_part(path)
    return schema


def read_rows(run: Path, columns: list[str] | None = None) -> Any:
    """Every row of a scored run as one pyarrow Table, in the order of the source."""
    import pyarrow as pa

    tables = list(parts(run, columns))
    if not tables:
        raise ValueError(f"{run} holds no scored tiles; accepted: a folder that semnr.score wrote")
    table = pa.concat_tables(tables)
    return table.sort_by("index") if "index" in table.column_names else table  # problems of the source come last


def part_files(run: Path) -> list[Path]:
    """In the order in which they were written."""
    return sorted((run / FOLDER).glob("part-*.parquet"))


def parts(run: Path, columns: list[str] | None = None) -> Iterator[Any]:
    """As `Parts.tables`."""
    return Parts(run).tables(columns)


class Parts:
    """The parts of a run, whose schema and settings are read once."""

    def __init__(self, run: Path) -> None:
        self.files = part_files(run)
        info = read_info(run) if (run / INFO).exists() else {}  # a run that has just begun
        self.schema, self.results = _schema_of(self.files), catalogue.computed(info)
        self.names = [name for name in self.schema.arrow().names if catalogue.holds(name, self.results)]

    def tables(self, columns: list[str] | None = None) -> Iterator[Any]:
        """The parts as pyarrow Tables of one schema, one at a time; columns that no part has are left out.

        Results are what the run computed: nothing under their names that it did not ask for, or on rows it did not
        score.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [name for name in self.names if columns is None or name in columns]
        judged = ["status"] if any(map(catalogue.is_result, names)) and "status" not in names else []
        schema, held = self.schema.only(names), {*names, *judged}
        for path in self.files:
            with pq.ParquetFile(path) as file:
                wanted = [name for name in file.schema_arrow.names if name in held]
                table = file.read(columns=wanted, use_threads=False)  # small parts: threads only hold memory
            yield schema.fitted(table if self.results is None else _without_evidence_of_nothing(table))
        pa.default_memory_pool().release_unused()


def _without_evidence_of_nothing(table: Any) -> Any:
    """Rows that were not scored have no results, whatever an earlier version copied into them from the plan."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "status" not in table.column_names:
        return table
    ok = pc.fill_null(pc.equal(table.column("status"), "ok"), True)
    if pc.all(ok).as_py() in (True, None):
        return table
    for at, name in enumerate(table.column_names):
        if catalogue.is_result(name):
            values = table.column(name)
            table = table.set_column(at, name, pc.if_else(ok, values, pa.scalar(None, values.type)))
    return table


def done_tiles(run: Path) -> TileIds:
    """Ids of the tiles that a run has scored."""
    import pyarrow.compute as pc

    scored = (table.filter(pc.equal(table.column("status"), "ok")) for table in parts(run, ["tile", "status"]))
    return TileIds(tile for table in scored for tile in table.column("tile").to_pylist())


def drop_unscored(run: Path) -> None:
    """Take out the rows of tiles that were not scored, which are about to be tried again; a part at a time."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for path in part_files(run):
        file = pq.ParquetFile(path)
        ok = pc.equal(file.read(columns=["status"], use_threads=False).column("status"), "ok")
        if not pc.any(ok).as_py():
            path.unlink()
        elif not pc.all(ok).as_py():
            _write(file.read(use_threads=False).filter(ok), path)
