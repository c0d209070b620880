"""What the learned denoiser does beside classical peers: real pairs, synthetic tiles, evidence, lines, defects, speed.

`python benchmarks/quality/bench_denoise.py` writes results/denoise.json and prints the tables (about half an hour on
two cores, most of it in bm3d); `--quick` is a look in a few minutes that writes nothing; `--model FILE.safetensors`
takes other weights; `--only real,speed` some of the parts; `--table` prints what is there.

`--model semnr-base` measures that model and `semnr-small` on the same images, and takes the rows of the peers from
results/denoise.json, where they stand for the same seeds; it writes results/denoise-base.json.

Nothing here was trained on: the real pairs never are, tiles come from seeds and patterns of their own, and one noise
family (a Gaussian low-pass along the line) is not in the recipe. Peers run in the same process on the same pixels.
bm3d "plain" is shown at each sigma of a grid, so that its best on the figures themselves is there: more than a user
could do; "tuned" is variance-stabilised, with the scan line's noise spectrum. bm3d's licence is non-commercial: it is
compared with only.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records

import semnr
from semnr.contest import peer_careamics
from semnr.contest import protocol as protocols
from semnr.denoising import denoise, estimate_noise
from semnr.denoising.tiled import default_workers
from semnr.metrology import edge_psd, find_edges
from semnr.profiles import radar
from semnr.runs.run import machine
from semnr.synth import Defect, Detector, Look, tile
from semnr.synth.detector import quantise
from semnr.training.noise import correlated
from semnr.trust.changes import columns

RESULTS = Path(__file__).parents[1] / "results"
FIRST = "semnr-small"  # its record holds the peers
PATTERNS = ("lines", "holes", "vias", "metal")
SEEDS = 730_000  # first seed of the figures
SIDE = 512
BORDER = 12
EPOCHS = 60  # of Noise2Void
PLAIN = (0.12, 0.14, 0.16)  # sigmas of plain bm3d, of the range
Image = np.ndarray
Method = Callable[[Image], Image]  # 8-bit image in, float64 image on 0..255 out


def by(name: str, **options: Any) -> Method:
    """`semnr.denoise` of whole images."""
    return lambda x: denoise(x.astype(np.float64), model=name, data_range=255.0, tile=4096, workers=1, **options)


def methods(model: str, bm3d_sigma: float | None) -> dict[str, Method]:
    """Each denoiser as a function; peers that are not installed are named and left out."""
    found: dict[str, Method] = {"noisy": lambda x: x.astype(np.float64)}
    if stored_peers(model):
        return found | {FIRST: by(FIRST), model: by(model), f"{model}, texture=1": by(model, texture=1.0)}
    found |= {"wavelet (scikit-image's rule)": by("wavelet"), "nlm (scikit-image)": by("nlm")}
    if bm3d_module() is not None:
        sigmas = PLAIN if bm3d_sigma is None else (bm3d_sigma,)
        for sigma in sigmas:
            found[f"bm3d plain, sigma {sigma:.2f}"] = lambda x, s=sigma: plain_bm3d(x, s)
        found["bm3d tuned"] = by("bm3d")
    found = {name: method for name, method in found.items() if not (left_out and name.startswith(left_out))}
    return found | {model: by(model), f"{model}, texture=1": by(model, texture=1.0)}


def stored_peers(model: str) -> bool:
    """Whether the peers' rows are those of the first model's record."""
    return model != FIRST and record_of(FIRST).is_file()


def record_of(model: str) -> Path:
    return RESULTS / f"denoise{'' if model == FIRST else '-' + Path(model).stem.removeprefix('semnr-')}.json"


def beside(model: str, table: dict[str, Any], *at: str) -> dict[str, Any]:
    """A table with the peers' rows of the first model's record before its own."""
    if not stored_peers(model):
        return table
    there = records.read_tree(record_of(FIRST))
    for name in at:
        there = there.get(name, {})
    return {name: row for name, row in there.items() if not name.startswith("semnr")} | table


def areas_have_dists(model: str, dists: bool) -> bool:
    """Whether synthetic tiles are scored by DISTS: as the stored peers are, because an area with it is another one."""
    if not stored_peers(model):
        return dists
    rows = records.read_tree(record_of(FIRST)).get("synthetic", {}).get("trained", {})
    return dists and any("dists" in row for row in rows.values())


_methods: dict[str, Method] = {}


def rows_of(score: Callable[[Any], dict[str, Any]], names: Iterable[str], items: Iterable[Any]) -> dict[str, list[Any]]:
    """`score((name of the method, item))` of all pairs, one process a core; rows in the items' order."""
    names = list(names)
    pairs = [(name, item) for name in names for item in items]
    # forked, so that the methods come along; the peers of a row keep to one thread each, as the network does
    with multiprocessing.get_context("fork").Pool(default_workers(), torch.set_num_threads, (1,)) as pool:
        rows = pool.map(score, pairs, chunksize=1)
    found: dict[str, list[Any]] = {name: [] for name in names}
    for (name, _), row in zip(pairs, rows, strict=True):
        found[name].append(row)
    return found


_said: set[str] = set()
left_out: tuple[str, ...] = ()  # starts of names, from the command line


def bm3d_module() -> Any | None:
    """The package, with the NumPy function that it calls put back where NumPy has dropped it."""
    try:
        import bm3d
    except ImportError:
        if "bm3d" not in _said:
            print("bm3d: not installed")
            _said.add("bm3d")
        return None
    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # type: ignore[attr-defined]
    return bm3d


def plain_bm3d(x: Image, sigma: float) -> Image:
    bm3d = bm3d_module()
    assert bm3d is not None
    return np.asarray(bm3d.bm3d(x.astype(np.float64) / 255, sigma), np.float64) * 255


# --- scores


def fitted(candidate: Image, reference: Image) -> Image:
    gain, offset = np.polyfit(candidate.ravel(), reference.ravel(), 1)
    return np.clip(gain * candidate + offset, 0, 255)


def scores(candidate: Image, reference: Image, noisy: Image, sigma: float, dists: bool) -> dict[str, float]:
    """PSNR, SSIM, FSIM, DISTS, fixed-noise CNR and the profile's area of one image; transfer against the reference."""
    x, y = (torch.from_numpy(np.clip(v, 0, 255))[None, None] for v in (candidate, reference))
    metrics = ("psnr", "ssim", "fsim", "cnr", *(("dists",) if dists else ()))
    p = semnr.profile(x, y, data_range=255.0, metrics=metrics, noise=sigma, kind="denoised")
    axes = p.axes()
    psnr = float(p.psnr[0])
    row = {"psnr": psnr if psnr < 100 else math.nan}  # the clean image itself has none
    row |= {"ssim": float(p.ssim[0]), "fsim": float(p.fsim[0])}
    row |= {"cnr_fixed_noise": float(p.cnr_fixed_noise[0]), "dists": float(p.dists[0]) if dists else math.nan}
    return row | {"area": float(radar.area(list(axes.values())))}


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0] if not _all_nan(rows, key)}


def _all_nan(rows: list[dict[str, float]], key: str) -> bool:
    return all(math.isnan(row[key]) for row in rows)


# --- real pairs


@functools.cache
def real_pairs() -> list[tuple[str, Image, Image, Image]]:
    """(name, noisy, registered clean, clean as it lies)."""
    from PIL import Image as Pil

    found = []
    with (folder() / "REGISTRATION.csv").open() as file:
        for row in csv.DictReader(file):
            p = [float(row[f"p{i}"]) for i in range(6)]
            x, y = (np.asarray(Pil.open(next(folder().glob(f"{row['pair']}_{kind}*")))) for kind in ("noisy", "clean"))
            centre = np.array(y.shape) / 2
            matrix = np.array([[1 + p[2], p[3]], [p[4], 1 + p[5]]])
            moved = ndimage.affine_transform(
                y.astype(np.float64), matrix, centre + p[:2] - matrix @ centre, order=3, mode="nearest"
            )
            found.append((row["pair"], x, moved, y.astype(np.float64)))
    return found


def folder() -> Path:
    return Path(os.environ.get("SEMNR_DATA", Path(__file__).parents[3] / "shared" / "data")) / "pairs"


def careamics(python: str, images: list[Image]) -> tuple[str, Method]:
    """Name and method of a Noise2Void network trained on these images, by an environment of its own."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "given.npz"), Path(folder, "made.npz")
        settings = json.dumps({"epochs": EPOCHS, "seed": 1, "tile": 256})
        np.savez(given, settings=settings, train=np.stack(images), images=np.stack(images))
        apart = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        subprocess.run([python, peer_careamics.__file__, str(given), str(made)],
                       check=True, env=apart, capture_output=True)  # fmt: skip
        with np.load(made) as found:
            denoised, number = found["denoised"].astype(np.float64), str(found["version"])
    by_image = {x.tobytes(): d for x, d in zip(images, denoised, strict=True)}
    return f"structN2V (CAREamics {number})", lambda x: by_image[x.tobytes()]


def real(model: str, dists: bool, python: str | None) -> dict[str, Any]:
    """Mean over the pairs, on the registered clean image inside a border, gain and offset fitted; raw PSNR listed."""
    if not (folder() / "REGISTRATION.csv").is_file():
        print(f"real: no {folder()} (set SEMNR_DATA)")
        return {"absent": f"no {folder()} (set SEMNR_DATA)"}
    _methods.update(methods(model, None))
    if python:
        _methods.update([careamics(python, [pair[1] for pair in real_pairs()])])
    # the clean image's own CNR is the truth: more of it is no merit
    development = protocols.load()["real"]["development"]
    items = [k for k, pair in enumerate(real_pairs()) if pair[0] in development]
    rows = rows_of(functools.partial(_real, dists), ["clean", *_methods], items)
    table = {name: mean(found) for name, found in rows.items()}
    for name, row in table.items():
        print(f"real: {name}: {show(row)}", flush=True)
    return {"pairs": len(items), "mean": beside(model, table, "real", "mean"), "rows": rows}


def pairs(model: str, dists: bool) -> dict[str, Any]:
    """Real pairs of groups that no choice was made on, paired against the first model; a group counts as one. The
    setting with a little texture is for those who judge by DISTS and LPIPS."""
    if not (folder() / "REGISTRATION.csv").is_file():
        return {"absent": f"no {folder()} (set SEMNR_DATA)"}
    protocol = protocols.load()
    judged = {FIRST: by(FIRST)}
    if model != FIRST:
        judged |= {model: by(model), f"{model}, texture=0.02": by(model, texture=0.02)}
    _methods.update(judged)
    items = [k for k, pair in enumerate(real_pairs()) if protocol.split(pair[0]) == "table"]
    groups = np.array([protocol.group(real_pairs()[k][0]) for k in items])
    out: dict[str, Any] = {"pairs": len(items), "groups": len(set(groups)), "mean": {}}
    by_group: dict[str, dict[str, Image]] = {}
    for name, rows in rows_of(functools.partial(_real, dists), judged, items).items():
        by_group[name] = {
            key: np.array([np.nanmean([r[key] for r, g in zip(rows, groups, strict=True) if g == one])
                           for one in sorted(set(groups))])
            for key in ("psnr", "ssim", "fsim", "transfer", *(("dists",) if dists else ()))
        }  # fmt: skip
        out["mean"][name] = {key: float(values.mean()) for key, values in by_group[name].items()}
        print(f"pairs: {name}: {show(out['mean'][name])}", flush=True)
    if model != FIRST:
        rng = np.random.default_rng(SEEDS)
        drawn = rng.integers(0, out["groups"], (2000, out["groups"]))
        less = {key: by_group[model][key] - by_group[FIRST][key] for key in by_group[model]}
        out["less"] = {key: float(values.mean()) for key, values in less.items()}
        out["less_interval"] = {
            key: [float(v) for v in np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))]
            for key, values in less.items()
        }
        print(f"pairs: less {FIRST}: {show(out['less'])}", flush=True)
    return out


def _real(dists: bool, job: tuple[str, int]) -> dict[str, float]:
    inner = np.s_[BORDER:-BORDER, BORDER:-BORDER]
    _, x, y, raw = real_pairs()[job[1]]
    d = y if job[0] == "clean" else _methods[job[0]](x)
    row = scores(fitted(d[inner], y[inner]), y[inner], x, estimate_noise(x).sigma(), dists)
    row["psnr_raw"] = 10 * math.log10(255**2 / float(((d - raw)[inner] ** 2).mean()))
    evidence = semnr.evidence(x[inner].astype(np.float64), d[inner], reference=y[inner], hints=False)
    row["transfer"] = float(evidence.transfer[0, 0])
    return row


# --- synthetic tiles


def recorded(clean: Image, seed: tuple[int, ...], family: str) -> Image:
    """8 bit, of the recipe's kind of noise or of the family that was held out from it."""
    rng = np.random.default_rng(seed)
    dose = float(np.exp(rng.uniform(np.log(40), np.log(400))))
    tool = Detector(dose=dose, read_noise=float(rng.uniform(0.005, 0.03)), correlation=float(rng.uniform(0.3, 0.6)))
    if family == "trained":
        return quantise(tool.apply(clean, rng), "uint8")
    white = tool.changed(correlation=0.0, row_noise=0.0)
    sigma = white.law().sigma(clean)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    unit = correlated(
        torch.randn(1, 1, *clean.shape, generator=generator), torch.full((1, 1, 1, 1), tool.correlation), "gaussian"
    )
    return quantise(clean + sigma * unit[0, 0].numpy(), "uint8")


@functools.lru_cache(maxsize=4)
def recordings(k: int, family: str) -> tuple[Image, Image, Image]:
    """Clean tile on 0..1, two frames of it."""
    clean = tile(PATTERNS[k % 4], SIDE, seed=SEEDS + k).clean
    first, second = (recorded(clean, (SEEDS + k, frame), family) for frame in (0, 1))
    return clean, first, second


def synthetic(model: str, tiles: int, more: int, sigma: float | None, dists: bool) -> dict[str, Any]:
    """Profile against the clean tile, transfer against a second frame; both noise families. The model's transfer is
    taken on `more` tiles further."""
    out: dict[str, Any] = {}
    _methods.update(methods(model, sigma))
    for family in ("trained", "held out"):
        items = [(family, k) for k in range(tiles)]
        found = rows_of(functools.partial(_synthetic, dists), ["clean", *methods(model, sigma)], items)
        table: dict[str, Any] = {}
        for name, rows in found.items():
            if name == model:
                further = rows_of(_transfer, [name], [(family, k) for k in range(tiles, tiles + more)])[name]
            else:
                further = []
            transfer = [row["transfer"] for row in rows + further if math.isfinite(row["transfer"])]
            low = sum(t < 0.88 for t in transfer)
            table[name] = mean(rows) | {
                "transfer": float(np.mean(transfer)), "transfer_low": low / len(transfer),
                "transfer_low_interval": list(binomtest(low, len(transfer)).proportion_ci()),
                "tiles": len(rows), "judged": len(transfer),
            }  # fmt: skip
            print(f"synthetic, {family}: {name}: {show(table[name])}", flush=True)
        out[family] = beside(model, table, "synthetic", family)
    return out


def _synthetic(dists: bool, job: tuple[str, tuple[str, int]]) -> dict[str, float]:
    clean, x, second = recordings(job[1][1], job[1][0])
    d = 255 * clean if job[0] == "clean" else _methods[job[0]](x)
    return scores(d, 255 * clean, x, estimate_noise(x).sigma(), dists) | {"transfer": transfer(x, d, second)}


def _transfer(job: tuple[str, tuple[str, int]]) -> dict[str, float]:
    _, x, second = recordings(job[1][1], job[1][0])
    return {"transfer": transfer(x, _methods[job[0]](x), second)}


def transfer(x: Image, d: Image, second: Image) -> float:
    return float(
        semnr.evidence(x.astype(np.float64), d, second_frame=second.astype(np.float64), hints=False).transfer[0, 0]
    )


# --- lines


@functools.lru_cache(maxsize=4)
def grating(k: int) -> tuple[Any, Image, Any]:
    """Scene, a frame at SNR 2, the edges found on the clean image."""
    look = Look(edge=0.25)
    scene = tile("lines", SIDE, seed=SEEDS + 50_000 + k, ler_sigma_nm=1.5, look=look)
    step = look.inside - look.outside
    noise = Detector(dose=1e6, read_noise=step / 2, row_noise=0.0, correlation=0.47)
    return scene, scene.noisy(noise=noise, dtype="uint8"), find_edges(255 * scene.clean, orientation="vertical")


def half(model: str) -> str:
    return f"{model}, texture=0.5"


def lines(model: str, tiles: int, sigma: float | None) -> dict[str, Any]:
    """Gratings at SNR 2 (step over pixel noise at its middle): CD bias, error of edge positions, edge PSD by octave.

    The truth is the same measurement on the clean image: the beam has smoothed the geometry in it (its own PSD from 16
    to 8 px is 0.6 of the geometry's), which no denoiser is to undo. `edge_rms_geometry` is against the geometry that
    the image was rendered from. Errors are about each edge's mean; the mean is the CD's. Half of the texture is
    asked for as well: noise left along the edge makes up in the PSD for what a least error shrinks.
    """
    out: dict[str, Any] = {}
    _methods.update(methods(model, sigma))
    _methods[half(model)] = by(model, texture=0.5)
    for name, rows in rows_of(_lines, ["clean", *methods(model, sigma), half(model)], range(tiles)).items():
        good = [row for row in rows if row]
        if not good:
            out[name] = {"failed": len(rows)}
            continue
        bias = [row["bias"] for row in good]
        out[name] = {
            "edges": sum(row["edges"] for row in good), "failed": len(rows) - len(good),
            "cd_bias": float(np.mean(bias)), "cd_bias_se": float(np.std(bias) / math.sqrt(len(bias))),
            "edge_rms": math.sqrt(float(np.mean([row["error"] for row in good]))),
            "edge_rms_geometry": math.sqrt(float(np.mean([row["drawn"] for row in good]))),
            "psd": {
                band: sum(row["psd"][band][0] for row in good) / sum(row["psd"][band][1] for row in good)
                for band in good[0]["psd"]
            },
        }  # fmt: skip
        psd = ", ".join(f"{band} {ratio:.2f}" for band, ratio in out[name]["psd"].items())
        print(f"lines: {name}: {show(out[name])}; {psd}", flush=True)
    return beside(model, out, "lines")


def _lines(job: tuple[str, int]) -> dict[str, Any]:
    scene, x, clean = grating(job[1])
    image = 255 * scene.clean if job[0] == "clean" else _methods[job[0]](x)
    try:
        found = find_edges(image, near=clean)
    except ValueError:
        return {}
    truth = _nearest(clean.positions, found.positions)
    count = min(len(found.cd_px), len(clean.cd_px))
    frequency, measured = edge_psd(found.positions)
    _, true = edge_psd(truth)
    psd, longest = {}, 128.0
    while longest > 8:
        band = (frequency > 1 / longest) & (frequency <= 2 / longest)
        psd[f"{longest:g} to {longest / 2:g} px"] = (float(measured[band].sum()), float(true[band].sum()))
        longest /= 2
    return {
        "bias": float(np.mean(found.cd_px[:count] - clean.cd_px[:count])),
        "error": _spread(found.positions - truth),
        "drawn": _spread(found.positions - _nearest(scene.truth.edges_px, found.positions)),
        "edges": len(found.positions),
        "psd": psd,
    }


def _spread(e: Image) -> float:
    return float(((e - e.mean(axis=1, keepdims=True)) ** 2).mean())


def _nearest(truth: Image, found: Image) -> Image:
    """The true edge of each found one."""
    distance = np.abs(truth.mean(axis=1)[None] - found.mean(axis=1)[:, None])
    return truth[distance.argmin(axis=1)]


# --- defects


@functools.cache
def defect_cases(tiles: int) -> list[tuple[float, tuple[int, int], Image, Image, Image]]:
    """(contrast in sigma, place, change of the clean image, frame without, the same frame with the defect)."""
    tool, cases = Detector(), []
    for k in range(tiles):
        seed, pattern = SEEDS + 80_000 + k, PATTERNS[k % 4]
        without = tile(pattern, 256, seed=seed)
        rng = np.random.default_rng(seed)
        for contrast in (3.0, 5.0):
            for _ in range(20):
                row, col = (int(v) for v in rng.integers(24, 232, 2))
                level = without.clean[row, col]
                height = contrast * float(tool.law().sigma(level)) * rng.choice((-1, 1))
                if 0.02 < level + height < 0.98:
                    break
            spot = Defect("particle", row=float(row), col=float(col), size_px=4.0, contrast=float(height))
            with_one = tile(pattern, 256, seed=seed, defects=[spot])
            # the noise of the image with the defect, moved to the one without: only the defect differs
            x = tool.apply(with_one.clean, np.random.default_rng((seed, int(contrast))))
            noise = x - with_one.clean
            cases.append((contrast, (row, col), with_one.clean - without.clean, *(
                np.clip(np.rint(255 * (c + noise)), 0, 255).astype(np.uint8) for c in (without.clean, with_one.clean)
            )))  # fmt: skip
    return cases


def defects(model: str, tiles: int, more: int, sigma: float | None) -> dict[str, Any]:
    """Particles of 4 px at 3 and 5 sigma of the pixel noise: share of the contrast that is kept, by projection on the
    change that the defect makes, with the same noise in both images. The model is judged on `more` tiles further."""
    out: dict[str, Any] = {}
    _methods.update(methods(model, sigma))
    whole = tiles + more
    rows = rows_of(functools.partial(_defect, whole), methods(model, sigma), range(2 * tiles))
    rows[model] += rows_of(functools.partial(_defect, whole), [model], range(2 * tiles, 2 * whole))[model]
    for name, kept in rows.items():
        contrasts = np.array([case[0] for case in defect_cases(whole)[: len(kept)]])
        three, five = (np.array(kept)[contrasts == c] for c in (3.0, 5.0))
        good = int((five >= 0.8).sum())
        out[name] = {
            "n": len(five), "mean_3_sigma": float(three.mean()), "mean_5_sigma": float(five.mean()),
            "kept_5_sigma": good / len(five), "kept_5_sigma_interval": list(binomtest(good, len(five)).proportion_ci()),
            "least_5_sigma": float(five.min()),
        }  # fmt: skip
        print(f"defects: {name}: {show(out[name])}", flush=True)
    return beside(model, out, "defects")


def _defect(tiles: int, job: tuple[str, int]) -> float:
    _, (row, col), change, plain, marked = defect_cases(tiles)[job[1]]
    window = np.s_[row - 8 : row + 9, col - 8 : col + 9]
    difference = (_methods[job[0]](marked) - _methods[job[0]](plain))[window] / 255
    shape = change[window]
    return float((difference * shape).sum() / (shape**2).sum())


def invented(model: str, tiles: int, more: int, sigma: float | None) -> dict[str, Any]:
    """What stands in the output for tiles that hold no structure: 4-px discs of more than 2 sigma of the pixel noise.

    The noise itself makes some, and one of them cannot be told from a defect of that contrast. So two counts of tiles:
    those where such a disc is there (`left`), and those where one is stronger than the noisy image shows any within 2
    px (`made`): that one the denoiser invented. The model is judged on `more` tiles further.
    """
    out: dict[str, Any] = {}
    _methods.update(methods(model, sigma))
    rows = rows_of(_invented, methods(model, sigma), range(tiles))
    for name in ("noisy", model):
        rows[name] += rows_of(_invented, [name], range(tiles, tiles + more))[name]
    for name, found in rows.items():
        left, made = (sum(row[k] for row in found) for k in (0, 1))
        bound = binomtest(made, len(found)).proportion_ci(0.9).high  # one side of it: none of 1,000 proves 0.3 %
        out[name] = {"n": len(found), "left": left, "made": made, "made_up_to": bound}
        print(f"invented: {name}: {show(out[name])}", flush=True)
    return beside(model, out, "invented")


def _invented(job: tuple[str, int]) -> tuple[bool, bool]:
    rng = np.random.default_rng((SEEDS + 90_000, job[1]))
    level = float(rng.uniform(0.1, 0.8))
    tool = Detector(dose=float(rng.uniform(40, 400)), row_noise=0.0)
    x = quantise(tool.apply(np.full((256, 256), level), rng), "uint8")
    before, after = (_discs(v.astype(np.float64)) for v in (x, _methods[job[0]](x)))
    there = np.abs(after) > 2 * x.std()
    shown = np.where(after > 0, ndimage.maximum_filter(before, 5), -ndimage.minimum_filter(before, 5))
    return bool(there.any()), bool((there & (np.abs(after) > shown)).any())


def _discs(x: Image) -> Image:
    """Mean of a disc of 4 px over its surroundings, around each pixel whose disc lies in the image."""
    disc = np.hypot(*np.mgrid[-3:4, -3:4]) <= 2
    around = ndimage.uniform_filter(x, 31, mode="nearest")
    return np.asarray(ndimage.convolve(x - around, disc / disc.sum()))[3:-3, 3:-3]


# --- texture

ASKED = (0.0, 0.25, 0.5, 0.75, 1.0)


def texture(model: str, tiles: int) -> dict[str, Any]:
    """What asking for texture costs and keeps, on tiles with faint grain between the edges (the wafers' own)."""
    _methods.update({str(share): by(model, texture=share) for share in ASKED})
    rows = rows_of(_texture, map(str, ASKED), range(tiles))
    for share, found in rows.items():
        print(f"texture {share}: {show(mean(found))}", flush=True)
    return {share: mean(found) | {"n": len(found)} for share, found in rows.items()}


def _texture(job: tuple[str, int]) -> dict[str, float]:
    scene = tile(PATTERNS[job[1] % 4], SIDE, seed=SEEDS + 60_000 + job[1])
    x, y = scene.noisy(dtype="uint8"), 255 * scene.clean
    d = _methods[job[0]](x)
    changed = columns(x[None, None], d[None, None], y[None, None], data_range=255.0)
    row = scores(d, y, x, estimate_noise(x).sigma(), False)
    evidence = semnr.evidence(x.astype(np.float64), d, reference=y, hints=False)
    return row | {"transfer": float(evidence.transfer[0, 0]), "transfer_texture": float(changed["transfer_texture"][0])}


# --- speed


def speed(model: str, side: int) -> dict[str, Any]:
    """Megapixels a second of one image, median of three; the network's operations and the machine's rate beside it."""
    scene = tile("metal", side, seed=SEEDS)
    x = scene.noisy(dtype="uint8")
    noise = estimate_noise(x)
    calls: dict[str, Callable[[], Any]] = (
        {}
        if model == FIRST
        else {
            f"{FIRST}, tiles of 1024": lambda: denoise(x, model=FIRST, noise=noise, tile=1024),
            f"{model}, tiles of 1024, ensemble=1": lambda: denoise(x, model=model, noise=noise, tile=1024, ensemble=1),
        }
    )
    calls |= {
        f"{model}, tiles of 1024": lambda: denoise(x, model=model, noise=noise, tile=1024),
        f"{model}, tiles of 512": lambda: denoise(x, model=model, noise=noise, tile=512),
        f"{model}, bfloat16": lambda: denoise(x, model=model, noise=noise, tile=1024, precision="bfloat16"),
    }
    out: dict[str, Any] = {"side": side, "threads": torch.get_num_threads(), "workers": default_workers()}
    rates = {}
    for name, call in calls.items():
        call()
        times = []
        for _ in range(3):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        rates[name] = side * side / 1e6 / sorted(times)[1]
    peers = {"nlm (scikit-image)": "nlm", "bm3d tuned": "bm3d"} if bm3d_module() else {"nlm (scikit-image)": "nlm"}
    small = x[:512, :512]
    for name, peer in peers.items():
        started = time.perf_counter()
        denoise(small, model=peer, noise=noise)
        rates[name] = small.size / 1e6 / (time.perf_counter() - started)
    a = torch.rand(1024, 1024)
    a @ a
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    out["matrix_gmacs_per_second"] = 10 * 1024**3 / 1e9 / (time.perf_counter() - started)
    from semnr.denoising.weights import load

    out |= {"megapixels_per_second": rates, "macs_per_pixel": load(model).network.macs()}
    for name, rate in rates.items():
        print(f"speed: {name}: {rate:.3f} MP/s", flush=True)
    return out


# --- memory

_CHILD = """
import json, resource, sys, time
import numpy as np, zarr
from semnr.denoising import denoise
from semnr.synth import tile
side, model, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
x = tile("metal", 2000, seed=1).noisy(dtype="uint8")
mosaic = zarr.create_array(folder + "/in.zarr", shape=(side, side), chunks=(1000, 1000), dtype="uint8")
for row in range(0, side, 2000):
    for col in range(0, side, 2000):
        mosaic[row : row + 2000, col : col + 2000] = x
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.monotonic()
done = denoise(folder + "/in.zarr", folder + "/out.zarr", model=model, tile=1000, precision="bfloat16")
print(json.dumps({"tiles": done.counts["ok"], "seconds": time.monotonic() - started, "before_mib": before / 1024,
                  "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def memory(model: str, sides: tuple[int, ...]) -> dict[str, Any]:
    """Peak resident memory of a process that denoises a mosaic from Zarr to Zarr, small and large."""
    out = {}
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", _CHILD, str(side), model, folder]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
        out[str(side)] = json.loads(run.stdout.splitlines()[-1])
        print(f"memory: {side}²: {show(out[str(side)])}", flush=True)
    return out


# --- tables


def show(row: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, float) and math.isfinite(v))


def tables(found: dict[str, Any]) -> str:
    out: list[str] = []

    def table(title: str, rows: dict[str, Any], columns: tuple[tuple[str, str, str], ...]) -> None:
        out.extend(["", f"| {title} | " + " | ".join(c[0] for c in columns) + " |", "|---|" + "---|" * len(columns)])
        for name, row in rows.items():
            cells = [form.format(row[key]) if key in row else "–" for _, key, form in columns]
            out.append(f"| {name} | " + " | ".join(cells) + " |")

    scored = (
        ("PSNR", "psnr", "{:.2f}"), ("SSIM", "ssim", "{:.4f}"), ("FSIM", "fsim", "{:.4f}"),
        ("DISTS", "dists", "{:.4f}"), ("CNR, fixed noise", "cnr_fixed_noise", "{:.3f}"), ("area", "area", "{:.4f}"),
        ("T", "transfer", "{:.3f}"),
    )  # fmt: skip
    if "mean" in found.get("real", {}):
        title = f"Real pairs ({found['real']['pairs']}), registered"
        table(title, found["real"]["mean"], (*scored, ("raw PSNR", "psnr_raw", "{:.2f}")))
    if "mean" in (unused := found.get("pairs", {})):
        rows = dict(unused["mean"])
        if "less" in unused:
            rows[f"{found['model']} less {FIRST}"] = unused["less"]
        table(f"Real pairs of groups that no choice was made on ({unused['groups']} groups), registered", rows, (
            ("PSNR", "psnr", "{:.3f}"), ("SSIM", "ssim", "{:.4f}"), ("FSIM", "fsim", "{:.4f}"),
            ("DISTS", "dists", "{:.4f}"), ("T", "transfer", "{:.3f}"),
        ))  # fmt: skip
    for family, rows in found.get("synthetic", {}).items():
        table(f"Synthetic, noise family {family}", rows, (*scored, ("T < 0.88", "transfer_low", "{:.1%}")))
    if "lines" in found:
        rows = {
            name: {**row, **{f"psd {band}": ratio for band, ratio in row.get("psd", {}).items()}}
            for name, row in found["lines"].items()
        }
        bands = list(dict.fromkeys(key for row in rows.values() for key in row if key.startswith("psd ")))
        table("Lines at SNR 2", rows, (
            ("edges", "edges", "{}"), ("CD bias, px", "cd_bias", "{:+.3f}"), ("edge error, px", "edge_rms", "{:.3f}"),
            ("against the geometry", "edge_rms_geometry", "{:.3f}"),
            *((band, band, "{:.2f}") for band in bands),
        ))  # fmt: skip
    if "defects" in found:
        table("Defects of 4 px", found["defects"], (
            ("n", "n", "{}"), ("3 σ: mean kept", "mean_3_sigma", "{:.2f}"), ("5 σ: mean", "mean_5_sigma", "{:.2f}"),
            ("5 σ: ≥ 80 % kept", "kept_5_sigma", "{:.1%}"), ("5 σ: least", "least_5_sigma", "{:.2f}"),
        ))  # fmt: skip
    if "invented" in found:
        table("Tiles without structure: a disc of 4 px above 2 σ", found["invented"], (
            ("n", "n", "{}"), ("in so many", "left", "{}"), ("stronger than the noise made it", "made", "{}"),
            ("95 % bound of that", "made_up_to", "{:.2%}"),
        ))  # fmt: skip
    if "texture" in found:
        table("texture=", found["texture"], (
            ("n", "n", "{}"), ("PSNR", "psnr", "{:.2f}"), ("SSIM", "ssim", "{:.4f}"), ("FSIM", "fsim", "{:.4f}"),
            ("T", "transfer", "{:.3f}"), ("T of the texture between edges", "transfer_texture", "{:.3f}"),
        ))  # fmt: skip
    if "memory" in found:
        table("Mosaic, Zarr to Zarr, bfloat16, tiles of 1000", {f"{k}²": v for k, v in found["memory"].items()}, (
            ("seconds", "seconds", "{:.0f}"), ("peak of the process, MiB", "peak_mib", "{:.0f}"),
            ("before the run", "before_mib", "{:.0f}"),
        ))  # fmt: skip
    if "speed" in found:
        row = found["speed"]
        table(f"Speed, {row['side']}²", {k: {"rate": v} for k, v in row["megapixels_per_second"].items()},
              (("MP/s", "rate", "{:.3f}"),))  # fmt: skip
        out += ["", f"{row['macs_per_pixel'] / 1e3:.1f} kMAC a pixel; a 1024² matrix product reaches "
                f"{row['matrix_gmacs_per_second']:.0f} GMAC/s here on {row['threads']} threads (float32)."]  # fmt: skip
    return "\n".join(out).strip()


def bars(found: dict[str, Any]) -> str:
    """What was asked of the model, what it does, and whether that is enough; rows that are missed stay."""
    model, rows = found["model"], []

    def row(asked: str, measured: str, met: bool) -> None:
        rows.append(f"| {asked} | {measured} | {'met' if met else '**missed**'} |")

    def peers(table: dict[str, Any], key: str) -> dict[str, float]:
        return {
            name: r[key] for name, r in table.items() if not name.startswith(("noisy", "clean", "semnr")) and key in r
        }

    asked = WANTED.get(model, WANTED[FIRST])
    if "less" in (unused := found.get("pairs", {})):
        own, (low, high) = unused["mean"][model], unused["less_interval"]["psnr"]
        gain = unused["less"]["psnr"]
        row(f"PSNR, {unused['groups']} groups of pairs without a choice: ≥ 0.15 dB over {FIRST}",
            f"{gain:+.3f} dB ({low:+.3f} to {high:+.3f})", gain >= 0.15)  # fmt: skip
        for key, name, least in (("ssim", "SSIM", 0.921), ("fsim", "FSIM", 0.969)):
            row(f"{name}, the same: ≥ {least}", f"{own[key]:.4f}", own[key] >= least)

    if "mean" in found.get("real", {}):
        own, others = found["real"]["mean"][model], found["real"]["mean"]
        row("PSNR, real pairs, registered: ≥ 33.0 dB", f"{own['psnr']:.2f} dB", own["psnr"] >= 33.0)
        tuned = others.get("bm3d tuned")
        for key, name in (("ssim", "SSIM"), ("fsim", "FSIM")):
            if tuned:
                shown = f"{own[key]:.4f}, bm3d tuned {tuned[key]:.4f}"
                row(f"{name}, real pairs: no lower than tuned bm3d's", shown, own[key] >= tuned[key])
    tables = {f"synthetic, {family}": rows_ for family, rows_ in found.get("synthetic", {}).items()}
    for where, table in tables.items():
        best = max(peers(table, "psnr").items(), key=lambda item: item[1])
        gain, least = table[model]["psnr"] - best[1], asked[where.removeprefix("synthetic, ")]
        row(f"PSNR, {where} family: ≥ {least} dB over the best classical peer", f"{gain:+.2f} dB ({best[0]})",
            gain >= least)  # fmt: skip
    every = {f"{where} family": table for where, table in tables.items()}
    if "mean" in found.get("real", {}):
        every["real pairs"] = found["real"]["mean"]
    for where, table in every.items():
        for key, name in (("fsim", "FSIM"), ("cnr_fixed_noise", "fixed-noise CNR"), ("area", "profile area")):
            best = max(peers(table, key).items(), key=lambda item: item[1])
            own = table[model][key]
            row(f"{name}, {where}: above every peer's", f"{own:.4f}; {best[0]} {best[1]:.4f}", own > best[1])
    for where, table in tables.items():
        own = table[model]
        row(f"T, {where} family, {own['judged']} tiles: mean 0.97 to 1.03", f"{own['transfer']:.3f}",
            0.97 <= own["transfer"] <= 1.03)  # fmt: skip
        low, high = own["transfer_low_interval"]
        row(f"T < 0.88 on ≤ 1 %, {where} family", f"{own['transfer_low']:.1%} ({low:.1%} to {high:.1%})",
            own["transfer_low"] <= 0.01)  # fmt: skip
    if "lines" in found:
        own, table = found["lines"][model], found["lines"]
        row(f"lines at SNR 2, {own['edges']} edges: mean CD bias ≤ 0.15 px", f"{own['cd_bias']:+.3f} px",
            abs(own["cd_bias"]) <= 0.15)  # fmt: skip
        best = min(peers(table, "edge_rms").items(), key=lambda item: item[1])
        row("edge-position error below every peer's", f"{own['edge_rms']:.3f} px; {best[0]} {best[1]:.3f}",
            own["edge_rms"] < best[1])  # fmt: skip
        other = found["lines"][half(model)]
        for band, ratio in own["psd"].items():
            if model == FIRST:
                row(f"edge PSD within 15 % of the truth, {band}", f"{ratio:.2f}", abs(ratio - 1) <= 0.15)
            else:
                floor = FLOOR[band]
                row(f"edge PSD, {band}: at most 5 % below what a least-error estimate along the edge keeps",
                    f"{ratio:.2f}; {floor:.2f}", ratio >= 0.95 * floor)  # fmt: skip
        worst = max(other["psd"].values(), key=lambda ratio: abs(ratio - 1))
        row(f"the same with `texture=0.5`, every octave (edge error {other['edge_rms']:.3f} px)", f"worst {worst:.2f}",
            abs(worst - 1) <= 0.15)  # fmt: skip
    if "defects" in found:
        own = found["defects"][model]
        row(f"defects of 4 px, 5 σ: ≥ 80 % kept in ≥ {asked['kept']:.0%}", f"{own['kept_5_sigma']:.1%} of {own['n']}",
            own["kept_5_sigma"] >= asked["kept"])  # fmt: skip
        row("none below 50 %", f"least {own['least_5_sigma']:.2f}", own["least_5_sigma"] >= 0.5)
        row("3 σ: mean ≥ 0.8", f"{own['mean_3_sigma']:.2f}", own["mean_3_sigma"] >= 0.8)
    if "invented" in found:
        own, noise = found["invented"][model], found["invented"]["noisy"]
        row(f"none invented in {own['n']:,} tiles without structure: no disc of 2 σ stronger than the noise made it",
            f"{own['made']}; 95 % bound {own['made_up_to']:.2%}", not own["made"])  # fmt: skip
        row("and none left of those that the noise makes", f"{own['left']}; noise {noise['left']}",
            not own["left"])  # fmt: skip
    if "speed" in found:
        rates = found["speed"]["megapixels_per_second"]
        one = [r for name, r in rates.items() if name.startswith(f"{model}, tiles") and "ensemble" not in name]
        fastest = max(one)
        slow = rates.get("bm3d tuned")
        if model != FIRST:
            other = rates[f"{FIRST}, tiles of 1024"]
            row(f"float32, 2048²: at least a quarter of {FIRST}'s rate", f"{fastest:.2f} of {other:.2f} MP/s, "
                f"{fastest / other:.3f}", fastest >= 0.25 * other)  # fmt: skip
        if slow and model == FIRST:
            row("float32, 2048², 2 cores: ≥ 25 × bm3d", f"{fastest:.2f} MP/s, {fastest / slow:.0f} ×",
                fastest >= 25 * slow)  # fmt: skip
    return "\n".join(["| asked | measured | |", "|---|---|---|", *rows])


HEADING = "## Beside classical denoisers"
# what was asked of each model where they differ: dB over the best classical peer, share of defects
WANTED = {
    FIRST: {"trained": 1.5, "held out": 1.5, "kept": 0.95},
    "semnr-base": {"trained": 1.2, "held out": 1.0, "kept": 0.96},
}
# Wiener's estimate along the edge: what a least squared error leaves of the edge's own power at this noise
FLOOR = {"128 to 64 px": 0.96, "64 to 32 px": 0.85, "32 to 16 px": 0.51, "16 to 8 px": 0.13}


def into_card(found: dict[str, Any]) -> Path:
    """Put the tables into the card of the shipped weights, in place of those of an earlier run."""
    from semnr.denoising.weights import SHIPPED

    path = SHIPPED[found["model"]].path.with_suffix(".md")
    machine = found["machine"]
    text = path.read_text().partition(HEADING)[0].rstrip()
    about = (
        f"`python benchmarks/quality/bench_denoise.py --card` on {machine['processor']}, {machine['cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        + ". Nothing here was trained on; bm3d is compared with only, its licence is non-commercial. plain: best of "
        + f"{len(PLAIN)} sigmas on the real pairs, 0.10 elsewhere; tuned: variance-stabilised, the line's noise "
        "spectrum. "
        + ("" if found["model"] == FIRST else f"The peers' rows are those of {FIRST}'s card, from the same seeds. ")
        + ("" if found["dists"] else "DISTS was not measured: the area is that of four axes. ")
        + "T: evidence transfer; CNR: of fixed noise."
    )
    path.write_text(f"{text}\n\n{HEADING}\n\n{about}\n\n{bars(found)}\n\n{tables(found)}\n")
    return path


PARTS = ("real", "pairs", "synthetic", "lines", "defects", "invented", "texture", "memory", "speed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="semnr-small", help="shipped name, or FILE.safetensors")
    parser.add_argument(
        "--only", default=",".join(PARTS), help="of " + ", ".join(PARTS) + "; the others stay as they were"
    )
    parser.add_argument("--without", default="", help="peers to leave out, by the start of their names: bm3d,nlm")
    parser.add_argument("--careamics", help="python of an environment with CAREamics: Noise2Void on the real pairs")
    parser.add_argument(
        "--no-dists", action="store_true", help="leave DISTS out: it takes most of the time of the pairs"
    )
    parser.add_argument("--quick", action="store_true", help="few tiles; writes nothing")
    parser.add_argument("--table", action="store_true", help="measure nothing: print what is there")
    parser.add_argument("--card", action="store_true", help="put the tables into the model card")
    args = parser.parse_args()
    torch.set_num_threads(1)  # before any process is forked
    if args.table:
        found = stored(args.model)
        print(f"{bars(found)}\n\n{tables(found)}")
        if args.card:
            print(f"card: {into_card(found)}")
        return
    warnings.filterwarnings("ignore", message=".*non-commercial.*|outside the training noise family.*")
    from semnr.training.judge import dists_there

    global left_out
    left_out = tuple(filter(None, args.without.split(",")))
    dists, parts, q = dists_there() and not args.no_dists, args.only.split(","), args.quick
    if not dists and not args.no_dists:
        print("DISTS: no calibrated weights (semnr weights fetch vgg16); the area is that of four axes")
    model = args.model
    from semnr.denoising.weights import load

    found: dict[str, Any] = {"model": model, "sha256": load(model).sha256, "seed": SEEDS, "dists": dists}
    keep = not q and not left_out
    before = stored(model) if record_of(model).is_file() else {}
    if keep and all(before.get(name) == found[name] for name in ("model", "sha256", "seed")):
        found = before | {"dists": dists}  # parts that were measured on these weights stay
    found["machine"] = machine()
    found["versions"] = {name: version(name) for name in ("torch", "scikit-image", "bm3d", "numpy") if _there(name)}
    sigma = 0.10  # of plain bm3d away from the real pairs, where it is searched for
    measure: dict[str, Callable[[], Any]] = {
        "real": lambda: real(model, dists, args.careamics),
        "pairs": lambda: pairs(model, dists),
        "synthetic": lambda: synthetic(model, 4 if q else 8, 0 if q else 192, sigma, areas_have_dists(model, dists)),
        "lines": lambda: lines(model, 2 if q else 10, sigma),
        "defects": lambda: defects(model, 4 if q else 12, 0 if q else 188, sigma),
        "invented": lambda: invented(model, 4 if q else 20, 6 if q else 980, sigma),
        "texture": lambda: texture(model, 4 if q else 24),
        "memory": lambda: memory(model, (2000, 4000) if q else (4000, 20000)),
        "speed": lambda: speed(model, 1024 if q else 2048),
    }
    for part in parts:
        found[part] = measure[part]()
        if keep:
            tree = {name: value for name, value in found.items() if name not in ("machine", "versions")}
            made = records.record(
                __file__, tree, machine=found["machine"], versions=found["versions"],
                arguments=[] if model == FIRST else ["--model", model],
            )  # fmt: skip
            records.write(record_of(model), made)
    print("\n" + bars(found) + "\n\n" + tables(found))
    if args.card and keep:
        print(f"card: {into_card(found)}")


def stored(model: str) -> dict[str, Any]:
    """What was measured last of a model, with what it was measured on."""
    made = records.read(record_of(model))
    return {**records.tree_of(made["rows"]), "machine": made["machine"], "versions": made["versions"]}


def _there(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    main()
