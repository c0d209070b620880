"""Whether the levels of a conformal rule are held: on synthetic fields in 1,000 draws, and on real pairs.

`python benchmarks/quality/bench_conformal.py` scores a bank of synthetic fields and of the real pairs once with the
real pipeline (a frame is drawn, denoised, measured; minutes, kept in build/ by its settings), then draws calibration
and test wafers from the bank and counts false alarms. Writes results/conformal.json.

Synthetic: fields of two tiles of 96², lines, holes and metal at 40 and 80 electrons a pixel. In each draw other
fields are calibration fields and test fields, without replacement: test fields are unseen. Strata: pattern and dose.
Real: the pairs of SEMNR_DATA, four tiles a pair, by the groups of its README, which are never split. Groups of the five
pairs that were used for choices set the scales and nothing else.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.signal import lfilter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench_single_frame import BORDER, FIELDS

from semnr import Profile, denoise
from semnr.denoising import estimate_noise
from semnr.stress.measure import measure
from semnr.synth import Detector, tile

HERE = Path(__file__).resolve().parents[1]
RESULTS = HERE / "results" / "conformal.json"
PATTERNS, DOSES = ("lines", "holes", "metal"), (40.0, 80.0)
SIDE, CUTS = 96, 2  # px of a tile; tiles of a synthetic field
FIRST = 4_100_000  # seeds of the fields: no threshold has seen them
SYNTHETIC, REAL = {"model": "wavelet", "strength": 0.6}, {"model": "semnr-small"}
USED = ("time_016", "time_025", "time_034", "line_010", "line_016")  # used for choices before
HARMS = ("blurred by 1 px", "disc of 3 σ invented", "disc of 3 σ erased")


# --- the bank ---


def synthetic(fields: int) -> Iterator[dict[str, Any]]:
    """One field after the other: its tiles' images on the 0-1 scale."""
    for i in range(fields):
        pattern, dose = PATTERNS[i % len(PATTERNS)], DOSES[i // len(PATTERNS) % len(DOSES)]
        made = tile(pattern, (SIDE, SIDE * CUTS), seed=FIRST + i, look={"texture": 0.03})
        scene = np.clip(made.clean, 0, 1)
        noisy = Detector(dose=dose).apply(scene, np.random.default_rng((FIRST + i, 1)))
        denoised = denoised_by(noisy, SYNTHETIC)
        about = {"field": f"field-{i}", "pattern": pattern, "dose": dose}
        yield {**about, "kind": "harmless", **cut(scene, noisy, denoised)}
        if i % 36 < 6:
            for kind, images in harmed(scene, noisy, denoised, np.random.default_rng((FIRST + i, 2))):
                yield {**about, "kind": kind, **cut(*images)}


def harmed(
    scene: np.ndarray, noisy: np.ndarray, denoised: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Three harms of known size, a disc of 6 px in each tile."""
    yield HARMS[0], (scene, noisy, ndimage.gaussian_filter(denoised, 1.0))
    sigma = float((noisy - scene).std())
    rows, columns = np.mgrid[: scene.shape[0], : scene.shape[1]]
    disc = np.zeros_like(scene)
    for k in range(CUTS):
        row, column = rng.integers(24, SIDE - 24, 2) + (0, k * SIDE)
        disc += 3 * sigma * ndimage.gaussian_filter((np.hypot(rows - row, columns - column) <= 3).astype(float), 0.8)
    yield HARMS[1], (scene, noisy, denoised + disc)
    yield HARMS[2], (scene + disc, noisy + disc, denoised)


def denoised_by(noisy: np.ndarray, how: dict[str, Any]) -> np.ndarray:
    return np.asarray(denoise(noisy.astype(np.float32), data_range=1.0, **how), dtype=np.float64)


def cut(scene: np.ndarray, noisy: np.ndarray, denoised: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name: np.stack(np.split(image, CUTS, axis=1))
        for name, image in (("scene", scene), ("noisy", noisy), ("denoised", denoised))
    }


def real(folder: Path) -> Iterator[dict[str, Any]]:
    """Each pair twice: as it was recorded, and its clean image recorded anew by the noise law fitted to the frame."""
    from PIL import Image

    with (folder / "REGISTRATION.csv").open() as file:
        affine = {row["pair"]: [float(row[f"p{i}"]) for i in range(6)] for row in csv.DictReader(file)}
    groups = {name: field[0] for field in FIELDS for name in field}
    for number, name in enumerate(sorted(affine)):
        noisy, clean = (
            np.asarray(Image.open(next(folder.glob(f"{name}_{role}_*"))).convert("L")) for role in ("noisy", "clean")
        )
        p, centre = affine[name], np.array(clean.shape) / 2
        matrix = np.array([[1 + p[2], p[3]], [p[4], 1 + p[5]]])
        offset = centre + p[:2] - matrix @ centre
        moved = ndimage.affine_transform(clean.astype(float), matrix, offset, order=3, mode="nearest")
        inner = (slice(BORDER, -BORDER),) * 2
        x, y = noisy[inner] / 255, moved[inner] / 255
        slope, level = np.polyfit(y.ravel(), x.ravel(), 1)
        scene = slope * y + level
        about = {"field": groups.get(name, name), "pattern": name[:4], "dose": float("nan"), "pair": name}
        for kind, frame in (("recorded", x), ("recorded anew", anew(scene, noisy[inner], number))):
            yield {**about, "kind": kind, **quarters(scene, frame, denoised_by(frame, REAL))}
            if kind == "recorded":
                blurred = ndimage.gaussian_filter(frame, 1.5)
                yield {**about, "kind": "recorded, Gaussian of 1.5 px", **quarters(scene, frame, blurred)}


def anew(scene: np.ndarray, noisy: np.ndarray, seed: int) -> np.ndarray:
    """A new recording of a scene by the law of the noise of one frame, clipped as 8 bit are."""
    law = estimate_noise(noisy, data_range=255.0)
    rho = float(np.clip(law.correlation[0] if law.correlation else 0.0, 0.0, 0.95))
    noise = np.random.default_rng((FIRST, seed)).standard_normal(scene.shape)
    noise[:, 1:] *= np.sqrt(1 - rho**2)
    noise = lfilter([1.0], [1.0, -rho], noise, axis=-1)
    sigma = np.asarray(law.sigma(np.clip(scene * 255, 0, 255))) / 255
    return np.round(np.clip(scene + sigma * noise, 0, 1) * 255) / 255


def quarters(*images: np.ndarray) -> dict[str, np.ndarray]:
    h, w = (n // 2 for n in images[0].shape)
    boxes = [(slice(a, a + h), slice(b, b + w)) for a in (0, h) for b in (0, w)]
    return {n: np.stack([v[box] for box in boxes]) for n, v in zip(("scene", "noisy", "denoised"), images, strict=True)}


def banked(name: str, rows: Iterator[dict[str, Any]]) -> Profile:
    """The rows' scores as one profile, from build/ where it is there."""
    place = HERE.parent / "build" / f"conformal-{name}.npz"
    if not place.is_file():
        columns: dict[str, list[np.ndarray]] = {}
        texts: dict[str, list[str]] = {k: [] for k in ("field", "pattern", "kind", "pair")}
        for row in rows:
            found = measure(row["scene"], row["noisy"], row["denoised"], metrics=("psnr",))
            n = len(found)
            for column, values in {**found.columns, "dose": np.full(n, row["dose"])}.items():
                columns.setdefault(column, []).append(values)
            for key, kept in texts.items():
                kept += [str(row.get(key, ""))] * n
        place.parent.mkdir(exist_ok=True)
        np.savez(
            place,
            **{f"c_{k}": np.concatenate(v) for k, v in columns.items()},
            **{f"t_{k}": v for k, v in texts.items()},
        )
    with np.load(place) as kept:
        held = {k[2:]: kept[k].astype(np.float64) for k in kept.files if k.startswith("c_")}
        said = {k[2:]: tuple(map(str, kept[k])) for k in kept.files if k.startswith("t_")}
    n = len(said["field"])
    return Profile(tuple(f"t{i:05d}" for i in range(n)), held, 1.0, texts=said, auto_ids=True)
