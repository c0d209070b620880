"""Tests with the published weights: those in the cache, which `semnr weights fetch` fills and no test does.

Without them such a test is skipped with the command to run; SEMNR_REQUIRE=weights,pairs, as in CI, makes it fail.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends import required
from semnr_kernels.pretrained import PUBLISHED

# The five pairs that IQA-PyTorch calibrates metrics with, in its wheel; values: its ResultsCalibra/results_original.csv
WHEEL = Path(__file__).parents[2] / "build" / "calibration" / "pyiqa-0.1.16-py3-none-any.whl"
WHEEL_SHA256 = "42bbcf1c274a8b53f040a3ec5ec304a15b7725afb5a85b81050e9cc7e6d09ed4"
PAIRS = ("I03", "I04", "I06", "I08", "I19")
DISTS = ("0.4742", "0.1424", "0.06825", "0.02867", "0.3123")  # both at the images' own size
LPIPS_ALEX = ("0.7237", "0.2572", "0.05079", "0.05205", "0.4253")


def need_weights(*names: str) -> None:
    """Skip, or fail where CI requires them, without these published weights."""
    absent = [name for name in names if PUBLISHED[name].installed is None]
    if absent:
        _without("weights", f"no published weights in the cache: run `semnr weights fetch {' '.join(absent)}`")


def published_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """(distorted, reference) of each, (3, H, W) uint8."""
    if not WHEEL.is_file():
        _without("pairs", f"no {WHEEL}: run `pip download --no-deps -d {WHEEL.parent} pyiqa==0.1.16`")
    assert hashlib.sha256(WHEEL.read_bytes()).hexdigest() == WHEEL_SHA256
    with zipfile.ZipFile(WHEEL) as wheel:

        def image(folder: str, name: str) -> np.ndarray:
            with wheel.open(f"ResultsCalibra/{folder}/{name}.bmp") as file:
                return np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1).copy()

        return [(image("dist_dir", name), image("ref_dir", name)) for name in PAIRS]


def _without(what: str, message: str) -> None:
    if what in required():
        pytest.fail(f"SEMNR_REQUIRE names {what}, but there is {message}")
    pytest.skip(message)
