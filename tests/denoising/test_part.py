"""`semnr.denoise(crop=, mask=)`: what does not count stays as it was, bit for bit, and spoils nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import semnr
from semnr.cli import main

HEIGHT, WIDTH, LEFT, BAR = 160, 150, 6, 30
BOX = (LEFT, 0, LEFT + WIDTH, HEIGHT)


def framed(image: np.ndarray) -> np.ndarray:
    """The image with a dark margin on its left and a data bar below."""
    bar = np.zeros((BAR, image.shape[1]), np.uint8)
    bar[8:20, 10:70:2] = 255
    whole = np.vstack([image, bar])
    return np.hstack([np.full((whole.shape[0], LEFT), 3, np.uint8), whole])


@pytest.fixture
def images(tmp_path) -> list[np.ndarray]:
    """Noisy images without their frames; with them they lie in the folder noisy/."""
    (tmp_path / "noisy").mkdir()
    inside = []
    for i in range(2):
        site = semnr.synth.tile("lines", (HEIGHT, WIDTH), seed=i).noisy(dtype="uint8")
        inside.append(site)
        Image.fromarray(framed(site)).save(tmp_path / "noisy" / f"site{i}.png")
    return inside


def read(folder, i: int) -> np.ndarray:
    source = semnr.open_tiles(folder)
    return source.read(source.find(f"site{i}"))


@pytest.mark.parametrize("model", ["gaussian", "wavelet"])
def test_only_the_box_is_denoised_and_the_rest_stays(model, images, tmp_path) -> None:
    done = semnr.denoise(tmp_path / "noisy", tmp_path / "out", model=model, crop=BOX)
    wanted = semnr.denoise(np.stack(images), model=model)
    for i, image in enumerate(images):
        found = read(tmp_path / "out", i)
        inside = np.s_[:HEIGHT, LEFT : LEFT + WIDTH]
        np.testing.assert_array_equal(found[inside], wanted[i])
        left = framed(image)
        left[inside] = wanted[i]
        np.testing.assert_array_equal(found, left)
    assert done.crop == BOX
    assert "the rest is as it was" in " ".join(done.remarks)
    assert done.remarks[-1].startswith("2 image(s): 150 x 160 pixels from (6, 0) were denoised")


def test_a_mosaic_is_cropped_before_it_is_cut(tmp_path) -> None:
    inside = semnr.synth.tile("holes", (300, 280), seed=3).noisy(dtype="uint8")
    whole = framed(inside)
    Image.fromarray(whole).save(tmp_path / "large.tif")
    box = f"{LEFT},0,{LEFT + 280},300"
    out = tmp_path / "clean.tif"
    options = ["--model", "wavelet", "--crop", box, "--tile", "128", "-q"]
    assert main(["denoise", str(tmp_path / "large.tif"), "--out", str(out), *options]) == 0
    found = np.asarray(Image.open(out))
    wanted = whole.copy()
    wanted[:300, LEFT:] = semnr.denoise(inside, model="wavelet", tile=128)
    np.testing.assert_array_equal(found, wanted)


def test_masked_pixels_stay_and_do_not_leak(images, tmp_path) -> None:
    mask = np.ones((HEIGHT, WIDTH), np.uint8)
    mask[40:80, 50:90] = 0
    spoiled = images[0].copy()
    spoiled[mask == 0] = 255  # a label over the image
    (tmp_path / "labelled").mkdir()
    Image.fromarray(spoiled).save(tmp_path / "labelled" / "site0.png")
    Image.fromarray(mask * 255).save(tmp_path / "mask.png")
    options = ["--model", "wavelet", "--mask", str(tmp_path / "mask.png"), "-q"]
    assert main(["denoise", str(tmp_path / "labelled"), "--out", str(tmp_path / "out"), *options]) == 0
    found = read(tmp_path / "out", 0)
    np.testing.assert_array_equal(found[mask == 0], 255)
    ring = np.zeros_like(mask)
    ring[38:82, 48:92] = 1
    near = (ring == 1) & (mask == 1)
    plain = semnr.denoise(images[0], model="wavelet")
    leaking = semnr.denoise(spoiled, model="wavelet")
    error = np.abs(found[near].astype(float) - plain[near]).mean()
    assert error < 0.5 * np.abs(leaking[near].astype(float) - plain[near]).mean()


def test_the_data_bar_is_found(tmp_path) -> None:
    inside = semnr.synth.tile("lines", (480, 512), seed=1).noisy(dtype="uint8")
    bar = np.zeros((40, 512), np.uint8)
    bar[10:26, 20:200:3] = 255
    bar[0] = 255
    Image.fromarray(np.vstack([inside, bar])).save(tmp_path / "one.png")
    done = semnr.denoise(tmp_path / "one.png", tmp_path / "out", model="gaussian", crop="auto")
    source = semnr.open_tiles(tmp_path / "out")
    found = source.read(next(iter(source)))
    np.testing.assert_array_equal(found[-39:], bar[1:])
    assert "512 x 480" in done.remarks[-1]
    np.testing.assert_array_equal(found[:480], semnr.denoise(inside, model="gaussian"))


def test_what_is_asked_is_checked_and_kept(images, tmp_path) -> None:
    noisy = tmp_path / "noisy"
    semnr.denoise(noisy, tmp_path / "out", model="gaussian", crop=BOX)
    with pytest.raises(ValueError, match=r"crop is None, but .* was begun with"):
        semnr.denoise(noisy, tmp_path / "out", model="gaussian", resume=True)
    with pytest.raises(ValueError, match="crop is given with score; accepted: denoise first"):
        semnr.denoise(noisy, tmp_path / "more", model="gaussian", crop=BOX, score=True)
    with pytest.raises(ValueError, match="mask is given and out is no path"):
        semnr.denoise(images[0], model="gaussian", mask=np.ones((HEIGHT, WIDTH)))
    with pytest.raises(ValueError, match="crop is 'most'"):
        semnr.denoise(noisy, tmp_path / "more", model="gaussian", crop="most")
    done = semnr.denoise(noisy, tmp_path / "more", model="gaussian", crop=(0, 0, 900, 100))
    assert done.counts["ok"] == 0
    assert "crop is 0,0,900,100" in done.problems[0].reason
