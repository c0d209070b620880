"""The noise law of what real tools write: fitted, or refused with the reason, and never a wrong one in silence."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import cases
import semnr
from semnr.denoising import NoiseModel, estimate_noise
from semnr.synth import tile
from semnr.synth.detector import first_order
from semnr.tiles import decode

GAIN = 0.6  # grey levels of variance for each grey level
SCENES = {pattern: tile(pattern, 256, seed=3).clean for pattern in ("vias", "metal")}


def scene(pattern: str) -> np.ndarray:
    """The field on the 8-bit scale, between 15 and 75 % of it."""
    clean = np.asarray(SCENES[pattern], np.float64)
    return 255 * (0.15 + 0.6 * (clean - clean.min()) / np.ptp(clean))


def frame(level: np.ndarray, seed: int = 0, gain: float = GAIN, offset: float = 0.0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(level.shape)
    first_order(noise, 0.48)
    return level + noise * np.sqrt(gain * level + offset)


def eight(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def jpeg(x: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def assert_law(law: NoiseModel, gain: float, offset: float, level: float, rel: float = 0.1) -> None:
    """σ at a level of the scene as it should be, and nothing said against it."""
    assert law.problem == ""
    assert law.sigma(level) == pytest.approx(np.sqrt(gain * level + offset), rel=rel)


@pytest.mark.parametrize("pattern", SCENES)
def test_laws_that_can_be_known_are_fitted(pattern: str) -> None:
    x = frame(scene(pattern))
    assert_law(estimate_noise(eight(x)), GAIN, 0, 100)
    assert estimate_noise(eight(x)).remarks == ()
    assert_law(
        estimate_noise(eight(np.mean([frame(scene(pattern), s) for s in range(16)], axis=0))), GAIN / 16, 0.08, 100
    )
    assert_law(estimate_noise(eight(frame(scene(pattern).T).T), scan_axis=-2), GAIN, 0, 100)
    assert_law(estimate_noise(jpeg(eight(x), 97)), GAIN, 0, 100)


@pytest.mark.parametrize("pattern", SCENES)
def test_an_offset_and_a_bit_depth_of_the_detector_are_in_the_law(pattern: str) -> None:
    x = frame(scene(pattern))
    offset = np.rint(40 * x + 12_000).astype(np.uint16)
    assert_law(estimate_noise(offset), 40 * GAIN, -40 * GAIN * 12_000, 16_000)
    twelve = np.clip(np.rint(16 * x), 0, 4095).astype(np.uint16)
    assert_law(estimate_noise(twelve), 16 * GAIN, 0, 1600)
    shifted = estimate_noise((twelve * 16).astype(np.uint16))
    assert_law(shifted, 256 * GAIN, 0, 25_600)
    assert (shifted.step, estimate_noise(twelve).step, estimate_noise(x).step) == (16, 1, 0)


@pytest.mark.parametrize("scale", [1, 16])
def test_where_the_detector_stops_within_the_scale_pixels_are_clipped(scale: int) -> None:
    x = 16 * frame(scene("metal"))
    low, high = np.rint(np.quantile(x, (0.005, 0.98)))
    law = estimate_noise((np.clip(np.rint(x), low, high) * scale).astype(np.uint16))
    assert law.clipped_low == pytest.approx(0.005, abs=0.002)
    assert law.clipped_high == pytest.approx(0.02, abs=0.002)
    assert_law(law, 16 * GAIN * scale, 0, 1600 * scale)
    assert estimate_noise(np.rint(x).astype(np.uint16)).clipped_high == 0  # the brightest pixel of noise is no end


FILTERED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "two lines averaged": lambda x: (x + np.roll(x, 1, 0)) / 2,
    "lines doubled": lambda x: np.repeat(x[::2], 2, 0),
    "scaled up": lambda x: ndimage.zoom(x, 1.3, order=1),
    "median filter": lambda x: ndimage.median_filter(x, 3),
    "Gaussian": lambda x: ndimage.gaussian_filter(x, 0.7),
    "JPEG": lambda x: jpeg(eight(x), 50).astype(np.float64),
}


@pytest.mark.parametrize("pattern", SCENES)
@pytest.mark.parametrize("kind", FILTERED)
def test_filtered_images_have_no_law(kind: str, pattern: str) -> None:
    law = estimate_noise(eight(FILTERED[kind](frame(scene(pattern)))))
    assert "cannot be told from this image" in law.problem or "no noise at all" in law.problem
    assert law.remarks == (law.problem,)


@pytest.mark.parametrize("pattern", SCENES)
def test_the_wrong_scan_axis_is_named(pattern: str) -> None:
    x = eight(frame(scene(pattern).T).T)
    assert "--scan-axis y" in estimate_noise(x).problem
    assert "--scan-axis y" in estimate_noise(x.T, scan_axis=-2).problem
    assert estimate_noise(x.T).problem == estimate_noise(x, scan_axis=-2).problem == ""


@pytest.mark.parametrize(("level", "heavy"), [(8, True), (2, False)])
def test_fields_of_an_interlaced_scan_that_differ_are_told(level: float, heavy: bool) -> None:
    x = frame(scene("vias"))
    x[1::2] += level
    law = estimate_noise(eight(x))
    assert ("even and odd lines" in law.problem) == heavy
    assert any("even and odd lines" in remark for remark in law.remarks)


def test_noise_below_the_step_of_the_scale_and_curves_are_told() -> None:
    x = frame(scene("metal"))
    coarse = estimate_noise((np.rint(x / 24) * 24).clip(0, 255).astype(np.uint8))
    assert "mostly rounding" in coarse.problem
    assert coarse.step == 24
    assert any("falls with the grey level" in r for r in estimate_noise(255 - eight(x)).remarks)


def test_a_check_of_an_image_without_a_law_claims_nothing() -> None:
    noisy = eight(ndimage.gaussian_filter(frame(scene("metal")), 0.7))
    denoised = eight(ndimage.gaussian_filter(noisy.astype(np.float64), 2))
    verdict = semnr.check(noisy, denoised)
    assert verdict.outcome == "not refuted"
    assert any("cannot be told" in note for note in verdict.notes)
    of_one_frame = {"residual_variance", "residual_structure_z", "transfer_bound"}
    assert {s.status for s in verdict.signals if s.name in of_one_frame} == {"unknown"}


# The images of ../shared/data that are no pairs: what the law says of each, by looking at them.
REFUSED = {
    "vendor/1-as-cast_18_Sch_10k_BSD-Compo.tif": "flat",
    "vendor/FeMoOx_AntiA_04_1k5x_CN.tif": "not independent",
    "general/K1.jpg": "not independent",
}


def test_every_real_image_has_a_law_or_a_reason() -> None:
    folder = cases.real_data()
    with (folder / "MANIFEST.csv").open(encoding="utf-8") as file:
        notes = {row["file"]: row["notes"] for row in csv.DictReader(file)}
    seen = 0
    for name, note in notes.items():
        if name.startswith("pairs") or "mask" in name or "gds" in name or "broken" in name:
            continue
        image = decode(folder / name)
        told = re.search(r"crop 0,0,(\d+),(\d+)", note)
        pixels = np.asarray(image.pixels if hasattr(image, "pixels") else image)
        pixels = pixels.mean(0) if pixels.ndim == 3 else pixels
        law = estimate_noise(pixels[: int(told[2])] if told else pixels, data_range=None)
        reason = REFUSED.get(name)
        assert bool(law.problem) == bool(reason), (name, law.problem)
        assert reason is None or reason in law.problem, (name, law.problem)
        assert reason or law.sigma() > 1, name  # none silently zero
        seen += 1
    assert seen >= 15


def test_noisy_recordings_are_not_refused_and_turned_ones_are() -> None:
    for name, noisy, _, _ in cases.real_pairs():
        assert estimate_noise(noisy).remarks == (), name
        assert "--scan-axis y" in estimate_noise(noisy.T).problem, name
