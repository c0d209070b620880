"""Atomic writing: a file is complete or absent."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .jsonable import plain


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well, and is removed when it does not.

    A link keeps pointing where it points; what is no regular file (a pipe, /dev/null) is written to, never replaced.

    Raises
    ------
    OSError
        A full disk above all: names `path`. What was there before is kept.
    """
    path = Path(os.path.realpath(path))
    stays = path.exists() and not path.is_file()
    folder = Path(tempfile.gettempdir()) if stays else path.parent
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    try:
        yield temporary
        if stays:
            with temporary.open("rb") as whole, path.open("wb") as target:
                shutil.copyfileobj(whole, target)
            return
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def keeping(place: Path, kept: Callable[[], bool]) -> Iterator[None]:
    """What stops the block is told apart by the command where `kept()` says that rows or tiles stay at `place`."""
    try:
        yield
    except BaseException as error:
        if kept():
            error.kept_at = str(place)  # type: ignore[attr-defined]
        raise


def write_json(path: Path, value: Any) -> None:
    """JSON without NaN or Infinity tokens (see `plain`), replaced atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(plain(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")
