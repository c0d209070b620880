"""The folder of a comparison: its rows as Parquet parts, each complete or absent, under one protocol."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..base.files import atomic
from ..base.lock import is_ours
from .protocol import FILE, Protocol
from .scores import figures

PROTOCOL, SCORES, NETWORKS, OUTPUTS = "protocol.toml", "scores", "networks", "outputs"
TABLE, MEANS = "table.md", "table.parquet"
TEXTS = (
    "denoiser", "made_by", "kind", "field", "group", "split", "protocol", "semnr", "input_sha256", "output_sha256",
    "marked_input_sha256", "marked_output_sha256", "reason",
)  # fmt: skip
NUMBERS = ("megapixels", "seconds")
Row = dict[str, Any]


class Store:
    """The rows that are there, and the writing of more.

    Parameters
    ----------
    folder : Path
        New, empty, or of an earlier comparison under the same protocol.
    protocol : Protocol

    Raises
    ------
    FileExistsError
        Something else lies there.
    ValueError
        Rows of another version of the protocol lie there.
    """

    def __init__(self, folder: Path, protocol: Protocol) -> None:
        self.folder, self.protocol = folder, protocol
        mark = folder / PROTOCOL
        if not mark.is_file():
            others = [p.name for p in folder.iterdir() if not is_ours(p.name)] if folder.is_dir() else []
            if others:
                raise FileExistsError(
                    f"out is {folder}, which holds {others[0]} and no comparison; accepted: a new or empty folder"
                )
            (folder / SCORES).mkdir(parents=True, exist_ok=True)
            with atomic(mark) as temporary:
                temporary.write_bytes(FILE.read_bytes())
        elif mark.read_bytes() != FILE.read_bytes():
            raise ValueError(
                f"out is {folder}, which holds a comparison under another protocol than version "
                f"{protocol['version']}; accepted: another folder"
            )
        (folder / SCORES).mkdir(exist_ok=True)
        for left in (folder / SCORES).glob(".part-*.tmp"):  # of a run that was killed while it wrote
            left.unlink(missing_ok=True)

    def rows(self) -> list[Row]:
        """One row a denoiser and field: the newest."""
        return rows_in([self.folder], self.protocol)

    def add(self, rows: list[Row]) -> None:
        """Write rows as one more part."""
        if not rows:
            return
        number = max((int(path.stem.removeprefix("part-")) for path in part_files(self.folder)), default=-1) + 1
        write(rows, self.folder / SCORES / f"part-{number:05d}.parquet")


def part_files(folder: Path) -> list[Path]:
    """In the order in which they were written."""
    return sorted((folder / SCORES).glob("part-*.parquet"))


def rows_in(folders: Iterable[Path], protocol: Protocol) -> list[Row]:
    """The newest rows of one comparison or of several; they may be at work.

    Raises
    ------
    ValueError
        Rows of another protocol are among them.
    """
    rows = newest(row for folder in folders for path in part_files(folder) for row in read(path))
    if others := {row["protocol"] for row in rows} - {protocol.sha256}:
        raise ValueError(
            f"rows of protocol {min(others)[:16]} are there; accepted: version {protocol['version']}, "
            f"{protocol.sha256[:16]}"
        )
    return rows


def newest(rows: Iterable[Row]) -> list[Row]:
    """The last row of each denoiser and field."""
    return list({(row["denoiser"], row["field"]): row for row in rows}.values())


def read(path: Path) -> list[Row]:
    """The rows of a Parquet file of ours.

    Raises
    ------
    ValueError
        It lacks columns of a comparison.
    """
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read(use_threads=False)
    if lacking := [name for name in (*TEXTS, *NUMBERS, *figures()) if name not in table.column_names]:
        raise ValueError(f"{path} has no column {lacking[0]}; accepted: scores of semnr compare-denoisers")
    rows: list[Row] = table.to_pylist()
    return rows


def write(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Rows as a Parquet file; what was not evaluated is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [(name, pa.string()) for name in TEXTS] + [(name, pa.float64()) for name in (*NUMBERS, *figures())]
    plain = [
        {name: None if isinstance(v := row.get(name), float) and math.isnan(v) else v for name, _ in columns}
        for row in rows
    ]
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist(plain, schema=pa.schema(columns)), temporary, compression="zstd")
