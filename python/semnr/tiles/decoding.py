"""Decodes one image file to the pixels of one tile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels import TileError

from .instrument import Instrument, page_instrument
from .limits import fits
from .names import require_file, shown
from .pages import checked_chain, main_pages
from .pixels import ACCEPTED, as_pixels, grey_or_rgb
from .reasons import explained
from .tiff import TiffPlane

TIFF_SUFFIXES = (".tif", ".tiff", ".btf")
PILLOW_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg")
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, *PILLOW_SUFFIXES, ".npy")


def decode(path: str | Path, tile: str | None = None) -> np.ndarray:
    """The pixels of an image file.

    Parameters
    ----------
    path : path
        TIFF, PNG, BMP or another known format.
    tile : str, optional
        Id of the tile, for the error.

    Returns
    -------
    ndarray, (H, W) or (3, H, W)
        Of three dimensions where the image is in colour. Pixels stay as they are stored, whatever an Orientation tag
        says.

    Raises
    ------
    TileError
        Names the tile and the reason.

    Examples
    --------
    >>> from PIL import Image
    >>> Image.fromarray(noisy).save("a.png")
    >>> bool((semnr.tiles.decode("a.png") == noisy).all())
    True
    """
    path = Path(path)
    tile = path.name if tile is None else tile
    suffix = path.suffix.lower()
    with explained(tile, path):
        require_file(path)
        if suffix in TIFF_SUFFIXES:
            pixels = _tiff(path)
        elif suffix in PILLOW_SUFFIXES:
            pixels = _pillow(path, ("PNG", "BMP", "JPEG"))
        elif suffix == ".npy":
            pixels = np.load(path, mmap_mode="r", allow_pickle=False)
            fits(pixels.nbytes)
        else:
            raise ValueError(f"suffix {path.suffix!r}; accepted: {', '.join(IMAGE_SUFFIXES)}")
        try:
            return as_pixels(tile, pixels)
        except TileError as error:
            raise TileError(tile, f"{shown(str(path))}: {error.reason}") from error


def instrument_of(path: Path) -> Instrument | None:
    """What the file says of the image that `decode` reads; None where it is no TIFF, or one that cannot be read."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return None
    import tifffile

    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            page = max(main_pages(file), key=lambda page: page.imagelength * page.imagewidth)
            return page_instrument(page, TiffPlane(path, page).grey_table())
    except Exception:
        return None  # reading its pixels says what is wrong with it


def _tiff(path: Path) -> np.ndarray:
    import tifffile
    from PIL import Image

    with tifffile.TiffFile(path, _multifile=False) as file:
        checked_chain(file)
        pages = main_pages(file)
        if not pages:
            raise ValueError("it holds no image")
        largest = max(pages, key=lambda page: page.imagelength * page.imagewidth)
        twins = sum(page.shape == largest.shape for page in pages) - 1
        if twins:
            raise ValueError(
                f"it has {1 + twins} pages of one size; accepted: one image (open a stack by itself: one page a tile)"
            )
        plane = TiffPlane(path, largest)
    height, width = plane.size
    if Image.MAX_IMAGE_PIXELS is not None and height * width > 2 * Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"it claims {width} x {height} pixels, above the limit of {2 * Image.MAX_IMAGE_PIXELS}; "
            "accepted: smaller images (open a mosaic by itself, it is cut into tiles)"
        )
    return plane.window(slice(0, height), slice(0, width))


def _pillow(path: Path, formats: tuple[str, ...]) -> Any:
    from PIL import Image

    with Image.open(path, formats=formats) as image:
        fits(image.width * image.height * len(image.getbands()))
        coding = image.tile[0][3] if image.tile else ""
        coding = coding if isinstance(coding, str) else (coding[0] if coding else "")
        if "16" in str(coding) and not image.mode.startswith("I"):
            raise ValueError(f"16-bit {image.mode} is not supported; accepted: {ACCEPTED} (16-bit colour as TIFF)")
        image.load()
        mode = image.mode
        if mode == "I" and image.format == "PNG":  # older Pillow opens 16-bit grey PNG as 32-bit
            return np.asarray(image).astype(np.uint16)
        if mode in ("P", "PA", "LA", "RGBA"):
            return grey_or_rgb(_opaque(image))
        if mode == "RGB":
            return grey_or_rgb(np.asarray(image))
        if mode not in ("L", "F", "I;16", "I;16B", "I;16L"):
            raise ValueError(f"it has Pillow mode {mode!r}; accepted: {ACCEPTED}")
        return np.asarray(image)


def _opaque(image: Any) -> np.ndarray:
    pixels = np.asarray(image.convert("RGBA"))
    if not (pixels[..., 3] == 255).all():
        raise ValueError("it has transparent pixels; accepted: grey or RGB")
    return pixels[..., :3]
