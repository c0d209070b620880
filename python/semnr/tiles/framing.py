"""Which pixels of an image count: without its data bar (`crop`), inside a mask; the same for both images of a pair."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels import TileError

from .databar import Bar, find_bar, lower_end, parse_crop
from .decoding import decode
from .over import Over
from .planes import PlaneSource
from .source import TileKey, TileSource

Size = tuple[int, int]
_KEPT = 256  # decisions held: neighbouring reads of one image share them
_SHOWN = 2


class Frame:
    """What counts of each image, decided once on one source of a pair and the same for the others.

    Parameters
    ----------
    witness : (TileSource, role)
        The images that the data bar is looked for in: the noisy ones.
    crop : "auto", (left, top, right, bottom) or None
    mask : (H, W) of bool, optional
        True where a pixel counts; of the images as they are or as they are cropped.
    """

    def __init__(self, witness: tuple[TileSource, str], crop: Any, mask: np.ndarray | None) -> None:
        self.crop, self.mask = crop, mask
        self._source, self._role = witness
        self._bars: OrderedDict[Any, tuple[Size, Bar]] = OrderedDict()
        self._lock = threading.Lock()
        self._said: dict[str, tuple[str, Bar]] = {}

    def of_tile(self, tile: str) -> tuple[Size, Bar]:
        """The size of a whole image, and its bar."""

        def look() -> tuple[Size, Bar]:
            key = self._source.find(tile)
            if key is None:
                raise TileError(tile, f"{self._source.name} has no such image to find the data bar in", "missing")
            pixels = self._source.read(key, self._role)
            size = (pixels.shape[-2], pixels.shape[-1])
            lower = pixels[..., lower_end(size[0]) :, :]
            return size, find_bar(lower, size, self._source.instrument(key, self._role))

        return self._decided(tile, tile, look)

    def of_plane(self, plane: int) -> tuple[Size, Bar]:
        source = self._source
        assert isinstance(source, PlaneSource)

        def look() -> tuple[Size, Bar]:
            height, width = source.sizes()[plane]
            lower = source.window(source.name, plane, slice(lower_end(height), height), slice(0, width))
            return (height, width), find_bar(lower, (height, width), source.instrument_of_plane(plane))

        return self._decided(plane, source.name, look)

    def top(self) -> float | None:
        """The largest value of the integers that the images hold; None where they are floating."""
        for key in self._source:
            try:
                kind = self._source.read(key, self._role).dtype
            except TileError:
                continue
            return float(np.iinfo(kind).max) if kind.kind == "u" else None
        return None

    def _decided(self, at: Any, name: str, look: Any) -> tuple[Size, Bar]:
        with self._lock:
            if at in self._bars:
                return self._bars[at]
        decision = look() if self.crop == "auto" else ((0, 0), Bar(self.crop, "as it was asked for"))
        with self._lock:
            self._bars[at] = decision
            self._said.setdefault(str(at), (name, decision[1]))
            while len(self._bars) > _KEPT:
                self._bars.popitem(last=False)
        return decision

    def part(self, size: Size, whole: Size, bar: Bar, tile: str) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of an image of this size, which may have been cut already."""
        height, width = size
        box = bar.box
        if box is None or size == (box[3] - box[1], box[2] - box[0]):
            return 0, 0, width, height
        if self.crop == "auto" and size != whole:
            return 0, 0, width, height  # of another size: the pair says so
        if box[2] > width or box[3] > height:
            raise TileError(tile, f"it is {width} x {height} pixels, crop is {','.join(map(str, box))}", "wrong_size")
        return box

    def counts(self, size: Size, box: tuple[int, int, int, int], tile: str) -> np.ndarray | None:
        """The mask of an image of this size in its box."""
        if self.mask is None:
            return None
        left, top, right, bottom = box
        if self.mask.shape == (bottom - top, right - left):
            return self.mask
        if self.mask.shape == size:
            return self.mask[top:bottom, left:right]
        raise TileError(
            tile,
            f"it is {size[1]} x {size[0]} pixels, the mask {self.mask.shape[1]} x {self.mask.shape[0]}",
            "wrong_size",
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was cut, and how it was known; what could not be told."""
        with self._lock:
            said = list(self._said.values())
        cut = Counter((bar.box, bar.how) for _, bar in said if bar.box is not None)
        lines = [
            f"{count} image(s) cropped to {box[2] - box[0]} x {box[3] - box[1]} from ({box[0]}, {box[1]}), {how}"
            for (box, how), count in cut.most_common(5)
        ]
        unsure = [(name, bar) for name, bar in said if not bar.known]
        if unsure:
            names = ", ".join(name for name, _ in unsure[:_SHOWN]) + (", ..." if len(unsure) > _SHOWN else "")
            lines.append(
                f"{len(unsure)} image(s) were left whole, {unsure[0][1].how} ({names}): --crop left,top,right,bottom "
                "says what counts"
            )
        return tuple(lines)


def _masked(pixels: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Pixels that do not count as NaN, in float32, which holds every 16-bit value."""
    if mask is None:
        return pixels
    masked = pixels.astype(np.float64 if pixels.dtype == np.float64 else np.float32)
    masked[..., ~mask] = np.nan
    return masked


class Framed(Over):
    """Whole images, each cropped and masked."""

    def __init__(self, inner: TileSource, frame: Frame) -> None:
        super().__init__(inner)
        self._frame = frame

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "crop": self._frame.crop}

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        pixels = self._source.read(key, role)
        size = (pixels.shape[-2], pixels.shape[-1])
        whole, bar = self._frame.of_tile(key.tile) if self._frame.crop is not None else (size, Bar(None, ""))
        left, top, right, bottom = box = self._frame.part(size, whole, bar, key.tile)
        mask = self._frame.counts(size, box, key.tile)
        return _masked(np.ascontiguousarray(pixels[..., top:bottom, left:right]), mask)


class FramedPlanes(PlaneSource):
    """Mosaics that are cropped and masked before they are cut into tiles."""

    def __init__(self, inner: PlaneSource, frame: Frame) -> None:
        super().__init__(inner.name, inner._tile)
        self.roles, self.pixel_nm, self.data_range = inner.roles, inner.pixel_nm, inner.data_range
        self.problems, self.remarks = inner.problems, inner.remarks
        self._source, self._frame = inner, frame
        self._boxes = [self._box(plane, size) for plane, size in enumerate(inner.sizes())]

    def _box(self, plane: int, size: Size) -> tuple[int, int, int, int]:
        whole, bar = self._frame.of_plane(plane) if self._frame.crop is not None else (size, Bar(None, ""))
        return self._frame.part(size, whole, bar, self.name)

    @property
    def origin(self) -> str | None:
        return self._source.origin

    def settings(self) -> dict[str, Any]:
        return {**self._source.settings(), "crop": self._frame.crop}

    def sizes(self) -> list[Size]:
        return [(bottom - top, right - left) for left, top, right, bottom in self._boxes]

    def _plane_meta(self, plane: int) -> dict[str, Any]:
        return self._source._plane_meta(plane)

    def window(self, tile: str, plane: int, rows: slice, columns: slice) -> np.ndarray:
        left, top, _, _ = box = self._boxes[plane]
        pixels = self._source.window(
            tile, plane, slice(rows.start + top, rows.stop + top), slice(columns.start + left, columns.stop + left)
        )
        mask = self._frame.counts(self._source.sizes()[plane], box, tile)
        return _masked(pixels, None if mask is None else mask[rows, columns])


def read_mask(mask: Any) -> np.ndarray | None:
    """(H, W) of bool from an image file or an array: 0 where a pixel does not count.

    Raises
    ------
    ValueError
        Not two-dimensional, or nothing counts.
    """
    if mask is None:
        return None
    pixels = decode(mask) if isinstance(mask, str | Path) else np.asarray(mask)
    if pixels.ndim != 2:
        raise ValueError(
            f"mask has shape {pixels.shape}; accepted: a grey image (H, W), 0 where a pixel does not count"
        )
    if not (pixels != 0).any():
        raise ValueError("mask is 0 everywhere, so that no pixel counts; accepted: other than 0 where a pixel counts")
    return np.asarray(pixels != 0)


def framed(
    places: dict[str, tuple[TileSource, str]], witness: str, crop: Any, mask: Any
) -> tuple[dict[str, tuple[TileSource, str]], Frame | None]:
    """The sources of a run, by role, with the same part of each image; `witness` is the one that decides."""
    asked, counts = parse_crop(crop), read_mask(mask)
    if asked is None and counts is None:
        return places, None
    frame = Frame(places[witness], asked, counts)
    made: dict[int, TileSource] = {}
    for source, _ in places.values():
        if id(source) not in made:
            cut = isinstance(source, PlaneSource) and source.is_cut
            made[id(source)] = FramedPlanes(source, frame) if cut else Framed(source, frame)  # type: ignore[arg-type]
    return {name: (made[id(source)], role) for name, (source, role) in places.items()}, frame
