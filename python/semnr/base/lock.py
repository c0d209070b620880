"""One writer for each folder: a lock that the operating system releases when its process ends, also by a kill."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

NAME = ".lock"


@contextlib.contextmanager
def only_writer(folder: Path, out: Path | None = None) -> Iterator[None]:
    """Hold `folder`/.lock (the folder is made) while its files are written; `out` is what errors name.

    Raises
    ------
    ValueError
        Another process writes there: which one.
    OSError
        The folder cannot be made or written to.
    """
    from filelock import FileLock, Timeout

    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path, holder = folder / NAME, folder / f"{NAME}.who"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"out is {out or folder}, which another writer is at work in ({_read(holder)}); accepted: when it has "
            "ended, or another folder"
        ) from None
    try:
        with contextlib.suppress(OSError):  # it only names the holder
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        # removed while it is held: who waits for it finds a file that is gone, and makes a new one
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        lock.release()
        if made:
            with contextlib.suppress(OSError):  # it is not empty: something was written
                folder.rmdir()


def is_ours(name: str) -> bool:
    """Whether a file of this name is the lock's: a folder that holds nothing else is empty."""
    return name in (NAME, f"{NAME}.who")


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8") or "unknown"
    except OSError:
        return "unknown"
