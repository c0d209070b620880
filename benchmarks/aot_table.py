"""Ahead-of-time table of the Triton kernels: kernel × chip, compiled here without a GPU. Nothing in it was run.

`python benchmarks/aot_table.py` writes results/aot.json and prints the table; `--check` compiles and compares with the
recorded one where the compilers are the recorded versions, and holds "compiles, no spill" for all others.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

OPS = ("pixel", "ssim", "dists")
RESULTS = Path(__file__).parent / "results" / "aot.json"


def build(ops: tuple[str, ...] = OPS) -> dict:
    """Compile every launch that the ops name, for every target."""
    from semnr_kernels import _triton

    cases = [case for op in ops for case in importlib.import_module(f"semnr_kernels.{op}.triton_kernel").launches()]
    return {"versions": _triton.versions(), "kernels": [asdict(row) for row in _triton.compile_all(cases)]}


def show(table: dict) -> str:
    """One line a kernel: registers of a thread on each chip, shared memory, spills."""
    rows: dict[str, dict[str, dict]] = {}
    for row in table["kernels"]:
        rows.setdefault(row["kernel"], {})[row["target"]] = row
    targets = list(next(iter(rows.values())))
    lines = [
        "compiled only, not run; " + ", ".join(f"{k} {v}" for k, v in table["versions"].items()),
        f"{'registers a thread':45s}" + "".join(f"{t:>8s}" for t in targets) + "  spills  shared bytes",
    ]
    for name, by in rows.items():
        spills, shared = (max(by[t][key] for t in targets) for key in ("spills", "shared"))
        lines.append(f"{name:45s}" + "".join(f"{by[t]['registers']:8d}" for t in targets) + f"{spills:8d}{shared:14d}")
    return "\n".join(lines)


def problems(table: dict, recorded: dict) -> list[str]:
    """What keeps `table` from being accepted; the recorded figures bind only for the recorded compilers."""
    found = [f"{r['kernel']} on {r['target']} spills {r['spills']}" for r in table["kernels"] if r["spills"]]
    if table["versions"] == recorded["versions"]:
        kept = {(r["kernel"], r["target"]): r for r in recorded["kernels"]}
        new = {(r["kernel"], r["target"]): r for r in table["kernels"]}
        for key in sorted(kept.keys() | new.keys()):
            # addresses and file names in the binary vary with the checkout; registers and memory do not
            old, now = ({k: v for k, v in t.get(key, {}).items() if k != "binary"} for t in (kept, new))
            if old != now:
                found.append(f"{' on '.join(key)} was {old}, is {now}: run python benchmarks/aot_table.py")
    return found


def main(arguments: list[str]) -> int:
    table = build()
    print(show(table))
    recorded = json.loads(RESULTS.read_text()) if "--check" in arguments else {"versions": None}
    found = problems(table, recorded)
    print("\n".join(found))
    if "--check" not in arguments:
        RESULTS.write_text(json.dumps(table, indent=1) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
