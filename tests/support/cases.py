"""Shapes, images and folders that the suites share."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def real_data() -> Path:
    """The folder of real SEM images, or a skip that says it is absent."""
    folder = Path(os.environ.get("SEMNR_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "MANIFEST.csv").is_file():
        pytest.skip(f"real SEM images are absent: no {folder} (set SEMNR_DATA)")
    return folder


# The pairs that the figures in these tests were measured on; the folder holds more, which judge elsewhere.
REAL_PAIRS = ("time_016", "time_025", "time_034", "line_010", "line_016")


def real_pairs() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """(name, noisy, clean as it lies, clean laid onto the noisy) of `REAL_PAIRS`; uint8, the last one float64."""
    from PIL import Image
    from scipy.ndimage import affine_transform

    folder = real_data() / "pairs"
    with (folder / "REGISTRATION.csv").open() as file:
        affine = {row["pair"]: [float(row[f"p{i}"]) for i in range(6)] for row in csv.DictReader(file)}
    for name in REAL_PAIRS:
        noisy, clean = (
            np.asarray(Image.open(next(folder.glob(f"{name}_{kind}_*"))).convert("L")) for kind in ("noisy", "clean")
        )
        p, centre = affine[name], np.array(clean.shape) / 2
        matrix = np.array([[1 + p[2], p[3]], [p[4], 1 + p[5]]])
        origin = centre + p[:2] - matrix @ centre
        yield name, noisy, clean, affine_transform(clean.astype(np.float64), matrix, origin, order=3, mode="nearest")


def lines(height: int = 96, width: int = 96, pitch: int = 16, seed: int = 0) -> np.ndarray:
    """A smooth line/space pattern on the 0-1 scale, float64, with a slow gradient and a little texture."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    pattern = 0.5 + 0.3 * np.tanh(4 * np.sin(2 * np.pi * columns / pitch)) + 0.05 * rows / height
    return np.clip(pattern + 0.01 * rng.standard_normal((height, width)), 0, 1)


def noisy_pair(height: int = 96, width: int = 96, sigma: float = 0.08, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Candidate and reference, float64 on the 0-1 scale."""
    rng = np.random.default_rng(seed + 1)
    clean = lines(height, width, seed=seed)
    return np.clip(clean + sigma * rng.standard_normal(clean.shape), 0, 1), clean
