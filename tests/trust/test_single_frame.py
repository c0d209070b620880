"""The bound of the transfer from one noisy frame, against the transfer that the clean image tells."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import cases
import semnr
from semnr.denoising import NoiseModel
from semnr.synth import Detector, quantise, tile


def seen(pattern: str, seed: int = 3, side: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """A noisy tile and its scene, in grey levels."""
    clean = np.clip(tile(pattern, side, seed=seed).clean, 0, 1)
    return quantise(Detector().apply(clean, np.random.default_rng(seed)), "uint8"), 255 * clean


def true_transfer(noisy: np.ndarray, denoised: np.ndarray, clean: np.ndarray) -> float:
    x, d, r = (v.astype(np.float32)[None, None] for v in (noisy, denoised, clean))
    return float(np.ravel(semnr.evidence(x, d, r).transfer)[0])


@pytest.mark.parametrize("pattern", ["lines", "holes", "vias"])
@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.5])
def test_a_linear_filter_is_bounded_by_its_transfer(pattern: str, sigma: float) -> None:
    noisy, clean = seen(pattern)
    blurred = ndimage.gaussian_filter(noisy.astype(float), sigma)
    found = semnr.transfer_bound(noisy.astype(float), blurred, data_range=255.0)
    assert found.bound[0] == pytest.approx(true_transfer(noisy, blurred, clean), abs=0.03)


@pytest.mark.parametrize("pattern", ["lines", "holes", "vias"])
def test_a_filter_that_is_not_linear_lies_below_its_bound(pattern: str) -> None:
    noisy, clean = seen(pattern)
    for size in (3, 5):
        filtered = ndimage.median_filter(noisy, size)
        found = semnr.transfer_bound(noisy, filtered)
        assert found.bound[0] > true_transfer(noisy, filtered, clean)


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_a_scene_with_any_share_of_the_noise_is_not_refuted(kept: float) -> None:
    noisy, clean = seen("holes")
    found = semnr.transfer_bound(noisy.astype(float), clean + kept * (noisy - clean), data_range=255.0)
    assert found.bound[0] == pytest.approx(1.0, abs=0.02)


def test_lines_down_are_lines_across_turned() -> None:
    noisy, _ = seen("lines")
    blurred = ndimage.gaussian_filter(noisy.astype(float), 1.5).astype(np.uint8)
    across = semnr.transfer_bound(noisy, blurred)
    down = semnr.transfer_bound(noisy.T.copy(), blurred.T.copy(), scan_axis=-2)
    assert down.bound[0] == pytest.approx(across.bound[0], rel=1e-4)


def test_a_given_law_a_batch_and_what_a_tile_cannot_tell() -> None:
    noisy, _ = seen("lines")
    law = semnr.denoising.estimate_noise(noisy)
    pair = np.stack([noisy, np.full_like(noisy, 90)])[:, None]
    found = semnr.transfer_bound(pair, pair, noise=law)
    assert found.bound[0] == pytest.approx(1.0, abs=1e-6)
    assert math.isnan(found.bound[1])
    small = semnr.transfer_bound(noisy[:24, :24], noisy[:24, :24], noise=law)
    assert math.isnan(small.bound[0])


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"scan_axis": 0}, ValueError, "scan_axis is 0; accepted: -1"),
        ({"noise": "poisson"}, TypeError, "noise is str; accepted: a NoiseModel"),
        ({"noise": [NoiseModel(1.0, 1.0)] * 2}, ValueError, "noise has 2 models for 1 tiles"),
    ],
)
def test_what_is_not_accepted_is_named(options: dict, error: type[Exception], said: str) -> None:
    noisy, _ = seen("lines", side=64)
    with pytest.raises(error, match=said):
        semnr.transfer_bound(noisy, noisy, **options)


@pytest.mark.parametrize(
    "name",
    [
        "general/test_pore2.bmp",
        "ic/sem0000_x0_y0.png",
        "soi/sem_random_lpass_0.03_1.png",
        "vendor/SESI_keyframe_slice_00006.tif",
        "vendor/fei_dualbeam_test_image_2.tif",
    ],
)
def test_images_of_other_tools_refute_a_blur_and_not_the_network(name: str) -> None:
    with Image.open(cases.real_data() / name) as image:
        pixels = np.asarray(image.convert("L"))
    top, left = ((side - 384) // 2 for side in pixels.shape)
    noisy = np.ascontiguousarray(pixels[top : top + 384, left : left + 384])
    blurred = np.round(ndimage.gaussian_filter(noisy.astype(float), 2.5)).astype(np.uint8)
    assert semnr.transfer_bound(noisy, blurred).bound[0] < 0.88
    small = semnr.transfer_bound(noisy, semnr.denoise(noisy, model="semnr-small"))
    assert small.bound[0] + 2 * small.se[0] > 0.93
