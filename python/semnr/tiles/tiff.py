"""TIFF, BigTIFF and OME-TIFF: windows of a page without reading the page.

tifffile parses the file and decodes single segments (tiles or strips), with the codecs of imagecodecs; which segments
a window needs is decided here, and every image goes this way, whatever its compression. Sizes that a header claims are
held against the bytes that are there before memory is taken. Pixels are as they are stored: WhiteIsZero is inverted and
palettes are applied, the Orientation tag is not. Pixels that lie uncompressed in one run are memory-mapped instead. The
file is opened anew for each read, so that threads and forked workers share no file position.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from .instrument import Instrument, page_instrument
from .limits import fits
from .pages import planes_of
from .pixels import as_pixels, grey_or_rgb
from .planes import PlaneSource
from .reasons import explained
from .source import Problem
from .vendor import pixel_size_of

# Bytes that one byte of a segment can become, at most; other codecs have no bound but LARGEST_SEGMENT.
EXPANSION = {1: 1, 5: 4096, 8: 1040, 32773: 128, 32946: 1040}  # none, LZW, Deflate, PackBits
LUMINANCE = (0.299, 0.587, 0.114)
ALPHA = (1, 2)  # of ExtraSamples: associated and unassociated; 0 says nothing about the sample
ZEISS = 34118
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
        if page.keyframe.compression != 1:
            _ = page.keyframe.decode  # made now, for the same reason: of JPEG it looks into the file
        self._overlay = ZEISS in page.keyframe.tags
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
        samples, extra = key.samplesperpixel, tuple(key.extrasamples)
        alpha = (samples == 2 and extra[-1:] and extra[-1] in ALPHA) or (samples == 4 and key.photometric == 2)
        if samples not in (1, 3) and not alpha:
            return f"it has {samples} samples a pixel; accepted: 1 (grey, palette) or 3 (RGB), and an opaque alpha"
        if key.photometric not in (0, 1, 2, 3) and not (key.photometric == 6 and key.compression in (6, 7)):
            return f"its photometric interpretation is {key.photometric!r}; accepted: grey, palette or RGB"
        return None

    def why_not_there(self) -> str | None:
        """None where the segments that the page lists can hold the pixels that it claims."""
        key = self._key
        planes, _, height, width, samples = (int(n) for n in key.shaped)
        tall, wide = self._segment_size
        needed, listed = planes * -(-height // tall) * -(-width // wide), len(self._page.dataoffsets)
        if self._offset is None and listed != needed:
            return f"it lists {listed} segments, {needed} are needed for {width} x {height} pixels"
        if (claimed := tall * wide * samples * key.dtype.itemsize) > LARGEST_SEGMENT and self._offset is None:
            return f"one segment claims {claimed} bytes; accepted: up to {LARGEST_SEGMENT}"
        there = sum(self._page.databytecounts)
        most = there * EXPANSION.get(int(key.compression), 2**62)
        if (planes * height * width * samples * key.bitspersample // 8) > most and self._offset is None:
            return f"it is truncated: it claims {width} x {height} pixels in segments of {there} bytes"
        return None

    @property
    def _segment_size(self) -> tuple[int, int]:
        """Rows and columns of a strip or tile."""
        key = self._key
        if key.is_tiled:
            return max(key.tilelength, 1), max(key.tilewidth, 1)
        return max(min(key.rowsperstrip, key.imagelength), 1), max(key.imagewidth, 1)

    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """Pixels of the window; OSError or ValueError where the file is damaged."""
        if (reason := self.why_not() or self.why_not_there()) is not None:
            raise ValueError(reason)
        key = self._key
        fits((rows.stop - rows.start) * (columns.stop - columns.start) * key.samplesperpixel * key.dtype.itemsize)
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
        tall, wide = self._segment_size
        fits(tall * wide * samples * key.dtype.itemsize, "one of its segments")
        down, across = -(-height // tall), -(-width // wide)
        out = np.empty((planes, rows.stop - rows.start, columns.stop - columns.start, samples), key.dtype)
        for plane in range(planes):
            for i in range(rows.start // tall, -(-rows.stop // tall)):
                for j in range(columns.start // wide, -(-columns.stop // wide)):
                    segment = self._segment((plane * down + i) * across + j)
                    top, left = i * tall, j * wide
                    r0, r1 = max(top, rows.start), min(top + tall, rows.stop)
                    c0, c1 = max(left, columns.start), min(left + wide, columns.stop)
                    part = segment[r0 - top : r1 - top, c0 - left : c1 - left]
                    if part.shape != (r1 - r0, c1 - c0, samples):
                        raise OSError(f"a segment has {part.shape} pixels where {r1 - r0, c1 - c0, samples} are needed")
                    out[plane, r0 - rows.start : r1 - rows.start, c0 - columns.start : c1 - columns.start] = part
        return out

    def _segment_bytes(self, index: int) -> int:
        """Of a decoded segment; the last strip of an image may be shorter."""
        key = self._key
        height, _, samples = key.shaped[2:]
        tall, wide = self._segment_size
        if not key.is_tiled:
            tall = min(tall, height - index % -(-height // tall) * tall)
        return int(tall * wide * samples * key.bitspersample // 8)

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
            data = file.read(min(count, os.fstat(file.fileno()).st_size))
        if len(data) < count:
            raise OSError(f"the file is truncated: segment {index} has {len(data)} of {count} bytes")
        if (claimed := self._segment_bytes(index)) > count * EXPANSION.get(int(self._key.compression), claimed):
            raise OSError(f"segment {index} has {count} bytes and claims to become {claimed}")
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
        if pixels.shape[-1] in (2, 4):
            extra = tuple(self._key.extrasamples)
            if extra[-1:] != (0,) and not (pixels[..., -1] == self._white(pixels.dtype)).all():
                raise ValueError("it has transparent pixels; accepted: grey or RGB")
            pixels = pixels[..., :-1]
        if pixels.shape[-1] == 3:
            return grey_or_rgb(pixels)
        pixels = np.ascontiguousarray(pixels[..., 0])
        if self._key.photometric == 3:
            return self._through_palette(pixels)
        if self._key.photometric == 0 and pixels.dtype.kind == "u":
            return self._white(pixels.dtype) - pixels
        return pixels

    def _white(self, dtype: np.dtype[Any]) -> Any:
        """The largest value of a sample, also of 4 bit in a byte and of 12 bit in two."""
        return dtype.type(2**self._key.bitspersample - 1) if dtype.kind == "u" else dtype.type(1)

    def grey_table(self) -> np.ndarray | None:
        """The grey value of each index of a palette; None where there is none, or colours that are no annotation's."""
        if self._key.photometric != 3 or self._palette is None:
            return None
        table, grey = self._table()
        return table[0] if grey.all() else None

    def _through_palette(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.dtype.kind != "u":
            raise ValueError(f"its palette is of {pixels.dtype} pixels")
        table, grey = self._table()
        return table[0][pixels] if grey.all() else grey_or_rgb(np.moveaxis(table[:, pixels], 0, -1))

    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """(3, colours) of the palette, and which colours are grey."""
        palette, colours = self._palette, 2**self._key.bitspersample
        if palette is None or palette.shape != (3, colours):
            raise ValueError(f"its palette is absent or not of {colours} colours")
        # palettes hold 16 bits, v * 256 or v * 257; some writers leave v itself there, as libtiff's tools know
        table = (palette if palette.max() < 256 else palette >> 8).astype(np.uint8)
        grey = (table[0] == table[1]) & (table[0] == table[2])
        if not grey.all() and self._overlay:  # Zeiss: a grey ramp, and colours of annotations that cover grey pixels
            table[:, ~grey] = np.round(np.array(LUMINANCE) @ table[:, ~grey]).astype(np.uint8)
            grey[:] = True
        return table, grey


class TiffSource(PlaneSource):
    """One page: a mosaic that is cut. Several pages: one page a tile, except tiled pages larger than `tile`."""

    def __init__(self, path: Path, tile: int | None) -> None:
        import tifffile

        try:
            # _multifile: an OME-TIFF may name other files, anywhere; only this one is read
            with tifffile.TiffFile(path, _multifile=False) as file:
                planes, self._coordinates, faults = _planes(path, file)
                self.pixel_nm = pixel_size_of(file)
        except FileNotFoundError:
            raise
        except Exception as error:  # tifffile raises what a damaged structure leads it to
            raise ValueError(f"{path} cannot be opened as TIFF: {type(error).__name__}: {error}") from error
        if not planes:
            raise ValueError(f"{path} holds no pages; accepted: a TIFF with at least one image")
        first = next((plane for plane in planes if plane is not None), None)
        if first is not None and (reason := first.why_not()) is not None:
            raise ValueError(f"{path}: {reason}")
        mosaic = len(planes) == 1 or (tile is not None and first is not None and _cuttable(first, tile))
        super().__init__(path.name, tile if mosaic else None)
        self._planes, self._path = planes, path
        # a plane that cannot be read is one tile, whatever size it claims
        bad = [plane is None or plane.why_not() or plane.why_not_there() for plane in planes]
        self._plane_sizes = [(1, 1) if b or p is None else p.size for b, p in zip(bad, planes, strict=True)]
        self.problems = tuple(Problem(path.name, "damaged", fault) for fault in faults)
        if first is not None and (bits := first._key.bitspersample) not in (8, 16, 32, 64):
            self.data_range = float(2**bits - 1)

    def sizes(self) -> list[tuple[int, int]]:
        return self._plane_sizes

    def _plane_meta(self, plane: int) -> dict[str, Any]:
        return self._coordinates[plane]

    def instrument_of_plane(self, plane: int) -> Instrument | None:
        import tifffile

        with explained(self.name, self.name), tifffile.TiffFile(self._path, _multifile=False) as file:
            page, here = planes_of(file).pages[plane], self._planes[plane]
            return None if page is None or here is None else page_instrument(page, here.grey_table())

    def window(self, tile: str, plane: int, rows: slice, columns: slice) -> np.ndarray:
        page = self._planes[plane]
        with explained(tile, self.name):
            if page is None:
                raise FileNotFoundError("the plane is in another file of a multi-file OME-TIFF")
            return as_pixels(tile, page.window(rows, columns))


def _cuttable(plane: TiffPlane, tile: int) -> bool:
    return bool(plane._key.is_tiled) and max(plane.size) > tile


def _planes(path: Path, file: Any) -> tuple[list[TiffPlane | None], list[dict[str, Any]], list[str]]:
    """Full-resolution planes of a file, the coordinates of each, and what is wrong with the file as a whole."""
    pages = planes_of(file)
    offsets = pages.offsets or [None] * len(pages.pages)
    planes = [None if p is None else TiffPlane(path, p, o) for p, o in zip(pages.pages, offsets, strict=True)]
    return planes, list(pages.places), pages.faults
