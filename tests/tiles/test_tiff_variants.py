"""Every kind of TIFF against tifffile with imagecodecs: one set of rules, whatever the compression and the layout."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile

import semnr
from semnr import TileError, open_tiles
from semnr.tiles import decode, pixel_size_nm

RNG = np.random.default_rng(5)
GREY8 = RNG.integers(0, 256, (40, 56), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (40, 56), dtype=np.uint16)
SMOOTH = np.add.outer(np.arange(40), np.arange(56) * 2).astype(np.uint8)
RGB = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)
RAMP = np.arange(256, dtype=np.uint16)
LOSSLESS = ("none", "lzw", "zlib", "deflate", "packbits", "zstd", "lzma", "png", "jpegxl", "lerc", "jpeg2000")
SAME = (None, "lzw", "zlib", "packbits", "zstd", "lzma")


def save(path, pixels: np.ndarray, **options) -> None:
    if options.get("compression") == "none":
        options["compression"] = None
    tifffile.imwrite(path, pixels, **{"metadata": None, **options})


def expected(path) -> np.ndarray:
    """What tifffile and imagecodecs decode, and the two rules of TIFF that they leave to the reader."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        pixels = page.asarray()
        if page.photometric == 0 and pixels.dtype.kind == "u":
            pixels = (2**page.bitspersample - 1) - pixels
        if page.photometric == 3:
            colours = page.colormap if page.colormap.max() < 256 else page.colormap >> 8
            pixels = np.moveaxis(colours[:, pixels], 0, -1).astype(np.uint8)
        if page.photometric in (2, 3, 6):
            pixels = pixels if page.planarconfig == 1 else np.moveaxis(pixels, 0, -1)
            pixels = pixels[..., :3]
            grey = (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
            pixels = pixels[..., 0] if grey else np.moveaxis(pixels, -1, 0)
        elif page.samplesperpixel == 2:
            pixels = pixels[..., 0]
    return pixels


def cases(name: str, pixels: np.ndarray, compressions: tuple[str | None, ...] = SAME, **options):
    return {f"{name} {c}": (pixels, {"compression": c, **options}) for c in compressions}


def palette(colours: np.ndarray) -> dict[str, object]:
    return {"photometric": "palette", "colormap": np.tile(colours, (3, 1)) if colours.ndim == 1 else colours}


def turned(orientation: int) -> dict[str, object]:
    return {"extratags": [(274, 3, 1, orientation, True)]}


PLANAR = np.moveaxis(RGB, -1, 0).copy()
TABLE = {
    **cases("grey 8", GREY8, LOSSLESS),
    **cases("grey 16", GREY16, tuple(c for c in LOSSLESS if c != "jpegxl")),
    **cases("white is zero 8", GREY8, photometric="miniswhite"),
    **cases("white is zero 16", GREY16, photometric="miniswhite"),
    **cases("big endian", GREY16, byteorder=">"),
    **cases("orientation 3", GREY8, **turned(3)),
    **cases("orientation 6", GREY8, **turned(6)),
    **cases("tiled", GREY16, tile=(16, 32)),
    **cases("strips of 7", GREY8, rowsperstrip=7),
    **cases("predictor", GREY16, ("lzw", "zlib", "zstd"), predictor=True),
    **cases("floats", GREY16.astype(np.float32)),
    **cases("float predictor", GREY16 / np.float32(7), ("lzw", "zlib"), predictor=3),
    **cases("colour", RGB, photometric="rgb"),
    **cases("planar colour", PLANAR, photometric="rgb", planarconfig=2),
    **cases("palette of 16 bit", GREY8, **palette(RAMP * 257)),
    **cases("palette of 8 bit", GREY8, **palette(RAMP)),
    **cases("colours of 8 bit", GREY8, **palette(np.stack([RAMP, RAMP[::-1], RAMP]))),
    **cases("jpeg grey", SMOOTH, ("jpeg",)),
    **cases("jpeg white is zero", SMOOTH, ("jpeg",), photometric="miniswhite"),
    **cases("jpeg tiled", SMOOTH, ("jpeg",), tile=(16, 16)),
    **cases("jpeg colour", np.stack([SMOOTH, SMOOTH // 2, SMOOTH], -1), ("jpeg",), photometric="rgb"),
    **cases("packed 12 bit", GREY16 >> 4, (None,), bitspersample=12),
    **cases("packed 12 bit white is zero", GREY16 >> 4, (None,), bitspersample=12, photometric="miniswhite"),
    **cases("grey and opaque alpha", np.stack([GREY8, GREY8 | 255], -1), extrasamples=["unassalpha"]),
    **cases("RGBX", np.dstack([RGB, GREY8]), photometric="rgb", extrasamples=["unspecified"]),
    **cases("BigTIFF", GREY8, bigtiff=True),
}


@pytest.mark.parametrize("case", TABLE)
def test_one_image_decodes_as_tifffile_and_imagecodecs_do(tmp_path, case) -> None:
    pixels, options = TABLE[case]
    path = tmp_path / "x.tif"
    save(path, pixels, **options)
    found = decode(path)
    np.testing.assert_array_equal(found, expected(path))
    if case.startswith(("grey 8", "grey 16", "orientation", "strips", "tiled", "palette", "BigTIFF")):
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("compression", ["none", "lzw", "zstd", "packbits", "lzma", "jpeg"])
def test_compressed_stacks_and_mosaics_open_like_uncompressed_ones(tmp_path, compression) -> None:
    pages = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]])
    save(tmp_path / "stack.tif", pages, compression=compression, photometric="minisblack")
    source = open_tiles(tmp_path / "stack.tif")
    truth = tifffile.imread(tmp_path / "stack.tif")
    np.testing.assert_array_equal([source.read(key) for key in source], truth)
    save(tmp_path / "mosaic.tif", SMOOTH, compression=compression, tile=(16, 16))
    whole = tifffile.imread(tmp_path / "mosaic.tif")
    for key in (mosaic := open_tiles(tmp_path / "mosaic.tif", tile=24)):
        top, left = key.meta["row_px"], key.meta["col_px"]
        np.testing.assert_array_equal(mosaic.read(key), whole[top : top + 24, left : left + 24])


@pytest.mark.parametrize("compression", SAME)
@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "untagged"])
def test_a_thumbnail_before_the_image_is_not_the_image(tmp_path, compression, tagged) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        options = {"compression": compression, "metadata": None}
        file.write(GREY8[::4, ::4], subfiletype=int(tagged), **options)
        file.write(GREY8, subfiletype=0, **options)
    np.testing.assert_array_equal(decode(tmp_path / "x.tif"), GREY8)


def test_a_transparent_pixel_and_a_second_detector_are_refused(tmp_path) -> None:
    alpha = np.full_like(GREY8, 255)
    alpha[3, 4] = 254
    both = np.stack([GREY8, alpha], -1)
    save(tmp_path / "a.tif", both, photometric="minisblack", extrasamples=["unassalpha"])
    with pytest.raises(TileError, match="transparent"):
        decode(tmp_path / "a.tif")
    save(tmp_path / "b.tif", both, photometric="minisblack", extrasamples=["unspecified"])
    with pytest.raises(TileError, match="2 samples"):
        decode(tmp_path / "b.tif")


def test_annotation_colours_of_a_zeiss_palette_become_grey(tmp_path) -> None:
    """A grey ramp and colours of annotations: one channel, so that it pairs with a grey denoised tile."""
    colours = np.tile(RAMP * 257, (3, 1))
    colours[:, 200:226] = np.array([[65535], [0], [0]])
    tag = (34118, 2, 0, b"0\r\nAP_WIDTH\r\nWidth = 5.6 um\r\n", True)
    save(tmp_path / "x.tif", GREY8, photometric="palette", colormap=colours, extratags=[tag])
    truth = GREY8.copy()
    truth[(GREY8 >= 200) & (GREY8 < 226)] = round(0.299 * 255)
    np.testing.assert_array_equal(decode(tmp_path / "x.tif"), truth)
    save(tmp_path / "y.tif", GREY8, photometric="palette", colormap=colours)
    assert decode(tmp_path / "y.tif").shape == (3, 40, 56)


# --- what a header claims and what is there --------------------------------------------------------------------


def first_page(data: bytes) -> tuple[int, int]:
    """Offset of the first page and of the pointer to the next one, of a little-endian classic TIFF."""
    (page,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, page)
    return page, page + 2 + 12 * tags


def patched(data: bytes, at: int, form: str, value: int) -> bytes:
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def with_tag(data: bytes, code: int, value: int) -> bytes:
    """The same file with another value of a LONG or SHORT tag of its first page."""
    page, end = first_page(data)
    for at in range(page + 2, end, 12):
        if struct.unpack_from("<H", data, at)[0] == code:
            return data[:at] + struct.pack("<HHII", code, 4, 1, value) + data[at + 12 :]
    raise LookupError(code)


@pytest.mark.parametrize("back", [0, 1], ids=["to itself", "to the page before"])
@pytest.mark.parametrize("open_", [decode, open_tiles], ids=["as a tile", "by itself"])
def test_page_pointers_that_lead_in_a_circle_are_refused(tmp_path, back, open_) -> None:
    path = tmp_path / "x.tif"
    save(path, np.stack([GREY8] * (1 + back)), photometric="minisblack")
    data = path.read_bytes()
    page, end = first_page(data)
    if back:
        (second,) = struct.unpack_from("<I", data, end)
        end = second + 2 + 12 * struct.unpack_from("<H", data, second)[0]
    path.write_bytes(patched(data, end, "<I", page))
    with pytest.raises((TileError, ValueError), match="circle"):
        open_(path)


def test_one_circular_file_of_a_folder_is_one_row(tmp_path) -> None:
    lot = tmp_path / "lot"
    for role in ("noisy", "reference"):
        (lot / role).mkdir(parents=True)
        for i in range(3):
            save(lot / role / f"t{i}.tif", GREY8)
    path = lot / "noisy" / "t1.tif"
    page, end = first_page(data := path.read_bytes())
    path.write_bytes(patched(data, end, "<I", page))
    run = semnr.score(lot, out=tmp_path / "run", metrics=("psnr",), tests=False)
    rows = {row["tile"]: (row["status"], row["reason"]) for row in run.table().to_pylist()}
    assert [rows[f"t{i}"][0] for i in range(3)] == ["ok", "unreadable", "ok"]
    assert "circle" in rows["t1"][1]


@pytest.mark.parametrize("tag", [256, 257], ids=["width", "height"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
def test_sizes_that_the_file_cannot_hold_are_one_row_each(tmp_path, tag, compression) -> None:
    path = tmp_path / "x.tif"
    save(path, GREY8, compression=compression, rowsperstrip=40)
    path.write_bytes(with_tag(path.read_bytes(), tag, 2**31 - 1))
    with pytest.raises(TileError, match=r"x\.tif"):
        decode(path)
    source = open_tiles(path)
    (key,) = source
    with pytest.raises(TileError, match=r"x\.tif"):
        source.read(key)


def test_a_size_that_is_a_text_is_refused_before_it_is_multiplied(tmp_path) -> None:
    """A length times a text of one character would be a text of 4 GB."""
    path = tmp_path / "x.tif"
    save(path, GREY8)
    data = with_tag(with_tag(path.read_bytes(), 257, 0xFF000010), 256, ord("A"))
    path.write_bytes(data.replace(struct.pack("<HHI", 256, 4, 1), struct.pack("<HHI", 256, 2, 1), 1))
    with tifffile.TiffFile(path) as file:
        assert isinstance(file.pages[0].imagewidth, str)
    with pytest.raises(TileError, match="its width is of type str; accepted: an integer"):
        decode(path)
    with pytest.raises(ValueError, match="its width is of type str; accepted: an integer"):
        open_tiles(path)


def ome(path, pages: int, sizes: str, data: str, uuid: str = "") -> None:
    text = (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" {uuid}><Image ID="Image:0"><Pixels '
        f'DimensionOrder="XYZCT" Type="uint8" SizeX="56" SizeY="40" {sizes} ID="Pixels:0">'
        f'<Channel SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
    )
    planes = np.stack([np.full((40, 56), i, np.uint8) for i in range(pages)])
    with tifffile.TiffWriter(path) as file:
        for i, plane in enumerate(planes):
            file.write(plane, description=text if i == 0 else None, metadata=None)


def test_an_ome_tiff_that_claims_planes_it_does_not_have_gives_those_that_are_there(tmp_path) -> None:
    for claimed in (7, 10**6, 10**9, 10**18):
        ome(tmp_path / "x.ome.tif", 3, f'SizeZ="{claimed}" SizeC="1" SizeT="1"', "<TiffData/>")
        source = open_tiles(tmp_path / "x.ome.tif")
        assert [(int(source.read(key)[0, 0]), key.meta["z"]) for key in source] == [(0, 0), (1, 1), (2, 2)]
        (problem,) = source.problems
        assert str(claimed) in problem.reason
        assert "missing" in problem.reason


def test_planes_come_in_the_order_that_tiff_data_gives(tmp_path) -> None:
    data = "".join(
        f'<TiffData IFD="{i}" FirstZ="{z}" FirstT="{t}"/>' for i, (t, z) in enumerate([(1, 1), (0, 1), (1, 0), (0, 0)])
    )
    ome(tmp_path / "x.ome.tif", 4, 'SizeZ="2" SizeC="1" SizeT="2"', data)
    source = open_tiles(tmp_path / "x.ome.tif")
    assert [(key.meta["t"], key.meta["z"], int(source.read(key)[0, 0])) for key in source] == [
        (0, 0, 3),
        (0, 1, 1),
        (1, 0, 2),
        (1, 1, 0),
    ]
    assert source.problems == ()


def test_planes_in_another_file_of_an_ome_tiff_are_rows(tmp_path) -> None:
    data = "".join(
        f'<TiffData IFD="0" FirstT="{t}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{t}</UUID></TiffData>'
        for t, name in enumerate(["a.ome.tif", "b.ome.tif"])
    )
    ome(tmp_path / "a.ome.tif", 1, 'SizeZ="1" SizeC="1" SizeT="2"', data, 'UUID="urn:uuid:0"')
    source = open_tiles(tmp_path / "a.ome.tif")
    first, second = source
    assert source.read(first).max() == 0
    with pytest.raises(TileError, match="another file") as caught:
        source.read(second)
    assert caught.value.status == "missing"


def test_an_imagej_description_does_not_make_planes_of_trailing_bytes(tmp_path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, GREY8, description="ImageJ=1.54f\nimages=3\nslices=3\n", metadata=None)
    path.write_bytes(path.read_bytes() + b"\x07" * (3 * GREY8.size))
    source = open_tiles(path, tile=None)
    assert len(source) == 1
    np.testing.assert_array_equal(source.read(next(iter(source))), GREY8)
    assert "3 images" in source.problems[0].reason


def test_the_planes_after_the_one_page_of_a_large_imagej_stack_are_read(tmp_path) -> None:
    path = tmp_path / "x.tif"
    text = "ImageJ=1.54f\nimages=3\nslices=3\nhyperstack=true\n"
    pages = np.stack([GREY8, GREY8[::-1], GREY8[:, ::-1]])
    tifffile.imwrite(path, pages[0], description=text, metadata=None)
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].dataoffsets[0] + GREY8.size == len(data)  # pixels come last
    path.write_bytes(data + pages[1].tobytes() + pages[2].tobytes())
    source = open_tiles(path)
    np.testing.assert_array_equal([source.read(key) for key in source], pages)
    assert [key.meta["z"] for key in source] == [0, 1, 2]


def test_a_stack_that_is_cut_off_after_a_page_says_so(tmp_path) -> None:
    path = tmp_path / "x.tif"
    save(path, np.stack([GREY8] * 3), photometric="minisblack")
    data = path.read_bytes()
    _, end = first_page(data)
    path.write_bytes(patched(data, end, "<I", len(data) + 10_000))
    source = open_tiles(path, tile=None)
    assert len(source) == 1
    assert "cut off" in source.problems[0].reason


# --- pixel sizes of Zeiss ----------------------------------------------------------------------------------------


def zeiss(path, width: int, *lines: str) -> float | None:
    text = ("\r\n".join(["0", *lines]) + "\r\n").encode("latin-1")
    save(path, np.zeros((8, width), np.uint8), extratags=[(34118, 2, 0, text, True)])
    return pixel_size_nm(path)


PIXEL = ("AP_PIXEL_SIZE", "Pixel Size = 5.825 nm")
WIDTH = ("AP_WIDTH", "Width = 5.965 \xb5m")


@pytest.mark.parametrize(
    ("lines", "width", "nm"),
    [
        ((*PIXEL, *WIDTH), 512, 5.825 * 2),
        (PIXEL, 512, 5.825 * 2),
        (PIXEL, 1024, 5.825),
        (PIXEL, 2048, 5.825 / 2),
        (WIDTH, 512, 5965 / 512),
        (("AP_PIXEL_SIZE", "Pixel Size = 9.1 nm", *WIDTH), 512, 5965 / 512),
        (("AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 11.65 nm", *PIXEL, *WIDTH), 512, 11.65),
    ],
)
def test_zeiss_pixel_size_is_that_of_the_stored_image(tmp_path, lines, width, nm) -> None:
    assert zeiss(tmp_path / "x.tif", width, *lines) == pytest.approx(nm, rel=1e-6)
