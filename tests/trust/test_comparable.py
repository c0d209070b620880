"""Planted mistakes: images that are no pair, each ending in a clear word."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import cases
import semnr
from semnr.cli import main
from semnr.denoising import denoise
from semnr.noise import estimate_noise
from semnr.synth import Detector, quantise, tile
from semnr.trust.comparable import likeness, notes, pair_problem, reference_problem, shift

SIDE = 160
PATTERNS = ("holes", "vias", "metal")
CLEAN = [np.clip(tile(pattern, SIDE, seed=i).clean, 0, 1) for i, pattern in enumerate(PATTERNS)]
NOISY = [quantise(Detector().apply(c, np.random.default_rng(i)), "uint8") for i, c in enumerate(CLEAN)]
GOOD = [(c * 255).round().astype(np.uint8) for c in CLEAN]
WIDE = [x.astype(np.uint16) * 257 for x in NOISY]

Stack = list[np.ndarray]


def each(change: Any) -> Stack:
    return [np.ascontiguousarray(change(d)) for d in GOOD]


def jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


PLANTED: dict[str, tuple[Stack, Stack, str]] = {
    "swapped": (GOOD, NOISY, "look swapped"),
    "swapped with a filtered image": ([ndimage.median_filter(x, 3) for x in NOISY], NOISY, "look swapped"),
    "untouched": (NOISY, NOISY, "the candidate is the noisy input itself"),
    "inverted": (NOISY, each(lambda d: 255 - d), "inverted"),
    "another range": (NOISY, each(lambda d: d // 16), "another intensity scale"),
    "8 bit of 16 bit": (WIDE, GOOD, "candidate is uint8, noisy input uint16"),
    "8 bit of 16 bit, as 16 bit": (WIDE, each(lambda d: d.astype(np.uint16)), "another intensity scale"),
    "bytes swapped": (WIDE, each(lambda d: (d.astype(np.uint16) * 200).byteswap()), "does not show what noisy shows"),
    "mirrored": (NOISY, each(lambda d: d[:, ::-1]), "denoised is noisy mirrored left to right"),
    "turned": (NOISY, each(lambda d: d[::-1, ::-1]), "denoised is noisy turned by 180 degrees"),
    "transposed": (NOISY, each(lambda d: d.T), "denoised is noisy transposed"),
    "cropped": (NOISY, each(lambda d: d[8:]), "candidate is 152x160, noisy input 160x160"),
    "constant": (NOISY, each(lambda d: np.full_like(d, 9)), "denoised is one grey level (9) throughout"),
    "constant input": ([np.full_like(d, 9) for d in GOOD], GOOD, "noisy is one grey level (9) throughout"),
    "JPEG": (NOISY, each(jpeg), "JPEG compression"),
    "far off": (NOISY, each(lambda d: np.roll(d, (21, 13), axis=(0, 1))), "denoised shifted by 2"),
    "enlarged": (NOISY, each(lambda d: ndimage.zoom(d, 2, order=1)[:SIDE, :SIDE]), "does not show what noisy shows"),
    "one tile under all names": (NOISY, [GOOD[0]] * 3, "does not show what noisy shows"),
    "another site": (NOISY, GOOD[1:] + GOOD[:1], "does not show what noisy shows"),
    "in colour": (NOISY, each(lambda d: np.stack([d, d, d // 2])), "candidate is in colour (RGB), noisy input grey"),
    "few levels": (NOISY, each(lambda d: d // 32 * 32), "grey levels only"),
    "empty border": (NOISY, each(lambda d: np.pad(d[9:-9, 9:-9], 9)), "an empty border of 9 px"),
}


def words(verdict: Any) -> str:
    reasons = [str(s.evidence.get("reason", "")) for s in verdict.signals]
    return "\n".join([*reasons, *verdict.notes])


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_ends_in_a_clear_word(mistake: str) -> None:
    noisy, denoised, word = PLANTED[mistake]
    verdict = semnr.check(noisy, denoised)
    assert word in words(verdict)
    assert not verdict.passed
    if mistake not in ("JPEG", "few levels", "empty border"):
        assert verdict["tiles_scored" if mistake != "untouched" else "identical_tiles"].status == "unknown"
        assert verdict.exit_code in (1, 3)  # 1: on a tile that looks alike either way a rule fires


# What a denoiser could have done, too, is no mistake of the caller's: a rule fires.
FAULTS = {
    "one pixel off": (lambda d: np.roll(d, 1, axis=1), "geometric_shift"),
    "gamma": (lambda d: (255 * (d / 255) ** 0.6).astype(np.uint8), "brightness_shift"),
    "turned by 1.5 degrees": (lambda d: ndimage.rotate(d, 1.5, reshape=False, order=1, mode="nearest"), None),
    "blurred": (lambda d: ndimage.gaussian_filter(d, 4), "residual_structure_z"),
    "blurred a little": (lambda d: ndimage.gaussian_filter(d, 1.5), "transfer_bound"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_denoiser_may_have_done_fires(fault: str) -> None:
    change, rule = FAULTS[fault]
    verdict = semnr.check(NOISY, each(change))
    assert verdict.exit_code == 1
    assert rule is None or verdict[rule].status == "fired"


@pytest.mark.parametrize("sigma", [0.7, 1.5, 4.0])
def test_a_blur_is_no_other_scene(sigma: float) -> None:
    for x, d in zip(NOISY, GOOD, strict=True):
        assert pair_problem(x, d) == ""
        assert pair_problem(x, ndimage.gaussian_filter(x.astype(float), sigma)) == ""
        assert pair_problem(x, x + 1.5 * (x - ndimage.gaussian_filter(x.astype(float), 2))) == ""


def test_the_structure_is_that_of_filtered_images() -> None:
    """Σ over the pixels of images between 1.5 and 12 px, mirrored at their borders, columns by twos."""

    def band(v: np.ndarray) -> np.ndarray:
        fine, coarse = (ndimage.gaussian_filter(v, (s / 2, s), mode="reflect", truncate=6) for s in (1.5, 12.0))
        return (fine - coarse).ravel()

    for x, d in zip(NOISY, GOOD, strict=True):
        rows = 75  # of the 79 that lie between two others
        own, neighbours = x[1:150:2].astype(float), (x[0:149:2].astype(float) + x[2:151:2]) / 2
        assert len(own) == rows
        own, neighbours, seen = (band(v) for v in (own, neighbours, d[1:150:2].astype(float)))
        signal, power = own @ neighbours, seen @ seen
        told = likeness(x, d)
        assert told.correlation == pytest.approx(seen @ neighbours / np.sqrt(signal * power), abs=0.01)
        assert told.contrast == pytest.approx(np.sqrt(power / signal), rel=0.02)


@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.4, -1.3), (-7.5, 12.25)])
def test_a_shift_is_told_between_pixels(moved: tuple[float, float]) -> None:
    rng = np.random.default_rng(5)
    scene = 128 + 400 * ndimage.gaussian_filter(rng.normal(size=(200, 200)), 3)
    other = ndimage.shift(scene, moved, order=3, mode="nearest")[20:-21, 20:-20]  # an odd number of rows
    down, right, sure = shift(rng.normal(scene, 5)[20:-21, 20:-20], other)
    assert sure
    assert (down, right) == pytest.approx(moved, abs=0.15)


@pytest.mark.parametrize("width", [0, 1, 9])
def test_an_empty_border_is_told_by_its_narrowest_side(width: int) -> None:
    framed = np.pad(GOOD[0][20:-20, 20:-20], width, constant_values=7)
    framed = np.pad(framed, ((4, 0), (0, 6)), constant_values=7)
    word = f"an empty border of {width} px"
    assert any(word in note for note in notes(NOISY[0][: len(framed), : framed.shape[1]], framed)) == (width > 0)


def test_a_flat_frame_says_nothing_of_what_it_shows() -> None:
    flat = np.random.default_rng(0).normal(100, 10, (96, 96))
    assert np.isnan(likeness(flat, np.full_like(flat, 100) + np.eye(96)).correlation)
    assert pair_problem(flat, ndimage.gaussian_filter(flat, 2)) == ""


@pytest.mark.parametrize("moved", [(6, 4), (-3, 2), (0, -9)])
def test_a_reference_that_lies_elsewhere_is_measured_and_its_rules_are_held(moved: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    clean = [128 + 400 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 3, mode="wrap") for _ in range(3)]
    good = [c.clip(0, 255).round().astype(np.uint8) for c in clean]
    noisy = [rng.normal(c, 10).clip(0, 255).round().astype(np.uint8) for c in clean]
    references = [np.roll(d, moved, axis=(0, 1)) for d in good]
    for x, y in zip(noisy, references, strict=True):
        down, right, sure = shift(x.astype(float), y.astype(float))
        assert sure
        assert (down, right) == pytest.approx(moved, abs=0.3)
        assert reference_problem(x, y).startswith("reference shifted by")
    verdict = semnr.check(noisy, good, reference=references)
    assert verdict.outcome == "not refuted"
    assert verdict["evidence_transfer"].status == "not_comparable"
    assert "reference shifted by" in words(verdict)
    assert "--register" in words(verdict)
    mended = semnr.check(noisy, good, reference=references, register=True, strict=True)
    assert mended.fired == ()
    assert mended["evidence_transfer"].status == "clear"


def test_a_reference_that_is_the_noisy_image_convicts_nobody() -> None:
    verdict = semnr.check(NOISY, GOOD, reference=NOISY)
    assert verdict.fired == ()
    assert "the noisy input of after is the reference itself" in words(verdict)
    assert verdict["evidence_transfer"].status == "not_comparable"


def test_a_second_frame_that_is_the_first_convicts_nobody() -> None:
    verdict = semnr.check(NOISY, GOOD, second_frame=NOISY)
    assert verdict.fired == ()
    assert "not independent" in words(verdict)


def test_one_image_under_all_names_is_found_where_the_sites_look_alike() -> None:
    rng = np.random.default_rng(0)
    noisy = [rng.normal(GOOD[0], 12).clip(0, 255).astype(np.uint8) for _ in range(3)]
    verdict = semnr.check(noisy, [GOOD[0]] * 3)
    assert "one and the same image on 3 of 3 tiles" in words(verdict)
    assert verdict.outcome == "incomplete"


def test_unused_bits_of_uint16_are_taken_for_what_they_are_and_said() -> None:
    twelve = [x.astype(np.uint16) * 16 for x in NOISY], [d.astype(np.uint16) * 16 for d in GOOD]
    verdict = semnr.check(*twelve)
    assert verdict.profile.data_range == 4095
    assert any("12 bit" in note for note in verdict.notes)
    assert semnr.check(*twelve, data_range=65535.0).profile.data_range == 65535


def test_score_says_that_the_top_bits_are_not_used(tmp_path) -> None:
    twelve = np.stack(GOOD).astype(np.uint16) * 16
    run = semnr.score(twelve, reference=twelve[::-1].copy(), metrics=("psnr",), out=tmp_path / "run")
    assert any("--data-range 1023, 4095 or 16383" in remark for remark in run.remarks)
    run = semnr.score(twelve, reference=twelve[::-1].copy(), metrics=("psnr",), data_range=4095, out=tmp_path / "again")
    assert not any("65535" in remark for remark in run.remarks)


def test_noise_is_taken_from_pixels_that_are_not_clipped() -> None:
    rng = np.random.default_rng(0)
    scene = np.full((256, 256), 120.0)
    scene[:, :150] = -60.0  # black: the detector's offset is too low
    noisy = rng.normal(scene, 9.0).clip(0, 255).round().astype(np.uint8)
    law = estimate_noise(noisy)
    assert law.sigma() == pytest.approx(9.0, rel=0.1)
    assert "clipped" in law.remarks[0]
    cleaned = denoise(noisy, model="nlm")
    assert cleaned[:, 170:].std() < 0.5 * noisy[:, 170:].std()


def test_noise_that_cannot_be_told_is_said_and_judges_nothing() -> None:
    black = np.zeros((128, 128), np.uint8)
    black[5:9, 5:9] = 60
    assert "cannot be told" in estimate_noise(black).problem
    drawn = (cases.lines(128, 128) > 0.5).astype(np.uint8) * 100 + 20
    assert "no noise" in estimate_noise(drawn).problem
    verdict = semnr.check(drawn, ndimage.uniform_filter(drawn, 3))
    assert any("no noise" in note for note in verdict.notes)
    assert verdict["residual_variance"].status == "unknown"
    assert verdict["erased_structure"].status == "unknown"


def independent_sigma(image: np.ndarray) -> float:
    """σ of the noise from differences of neighbours, where nothing is clipped and the image is flat."""
    image = image.astype(float)
    free = (ndimage.minimum_filter(image, 5) > 0) & (ndimage.maximum_filter(image, 5) < 255)
    smooth = ndimage.gaussian_filter(image, 3)
    slope = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
    flat = free & (slope <= np.quantile(slope[free], 0.3))
    return 1.4826 * float(np.median(np.abs((image - np.roll(image, 1, axis=1)) / np.sqrt(2))[flat]))


def is_denoised_and_said(image: np.ndarray, sigma: float, most_changed_share: float) -> None:
    """What is not clipped loses its noise, by the law of the pixels that are not clipped, and the user is told so."""
    law = estimate_noise(image)
    assert law.sigma() == pytest.approx(sigma, rel=0.1)
    assert law.remarks[0].endswith(f"are clipped: the noise is that of the other {law.unclipped:.0%}")
    free = (image > 0) & (image < 255)
    for model in ("nlm", "wavelet"):
        with pytest.warns(UserWarning, match="of the pixels are clipped: the noise is that of the other"):
            denoised = semnr.denoise(image, model=model)
        assert np.mean(denoised[free] != image[free]) > most_changed_share
        assert independent_sigma(denoised) < 0.5 * sigma


def test_a_real_frame_of_which_half_is_clipped_is_denoised() -> None:
    image = np.asarray(Image.open(cases.real_data() / "general" / "zircon_bse_01.jpg").convert("L"))[300:700, 400:900]
    assert np.mean((image == 0) | (image == 255)) > 0.5
    is_denoised_and_said(image, independent_sigma(image), 0.8)


@pytest.mark.parametrize("sigma", [8.0, 15.0])
def test_a_frame_of_which_half_is_clipped_is_denoised(sigma: float) -> None:
    clean = np.where(np.arange(256) // 32 % 2, 120.0, -60.0) * np.ones((256, 1))
    image = np.clip(np.random.default_rng(0).normal(clean, sigma).round(), 0, 255).astype(np.uint8)
    is_denoised_and_said(image, sigma, 0.8)


def test_where_the_noise_cannot_be_known_denoising_says_so(tmp_path, capsys) -> None:
    image = np.zeros((128, 128), np.uint8)
    image[40:60, 40:60] = np.random.default_rng(0).normal(90, 12, (20, 20)).astype(np.uint8)  # all the rest is black
    with pytest.warns(UserWarning, match=r"noise cannot be told from this image: 98% of the pixels are clipped"):
        semnr.denoise(image, model="nlm")
    Image.fromarray(image).save(tmp_path / "black.png")
    assert main(["denoise", str(tmp_path / "black.png"), "--out", str(tmp_path / "out.png"), "-q"]) == 0
    assert "note: the noise cannot be told from this image" in capsys.readouterr().out
