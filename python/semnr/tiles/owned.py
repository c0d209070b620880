"""Marks what a writer wrote at `out`: nothing else there is ever replaced or deleted.

A folder has `.semnr-files.jsonl`, one JSON line a file: {"file", "sha256"?}; while it is written, its journal lists the
same. A Zarr lists its arrays in its own attributes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from ..base import lock
from .journal import NAME as JOURNAL
from .journal import journal_lines
from .names import file_of

MARKER = ".semnr-files.jsonl"
Listed = Mapping[str, Collection[str]]  # file -> its SHA-256s; none where any content is ours
_PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.partial")
_ZARR_PARTIAL = re.compile(r"(zarr|\d+)\.[0-9a-f]{32}\.partial")


def listed(folder: Path) -> Listed:
    """The files of `folder` that marker and journal name."""
    names: dict[str, set[str]] = {}
    for path in (folder / MARKER, folder / JOURNAL):
        for line in journal_lines(path):
            if isinstance(name := line.get("file"), str):
                names.setdefault(name, set()).update([line["sha256"]] if line.get("sha256") else ())
            elif {"tile", "role"} <= line.keys():
                names.setdefault(file_of(line["role"], line["tile"]), set())
    return names


def write_marker(path: Path, files: Listed) -> None:
    """A line a file, or one for each content that it may have."""
    with path.open("w", encoding="utf-8") as out:
        for name, digests in files.items():
            for digest in sorted(digests) or [""]:
                out.write(json.dumps({"file": name} | ({"sha256": digest} if digest else {})) + "\n")


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_ours(folder: Path, name: str, files: Listed) -> bool:
    """Whether `name` there is listed, unchanged where its content is known, and no link that leads elsewhere."""
    path = folder / name
    if name not in files or not os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep):
        return False
    return not files[name] or digest_of(path) in files[name]


def first_stranger(folder: Path, names: Iterable[str], files: Listed) -> str | None:
    """A file at or below `names` that is not ours."""
    bookkeeping = (MARKER, JOURNAL, *(n for n in (lock.NAME, f"{lock.NAME}.who")))
    for name in names:
        for entry in _walk(folder, name):
            left = _PARTIAL.fullmatch(entry.rpartition("/")[2])  # of a file that a kill left unfinished
            whole = left and f"{entry.rpartition('/')[0]}/{left['name']}".lstrip("/")
            if entry not in bookkeeping and not (whole in files if whole else is_ours(folder, entry, files)):
                return entry
    return None


def clear(folder: Path, names: Iterable[str], files: Listed) -> None:
    """Delete what is listed, and what a kill left of it; the marker goes last."""
    for name in files:
        (folder / name).unlink(missing_ok=True)
    for name in names:
        for entry in _walk(folder, name):
            if _PARTIAL.fullmatch(entry.rpartition("/")[2]):
                (folder / entry).unlink()
    _remove_empty(folder, {name.rpartition("/")[0] for name in files})
    for name in (JOURNAL, MARKER):
        (folder / name).unlink(missing_ok=True)


def _walk(folder: Path, name: str) -> Iterator[str]:
    path = folder / name
    if path.is_symlink() or not path.is_dir():
        if path.is_symlink() or path.exists():
            yield name
        return
    for entry in sorted(os.listdir(path)):  # noqa: PTH208 - names as texts, there may be a million
        yield from _walk(folder, f"{name}/{entry}")


def _remove_empty(folder: Path, names: Collection[str]) -> None:
    every = {"/".join(name.split("/")[: n + 1]) for name in names if name for n in range(name.count("/") + 1)}
    for name in sorted(every, key=len, reverse=True):
        path = folder / name
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()


# --- Zarr -----------------------------------------------------------------------------------------------------


def written_arrays(path: Path, form: str = "tile-stack") -> tuple[str, ...] | None:
    """The arrays that our writer of this form made in a Zarr; None where the Zarr is no such thing."""
    try:
        document = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    attributes = document.get("attributes") if isinstance(document, dict) else None
    entry = attributes.get("semnr") if isinstance(attributes, dict) else None
    if not isinstance(entry, dict) or entry.get("format") != form:
        return None
    written = entry.get("written")
    return tuple(str(name) for name in written) if isinstance(written, list) else ()


def zarr_files(path: Path, written: Collection[str]) -> tuple[list[str], str | None]:
    """(the files of the arrays and of the hierarchy around them, the first file that is none of these)."""
    ours: list[str] = []
    for entry in sorted(path.iterdir()):
        for inside in _walk(path, entry.name):
            if not _of_zarr(inside, written):
                return ours, inside
            ours.append(inside)
    return ours, None


def clear_zarr(path: Path, files: Iterable[str]) -> None:
    """Delete `files`; the group's own metadata, which say whose it is, go last."""
    names = list(files)
    for name in (name for name in names if name != "zarr.json" and not lock.is_ours(name.rpartition("/")[2])):
        (path / name).unlink()
    _remove_empty(path, {name.rpartition("/")[0] for name in names})
    (path / "zarr.json").unlink(missing_ok=True)


def _of_zarr(name: str, written: Collection[str]) -> bool:
    folder, _, file = name.rpartition("/")
    if folder in ("", "columns"):
        known = file == "zarr.json" or (folder == "columns" and (file == JOURNAL or lock.is_ours(file)))
        return known or _ZARR_PARTIAL.fullmatch(file) is not None
    array = next((a for a in written if folder == a or folder.startswith(f"{a}/")), None)
    if array is None:
        return False
    inside = folder[len(array) + 1 :].split("/")
    whole = file == "zarr.json" if inside == [""] else file.isdigit()
    chunked = inside == [""] or (inside[0] == "c" and all(part.isdigit() for part in inside[1:]))
    return chunked and (whole or _ZARR_PARTIAL.fullmatch(file) is not None)
