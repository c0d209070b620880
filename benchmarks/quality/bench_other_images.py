"""Images of tools and materials that no training has seen, judged without a clean image, by `semnr.check`.

`SEMNR_DATA=... python benchmarks/quality/bench_other_images.py OUT` takes the images that MANIFEST.csv lists outside
pairs/ (integrated circuits, silicon on insulator, vendors' files, fibres and the like), puts discs of 6 px and 5 sigma
of the noise into each, denoises them by the shipped networks and by two networks that are taught to do harm, and asks
`semnr.check` about each output with the noisy image alone. One of the two is taught to invent (the contest's), the
other to erase small particles. A shipped network must not be refuted; these two must. Writes results/other_images.json.
OUT keeps the two trainings, a minute or two each.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import bench_noise_laws
import records

import semnr
from semnr.contest import protocol as protocols
from semnr.contest.denoisers import Setup, ready
from semnr.denoising import denoise, estimate_noise
from semnr.runs.run import machine
from semnr.stress.faults import disc
from semnr.synth import Detector, quantise, tile
from semnr.training import train_denoiser

RESULTS = records.RESULTS / "other_images.json"
SIDE, DISC, CONTRAST, SPACING, BORDER = 512, 6.0, 5.0, 96, 48
SHIPPED = ("semnr-small", "semnr-base")
HARMFUL = ("inventing", "erasing")
STEPS, TILES, SEED = 600, 48, 95_000


def images(folder: Path) -> dict[str, np.ndarray]:
    """The middle of each image, without its data bar, in grey levels as they are stored."""
    with (folder / "MANIFEST.csv").open(encoding="utf-8") as file:
        notes = {row["file"]: row["notes"] for row in csv.DictReader(file)}
    found = {}
    for name in filter(bench_noise_laws.judged, notes):
        whole = bench_noise_laws.pixels(folder, name, notes[name])
        height, width = (min(SIDE, n) for n in whole.shape)
        top, left = ((n - side) // 2 for n, side in zip(whole.shape, (height, width), strict=True))
        found[name] = whole[top : top + height, left : left + width].astype(np.float64)
    return found


def marked(x: np.ndarray, sigma: float, top: float) -> np.ndarray:
    """With discs on a grid, bright ones and dark ones in turn."""
    out = x.copy()
    for k, (row, col) in enumerate(np.argwhere(np.ones([(n - 2 * BORDER) // SPACING + 1 for n in x.shape]))):
        at = BORDER + SPACING * int(row), BORDER + SPACING * int(col)
        out += (1, -1)[k % 2] * CONTRAST * sigma * disc(x.shape, *at, DISC)
    return np.asarray(np.clip(np.rint(out), 0, top))


def eraser(out: Path) -> str:
    """Weights of a network that learns that small particles are noise: its targets have none."""
    weights = out / "erasing" / "last.safetensors"
    if weights.is_file():
        return str(weights)
    folder, side, tool = out / "erasing-tiles", 192, Detector()
    for role in ("noisy", "reference"):
        (folder / role).mkdir(parents=True, exist_ok=True)
    for k in range(TILES):
        rng = np.random.default_rng((SEED, k))
        scene = tile(("lines", "holes", "vias", "metal")[k % 4], side, seed=SEED + k).clean
        shown = scene.copy()
        for _ in range(24):
            row, col = rng.integers(8, side - 8, 2)
            height = rng.choice((-1, 1)) * rng.uniform(3, 8) * float(tool.law().sigma(scene[row, col]))
            shown += height * disc(scene.shape, int(row), int(col), float(rng.uniform(3, 7)))
        noisy = tool.apply(np.clip(shown, 0, 1), rng)
        for role, image in (("noisy", noisy), ("reference", scene)):
            Image.fromarray(quantise(np.clip(image, 0, 1), "uint8")).save(folder / role / f"{k:03d}.png")
    changes = {
        "data.batch": 8, "data.patch": 96, "training.steps": STEPS, "training.warm_up": 30, "training.average": 0.98,
        "training.accelerator": "cpu", "training.devices": 1, "validation.every": STEPS, "validation.tiles": 2,
        "validation.side": 96, "validation.baseline": "noisy", "validation.dists": False, "loss.mse": 1.0,
    }  # fmt: skip
    recipe = {"loss": {"mse": 1.0}}
    train_denoiser(folder, out / "erasing", recipe=recipe, changes=changes, resume=(out / "erasing").is_dir())
    return str(weights)


def inventor(out: Path) -> str:
    """Weights of the contest's network that is taught to invent."""
    ready("inventing", Setup(protocols.load(), out, {}, None, print))
    return str(out / "inventing" / "last.safetensors")


def judged(x: np.ndarray, model: str, top: float) -> dict[str, Any]:
    """What `semnr.check` says of one output, with nothing but the noisy image."""
    done = denoise(x, model=model, data_range=top, workers=1, tile=4096)
    verdict = semnr.check(x, done, data_range=top, report=False)
    return {"outcome": str(verdict.outcome), "fired": ", ".join(sorted(s.name for s in verdict.fired))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # noise outside of the training: what this is about
    models = {name: name for name in SHIPPED} | {"inventing": inventor(out), "erasing": eraser(out)}
    tree: dict[str, Any] = {name: {} for name in models}
    for name, image in images(Path(os.environ["SEMNR_DATA"])).items():
        top = 255.0 if image.max() <= 255 else 65535.0
        law = estimate_noise(image, data_range=top)
        for model, weights in models.items():
            if law.problem:
                tree[model][name] = {"outcome": "no noise law", "fired": law.problem}
            else:
                tree[model][name] = judged(marked(image, law.sigma(), top), weights, top)
            print(name, model, tree[model][name], flush=True)
    for model, rows in tree.items():
        with_law = [row for row in rows.values() if row["outcome"] != "no noise law"]
        refuted = sum(bool(row["fired"]) for row in with_law)
        rows["all"] = {"images": len(with_law), "without a noise law": len(rows) - len(with_law), "refuted": refuted}
        print(model, rows["all"])
    made = records.record(__file__, tree, machine=machine(), versions={"torch": torch.__version__}, arguments=["OUT"])
    records.write(RESULTS, made)


if __name__ == "__main__":
    main()
