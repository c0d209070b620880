"""TIFF, BigTIFF and OME-TIFF: windows of a page without reading the page.

tifffile parses the file and decodes single segments (tiles or strips); which segments a window needs is decided
here. Pixels that lie uncompressed in one run are memory-mapped instead. The file is opened anew for each read, so
that threads and forked workers share no file position.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from .pixels import as_pixels, grey_or_rgb
from .planes import PlaneSource

CACHE_BYTES = 64 << 20  # decoded segments kept: neighbouring tiles share strips
LARGEST_SEGMENT = 1 << 30  # bytes that one compressed segment may claim; a few bytes of file can claim anything


class TiffPlane:
    """One page: its size, and any window of it as (H, W) or (3, H, W).

    A palette is applied: (H, W) where the palette is grey, else RGB. WhiteIsZero is inverted, so that bright is high.
    """

    def __init__(self, path: Path, page: Any, offset: int | None = None) -> None:
        self.path = path
        self._page = page  # a TiffPage or a TiffFrame, which has only offsets of its own
        self._key = page.keyframe
        self._palette = page.keyframe.colormap  # read now: the file is closed later
        self._offset = self._run_start() if offset is None else offset
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> tuple[int, int]:
        return self._key.imagelength, self._key.imagewidth

    @property
    def nbytes(self) -> int:
        return self._key.nbytes

    def why_not(self) -> str | None:
        """None where this page can be read, else the reason."""
        key = self._key
        if key.dtype is None:
            return f"{key.bitspersample}-bit samples of format {key.sampleformat} are not supported"
        if key.imagedepth > 1:
            return "volumetric TIFF (ImageDepth) is not supported"
        if key.samplesperpixel not in (1, 3) and not (key.samplesperpixel == 4 and key.photometric == 2):
            return f"it has {key.samplesperpixel} samples a pixel; accepted: 1 (grey, palette) or 3 (RGB)"
        if key.photometric not in (0, 1, 2, 3) and not (key.photometric == 6 and key.compression in (6, 7)):
            return f"its photometric interpretation is {key.photometric!r}; accepted: grey, palette or RGB"
        return None

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """Pixels of the window; OSError or ValueError where the file is damaged."""
        if (reason := self.why_not()) is not None:
            raise ValueError(reason)
        if self._offset is not None:
            return self._finish(self._mapped(self._offset, rows, columns))
        return self._finish(self._decoded(rows, columns))

    def _run_start(self) -> int | None:
        """Where the pixels begin, if they lie in one uncompressed run."""
        offsets, counts = self._page.dataoffsets, self._page.databytecounts
        if not offsets or not self._key.is_final or sum(counts) < self._key.nbytes:
            return None
        runs = all(a + n == b for a, n, b in zip(offsets, counts, offsets[1:], strict=False))
        return int(offsets[0]) if runs and all(counts) else None

    def _mapped(self, offset: int, rows: slice, columns: slice) -> np.ndarray:
        planes, _, height, width, samples = self._key.shaped
        dtype = self._key.dtype.newbyteorder(self._key.parent.byteorder)
        needed = offset + planes * height * width * samples * dtype.itemsize
        if (there := self.path.stat().st_size) < needed:
            raise OSError(f"the file is truncated: {there} bytes, the pixels end at byte {needed}")
        shape: tuple[int, ...] = (planes, height, width, samples)
        pixels = np.memmap(self.path, dtype, "r", offset, shape)
        return np.array(pixels[:, rows, columns])

    def _decoded(self, rows: slice, columns: slice) -> np.ndarray:
        key = self._key
        planes, _, height, width, samples = key.shaped
        tall, wide = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, width)
        tall = min(tall, height) if not key.is_tiled else tall
        if (claimed := tall * wide * samples * key.dtype.itemsize) > LARGEST_SEGMENT:
            raise ValueError(f"one segment claims {claimed} bytes; accepted: up to {LARGEST_SEGMENT}")
        down, across = -(-height // tall), -(-width // wide)
        if len(self._page.dataoffsets) != planes * down * across:
            raise ValueError(f"it lists {len(self._page.dataoffsets)} segments, {planes * down * across} are needed")
        out = np.empty((planes, rows.stop - rows.start, columns.stop - columns.start, samples), key.dtype)
        for plane in range(planes):
            for i in range(rows.start // tall, -(-rows.stop // tall)):
                for j in range(columns.start // wide, -(-columns.stop // wide)):
                    segment = self._segment((plane * down + i) * across + j)
                    top, left = i * tall, j * wide
                    r0, r1 = max(top, rows.start), min(top + tall, rows.stop)
                    c0, c1 = max(left, columns.start), min(left + wide, columns.stop)
                    part = segment[r0 - top : r1 - top, c0 - left : c1 - left]
                    out[plane, r0 - rows.start : r1 - rows.start, c0 - columns.start : c1 - columns.start] = part
        return out

    def _segment(self, index: int) -> np.ndarray:
        """Decoded segment (H, W, S), from the cache where it is there."""
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        offset, count = self._page.dataoffsets[index], self._page.databytecounts[index]
        if count == 0:
            raise OSError(f"segment {index} was never written (0 bytes)")
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(count)
        if len(data) < count:
            raise OSError(f"the file is truncated: segment {index} has {len(data)} of {count} bytes")
        tables = {"jpegtables": self._page.jpegtables} if self._page.jpegtables is not None else {}
        segment = self._key.decode(data, index, **tables)[0][0]
        with self._lock:
            if index not in self._cache:
                self._cache[index] = segment
                self._cached += segment.nbytes
            while self._cached > CACHE_BYTES and len(self._cache) > 1:
                self._cached -= self._cache.popitem(last=False)[1].nbytes
        return segment

    def _finish(self, raw: np.ndarray) -> np.ndarray:
        """(planes, H, W, samples) as tifffile names them to grey or RGB."""
        pixels = raw[0] if raw.shape[0] == 1 else np.moveaxis(raw[..., 0], 0, -1)
        if pixels.shape[-1] == 4:
            if not (pixels[..., 3] == np.iinfo(pixels.dtype).max).all():
                raise ValueError("it has transparent pixels; accepted: grey or RGB")
            pixels = pixels[..., :3]
        if pixels.shape[-1] == 3:
            return grey_or_rgb(pixels)
        pixels = np.ascontiguousarray(pixels[..., 0])
        if self._key.photometric == 3:
            return self._through_palette(pixels)
        if self._key.photometric == 0 and pixels.dtype.kind == "u":
            return np.iinfo(pixels.dtype).max - pixels
        return pixels

    def _through_palette(self, pixels: np.ndarray) -> np.ndarray:
        palette = self._palette
        if palette is None or pixels.dtype != np.uint8 or palette.shape != (3, 256):
            raise ValueError("its palette is absent or not of 256 colours")
        table = (palette >> 8).astype(np.uint8)  # TIFF palettes hold 16 bits, written as v * 256 or v * 257
        if (table[0] == table[1]).all() and (table[0] == table[2]).all():
            return table[0][pixels]
        return grey_or_rgb(np.moveaxis(table[:, pixels], 0, -1))


class TiffSource(PlaneSource):
    """One page: a mosaic that is cut. Several pages: one page a tile, except tiled pages larger than `tile`."""

    def __init__(self, path: Path, tile: int | None) -> None:
        import tifffile

        from .vendor import pixel_size_of

        try:
            # _multifile: an OME-TIFF may name other files, anywhere; only this one is read
            with tifffile.TiffFile(path, _multifile=False) as file:
                planes, self._coordinates = _planes(path, file)
                self.pixel_nm = pixel_size_of(file)
        except FileNotFoundError:
            raise
        except Exception as error:  # tifffile raises what a damaged structure leads it to
            raise ValueError(f"{path} cannot be opened as TIFF: {type(error).__name__}: {error}") from error
        if not planes:
            raise ValueError(f"{path} holds no pages; accepted: a TIFF with at least one image")
        first = planes[0]
        if first is not None and (reason := first.why_not()) is not None:
            raise ValueError(f"{path}: {reason}")
        mosaic = len(planes) == 1 or (tile is not None and first is not None and _cuttable(first, tile))
        super().__init__(path.name, tile if mosaic else None)
        self._planes = planes
        if first is not None and (bits := first._key.bitspersample) not in (8, 16, 32, 64):
            self.data_range = float(2**bits - 1)

    def _sizes(self) -> list[tuple[int, int]]:
        return [plane.size if plane is not None else (1, 1) for plane in self._planes]

    def _plane_meta(self, plane: int) -> dict[str, Any]:
        return self._coordinates[plane]

    def _window(self, tile: str, plane: int, rows: slice, columns: slice) -> np.ndarray:
        from .decoding import explained

        page = self._planes[plane]
        with explained(tile, self.name):
            if page is None:
                raise FileNotFoundError("the plane is in another file of a multi-file OME-TIFF")
            return as_pixels(tile, page.window(rows, columns))


def _cuttable(plane: TiffPlane, tile: int) -> bool:
    return bool(plane._key.is_tiled) and max(plane.size) > tile


def _planes(path: Path, file: Any) -> tuple[list[TiffPlane | None], list[dict[str, Any]]]:
    """Full-resolution planes of a file and the coordinates of each."""
    if not (file.is_ome or file.is_imagej):
        pages = main_pages(file)
        return [TiffPlane(path, page) for page in pages], [
            {"page": page.index} if len(pages) > 1 else {} for page in pages
        ]
    series = file.series[0].levels[0]
    axes = series.get_axes(squeeze=False)
    shape = series.get_shape(squeeze=False)
    lead = [(axis.lower(), n) for axis, n in zip(axes, shape, strict=True) if axis not in "YXS"]
    lead_shape = tuple(n for _, n in lead)
    count = int(np.prod(lead_shape)) if lead else 1
    pages = list(series.pages)
    planes: list[TiffPlane | None]
    if len(pages) == 1 and count > 1 and series.dataoffset is not None:  # ImageJ: one page describes a run of planes
        plane_bytes = pages[0].keyframe.nbytes
        planes = [TiffPlane(path, pages[0], series.dataoffset + i * plane_bytes) for i in range(count)]
    elif len(pages) == count:
        planes = [None if page is None else TiffPlane(path, page) for page in pages]
    else:
        raise ValueError(f"{len(pages)} pages for {count} planes of axes {axes}; accepted: one page a plane")
    places = [np.unravel_index(i, lead_shape) if lead else () for i in range(count)]
    named = [(k, axis) for k, (axis, n) in enumerate(lead) if n > 1]
    return planes, [{axis: int(place[k]) for k, axis in named} for place in places]


def main_pages(file: Any) -> list[Any]:
    """Pages at full resolution: no thumbnails, overviews or masks."""
    return [page for page in file.pages if not (page.is_reduced or page.is_mask)]
