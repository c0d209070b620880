"""What a writer keeps on disk about its tiles until it closes, so that a killed run loses no names or coordinates.

One JSON line a tile in `.tiles.jsonl`: {"index", "tile", "role", "meta", "size"}. A line begins with a line feed,
so that a torn one spoils only itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

NAME = ".tiles.jsonl"


def plain(value: Any) -> Any:
    """A meta value as what JSON, CSV and Parquet hold."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


class Journal:
    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file = self._path.open("ab", buffering=0)

    def append(self, index: int, tile: str, role: str, meta: Mapping[str, Any], size: tuple[int, int] | None) -> None:
        row = {"index": index, "tile": tile, "role": role, "meta": dict(meta), "size": size}
        self._file.write(b"\n" + json.dumps(row, ensure_ascii=False).encode())

    def note(self, file: str, sha256: str | None = None) -> None:
        """A file that is about to be written, besides those of the tiles."""
        row = {"file": file} | ({} if sha256 is None else {"sha256": sha256})
        self._file.write(b"\n" + json.dumps(row, ensure_ascii=False).encode())

    def close(self, remove: bool) -> None:
        self._file.close()
        if remove:
            self._path.unlink(missing_ok=True)


def read_journal(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of an interrupted writer, oldest first; none where there is no journal."""
    return (row for row in journal_lines(Path(folder) / NAME) if _is_whole(row))


def journal_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a journal or of a list of files."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:  # blank, or torn by the kill: its tile was not written either
                continue
            if isinstance(row, dict):
                yield row


def _is_whole(row: dict[str, Any]) -> bool:
    kinds = {"index": int, "tile": str, "role": str, "meta": dict}
    if not all(isinstance(row.get(name), kind) for name, kind in kinds.items()):
        return False
    size = row.get("size")
    return row["index"] >= 0 and (size is None or (isinstance(size, list) and len(size) == 2))
