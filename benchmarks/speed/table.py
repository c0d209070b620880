"""Runs the cases of one benchmark, prints its table, keeps the raw rows under benchmarks/results/."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from peers import PACKAGES, alternate, median, version

from semnr_kernels import native_support

RESULTS = Path(__file__).parents[1] / "results"


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


def write(name: str, cases: dict[str, tuple]) -> None:
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
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"{name}.json"
    out.write_text(
        json.dumps({"when": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()), "machine": machine(), "rows": rows})
    )
    print(f"raw rows: {out}")
