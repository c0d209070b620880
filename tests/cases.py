"""Shapes, images and folders that the suites share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def real_data() -> Path:
    """The folder of real SEM images, or a skip that says it is absent."""
    folder = Path(os.environ.get("SEMNR_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "MANIFEST.csv").is_file():
        pytest.skip(f"real SEM images are absent: no {folder} (set SEMNR_DATA)")
    return folder


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
