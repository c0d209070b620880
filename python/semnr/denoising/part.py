"""The part of each image that is denoised, where a data bar or a mask leaves some out: the rest stays as it was."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from typing import Any

import numpy as np

from ..tiles import TileKey, TileSource
from ..tiles.databar import Bar, find_bar, lower_end, parse_crop
from ..tiles.framing import Frame, read_mask
from ..tiles.planes import PlaneSource

Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom excluded


class Part:
    """What of each image is denoised.

    Parameters
    ----------
    source : TileSource
        The images.
    role : str
        Which role of it is denoised.
    crop : "auto", (left, top, right, bottom) or None
        "auto": all but the data bar.
    mask : path or array, optional
        0 where a pixel is left as it was, and takes no part in the noise law.
    """

    def __init__(self, source: TileSource, role: str, crop: Any, mask: Any) -> None:
        self._source, self._role = source, role
        self._frame = Frame((source, role), parse_crop(crop), read_mask(mask))
        self._said: Counter[tuple[Box, str]] = Counter()
        self._planes: dict[int, tuple[Box, np.ndarray | None]] = {}
        self._seen: set[str] = set()
        self._unsure: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def crop(self) -> Any:
        """As it was asked for."""
        return self._frame.crop

    @property
    def mask(self) -> str | None:
        """Checksum of the mask."""
        mask = self._frame.mask
        return None if mask is None else hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()

    def of_image(self, key: TileKey, pixels: np.ndarray) -> tuple[Box, np.ndarray | None]:
        """The box of a whole image that is denoised, and which of its pixels count (None: all)."""
        height, width = pixels.shape[-2:]
        lower = pixels[..., lower_end(height) :, :]
        return self._of(key.tile, (height, width), lower, self._source.instrument(key, self._role))

    def of_plane(self, plane: int) -> tuple[Box, np.ndarray | None]:
        """The same of a mosaic."""
        with self._lock:
            if plane in self._planes:
                return self._planes[plane]
        source = self._source
        assert isinstance(source, PlaneSource)
        height, width = source.sizes()[plane]
        lower = source.window(source.name, plane, slice(lower_end(height), height), slice(0, width))
        found = self._of(f"{source.name} [{plane}]", (height, width), lower, source.instrument_of_plane(plane))
        with self._lock:
            self._planes[plane] = found
        return found

    def _of(self, name: str, size: tuple[int, int], lower: np.ndarray, instrument: Any) -> tuple[Box, Any]:
        if self.crop is None:
            box: Box = (0, 0, size[1], size[0])
        else:
            bar = Bar(self.crop, "as it was asked for")
            bar = find_bar(lower, size, instrument) if self.crop == "auto" else bar
            box = self._frame.part(size, size, bar, name)
            with self._lock:
                if not bar.known:
                    self._unsure[name] = bar.how
                elif bar.box is not None and name not in self._seen:
                    self._seen.add(name)
                    self._said[box, bar.how] += 1
        return box, self._frame.counts(size, box, name)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was left as it was, and how it was known."""
        with self._lock:
            lines = [
                f"{count} image(s): {box[2] - box[0]} x {box[3] - box[1]} pixels from ({box[0]}, {box[1]}) were "
                f"denoised, {how}; the rest is as it was"
                for (box, how), count in self._said.most_common(5)
            ]
            unsure = list(self._unsure.items())
        if unsure:
            lines.append(
                f"{len(unsure)} image(s) were denoised whole, {unsure[0][1]} ({unsure[0][0]}): --crop "
                "left,top,right,bottom says what counts"
            )
        return (*lines, *(["pixels where the mask is 0 are as they were"] if self.mask is not None else []))


def filled(pixels: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """`pixels` (..., H, W) with those that do not count replaced by the nearest one that does."""
    if counts is None or counts.all() or not counts.any():
        return pixels
    from scipy import ndimage

    rows, columns = ndimage.distance_transform_edt(~counts, return_distances=False, return_indices=True)
    return np.asarray(pixels[..., rows, columns])


def pasted(whole: np.ndarray, inside: np.ndarray, box: Box, counts: np.ndarray | None) -> np.ndarray:
    """`whole` with its box replaced by `inside`, where pixels count."""
    left, top, right, bottom = box
    result = whole.copy()
    place = result[..., top:bottom, left:right]
    place[...] = inside if counts is None else np.where(counts, inside, place)
    return result


def inside_of(pixels: np.ndarray, box: Box, counts: np.ndarray | None) -> np.ndarray:
    """The box of an image, its pixels that do not count filled."""
    left, top, right, bottom = box
    return filled(np.ascontiguousarray(pixels[..., top:bottom, left:right]), counts)
