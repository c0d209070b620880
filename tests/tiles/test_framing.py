"""Data bars: found by tags or pixels, cut from both images of a pair alike; where it is unsure, nothing is cut."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw

import cases
import semnr
from semnr.cli import main
from semnr.runs import Run
from semnr.tiles import decode
from semnr.tiles.databar import find_bar, lower_end, parse_crop
from semnr.tiles.decoding import instrument_of

DATA = os.environ.get("SEMNR_DATA")
FEI = "[Beam]\r\nScan=EScan\r\n[Image]\r\nResolutionX={}\r\nResolutionY={}\r\n[Scan]\r\nPixelWidth=2e-009\r\n"
SIZE, BAR = (400, 512), 40


def scene(height: int = SIZE[0], width: int = SIZE[1], sigma: float = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    clean = 60 + 120 * cases.lines(height, width, seed=seed)
    return np.clip(clean + sigma * rng.standard_normal(clean.shape), 0, 255).astype(np.uint8)


def with_bar(image: np.ndarray, ground: int = 0, ink: int = 255, line: bool = False, rows: int = BAR) -> np.ndarray:
    """The image above a bar of one level with text on it."""
    strip = Image.new("L", (image.shape[1], rows), ground)
    draw = ImageDraw.Draw(strip)
    for left in range(8, image.shape[1] - 60, 90):
        draw.text((left, rows // 3), "10.0 kV 5 um", fill=ink)
    draw.rectangle((image.shape[1] - 80, 6, image.shape[1] - 20, 9), fill=ink)
    if line:
        draw.line((0, 0, image.shape[1], 0), fill=ink)
    return np.concatenate([image, np.asarray(strip)])


def bar_of(image: np.ndarray, instrument=None):
    size = image.shape[-2:]
    return find_bar(image[..., lower_end(size[0]) :, :], size, instrument)


@pytest.mark.parametrize(
    "options", [{}, {"ground": 255, "ink": 0}, {"ground": 128}, {"line": True}, {"rows": 64}, {"ground": 0, "ink": 90}]
)
def test_a_burnt_in_bar_is_found_to_the_row(options) -> None:
    image = with_bar(scene(), **options)
    found = bar_of(image)
    assert (found.box, found.how) == ((0, 0, SIZE[1], SIZE[0]), "by its pixels")
    wide = image.astype(np.uint16) * 200 + 7
    assert bar_of(wide).box == found.box


@pytest.mark.parametrize("quality", [60, 90])
def test_a_bar_in_a_jpeg_is_found_within_a_block(tmp_path, quality) -> None:
    Image.fromarray(with_bar(scene())).save(tmp_path / "a.jpg", quality=quality)
    found = bar_of(decode(tmp_path / "a.jpg"))
    assert found.box is not None
    assert SIZE[0] - 8 <= found.box[3] <= SIZE[0] + 1


@pytest.mark.parametrize(
    "image",
    [
        scene(),
        scene(sigma=0),
        np.zeros((400, 512), np.uint8),
        (cases.lines(400, 512, seed=1) > 0.5).astype(np.uint8) * 255,
        np.concatenate([scene(300), np.zeros((60, 512), np.uint8)]),  # a blanked part, and nothing drawn on it
        scene().astype(np.float32) / 255,
    ],
    ids=["noisy", "clean", "black", "two levels", "blanked", "float"],
)
def test_what_has_no_bar_is_left_whole(image) -> None:
    assert bar_of(image).box is None


def test_text_on_the_image_itself_is_no_bar_and_is_said() -> None:
    image = np.zeros((400, 512), np.uint8)
    image[40:240] = scene(200)
    drawn = Image.fromarray(image)
    ImageDraw.Draw(drawn).text((100, 380), "JEOL 15 kV x250 100 um " * 3, fill=255)
    found = bar_of(np.asarray(drawn))
    assert (found.box, found.known) == (None, False)
    assert "text seems to be drawn" in found.how


@pytest.mark.parametrize(
    ("code", "text", "box"),
    [
        (34682, FEI.format(512, 400), (0, 0, 512, 400)),
        (34682, FEI.format(512, 440), None),
        (50431, "[MAIN]\r\nDevice=MIRA\r\nImageStripSize=40\r\n", (0, 0, 512, 400)),
        (50431, "[MAIN]\r\nImageStripSize=0\r\n", None),
    ],
)
def test_tags_are_believed_before_pixels(tmp_path, code, text, box) -> None:
    image = with_bar(scene())
    tifffile.imwrite(tmp_path / "a.tif", image, metadata=None, extratags=[(code, 2, len(text), text, True)])
    found = bar_of(image, instrument_of(tmp_path / "a.tif"))
    assert found.box == box
    assert f"tag {code}" in found.how


def lot(folder: Path, count: int = 3, cut: bool = False) -> tuple[Path, Path]:
    """(noisy with bars, denoised with smeared bars or without)."""
    noisy, denoised = folder / "noisy", folder / "dn"
    noisy.mkdir(parents=True)
    denoised.mkdir()
    for at in range(count):
        image = scene(seed=at)
        clean = semnr.denoise(image, model="gaussian", sigma=1.0)
        Image.fromarray(with_bar(image)).save(noisy / f"{at}.png")
        Image.fromarray(clean if cut else with_bar(clean, ink=200)).save(denoised / f"{at}.png")
    return noisy, denoised


@pytest.mark.parametrize("cut", [False, True], ids=["both have it", "the denoised ones were cut"])
def test_both_images_of_a_pair_lose_the_same_bar(tmp_path, cut, capsys) -> None:
    noisy, denoised = lot(tmp_path, cut=cut)
    argv = ["score", f"{denoised}", "--noisy", f"{noisy}", "--reference", f"{noisy}", "--metrics", "psnr,ssim", "-q"]
    assert main([*argv, "--no-tests", "--crop", "auto", "--out", f"{tmp_path / 'out'}"]) == 0
    assert "3 image(s) cropped to 512 x 400 from (0, 0), by its pixels" in capsys.readouterr().out
    for row in Run.open(tmp_path / "out").table().to_pylist():
        x, y = (decode(folder / f"{row['tile']}.png")[:400] for folder in (denoised, noisy))
        assert row["psnr"] == pytest.approx(semnr.psnr(x, y), abs=1e-9)
        assert row["ssim"] == pytest.approx(semnr.ssim(x, y), abs=1e-6)


def test_sizes_that_differ_by_a_bar_are_explained(tmp_path, capsys) -> None:
    noisy, denoised = lot(tmp_path, cut=True)
    argv = ["score", f"{denoised}", "--noisy", f"{noisy}", "--reference", f"{noisy}", "--metrics", "psnr", "-q"]
    assert main([*argv, "--no-tests", "--out", f"{tmp_path / 'out'}"]) == 3
    said = capsys.readouterr().out
    assert said.count("40 rows more, as a data bar has; --crop auto leaves it out") == 1  # three images, one line


def test_a_mosaic_is_cut_before_it_is_cut_into_tiles(tmp_path) -> None:
    noisy, denoised = lot(tmp_path, count=1)
    run = semnr.score(
        denoised / "0.png", reference=noisy / "0.png", out=tmp_path / "out", metrics=("psnr",), crop="auto", tests=False
    )
    assert run.counts == {"tiles": 1, "ok": 1}
    x, y = (decode(folder / "0.png")[:400] for folder in (denoised, noisy))
    assert run.table().to_pylist()[0]["psnr"] == pytest.approx(semnr.psnr(x, y), abs=1e-9)


def test_a_box_and_a_mask_say_what_counts(tmp_path) -> None:
    noisy, denoised = lot(tmp_path)
    mask = np.zeros((SIZE[0] + BAR, SIZE[1]), np.uint8)
    mask[20:300, 30:400] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = {"reference": noisy, "metrics": ("psnr", "ssim"), "tests": False}
    masked = semnr.score(denoised, out=tmp_path / "masked", mask=tmp_path / "mask.png", **options)
    boxed = semnr.score(denoised, out=tmp_path / "boxed", crop="30,20,400,300", **options)
    for one, other in zip(masked.table().to_pylist(), boxed.table().to_pylist(), strict=True):
        assert one["psnr"] == pytest.approx(other["psnr"], abs=1e-6)
        assert one["ssim"] == pytest.approx(other["ssim"], abs=5e-3)  # windows at the mask's edge
    assert masked.info["decided"]["data_range"] == 255


@pytest.mark.parametrize("crop", ["bottom", "0,0,10", (5, 5, 5, 9), "0,0,-1,9", 3])
def test_a_bad_box_is_refused(crop) -> None:
    with pytest.raises(ValueError, match="left,top,right,bottom"):
        parse_crop(crop)


def test_a_box_beyond_the_image_and_a_mask_of_another_size_are_rows_with_the_reason(tmp_path) -> None:
    noisy, denoised = lot(tmp_path, count=1)
    options = {"reference": noisy, "metrics": ("psnr",), "tests": False}
    run = semnr.score(denoised, out=tmp_path / "a", crop=(0, 0, 900, 300), **options)
    assert "crop is 0,0,900,300" in run.problems[0]["reason"]
    run = semnr.score(denoised, out=tmp_path / "b", mask=np.ones((9, 9)), **options)
    assert "the mask 9 x 9" in run.problems[0]["reason"]
    with pytest.raises(ValueError, match="no pixel counts"):
        semnr.score(denoised, out=tmp_path / "c", mask=np.zeros((9, 9)), **options)


@pytest.mark.skipif(DATA is None, reason="SEMNR_DATA is not set: no real images")
def test_bars_of_real_images_are_found_to_the_row_and_nothing_else_is_cut() -> None:
    root = Path(DATA or "")
    with (root / "MANIFEST.csv").open(encoding="utf-8") as file:
        notes = {row["file"]: row["notes"] for row in csv.DictReader(file)}
    found, wrong = 0, []
    for name, note in notes.items():
        try:
            image = decode(root / name)
        except semnr.TileError:
            continue  # the damaged one
        told = re.search(r"databar: crop 0,0,\d+,(\d+)", note)
        for instrument in {id(i): i for i in (instrument_of(root / name), None)}.values():
            bar = bar_of(image, instrument)
            expected = int(told[1]) if told and not name.startswith(("pairs", "ic")) else None
            found += bar.box is not None
            if (bar.box and bar.box[3]) != expected:
                wrong.append((name, bar, expected))
    assert wrong == []
    assert found >= 8
