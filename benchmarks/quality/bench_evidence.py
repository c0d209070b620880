"""How often a lost or invented defect is found, how often an intact tile is marked, how well PSNR is known without a
reference: with 95 % intervals.

`python benchmarks/quality/bench_evidence.py` runs the figure seeds (about half an hour on one core), writes
results/evidence.json and puts the tables into docs/evidence.md; `--table` does that with what is there; `--tiles 4
--classical 1 --tuning` is a quick look at
the seeds that the thresholds were set on, and writes nothing.

Tiles are 512², of all patterns of semnr.synth, 8 bit, with Poisson-Gaussian noise that correlates by 0.47 along the
scan line. Contrast is in units of the pixel noise's σ at the place of the defect (by the law that made the noise).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records

from semnr import residual_tests, without_reference
from semnr.denoising import denoise
from semnr.synth import Detector, quantise, tile

HERE = Path(__file__).resolve().parents[1]
RESULTS, PAGE = HERE / "results" / "evidence.json", HERE.parent / "docs" / "evidence.md"
PATTERNS = ("lines", "holes", "vias", "metal")
TUNING, FIGURES = 0, 910_000  # first seeds
SIDE, NEAR = 512, 4.0
NOISE = Detector()
SHAPES = ("square", "disc")
ERASED = tuple((shape, contrast, erased) for shape in SHAPES for contrast in (2.0, 2.5, 3.0) for erased in (0.8, 1.0))
INVENTED = tuple((shape, contrast, 1.0) for shape in SHAPES for contrast in (2.0, 3.0))
# Of the noise that a denoiser leaves in its output: none, or half of what is smoother than a Gaussian of 1.5 px.
LEFT = {"none": 0.0, "half of the smooth noise": 0.5}
CLASSICAL: dict[str, dict[str, float]] = {
    "nlm": {},
    "wavelet": {},
    "tv": {},
    "median": {},
    "gaussian": {"sigma": 1.0},
}
# Strong enough to take defects whole, and edges with them: only what they erased is looked at.
STRONG: dict[str, dict[str, float]] = {
    "nlm": {"strength": 2.0},
    "tv": {"strength": 4.0},
    "median": {"size": 11},
    "gaussian": {"sigma": 4.0},
}


def bump(shape: str) -> np.ndarray:
    """6 px: a square with sharp edges, or a disc under a beam of σ 0.8 px, of height 1."""
    side, fine = 15, 8
    at = (np.arange(side * fine) + 0.5) / fine - side / 2
    if shape == "square":
        out = np.zeros((side, side))
        out[5:11, 5:11] = 1
        return out
    inside = ndimage.gaussian_filter((np.hypot(at[:, None], at) <= 3).astype(float), 0.8 * fine)
    out = inside.reshape(side, fine, side, fine).mean((1, 3))
    return out / out.max()


def sigma_at(level: np.ndarray | float) -> Any:
    return NOISE.law().sigma(level)


def recorded(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return quantise(NOISE.apply(np.clip(clean, 0, 1), rng), "uint8")


def places(count: int, rng: np.random.Generator) -> np.ndarray:
    """That many places on a grid of 4 × 4 cells, anywhere in the middle of each: they do not touch."""
    cells = rng.permutation(16)[:count]
    corner = np.stack([cells // 4, cells % 4], 1) * (SIDE // 4)
    return corner + rng.integers(24, SIDE // 4 - 24, (count, 2))


def put(image: np.ndarray, shape: str, place: np.ndarray, height: float) -> None:
    row, col = place
    image[row - 7 : row + 8, col - 7 : col + 8] += height * bump(shape)


def tests(x: np.ndarray, d: np.ndarray) -> Any:
    return residual_tests(x.astype(np.float32)[None, None], d.astype(np.float32)[None, None], data_range=255.0)


def near(boxes: list[dict[str, Any]], place: np.ndarray, kind: str) -> tuple[bool, bool]:
    """(located within 4 px, and of that kind)."""
    found = [b for b in boxes if math.hypot(b["row"] - place[0], b["col"] - place[1]) <= NEAR]
    return bool(found), any(b["kind"] == kind for b in found)


class Table:
    def __init__(self) -> None:
        self.rows: dict[str, list[int]] = {}

    def add(self, name: str, *hits: bool) -> None:
        row = self.rows.setdefault(name, [0] * (len(hits) + 1))
        row[0] += 1
        for k, hit in enumerate(hits, start=1):
            row[k] += bool(hit)

    def to_list(self, *names: str) -> list[dict[str, Any]]:
        out = []
        for case, (n, *counts) in self.rows.items():
            row: dict[str, Any] = {"case": case, "n": n}
            for name, count in zip(names, counts, strict=True):
                low, high = binomtest(count, n).proportion_ci()
                row[name] = {"share": count / n, "low": low, "high": high}
            out.append(row)
        return out


def implanted(seeds: range) -> dict[str, Any]:
    """Defects that a denoiser, perfect but for the noise it leaves, erases or invents."""
    erased, invented, intact = Table(), Table(), Table()
    for seed in seeds:
        for pattern in PATTERNS:
            scene = tile(pattern, SIDE, seed=seed)
            for left, share in LEFT.items():
                rng = np.random.default_rng((seed, PATTERNS.index(pattern), int(share * 10)))
                for cases, table, kind in ((ERASED, erased, "removed"), (INVENTED, invented, "invented")):
                    with_all, kept = scene.clean.copy(), scene.clean.copy()
                    at = places(len(cases), rng)
                    for (shape, contrast, part), place in zip(cases, at, strict=True):
                        height = contrast * sigma_at(scene.clean[tuple(place)]) * rng.choice((-1, 1))
                        put(with_all, shape, place, height)
                        put(kept, shape, place, height * (1 - part))
                    seen, shown = (with_all, kept) if kind == "removed" else (scene.clean, with_all)
                    x = recorded(seen, rng)
                    d = shown + share * ndimage.gaussian_filter(x / 255 - np.clip(seen, 0, 1), 1.5)
                    boxes = tests(x, d * 255).boxes[0]
                    for (shape, contrast, part), place in zip(cases, at, strict=True):
                        name = f"{shape} {contrast:g} σ, {part:.0%} {kind}, noise left: {left}"
                        table.add(name, *near(boxes, place, kind))
                x = recorded(scene.clean, rng)
                d = scene.clean + share * ndimage.gaussian_filter(x / 255 - scene.clean, 1.5)
                found = tests(x, d * 255)
                intact.add(f"perfect, noise left: {left}", found.removed_count[0] + found.invented_count[0] > 0)
    return {
        "erased": erased.to_list("located", "kind"),
        "invented": invented.to_list("located", "kind"),
        "intact": intact.to_list("marked"),
    }


def classical(seeds: range) -> dict[str, Any]:
    """Denoisers of semnr.denoising: intact tiles marked, defects that they erased found, PSNR from three frames."""
    intact, erased, psnr = Table(), Table(), []
    for seed in seeds:
        for pattern in PATTERNS:
            rng = np.random.default_rng((seed, PATTERNS.index(pattern), 99))
            scene = tile(pattern, SIDE, seed=seed)
            frames = [recorded(scene.clean, rng) for _ in range(3)]
            noise = frames[0].astype(float) - 255 * scene.clean
            at = places(16, rng)
            cases = [(SHAPES[k % 2], rng.uniform(2, 5), place) for k, place in enumerate(at)]
            heights = [c * sigma_at(scene.clean[tuple(p)]) * rng.choice((-1, 1)) for _, c, p in cases]
            change = np.zeros_like(scene.clean)
            for (shape, _, place), height in zip(cases, heights, strict=True):
                put(change, shape, place, 255 * height)
            with_all = np.clip(np.rint(255 * scene.clean + change + noise), 0, 255).astype(np.uint8)
            for model, options in (*CLASSICAL.items(), *STRONG.items()):
                strong = STRONG.get(model) is options
                d = denoise(frames[0].astype(np.float32), model=model, data_range=255.0, workers=1, **options)
                e = denoise(with_all.astype(np.float32), model=model, data_range=255.0, workers=1, **options)
                if not strong:
                    found = tests(frames[0], d)
                    intact.add(model, found.removed_count[0] + found.invented_count[0] > 0)
                    psnr.append(_psnr_row(model, pattern, frames, d, 255 * scene.clean))
                boxes = tests(with_all, e).boxes[0]
                for (shape, contrast, place), height in zip(cases, heights, strict=True):
                    window = tuple(slice(p - 7, p + 8) for p in place)
                    t = bump(shape)
                    kept = float(((e - d)[window] * t).sum() / (t * t).sum() / (255 * height))
                    if kept <= 0.2:
                        band = "2 to 3 σ" if contrast < 3 else "3 to 5 σ"
                        name = f"{model}{' ' + str(options) if strong else ''}, {shape} {band}"
                        erased.add(name, *near(boxes, place, "removed"))
    return {
        "intact": intact.to_list("marked"),
        "erased": erased.to_list("located", "kind"),
        "psnr": psnr,
    }


def _psnr_row(model: str, pattern: str, frames: list[np.ndarray], d: np.ndarray, clean: np.ndarray) -> dict[str, Any]:
    x, a, b = (f.astype(np.float32)[None, None] for f in frames)
    three = without_reference(x, d[None, None], a, b, data_range=255.0)
    two = without_reference(x, d[None, None], a, data_range=255.0)
    true = 10 * math.log10(255**2 / float(((d - clean) ** 2).mean()))
    noisy = 10 * math.log10(255**2 / float(((x[0, 0] - clean) ** 2).mean()))
    return {
        "model": model,
        "pattern": pattern,
        "true": true,
        "gain": true - noisy,
        "three": float(three.upsnr[0]),
        "three_se": float(three.upsnr_se[0]),
        "two": float(two.upsnr[0]),
        "two_se": float(two.upsnr_se[0]),
        "usable": bool(three.usable[0]),
    }


def cost() -> dict[str, float]:
    """Seconds a 512² tile on one core."""
    scene = tile("lines", SIDE, seed=1)
    x, a, b = (scene.noisy(dtype="uint8", frame=k)[None, None] for k in range(3))
    d = denoise(x[0, 0], model="gaussian", workers=1)[None, None]

    def median(work: Any) -> float:
        work()
        times = []
        for _ in range(7):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return sorted(times)[3]

    return {
        "residual_tests": median(lambda: residual_tests(x, d)),
        "without_reference, three frames": median(lambda: without_reference(x, d, a, b)),
    }


def psnr_table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for model in ("all", *dict.fromkeys(r["model"] for r in rows)) if rows else ():
        chosen = [r for r in rows if model in ("all", r["model"])]
        row: dict[str, Any] = {"case": model, "n": len(chosen), "gain": float(np.mean([r["gain"] for r in chosen]))}
        for frames in ("three", "two"):
            errors = np.array([r[frames] - r["true"] for r in chosen])
            hits = int((np.abs(errors) <= 0.2).sum())
            low, high = binomtest(hits, len(chosen)).proportion_ci()
            row[frames] = {"share": hits / len(chosen), "low": low, "high": high}
            row[f"{frames}_rms"] = float(np.sqrt(np.nanmean(errors**2)))
            row[f"{frames}_bias"] = float(np.nanmean(errors))
            row[f"{frames}_z"] = float(np.nanstd(errors / np.array([r[f"{frames}_se"] for r in chosen])))
        out.append(row)
    return out


def tables(found: dict[str, Any]) -> str:
    def share(v: dict[str, float]) -> str:
        return f"{v['share']:.1%} ({v['low']:.1%} to {v['high']:.1%})"

    lines = []
    for title, part, key, names in (
        ("Intact tiles", "implanted", "intact", ["marked"]),
        ("Intact tiles, denoisers of semnr", "classical", "intact", ["marked"]),
        ("Erased defects of 6 px", "implanted", "erased", ["located", "kind"]),
        ("Invented defects of 6 px", "implanted", "invented", ["located", "kind"]),
        ("Defects that denoisers of semnr erased", "classical", "erased", ["located", "kind"]),
    ):
        heads = {"marked": "marked", "located": "located within 4 px", "kind": "and called by its kind"}
        lines += [
            "",
            f"| {title} | n | {' | '.join(heads[name] for name in names)} |",
            f"|---|---|{'---|' * len(names)}",
        ]
        for row in found[part][key]:
            lines.append(f"| {row['case']} | {row['n']} | {' | '.join(share(row[name]) for name in names)} |")
    lines += [
        "",
        "| PSNR estimated | n | gain, dB | three frames: within 0.2 dB | rms, bias, dB | error/SE | "
        "two frames: within 0.2 dB | rms, dB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["psnr"]:
        lines.append(
            f"| {row['case']} | {row['n']} | {row['gain']:.1f} | {share(row['three'])} | {row['three_rms']:.3f}, "
            f"{row['three_bias']:+.3f} | {row['three_z']:.2f} | {share(row['two'])} | {row['two_rms']:.3f} |"
        )
    seeds = found["seeds"]
    lines += [
        "",
        f"Seeds from {seeds['first']}: {seeds['tiles']} tiles of each pattern, {seeds['classical']} for denoisers. "
        + ", ".join(f"{name}: {seconds:.2f} s a tile" for name, seconds in found["cost"].items())
        + " (one thread, the machine shared).",
    ]
    return "\n".join(lines).strip()


def publish(text: str) -> None:
    """Put the tables into the page, between its marks."""
    start, end = "<!-- tables -->", "<!-- end of tables -->"
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(start)
    PAGE.write_text(f"{head}{start}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--tiles", type=int, default=100, help="of each pattern for what is implanted; default 100")
    parser.add_argument("--classical", type=int, default=15, help="of each pattern for classical denoisers; default 15")
    parser.add_argument("--tuning", action="store_true", help="the seeds that thresholds were set on; writes nothing")
    parser.add_argument("--table", action="store_true", help="print what is there")
    args = parser.parse_args()
    if args.table:
        text = tables(records.read_tree(RESULTS))
        print(text)
        publish(text)
        return
    torch.set_num_threads(1)
    first = TUNING if args.tuning else FIGURES
    rows = classical(range(first, first + args.classical))
    found = {
        "seeds": {"first": first, "tiles": args.tiles, "classical": args.classical},
        "implanted": implanted(range(first, first + args.tiles)),
        "classical": {k: v for k, v in rows.items() if k != "psnr"},
        "psnr": psnr_table(rows["psnr"]),
        "cost": cost(),
    }
    print(tables(found))
    if not args.tuning:
        versions = {"torch": torch.__version__, "numpy": np.__version__}
        records.write(RESULTS, records.record(__file__, found, versions=versions))
        publish(tables(found))


if __name__ == "__main__":
    main()
