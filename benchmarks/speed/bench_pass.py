"""What one pass saves: denoise, score and guard together beside each alone, a profile with the noisy image beside one
without, the scoring of the demo's candidates, and the edges of a grating together beside one by one with SciPy.

`python benchmarks/speed/bench_pass.py [pass|noise|demo|edges]... [--tiles N] [--turns N]`. What is compared takes
turns in one process; medians of processor time of the whole process, with wall time beside it in the record.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

import edges_by_scipy
import numpy as np
import table
import torch
from bench_job import METRICS, images

import semnr
from semnr.demo import run_demo
from semnr.guarding import DEFAULT_RULES, alone
from semnr.metrology import find_edges
from semnr.tiles import TileKey, create_tiles
from semnr_kernels.pretrained import VGG16

SIDE = 512
SIDES = (512, 1024, 2048)
TOGETHER = ("psnr", "ssim", "cnr")
MODEL, PRECISIONS = "semnr-small", ("float32", "bfloat16")
WORKS = ("pass", "noise", "demo", "edges")


def turns(count: int, works: dict[str, Callable[[], object]]) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each work, in turn; the first turn warms up."""
    took: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "wall": []} for name in works}
    for turn in range(count + 1):
        for name, work in works.items():
            before, begun = time.process_time(), time.perf_counter()
            work()
            if turn:
                took[name]["cpu"].append(round(1e3 * (time.process_time() - before), 3))
                took[name]["wall"].append(round(1e3 * (time.perf_counter() - begun), 3))
    return took


def median(took: dict[str, dict[str, list[float]]], name: str) -> float:
    """Of the processor time."""
    return statistics.median(took[name]["cpu"])


def one_pass(folder: Path, tiles: int, count: int) -> list[dict[str, Any]]:
    """`semnr.denoise(score=)` with rules, beside `semnr.denoise` and then `semnr.score` of what it wrote."""
    source = folder / "source.zarr"
    with create_tiles(source, count=tiles, roles=("noisy", "reference"), compress=False) as out:
        for i, (noisy, _, reference) in enumerate(images(SIDE, tiles)):
            out.write(TileKey(f"t{i:06d}", i), noisy, "noisy")
            out.write(TileKey(f"t{i:06d}", i), reference, "reference")
    rows = []
    for precision in PRECISIONS:
        clean, scored = folder / f"{precision}.zarr", {"metrics": METRICS, "rules": alone(DEFAULT_RULES)}
        asked: dict[str, Any] = {"model": MODEL, "precision": precision, "overwrite": True}

        def together(clean: Path = clean, asked: dict[str, Any] = asked, scored: dict[str, Any] = scored) -> None:
            done = semnr.denoise(str(source), clean.with_stem(clean.stem + "-both"), score=scored, **asked)
            assert done.run.verdict is not None
            assert done.run.counts["ok"] == tiles

        def denoised(clean: Path = clean, asked: dict[str, Any] = asked) -> None:
            assert semnr.denoise(str(source), clean, **asked).counts["ok"] == tiles

        def judged(clean: Path = clean, scored: dict[str, Any] = scored) -> None:
            place = Path(tempfile.mkdtemp(dir=folder)) / "run"
            run = semnr.score(clean, reference=str(source), noisy=str(source), out=place, **scored)
            assert run.verdict is not None
            assert run.counts["ok"] == tiles

        took = turns(count, {"together": together, "denoise": denoised, "score": judged})
        apart = median(took, "denoise") + median(took, "score")
        print(
            f"{MODEL}, {precision}, {tiles} tiles of {SIDE}²: denoise + score + guard in one pass "
            f"{median(took, 'together') / tiles:.0f} ms a tile; denoise {median(took, 'denoise') / tiles:.0f}, score "
            f"and guard {median(took, 'score') / tiles:.0f}: {median(took, 'together') / apart:.3f} × (bar 1.05)",
            flush=True,
        )
        rows.append({"work": "pass", "precision": precision, "tiles": tiles, **_flat(took)})
    return rows


def with_noise(count: int) -> list[dict[str, Any]]:
    """PSNR + SSIM + CNR with the noisy image beside without it, on one thread; regions by Otsu's threshold or given."""
    rows = []
    torch.set_num_threads(1)
    for side in SIDES:
        noisy, denoised, reference = next(images(side, 1))
        for dtype in ("uint8", "float32"):
            x, y, z = (torch.from_numpy(v) for v in (denoised, reference, noisy))
            if dtype == "float32":
                x, y, z = (v.float() / 255 for v in (x, y, z))
            scale = 255.0 if dtype == "uint8" else 1.0
            level = float(np.median(reference)) * scale / 255
            masks = (y > level + 0.05 * scale, y < level - 0.05 * scale)
            for regions, given in (("Otsu", None), ("given", masks)):
                usual: dict[str, Any] = {"data_range": scale, "metrics": TOGETHER, "masks": given}
                took = turns(
                    10 * count,
                    {
                        "without": lambda x=x, y=y, usual=usual: semnr.profile(x, y, **usual),
                        "with": lambda x=x, y=y, z=z, usual=usual: semnr.profile(x, y, noise=z, **usual),
                    },
                )
                one, other = (median(took, name) for name in ("without", "with"))
                print(
                    f"PSNR + SSIM + CNR, {dtype}, {side}², regions {regions}: {one:.2f} ms without, {other:.2f} with "
                    f"noise=: {other / one:.2f} × (bar 1.4)",
                    flush=True,
                )
                rows.append({"work": "noise", "side": side, "dtype": dtype, "regions": regions, **_flat(took)})
    return rows


def demo(folder: Path) -> list[dict[str, Any]]:
    """Seconds of the demo's scoring, each candidate of 22 tiles of 512²; without VGG16's weights DISTS is left out."""
    made = run_demo(folder / "demo", quiet=True)
    seconds = {step.removeprefix("score "): spent for step, spent in made.seconds.items() if step.startswith("score ")}
    dists = "" if VGG16.installed is None else " and DISTS"
    told = ", ".join(f"{name} {spent:.2f} s" for name, spent in seconds.items())
    print(f"the demo's scoring{dists}: {told} (bar 2 s, without DISTS)", flush=True)
    return [{"work": "demo", "dists": bool(dists), **{name: round(spent, 3) for name, spent in seconds.items()}}]


def edges(count: int) -> list[dict[str, Any]]:
    """The edges of one noisy image of lines, all together and one by one."""
    (image,) = (noisy.astype(np.float64) for noisy, *_ in images(SIDE, 1))  # the first pattern: lines
    found = find_edges(image)
    took = turns(
        10 * count,
        {
            "one by one": lambda: edges_by_scipy.find_edges(image, found.orientation),
            "together": lambda: find_edges(image),
        },
    )
    one, other = (median(took, name) for name in took)
    print(
        f"{len(found.positions)} edges of {SIDE}²: {one:.1f} ms one by one, {other:.1f} together: {one / other:.2f} ×"
    )
    return [{"work": "edges", "side": SIDE, "edges": len(found.positions), **_flat(took)}]


def _flat(took: dict[str, dict[str, list[float]]]) -> dict[str, list[float]]:
    return {f"{name}_{kind}_ms": values for name, both in took.items() for kind, values in both.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", default=list(WORKS))
    parser.add_argument("--tiles", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the tiles go; default: a temporary folder")
    args = parser.parse_args()
    if unknown := set(args.which) - set(WORKS):
        parser.error(f"{sorted(unknown)[0]!r}; accepted: {', '.join(WORKS)}")
    print(json.dumps(table.machine()))
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        rows = []
        for which in args.which:
            if which == "pass":
                rows += one_pass(Path(name), args.tiles, args.turns)
            elif which == "noise":
                rows += with_noise(args.turns)
            elif which == "edges":
                rows += edges(args.turns)
            else:
                rows += demo(Path(name))
    path = table.RESULTS / "pass.json"
    kept = table.records.read_tree(path)["rows"] if path.exists() else []
    kept = [row for row in kept if row["work"] not in {r["work"] for r in rows}]
    print(f"raw rows: {table.keep('pass', __file__, {'rows': [*kept, *rows]}, sys.argv[1:])}")


if __name__ == "__main__":
    main()
