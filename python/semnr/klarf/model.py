"""What a KLARF file says, whatever its version: lengths in micrometres, in-die places from the lower-left corner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..wafers import Wafer
from .text import as_whole


class KlarfError(ValueError):
    """The text is no KLARF file, or one that cannot be read at all."""


@dataclass(frozen=True)
class ImageRef:
    """An image of a defect: a file (None: the file names none), and the page in it, from 0."""

    file: str | None
    page: int | None = None
    kind: str | None = None


@dataclass(frozen=True)
class Defect:
    """One row of a DefectList; `columns` holds every column as the file has it, in the file's units."""

    id: int
    die_x: int
    die_y: int
    x_um: float
    y_um: float
    size_um: tuple[float, float] | None = None
    area_um2: float | None = None
    class_number: int | None = None
    images: tuple[ImageRef, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InspectedWafer:
    """One wafer of a file: its layout, the dies that were inspected, its defects."""

    wafer_id: str | None
    layout: Wafer | None  # None: the file gives no die pitch
    slot: int | None = None
    test_plan: tuple[tuple[int, int], ...] = ()
    defects: tuple[Defect, ...] = ()

    def absolute_um(self, defect: Defect) -> tuple[float, float]:
        """Position from the wafer's centre: index · pitch + relative − SampleCenterLocation.

        Raises
        ------
        KlarfError
            The file gives no die pitch.
        """
        if self.layout is None:
            raise KlarfError("the file gives no DiePitch; absolute positions need it")
        x, y = self.layout.absolute(defect.die_x, defect.die_y, defect.x_um, defect.y_um)
        return float(x), float(y)


@dataclass(frozen=True)
class Klarf:
    """A KLARF file. `problems` names what could not be read, by line; the rest was."""

    version: str
    lot_id: str | None = None
    device_id: str | None = None
    step_id: str | None = None
    setup_id: str | None = None
    station: tuple[str, ...] = ()
    wafers: tuple[InspectedWafer, ...] = ()
    classes: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


_WHOLE = ("DEFECTID", "XINDEX", "YINDEX")
_PLACE = ("XREL", "YREL")


def defect_of(row: Mapping[str, Any], images: tuple[ImageRef, ...], units_per_um: float) -> Defect | str:
    """The defect that a row of a DefectList tells, or what its id or place is where that is none."""
    numbers = {name: cell for name, cell in row.items() if isinstance(cell, int | float)}
    for name in (*_WHOLE, *_PLACE):
        if name not in row:
            return f"a defect without {name}"
        if name not in numbers or (name in _WHOLE and as_whole(numbers[name]) is None):
            what = "a whole number below 2**53" if name in _WHOLE else "a number"
            return f"a defect whose {name} is {row[name]!r}; accepted: {what}"
    sized = "XSIZE" in numbers and "YSIZE" in numbers
    return Defect(
        id=int(numbers["DEFECTID"]),
        die_x=int(numbers["XINDEX"]),
        die_y=int(numbers["YINDEX"]),
        x_um=numbers["XREL"] / units_per_um,
        y_um=numbers["YREL"] / units_per_um,
        size_um=(numbers["XSIZE"] / units_per_um, numbers["YSIZE"] / units_per_um) if sized else None,
        area_um2=numbers["DEFECTAREA"] / units_per_um**2 if "DEFECTAREA" in numbers else None,
        class_number=as_whole(numbers.get("CLASSNUMBER")),
        images=images,
        columns=row,
    )
