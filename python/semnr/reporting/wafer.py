"""Where each tile lies on the wafer, as drawing coordinates: x right, y up, the wafer's radius is 1."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..columns import shown
from ..wafers import NOTCHES, Wafer
from .metrics import GROUPS
from .runs import RunData

_RADII_UM = (25_000, 37_500, 50_000, 75_000, 100_000, 150_000, 225_000)


@dataclass
class Layout:
    """Drawing coordinates of tiles that share one table of ids."""

    tiles: list[str]
    x: np.ndarray
    y: np.ndarray
    place: list[str]  # in words: "die 3, −1 · site 2"
    wafer: list[str]  # lot and wafer name, "" where unknown
    size: tuple[float, float]  # marker width and height
    dies: list[tuple[float, float]]  # lower left corners
    die_size: tuple[float, float]
    outline: bool
    caption: str
    notch: str = "down"


def lay_out(runs: Sequence[RunData]) -> Layout:
    """Positions of every tile of every run; a tile that several runs share appears once."""
    first: dict[str, tuple[RunData, int]] = {}
    for run in runs:
        for row, tile in enumerate(run.tiles):
            first.setdefault(tile, (run, row))
    tiles = list(first)

    def column(name: str) -> np.ndarray:
        return np.array([run.numbers[name][row] if name in run.numbers else np.nan for run, row in first.values()])

    def text(name: str) -> list[str]:
        cells = []
        for run, row in first.values():
            if name in run.texts:
                cells.append(run.texts[name][row] or "")
            else:
                value = run.values(name)[row]
                cells.append("" if math.isnan(value) else f"{value:g}")
        return cells

    names = ("die_x", "die_y", "site_id", "x_um", "y_um", "wafer_x_um", "wafer_y_um")
    c = {name: column(name) for name in names}
    slots = zip(text("lot_id"), text("wafer_id"), text("slot"), strict=True)
    wafer = [" · ".join(part for part in (lot, name or (slot and f"slot {slot}")) if part) for lot, name, slot in slots]
    place = _places(c, text("site_id"))
    on_die = np.isfinite(c["die_x"]) & np.isfinite(c["die_y"])
    absolute = np.isfinite(c["wafer_x_um"]) & np.isfinite(c["wafer_y_um"])
    known = next((run.meta["wafer"] for run in runs if run.meta.get("wafer")), None)
    if on_die.any():
        return _by_die(tiles, place, wafer, c, on_die, absolute, Wafer(**known) if known else None)
    if absolute.any():
        return _by_position(tiles, place, wafer, c, absolute)
    return _by_index(tiles, place, wafer)


def _places(c: dict[str, np.ndarray], sites: list[str]) -> list[str]:
    places = []
    for i, site in enumerate(sites):
        parts = []
        if math.isfinite(c["die_x"][i]) and math.isfinite(c["die_y"][i]):
            parts.append(f"die {c['die_x'][i]:g}, {c['die_y'][i]:g}".replace("-", "−"))
        if site:
            parts.append(f"site {site}")
        if math.isfinite(c["wafer_x_um"][i]) and math.isfinite(c["wafer_y_um"][i]):
            x, y = c["wafer_x_um"][i] / 1000, c["wafer_y_um"][i] / 1000
            parts.append(f"{x:.2f}, {y:.2f} mm".replace("-", "−"))
        places.append(" · ".join(parts))
    return places


def _by_die(
    tiles: list[str],
    place: list[str],
    wafer: list[str],
    c: dict[str, np.ndarray],
    on_die: np.ndarray,
    absolute: np.ndarray,
    known: Wafer | None = None,
) -> Layout:
    """A die grid; sites spread inside their die so that each can be seen and hit, whatever its true size."""
    die_x, die_y = c["die_x"], c["die_y"]
    both = on_die & absolute
    pitch_x, pitch_y = _pitch(die_x[both], c["wafer_x_um"][both]), _pitch(die_y[both], c["wafer_y_um"][both])
    if known is not None:
        (dx, dy), (origin_x, origin_y) = known.pitch_um, (-known.center_um[0], -known.center_um[1])
    elif pitch_x and pitch_y:
        dx, dy = pitch_x, pitch_y
        origin_x = _origin(die_x[both], c["wafer_x_um"][both], c["x_um"][both], pitch_x)
        origin_y = _origin(die_y[both], c["wafer_y_um"][both], c["y_um"][both], pitch_y)
    else:
        dx = dy = 1.0
        origin_x = -(np.nanmin(die_x) + np.nanmax(die_x) + 1) / 2
        origin_y = -(np.nanmin(die_y) + np.nanmax(die_y) + 1) / 2
    pairs = sorted({(a, b) for a, b in zip(die_x[on_die], die_y[on_die], strict=True)})
    count = len(pairs)
    if known is not None:  # every die of the wafer is outlined, those without a tile too
        pairs = sorted({*pairs, *((float(a), float(b)) for a, b in known.dies())})
    corners = [(origin_x + a * dx, origin_y + b * dy) for a, b in pairs]
    reach = max(math.hypot(x + ex, y + ey) for x, y in corners for ex in (0, dx) for ey in (0, dy))
    radius, scale = _radius(reach, bool(pitch_x and pitch_y))
    if known is not None:
        radius, scale = known.diameter_um / 2, f"outline: {known.diameter_um / 1000:g} mm wafer"

    fx, fy, grid = _spread(tiles, wafer, c, on_die)
    x = (origin_x + (die_x + fx) * dx) / radius
    y = (origin_y + (die_y + fy) * dy) / radius
    side = 0.8 / grid
    marks = "one mark a tile, spread inside its die" if grid > 1 else "one mark a tile"
    return Layout(
        tiles, x, y, place, wafer, (side * dx / radius, side * dy / radius),
        [(a / radius, b / radius) for a, b in corners], (dx / radius, dy / radius), True,
        f"{count} dies with tiles; {marks}; {scale}", known.notch if known is not None else "down",
    )  # fmt: skip


def _pitch(index: np.ndarray, position: np.ndarray) -> float:
    """Die pitch by least squares; 0 where one column of dies or no positions do not tell."""
    if len(index) < 2 or np.ptp(index) == 0:
        return 0.0
    slope = float(np.polyfit(index, position, 1)[0])
    return slope if slope > 0 else 0.0


def _origin(index: np.ndarray, position: np.ndarray, in_die: np.ndarray, pitch: float) -> float:
    """Lower or left border of die 0; without in-die positions, the sites are taken to lie about its middle."""
    corner = position - index * pitch - np.where(np.isfinite(in_die), in_die, pitch / 2)
    return float(np.median(corner))


def _spread(
    tiles: list[str], wafer: list[str], c: dict[str, np.ndarray], on_die: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Fractions (0-1) inside the die, and how many marks fit along its side."""
    groups: dict[tuple[str, float, float], list[int]] = {}
    for i in np.flatnonzero(on_die):
        groups.setdefault((wafer[i], c["die_x"][i], c["die_y"][i]), []).append(int(i))
    most = max(map(len, groups.values()))
    grid = math.ceil(math.sqrt(most))
    fx, fy = np.full(len(tiles), 0.5), np.full(len(tiles), 0.5)
    across, up = _ranks(c["x_um"]), _ranks(c["y_um"])
    if most > 1 and across is not None and up is not None and max(across.max(), up.max()) < 2 * grid:
        spots = {(wafer[i], c["die_x"][i], c["die_y"][i], across[i], up[i]) for i in range(len(tiles))}
        if len(spots) == len(tiles):
            # sites on a regular grid, one tile each: keep their order along both sides
            wide, high = int(across.max()) + 1, int(up.max()) + 1
            return (across + 0.5) / wide, (up + 0.5) / high, max(wide, high)
    for members in groups.values():
        members.sort(key=lambda i: (np.nan_to_num(c["site_id"][i], nan=np.inf), tiles[i]))
        for place, member in enumerate(members):
            fx[member], fy[member] = (place % grid + 0.5) / grid, 1 - (place // grid + 0.5) / grid
    return fx, fy, grid


def _ranks(values: np.ndarray) -> np.ndarray | None:
    if not np.isfinite(values).all():
        return None
    return np.unique(np.round(values, 3), return_inverse=True)[1]


def _by_position(
    tiles: list[str], place: list[str], wafer: list[str], c: dict[str, np.ndarray], absolute: np.ndarray
) -> Layout:
    """No die indices: true positions, marks of a legible size."""
    x, y = c["wafer_x_um"], c["wafer_y_um"]
    # coordinates all of one sign are counted from a corner, not from the wafer's centre
    x, y = (v - (np.nanmin(v) + np.nanmax(v)) / 2 if np.nanmin(v) >= 0 else v for v in (x, y))
    reach = float(np.nanmax(np.hypot(x, y))) or 1.0
    radius, scale = _radius(reach * 1.02, True)
    side = min(0.07, max(0.008, 1.2 * reach / radius / math.sqrt(max(1, absolute.sum()))))
    return Layout(
        tiles, x / radius, y / radius, place, wafer, (side, side), [], (0, 0), True, f"marks larger than tiles; {scale}"
    )


def _by_index(tiles: list[str], place: list[str], wafer: list[str]) -> Layout:
    """No coordinates at all: reading order, and no wafer is drawn around it."""
    per_row = math.ceil(math.sqrt(len(tiles)))
    step = 1.9 / per_row
    i = np.arange(len(tiles))
    x, y = -0.95 + (i % per_row + 0.5) * step, 0.95 - (i // per_row + 0.5) * step
    caption = "the tiles carry no coordinates: drawn in the order of the run, from the top left"
    return Layout(tiles, x, y, place, wafer, (step * 0.85, step * 0.85), [], (0, 0), False, caption)


def _radius(reach: float, physical: bool) -> tuple[float, str]:
    """The wafer's radius: a standard one where the tiles reach far enough out to tell."""
    if physical:
        standard = next((r for r in _RADII_UM if r >= reach * 0.999), None)
        if standard and reach > 0.6 * standard:
            return float(standard), f"outline: {2 * standard / 1000:g} mm wafer"
    return reach * 1.05, "outline drawn around the dies, not to scale"


def wafer_data(runs: Sequence[RunData], layout: Layout, flags: dict[str, dict[str, list[str]]]) -> dict[str, Any]:
    """All that the wafer map needs, ready for JSON: ids, positions, one value a tile, run and metric.

    `flags`: run label -> tile -> names of the signals that marked it.
    """
    row_of = {tile: i for i, tile in enumerate(layout.tiles)}
    wafers = sorted(set(layout.wafer))
    kept = shown(name for run in runs for name in run.numbers if run.has(name))
    data_runs = []
    for run in runs:
        values: dict[str, list[Any]] = {}
        for metric in kept:
            if run.has(metric.name):
                cells: list[Any] = [None] * len(layout.tiles)
                for tile, value in zip(run.tiles, run.values(metric.name).tolist(), strict=True):
                    if not math.isnan(value):
                        cells[row_of[tile]] = float(f"{value:.6g}") if math.isfinite(value) else _infinity(value)
                values[metric.name] = cells
        troubled = {
            row_of[tile]: {"s": status, "r": reason or ""}
            for tile, status, reason in zip(
                run.tiles, run.status, run.texts.get("reason", [None] * len(run.tiles)), strict=True
            )
            if status != "ok"
        }
        marked = {row_of[tile]: names for tile, names in flags.get(run.label, {}).items() if tile in row_of}
        data_runs.append({"label": run.label, "values": values, "problems": troubled, "flags": marked})
    return {
        "tiles": layout.tiles,
        "x": [_coordinate(v) for v in layout.x],
        "y": [_coordinate(v) for v in layout.y],
        "place": layout.place,
        "wafers": wafers,
        "wafer": [wafers.index(name) for name in layout.wafer] if len(wafers) > 1 else [],
        "size": [round(v, 5) for v in layout.size],
        "dies": [[round(a, 4), round(b, 4)] for a, b in layout.dies],
        "dieSize": [round(v, 5) for v in layout.die_size],
        "outline": layout.outline,
        "notch": NOTCHES[layout.notch],
        "metrics": [
            {
                "key": m.name,
                "label": m.label,
                "unit": m.unit,
                "direction": m.direction,
                "digits": m.digits,
                "group": m.group,
            }
            for m in kept
        ],
        "groups": GROUPS,
        "runs": data_runs,
    }


def _coordinate(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def _infinity(value: float) -> str:
    return "inf" if value > 0 else "-inf"


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no NaN, and nothing that could end the element."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
