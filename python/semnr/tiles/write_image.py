"""One image file out of the tiles of a mosaic or a stack: TIFF of the same size, bit depth and tags; or PNG."""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from .decoding import TIFF_SUFFIXES
from .instrument import Instrument
from .pixels import as_pixels
from .planes import PlaneSource
from .source import TileKey, TileWriter
from .writer import explained_full

SUFFIXES = (*TIFF_SUFFIXES, ".png")
MARK = 65112  # a private tag: what semnr made the pixels with, as JSON; such a file may be written over when asked
_BIG = 2**32 - 2**24  # bytes of pixels from which on a TIFF is a BigTIFF


class ImageWriter(TileWriter):
    """Takes the tiles of `source` in any order; the file is there whole, once all of them came, or not at all.

    A TIFF is mapped into memory page by page: what is held is the tiles that are written, not the image.
    """

    def __init__(self, out: Path, source: PlaneSource, *, overwrite: bool, made_by: str) -> None:
        self._out, self._source, self._made_by = out, source, made_by
        if out.exists() and not (overwrite and is_ours(out)):
            remedy = "another path" if overwrite else "another path, or overwrite=True where semnr wrote it"
            raise FileExistsError(f"out is {out}, which exists; accepted: {remedy}")
        self._sizes = source.sizes()
        self._count, self._lock = 0, threading.Lock()
        self._part: Path | None = None
        self._pages: list[np.ndarray] = []
        self._forms: list[Instrument | None] = [source.instrument_of_plane(at) for at in range(len(self._sizes))]
        self._open = True
        with explained_full(out, "create"):
            out.parent.mkdir(parents=True, exist_ok=True)

    def write(self, key: TileKey, pixels: np.ndarray, role: str = "image") -> None:
        pixels = as_pixels(key.tile, pixels)
        plane, rows, columns = self._source.place(key)
        with explained_full(self._out, f"write tile {key.tile}"):
            with self._lock:
                if not self._pages:
                    self._begin(pixels)
            page, form = self._pages[plane], self._forms[plane]
            if page.dtype.newbyteorder("=") != pixels.dtype or (page.ndim == 3) != (pixels.ndim == 3):
                raise TypeError(f"tile {key.tile} is {pixels.dtype.name}, unlike the first page; accepted: alike pages")
            stored = pixels if form is None or not form.fits(pixels) else form.stored(pixels)
            page[rows, columns] = stored if stored.ndim == 2 else np.moveaxis(stored, 0, -1)
        with self._lock:
            self._count += 1

    def _begin(self, first: np.ndarray) -> None:
        """Make the file, with its tags and without its pixels, which are written where they will lie."""
        shapes = [(*size, 3) if first.ndim == 3 else size for size in self._sizes]
        if self._out.suffix.lower() not in TIFF_SUFFIXES:
            self._pages = [np.zeros(shapes[0], first.dtype)]
            return
        import tifffile

        self._part = self._out.with_name(f".{self._out.name}.{uuid.uuid4().hex[:8]}.partial")
        order: Any = next((form.byteorder for form in self._forms if form is not None), "<")
        size = sum(int(np.prod(shape)) for shape in shapes) * first.dtype.itemsize
        places: list[Any] = []
        with tifffile.TiffWriter(self._part, bigtiff=size > _BIG, byteorder=order) as file:
            for at, (shape, form) in enumerate(zip(shapes, self._forms, strict=True)):
                options: dict[str, Any] = {
                    "photometric": "minisblack" if first.ndim == 2 else "rgb",
                    **self._options(form, first),
                }
                if at == 0:
                    text = self._made_by.encode() + b"\0"
                    options["extratags"] = [*options.get("extratags", ()), (MARK, 2, len(text), text, True)]
                places.append(
                    file.write(shape=shape, dtype=first.dtype, contiguous=False, returnoffset=True, **options)
                )
        kind = first.dtype.newbyteorder(order)  # type: ignore[arg-type]
        self._pages = [
            np.memmap(self._part, kind, "r+", place[0], shape) for place, shape in zip(places, shapes, strict=True)
        ]

    def _options(self, form: Instrument | None, first: np.ndarray) -> dict[str, Any]:
        if form is None:
            size = self._source.pixel_nm
            inch = {} if size is None else {"resolution": (1e7 / size, 1e7 / size), "resolutionunit": 3}
            return {"metadata": None, "software": "semnr", **inch}
        if form.fits(first):
            return dict(form.options)
        return {name: value for name, value in form.options.items() if name not in ("photometric", "colormap")}

    def claim(self, name: str) -> Path:
        raise ValueError(f"out is {self._out}, one file; accepted: a folder or .zarr for further files")

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        """Give the file its name; without all its tiles there is no file."""
        if not self._open:
            return
        self._open = False
        with explained_full(self._out, "finish it"):
            whole = self._count == len(self._source)
            for page in self._pages:
                if isinstance(page, np.memmap):
                    page.flush()
            if self._part is None:
                if whole and self._pages:
                    self._save_png()
                return
            self._pages.clear()
            if whole:
                os.replace(self._part, self._out)  # noqa: PTH105 - as the other writers
            else:
                self._part.unlink(missing_ok=True)

    def _save_png(self) -> None:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        told = PngInfo()
        told.add_text("semnr", self._made_by)
        part = self._out.with_name(f".{self._out.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            Image.fromarray(self._pages[0]).save(part, format="PNG", pnginfo=told)
            os.replace(part, self._out)  # noqa: PTH105
        finally:
            part.unlink(missing_ok=True)


def is_ours(path: Path) -> bool:
    """Whether semnr wrote this image."""
    try:
        if path.suffix.lower() in TIFF_SUFFIXES:
            import tifffile

            with tifffile.TiffFile(path) as file:
                return MARK in file.pages[0].tags  # type: ignore[union-attr]
        from PIL import Image

        with Image.open(path) as image:
            return "semnr" in image.info
    except Exception:
        return False


def may_be_one_file(out: Path, source: Any, resume: bool) -> None:
    """Refuse what cannot become the one file `out`.

    Raises
    ------
    ValueError
        `source` is no image or stack, a PNG cannot hold it, or `resume` is True: one file is written completely or not
        at all, so that nothing can be continued.
    """
    if resume:
        raise ValueError(f"resume is True and out is {out}, which is there whole or not at all; accepted: a folder")
    if not isinstance(source, PlaneSource):
        raise ValueError(
            f"out is {out}, one file, but {source.name} holds images of their own; accepted: a folder, or x.zarr"
        )
    if out.suffix.lower() not in TIFF_SUFFIXES and len(source.sizes()) > 1:
        raise ValueError(f"out is {out}, but {source.name} has {len(source.sizes())} images; accepted: x.tif")
