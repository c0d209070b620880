"""Which files and folders of this machine a source reads: nothing may be written over them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .places import Here
from .source import TileSource

_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_LOCAL = ("file", "local")  # schemes of this machine

Extent = Iterator[tuple[str, bool]]


def extent_of(source: TileSource) -> Extent:
    """(path, whole): of a whole folder everything below belongs to the source."""
    inner = getattr(source, "_source", None)
    if isinstance(inner, TileSource):
        yield from extent_of(inner)
    if source.recipe is not None and (path := _local(source.recipe.source)) is not None:
        yield _store(path), True
    place = getattr(source, "_place", None)
    if isinstance(place, Here):
        files = list(source.files())
        if not files:  # a folder that is watched: what comes is the source's too
            yield str(place.folder), True
        yield from _folders(place.folder, files)
    for array in source.arrays():
        yield from ((path, True) for path in files_of(array))


def _folders(base: Path, files: Iterable[str]) -> Extent:
    """The folders of `files`, and where links among them lead. Beside a plan, only its files are the source's."""
    seen = set()
    for name in files:
        path = os.path.join(base, name)  # noqa: PTH118 - a plan may list a million
        folder = os.path.dirname(path)  # noqa: PTH120
        if folder not in seen:
            seen.add(folder)
            yield folder, os.path.realpath(folder) != os.path.realpath(base)
        if os.path.islink(path):  # noqa: PTH114
            yield os.path.realpath(path), True


def files_of(array: Any) -> list[str]:
    """The files that an array maps: a memory map's, a local Zarr array's."""
    files = []
    while array is not None:
        if isinstance(name := getattr(array, "filename", None), str | os.PathLike):
            files.append(os.fspath(name))
        store = getattr(array, "store_path", None)  # of a Zarr array
        if store is not None and isinstance(root := getattr(store.store, "root", None), Path):
            files.append(str(root / store.path))
        array = getattr(array, "base", None)
    return files


def _local(given: Any) -> str | None:
    """`given` as a path of this machine; None for a URL that leads elsewhere."""
    text = os.fspath(given).rpartition("::")[2]
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    return rest if scheme.lower() in _LOCAL else None


def _store(path: str) -> str:
    """Of an array or group of a Zarr hierarchy the whole of it."""
    store = Path(os.path.realpath(path))
    while any((store.parent / name).is_file() for name in _ZARR):
        store = store.parent
    return str(store)
