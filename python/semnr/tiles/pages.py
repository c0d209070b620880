"""Which pages of a TIFF are images, and which plane of a stack each is. Headers are compared with the file."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .vendor import parsed_xml

MOST_ELSEWHERE = 65_536  # planes in other files that an OME-TIFF may name: each is a row


@dataclass
class Planes:
    """Pages of the planes that are to be read, in order, None where another file has it; what each is called."""

    pages: list[Any]
    places: list[dict[str, int]]
    faults: list[str] = field(default_factory=list)
    offsets: list[int | None] = field(default_factory=list)  # of pixels, where one page describes several planes


def checked_chain(file: Any) -> str | None:
    """Follow the pointers from page to page before anything else does; None, or why the chain ends too early.

    Raises
    ------
    ValueError
        The pointers lead in a circle.
    """
    tiff, handle = file.tiff, file.filehandle
    seen: set[int] = set()
    handle.seek(8 if tiff.is_bigtiff else 4)
    offset = _number(handle, tiff.offsetformat, tiff.offsetsize)
    while offset:
        if offset in seen:
            raise ValueError(f"its page pointers lead in a circle: page {len(seen) + 1} is one of those before it")
        seen.add(offset)
        handle.seek(min(offset, handle.size))
        tags = _number(handle, tiff.tagnoformat, tiff.tagnosize)
        end = offset + tiff.tagnosize + (tags or 0) * tiff.tagsize
        handle.seek(min(end, handle.size))
        following = None if tags is None else _number(handle, tiff.offsetformat, tiff.offsetsize)
        if following is None:
            return f"page {len(seen)} lies beyond the end of the file, which may be cut off"
        offset = following
    return None


def _number(handle: Any, form: str, size: int) -> int | None:
    try:
        return int(struct.unpack(form, handle.read(size))[0])
    except struct.error:
        return None


def main_pages(file: Any) -> list[Any]:
    """Pages at full resolution: no thumbnails, overviews or masks. They may lie below a first page that is one."""
    pages = list(file.pages)
    main = [page for page in pages if not (page.is_reduced or page.is_mask)]
    if not main:
        below = [sub for page in pages if page.is_reduced and page.subifds for sub in page.pages]
        main = [page for page in below if not (page.is_reduced or page.is_mask)]
    for page in main:  # a tag may be of any type: a text times a length would be a text of that length
        for name, size in (("length", page.imagelength), ("width", page.imagewidth)):
            if not isinstance(size, int):
                raise ValueError(f"its {name} is of type {type(size).__name__}; accepted: an integer")
    return main


def planes_of(file: Any) -> Planes:
    """Planes of a file: those that its OME or ImageJ metadata name, else its pages."""
    fault = checked_chain(file)
    planes = (_ome(file) if file.is_ome else None) or (_imagej(file) if file.is_imagej else None) or _plain(file)
    planes.faults += [fault] if fault is not None else []
    return planes


def _plain(file: Any) -> Planes:
    pages = main_pages(file)
    return Planes(pages, [{"page": page.index} if len(pages) > 1 else {} for page in pages])


# --- ImageJ ---------------------------------------------------------------------------------------------------------


def _imagej(file: Any) -> Planes | None:
    """A hyperstack: a page a plane, or, above 4 GiB, one page and the pixels of all planes to the end of the file."""
    pages = list(file.pages)
    told = dict(re.findall(r"^(images|channels|slices|frames)=(\d+)\s*$", pages[0].description or "", re.MULTILINE))
    sizes = [int(told.get(name, 1)) for name in ("frames", "slices", "channels")]
    count = int(told.get("images", 1))
    if sizes[0] * sizes[1] * sizes[2] != count:
        sizes = [1, count, 1]
    if len(pages) == count > 1:
        return Planes(pages, [_place("tzc", sizes, i) for i in range(count)])
    first, nbytes = pages[0].dataoffsets[:1], pages[0].nbytes
    if len(pages) > 1 or count == 1:
        return None
    if pages[0].is_final and first and first[0] + count * nbytes == file.filehandle.size:
        places = [_place("tzc", sizes, i) for i in range(count)]
        return Planes(pages * count, places, offsets=[first[0] + i * nbytes for i in range(count)])
    planes = _plain(file)
    planes.faults.append(f"its ImageJ description names {count} images, the file has one page and no pixels of others")
    return planes


def _place(axes: str, sizes: list[int], index: int) -> dict[str, int]:
    """Coordinates of a plane along the axes that have more than one, slowest first."""
    place = {}
    for axis, size in zip(reversed(axes), reversed(sizes), strict=True):
        index, at = divmod(index, size)
        if size > 1:
            place[axis] = at
    return dict(reversed(place.items()))


# --- OME ------------------------------------------------------------------------------------------------------------


def _ome(file: Any) -> Planes | None:
    """Planes of the first image, as its TiffData elements map them; None where the metadata are none."""
    root = parsed_xml(file.ome_metadata)
    pixels = next((node for node in root.iter() if _tag(node) == "Pixels"), None) if root is not None else None
    if root is None or pixels is None:
        return None
    axes = pixels.get("DimensionOrder", "")[:1:-1]
    if sorted(axes) != ["C", "T", "Z"]:
        raise ValueError(f"its OME DimensionOrder is {pixels.get('DimensionOrder')!r}; accepted: XY and Z, C, T")
    samples = next((int(n.get("SamplesPerPixel", 1)) for n in pixels if _tag(n) == "Channel"), 1)
    sizes = [int(pixels.get(f"Size{axis}", 1)) // (samples if axis == "C" else 1) for axis in axes]
    count = sizes[0] * sizes[1] * sizes[2]
    if min(sizes) < 1 or samples < 1:
        raise ValueError(f"its OME sizes are {dict(zip(axes, sizes, strict=True))}; accepted: at least 1")
    pages = list(file.pages)
    by_index: dict[int, Any] = {}
    for data in (node for node in pixels if _tag(node) == "TiffData"):
        start = 0
        for axis, size in zip(axes, sizes, strict=True):
            start = start * size + int(data.get(f"First{axis}", 0))
        ifd, here = int(data.get("IFD", 0)), _is_here(data, root, file)
        planes = int(data.get("PlaneCount", data.get("NumPlanes", 1 if "IFD" in data.attrib or not here else count)))
        most = len(pages) - ifd if here else MOST_ELSEWHERE - len(by_index)
        for i in range(min(planes, most, count - start)):
            by_index[start + i] = pages[ifd + i] if here else None
    if not any(page is not None for page in by_index.values()):
        by_index = dict(enumerate(main_pages(file)[:count]))
    held = sorted(by_index)
    planes_of_file = Planes([by_index[i] for i in held], [_place(axes.lower(), sizes, i) for i in held])
    if len(by_index) < count:
        planes_of_file.faults.append(
            f"its OME metadata name {count} planes, {len(by_index)} of them are there; the others are missing"
        )
    return planes_of_file


def _tag(node: Any) -> str:
    return str(node.tag).rpartition("}")[2]


def _is_here(data: Any, root: Any, file: Any) -> bool:
    """Whether a TiffData element speaks of this file: it names none, or this one by its identifier or name."""
    uuid: Iterator[Any] = (node for node in data if _tag(node) == "UUID")
    named = next(uuid, None)
    if named is None:
        return True
    own = root.get("UUID")
    return (own is not None and named.text == own) or named.get("FileName", "").lower() == file.filename.lower()
