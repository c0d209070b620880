"""The noise law of each real image that is no pair: fitted, or refused with the reason.

`SEMNR_DATA=... python benchmarks/quality/bench_noise_laws.py` reads the images that MANIFEST.csv lists outside pairs/,
without their data bars, and writes results/noise_laws.json. `--pairs` adds the noisy recordings of the pairs, as they
are and turned by 90 degrees, and counts those that are refused.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records

from semnr.denoising import estimate_noise
from semnr.tiles import decode

RESULTS = records.RESULTS / "noise_laws.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", action="store_true", help="count refusals among the noisy recordings too")
    options = parser.parse_args()
    folder = Path(os.environ["SEMNR_DATA"])
    with (folder / "MANIFEST.csv").open(encoding="utf-8") as file:
        notes = {row["file"]: row["notes"] for row in csv.DictReader(file)}
    tree: dict[str, Any] = {"image": {n: law(pixels(folder, n, notes[n])) for n in notes if judged(n)}}
    if options.pairs:
        noisy = [pixels(folder, name, "") for name in notes if name.startswith("pairs") and "_noisy" in name]
        tree["noisy recordings"] = {
            turned: {"images": len(noisy), "refused": sum(bool(estimate_noise(turn(x)).problem) for x in noisy)}
            for turned, turn in (("as recorded", np.asarray), ("turned by 90 degrees", np.transpose))
        }
    arguments = ["--pairs"] if options.pairs else []
    records.write(RESULTS, records.record(__file__, tree, versions={"numpy": np.__version__}, arguments=arguments))
    print(json.dumps(tree, indent=1, ensure_ascii=False))


def judged(name: str) -> bool:
    return not name.startswith("pairs") and not any(word in name for word in ("mask", "gds", "broken", "strip"))


def pixels(folder: Path, name: str, note: str) -> np.ndarray:
    bar = re.search(r"crop 0,0,\d+,(\d+)", note)
    image = np.asarray(decode(folder / name))
    image = image.mean(0) if image.ndim == 3 else image
    return image[: int(bar[1])] if bar else image


def law(image: np.ndarray) -> dict[str, Any]:
    found = estimate_noise(image)
    return {
        "sigma": round(float(found.sigma()), 3),
        "gain": float(f"{found.gain:.4g}"),
        "correlation": round(found.correlation[0], 2),
        "refused": found.problem,
        "remarks": "; ".join(() if found.problem else found.remarks),
    }


if __name__ == "__main__":
    main()
