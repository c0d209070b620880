"""The folders in which files of a plan may be."""

from __future__ import annotations

import ntpath
import os
import posixpath
from functools import lru_cache
from pathlib import Path


class Fence:
    """Which paths a plan may name: those inside its folder, or inside `root` where that is given."""

    def __init__(self, base: Path, root: Path | None) -> None:
        self._base = base
        places = [os.path.realpath(place) for place in (base, root) if place is not None]
        self._allowed = tuple(place.rstrip(os.sep) + os.sep for place in places)
        self._root = root
        self._real_folder = lru_cache(maxsize=4096)(os.path.realpath)

    def refusal(self, path: str) -> str | None:
        """None where `path` stays inside, else why it does not."""
        if "\0" in path:
            return "holds a NUL"
        if self._root is None and (path.startswith("/") or ntpath.splitdrive(path)[0]):
            return "absolute"
        if self._root is None and ".." in path.split("/"):
            return "leaves by '..'"
        # one realpath a folder, one lstat a file, no Path objects: a plan may list a million
        folder, name = posixpath.split(path)
        real = f"{self._real_folder(os.path.join(self._base, folder))}{os.sep}{name}"  # noqa: PTH118
        if name in ("", ".", "..") or os.path.islink(real):  # noqa: PTH114
            real = os.path.realpath(real)
        if real.startswith(self._allowed):
            return None
        return "outside root" if self._root is not None else "a symbolic link leads out"
