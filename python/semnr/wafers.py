"""Where a tile lies on the wafer: dies, in-die offsets, absolute micrometres, notch, reticle shots, edge exclusion.

One frame: origin at the wafer's centre, x to the right, y up, notch where `notch` says. A die is named by its index
(die_x, die_y), a place in it by micrometres from the die's lower-left corner. The rule is that of KLARF 1.x:

    absolute = index · pitch + relative − sample centre

where the sample centre is the position of the wafer's centre, measured from the lower-left corner of die (0, 0).
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
        """Absolute (x, y) in micrometres of a place in a die."""
        x = np.asarray(die_x, np.float64) * self.pitch_um[0] + np.asarray(x_um, np.float64) - self.center_um[0]
        y = np.asarray(die_y, np.float64) * self.pitch_um[1] + np.asarray(y_um, np.float64) - self.center_um[1]
        return x, y

    def locate(self, x_um: Any, y_um: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(die_x, die_y, x_um, y_um) of an absolute place; 0 <= offset < pitch."""
        die_x, in_x = _cut(np.asarray(x_um, np.float64) + self.center_um[0], self.pitch_um[0])
        die_y, in_y = _cut(np.asarray(y_um, np.float64) + self.center_um[1], self.pitch_um[1])
        return die_x, die_y, in_x, in_y

    # --- the wafer --------------------------------------------------------------------------------------------

    def radius_um(self, x_um: Any, y_um: Any) -> np.ndarray:
        """Distance of an absolute place from the centre."""
        return np.hypot(np.asarray(x_um, np.float64), np.asarray(y_um, np.float64))

    def inside(self, x_um: Any, y_um: Any) -> np.ndarray:
        """Whether an absolute place lies on the wafer and not in the excluded edge."""
        return self.radius_um(x_um, y_um) <= self.diameter_um / 2 - self.edge_exclusion_um

    def dies(self, whole: bool = True) -> np.ndarray:
        """(count, 2) int64: indices of the dies on the wafer, row by row from below, inside the edge exclusion.

        whole: with all four corners; else those of which any part lies inside.
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
        """(shot_x, shot_y, column, row): the reticle shot of a die and the die's place in it."""
        from_x = np.asarray(die_x, np.int64) - self.reticle_origin[0]
        from_y = np.asarray(die_y, np.int64) - self.reticle_origin[1]
        (columns, rows) = self.reticle
        return from_x // columns, from_y // rows, from_x % columns, from_y % rows

    # --- orientation ------------------------------------------------------------------------------------------

    def turned(self, notch: str) -> Wafer:
        """The same wafer seen with its notch at `notch`: the layout in the turned frame."""
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
        """Absolute places in the frame of `turned(notch)`."""
        x, y = np.asarray(x_um, np.float64), np.asarray(y_um, np.float64)
        for _ in range(self.quarters_to(notch)):
            x, y = -y, x
        return x, y

    def turn_dies(self, die_x: Any, die_y: Any, notch: str) -> Places:
        """Die indices in the frame of `turned(notch)`."""
        i, j = np.asarray(die_x, np.int64), np.asarray(die_y, np.int64)
        for _ in range(self.quarters_to(notch)):
            i, j = -j, i
        return i, j

    def quarters_to(self, notch: str) -> int:
        """Quarter turns, counter-clockwise, from this frame to that with the notch at `notch`."""
        if notch not in NOTCHES:
            raise ValueError(f"notch is {notch!r}; accepted: {', '.join(map(repr, NOTCHES))}")
        return (NOTCHES[notch] - NOTCHES[self.notch]) % 4

    def complete(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A tile's columns with what follows from the others: absolute from die and offset, or the reverse."""
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
        """As run.json keeps it; `Wafer(**d)` makes it again."""
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
    """A layout from a TOML file whose keys are those of `Wafer`, alone or under [wafer].

    Raises
    ------
    ValueError
        Not TOML, an unknown key, or a value that `Wafer` refuses.
    OSError
        The file cannot be read.
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
