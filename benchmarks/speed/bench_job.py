"""What the main job costs a tile: the trust columns alone, and whole runs with PSNR, SSIM, FSIM and CNR beside them.

`python benchmarks/speed/bench_job.py [--before TREE] [--turns N] [--tiles N] [--large N]`; TREE is a checkout of older
code with its compiled modules in place. Each tree has one process; the two take turns on the same tiles, and
medians are compared; tiles of 4096 px are for the present code alone. What counts is processor time of the whole
process (all its threads), which other work on the machine disturbs least; wall time stands beside it in the record.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import table
import torch
from scipy import ndimage

import semnr
from semnr.synth import Detector, quantise, tile
from semnr.tiles import TileKey, create_tiles
from semnr.trust.columns import Trust

METRICS = ("psnr", "ssim", "fsim", "cnr")
SIDES = {"small": 512, "large": 2048, "huge": 4096}
PATTERNS = ("lines", "holes", "vias", "metal")
WAFERS = (780, 5_000, 10_000)
WORKS = {
    "trust, reference": "trust columns, noisy and reference given",
    "trust, no reference": "trust columns, noisy alone",
    "job, reference": "PSNR, SSIM, FSIM, CNR and trust columns, noisy and reference given",
    "job, no reference": "`check`: noisy and denoised alone",
    "metrics alone": "PSNR, SSIM, FSIM, CNR alone",
    "job, reference, large": "PSNR, SSIM, FSIM, CNR and trust columns, noisy and reference given",
    "trust, reference, large": "trust columns, noisy and reference given",
    "trust, no reference, large": "trust columns, noisy alone",
    "trust, reference, huge": "trust columns, noisy and reference given",
}


def size_of(work: str) -> str:
    """Which of the sizes a work is done on."""
    last = work.split(", ")[-1]
    return last if last in SIDES else "small"


def images(side: int, count: int) -> Iterator[tuple[np.ndarray, ...]]:
    """(noisy, denoised, reference) of 8 bit: a detector's noise, and a Gaussian of 1 px against it."""
    for i in range(count):
        clean = np.clip(tile(PATTERNS[i % len(PATTERNS)], side, seed=i).clean, 0, 1)
        noisy = quantise(Detector().apply(clean, np.random.default_rng(i)), "uint8")
        denoised = np.rint(ndimage.gaussian_filter(noisy.astype(np.float32), 1.0)).astype(np.uint8)
        yield noisy, denoised, np.rint(255 * clean).astype(np.uint8)


def prepare(folder: Path, counts: dict[str, int]) -> None:
    """The tiles as arrays, and as an uncompressed Zarr stack."""
    for name, count in counts.items():
        made = [np.stack(role) for role in zip(*images(SIDES[name], count), strict=True)]
        np.savez(folder / f"{name}.npz", noisy=made[0], denoised=made[1], reference=made[2])
        roles = {"noisy": made[0], "denoised": made[1], "reference": made[2]}
        with create_tiles(folder / f"{name}.zarr", count=count, roles=tuple(roles), compress=False) as out:
            for role, stack in roles.items():
                for i, image in enumerate(stack):
                    out.write(TileKey(f"t{i:06d}", i), image, role)


class Works:
    """The work of one tree, in its own process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays = {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}
        self.turn = 0

    def run(self, work: str) -> int:
        """Do one work; the number of its tiles."""
        size = size_of(work)
        arrays = self.arrays[size]
        kind, rest = work.split(", ", 1) if ", " in work else (work, "")
        count = len(arrays["noisy"])
        if kind == "trust":
            torch.set_num_threads(1)
            self.trust(arrays, not rest.startswith("no reference"))
            torch.set_num_threads(os.cpu_count() or 1)
            return count
        self.turn += 1
        source, out = str(self.folder / f"{size}.zarr"), self.folder / f"run_{os.getpid()}_{self.turn}"
        if rest == "no reference":
            verdict = semnr.check(arrays["noisy"], arrays["denoised"], report=False)
            assert len(verdict.signals) > 0
            return count
        if kind == "job":
            done = semnr.score(source, reference=source, noisy=source, out=out, metrics=METRICS)
        else:
            done = semnr.score(arrays["denoised"], reference=arrays["reference"], out=out, metrics=METRICS)
        assert done.counts["ok"] == count
        return count

    def trust(self, arrays: dict[str, np.ndarray], reference: bool) -> None:
        judge = Trust()
        for i in range(len(arrays["noisy"])):
            roles = {name: stack[i : i + 1, None] for name, stack in arrays.items() if reference or name != "reference"}
            if hasattr(judge, "pairs_of"):
                pairs = judge.pairs_of(roles)
                assert pairs.problem(0) == ""
                assert judge.measure(roles, data_range=None, pairs=pairs).columns
            else:  # older code
                assert judge.pair_problem(roles["noisy"][0], roles["denoised"][0]) == ""
                assert judge.measure(roles, data_range=None).columns


def worker(folder: Path) -> None:
    """Works by name from standard input; of each a line with its tiles and seconds."""
    works = Works(folder)
    for line in sys.stdin:
        before, begun = _cpu(), time.perf_counter()
        count = works.run(line.strip())
        print(json.dumps({"tiles": count, "cpu": _cpu() - before, "wall": time.perf_counter() - begun}), flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Process:
    """A worker with the modules of one tree."""

    def __init__(self, tree: Path, folder: Path) -> None:
        paths = os.pathsep.join(map(str, (tree / "python", tree)))
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )

    def run(self, work: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(work + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended at {work!r}; its message is above")
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        self.process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="a checkout of older code, built")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tiles", type=int, default=22)
    parser.add_argument("--large", type=int, default=2, help="tiles of 2048 px")
    parser.add_argument("--folder", type=Path, help="where the tiles go; default: a temporary folder")
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--record", default="job", help="name of the record; rows of other works stay in it")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    print(json.dumps(table.machine()))
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        counts = {"small": args.tiles, "large": args.large, "huge": 1}
        prepare(folder, {size: counts[size] for size in SIDES if size in map(size_of, args.works)})
        trees = {"now": table.records.REPOSITORY} | ({"before": args.before.resolve()} if args.before else {})
        processes = {who: Process(tree, folder) for who, tree in trees.items()}
        rows: list[dict[str, Any]] = []
        for work in args.works:
            few = args.turns if size_of(work) == "small" else min(2, args.turns)
            at_work = {w: p for w, p in processes.items() if w == "now" or size_of(work) != "huge"}
            took: dict[str, list[dict[str, Any]]] = {who: [] for who in at_work}
            for turn in range(few + 1):  # the first of each is warm-up
                for who, process in at_work.items():
                    told = process.run(work)
                    if turn:
                        took[who].append(told)
            rows.append(_row(work, took))
            print(_told(rows[-1]), flush=True)
        for process in processes.values():
            process.close()
    wafers(rows)
    path = table.RESULTS / f"{args.record}.json"
    kept = table.records.read_tree(path)["rows"] if path.exists() else []
    kept = [row for row in kept if row["work"] not in {r["work"] for r in rows}]
    print(f"raw rows: {table.keep(args.record, __file__, {'rows': [*kept, *rows]}, sys.argv[1:])}")


def _row(work: str, took: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    row: dict[str, Any] = {"work": work, "what": WORKS[work], "side": SIDES[size_of(work)]}
    for who, runs in took.items():
        for kind in ("cpu", "wall"):
            row[f"{who}_{kind}_ms"] = [round(1e3 * one[kind] / one["tiles"], 3) for one in runs]
    return row


def _ms(row: dict[str, Any], who: str, kind: str = "cpu") -> float:
    return statistics.median(row[f"{who}_{kind}_ms"])


def _told(row: dict[str, Any]) -> str:
    text = f"{row['what']}, {row['side']}²: {_ms(row, 'now'):.1f} ms of processor time a tile"
    text += f", {1e3 * _ms(row, 'now') / row['side'] ** 2 * 1e3:.0f} ns a pixel, wall {_ms(row, 'now', 'wall'):.1f} ms"
    if "before_cpu_ms" in row:
        text += f"; before {_ms(row, 'before'):.1f} ms: {_ms(row, 'before') / _ms(row, 'now'):.1f} ×"
    return text


def wafers(rows: list[dict[str, Any]]) -> None:
    """What whole wafers cost by the measured rate, on one core that is free."""
    for row in rows:
        if row["work"].startswith("job"):
            costs = (f"{tiles:,} tiles {tiles * _ms(row, 'now') / 6e4:.1f} min" for tiles in WAFERS)
            print(f"{row['what']}, {row['side']}², on one core: {', '.join(costs)}")


if __name__ == "__main__":
    main()
