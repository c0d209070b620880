"""What the residual's variance and its energy at edges tell from one noisy frame, and how often they are wrong.

`python benchmarks/quality/bench_single_frame.py` measures both columns on seeded synthetic tiles and, where the real
pairs are at hand (SEMNR_DATA), on their harmless side: the registered clean image in place of the denoised one, with
none or half of the smooth noise left in. Thresholds come from one half (TUNING seeds, one half of the pairs), the
figures from the other half; pairs that show one field are never on both sides. Writes results/single_frame.json.

Harmful are Gaussian blurs of the noisy frame: what they take beside noise is the structure's own edges.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy import ndimage
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records

from semnr import residual_tests
from semnr.guarding import DEFAULT_RULES
from semnr.synth import Detector, quantise, tile

HERE = Path(__file__).resolve().parents[1]
RESULTS = HERE / "results" / "single_frame.json"
PATTERNS = ("lines", "holes", "vias", "metal")
TUNING, FIGURES = 0, 920_000  # first seeds
SIDES = (256, 512)
LEFT = {"no noise left": 0.0, "half of the smooth noise left": 0.5}
BLURS = (1.0, 1.5, 2.0, 2.5, 4.0)
FALSE_ALARM = 0.01
BORDER = 12
# Pairs that show one field; every other pair is a field of its own.
FIELDS = (
    ("time_001", "time_002", "time_011", "line_001"),
    ("time_005", "time_006", "time_027", "line_022", "line_032"),
    ("time_014", "line_025", "line_026"),
    ("time_015", "time_045"),
    ("time_031", "line_010"),
    ("line_014", "line_015", "line_016"),
)
RULES = {"residual_variance": "residual_variance", "residual_structure_z": "residual_structure_z"}


def measured(x: np.ndarray, d: np.ndarray) -> dict[str, float]:
    found = residual_tests(
        x.astype(np.float32)[None, None], d.astype(np.float32)[None, None], data_range=255.0, sizes=(6.0,)
    )
    return {"residual_variance": float(found.variance[0]), "residual_structure_z": float(found.structure_z[0])}


def cases(x: np.ndarray, clean: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """(harmless or harmful, name, denoised) for a noisy and a clean image in grey levels."""
    for name, share in LEFT.items():
        yield "harmless", name, clean + share * ndimage.gaussian_filter(x - clean, 1.5)
    for sigma in BLURS:
        yield "harmful", f"gaussian {sigma:g}", ndimage.gaussian_filter(x.astype(float), sigma)


def synthetic(first: int, count: int) -> Iterator[dict[str, Any]]:
    for seed in range(first, first + count):
        for number, pattern in enumerate(PATTERNS):
            side = SIDES[(seed + number) % len(SIDES)]
            scene = tile(pattern, side, seed=seed)
            x = quantise(Detector().apply(np.clip(scene.clean, 0, 1), np.random.default_rng((seed, number))), "uint8")
            for kind, case, d in cases(x, np.clip(scene.clean, 0, 1) * 255):
                yield {"data": "synthetic", "kind": kind, "case": case, "tile": f"{pattern} {seed}", **measured(x, d)}


def real(folder: Path, half: str, most: int) -> Iterator[dict[str, Any]]:
    """One half of the pairs, registered, gain and offset fitted, without the border."""
    from PIL import Image

    with (folder / "REGISTRATION.csv").open() as file:
        affine = {row["pair"]: [float(row[f"p{i}"]) for i in range(6)] for row in csv.DictReader(file)}
    fields = {name: field[0] for field in FIELDS for name in field}
    order = list(dict.fromkeys(fields.get(name, name) for name in sorted(affine)))
    chosen = [n for n in sorted(affine) if (order.index(fields.get(n, n)) % 2 == 0) == (half == "tuning")]
    for name in chosen[:most]:
        noisy, clean = (
            np.asarray(Image.open(next(folder.glob(f"{name}_{role}_*"))).convert("L")) for role in ("noisy", "clean")
        )
        p, centre = affine[name], np.array(clean.shape) / 2
        matrix = np.array([[1 + p[2], p[3]], [p[4], 1 + p[5]]])
        moved = ndimage.affine_transform(
            clean.astype(float), matrix, centre + p[:2] - matrix @ centre, order=3, mode="nearest"
        )
        inner = (slice(BORDER, -BORDER),) * 2
        x, y = noisy[inner].astype(float), moved[inner]
        slope, level = np.polyfit(y.ravel(), x.ravel(), 1)
        for kind, case, d in cases(noisy[inner], slope * y + level):
            yield {"data": "real pairs", "kind": kind, "case": case, "tile": name, **measured(noisy[inner], d)}


def learnt(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What FALSE_ALARM of the harmless rows exceed, by column."""
    return {
        name: float(np.quantile([r[name] for r in rows if r["kind"] == "harmless"], 1 - FALSE_ALARM)) for name in RULES
    }


def shares(rows: list[dict[str, Any]], bounds: dict[str, float]) -> list[dict[str, Any]]:
    out = []
    for data, kind, case in dict.fromkeys((r["data"], r["kind"], r["case"]) for r in rows):
        chosen = [r for r in rows if (r["data"], r["kind"], r["case"]) == (data, kind, case)]
        row: dict[str, Any] = {"data": data, "kind": kind, "case": case, "n": len(chosen)}
        hits = {name: [r[name] > bounds[name] for r in chosen] for name in RULES}
        hits["either"] = [any(one) for one in zip(*hits.values(), strict=True)]
        for name, found in hits.items():
            low, high = binomtest(sum(found), len(found)).proportion_ci()
            row[name] = {"share": sum(found) / len(found), "low": low, "high": high}
        for name in RULES:
            row[f"{name}_range"] = [float(np.quantile([r[name] for r in chosen], q)) for q in (0, 0.5, 1)]
        out.append(row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tiles", type=int, default=25, help="seeds of each half, four patterns each")
    parser.add_argument("--pairs", type=int, default=100, help="real pairs of each half at most")
    args = parser.parse_args()
    folder = Path(os.environ.get("SEMNR_DATA", HERE.parents[1] / "shared" / "data")) / "pairs"
    rows: dict[str, list[dict[str, Any]]] = {}
    for half, first in (("tuning", TUNING), ("figures", FIGURES)):
        rows[half] = list(synthetic(first, args.tiles))
        rows[half] += list(real(folder, half, args.pairs)) if folder.is_dir() else []
    bounds = {name: DEFAULT_RULES[rule].bounds[0].above for name, rule in RULES.items() if rule in DEFAULT_RULES}
    found = {
        "false_alarm": FALSE_ALARM,
        "learnt": learnt(rows["tuning"]),
        "bounds": bounds,
        "tuning": shares(rows["tuning"], bounds or learnt(rows["tuning"])),
        "figures": shares(rows["figures"], bounds or learnt(rows["tuning"])),
    }
    arguments = [f"--tiles {args.tiles}", f"--pairs {args.pairs}"]
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    records.write(RESULTS, records.record(__file__, found, versions=versions, arguments=arguments))
    print(json.dumps(found["learnt"]))
    for row in found["figures"]:
        told = ", ".join(f"{n} {row[n]['share']:.1%}" for n in (*RULES, "either"))
        ends = "; ".join(f"{n} {' '.join(f'{v:.3g}' for v in row[f'{n}_range'])}" for n in RULES)
        print(f"{row['data']}, {row['case']} (n {row['n']}): {told}   [{ends}]")


if __name__ == "__main__":
    main()
