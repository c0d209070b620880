"""Tiles in and out: pixels come back bit for bit, and what is wrong is said, not scored."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import cases
import semnr
from semnr import TileError, open_tiles
from semnr.tiles import TileKey, create_tiles, decode, pixel_size_nm

DTYPES = ("uint8", "uint16", "float32")


def stack(count: int = 5, height: int = 24, width: int = 40, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.standard_normal((count, height, width)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (count, height, width), dtype=dtype, endpoint=True)


def mosaic(height: int = 150, width: int = 210, dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    return stack(1, height, width, dtype, seed)[0]


def assert_mosaic(source, whole: np.ndarray, tile: int) -> None:
    """Every tile is the window that its meta says, and together they are the whole."""
    seen = np.zeros(whole.shape, int)
    for key in source:
        top, left = key.meta["row_px"], key.meta["col_px"]
        pixels = source.read(key)
        window = whole[top : top + tile, left : left + tile]
        assert pixels.dtype == whole.dtype.newbyteorder("=")
        np.testing.assert_array_equal(pixels, window)
        assert source.find(key.tile) == key
        seen[top : top + tile, left : left + tile] += 1
    assert (seen == 1).all()
    assert len(source) == len(list(source))


def assert_stack(source, whole: np.ndarray) -> None:
    keys = list(source)
    assert len(source) == len(keys) == len(whole)
    for index, key in enumerate(keys):
        assert key.index == index
        pixels = source.read(key)
        assert pixels.dtype == whole.dtype
        np.testing.assert_array_equal(pixels, whole[index])
        assert source.find(key.tile) == key


def write_plan(folder: Path, text: str, images: tuple[str, ...] = ("a.png", "b.png")) -> Path:
    for index, name in enumerate(images):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stack(1, seed=index)[0]).save(folder / name)
    (folder / "plan.csv").write_text(text)
    return folder / "plan.csv"


# --- arrays, .npy, iterables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_mosaic_array_is_cut_and_edge_tiles_are_smaller(dtype):
    whole = mosaic(dtype=dtype)
    source = open_tiles(whole, tile=64)
    assert [key.tile for key in source][:5] == [
        "r0000_c0000",
        "r0000_c0001",
        "r0000_c0002",
        "r0000_c0003",
        "r0001_c0000",
    ]
    assert_mosaic(source, whole, 64)
    assert source.read(source.find("r0002_c0003")).shape == (150 - 128, 210 - 192)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stack_array_holds_one_tile_an_index(dtype):
    whole = stack(dtype=dtype)
    source = open_tiles(whole)
    assert [key.tile for key in source][-1] == "t000004"
    assert_stack(source, whole)


@pytest.mark.parametrize(
    ("side", "tile", "sides"),
    [
        (512, 512, [512]),
        (513, 512, [513]),
        (522, 512, [522]),
        (607, 512, [607]),
        (608, 512, [512, 96]),
        (1032, 512, [512, 520]),
        (500, 512, [500]),
        (5, 512, [5]),
        (266, 256, [266]),
        (267, 256, [256, 11]),
        (193, 192, [193]),
        (192, 191, [191, 1]),
        (130, 64, [64, 64, 2]),  # small tiles are cut as they are asked for
    ],
)
def test_a_rest_that_no_metric_takes_belongs_to_its_neighbour(side, tile, sides):
    for whole in (mosaic(side, 20), mosaic(20, side).T):
        source = open_tiles(whole, tile=tile)
        keys = list(source)
        assert [source.read(key).shape[0] for key in keys] == sides
        np.testing.assert_array_equal(np.concatenate([source.read(key) for key in keys]), whole)
        assert [source.find(key.tile) for key in keys] == keys
    across = open_tiles(mosaic(20, side), tile=tile)
    assert [across.read(key).shape[1] for key in across] == sides
    assert [key.meta["col_px"] for key in across] == [tile * i for i in range(len(sides))]


def test_what_is_left_at_the_edge_is_wide_enough_for_every_metric(tmp_path):
    whole = mosaic(520, 608, "uint8")
    tifffile.imwrite(tmp_path / "x.tif", whole)
    tifffile.imwrite(tmp_path / "y.tif", whole // 2)
    metrics = ("psnr", "ssim", "fsim", "cnr")
    run = semnr.score(tmp_path / "x.tif", reference=tmp_path / "y.tif", out=tmp_path / "run", metrics=metrics)
    assert run.counts == {"tiles": 2, "ok": 2}
    assert run.summary["fsim"]["n"] == 2


def test_tile_none_leaves_a_mosaic_whole():
    whole = mosaic()
    source = open_tiles(whole, tile=None)
    assert len(source) == 1
    np.testing.assert_array_equal(source.read(next(iter(source))), whole)


@pytest.mark.parametrize("tile", [0, -3, 2.5, True, "64"])
def test_a_bad_tile_side_is_refused(tile):
    with pytest.raises(ValueError, match="tile is"):
        open_tiles(mosaic(), tile=tile)


def test_a_tensor_is_read_like_its_array():
    torch = pytest.importorskip("torch")
    whole = stack(dtype="float32")
    assert_stack(open_tiles(torch.from_numpy(whole)), whole)
    with pytest.raises(TypeError, match="accepted"):
        open_tiles(torch.zeros(2, 8, 8, dtype=torch.bfloat16))


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "uint32", "int64", "complex64"])
def test_arrays_that_hold_no_image_are_refused_with_what_is_accepted(dtype):
    with pytest.raises(TypeError, match=rf"{dtype}.*accepted.*uint8, uint16"):
        open_tiles(np.zeros((2, 8, 8), dtype))


@pytest.mark.parametrize("shape", [(8,), (0, 8, 8), (2, 2, 8, 8), (1, 1, 1, 8, 8)])
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="accepted"):
        open_tiles(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_npy_file_round_trips(tmp_path, dtype):
    np.save(tmp_path / "stack.npy", stack(dtype=dtype))
    assert_stack(open_tiles(tmp_path / "stack.npy"), stack(dtype=dtype))
    np.save(tmp_path / "mosaic.npy", mosaic(dtype=dtype))
    assert_mosaic(open_tiles(str(tmp_path / "mosaic.npy"), tile=64), mosaic(dtype=dtype), 64)


def test_a_big_endian_npy_file_comes_in_native_order(tmp_path):
    whole = mosaic()
    np.save(tmp_path / "big.npy", whole.astype(">u2"))
    assert_mosaic(open_tiles(tmp_path / "big.npy", tile=64), whole, 64)


def test_a_truncated_npy_file_and_one_of_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", stack())
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"a\.npy"):
        open_tiles(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"b\.npy"):
        open_tiles(tmp_path / "b.npy")


def test_opening_a_huge_sparse_npy_file_reads_only_what_is_asked(tmp_path):
    path = tmp_path / "huge.npy"
    huge = np.lib.format.open_memmap(path, "w+", np.uint8, (60_000, 60_000))  # 3.6 GB, a few kB on disk
    huge[59_999, 59_999] = 7
    huge.flush()
    del huge
    tracemalloc.start()
    source = open_tiles(path)
    key = source.find("r0117_c0117")
    pixels = source.read(key)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels[-1, -1] == 7
    assert pixels.sum() == 7
    assert peak < 8 << 20


def test_a_list_has_a_length_can_be_searched_and_reports_repeated_ids():
    a, b = stack(2)
    source = open_tiles([("site/1", a, {"die_x": 3}), ("site/2", b), ("site/1", b)])
    assert len(source) == 2
    assert source.find("site/1").meta == {"die_x": 3}
    np.testing.assert_array_equal(source.read(source.find("site/1")), a)
    assert [(p.tile, p.status) for p in source.problems] == [("site/1", "duplicate")]


def test_a_stream_is_read_once_has_no_length_and_keeps_no_pixels():
    made = []

    def camera():
        for index in range(200):
            made.append(index)
            yield f"shot{index}", np.full((256, 256), index, np.uint8)

    source = open_tiles(camera())
    assert not made
    with pytest.raises(TypeError, match="length"):
        len(source)
    tracemalloc.start()
    for index, key in enumerate(source):
        assert (key.tile, key.index) == (f"shot{index}", index)
        assert (source.read(key) == index).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20  # all of them are 13 MB
    assert len(made) == 200
    with pytest.raises(ValueError, match="once"):
        iter(source)
    with pytest.raises(TypeError, match="searched"):
        source.find("shot1")


def test_a_bad_item_of_a_stream_is_one_bad_tile():
    source = open_tiles(iter([np.zeros((4, 4), np.uint8), "no image", np.zeros((4, 4), np.int32)]))
    keys = list(source)
    source.read(keys[0])
    for key, reason in ((keys[1], "it is str"), (keys[2], "int32")):
        with pytest.raises(TileError, match=reason) as caught:
            source.read(key)
        assert caught.value.tile == key.tile
        assert caught.value.status == "unreadable"


@pytest.mark.parametrize("source", [None, 3, {"a": 1}, b"bytes"])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(TypeError, match="accepted"):
        open_tiles(source)


def test_an_open_source_is_passed_through_and_unknown_roles_are_refused():
    source = open_tiles(stack())
    assert open_tiles(source) is source
    with pytest.raises(ValueError, match="'noisy'"):
        source.read(next(iter(source)), "noisy")


# --- TIFF ------------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "one strip": {"rowsperstrip": 1000},
    "strips": {"rowsperstrip": 7},
    "deflated strips": {"rowsperstrip": 7, "compression": "zlib"},
    "one deflated strip": {"rowsperstrip": 1000, "compression": "zlib"},
    "tiled": {"tile": (32, 48)},
    "deflated tiles": {"tile": (32, 48), "compression": "zlib"},
    "predictor": {"tile": (64, 64), "compression": "zlib", "predictor": True},
    "bigtiff": {"tile": (32, 48), "bigtiff": True},
    "big endian": {"rowsperstrip": 7, "byteorder": ">"},
    "big endian tiles": {"tile": (32, 48), "byteorder": ">", "compression": "zlib"},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tiff_mosaic_is_read_window_by_window(tmp_path, layout, dtype):
    options = dict(LAYOUTS[layout])
    if dtype == "float32":
        options.pop("predictor", None)  # the floating-point predictor needs imagecodecs
    whole = mosaic(dtype=dtype)
    tifffile.imwrite(tmp_path / "m.tif", whole, photometric="minisblack", **options)
    assert_mosaic(open_tiles(tmp_path / "m.tif", tile=64), whole, 64)
    np.testing.assert_array_equal(decode(tmp_path / "m.tif"), whole)


def test_reading_a_window_of_a_tiled_tiff_touches_only_its_segments(tmp_path):
    whole = mosaic(256, 256)
    tifffile.imwrite(tmp_path / "m.tif", whole, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        page = file.pages[0]
        spoilt = [(page.dataoffsets[i], page.databytecounts[i]) for i in range(16) if i != 5]
    with (tmp_path / "m.tif").open("r+b") as file:
        for offset, count in spoilt:
            file.seek(offset)
            file.write(b"\xff" * count)
    source = open_tiles(tmp_path / "m.tif", tile=64)
    np.testing.assert_array_equal(source.read(source.find("r0001_c0001")), whole[64:128, 64:128])
    with pytest.raises(TileError, match=r"m\.tif"):
        source.read(source.find("r0000_c0000"))


def test_opening_a_huge_tiff_reads_only_what_is_asked(tmp_path):
    path = tmp_path / "huge.tif"
    huge = tifffile.memmap(path, shape=(50_000, 60_000), dtype=np.uint8)  # 3 GB, a few kB on disk
    huge[-1, -1] = 9
    huge.flush()
    del huge
    tracemalloc.start()
    source = open_tiles(path)
    pixels = source.read(source.find("r0097_c0117"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels[-1, -1] == 9
    assert peak < 16 << 20


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_page_of_a_multipage_tiff_is_a_tile(tmp_path, dtype):
    whole = stack(dtype=dtype)
    tifffile.imwrite(tmp_path / "s.tif", whole, photometric="minisblack", compression="zlib")
    source = open_tiles(tmp_path / "s.tif", tile=16)
    assert_stack(source, whole)
    assert [key.meta["page"] for key in source] == [0, 1, 2, 3, 4]


def test_tiled_pages_larger_than_the_tile_are_each_cut(tmp_path):
    whole = stack(2, 100, 130)
    tifffile.imwrite(tmp_path / "s.tif", whole, photometric="minisblack", tile=(32, 32))
    source = open_tiles(tmp_path / "s.tif", tile=64)
    assert len(source) == 2 * 2 * 3
    key = source.find("t000001_r0001_c0002")
    np.testing.assert_array_equal(source.read(key), whole[1, 64:, 128:])


def test_overviews_of_a_tiff_are_no_tiles(tmp_path):
    whole = mosaic(128, 128)
    with tifffile.TiffWriter(tmp_path / "p.tif") as file:
        file.write(whole, tile=(64, 64))
        file.write(whole[::2, ::2], tile=(64, 64), subfiletype=1)
    assert_mosaic(open_tiles(tmp_path / "p.tif", tile=64), whole, 64)


def test_ome_tiff_axes_and_pixel_size_are_read(tmp_path):
    whole = stack(6, 20, 30, "uint16").reshape(2, 3, 20, 30)
    metadata = {"axes": "CZYX", "PhysicalSizeX": 0.0025, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite(tmp_path / "o.ome.tif", whole, photometric="minisblack", metadata=metadata)
    source = open_tiles(tmp_path / "o.ome.tif")
    assert source.pixel_nm == pytest.approx(2.5)
    assert len(source) == 6
    for key in source:
        np.testing.assert_array_equal(source.read(key), whole[key.meta["c"], key.meta["z"]])


def test_an_imagej_stack_is_read(tmp_path):
    whole = stack(4, dtype="uint16")
    tifffile.imwrite(tmp_path / "ij.tif", whole, imagej=True)
    assert_stack(open_tiles(tmp_path / "ij.tif"), whole)


def test_a_truncated_tiff_names_the_file_and_the_cause(tmp_path):
    for name, options in (("plain", {}), ("deflated", {"compression": "zlib", "rowsperstrip": 8})):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, mosaic(), **options)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * 0.6)])
        with pytest.raises(TileError, match=rf"{name}\.tif.*truncated") as caught:
            decode(path, "t7")
        assert (caught.value.tile, caught.value.status) == ("t7", "unreadable")


def test_a_file_that_is_no_tiff_is_refused(tmp_path):
    (tmp_path / "x.tif").write_bytes(b"not a TIFF at all")
    with pytest.raises(ValueError, match=r"x\.tif"):
        open_tiles(tmp_path / "x.tif")
    with pytest.raises(TileError, match=r"x\.tif"):
        decode(tmp_path / "x.tif")


def test_a_tiff_that_claims_absurd_sizes_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[tag].overwrite(60_000)
    tracemalloc.start()
    with pytest.raises(TileError, match="limit"):
        decode(path)
    source = open_tiles(path)
    with pytest.raises(TileError, match="claims"):
        source.read(next(iter(source)))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


# --- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_eight_bit_images_decode_bit_exact(tmp_path, suffix):
    image = mosaic(dtype="uint8")
    Image.fromarray(image).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(decode(tmp_path / f"a.{suffix}"), image)


def test_sixteen_bit_png_decodes_bit_exact(tmp_path):
    image = mosaic(dtype="uint16")
    Image.fromarray(image).save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png")
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, image)


def test_rgb_with_equal_channels_is_one_channel_and_colour_is_three(tmp_path):
    grey = mosaic(20, 30, "uint8")
    colour = stack(3, 20, 30)
    for suffix in ("png", "tif"):
        Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / f"grey.{suffix}")
        Image.fromarray(np.ascontiguousarray(np.moveaxis(colour, 0, -1))).save(tmp_path / f"colour.{suffix}")
        np.testing.assert_array_equal(decode(tmp_path / f"grey.{suffix}"), grey)
        np.testing.assert_array_equal(decode(tmp_path / f"colour.{suffix}"), colour)


def test_planar_rgb_tiff_is_read(tmp_path):
    colour = stack(3, 40, 30)
    for name, options in (("run", {}), ("deflated", {"compression": "zlib", "rowsperstrip": 16})):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, colour, photometric="rgb", planarconfig="separate", **options)
        np.testing.assert_array_equal(decode(path), colour)


def test_palettes_are_applied_grey_ramps_stay_grey(tmp_path):
    index = mosaic(20, 30, "uint8")
    ramp = np.arange(256, dtype=np.uint16)
    for name, table in (("v257", ramp * 257), ("v256", ramp * 256)):  # both are found in microscopes' files
        tifffile.imwrite(tmp_path / f"{name}.tif", index, photometric="palette", colormap=np.stack([table] * 3))
        np.testing.assert_array_equal(decode(tmp_path / f"{name}.tif"), index)
    falling = np.stack([(255 - ramp) * 257] * 3)
    tifffile.imwrite(tmp_path / "falling.tif", index, photometric="palette", colormap=falling)
    np.testing.assert_array_equal(decode(tmp_path / "falling.tif"), 255 - index)
    colour = np.stack([ramp * 257, (255 - ramp) * 257, ramp * 0]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "colour.tif", index, photometric="palette", colormap=colour)
    np.testing.assert_array_equal(decode(tmp_path / "colour.tif"), np.stack([index, 255 - index, 0 * index]))
    image = Image.fromarray(index).convert("P")
    image.putpalette([v for i in range(256) for v in (255 - i,) * 3])
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(decode(tmp_path / "p.png"), 255 - index)


def test_white_is_zero_is_inverted(tmp_path):
    image = mosaic(20, 30, "uint8")
    tifffile.imwrite(tmp_path / "w.tif", image, photometric="miniswhite")
    np.testing.assert_array_equal(decode(tmp_path / "w.tif"), 255 - image)


def test_lzw_tiff_is_read_without_optional_codecs(tmp_path):
    image = mosaic(20, 30, "uint8")
    Image.fromarray(image).save(tmp_path / "l.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(decode(tmp_path / "l.tif"), image)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "uint32", "complex64"])
def test_tiffs_of_other_samples_are_refused_with_what_is_accepted(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "x.tif", np.ones((9, 9), dtype))
    with pytest.raises(TileError, match=r"x\.tif.*accepted"):
        decode(tmp_path / "x.tif")


def test_one_bit_transparent_and_16_bit_colour_pngs_are_refused(tmp_path):
    Image.fromarray(np.eye(9, dtype=bool)).save(tmp_path / "bit.png")
    Image.fromarray(np.full((9, 9, 4), 100, np.uint8)).save(tmp_path / "alpha.png")
    for name in ("bit", "alpha"):
        with pytest.raises(TileError, match=rf"{name}\.png.*accepted"):
            decode(tmp_path / f"{name}.png")
    opaque = np.full((9, 9, 4), 255, np.uint8)
    opaque[..., :3] = 7
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    assert (decode(tmp_path / "opaque.png") == 7).all()
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(24)) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    with pytest.raises(TileError, match=r"deep\.png.*16-bit"):  # Pillow would drop the low bytes in silence
        decode(tmp_path / "deep.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "npy"])
def test_truncated_images_name_the_file_and_the_cause(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    np.save(path, mosaic()) if suffix == "npy" else Image.fromarray(mosaic(dtype="uint8")).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(TileError, match=rf"cut\.{suffix}") as caught:
        decode(path, "t3")
    assert (caught.value.tile, caught.value.status) == ("t3", "unreadable")


def test_a_missing_file_is_missing_and_an_unknown_suffix_is_named(tmp_path):
    with pytest.raises(TileError, match=r"gone\.png") as caught:
        decode(tmp_path / "gone.png")
    assert caught.value.status == "missing"
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(TileError, match=r"\.gif.*accepted"):
        decode(tmp_path / "a.gif")


def test_the_decompression_bomb_guard_holds(tmp_path, monkeypatch):
    Image.fromarray(mosaic(dtype="uint8")).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(TileError, match=r"big\.png.*DecompressionBomb"):
        decode(tmp_path / "big.png")


def test_a_single_png_is_cut_like_a_mosaic(tmp_path):
    whole = mosaic(dtype="uint8")
    Image.fromarray(whole).save(tmp_path / "m.png")
    assert_mosaic(open_tiles(tmp_path / "m.png", tile=64), whole, 64)


# --- Zarr ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_zarr_array_is_cut_or_a_stack(tmp_path, dtype, zarr_format):
    flat, deep = mosaic(dtype=dtype), stack(dtype=dtype)
    for name, data in (("flat", flat), ("deep", deep)):
        zarr.create_array(str(tmp_path / f"{name}.zarr"), data=data, chunks=(50,) * data.ndim, zarr_format=zarr_format)
    assert_mosaic(open_tiles(tmp_path / "flat.zarr", tile=64), flat, 64)
    assert_stack(open_tiles(tmp_path / "deep.zarr"), deep)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_level_0_is_cut_and_its_pixel_size_read(tmp_path, version):
    whole = stack(6, 100, 70, "uint16").reshape(2, 3, 100, 70)
    group = zarr.open_group(str(tmp_path / "o.zarr"), mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", data=whole, chunks=(1, 1, 32, 32))
    group.create_array("1", data=whole[..., ::2, ::2], chunks=(1, 1, 32, 32))
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [1, 1, 0.004, 0.004]}]
    levels = [{"path": "0", "coordinateTransformations": scale}, {"path": "1"}]
    multiscales = [{"version": version, "axes": [{"name": "c", "type": "channel"}, *space], "datasets": levels}]
    group.attrs.update({"multiscales": multiscales} if version == "0.4" else {"ome": {"multiscales": multiscales}})
    source = open_tiles(tmp_path / "o.zarr", tile=64)
    assert source.pixel_nm == pytest.approx(4.0)
    assert len(source) == 6 * 2 * 2
    for key in source:
        top, left = key.meta["row_px"], key.meta["col_px"]
        window = whole[key.meta["c"], key.meta["z"], top : top + 64, left : left + 64]
        np.testing.assert_array_equal(source.read(key), window)
        assert source.find(key.tile) == key


def test_a_huge_zarr_is_not_read_on_opening_and_only_the_needed_chunks_later(tmp_path):
    array = zarr.create_array(str(tmp_path / "h.zarr"), shape=(100_000, 100_000), chunks=(512, 512), dtype="uint8")
    array[512:1024, 512:1024] = 3
    array[:512, :512] = 5
    (tmp_path / "h.zarr" / "c" / "0" / "0").write_bytes(b"spoilt")
    tracemalloc.start()
    source = open_tiles(tmp_path / "h.zarr")
    assert (source.read(source.find("r0001_c0001")) == 3).all()
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    with pytest.raises(TileError, match=r"h\.zarr"):
        source.read(source.find("r0000_c0000"))


def test_roles_of_a_tile_stack_come_from_its_arrays(tmp_path):
    noisy, clean = stack(seed=1), stack(seed=2)
    with create_tiles(tmp_path / "w.zarr", roles=("noisy", "reference"), pixel_nm=2.0, data_range=255) as out:
        for index in range(5):
            for role, data in (("noisy", noisy), ("reference", clean)):
                out.write(TileKey(f"t{index:06d}", index, meta={"die_x": index - 2, "x_um": 0.5}), data[index], role)
    source = open_tiles(tmp_path / "w.zarr")
    assert set(source.roles) == {"image", "noisy", "reference"}
    assert (source.pixel_nm, source.data_range) == (2.0, 255)
    assert_stack(source, noisy)
    key = source.find("t000003")
    assert key.meta == {"die_x": 1, "x_um": 0.5}
    np.testing.assert_array_equal(source.read(key, "reference"), clean[3])
    assert_stack(open_tiles(tmp_path / "w.zarr" / "reference"), clean)
    assert_stack(open_tiles(tmp_path / "w.zarr", array="reference"), clean)
    np.testing.assert_array_equal(open_tiles(str(tmp_path / "w.zarr/reference")).read(key, "noisy"), noisy[3])
    with pytest.raises(ValueError, match=r"'absent'.*noisy"):
        open_tiles(tmp_path / "w.zarr", array="absent")
    raw = zarr.open(str(tmp_path / "w.zarr"), mode="r")
    assert raw["noisy"].chunks == (1, 24, 40)
    assert raw["columns/die_x"][:].tolist() == [-2, -1, 0, 1, 2]
    assert raw.attrs["semnr"]["format"] == "tile-stack"


def test_a_group_of_other_arrays_asks_which_one(tmp_path):
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
    for name in ("first", "second"):
        group.create_array(name, data=stack())
    with pytest.raises(ValueError, match=r"'first', 'second'.*array=NAME"):
        open_tiles(tmp_path / "g.zarr")
    assert_stack(open_tiles(tmp_path / "g.zarr", array="second"), stack())


def test_zarr_of_other_dtypes_and_missing_zarr_are_refused(tmp_path):
    zarr.create_array(str(tmp_path / "i.zarr"), data=np.zeros((4, 8, 8), np.int32))
    with pytest.raises(TypeError, match=r"int32.*accepted"):
        open_tiles(tmp_path / "i.zarr")
    with pytest.raises(FileNotFoundError, match=r"none\.zarr"):
        open_tiles(tmp_path / "none.zarr")


def spoilt_zarr(folder, edit) -> Path:
    """An OME-Zarr of one level, its metadata as `edit` leaves them."""
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "yx"]
    scale = [{"type": "scale", "scale": [2.5, 2.5]}]
    meta = {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}}
    meta["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"] = scale
    group = zarr.open_group(folder / "x.zarr", mode="w")
    group.create_array("0", shape=(8, 8), chunks=(8, 8), dtype="u1")[:] = 7
    edit(meta["ome"]["multiscales"][0])
    group.attrs.update(meta)
    return folder / "x.zarr"


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update(axes=5),
        lambda m: m.update(axes=[3, 4]),
        lambda m: m.update(datasets={}),
        lambda m: m["datasets"][0].update(path="1"),
        lambda m: m["datasets"][0].update(path=""),
        lambda m: m["datasets"][0].update(coordinateTransformations=7),
        lambda m: m["datasets"][0].update(coordinateTransformations=[{"type": "scale", "scale": ["a", "b"]}]),
    ],
)
def test_damaged_ome_zarr_metadata_are_refused_by_the_name_of_the_zarr(tmp_path, edit):
    with pytest.raises(ValueError, match=r"x\.zarr"):
        open_tiles(spoilt_zarr(tmp_path, edit))


@pytest.mark.parametrize("text", ["5", "{", "[]", '{"zarr_format": 3}', '{"zarr_format": 3, "node_type": "array"}'])
def test_a_damaged_zarr_json_is_refused_by_its_place(tmp_path, text):
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "zarr.json").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=r"x\.zarr"):
        open_tiles(tmp_path / "x.zarr")


def test_a_negative_or_endless_ome_scale_is_no_pixel_size(tmp_path):
    for scale in (-3.0, 0.0, "nan"):

        def edit(multiscale, scale=scale):
            multiscale["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [scale, scale]}]

        if scale == "nan":
            with pytest.raises(ValueError, match=r"x\.zarr"):
                open_tiles(spoilt_zarr(tmp_path, edit))
        else:
            assert open_tiles(spoilt_zarr(tmp_path, edit)).pixel_nm is None


def test_plates_and_collections_of_ome_images_say_which_one_to_open(tmp_path):
    zarr.open_group(tmp_path / "plate.zarr", mode="w").attrs["ome"] = {"plate": {"wells": [{"path": "A/1"}]}}
    with pytest.raises(ValueError, match=r"plate of OME images.*plate\.zarr/A/1/0"):
        open_tiles(tmp_path / "plate.zarr")
    zarr.open_group(tmp_path / "many.zarr", mode="w").attrs["bioformats2raw.layout"] = 3
    with pytest.raises(ValueError, match=r"many\.zarr/0"):
        open_tiles(tmp_path / "many.zarr")


def test_a_tile_whose_memory_exceeds_its_share_of_the_budget_is_refused_unread(tmp_path):
    """A chunk of 100,000 x 100,000 pixels is a few bytes of metadata."""
    from semnr.tiles.limits import at_most

    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    group.create_array("image", shape=(1, 100_000, 100_000), chunks=(1, 100_000, 100_000), dtype="u1")
    np.save(tmp_path / "a.npy", stack()[0])
    tifffile.imwrite(tmp_path / "a.tif", stack()[0], compression="zlib")
    Image.fromarray(stack()[0]).save(tmp_path / "a.png")
    source = open_tiles(tmp_path / "x.zarr")
    with at_most(1 << 20), pytest.raises(TileError, match=r"10000000000 bytes.*memory_budget"):
        source.read(next(iter(source)))
    for name in ("a.npy", "a.tif", "a.png"):
        with at_most(stack()[0].nbytes - 1), pytest.raises(TileError, match=rf"{name}.*memory_budget"):
            decode(tmp_path / name)
        with at_most(stack()[0].nbytes):
            decode(tmp_path / name)


def test_zarr_by_url_is_read():
    pytest.importorskip("fsspec")
    whole = stack()
    zarr.create_array("memory://semnr-test.zarr", data=whole, chunks=(1, 24, 40))
    assert_stack(open_tiles("memory://semnr-test.zarr"), whole)


# --- folders and plans -----------------------------------------------------------------------------------------------


def test_a_folder_is_sorted_recursive_and_named_by_relative_paths(tmp_path):
    images = stack(4)
    for name, image in zip(("b.png", "sub/a.bmp", "sub/deep/c.tif", "a.npy"), images, strict=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, image) if name.endswith("npy") else Image.fromarray(image).save(path)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    source = open_tiles(tmp_path)
    assert [key.tile for key in source] == ["a", "b", "sub/a", "sub/deep/c"]
    assert [key.path for key in source] == ["a.npy", "b.png", "sub/a.bmp", "sub/deep/c.tif"]
    assert_stack(source, images[[3, 0, 1, 2]])


def test_one_bad_file_of_a_folder_is_one_bad_tile_and_equal_ids_are_a_problem(tmp_path):
    Image.fromarray(stack()[0]).save(tmp_path / "a.png")
    Image.fromarray(stack()[1]).save(tmp_path / "a.bmp")
    (tmp_path / "b.png").write_bytes(b"\x89PNG broken")
    source = open_tiles(tmp_path)
    assert [(p.tile, p.status) for p in source.problems] == [("a", "duplicate")]
    np.testing.assert_array_equal(source.read(source.find("a")), stack()[1])
    with pytest.raises(TileError, match=r"b\.png"):
        source.read(source.find("b"))


def test_a_folder_of_role_folders_has_those_roles(tmp_path):
    for role, seed in (("noisy", 1), ("reference", 2)):
        (tmp_path / role).mkdir()
        for index in range(3 if role == "noisy" else 2):
            Image.fromarray(stack(seed=seed)[index]).save(tmp_path / role / f"s{index}.png")
    source = open_tiles(tmp_path)
    assert set(source.roles) == {"image", "noisy", "reference"}
    assert [key.tile for key in source] == ["s0", "s1", "s2"]
    np.testing.assert_array_equal(source.read(source.find("s1"), "reference"), stack(seed=2)[1])
    with pytest.raises(TileError, match="reference") as caught:
        source.read(source.find("s2"), "reference")
    assert caught.value.status == "missing"


def test_an_empty_folder_and_a_missing_path_say_what_is_accepted(tmp_path):
    with pytest.raises(ValueError, match="holds no images"):
        open_tiles(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_tiles(tmp_path / "absent")


def test_a_plan_gives_roles_columns_and_ids(tmp_path):
    text = "path,noisy,lot_id,die_x,x_um,comment,tile\na.png,b.png,007,-3,1.5,fine,one\nb.png,,008,4,,,\n"
    source = open_tiles(write_plan(tmp_path, text))
    assert source.roles == ("image", "noisy")
    first, second = source
    assert (first.tile, first.path, second.tile) == ("one", "a.png", "b")
    assert first.meta == {"lot_id": "007", "die_x": -3, "x_um": 1.5, "comment": "fine"}
    assert second.meta == {"lot_id": "008", "die_x": 4, "x_um": None, "comment": None}
    assert isinstance(first.meta["die_x"], int)
    np.testing.assert_array_equal(source.read(first, "noisy"), stack(1, seed=1)[0])
    np.testing.assert_array_equal(source.read(second), stack(1, seed=1)[0])
    with pytest.raises(TileError, match="row 2 has no noisy"):
        source.read(second, "noisy")
    assert source.find("one") == first
    assert [key.tile for key in open_tiles(tmp_path)] == ["one", "b"]  # a folder with a plan is opened by it


def test_a_parquet_plan_is_read_like_csv(tmp_path):
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)
    import pyarrow.parquet

    write_plan(tmp_path, "path\na.png\n")
    table = pa.table({"path": ["a.png", "b.png"], "die_x": [1, 2], "x_um": [0.5, None], "lot_id": ["7", None]})
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    source = open_tiles(tmp_path / "p.parquet")
    assert [key.meta for key in source] == [
        {"die_x": 1, "x_um": 0.5, "lot_id": "7"},
        {"die_x": 2, "x_um": None, "lot_id": None},
    ]
    np.testing.assert_array_equal(source.read(source.find("b")), stack(1, seed=1)[0])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"bad\.parquet"):
        open_tiles(tmp_path / "bad.parquet")


def test_one_image_with_several_partners_is_a_tile_for_each(tmp_path):
    for name in ("n", "r", "c1", "c2"):
        Image.fromarray(stack(1, dtype="uint8", seed=ord(name[-1]))[0]).save(tmp_path / f"{name}.png")
    text = "path,candidate,reference\nn.png,c1.png,r.png\nn.png,c2.png,r.png\nn.png,c1.png,r.png\nn.png,c1.png,c2.png\n"
    plan = write_plan(tmp_path, text)
    source = open_tiles(plan)
    assert [key.tile for key in source] == ["n", "n#2", "n#3"]
    assert [(p.tile, p.reason) for p in source.problems] == [("n", "row 3 repeats path n.png of row 1")]
    run = semnr.score(plan, out=tmp_path / "run", metrics=("psnr",))
    rows = {row["tile"]: row["psnr"] for row in run.table().to_pylist() if row["status"] == "ok"}
    read = {name: decode(tmp_path / f"{name}.png") for name in ("r", "c1", "c2")}
    pairs = {"n": ("c1", "r"), "n#2": ("c2", "r"), "n#3": ("c1", "c2")}
    assert rows == {tile: pytest.approx(semnr.psnr(read[x], read[y])) for tile, (x, y) in pairs.items()}


def test_many_rows_of_one_file_are_the_tiles_that_they_name(tmp_path):
    Image.fromarray(stack(1, dtype="uint8")[0]).save(tmp_path / "a.png")
    source = open_tiles(write_plan(tmp_path, "path,tile\n" + "".join(f"a.png,t{i}\n" for i in range(1000))))
    assert len(source) == 1000
    assert source.problems == ()


@pytest.mark.parametrize(
    ("column", "said"), [("255,1023,255", "255 in 2 rows, 1023 in 1 rows"), ("255,,255", "nothing in 1")]
)
def test_a_plan_whose_rows_name_several_data_ranges_is_refused_until_one_is_given(tmp_path, column, said):
    for i in range(3):
        Image.fromarray(stack(1, dtype="uint8", seed=i)[0]).save(tmp_path / f"{i}.png")
    rows = "".join(f"{i}.png,{i}.png,{value}\n" for i, value in enumerate(column.split(",")))
    plan = write_plan(tmp_path, "path,reference,data_range\n" + rows)
    with pytest.raises(ValueError, match=f"differs by tile .*{said}.*accepted: one value"):
        semnr.score(plan, out=tmp_path / "run", metrics=("psnr",))
    with pytest.raises(ValueError, match="differs by tile"):
        semnr.denoise(plan, tmp_path / "clean", model="gaussian", sigma=1.0)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "clean").exists()
    run = semnr.score(plan, out=tmp_path / "run", metrics=("psnr",), data_range=1023)
    assert run.info["settings"]["data_range"] == 1023
    assert run.counts["ok"] == 3


def test_sources_of_several_data_ranges_are_refused_and_one_of_either_is_taken(tmp_path):
    images = stack(2, dtype="uint16", seed=1) // 64
    for name, data_range in (("ten", 1023), ("twelve", 4095), ("silent", None)):
        with create_tiles(tmp_path / f"{name}.zarr", data_range=data_range) as out:
            for i, image in enumerate(images):
                out.write(TileKey(f"t{i}", i), image + i)
    with pytest.raises(ValueError, match=r"1023 of ten\.zarr, 4095 of twelve\.zarr"):
        semnr.score(tmp_path / "ten.zarr", reference=tmp_path / "twelve.zarr", out=tmp_path / "a", metrics=("psnr",))
    run = semnr.score(tmp_path / "silent.zarr", reference=tmp_path / "ten.zarr", out=tmp_path / "b", metrics=("psnr",))
    assert run.info["settings"]["data_range"] == 1023


def test_repeated_and_empty_rows_of_a_plan_are_problems_and_the_first_is_kept(tmp_path):
    text = "path,tile\na.png,x\nb.png,x\n./a.png,y\n,z\nb.png,\n./b.png,\n"
    source = open_tiles(write_plan(tmp_path, text))
    assert [(key.tile, key.path) for key in source] == [("x", "a.png"), ("y", "./a.png"), ("b", "b.png")]
    assert [(p.tile, p.status) for p in source.problems] == [("x", "duplicate"), ("z", "missing"), ("b", "duplicate")]
    assert "row 6 repeats path b.png of row 5" in source.problems[2].reason
    assert "row 2 repeats tile x of row 1" in source.problems[0].reason


@pytest.mark.parametrize("text", ["", "path\n", "file,die_x\na.png,1\n", "path,path\na.png,b.png\n"])
def test_a_plan_without_tiles_or_path_column_names_the_columns_accepted(tmp_path, text):
    with pytest.raises(ValueError, match="path, tile, reference, noisy"):
        open_tiles(write_plan(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("path,die_x\na.png,left\n", "die_x holds 'left'"),
        ("path,die_x\na.png\n", "line 2 has 1 cells"),
        ('path\n"a.png\n', "cannot be read"),
    ],
)
def test_a_malformed_plan_is_refused_with_the_place(tmp_path, text, fault):
    with pytest.raises(ValueError, match=fault):
        open_tiles(write_plan(tmp_path, text))


def test_paths_that_leave_the_plans_folder_are_refused_unless_root_holds_them(tmp_path):
    inside = tmp_path / "job"
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    Image.fromarray(stack()[0]).save(outside / "o.png")
    inside.mkdir()
    (inside / "link.png").symlink_to(outside / "o.png")
    (inside / "way").symlink_to(outside, target_is_directory=True)
    named = {
        "absolute": str(outside / "o.png"),
        "..": "../elsewhere/o.png",
        "symbolic link": "link.png",
        "leads out": "way/o.png",
    }
    for reason, path in named.items():
        plan = write_plan(inside, f"path\na.png\n{path}\n")
        with pytest.raises(ValueError, match=r"outside its folder.*root=DIR") as caught:
            open_tiles(plan)
        assert reason in str(caught.value)
        assert "row 2" in str(caught.value)
        source = open_tiles(plan, root=tmp_path)
        np.testing.assert_array_equal(source.read(list(source)[1]), stack()[0])
        with pytest.raises(ValueError, match="outside root"):
            open_tiles(plan, root=tmp_path / "other")
    for path in ("C:\\data\\a.png", "..\\elsewhere\\o.png", "\\\\server\\share\\a.png", "/etc/passwd", "sub/../a.png"):
        with pytest.raises(ValueError, match="outside its folder"):
            open_tiles(write_plan(inside, f"path\n{path}\n"))
    with pytest.raises(ValueError, match="row 1 reference="):
        open_tiles(write_plan(inside, "path,reference\na.png,../elsewhere/o.png\n"))
    many = "path\n" + "".join(f"../{i}.png\n" for i in range(9))
    with pytest.raises(ValueError, match="and 4 more"):
        open_tiles(write_plan(inside, many))


def test_a_plan_with_windows_separators_and_a_byte_order_mark_is_read(tmp_path):
    write_plan(tmp_path, "", ("sub/a.png",))
    (tmp_path / "plan.csv").write_bytes(b"\xef\xbb\xbfpath,die_x\r\nsub\\a.png,1\r\n")
    source = open_tiles(tmp_path / "plan.csv")
    assert [key.tile for key in source] == ["sub/a"]
    np.testing.assert_array_equal(source.read(source.find("sub/a")), stack(1)[0])


def test_a_long_plan_takes_little_memory(tmp_path):
    rows = "".join(f"img/{i}.png,{i % 40},{i / 7:.3f}\n" for i in range(20_000))
    (tmp_path / "plan.csv").write_text("path,die_x,x_um\n" + rows)
    tracemalloc.start()
    source = open_tiles(tmp_path)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(source) == 20_000
    assert kept < 12 << 20  # 600 bytes a row, at most


# --- writers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["x.zarr", "folder"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("known", [True, False])
def test_written_tiles_come_back_bit_exact_with_ids_and_columns(tmp_path, form, dtype, known):
    data = stack(dtype=dtype)
    metas = [{"die_x": i, "x_um": i / 3, "lot_id": f"L{i}", "note": None if i else "é"} for i in range(5)]
    options = {"count": 5, "shape": data.shape[1:], "dtype": dtype} if known else {}
    with create_tiles(tmp_path / form, **options, pixel_nm=1.5, data_range=200.0) as out:
        for index in (3, 0, 4, 1, 2):
            out.write(TileKey(f"die {index}/s", index, meta=metas[index]), data[index])
    source = open_tiles(tmp_path / form)
    assert_stack(source, data)
    assert [key.tile for key in source] == [f"die {i}/s" for i in range(5)]
    for key, meta in zip(source, metas, strict=True):
        assert {name: key.meta[name] for name in meta} == pytest.approx(meta)
    assert (source.pixel_nm, source.data_range) == (1.5, 200.0)
    assert not [p for p in (tmp_path / form).rglob("*") if p.name == ".tiles.jsonl" or p.suffix == ".partial"]


def test_the_tiff_folder_has_the_documented_names_and_plan(tmp_path):
    with create_tiles(tmp_path / "w", roles=("noisy", "reference")) as out:
        for index in range(2):
            for role in ("noisy", "reference"):
                key = TileKey(f"t{index:06d}", index, meta={"die_x": 7, "lot_id": "L", "extra": 1.5})
                out.write(key, stack()[index], role)
    plan = (tmp_path / "w" / "plan.csv").read_text().splitlines()
    assert plan[0] == "path,tile,reference,noisy,lot_id,die_x,extra"
    assert plan[1] == "noisy/t000000.tif,t000000,reference/t000000.tif,noisy/t000000.tif,L,7,1.5"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "w" / "noisy" / "t000001.tif"), stack()[1])


def test_colour_goes_to_a_tiff_folder_and_not_to_a_tile_stack(tmp_path):
    colour = stack(3)
    with create_tiles(tmp_path / "f") as out:
        out.write(TileKey("c", 0), colour)
    np.testing.assert_array_equal(open_tiles(tmp_path / "f").read(TileKey("c", 0)), colour)
    with create_tiles(tmp_path / "z.zarr") as out, pytest.raises(ValueError, match="TIFF folder"):
        out.write(TileKey("c", 0), colour)


def test_edge_tiles_of_a_mosaic_survive_a_tile_stack(tmp_path):
    whole = mosaic()
    source = open_tiles(whole, tile=64)
    with create_tiles(tmp_path / "m.zarr") as out:
        for key in source:
            out.write(key, source.read(key))
    again = open_tiles(tmp_path / "m.zarr")
    assert_mosaic(again, whole, 64)
    assert [key.tile for key in again] == [key.tile for key in source]


def test_a_tile_of_zeros_is_a_tile_and_an_unwritten_one_is_missing(tmp_path):
    with create_tiles(tmp_path / "z.zarr", count=3) as out:
        out.write(TileKey("t000000", 0), np.zeros((8, 8), np.uint8))
        out.write(TileKey("t000002", 2), np.ones((8, 8), np.uint8))
    source = open_tiles(tmp_path / "z.zarr")
    keys = list(source)
    assert not source.read(keys[0]).any()
    with pytest.raises(TileError, match="never written") as caught:
        source.read(keys[1])
    assert caught.value.status == "missing"


def test_a_damaged_chunk_is_unreadable(tmp_path):
    with create_tiles(tmp_path / "z.zarr") as out:
        for index in range(2):
            out.write(TileKey(f"t{index:06d}", index), stack()[index])
    chunk = tmp_path / "z.zarr" / "image" / "c" / "1" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0x55
    chunk.write_bytes(data)
    source = open_tiles(tmp_path / "z.zarr")
    source.read(source.find("t000000"))
    with pytest.raises(TileError, match=r"z\.zarr"):
        source.read(source.find("t000001"))


@pytest.mark.parametrize("form", ["x.zarr", "folder"])
def test_a_writer_that_was_never_closed_leaves_tiles_names_and_coordinates(tmp_path, form):
    data = stack()
    out = create_tiles(tmp_path / form, roles=("noisy", "reference"))
    for index in range(3):
        out.write(TileKey(f"a/{index}", index, meta={"die_x": index}), data[index], "noisy")
    out.write(TileKey("a/0", 0), data[4], "reference")
    with (next((tmp_path / form).rglob(".tiles.jsonl"))).open("ab") as journal:
        journal.write(b'\n{"index": 3, "tile": "a/3", "ro')  # torn by a kill
    source = open_tiles(tmp_path / form)
    assert [(key.tile, key.meta["die_x"]) for key in source] == [("a/0", 0), ("a/1", 1), ("a/2", 2)]
    for index, key in enumerate(source):
        np.testing.assert_array_equal(source.read(key), data[index])
    np.testing.assert_array_equal(source.read(source.find("a/0"), "reference"), data[4])
    with pytest.raises(TileError) as caught:
        source.read(source.find("a/1"), "reference")
    assert caught.value.status == "missing"


_ENDLESS_WRITER = """
import sys, numpy as np
from semnr.tiles import TileKey, create_tiles
out, i = create_tiles(sys.argv[1]), 0
while True:
    pixels = np.random.default_rng(i).integers(0, 255, (512, 512), dtype=np.uint8)
    out.write(TileKey(f"s{i}", i, meta={"die_x": i}), pixels)
    i += 1
"""


@pytest.mark.parametrize("form", ["x.zarr", "folder"])
def test_a_killed_writer_leaves_whole_tiles_only(tmp_path, form):
    process = subprocess.Popen([sys.executable, "-c", _ENDLESS_WRITER, str(tmp_path / form)])
    try:
        while len([*tmp_path.rglob("*.tif"), *tmp_path.rglob("c/*/0/0")]) < 20:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    source, missing = open_tiles(tmp_path / form), []
    for key in source:
        assert key.tile == f"s{key.index}"
        assert key.meta == {"die_x": key.index}
        try:
            pixels = source.read(key)
        except TileError as error:
            missing.append(error.status)
            continue
        np.testing.assert_array_equal(pixels, np.random.default_rng(key.index).integers(0, 255, (512, 512), np.uint8))
    assert len(source) >= 20
    assert missing in ([], ["missing"])  # the one that was under way


@pytest.mark.parametrize("form", ["x.zarr", "folder"])
def test_a_full_disk_is_named_and_what_was_written_stays(tmp_path, form, monkeypatch):
    out = create_tiles(tmp_path / form)
    out.write(TileKey("t000000", 0, meta={"die_x": 5}), stack()[0])

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match=r"No space left.*t000001") as caught:
            out.write(TileKey("t000001", 1), stack()[1])
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path / form)
    assert not [p for p in (tmp_path / form).rglob("*") if p.name.endswith(".partial")]
    source = open_tiles(tmp_path / form)
    np.testing.assert_array_equal(source.read(source.find("t000000")), stack()[0])
    out.write(TileKey("t000001", 1), stack()[1])  # space was made
    out.close()
    assert_stack(open_tiles(tmp_path / form), stack()[:2])


@pytest.mark.parametrize("form", ["x.zarr", "folder"])
def test_a_write_that_dies_half_way_leaves_no_tile(tmp_path, form, monkeypatch):
    out = create_tiles(tmp_path / form)
    out.write(TileKey("t000000", 0), stack()[0])
    if form == "folder":
        real = Path.write_bytes

        def torn(path, data):
            real(path, bytes(data)[:50])
            raise OSError(errno.EIO, "device error")

        monkeypatch.setattr(Path, "write_bytes", torn)
    else:
        monkeypatch.setattr(Path, "replace", lambda *a: (_ for _ in ()).throw(OSError(errno.EIO, "device error")))
    with pytest.raises(OSError, match="device error"):
        out.write(TileKey("t000001", 1), stack()[1])
    monkeypatch.undo()
    out.close()
    source = open_tiles(tmp_path / form)
    np.testing.assert_array_equal(source.read(source.find("t000000")), stack()[0])
    later = source.find("t000001")
    if later is not None:
        with pytest.raises(TileError, match="never written"):
            source.read(later)


def test_a_full_disk_on_close_keeps_the_journal_and_the_first_error_wins(tmp_path, monkeypatch):
    out = create_tiles(tmp_path / "f")
    out.write(TileKey("x", 0, meta={"die_x": 2}), stack()[0])
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="describe"):
        out.close()
    monkeypatch.undo()
    assert next(iter(open_tiles(tmp_path / "f"))).meta == {"die_x": 2}


def test_the_error_inside_the_block_wins_over_one_on_close(tmp_path, monkeypatch):
    def fail() -> None:
        with create_tiles(tmp_path / "g") as out:
            out.write(TileKey("x", 0), stack()[0])
            monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as caught:
        fail()
    assert "No space left" in caught.value.__notes__[0]


@pytest.mark.parametrize("form", ["x.zarr", "folder"])
def test_many_threads_write_and_read_one_store(tmp_path, form):
    data = stack(60)
    with create_tiles(tmp_path / form) as out, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: out.write(TileKey(f"t{i:06d}", i, meta={"n": i}), data[i]), range(59, -1, -1)))
    source = open_tiles(tmp_path / form)
    with ThreadPoolExecutor(8) as pool:
        tiles = list(pool.map(source.read, source))
    np.testing.assert_array_equal(np.stack(tiles), data)
    assert [key.meta["n"] for key in source] == list(range(60))


def test_threads_share_one_tiff(tmp_path):
    whole = mosaic(300, 300)
    tifffile.imwrite(tmp_path / "m.tif", whole, tile=(48, 48), compression="zlib")
    source = open_tiles(tmp_path / "m.tif", tile=32)
    barrier = threading.Barrier(4)

    def work(_):
        barrier.wait()
        for key in source:
            top, left = key.meta["row_px"], key.meta["col_px"]
            np.testing.assert_array_equal(source.read(key), whole[top : top + 32, left : left + 32])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@pytest.mark.parametrize("form", ["x.zarr", "folder"])
def test_wrong_writes_are_refused_and_cost_nothing(tmp_path, form):
    data = stack()
    out = create_tiles(tmp_path / form, count=4)
    out.write(TileKey("a", 0), data[0])
    with pytest.raises(TypeError, match=r"uint16.*accepted: uint8"):
        out.write(TileKey("b", 1), data[1].astype(np.uint16))
    with pytest.raises(ValueError, match="int32"):
        out.write(TileKey("b", 1), data[1].astype(np.int32))
    with pytest.raises(ValueError, match="role is 'noisy'"):
        out.write(TileKey("b", 1), data[1], "noisy")
    with pytest.raises(ValueError, match="count=4"):
        out.write(TileKey("b", 4), data[1])
    with pytest.raises(ValueError, match="one tile an index"):
        out.write(TileKey("b", 0), data[1])
    with pytest.raises(ValueError, match="one index a tile"):
        out.write(TileKey("a", 1), data[1])
    for name in ("../b", "/b", "b/../../c", "b\\c", "", "b//c", "C:b"):
        with pytest.raises(ValueError, match=r"key\.tile"):
            out.write(TileKey(name, 1), data[1])
    if form == "x.zarr":
        with pytest.raises(ValueError, match="up to"):
            out.write(TileKey("b", 1), np.zeros((25, 40), np.uint8))
    out.write(TileKey("b", 1), data[1])
    out.close()
    out.close()
    with pytest.raises(ValueError, match="closed"):
        out.write(TileKey("c", 2), data[2])
    source = open_tiles(tmp_path / form)
    assert [key.tile for key in source][:2] == ["a", "b"]
    np.testing.assert_array_equal(source.read(source.find("b")), data[1])


@pytest.mark.parametrize("form", ["x.zarr", "folder"])
def test_tiles_are_not_written_over_unless_asked_and_only_our_own(tmp_path, form):
    for index in range(2):
        with create_tiles(tmp_path / form, overwrite=bool(index)) as out:
            out.write(TileKey("a", 0), stack()[index])
        with pytest.raises(FileExistsError, match="overwrite=True"):
            create_tiles(tmp_path / form)
    np.testing.assert_array_equal(open_tiles(tmp_path / form).read(TileKey("a", 0)), stack()[1])
    foreign = tmp_path / "own" / form
    (foreign / "noisy").mkdir(parents=True)
    (foreign / "noisy" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="not written by semnr"):
        create_tiles(foreign, overwrite=True)
    assert (foreign / "noisy" / "thesis.txt").exists()


@pytest.mark.parametrize(
    "options",
    [{"count": -1}, {"shape": (3,)}, {"roles": ()}, {"roles": ("clean",)}, {"roles": "image"}, {"data_range": 0}],
)
def test_bad_arguments_of_a_writer_name_themselves(tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        create_tiles(tmp_path / "x.zarr", **options)
    with pytest.raises(TypeError, match="dtype is int32"):
        create_tiles(tmp_path / "x.zarr", dtype="int32")


def test_writer_memory_does_not_grow_with_pixels(tmp_path):
    for form in ("x.zarr", "folder"):
        with create_tiles(tmp_path / form) as out:
            out.write(TileKey("t000000", 0), np.zeros((512, 512), np.uint8))
            tracemalloc.start()
            for index in range(1, 40):
                out.write(TileKey(f"t{index:06d}", index), np.full((512, 512), index, np.uint8))
            kept = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        assert kept < 1 << 20  # the pixels are 10 MB


def test_a_source_from_a_path_travels_to_another_process(tmp_path):
    whole = mosaic()
    tifffile.imwrite(tmp_path / "m.tif", whole, tile=(32, 32), compression="zlib")
    np.save(tmp_path / "m.npy", whole)
    for name in ("m.tif", "m.npy"):
        source = open_tiles(tmp_path / name, tile=64)
        data = pickle.dumps(source)
        assert len(data) < 1000  # the path, not the pixels
        assert_mosaic(pickle.loads(data), whole, 64)


def test_the_journal_holds_no_more_than_a_line_a_write(tmp_path):
    out = create_tiles(tmp_path / "f")
    out.write(TileKey("x", 0, meta={"die_x": np.int64(2), "when": Path("/odd")}), stack()[0])
    lines = [line for line in (tmp_path / "f" / ".tiles.jsonl").read_text().splitlines() if line]
    assert json.loads(lines[0])["meta"] == {"die_x": 2, "when": "/odd"}
    out.close()


# --- real images -----------------------------------------------------------------------------------------------------


def test_every_real_image_reads_and_the_damaged_one_fails_cleanly():
    folder = cases.real_data()
    sizes = {}
    for line in (folder / "MANIFEST.csv").read_text().splitlines()[1:]:
        path, width, height = line.split(",")[:3]
        sizes[path] = (int(height), int(width))
    failed, read = [], 0
    for sub in sorted({path.split("/")[0] for path in sizes}):
        source = open_tiles(folder / sub)
        for key in source:
            try:
                pixels = source.read(key)
            except TileError as error:
                failed.append((key.path, error.reason))
                continue
            assert pixels.shape == sizes[f"{sub}/{key.path}"], key.path
            assert pixels.dtype == (np.uint16 if "A3_50g1T" in key.tile else np.uint8), key.path
            read += 1
    assert read == len(sizes) - 1
    assert [path for path, _ in failed] == ["quad1image_001_broken.tif"]
    assert "quad1image_001_broken.tif" in failed[0][1]
    assert "truncated" in failed[0][1]


def test_zeiss_palettes_decode_to_their_grey_indices():
    path = cases.real_data() / "vendor" / "1-as-cast_16_Sch_10k_InLens.tif"
    np.testing.assert_array_equal(decode(path), np.asarray(Image.open(path)))


def test_pixel_sizes_of_microscopes_are_read():
    """FEI PixelWidth, Zeiss "Image Pixel Size", Fibics FOV_X / width (45.74386 um / 1023), all as in the files."""
    folder = cases.real_data()
    expected = {
        "vendor/A3_50g1T_001.tif": 2.69792,
        "vendor/fei_dualbeam_test_image_2.tif": 97.6562,
        "general/15pct_gelatin_fibers.tif": 31.0059,
        "vendor/1-as-cast_16_Sch_10k_InLens.tif": 11.165,
        "vendor/FeMoOx_AntiA_04_1k5x_CN.tif": 74.43333,
        "vendor/SESI_keyframe_slice_00006.tif": 44.71541,
        "general/13.tif": None,
        "vendor/quad1image_001_broken.tif": None,
        "ic/sem0000_x0_y0.png": None,
    }
    for name, size in expected.items():
        found = pixel_size_nm(folder / name)
        assert found == (None if size is None else pytest.approx(size, rel=1e-5)), name
    with pytest.raises(FileNotFoundError):
        pixel_size_nm(folder / "absent.tif")
    source = open_tiles(folder / "vendor")
    assert source.find("A3_50g1T_001").meta["pixel_nm"] == pytest.approx(2.69792)


def test_a_real_vendor_image_is_cut_to_the_same_pixels():
    path = cases.real_data() / "vendor" / "A3_50g1T_001.tif"
    assert_mosaic(open_tiles(path, tile=300), tifffile.imread(path), 300)


# --- names and files that other systems wrote ---------------------------------------------------------------------


def test_a_file_name_that_is_no_utf_8_is_a_tile_with_its_bytes_escaped(tmp_path):
    import semnr

    lot = tmp_path / "lot"
    for role in ("noisy", "reference"):
        (lot / role).mkdir(parents=True)
        for name in (b"a.tif", b"caf\xe9.tif", b"z.tif"):
            tifffile.imwrite(lot / role / "x.tif", cases_image())
            os.rename(lot / role / "x.tif", os.path.join(os.fsencode(lot / role), name))  # noqa: PTH104, PTH118
    with open(os.path.join(os.fsencode(lot / "noisy"), b"bad\xff.tif"), "wb") as file:  # noqa: PTH118, PTH123
        file.write(b"no TIFF")
    run = semnr.score(lot, out=tmp_path / "run", metrics=("psnr",), tests=False)
    rows = {row["tile"]: row for row in run.table().to_pylist()}
    assert {tile: row["status"] for tile, row in rows.items()} == {
        "a": "ok",
        "caf\\xe9": "ok",
        "z": "ok",
        "bad\\xff": "unreadable",
    }
    assert rows["caf\\xe9"]["path"] == "noisy/caf\\xe9.tif"
    source = open_tiles(lot)
    with pytest.raises(TileError) as caught:
        source.read(source.find("bad\\xff"))
    assert "bad\\xff" in caught.value.reason.encode().decode()


def cases_image():
    return stack(1)[0]


def test_accents_of_one_or_two_characters_are_the_same_name(tmp_path):
    for role, name in (("noisy", "caf\u00e9"), ("reference", "cafe\u0301")):
        (tmp_path / role).mkdir()
        np.save(tmp_path / role / f"{name}.npy", stack()[0])
    source = open_tiles(tmp_path)
    (key,) = source
    np.testing.assert_array_equal(source.read(key, "reference"), stack()[0])
    write_plan(tmp_path / "plan", "path,tile\na.png,cafe\u0301\n")
    assert next(iter(open_tiles(tmp_path / "plan"))).tile == "caf\u00e9"


def test_a_pipe_with_the_name_of_an_image_is_not_waited_for(tmp_path):
    np.save(tmp_path / "a.npy", stack()[0])
    os.mkfifo(tmp_path / "x.tif")
    source = open_tiles(tmp_path)
    assert [key.tile for key in source] == ["a", "x"]
    with pytest.raises(TileError, match="pipe"):
        source.read(source.find("x"))
    for call in (open_tiles, decode):
        with pytest.raises((ValueError, TileError), match="pipe"):
            call(tmp_path / "x.tif")


@pytest.mark.parametrize(
    "text",
    [
        b"path;reference;die_x\na.png;b.png;3\n",
        b"path\treference\tdie_x\na.png\tb.png\t3\n",
        "path,reference,die_x\na.png,b.png,3\n".encode("utf-16"),
        "path;reference;die_x\r\na.png;b.png;3\r\n".encode("utf-16"),
        b'"Path","Reference","Die_X"\n"a.png","b.png","3"\n',
        b"\xef\xbb\xbfPATH;REFERENCE;DIE_X\na.png;b.png;3\n",
    ],
    ids=["semicolons", "tabs", "UTF-16", "UTF-16 and semicolons", "capitals", "BOM, capitals, semicolons"],
)
def test_plans_as_spreadsheets_write_them_are_read(tmp_path, text):
    write_plan(tmp_path, "")
    (tmp_path / "plan.csv").write_bytes(text)
    source = open_tiles(tmp_path / "plan.csv")
    (key,) = source
    assert (source.roles, key.meta["die_x"]) == (("image", "reference"), 3)
    np.testing.assert_array_equal(source.read(key, "reference"), stack(1, seed=1)[0])


def test_a_damaged_parquet_plan_is_refused_by_its_name(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"path": [f"{i}.png" for i in range(50)]}), tmp_path / "plan.parquet")
    data = bytearray((tmp_path / "plan.parquet").read_bytes())
    for at in range(4, len(data) - 12, 7):
        spoilt = data[:]
        spoilt[at : at + 3] = b"\xff\xff\xff"
        (tmp_path / "bad.parquet").write_bytes(spoilt)
        with contextlib.suppress(ValueError):
            open_tiles(tmp_path / "bad.parquet")
    (tmp_path / "bad.parquet").write_bytes(data[:40] + data[43:])
    with pytest.raises(ValueError, match=r"bad\.parquet cannot be read as a plan"):
        open_tiles(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    "text", ["pitch_um = 5", "pitch_um = 'x'", "wafer = 3", "pitch_um = [1, 2, 3]", "pitch_um = ["]
)
def test_a_layout_that_is_no_layout_is_refused_by_its_file(tmp_path, text):
    from semnr.wafers import read_wafer

    (tmp_path / "layout.toml").write_text(text)
    with pytest.raises(ValueError, match=r"layout\.toml.*(accepted|not TOML)"):
        read_wafer(tmp_path / "layout.toml")


def test_lines_of_a_journal_that_hold_something_else_are_left_out(tmp_path):
    np.save(tmp_path / "a.npy", stack()[0])
    good = {"index": 0, "tile": "t0", "role": "image", "meta": {}, "size": None}
    bad = [{**good, "index": "0"}, {**good, "index": -1}, {**good, "meta": 3}, {**good, "size": 7}, {**good, "tile": 5}]
    (tmp_path / ".tiles.jsonl").write_text("\n".join(json.dumps(row) for row in [*bad, good]))
    assert [key.tile for key in open_tiles(tmp_path)] == ["t0"]
