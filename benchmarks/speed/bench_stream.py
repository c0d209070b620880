"""The engine of `semnr score`: its share of the kernel's throughput, its cost a tile, its memory, its workers.

`python benchmarks/speed/bench_stream.py [throughput|overhead|memory|guarded|cluster]...` (all unless named);
`--tiles N`, `--memory-tiles N` and `--guarded-tiles N` make it shorter. Each comparison alternates in one process;
memory and cluster runs are processes of their own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import table
import torch

import semnr
from semnr.tiles import TileKey, create_tiles

TOGETHER = ("psnr", "ssim", "cnr")
SIDE, DISTINCT = 1024, 48
TURNS = 3


def pair(seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Denoised and clean lines of 8 bit."""
    rng = np.random.default_rng(seed)
    clean = np.where(np.arange(side) % 32 < 16, 160, 70) + np.zeros((side, 1))
    noisy = [np.clip(clean + sigma * rng.standard_normal((side, side)), 0, 255).astype(np.uint8) for sigma in (6, 2)]
    return noisy[0], noisy[1]


def wafer(folder: Path, tiles: int) -> Path:
    """An uncompressed stack in which every tile is a file of its own; its pixels repeat after DISTINCT tiles."""
    with create_tiles(folder, count=tiles, roles=("denoised", "reference"), compress=False) as out:
        for i in range(min(tiles, DISTINCT)):
            x, y = pair(i)
            out.write(TileKey(f"t{i:06d}", i), x, "denoised")
            out.write(TileKey(f"t{i:06d}", i), y, "reference")
    for role in ("denoised", "reference"):
        for i in range(DISTINCT, tiles):
            chunk = folder / role / "c" / str(i) / "0" / "0"
            chunk.parent.mkdir(parents=True)
            shutil.copyfile(folder / role / "c" / str(i % DISTINCT) / "0" / "0", chunk)
    return folder


def engine(source: object, folder: Path, metrics: tuple[str, ...], **options: object) -> float:
    """Seconds of a whole `semnr.score`."""
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.perf_counter()
    run = semnr.score(source, out=folder, metrics=metrics, **options)  # type: ignore[arg-type]
    spent = time.perf_counter() - begun
    assert run.counts["ok"] == run.counts["tiles"]
    return spent


def kernel(pairs: list[tuple[torch.Tensor, torch.Tensor]], tiles: int, metrics: tuple[str, ...]) -> float:
    """Seconds of the same scores of tiles in memory, on as many threads, each with one torch thread."""
    count = torch.get_num_threads()

    def one(i: int) -> object:
        return semnr.profile(*pairs[i % len(pairs)], metrics=metrics)

    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        begun = time.perf_counter()
        for _ in threads.map(one, range(tiles)):
            pass
        spent = time.perf_counter() - begun
    torch.set_num_threads(count)
    return spent


def throughput(folder: Path, tiles: int) -> dict:
    """PSNR + SSIM + CNR over a warm uncompressed Zarr against the kernel alone."""
    source = wafer(folder / "wafer.zarr", tiles)
    pairs = [tuple(map(torch.from_numpy, pair(i))) for i in range(DISTINCT)]
    found: dict[str, list[float]] = {"engine": [], "kernel": []}
    engine(str(source), folder / "warm", TOGETHER)
    for _ in range(TURNS):
        found["kernel"].append(kernel(pairs, tiles, TOGETHER))
        found["engine"].append(engine(str(source), folder / "run", TOGETHER))
    ours, theirs = (statistics.median(found[k]) for k in ("engine", "kernel"))
    print(
        f"PSNR+SSIM+CNR, {tiles} tiles of {SIDE}² uint8, uncompressed Zarr, warm: {tiles / ours:.0f} tiles/s, "
        f"{tiles * SIDE**2 / ours / 1e6:.0f} MP/s; kernel alone {tiles / theirs:.0f} tiles/s; share "
        f"{theirs / ours:.3f} (bar 0.85); beyond the kernel {(ours - theirs) / tiles * 1e6:.0f} µs a tile"
    )
    return {"work": "throughput", "tiles": tiles, "seconds": found}


def overhead(folder: Path, tiles: int = 5000) -> dict:
    """What a small tile costs beyond its kernels: in memory, 64², PSNR + SSIM."""
    pairs = [pair(i, 64) for i in range(DISTINCT)]
    x, y = (np.stack([pairs[i % DISTINCT][k] for i in range(tiles)]) for k in (0, 1))
    tensors = [tuple(map(torch.from_numpy, p)) for p in pairs]
    found: dict[str, list[float]] = {"engine": [], "kernel": []}
    for _ in range(TURNS):
        begun = time.perf_counter()
        for i in range(tiles):
            a, b = tensors[i % DISTINCT]
            semnr.psnr(a, b)
            semnr.ssim(a, b)
        found["kernel"].append(time.perf_counter() - begun)
        found["engine"].append(engine(x, folder / "small", ("psnr", "ssim"), reference=y))
    ours, theirs = (statistics.median(found[k]) / tiles for k in ("engine", "kernel"))
    print(
        f"64² tiles in memory, PSNR+SSIM: {ours * 1e6:.0f} µs a tile, its two calls one after the other "
        f"{theirs * 1e6:.0f} µs; beyond them {max(0.0, ours - theirs) * 1e6:.0f} µs (bar 150)"
    )
    return {"work": "overhead", "tiles": tiles, "seconds": found}


MEMORY = """
import sys, tempfile
import numpy as np, semnr
count, rng = int(sys.argv[1]), np.random.default_rng(0)
base = rng.integers(0, 200, (64, 32, 32), dtype=np.uint8)
def tiles(shift):
    for i in range(count):
        yield f"t{i:07d}", base[i % 64] + np.uint8(i % 5 * shift)
with tempfile.TemporaryDirectory() as folder:
    run = semnr.score(tiles(1), reference=Reference(), out=folder + "/run", metrics=("psnr", "ssim"))
    assert run.counts["ok"] == count
# not ru_maxrss: a child starts with that of its parent
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
# a reference that makes each tile when it is asked for: a stream cannot be searched
REFERENCE = """
from semnr.tiles import TileKey, TileSource
class Reference(TileSource):
    name = "made"
    def __len__(self): return count
    def __iter__(self): return (TileKey(f"t{i:07d}", i) for i in range(count))
    def find(self, tile): return TileKey(tile, int(tile[1:]))
    def read(self, key, role="image"): return base[key.index % 64]
"""


# the same with the noisy input, all evidence and the built-in rules
GUARDED = """
import sys, tempfile
import numpy as np, semnr
from semnr.guarding import DEFAULT_RULES, alone
count, rng = int(sys.argv[1]), np.random.default_rng(0)
scenes = 90 + 60 * (np.arange(32) // 8 % 2) + rng.integers(0, 20, (64, 32, 1))
base = np.broadcast_to(scenes, (64, 32, 32)).astype(np.uint8)
frames = rng.normal(base, 9).clip(0, 255).astype(np.uint8)
def tiles(shift):
    for i in range(count):
        yield f"t{i:07d}", base[i % 64] + np.uint8(i % 5 * shift)
class Noisy(Reference):
    def read(self, key, role="image"): return frames[key.index % 64]
with tempfile.TemporaryDirectory() as folder:
    asked = {"reference": Reference(), "noisy": Noisy(), "rules": alone(DEFAULT_RULES)}
    run = semnr.score(tiles(1), out=folder + "/run", metrics=("psnr", "ssim", "cnr"), **asked)
    assert run.counts["tiles"] == count and run.counts["ok"] >= 0.99 * count and run.verdict is not None, run.counts
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def memory(most: int, work: str = "memory") -> dict:
    """Peak resident memory of a synthetic stream, short and long."""
    peaks, seconds = {}, {}
    script = MEMORY.replace("with tempfile", REFERENCE + "with tempfile")
    if work == "guarded":
        script = GUARDED.replace("class Noisy", REFERENCE + "class Noisy")
    for count in (1000, most):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script, str(count)], capture_output=True, text=True, check=True)
        peaks[count], seconds[count] = int(done.stdout) / 1024, time.perf_counter() - begun
    growth = peaks[most] / peaks[1000] - 1
    print(
        f"resident memory, {work}: {peaks[1000]:.0f} MiB at 1,000 tiles, {peaks[most]:.0f} MiB at {most:,}: "
        f"{growth:+.1%} (bar 5 %); {seconds[most] / most * 1e6:.0f} µs a tile of 32²"
    )
    return {"work": work, "peaks_mib": peaks, "seconds": seconds}


def cluster(folder: Path, tiles: int) -> dict:
    """Two worker processes against this one."""
    source = folder / "wafer.zarr"
    if not source.exists():
        wafer(source, tiles)
    found: dict[str, list[float]] = {"one": [], "two": []}
    from distributed import Client, LocalCluster

    with LocalCluster(2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as local, Client(local):
        engine(str(source), folder / "warm", TOGETHER, scheduler=local.scheduler_address)  # workers import, too
        for _ in range(TURNS):
            found["one"].append(engine(str(source), folder / "one", TOGETHER))
            found["two"].append(engine(str(source), folder / "two", TOGETHER, scheduler=local.scheduler_address))
    rows = [
        sorted(Run.table().to_pylist(), key=lambda r: r["index"])
        for Run in map(semnr.scoring.Run.open, (folder / "one", folder / "two"))
    ]
    one, two = (statistics.median(found[k]) for k in ("one", "two"))
    print(
        f"two dask workers: {tiles / two:.0f} tiles/s, this process {tiles / one:.0f}: {one / two:.3f} of it "
        f"(bar 0.90); rows {'identical' if rows[0] == rows[1] else 'DIFFER'} after sorting"
    )
    return {"work": "cluster", "tiles": tiles, "seconds": found, "identical": rows[0] == rows[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", default=["throughput", "overhead", "memory", "guarded", "cluster"])
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--memory-tiles", type=int, default=1_000_000)
    parser.add_argument("--guarded-tiles", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the tiles go; default: a temporary folder")
    args = parser.parse_args()
    print(json.dumps(table.machine()))
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder, rows = Path(name), []
        for which in args.which:
            if which == "throughput":
                rows.append(throughput(folder, args.tiles))
            elif which == "overhead":
                rows.append(overhead(folder))
            elif which == "memory":
                rows.append(memory(args.memory_tiles))
            elif which == "guarded":
                rows.append(memory(args.guarded_tiles, "guarded"))
            elif which == "cluster":
                rows.append(cluster(folder, args.tiles))
            else:
                parser.error(f"{which!r}; accepted: throughput, overhead, memory, guarded, cluster")
    for name, here in (("stream", _of(rows, False)), ("guarded", _of(rows, True))):
        if here:  # a record names one machine and load
            path = table.RESULTS / f"{name}.json"
            kept = table.records.read_tree(path)["rows"] if path.exists() else []
            kept = [row for row in kept if row["work"] not in {r["work"] for r in here}]
            table.keep(name, __file__, {"rows": [*kept, *here]})
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def _of(rows: list[dict[str, Any]], guarded: bool) -> list[dict[str, Any]]:
    return [row for row in rows if (row["work"] == "guarded") == guarded]


if __name__ == "__main__":
    main()
