"""Where results may be written: never over the inputs, and never over files that semnr did not write."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # also as a Path has it, with one slash; a drive has one letter


def local(name: str, value: Any) -> Path:
    """The path `value`, which must be one of this machine."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} is {type(value).__name__}; accepted: a path")
    if _URL.match(os.fspath(value)):
        raise ValueError(f"{name} is {str(value)!r}; accepted: a local path")
    return Path(value)


def apart(name: str, out: str | os.PathLike[str], sources: Iterable[tuple[str, bool]]) -> None:
    """Refuse an `out` that is, holds or lies in a source, whatever links lead there.

    Parameters
    ----------
    sources
        (path, whole): of a whole folder nothing below may be written either.

    Raises
    ------
    ValueError
        Names `out` and the source.
    """
    target = os.path.realpath(out)
    for path, whole in sources:
        place = os.path.realpath(path)
        relation = "is" if _same(target, place) else "holds" if _below(place, target) else None
        if relation is None and whole and _below(target, place):
            relation = "lies in"
        if relation is not None:
            raise ValueError(f"{name} is {os.fspath(out)}, which {relation} the source {path}; accepted: another path")


def _below(path: str, folder: str) -> bool:
    above = os.path.dirname(path)  # noqa: PTH120 - real paths as texts
    while not _same(above, folder):
        if (above := os.path.dirname(path := above)) == path:  # noqa: PTH120
            return False
    return True


def _same(one: str, other: str) -> bool:
    """By name, or by what is there: a file system may know one folder by several names."""
    if one == other:
        return True
    try:
        return os.path.samefile(one, other)  # noqa: PTH121
    except OSError:
        return False


def has_keys(*keys: str) -> Callable[[bytes], bool]:
    """A mark for `replaceable`: a JSON object with these keys."""

    def ours(content: bytes) -> bool:
        try:
            document = json.loads(content)
        except ValueError:
            return False
        return isinstance(document, dict) and set(keys) <= document.keys()

    return ours


def holds(mark: bytes) -> Callable[[bytes], bool]:
    """A mark for `replaceable`: these bytes somewhere in the file."""
    return lambda content: mark in content


def replaceable(name: str, path: str | os.PathLike[str], what: str, ours: Callable[[bytes], bool]) -> Path:
    """A path for one file: new, empty, no regular file (/dev/stdout), or what an earlier call wrote there.

    Raises
    ------
    FileExistsError
        Something that semnr did not write is there.
    ValueError
        A folder.
    """
    out = local(name, path)
    if out.is_dir():
        raise ValueError(f"{name} is the folder {out}; accepted: the path of a file")
    if out.is_file():
        content = out.read_bytes()
        if content and not ours(content):
            raise FileExistsError(f"{name} is {out}, which holds something else than {what}; accepted: a new file")
    return out
