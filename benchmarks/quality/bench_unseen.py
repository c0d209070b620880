"""Structure that training has not seen: each family of scenes left out of a training, and judged on that family.

`python benchmarks/quality/bench_unseen.py OUT` trains one network for each family without it, and one with all of
them, by the recipe `small` with fewer steps, each on one thread; then it denoises held-out tiles of each family with
both, with the shipped weights and with variance-stabilised BM3D, and writes results/unseen.json. OUT keeps the
networks: what is there is not trained again. `--steps` and `--tiles` change the size, `--only FAMILY` trains one of
them and judges nothing.

The difference between the two networks of equal training is what not having seen a family costs. That between the
shipped weights and the network with all families is what longer training brings.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import bench_denoise
import records

from semnr.denoising import denoise
from semnr.runs.run import machine
from semnr.training import train_denoiser
from semnr.training.config import Recipe, load_recipe
from semnr.training.judge import HeldOut, synthetic
from semnr.training.scenes import SHARES

RESULTS = Path(__file__).parents[1] / "results" / "unseen.json"
FAMILIES = {
    "patterns": ("lines", "holes", "vias"),
    "dead leaves": ("leaves",),
    "particles": ("particles",),
    "pores": ("porous",),
    "logic metal": ("metal",),
}
ALL = "none left out"
SEED = 41  # of training; the tiles that judge have seeds of their own
RESAMPLED = 2000


def recipe_of(left_out: str, steps: int) -> dict[str, Any]:
    """What differs from the recipe `small`."""
    without = FAMILIES.get(left_out, ())
    return {
        "scenes.shares": {kind: 0.0 if kind in without else share for kind, share in SHARES.items()},
        "training.steps": steps,
        "training.seed": SEED,
        "training.warm_up": min(300, steps // 8),
        "training.devices": 1,
        "training.average": 0.997,
        "data.batch": 8,
        "validation.every": steps,
        "validation.tiles": 8,
    }


def trained(left_out: str, steps: int, out: Path) -> Path:
    """The weights of one training, made where they are not there yet."""
    folder = out / left_out.replace(" ", "-")
    weights = folder / "last.safetensors"
    if not weights.is_file():
        train_denoiser(None, folder, recipe="small", changes=recipe_of(left_out, steps), resume=folder.is_dir())
    return weights


def tiles_of(family: str, count: int) -> HeldOut:
    """Held-out scenes of one family, recorded by held-out tools."""
    made: Recipe = load_recipe("small", {"validation.side": 256})
    shares = {kind: SHARES[kind] for kind in FAMILIES[family]}
    made = dataclasses.replace(made, scenes=dataclasses.replace(made.scenes, shares=shares))
    return synthetic(made, tiles=count, seed=SEED + 1000)


def psnr(model: str, tiles: HeldOut) -> np.ndarray:
    """(N,) dB of each tile against its clean image, 12 px at the border aside."""
    assert tiles.reference is not None
    inner = (slice(bench_denoise.BORDER, -bench_denoise.BORDER),) * 2
    found = []
    for x, clean, noise in zip(tiles.noisy, tiles.reference, tiles.noises, strict=True):
        done = denoise(x[0].numpy().astype(np.float64), model=model, data_range=1.0, workers=1, noise=noise)
        error = (np.clip(done, 0, 1) - clean[0].numpy())[inner]
        found.append(-10 * math.log10(max(float((error**2).mean()), 1e-12)))
    return np.array(found)


def interval(values: np.ndarray) -> list[float]:
    """95 % of the mean, by resampling."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (RESAMPLED, len(values))).mean(axis=1)
    return [float(v) for v in np.quantile(means, (0.025, 0.975))]


def judged(out: Path, steps: int, tiles: int) -> dict[str, Any]:
    """A row a family."""
    bench_denoise.bm3d_module()
    rows: dict[str, Any] = {}
    differences = []
    for family in FAMILIES:
        held = tiles_of(family, tiles)
        models = {
            "left out": str(trained(family, steps, out)), "seen": str(trained(ALL, steps, out)),
            "shipped": "semnr-small", "bm3d tuned": "bm3d",
        }  # fmt: skip
        found = {name: psnr(model, held) for name, model in models.items()}
        rows[family] = {"tiles": tiles} | {name: float(values.mean()) for name, values in found.items()}
        for name, one, other in (
            ("left out less bm3d", "left out", "bm3d tuned"), ("seen less bm3d", "seen", "bm3d tuned"),
            ("left out less seen", "left out", "seen"), ("shipped less bm3d", "shipped", "bm3d tuned"),
        ):  # fmt: skip
            rows[family] |= {name: float((found[one] - found[other]).mean())}
            rows[family] |= {f"{name}, interval": interval(found[one] - found[other])}
        differences.append({name: value for name, value in rows[family].items() if " less " in name})
        print(family, {k: np.round(v, 3).tolist() for k, v in rows[family].items()}, flush=True)
    names = [name for name in differences[0] if not name.endswith("interval")]
    rows["mean of families"] = {name: float(np.mean([one[name] for one in differences])) for name in names}
    print("mean of families", rows["mean of families"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1500, help="of each training")
    parser.add_argument("--tiles", type=int, default=12, help="of each family, to judge on")
    parser.add_argument("--only", choices=(*FAMILIES, ALL), help="train this one, judge nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for left_out in (given.only,) if given.only else (*FAMILIES, ALL):
        trained(left_out, given.steps, given.out)
    if given.only:
        return
    rows = judged(given.out, given.steps, given.tiles)
    made = records.record(
        __file__, {"unseen": rows | {"setting": {"steps": given.steps, "batch": 8, "patch": 128}}}, machine=machine(),
        versions=versions(), arguments=["OUT", "--steps", str(given.steps), "--tiles", str(given.tiles)],
    )  # fmt: skip
    records.write(RESULTS, made)


def versions() -> dict[str, str]:
    """Of what computed the figures."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "bm3d", "numpy", "scikit-image")}


if __name__ == "__main__":
    main()
