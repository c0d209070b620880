"""The marked places of a residual for Fiji and ImageJ: ROIs in a zip, or a table as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..base.files import atomic
from ..base.outputs import replaceable
from ..runs import Run
from ..trust.residual import ResidualTests
from .extras import need

__all__ = ["Mark", "marks_of", "write_csv", "write_rois"]

HEAD = ("Label", "BX", "BY", "Width", "Height", "Slice", "Kind", "z")
COLOURS = {"removed": b"\xff\xff\x00\x00", "invented": b"\xff\x00\x80\xff"}  # ARGB


@dataclass(frozen=True)
class Mark:
    """One marked place.

    Attributes
    ----------
    tile : str
        Name of the tile; of arrays its number.
    slice : int
        Its place in a stack, from 1, as ImageJ counts.
    kind : {"removed", "invented"}
        What happened to structure there.
    left, top, width, height : float
        The box, in pixels from the upper-left corner of the tile.
    z : float
        Noisy minus denoised, in standard errors of the noise.
    """

    tile: str
    slice: int
    kind: str
    left: float
    top: float
    width: float
    height: float
    z: float

    @property
    def label(self) -> str:
        """A name for the list of ROIs."""
        return f"{self.tile} {self.kind} z {self.z:.1f}"


def marks_of(found: Any, tile: str | None = None) -> list[Mark]:
    """The marks of residual tests or of a run, in the order of the tiles, strongest first.

    Parameters
    ----------
    found : ResidualTests, Run, or the folder of a run
        What `semnr.residual_tests` or `semnr.score` gave.
    tile : str, optional
        Of this tile alone.

    Returns
    -------
    list of Mark

    Raises
    ------
    TypeError, ValueError
        Something else was given; the run has no tile of this name, or its residual was not tested.
    """
    tiles = list(_tiles(found))
    if tile is not None and tile not in {name for name, _, _ in tiles}:
        raise ValueError(f"tile is {tile!r}; accepted: one of the {len(tiles)} tiles that were tested")
    return [
        Mark(
            name,
            place,
            box["kind"],
            box["col"] - box["width"] / 2,
            box["row"] - box["height"] / 2,
            box["width"],
            box["height"],
            box["z"],
        )
        for name, place, boxes in tiles
        if tile is None or name == tile
        for box in boxes
    ]


def write_csv(path: str | os.PathLike[str], found: Any, *, tile: str | None = None) -> int:
    """Write the marks as a table that ImageJ imports as results.

    Columns: Label, BX, BY, Width, Height (px, the upper-left corner first), Slice (from 1), Kind, z.

    Parameters
    ----------
    path : path
        The file; one that an earlier call wrote is replaced.
    found, tile
        As for `marks_of`.

    Returns
    -------
    int
        How many marks were written.

    Raises
    ------
    FileExistsError
        The path holds something that this function did not write.
    """
    out = replaceable("path", path, "marks", lambda content: content.startswith(",".join(HEAD).encode()))
    marks = marks_of(found, tile)
    with atomic(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD)
        writer.writerows((m.label, m.left, m.top, m.width, m.height, m.slice, m.kind, m.z) for m in marks)
    return len(marks)


def write_rois(path: str | os.PathLike[str], found: Any, *, tile: str | None = None) -> int:
    """Write the marks as ROIs in a zip that the ROI manager of Fiji and ImageJ opens.

    Parameters
    ----------
    path : path
        The file (`.zip`); one that an earlier call wrote is replaced.
    found, tile
        As for `marks_of`.

    Returns
    -------
    int
        How many marks were written.

    Raises
    ------
    ImportError
        The extra `fiji` is not installed.
    FileExistsError
        The path holds something that this function did not write.
    """
    roifile = need("roifile", "fiji")
    out = replaceable("path", path, "ROIs", _are_rois)
    marks = marks_of(found, tile)
    with atomic(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for number, mark in enumerate(marks, start=1):
            roi = roifile.ImagejRoi(
                roitype=roifile.ROI_TYPE.RECT,
                version=228,
                left=round(mark.left),
                top=round(mark.top),
                right=round(mark.left + mark.width),
                bottom=round(mark.top + mark.height),
                position=mark.slice,
                stroke_color=COLOURS[mark.kind],
                name=mark.label,
            )
            file.writestr(f"{number:04d}-{mark.label.replace('/', '_')}.roi", roi.tobytes())
    return len(marks)


def _tiles(found: Any) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """Name, slice and boxes of each tile."""
    if isinstance(found, ResidualTests):
        for number, boxes in enumerate(found.boxes):
            yield str(number), number + 1, boxes
        return
    if isinstance(found, str | os.PathLike):
        found = Run.open(found)
    if not isinstance(found, Run):
        raise TypeError(f"found is {type(found).__name__}; accepted: ResidualTests, a Run, or the folder of one")
    table = found.table()
    if "evidence_boxes" not in table.column_names:
        raise ValueError("found is a run without residual tests; accepted: one that was scored with the noisy input")
    rows = table.select(["tile", "index", "evidence_boxes"]).to_pylist()
    for row in sorted(rows, key=lambda row: row["index"]):
        yield row["tile"], int(row["index"]) + 1, json.loads(row["evidence_boxes"] or "[]")


def _are_rois(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            return all(name.endswith(".roi") for name in file.namelist())
    except zipfile.BadZipFile:
        return False
