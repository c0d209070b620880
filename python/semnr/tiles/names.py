"""Names of files as text that every table holds: bytes that are no UTF-8 are written as \\xe9, accents in one form."""

from __future__ import annotations

import os
import posixpath
import stat
import unicodedata
from pathlib import Path


def shown(text: str) -> str:
    """`text` without lone surrogates, which stand for bytes of a file name that are not UTF-8."""
    if text.isascii():
        return text
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def tile_id(path: str) -> str:
    """The id that a path gives its tile: without its suffix; é is one character, whatever system wrote the name."""
    return one_form(posixpath.splitext(path)[0])


def one_form(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", shown(text))


def require_file(path: Path) -> None:
    """OSError where `path` is there and is no file: a pipe or a device would be waited for."""
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(f"{path.name} is a pipe, a device or a socket; accepted: a file")


def file_of(role: str, tile: str) -> str:
    return f"{role}/{tile}.tif"
