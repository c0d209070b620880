"""The content of a KLARF file of any version: lengths in micrometres, in-die places from the lower-left corner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..wafers import Wafer
from .text import as_whole


class KlarfError(ValueError):
    """The text is no KLARF file, or one that cannot be read at all.

    Examples
    --------
    >>> try:
    ...     semnr.klarf.parse_klarf("a,b,c")
    ... except semnr.klarf.KlarfError as error:
    ...     print(error)
    text is no KLARF file; accepted: one with "FileVersion 1 2;" or Record FileRecord "1.8"
    """


@dataclass(frozen=True)
class ImageRef:
    """An image of a defect.

    Parameters
    ----------
    file : str or None
        Its file; None where the KLARF names none.
    page : int, optional
        The page in it, from 0.
    kind : str, optional
        What the KLARF calls it.

    Examples
    --------
    >>> semnr.klarf.ImageRef("d1.tif", page=0).file
    'd1.tif'
    """

    file: str | None
    page: int | None = None
    kind: str | None = None


@dataclass(frozen=True)
class Defect:
    """One row of a DefectList.

    Parameters
    ----------
    id : int
        Its number in the file.
    die_x, die_y : int
        Index of the die.
    x_um, y_um : float
        Place in the die, from its lower-left corner, in micrometres.
    size_um : (float, float), optional
        Width and height in micrometres.
    area_um2 : float, optional
        Area in square micrometres.
    class_number : int, optional
        Its class.
    images : tuple of ImageRef
        Its images.
    columns : mapping
        Every column as the file has it, in the units of the file.

    Examples
    --------
    >>> defect = semnr.klarf.Defect(1, die_x=0, die_y=-2, x_um=100.0, y_um=200.0, class_number=3)
    >>> defect.die_y, defect.images
    (-2, ())
    """

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
    """One wafer of a file.

    Parameters
    ----------
    wafer_id : str or None
        Its name.
    layout : semnr.wafers.Wafer or None
        Its layout; None where the file gives no die pitch.
    slot : int, optional
        Slot of the cassette.
    test_plan : tuple of (int, int)
        The dies that were inspected.
    defects : tuple of Defect
        Its defects.

    Examples
    --------
    >>> layout = semnr.wafers.Wafer(pitch_um=(8000, 6500))
    >>> wafer = semnr.klarf.InspectedWafer("W1", layout)
    >>> wafer.absolute_um(semnr.klarf.Defect(1, die_x=1, die_y=0, x_um=100.0, y_um=0.0))
    (8100.0, 0.0)
    """

    wafer_id: str | None
    layout: Wafer | None  # None: the file gives no die pitch
    slot: int | None = None
    test_plan: tuple[tuple[int, int], ...] = ()
    defects: tuple[Defect, ...] = ()

    def absolute_um(self, defect: Defect) -> tuple[float, float]:
        """The position of a defect from the wafer's centre: index · pitch + relative − SampleCenterLocation.

        Parameters
        ----------
        defect : Defect
            One of its defects.

        Returns
        -------
        (x, y) : tuple of float
            In micrometres.

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
    """What a KLARF file says, whatever its version. Lengths are micrometres.

    Parameters
    ----------
    version : str
        Version of the file.
    lot_id, device_id, step_id, setup_id : str, optional
        Names in its head.
    station : tuple of str
        The inspection tool.
    wafers : tuple of InspectedWafer
        Its wafers.
    classes : mapping of int to str
        Names of the classes.
    problems : tuple of str
        What could not be read, by line; the rest was read.

    Examples
    --------
    >>> semnr.klarf.Klarf("1.2", lot_id="L1").wafers
    ()
    """

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
