"""A whole image in is a whole image out: one file of its size, bit depth, photometric and instrument tags."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import cases
import semnr
from semnr.tiles import decode, open_tiles, pixel_size_nm

FEI = "[User]\r\nDate=01/02/2026\r\n[Scan]\r\nPixelWidth=2.5e-009\r\nPixelHeight=2.5e-009\r\n"
ZEISS = "\r\n".join(["0", "", "", "3.0e-9", *["0"] * 20, "AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 3.000 nm"]) + "\r\n"
CZ = [(34118, 2, len(ZEISS), ZEISS, True)]
FIBICS = "<Fibics><Scan><Ux>0.004</Ux><Uy>0</Uy></Scan></Fibics>"
STRUCTURE = {254, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339, 65112, 305, 282, 283, 296, 270, 320}


def pixels(height: int = 150, width: int = 230, dtype: str = "uint8", top: int = 255, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = cases.lines(height, width, seed=seed) * 0.6 + 0.2 + 0.05 * rng.standard_normal((height, width))
    return np.clip(found * top, 0, top).astype(dtype)


def ramp(coloured: int = 0) -> np.ndarray:
    table = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    if coloured:
        table[:, :coloured] = [[65535], [0], [0]]
    return table


KINDS = {
    "FEI, 8 bit": {"extratags": [(34682, 2, len(FEI), FEI, True)], "resolution": (1e5, 1e5)},
    "FEI, 16 bit, LZW": {"extratags": [(34682, 2, len(FEI), FEI, True)], "compression": "lzw", "dtype": "uint16"},
    "Zeiss, palette": {"extratags": CZ, "photometric": "palette", "colormap": ramp()},
    "Zeiss, annotated": {"extratags": CZ, "photometric": "palette", "colormap": ramp(8)},
    "Fibics, tiled": {"extratags": [(51023, 2, len(FIBICS), FIBICS, True)], "tile": (64, 64)},
    "white is zero": {"photometric": "miniswhite"},
    "white is zero, 16 bit": {"photometric": "miniswhite", "dtype": "uint16"},
    "big-endian": {"extratags": [(34682, 2, len(FEI), FEI, True)], "byteorder": ">", "dtype": "uint16"},
    "float": {"dtype": "float32"},
    "ImageJ": {"imagej": True, "resolution": (250.0, 250.0), "metadata": {"unit": "um"}},
    "OME": {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm"}},
    "Hitachi and JEOL, private tags": {"extratags": [(40092, 1, 6, b"a\0b\0\0\0", True), (50839, 3, 2, (7, 9), True)]},
}  # fmt: skip


def written(path: Path, kind: str, page: np.ndarray | None = None) -> np.ndarray:
    options = dict(KINDS[kind])
    dtype = options.pop("dtype", "uint8")
    top = 60000 if dtype == "uint16" else 1 if dtype == "float32" else 255
    image = pixels(dtype=dtype, top=top) if page is None else page
    if kind == "Zeiss, annotated":
        image = np.maximum(image, 8)
    form = {name: options.pop(name) for name in ("imagej", "ome", "byteorder") if name in options}
    options = {"photometric": "minisblack", "metadata": None, **options}
    with tifffile.TiffWriter(path, **form) as file:
        file.write(image, **options)
    return decode(path)


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_comes_out_that_says_all_that_the_first_one_said(tmp_path, kind) -> None:
    shown = written(tmp_path / "in.tif", kind)
    options = {"data_range": 1.0} if shown.dtype.kind == "f" else {}
    done = semnr.denoise(tmp_path / "in.tif", tmp_path / "out.tif", model="gaussian", tile=64, **options)
    assert (done.exit_code, done.counts["ok"]) == (0, 12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.tif", "out.tif"]
    expected = semnr.denoise(shown, model="gaussian", **options)
    found = decode(tmp_path / "out.tif")
    assert (found.shape, found.dtype) == (shown.shape, shown.dtype)
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=1e-6)
    assert pixel_size_nm(tmp_path / "out.tif") == pixel_size_nm(tmp_path / "in.tif")
    with tifffile.TiffFile(tmp_path / "in.tif") as one, tifffile.TiffFile(tmp_path / "out.tif") as other:
        before, after = one.pages[0], other.pages[0]
        assert (before.photometric, before.bitspersample) == (after.photometric, after.bitspersample)
        assert before.description == after.description
        for tag in before.tags:
            if tag.code not in STRUCTURE:
                assert (tag.dtype, tag.count, str(tag.value)) == (
                    after.tags[tag.code].dtype, after.tags[tag.code].count, str(after.tags[tag.code].value),
                )  # fmt: skip
        if 282 in before.tags:
            for code in (282, 283, 296):
                assert before.tags[code].value == after.tags[code].value
        assert (one.is_imagej, one.is_ome) == (other.is_imagej, other.is_ome)
        if before.photometric == 3:
            np.testing.assert_array_equal(before.colormap, after.colormap)


def test_a_folder_of_instrument_files_becomes_a_folder_of_such_files(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    names = {kind: f"{at}.tif" for at, kind in enumerate(KINDS) if KINDS[kind].get("dtype", "uint8") == "uint8"}
    shown = {name: written(tmp_path / "in" / name, kind) for kind, name in names.items()}
    semnr.denoise(tmp_path / "in", tmp_path / "out", model="gaussian")
    for name, image in shown.items():
        place = tmp_path / "out" / "image" / name
        np.testing.assert_array_equal(decode(place), semnr.denoise(image, model="gaussian"))
        assert pixel_size_nm(place) == pixel_size_nm(tmp_path / "in" / name)
        with tifffile.TiffFile(tmp_path / "in" / name) as one, tifffile.TiffFile(place) as other:
            assert one.pages[0].photometric == other.pages[0].photometric
            assert {t.code for t in one.pages[0].tags} - STRUCTURE <= {t.code for t in other.pages[0].tags}


def test_a_stack_of_pages_stays_a_stack(tmp_path) -> None:
    pages = np.stack([pixels(seed=seed) for seed in range(3)])
    tifffile.imwrite(tmp_path / "in.tif", pages, imagej=True, metadata={"axes": "TYX"})
    semnr.denoise(tmp_path / "in.tif", tmp_path / "out.tif", model="gaussian")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), semnr.denoise(pages, model="gaussian"))
    assert [key.tile for key in open_tiles(tmp_path / "out.tif")] == [
        key.tile for key in open_tiles(tmp_path / "in.tif")
    ]


def test_what_the_whole_is_made_of_is_not_held_whole(tmp_path) -> None:
    side = 4096
    tifffile.imwrite(tmp_path / "in.tif", np.zeros((side, side), np.uint16), photometric="minisblack")
    options = {"model": "gaussian", "tile": 256, "workers": 1, "noise": "run"}
    semnr.denoise(tmp_path / "in.tif", tmp_path / "warm.tif", **options)
    tracemalloc.start()
    try:
        semnr.denoise(tmp_path / "in.tif", tmp_path / "out.tif", **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < side * side * 2 / 3


def test_png_in_png_out_and_other_images_with_their_pixel_size(tmp_path) -> None:
    image = pixels()
    Image.fromarray(image).save(tmp_path / "in.png")
    semnr.denoise(tmp_path / "in.png", tmp_path / "out.png", model="gaussian", tile=64)
    np.testing.assert_array_equal(decode(tmp_path / "out.png"), semnr.denoise(image, model="gaussian"))
    semnr.denoise(tmp_path / "in.png", tmp_path / "out.png", model="gaussian", overwrite=True)


def test_a_damaged_part_leaves_no_file_that_looks_whole(tmp_path) -> None:
    image = pixels(256, 256)
    tifffile.imwrite(tmp_path / "in.tif", image, compression="zlib", tile=(64, 64), photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "in.tif") as file:
        offset = file.pages[0].dataoffsets[5]
    data = bytearray((tmp_path / "in.tif").read_bytes())
    data[offset : offset + 20] = b"\xff" * 20
    (tmp_path / "in.tif").write_bytes(data)
    done = semnr.denoise(tmp_path / "in.tif", tmp_path / "out.tif", model="gaussian", tile=64)
    assert done.exit_code == 3
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


def test_files_of_others_and_what_is_no_image_are_refused(tmp_path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "in.png")
    (tmp_path / "mine.tif").write_bytes(b"my data")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="accepted: another path"):
            semnr.denoise(tmp_path / "in.png", tmp_path / "mine.tif", model="gaussian", overwrite=overwrite)
    assert (tmp_path / "mine.tif").read_bytes() == b"my data"
    (tmp_path / "lot").mkdir()
    Image.fromarray(pixels()).save(tmp_path / "lot" / "a.png")
    with pytest.raises(ValueError, match="images of their own; accepted: a folder"):
        semnr.denoise(tmp_path / "lot", tmp_path / "out.tif", model="gaussian")
    with pytest.raises(ValueError, match="whole or not at all"):
        semnr.denoise(tmp_path / "in.png", tmp_path / "out.tif", model="gaussian", resume=True)


def test_psnr_of_a_mosaic_is_that_of_the_whole(tmp_path) -> None:
    clean, dirty = pixels(512, 1024), pixels(512, 1024, seed=0).astype(int)
    dirty = np.clip(dirty + np.random.default_rng(1).integers(-20, 20, dirty.shape), 0, 255).astype(np.uint8)
    for name, image in (("clean", clean), ("dirty", dirty)):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="minisblack")
    options = {"metrics": ("psnr",), "tests": False}
    tiles = semnr.score(tmp_path / "dirty.tif", reference=tmp_path / "clean.tif", out=tmp_path / "tiles", **options)
    assert tiles.counts == {"tiles": 2, "ok": 2}
    assert tiles.summary["psnr_of_mean_mse"] == pytest.approx(semnr.psnr(dirty, clean), abs=1e-9)
    whole = (open_tiles(tmp_path / f"{name}.tif", tile=None) for name in ("dirty", "clean"))
    run = semnr.score(next(whole), reference=next(whole), out=tmp_path / "whole", **options)
    assert run.table().to_pylist()[0]["psnr"] == pytest.approx(semnr.psnr(dirty, clean), abs=1e-9)
