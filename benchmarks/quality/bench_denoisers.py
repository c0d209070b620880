"""The published table of denoisers, out of the rows of `semnr compare-denoisers`.

`python benchmarks/quality/bench_denoisers.py OUT ...` takes the folders of runs, puts their rows into
results/denoisers.parquet (hashes and all) and their means into results/denoisers.json, and the tables into
docs/benchmark.md; `--table` does the last with what is there. Nothing is measured here:

    semnr compare-denoisers --pairs ../shared/data/pairs --careamics PYTHON --out OUT

Several folders are of one protocol, each with some of the denoisers or fields: what a stopped run left.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records

from semnr.contest.protocol import load
from semnr.contest.store import Row, read, rows_in, write
from semnr.contest.table import means, speeds, text
from semnr.runs.run import machine

HERE = Path(__file__).resolve().parents[1]
ROWS, RESULTS = HERE / "results" / "denoisers.parquet", HERE / "results" / "denoisers.json"
PAGE = HERE.parent / "docs" / "benchmark.md"
BEGIN, END = "<!-- denoisers: python benchmarks/quality/bench_denoisers.py --table -->", "<!-- end of denoisers -->"


def gathered(folders: Sequence[Path]) -> list[Row]:
    """The rows of several runs, in the order of the protocol."""
    protocol = load()
    rows = rows_in(folders, protocol)
    order = list(protocol["denoisers"])

    def place(row: Row) -> tuple[int, str, str]:
        known = row["denoiser"] in order
        return order.index(row["denoiser"]) if known else len(order), row["denoiser"], row["field"]

    return sorted(rows, key=place)


def tree(rows: Sequence[Row]) -> dict[str, Any]:
    """The means as a tree of kinds, denoisers and figures."""
    protocol = load()
    found: dict[str, Any] = {"protocol": {"version": protocol["version"], "sha256": protocol.sha256}}
    for row in means(rows, protocol):
        figures = {k: v for k, v in row.items() if k not in ("denoiser", "kind", "split", "figure")}
        plain = {k: None if isinstance(v, float) and v != v else v for k, v in figures.items()}
        found.setdefault(row["kind"], {}).setdefault(row["denoiser"], {})[row["figure"]] = plain
    found["megapixels_per_core_second"] = speeds(rows)
    return found


def made(rows: Sequence[Row]) -> str:
    """What stands between the marks of the page."""
    protocol = load()
    every = {kind: {r["field"] for r in rows if r["kind"] == kind} for kind in ("real", "wafer", "lines", "blank")}
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in every.items())
    head = f"Protocol {protocol['version']}, SHA-256 `{protocol.sha256[:16]}…`; fields: {counts}; {len(rows):,} rows."
    return f"{head}\n\n{text(means(rows, protocol), rows)}"


def put(rows: Sequence[Row]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{made(rows)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def versions() -> Mapping[str, str]:
    names, found = ("torch", "numpy", "scipy", "scikit-image", "bm3d", "lightning"), {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="OUT", help="folders of semnr compare-denoisers")
    parser.add_argument("--table", action="store_true", help="put what is there into the page")
    args = parser.parse_args()
    if args.runs:
        found = gathered(args.runs)
        write(found, ROWS)
        records.write(RESULTS, records.record(__file__, tree(found), machine=machine(), versions=versions()))
    elif not args.table:
        parser.error("nothing to do: give folders of runs, or --table")
    put(read(ROWS))
