"""How long the build takes.

`python benchmarks/speed/build_times.py` compiles csrc from nothing into a temporary folder.
Prints each object's seconds (of a compiler that had a core to itself, where there are as many as `--parallel`), the
seconds and the compilers' CPU seconds of all, and those of a second build without changes. Arguments go to build_ext.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def build(folder: str) -> tuple[float, float]:
    """Wall and CPU seconds."""
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        f"--build-temp={folder}/temp",
        f"--build-lib={folder}/lib",
    ]
    begun, before = time.perf_counter(), os.times()
    subprocess.run([*command, *sys.argv[1:]], cwd=REPOSITORY, check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begun, cpu


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = build(folder)
        records = [json.loads(path.read_text()) for path in Path(folder).rglob("*.o*.json")]
        again, _ = build(folder)
    sets: dict[str, dict[str, float]] = {}
    for record in records:
        sets.setdefault(record["source"], {})[record["folder"].split("/")[0]] = record["seconds"]
    for source, seconds in sorted(sets.items(), key=lambda item: -sum(item[1].values())):
        print(
            f"{sum(seconds.values()):7.1f} s  {source}  {', '.join(f'{k} {v:.1f}' for k, v in sorted(seconds.items()))}"
        )
    of_all = f"{len(records)} objects on {os.cpu_count()} cores, {platform.machine()}"
    print(f"{wall:7.1f} s for {of_all}; {cpu:.0f} CPU seconds")
    print(f"{again:7.1f} s for a second build without changes")


if __name__ == "__main__":
    main()
