"""Runs the cases of one benchmark, prints its table, keeps the raw rows under benchmarks/results/."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records
from peers import PACKAGES, alternate, median, version

from semnr_kernels import native_support

HERE = Path(__file__).parent
RESULTS = records.RESULTS
HERE = Path(__file__).parent
VERSIONS = ("python", "torch", *PACKAGES.values())  # of what `machine` tells, the others are the machine's


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    name = platform.processor()
    if (info := Path("/proc/cpuinfo")).is_file():
        name = next(
            (line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), name
        )
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "instruction_set": native_support.describe(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: version(module) for module, package in PACKAGES.items()},
    }


def keep(name: str, script: str, tree: dict[str, Any], arguments: Sequence[str] = ()) -> Path:
    """Write the record NAME.json of what `script`, called with these arguments, measured here, now."""
    told = machine()
    versions = {what: told.pop(what) for what in VERSIONS}
    path = RESULTS / f"{name}.json"
    records.write(path, records.record(script, tree, machine=told, versions=versions, arguments=arguments))
    return path


def write(name: str, cases: dict[str, tuple]) -> None:
    """Run the cases of bench_NAME.py, print their table and write its record."""
    rows = []
    print(json.dumps(machine()))
    print("| work | semnr | peer | ratio |\n|---|---|---|---|")
    for make, *arguments in cases.values():
        calls = make(*arguments)
        work, pixels = calls.pop("work"), calls.pop("pixels")
        times = alternate(calls)
        medians = {who: median(seconds) for who, seconds in times.items()}
        rows.append({"work": work, "pixels": pixels, "seconds": times})
        own = medians.pop("semnr")
        left = f"| {work} | {own * 1e3:.3f} ms, {pixels / own / 1e6:.0f} MP/s |"
        for who, seconds in medians.items() or {"no peer installed": float("nan")}.items():
            print(f"{left} {who} {seconds * 1e3:.3f} ms | {seconds / own:.2f} |", flush=True)
    print(f"raw rows: {keep(name, f'{HERE}/bench_{name}.py', {'rows': rows})}")
