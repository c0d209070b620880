"""Commands in forked children that die, or find the disk full, at their n-th change of the disk; then they go on.

`python faulty.py SOURCE FOLDER COMMAND HOW COUNT`: prints a JSON line a trial (COUNT of them, spread; 0: all),
{"at", "first", "then", "problem"}.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch

import semnr  # noqa: F401 - imported once, before the forks
from semnr.cli import main
from semnr.denoising import lazy, over_tiles  # noqa: F401
from semnr.runs import run  # noqa: F401
from semnr.tiles import open_tiles

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
_NEVER = 10**9


def watch(folder: str, at: int, how: str, seen: list[int]) -> None:
    def hook(event: str, arguments: tuple) -> None:  # type: ignore[type-arg]
        grows = event in ("os.mkdir", "os.rename")
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            grows = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if not (grows or event in _CHANGES) or not str(arguments[0]).startswith(folder):
            return
        seen[0] += 1
        if how == "kill" and seen[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "full" and seen[0] >= at and grows:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(hook)


def child(command: list[str], folder: str, at: int = _NEVER, how: str = "") -> tuple[int, int]:
    """(exit status, changes of the disk below `folder`)."""
    out, into = os.pipe()
    process = os.fork()
    if process == 0:
        seen = [0]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        watch(folder, at, how, seen)
        status = main(command)
        os.write(into, str(seen[0]).encode())
        os._exit(status)
    os.close(into)
    count = os.read(out, 99)
    os.close(out)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), int(count or 0)


def result(out: Path, name: str) -> object:
    """What a command left, in a form that two runs of it share."""
    if name == "score":
        parts = sorted((out / "tiles").glob("*.parquet"))
        rows = [row for part in parts for row in pq.ParquetFile(part).read().to_pylist()]
        counts = json.loads((out / "run.json").read_text())
        return sorted(str(row) for row in rows), counts["counts"], counts["state"]
    source = open_tiles(out)
    return [(key.tile, source.read(key).tobytes(), str(sorted(key.meta.items()))) for key in source]


def command_of(name: str, source: str, out: Path) -> list[str]:
    if name == "score":
        return ["score", source, "--out", str(out), "--metrics", "psnr", "--no-tests", "-q", "--resume"]
    return ["denoise", source, "--out", str(out), "--model", "gaussian", "--workers", "1", "-q", "--resume"]


def trials(source: str, folder: Path, name: str, how: str, count: int) -> None:
    suffix = ".zarr" if name == "zarr" else ""
    whole = folder / f"whole{suffix}"
    status, changes = child(command_of(name, source, whole), str(whole))
    assert (status, changes > 5) == (0, True), (status, changes)
    expected = reading(whole, name)
    spread = (1 + (changes - 1) * (2 * k + 1) // (2 * count) for k in range(count))
    for at in range(1, changes + 1) if not count else spread:
        out = folder / f"{how}{at}{suffix}"
        first, _ = child(command_of(name, source, out), str(out), at, how)
        then, _ = child(command_of(name, source, out), str(out))
        problem = None if reading(out, name) == expected else "another result"
        left = [str(path) for path in out.rglob("*") if ".lock" in path.name]
        print(json.dumps({"at": at, "first": first, "then": then, "problem": problem or (left or None)}), flush=True)


def reading(out: Path, name: str) -> str:
    """The result, read in a child: this process must stay without threads."""
    back, into = os.pipe()
    process = os.fork()
    if process == 0:
        import hashlib

        os.write(into, hashlib.sha256(repr(result(out, name)).encode()).hexdigest().encode())
        os._exit(0)
    os.close(into)
    found = os.read(back, 99).decode()
    os.close(back)
    os.waitpid(process, 0)
    return found or f"unreadable {out}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    trials(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
