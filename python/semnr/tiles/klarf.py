"""KLARF as a source: each image of each defect is a tile, with its die, in-die and wafer coordinates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..klarf import Defect, ImageRef, InspectedWafer, KlarfError, read_klarf
from .decoding import TIFF_SUFFIXES, decode
from .pages import checked_chain, main_pages
from .pixels import as_pixels
from .places import Here, Place
from .reasons import explained
from .source import Problem, TileKey, TileSource
from .tiff import TiffPlane

SUFFIXES = (".klarf", ".klf", ".kla", ".krf")
_PAGED = 8  # multi-page TIFFs kept open by their page tables


@dataclass(frozen=True)
class _Site:
    key: TileKey
    image: ImageRef


def is_klarf(path: Path) -> bool:
    """By suffix; tools also number their files (.000, .001, ...)."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (len(suffix) == 4 and suffix[1:].isdigit())


class KlarfSource(TileSource):
    """Tiles "<wafer>/d000001", and "<wafer>/d000001-2" for a defect's second image. The order is the file's.

    An image is a file beside the KLARF file, or one page of a TIFF that all defects share: page n of KLARF 1.x counts
    from 0 where any defect names page 0, else from 1; `problems` says so where a file leaves that open.
    """

    def __init__(self, path: Path, place: Place, first_page: int | None = None) -> None:
        try:
            klarf = read_klarf(path)
        except KlarfError as error:
            raise ValueError(str(error)) from error
        self.name, self._place = path.name, place
        self._sites: list[_Site] = []
        problems = [Problem(path.name, "damaged", text) for text in klarf.problems]
        refs = [ref for wafer in klarf.wafers for defect in wafer.defects for ref in defect.images]
        named = Counter(ref.file for ref in refs)
        self._shared = {file for file, count in named.items() if count > 1}
        # a fetched file has another name each time it is read
        self._pages = lru_cache(maxsize=_PAGED)(_pages) if isinstance(place, Here) else _pages
        self._first_page, doubts = self._counted_from(refs) if first_page is None else (first_page, [])
        problems += [Problem(path.name, "ambiguous", doubt) for doubt in doubts]
        layouts = [wafer.layout for wafer in klarf.wafers]
        self.layout = layouts[0] if layouts and all(layout == layouts[0] for layout in layouts) else None
        seen: set[str] = set()
        for wafer in klarf.wafers:
            for defect in wafer.defects:
                problems += self._add(wafer, defect, klarf.lot_id, seen)
        self.problems = tuple(problems)

    def _counted_from(self, refs: list[ImageRef]) -> tuple[int, list[str]]:
        """Whether pages count from 0 or 1, and what leaves that open: no file's first or last page may be named."""
        pages: dict[str, set[int]] = {}
        for ref in refs:
            if ref.file in self._shared and ref.file is not None and ref.page is not None:
                pages.setdefault(ref.file.replace("\\", "/"), set()).add(ref.page)
        if any(0 in named for named in pages.values()):
            return 0, []
        doubts = []
        for file, named in pages.items():
            count = self._page_count(file)
            if count is not None and max(named) >= count:
                return 1, []
            if count is not None:
                doubts.append(
                    f"pages {min(named)} to {max(named)} of {count} of {file} are named: they are counted from 1 here, "
                    "where a tool counts from 0 each image is the one before; accepted: open_tiles(..., "
                    "first_page=0 or 1)"
                )
        return 1, doubts

    def _page_count(self, file: str) -> int | None:
        """Pages of a TIFF; None where there is none to count."""
        if not file.lower().endswith(TIFF_SUFFIXES) or self._place.refusal(file) is not None:
            return None
        try:
            with self._place.file(file) as path:
                return len(self._pages(path))
        except Exception:
            return None  # reading its tiles says why

    def _add(self, wafer: InspectedWafer, defect: Defect, lot_id: str | None, seen: set[str]) -> Iterator[Problem]:
        name = f"{wafer.wafer_id or 'wafer'}/d{defect.id:06d}"
        if not defect.images:
            yield Problem(name, "missing", f"defect {defect.id} has no image")
        meta: dict[str, Any] = {
            "lot_id": lot_id,
            "wafer_id": wafer.wafer_id,
            "slot": wafer.slot,
            "die_x": defect.die_x,
            "die_y": defect.die_y,
            "x_um": defect.x_um,
            "y_um": defect.y_um,
            "site_id": defect.id,
            "class_number": defect.class_number,
        }
        if wafer.layout is not None:
            meta["wafer_x_um"], meta["wafer_y_um"] = wafer.absolute_um(defect)
        for number, image in enumerate(defect.images, start=1):
            tile = name if number == 1 else f"{name}-{number}"
            file = (image.file or "").replace("\\", "/")
            if tile in seen:
                yield Problem(tile, "duplicate", f"defect {defect.id} is listed twice")
            elif not file:
                yield Problem(tile, "missing", f"defect {defect.id} names an image but no TiffFileName")
            elif (reason := self._place.refusal(file)) is not None:
                yield Problem(
                    tile, "refused", f"its image {file!r} lies outside the folder ({reason}); accepted: root=DIR"
                )
            else:
                seen.add(tile)
                kept = {key: value for key, value in meta.items() if value is not None}
                self._sites.append(_Site(TileKey(tile, len(self._sites), file, kept), image))

    def files(self) -> list[str]:
        return [str(site.key.path) for site in self._sites]

    def __len__(self) -> int:
        return len(self._sites)

    def __iter__(self) -> Iterator[TileKey]:
        return (site.key for site in self._sites)

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        self._check_role(role)
        if not 0 <= key.index < len(self):
            raise ValueError(f"key.index is {key.index}; {self.name} has tiles 0 to {len(self) - 1}")
        site = self._sites[key.index]
        name = str(site.key.path)
        with explained(key.tile, name), self._place.file(name) as file:
            if file.suffix.lower() not in TIFF_SUFFIXES or site.image.page is None:
                return decode(file, key.tile)
            return self._page(key.tile, file, site.image)

    def _page(self, tile: str, file: Path, image: ImageRef) -> np.ndarray:
        planes = self._pages(file)
        # a file an image: the number then names the image, not a page
        alone = len(planes) == 1 and image.file not in self._shared
        index = 0 if alone or image.page is None else image.page - self._first_page
        if not 0 <= index < len(planes):
            raise ValueError(f"page {image.page} is asked for, it has {len(planes)}")
        height, width = planes[index].size
        return as_pixels(tile, planes[index].window(slice(0, height), slice(0, width)))


def _pages(path: Path) -> list[Any]:
    import tifffile

    with tifffile.TiffFile(path, _multifile=False) as file:
        checked_chain(file)
        return [TiffPlane(path, page) for page in main_pages(file)]
