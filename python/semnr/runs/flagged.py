"""The tiles of a run that a person should look at, and a KLARF file of them for a review tool."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..klarf import Defect, InspectedWafer, Klarf, write_klarf
from ..wafers import Wafer
from .parquet import ALARMS, parts
from .verdict import NAME as VERDICT

_NEEDED = ("die_x", "die_y", "x_um", "y_um")
_SHOWN = ("tile", "status", "lot_id", "wafer_id", "slot", "pixel_nm", *_NEEDED, "wafer_x_um", "wafer_y_um")


def flagged(run: Path) -> dict[str, list[str]]:
    """Tile id -> why: the alarms that name it, the rules that fired on it, or its status."""
    signals: dict[str, list[str]] = {}
    for tile, why in _reasons(run):
        reasons = signals.setdefault(tile, [])
        if why not in reasons:
            reasons.append(why)
    return signals


def _reasons(run: Path) -> Iterator[tuple[str, str]]:
    if (run / ALARMS).exists():
        for line in (run / ALARMS).read_text(encoding="utf-8").splitlines():
            alarm = json.loads(line)
            yield from ((tile, alarm["alarm"]) for tile in alarm["tiles"])
    if (run / VERDICT).exists():
        for signal in json.loads((run / VERDICT).read_text(encoding="utf-8"))["signals"]:
            if signal["status"] == "fired":
                yield from ((region["tile"], signal["name"]) for region in signal["regions"])
    for table in parts(run, ["tile", "status"]):
        for tile, status in zip(table.column("tile").to_pylist(), table.column("status").to_pylist(), strict=True):
            if status != "ok":
                yield tile, status


def write_flagged(
    run: Path,
    path: Path,
    version: str,
    layout: Wafer | None,
    info: dict[str, Any],
    why: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """Write the flagged tiles as KLARF, a wafer a WaferID; returns how many tiles have no place and are left out.

    why: these tiles in place of the flagged ones, with the reasons, the first of which is the class of the defect.

    Raises
    ------
    ValueError
        The layout of the wafer is not known, or the version.
    """
    if layout is None:
        raise ValueError("wafer is None and the run knows no layout; accepted: semnr.wafers.Wafer with the die pitch")
    why = flagged(run) if why is None else why
    classes = {name: code for code, name in enumerate(dict.fromkeys(n for names in why.values() for n in names), 1)}
    by_wafer: dict[tuple[Any, Any, Any], list[Defect]] = {}
    placeless = number = 0
    for table in parts(run, list(_SHOWN)):
        for row in table.to_pylist():
            if row["tile"] not in why:
                continue
            row = layout.complete(row)
            if row.get("die_x") is None or row.get("die_y") is None:
                placeless += 1
                continue
            number += 1
            wafer = by_wafer.setdefault((row.get("lot_id"), row.get("wafer_id"), row.get("slot")), [])
            place = (row.get("x_um") or 0.0, row.get("y_um") or 0.0)
            wafer.append(
                Defect(number, int(row["die_x"]), int(row["die_y"]), *place, class_number=classes[why[row["tile"]][0]])
            )
    lots = list(dict.fromkeys(lot for lot, _, _ in by_wafer))
    wafers = [
        InspectedWafer(
            str(name or ""),
            layout,
            int(slot) if slot is not None else None,
            tuple(map(tuple, layout.dies().tolist())),
            tuple(d),
        )
        for (_, name, slot), d in by_wafer.items()
    ] or [InspectedWafer("", layout, test_plan=tuple(map(tuple, layout.dies().tolist())))]
    write_klarf(
        path,
        Klarf(
            version,
            lot_id=", ".join(str(lot) for lot in lots if lot is not None) or None,
            setup_id=info.get("label"),
            station=("semnr", str(info.get("semnr", "")), ""),
            wafers=tuple(wafers),
            classes={code: name for name, code in classes.items()},
        ),
        version=version,
    )
    return placeless
