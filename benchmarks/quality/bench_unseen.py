"""Structure that training has not seen: each family of scenes left out of a training, and judged on that family.

`python benchmarks/quality/bench_unseen.py OUT` trains one network for each family without it, and one with all of
them, by the recipe `small` with fewer steps and Muon (`--optimiser`), each on one thread; then it denoises held-out
tiles of each family with both, as one copy and as the mean of four (as `semnr-base` does), with the shipped weights and
with variance-stabilised BM3D, and writes results/unseen-muon.json. OUT keeps the networks: what is there is not trained
again. `--steps` and `--tiles` change the size, `--only FAMILY` trains one of them and judges nothing.

`--trunk 8000` is the longer design (results/unseen-trunk.json): two trunks are trained first, one on patterns and dead
leaves, one on particles, pores and logic metal, and each network goes on from the trunk that has not seen its family.
Its scenes are like those of `semnr-base` (spheres count as particles), its loss is without FSIM and texture.

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

RESULTS = Path(__file__).parents[1] / "results"
FAMILIES = {
    "patterns": ("lines", "holes", "vias"),
    "dead leaves": ("leaves",),
    "particles": ("particles",),
    "pores": ("porous",),
    "logic metal": ("metal",),
}
ALL = "none left out"
TRUNKS = {"first trunk": ("patterns", "dead leaves"), "second trunk": ("particles", "pores", "logic metal")}
MORE_SHARES = {  # of a design with trunks
    "lines": 0.18, "holes": 0.09, "vias": 0.09, "metal": 0.14, "leaves": 0.13, "particles": 0.09, "spheres": 0.08,
    "porous": 0.09, "grain": 0.03, "blank": 0.03, "composed": 0.12,
}  # fmt: skip
SEED = 41  # of training; the tiles that judge have seeds of their own
RESAMPLED = 2000


def kinds_of(family: str) -> tuple[str, ...]:
    """The kinds of scenes that are left out with a family."""
    return (*FAMILIES.get(family, ()), *(("spheres",) if family == "particles" else ()))


def recipe_of(
    left_out: tuple[str, ...], steps: int, optimiser: str = "muon", start: str | None = None
) -> dict[str, Any]:
    """What differs from the recipe `small`, without some families; `start`: "" for a trunk, or the weights of one."""
    shares = SHARES if start is None else MORE_SHARES
    without = {kind for family in left_out for kind in kinds_of(family)}
    changes: dict[str, Any] = {
        "scenes.shares": {kind: 0.0 if kind in without else share for kind, share in shares.items()},
        "training.optimiser": optimiser,
        "training.steps": steps,
        "training.seed": SEED,
        "training.warm_up": min(300, steps // 8),
        "training.devices": 1,
        "training.average": 0.997,
        "data.batch": 8,
        "validation.every": steps,
        "validation.tiles": 8,
    }
    if start is not None:
        changes |= {"scenes.count": 1200, "scenes.roughness": 5.0, "loss.fsim_half": 0.0, "loss.grain": 0.0}
        changes |= {"training.start": start} if start else {}
    return changes


@dataclasses.dataclass(frozen=True)
class Design:
    """How long the networks are trained, and how long the trunks that they go on from (0: from random weights)."""

    steps: int
    optimiser: str
    trunk: int
    out: Path

    def trained(self, left_out: str) -> Path:
        """The weights of one training, made where they are not there yet."""
        if left_out in TRUNKS:
            others = tuple(family for family in FAMILIES if family not in TRUNKS[left_out])
            return self._made(left_out, recipe_of(others, self.trunk, self.optimiser, ""))
        start = None
        if self.trunk:
            start = str(self.trained(next(name for name, seen in TRUNKS.items() if left_out not in seen)))
        return self._made(left_out, recipe_of((left_out,), self.steps, self.optimiser, start))

    def _made(self, name: str, changes: dict[str, Any]) -> Path:
        folder = self.out / name.replace(" ", "-")
        weights = folder / "last.safetensors"
        if not weights.is_file():
            train_denoiser(None, folder, recipe="small", changes=changes, resume=folder.is_dir())
        return weights


def tiles_of(family: str, count: int) -> HeldOut:
    """Held-out scenes of one family, recorded by held-out tools."""
    made: Recipe = load_recipe("small", {"validation.side": 256})
    shares = {kind: SHARES[kind] for kind in FAMILIES[family]}
    made = dataclasses.replace(made, scenes=dataclasses.replace(made.scenes, shares=shares))
    return synthetic(made, tiles=count, seed=SEED + 1000)


def psnr(model: str, tiles: HeldOut, **options: Any) -> np.ndarray:
    """(N,) dB of each tile against its clean image, 12 px at the border aside."""
    assert tiles.reference is not None
    inner = (slice(bench_denoise.BORDER, -bench_denoise.BORDER),) * 2
    found = []
    for x, clean, noise in zip(tiles.noisy, tiles.reference, tiles.noises, strict=True):
        done = denoise(x[0].numpy().astype(np.float64), model=model, data_range=1.0, workers=1, noise=noise, **options)
        error = (np.clip(done, 0, 1) - clean[0].numpy())[inner]
        found.append(-10 * math.log10(max(float((error**2).mean()), 1e-12)))
    return np.array(found)


def interval(values: np.ndarray) -> list[float]:
    """95 % of the mean, by resampling."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (RESAMPLED, len(values))).mean(axis=1)
    return [float(v) for v in np.quantile(means, (0.025, 0.975))]


def judged(design: Design, tiles: int, families: list[str], seen: bool) -> dict[str, Any]:
    """A row a family."""
    bench_denoise.bm3d_module()
    rows: dict[str, Any] = {}
    differences = []
    for family in families:
        held = tiles_of(family, tiles)
        found = {name: psnr(name, held) for name in ("semnr-small", "semnr-base")} | {"bm3d tuned": psnr("bm3d", held)}
        for name, left_out in (("left out", family), *([("seen", ALL)] if seen else [])):
            weights = str(design.trained(left_out))
            found |= {name: psnr(weights, held), f"{name}, four copies": psnr(weights, held, ensemble=4)}
        rows[family] = {"tiles": tiles} | {name: float(values.mean()) for name, values in found.items()}
        pairs = [(name, "bm3d tuned") for name in found if name != "bm3d tuned"]
        if seen:
            pairs += [("left out", "seen"), ("left out, four copies", "seen, four copies")]
        for one, other in pairs:
            name = f"{one} less {other}"
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
    parser.add_argument("--families", default=",".join(FAMILIES), help="to leave out one at a time; default: each")
    parser.add_argument(
        "--without-seen",
        action="store_true",
        help="train no network with all families, by which what not seeing costs is known; so with --trunk",
    )
    parser.add_argument("--optimiser", choices=("muon", "adamw"), default="muon")
    parser.add_argument(
        "--trunk", type=int, default=0, metavar="STEPS", help="of two trunks that the others go on from"
    )
    parser.add_argument("--only", choices=(*TRUNKS, *FAMILIES, ALL), help="train this one, judge nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    families = given.families.split(",")
    if unknown := [name for name in families if name not in FAMILIES]:
        parser.error(f"--families has {unknown[0]!r}; accepted: {', '.join(FAMILIES)}")
    seen = not (given.without_seen or given.trunk)
    design = Design(given.steps, given.optimiser, given.trunk, given.out)
    for left_out in (given.only,) if given.only else (*families, *([ALL] if seen else [])):
        design.trained(left_out)
    if given.only:
        return
    rows = judged(design, given.tiles, families, seen)
    setting = {"steps": given.steps, "trunk": given.trunk, "optimiser": given.optimiser, "batch": 8, "patch": 128}
    arguments = ["OUT", "--steps", str(given.steps), "--tiles", str(given.tiles), "--optimiser", given.optimiser]
    arguments += ["--families", given.families] if len(families) < len(FAMILIES) else []
    arguments += [] if seen else ["--without-seen"]
    arguments += ["--trunk", str(given.trunk)] if given.trunk else []
    made = records.record(
        __file__, {"unseen": rows | {"setting": setting}}, machine=machine(), versions=versions(), arguments=arguments,
    )  # fmt: skip
    records.write(RESULTS / f"unseen-{'trunk' if given.trunk else given.optimiser}.json", made)


def versions() -> dict[str, str]:
    """Of what computed the figures."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "bm3d", "numpy", "scikit-image")}


if __name__ == "__main__":
    main()
