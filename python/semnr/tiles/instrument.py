"""What a TIFF says beside its pixels (the microscope's tags, the pixel size, the colour map), for a file made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# tags of how pixels are stored, which a new file has of its own; Exif and GPS point into the old file
_STORED = {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338, 339}
_STORED |= {282, 283, 296, 347, 512, 513, 514, 529, 530, 531, 532, 34665, 34853, 40965, 270, 305, 306}
_TEXTS = {270: "description", 305: "software", 306: "datetime"}


@dataclass(frozen=True)
class Instrument:
    """Of one page: what `tifffile` is told so that a page of other pixels says the same, and how pixels are stored.

    byteorder : "<" or ">", of the file; the bytes of the tags are in it.
    options : arguments of `tifffile.TiffWriter.write`.
    white : the value of a white sample where 0 is white, else None.
    table : (colours,) grey value of each index where pixels are stored through a grey palette, else None.
    """

    byteorder: str
    options: dict[str, Any]
    white: int | None = None
    table: np.ndarray | None = None

    def stored(self, pixels: np.ndarray) -> np.ndarray:
        """Grey pixels, as `semnr.tiles.decode` gives them, as the page stores them."""
        if self.table is not None:
            return _indices(self.table)[pixels]
        return pixels if self.white is None else np.asarray(self.white - pixels, pixels.dtype)

    def fits(self, pixels: np.ndarray) -> bool:
        """Whether pixels of this kind can be stored as the page stores its own."""
        if self.table is not None:
            return pixels.ndim == 2 and pixels.dtype == np.uint8
        return (self.white is None or pixels.ndim == 2) and (self.white is None or pixels.dtype.kind == "u")


def _indices(table: np.ndarray) -> np.ndarray:
    """(256,) uint8: for each grey value the index of the nearest entry of a palette."""
    order = np.argsort(table, kind="stable")
    ramp = table[order].astype(np.int32)
    values = np.arange(256)
    after = np.clip(np.searchsorted(ramp, values), 0, len(ramp) - 1)
    before = np.clip(after - 1, 0, None)
    nearer = np.where(values - ramp[before] < np.abs(ramp[after] - values), before, after)
    return order[nearer].astype(np.uint8)


def page_instrument(page: Any, table: np.ndarray | None = None) -> Instrument:
    """Of one page of an open file; `table` is the grey table of its palette, where it has one."""
    if not hasattr(page, "tags"):  # a frame of a series: the tags are those of its first page
        page = page.keyframe
    parent = page.parent
    extra: list[Any] = []
    options: dict[str, Any] = {}
    for tag in page.tags:
        if tag.code in _TEXTS and isinstance(tag.value, str | bytes):
            options[_TEXTS[tag.code]] = _raw(parent, tag).rstrip(b"\0") if tag.code == 270 else tag.value
        elif tag.code not in _STORED:
            extra.append((tag.code, int(tag.dtype), tag.count, _raw(parent, tag), True))
    if (when := options.get("datetime")) is not None and len(str(when)) != 19:
        options.pop("datetime")
    options |= {"extratags": extra, "metadata": None, **_resolution(page)}
    options.setdefault("software", "semnr")
    white = None
    if page.photometric == 0 and page.samplesperpixel == 1:
        options["photometric"], white = "miniswhite", 2**page.bitspersample - 1
    elif page.photometric == 3 and table is not None:
        options["photometric"], options["colormap"] = "palette", page.colormap
    return Instrument(parent.byteorder, options, white, table)


def _raw(parent: Any, tag: Any) -> bytes:
    """The bytes of a tag's value as they are in the file."""
    import tifffile

    size = tifffile.TIFF.DATA_FORMATS[tag.dtype]
    width = np.dtype(size[-1].replace("s", "S1")).itemsize * int(size[:-1] or 1)
    handle = parent.filehandle
    at = handle.tell()
    handle.seek(tag.valueoffset)
    content = bytes(handle.read(width * tag.count))
    handle.seek(at)
    return content


def _resolution(page: Any) -> dict[str, Any]:
    if 282 not in page.tags or 283 not in page.tags:
        return {}
    values = [page.tags[code].value for code in (282, 283)]
    unit = page.tags[296].value if 296 in page.tags else 1
    return {"resolution": tuple(values), "resolutionunit": int(unit)}
