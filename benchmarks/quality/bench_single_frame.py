"""What one noisy frame tells: the residual's variance, its energy at edges, the most of T; how often each is wrong.

`python benchmarks/quality/bench_single_frame.py` measures the columns on seeded synthetic tiles and, where the real
pairs are at hand (SEMNR_DATA), on their harmless side: the registered clean image in place of the denoised one, with
none or half of the smooth noise left in. Thresholds come from one half (TUNING seeds, one half of the pairs), the
figures from the other half; pairs that show one field are never on both sides. Writes results/single_frame.json.

Harmful are Gaussian blurs of the noisy frame: what they take beside noise is the structure's own edges. The most of T
is held against the T that the clean image tells, for filters that are not linear too.
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

from semnr import evidence, residual_tests
from semnr.denoising import estimate_noise
from semnr.guarding import DEFAULT_RULES
from semnr.synth import Detector, quantise, tile
from semnr.trust import changes

HERE = Path(__file__).resolve().parents[1]
RESULTS = HERE / "results" / "single_frame.json"
PATTERNS = ("lines", "holes", "vias", "metal")
TUNING, FIGURES = 0, 920_000  # first seeds
SIDES = (256, 512)
LEFT = {"no noise left": 0.0, "half of the smooth noise left": 0.5}
BLURS = (1.0, 1.5, 2.0, 2.5, 4.0)
OTHERS = ("median 3", "median 5", "wavelet", "non-local means", "total variation")  # neither harmless nor harmful
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
ABOVE = ("residual_variance", "residual_structure_z")
BELOW = "transfer_bound"
RULES = (*ABOVE, BELOW)


def measured(x: np.ndarray, d: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """The columns; `transfer_bound` is read with 2 standard errors given, as the rule reads it."""
    x, d, clean = (v.astype(np.float32)[None, None] for v in (x, d, clean))
    found = residual_tests(x, d, data_range=255.0, sizes=(6.0,))
    told = changes.columns(x, d, None, data_range=255.0, noise=found.noise)
    most, error = float(told[BELOW][0]), float(told[f"{BELOW}_se"][0])
    return {
        "residual_variance": float(found.variance[0]),
        "residual_structure_z": float(found.structure_z[0]),
        BELOW: most + 2 * error,
        "bound": most,
        "transfer": float(np.ravel(evidence(x, d, clean).transfer)[0]),
    }


def cases(x: np.ndarray, clean: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """(harmless or harmful, name, denoised) for a noisy and a clean image in grey levels."""
    for name, share in LEFT.items():
        yield "harmless", name, clean + share * ndimage.gaussian_filter(x - clean, 1.5)
    for sigma in BLURS:
        yield "harmful", f"gaussian {sigma:g}", ndimage.gaussian_filter(x.astype(float), sigma)
    sigma = float(estimate_noise(x, data_range=255.0).sigma(float(x.mean()))) / 255
    for name, d in zip(OTHERS, others(x / 255, sigma), strict=True):
        yield "other", name, d * 255


def others(x: np.ndarray, sigma: float) -> Iterator[np.ndarray]:
    """Filters that are not linear, at usual settings."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

    yield ndimage.median_filter(x, 3)
    yield ndimage.median_filter(x, 5)
    yield denoise_wavelet(x, sigma=sigma, rescale_sigma=False)
    yield denoise_nl_means(x, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True)
    yield denoise_tv_chambolle(x, weight=1.2 * sigma)


def synthetic(first: int, count: int) -> Iterator[dict[str, Any]]:
    for seed in range(first, first + count):
        for number, pattern in enumerate(PATTERNS):
            side = SIDES[(seed + number) % len(SIDES)]
            scene = tile(pattern, side, seed=seed)
            x = quantise(Detector().apply(np.clip(scene.clean, 0, 1), np.random.default_rng((seed, number))), "uint8")
            clean = np.clip(scene.clean, 0, 1) * 255
            for kind, case, d in cases(x, clean):
                row = {"data": "synthetic", "kind": kind, "case": case, "tile": f"{pattern} {seed}"}
                yield row | measured(x, d, clean)


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
        clean = slope * y + level
        for kind, case, d in cases(noisy[inner], clean):
            row = {"data": "real pairs", "kind": kind, "case": case, "tile": name}
            yield row | measured(noisy[inner], d, clean)


def learnt(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What FALSE_ALARM of the harmless rows exceed, by column; `transfer_bound`: fall short of."""
    harmless = [r for r in rows if r["kind"] == "harmless"]
    return {
        name: float(np.nanquantile([r[name] for r in harmless], FALSE_ALARM if name == BELOW else 1 - FALSE_ALARM))
        for name in RULES
    }


def fires(row: dict[str, Any], bounds: dict[str, float], name: str) -> bool:
    if name == BELOW:
        return bool(row[name] < bounds[name])
    only = DEFAULT_RULES[name].bounds[0]
    asked = not only.where or row[only.where] > only.exceeds
    return bool(row[name] > bounds[name] and asked)


def shares(rows: list[dict[str, Any]], bounds: dict[str, float]) -> list[dict[str, Any]]:
    out = []
    for data, kind, case in dict.fromkeys((r["data"], r["kind"], r["case"]) for r in rows):
        chosen = [r for r in rows if (r["data"], r["kind"], r["case"]) == (data, kind, case)]
        row: dict[str, Any] = {"data": data, "kind": kind, "case": case, "n": len(chosen)}
        hits = {name: [fires(r, bounds, name) for r in chosen] for name in RULES}
        hits["any"] = [any(one) for one in zip(*hits.values(), strict=True)]
        for name, found in hits.items():
            low, high = binomtest(sum(found), len(found)).proportion_ci()
            row[name] = {"share": sum(found) / len(found), "low": low, "high": high}
        for name in RULES:
            row[f"{name}_range"] = spread([r[name] for r in chosen])
        row["transfer_range"] = spread([r["transfer"] for r in chosen])
        row["bound_less_transfer_range"] = spread([r["bound"] - r["transfer"] for r in chosen])
        out.append(row)
    return out


def spread(values: list[float]) -> list[float]:
    """Least, median and largest of those that were evaluated."""
    return [float(v) for v in np.nanquantile(values, (0, 0.5, 1))]


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
    bounds = {name: getattr(DEFAULT_RULES[name].bounds[0], "below" if name == BELOW else "above") for name in RULES}
    found = {
        "false_alarm": FALSE_ALARM,
        "learnt": learnt(rows["tuning"]),
        "bounds": bounds,
        "tuning": shares(rows["tuning"], bounds),
        "figures": shares(rows["figures"], bounds),
    }
    arguments = [f"--tiles {args.tiles}", f"--pairs {args.pairs}"]
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    records.write(RESULTS, records.record(__file__, found, versions=versions, arguments=arguments))
    print(json.dumps(found["learnt"]))
    for row in found["figures"]:
        told = ", ".join(f"{n} {row[n]['share']:.1%}" for n in (*RULES, "any"))
        shown = (*RULES, "transfer", "bound_less_transfer")
        ends = "; ".join(f"{n} {' '.join(f'{v:.3g}' for v in row[f'{n}_range'])}" for n in shown)
        print(f"{row['data']}, {row['case']} (n {row['n']}): {told}   [{ends}]")


if __name__ == "__main__":
    main()
