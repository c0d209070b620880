"""A clean image is laid onto the noisy one of its field; the figures of the real pairs come from one command."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import cases
import semnr
from semnr.cli import main
from semnr.trust.registration import fitted, register


def test_an_affine_map_is_found_to_a_few_hundredths_of_a_pixel() -> None:
    rng = np.random.default_rng(0)
    scene = 128 + 400 * ndimage.gaussian_filter(rng.normal(size=(160, 160)), 3)
    p, centre = np.array([2.6, -4.3, 0.004, -0.002, 0.003, 0.005]), np.array(scene.shape) / 2
    matrix = np.array([[1 + p[2], p[3]], [p[4], 1 + p[5]]])
    seen = ndimage.affine_transform(scene, matrix, centre + p[:2] - matrix @ centre, order=3, mode="nearest")
    found = register(rng.normal(0.8 * seen + 20, 8), scene)
    assert found.affine[:2] == pytest.approx(p[:2], abs=0.06)
    assert found.affine[2:] == pytest.approx(p[2:], abs=1e-3)
    assert np.abs(found.image - seen)[12:-12, 12:-12].mean() < 1


def test_gain_and_offset_are_fitted_by_least_squares() -> None:
    image = np.random.default_rng(0).normal(100, 20, (32, 32))
    assert fitted(image, 0.5 * image + 7) == pytest.approx(0.5 * image + 7)
    assert fitted(np.full((4, 4), 3.0), np.full((4, 4), 9.0)) == pytest.approx(np.full((4, 4), 9.0))


def test_the_figures_of_the_real_pairs_come_from_one_command(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (cases.real_data() / "pairs" / "REGISTRATION.csv").open() as file:
        known = {row["pair"]: [float(row[f"p{i}"]) for i in range(2)] for row in csv.DictReader(file)}
    for folder in ("noisy", "clean", "blurred"):
        (tmp_path / folder).mkdir()
    for name, noisy, clean, _ in cases.real_pairs():
        assert register(noisy, clean).affine[:2] == pytest.approx(known[name], abs=0.06)
        blurred = ndimage.gaussian_filter(noisy.astype(float), 1.5).round().astype(np.uint8)
        for folder, image in (("noisy", noisy), ("clean", clean), ("blurred", blurred)):
            Image.fromarray(image).save(f"{folder}/{name}.png")
    command = (
        "score blurred --reference clean --noisy noisy --register --metrics psnr,ssim,fsim --no-tests --out run -q"
    )
    assert main(command.split()) == 0
    means = {name: values["mean"] for name, values in semnr.Run.open("run").summary.items() if isinstance(values, dict)}
    assert means["psnr_noisy"] == pytest.approx(22.37, abs=0.03)
    assert means["psnr"] == pytest.approx(29.38, abs=0.03)
    assert (means["ssim"], means["fsim"]) == pytest.approx((0.829, 0.923), abs=2e-3)
