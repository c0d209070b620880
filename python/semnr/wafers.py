"""Where a tile lies on the wafer: dies, in-die offsets, absolute micrometres, notch, reticle shots, edge exclusion.

One frame: origin at the wafer's centre, x to the right, y up, notch where `notch` says. A die is named by its index
(die_x, die_y), a place in it by micrometres from the die's lower-left corner. The rule is that of KLARF 1.x:

    absolute = index · pitch + relative − sample centre

where the sample centre is the position of the wafer's centre, measured from the lower-left corner of die (0, 0).
`NOTCHES` holds the quarter turns, counter-clockwise, that bring the notch from "down" to each place.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["NOTCHES", "Wafer", "read_wafer"]

# Quarter turns, counter-clockwise, that bring the notch from "down" to where the name says.
_EXAMPLE = "pitch_um = [8000.0, 6500.0], and the other keys as semnr.wafers.Wafer has them"
NOTCHES = {"down": 0, "right": 1, "up": 2, "left": 3}
Places = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Wafer:
    """Layout of one wafer. Every method takes numbers or arrays and returns float64 or int64 arrays.

    Parameters
    ----------
    pitch_um
        Die pitch (x, y), micrometres.
    center_um
        Position (x, y) of the wafer's centre from the lower-left corner of die (0, 0), micrometres: KLARF's
        SampleCenterLocation.
    diameter_um
        Of the wafer.
    edge_exclusion_um
        Width of the ring at the edge that does not count.
    notch
        "down", "right", "up" or "left": where the notch (or flat) lies in this frame.
    reticle
        Dies in a reticle shot (columns, rows).
    reticle_origin
        Index (die_x, die_y) of the lower-left die of any one shot.

    Raises
    ------
    ValueError
        Names the argument, what it was and what is accepted.

    Examples
    --------
    >>> wafer = semnr.wafers.Wafer(pitch_um=(8000, 6500), edge_exclusion_um=3000, reticle=(2, 3))
    >>> [float(v) for v in wafer.absolute(die_x=1, die_y=0, x_um=100.0)]  # x and y from the wafer's centre
    [8100.0, 0.0]
    >>> [float(v) for v in wafer.locate(8100.0, 0.0)]  # die index, and the place in the die
    [1.0, 0.0, 100.0, 0.0]
    >>> float(wafer.radius_um(3.0, 4.0)), bool(wafer.inside(0.0, 149_000.0))
    (5.0, False)
    >>> wafer.dies().shape[1], [int(v) for v in wafer.shot(die_x=3, die_y=0)]  # reticle field, and the place in it
    (2, [1, 0, 1, 0])
    >>> wafer.turned("right").pitch_um, wafer.quarters_to("right")
    ((6500, 8000), 1)
    >>> [float(v) for v in wafer.turn_absolute(1.0, 0.0, "right")], [int(v) for v in wafer.turn_dies(1, 0, "right")]
    ([-0.0, 1.0], [0, 1])
    >>> wafer.complete({"die_x": 1, "die_y": 0})["wafer_x_um"]
    8000.0
    >>> semnr.wafers.Wafer(**wafer.to_dict()).notch
    'down'
    """

    pitch_um: tuple[float, float]
    center_um: tuple[float, float] = (0.0, 0.0)
    diameter_um: float = 300_000.0
    edge_exclusion_um: float = 0.0
    notch: str = "down"
    reticle: tuple[int, int] = (1, 1)
    reticle_origin: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for name, pair in (("pitch_um", self.pitch_um), ("center_um", self.center_um)):
            if len(pair) != 2 or not all(math.isfinite(v) for v in pair):
                raise ValueError(f"{name} is {pair}; accepted: two finite numbers (x, y)")
        if min(self.pitch_um) <= 0:
            raise ValueError(f"pitch_um is {self.pitch_um}; accepted: numbers above 0")
        if not (math.isfinite(self.diameter_um) and self.diameter_um > 0):
            raise ValueError(f"diameter_um is {self.diameter_um}; accepted: a finite number above 0")
        if not 0 <= self.edge_exclusion_um < self.diameter_um / 2:
            raise ValueError(f"edge_exclusion_um is {self.edge_exclusion_um}; accepted: from 0 to below the radius")
        if self.notch not in NOTCHES:
            raise ValueError(f"notch is {self.notch!r}; accepted: {', '.join(map(repr, NOTCHES))}")
        if len(self.reticle) != 2 or min(self.reticle) < 1:
            raise ValueError(f"reticle is {self.reticle}; accepted: two integers of at least 1 (columns, rows)")

    # --- die and offset <-> absolute --------------------------------------------------------------------------

    def absolute(self, die_x: Any, die_y: Any, x_um: Any = 0.0, y_um: Any = 0.0) -> Places:
        """The position of a place in a die, from the wafer's centre.

        Parameters
        ----------
        die_x, die_y : int or array
            Index of the die.
        x_um, y_um : float or array
            Place in the die, from its lower-left corner, in micrometres.

        Returns
        -------
        (x, y) : tuple of ndarray, float64
            In micrometres.
        """
        x = np.asarray(die_x, np.float64) * self.pitch_um[0] + np.asarray(x_um, np.float64) - self.center_um[0]
        y = np.asarray(die_y, np.float64) * self.pitch_um[1] + np.asarray(y_um, np.float64) - self.center_um[1]
        return x, y

    def locate(self, x_um: Any, y_um: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The die of a position, and the place in it.

        Parameters
        ----------
        x_um, y_um : float or array
            Position from the wafer's centre, in micrometres.

        Returns
        -------
        (die_x, die_y, x_um, y_um) : tuple of ndarray
            Index of the die (int64) and the place in it (float64), 0 <= place < pitch.
        """
        die_x, in_x = _cut(np.asarray(x_um, np.float64) + self.center_um[0], self.pitch_um[0])
        die_y, in_y = _cut(np.asarray(y_um, np.float64) + self.center_um[1], self.pitch_um[1])
        return die_x, die_y, in_x, in_y

    # --- the wafer --------------------------------------------------------------------------------------------

    def radius_um(self, x_um: Any, y_um: Any) -> np.ndarray:
        """The distance of a position from the wafer's centre.

        Parameters
        ----------
        x_um, y_um : float or array
            Position in micrometres.

        Returns
        -------
        ndarray, float64
        """
        return np.hypot(np.asarray(x_um, np.float64), np.asarray(y_um, np.float64))

    def inside(self, x_um: Any, y_um: Any) -> np.ndarray:
        """Whether a position lies on the wafer and not in the excluded edge.

        Parameters
        ----------
        x_um, y_um : float or array
            Position from the wafer's centre, in micrometres.

        Returns
        -------
        ndarray, bool
        """
        return self.radius_um(x_um, y_um) <= self.diameter_um / 2 - self.edge_exclusion_um

    def dies(self, whole: bool = True) -> np.ndarray:
        """The dies on the wafer inside the edge exclusion, row by row from below.

        Parameters
        ----------
        whole : bool
            True: dies with all four corners inside. False: dies of which any part lies inside.

        Returns
        -------
        ndarray, (count, 2), int64
            die_x and die_y of each.
        """
        reach = self.diameter_um / 2 - self.edge_exclusion_um
        low_x, low_y, _, _ = self.locate(-reach, -reach)
        high_x, high_y, _, _ = self.locate(reach, reach)
        xs, ys = np.arange(int(low_x), int(high_x) + 1), np.arange(int(low_y), int(high_y) + 1)
        die_y, die_x = (grid.ravel() for grid in np.meshgrid(ys, xs, indexing="ij"))
        left, bottom = self.absolute(die_x, die_y)
        right, top = left + self.pitch_um[0], bottom + self.pitch_um[1]
        if whole:  # the farthest corner
            distance = np.hypot(np.maximum(np.abs(left), np.abs(right)), np.maximum(np.abs(bottom), np.abs(top)))
        else:  # the nearest point
            distance = np.hypot(np.clip(0, left, right), np.clip(0, bottom, top))
        keep = distance <= reach if whole else distance < reach
        return np.stack([die_x[keep], die_y[keep]], axis=1)

    def shot(self, die_x: Any, die_y: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The reticle field of a die, and the place of the die in it.

        Parameters
        ----------
        die_x, die_y : int or array
            Index of the die.

        Returns
        -------
        (shot_x, shot_y, column, row) : tuple of ndarray, int64
        """
        from_x = np.asarray(die_x, np.int64) - self.reticle_origin[0]
        from_y = np.asarray(die_y, np.int64) - self.reticle_origin[1]
        (columns, rows) = self.reticle
        return from_x // columns, from_y // rows, from_x % columns, from_y % rows

    # --- orientation ------------------------------------------------------------------------------------------

    def turned(self, notch: str) -> Wafer:
        """The same wafer, seen with its notch elsewhere.

        Parameters
        ----------
        notch : {"down", "right", "up", "left"}
            Where the notch is to lie.

        Returns
        -------
        Wafer
            The layout in the turned frame.
        """
        wafer = self
        for _ in range(self.quarters_to(notch)):
            # (x, y) -> (-y, x): die (i, j) becomes (-j, i), its lower-right corner the lower-left one
            first, second = wafer.reticle_origin
            wafer = replace(
                wafer,
                pitch_um=(wafer.pitch_um[1], wafer.pitch_um[0]),
                center_um=(wafer.pitch_um[1] - wafer.center_um[1], wafer.center_um[0]),
                reticle=(wafer.reticle[1], wafer.reticle[0]),
                reticle_origin=(-second - wafer.reticle[1] + 1, first),
            )
        return replace(wafer, notch=notch)

    def turn_absolute(self, x_um: Any, y_um: Any, notch: str) -> Places:
        """Positions in the frame of `turned(notch)`.

        Parameters
        ----------
        x_um, y_um : float or array
            Positions from the wafer's centre, in micrometres.
        notch : str
            As for `turned`.

        Returns
        -------
        (x, y) : tuple of ndarray, float64
        """
        x, y = np.asarray(x_um, np.float64), np.asarray(y_um, np.float64)
        for _ in range(self.quarters_to(notch)):
            x, y = -y, x
        return x, y

    def turn_dies(self, die_x: Any, die_y: Any, notch: str) -> Places:
        """Die indices in the frame of `turned(notch)`.

        Parameters
        ----------
        die_x, die_y : int or array
            Index of the die.
        notch : str
            As for `turned`.

        Returns
        -------
        (die_x, die_y) : tuple of ndarray, int64
        """
        i, j = np.asarray(die_x, np.int64), np.asarray(die_y, np.int64)
        for _ in range(self.quarters_to(notch)):
            i, j = -j, i
        return i, j

    def quarters_to(self, notch: str) -> int:
        """Quarter turns, counter-clockwise, from this frame to that of `turned(notch)`.

        Parameters
        ----------
        notch : str
            As for `turned`.

        Returns
        -------
        int

        Raises
        ------
        ValueError
            An unknown notch.
        """
        if notch not in NOTCHES:
            raise ValueError(f"notch is {notch!r}; accepted: {', '.join(map(repr, NOTCHES))}")
        return (NOTCHES[notch] - NOTCHES[self.notch]) % 4

    def complete(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a tile, with what follows from the others.

        Parameters
        ----------
        row : mapping
            Columns of a tile: die index and place in the die, or absolute position.

        Returns
        -------
        dict
            With the absolute position from die and place, or the reverse.
        """
        completed = dict(row)
        die = [row.get(name) for name in ("die_x", "die_y", "x_um", "y_um")]
        place = [row.get(name) for name in ("wafer_x_um", "wafer_y_um")]
        if None in place and None not in die[:2]:
            x, y = self.absolute(*die[:2], *(v or 0.0 for v in die[2:]))
            completed["wafer_x_um"], completed["wafer_y_um"] = float(x), float(y)
        elif None not in place and None in die[:2]:
            die_x, die_y, in_x, in_y = self.locate(*place)
            completed |= {"die_x": int(die_x), "die_y": int(die_y), "x_um": float(in_x), "y_um": float(in_y)}
        return completed

    def to_dict(self) -> dict[str, Any]:
        """The layout in plain Python, as run.json keeps it.

        Returns
        -------
        dict
            `Wafer(**d)` makes the layout again.
        """
        return {
            "pitch_um": list(self.pitch_um),
            "center_um": list(self.center_um),
            "diameter_um": self.diameter_um,
            "edge_exclusion_um": self.edge_exclusion_um,
            "notch": self.notch,
            "reticle": list(self.reticle),
            "reticle_origin": list(self.reticle_origin),
        }


def read_wafer(path: str | Path) -> Wafer:
    """Read a layout from a TOML file.

    Parameters
    ----------
    path : path
        The file; its keys are the parameters of `Wafer`, alone or under [wafer].

    Returns
    -------
    Wafer

    Raises
    ------
    ValueError
        No TOML, an unknown key, or a value that `Wafer` refuses.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("wafer.toml").write_text("wafer = { pitch_um = [8000.0, 6500.0], notch = 'left' }")
    >>> semnr.wafers.read_wafer("wafer.toml").notch
    'left'
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    table = table.get("wafer", table)
    if not isinstance(table, Mapping):
        raise ValueError(f"{path}: wafer is {table!r}; accepted: a table of {', '.join(f.name for f in fields(Wafer))}")
    known = [f.name for f in fields(Wafer)]
    if (unknown := sorted(set(table) - set(known))) or "pitch_um" not in table:
        fault = f"has {', '.join(unknown)}" if unknown else "has no pitch_um"
        raise ValueError(f"{path} {fault}; accepted: {', '.join(known)}")
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    try:
        return Wafer(**given)
    except (TypeError, ValueError) as error:  # of another type, or a value that is refused
        raise ValueError(f"{path}: {error}; accepted: {_EXAMPLE}") from error


def _cut(value: np.ndarray, pitch: float) -> Places:
    """Index and rest of `value`, 0 <= rest < pitch also where the division rounds."""
    index = np.floor(value / pitch)
    rest = value - index * pitch
    index = np.where(rest < 0, index - 1, np.where(rest >= pitch, index + 1, index))
    rest = np.clip(value - index * pitch, 0.0, np.nextafter(pitch, 0))
    return index.astype(np.int64), rest
