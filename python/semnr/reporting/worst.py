"""The section of the worst tiles: panes side by side, places marked, numbers beneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..columns import BY_NAME
from . import wafer
from .focus import Crop
from .images import Pixels, pick_worst, worst_end
from .metrics import WORST, number
from .panes import DETAIL, SHOWN_CANDIDATES, Picture, described, show
from .runs import RunData, checked_boxes, merged

BOXES_LISTED = 6


@dataclass
class WorstTile:
    """One tile as the template shows it."""

    tile: str
    place: str
    why: list[str]
    columns: list[list[Picture]]
    height: int
    width: int
    places: list[dict[str, Any]]  # marked ones, listed beside the panes
    crop: Crop | None = None  # the part that is shown with every pixel
    numbers: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # run label -> (metric, value)


def worst_tiles(
    runs: Sequence[RunData],
    flags: Mapping[str, Any],
    verdicts: Sequence[Mapping[str, Any]],
    pixels: Pixels,
    layout: wafer.Layout,
    count: int,
) -> dict[str, Any]:
    """What the template needs of the worst tiles."""
    chosen, ranking = pick_worst(runs, flags, count)
    place = dict(zip(layout.tiles, layout.place, strict=True))
    columns = [BY_NAME[c] for c in WORST if any(run.has(c) for run in runs)]
    rows_of = [{tile: i for i, tile in enumerate(run.tiles)} for run in runs]
    tiles = []
    for tile, why in chosen:
        boxes = [_boxes(run, verdicts, tile, rows.get(tile)) for run, rows in zip(runs, rows_of, strict=True)]
        panes = show(pixels, runs, tile, boxes)
        listed = [
            {**box, "words": described(box), "run": k}
            for k in range(min(len(runs), SHOWN_CANDIDATES))
            for box in boxes[k][:BOXES_LISTED]
        ]
        entry = WorstTile(tile, place.get(tile, ""), why, panes.columns, panes.height, panes.width, listed, panes.crop)
        for run, rows in zip(runs, rows_of, strict=True):
            if tile in rows:
                entry.numbers[run.label] = [
                    (m.label, number(float(run.values(m.name)[rows[tile]]), m.digits)) for m in columns
                ]
        tiles.append(entry)
    pictures = [picture for tile in tiles for column in tile.columns for picture in column]
    reasons = [p.missing for p in pictures if p.missing and p.kind in ("reference", "noisy", "denoised")]
    return {
        "worst": tiles,
        "worst_rule": f"{worst_end(ranking)} {ranking.label}" if ranking else None,
        "worst_side": DETAIL if any(tile.crop for tile in tiles) else None,
        "worst_pixels": any(picture.uri for picture in pictures),
        "worst_kinds": sorted({picture.kind for picture in pictures if picture.uri}),
        "worst_boxes": any(tile.places for tile in tiles),
        "worst_reasons": list(dict.fromkeys(reasons))[:3],
        "worst_hidden": max(0, len(runs) - SHOWN_CANDIDATES),
        "worst_wanted": count > 0,
    }


def _boxes(run: RunData, verdicts: Sequence[Mapping[str, Any]], tile: str, row: int | None) -> list[dict[str, Any]]:
    """Of the scan, as the run kept them; else those that a signal names."""
    boxes = run.boxes(row) if row is not None else []
    if boxes:
        return merged(boxes)
    regions = [
        region
        for verdict in verdicts if verdict["run"] == run.label
        for signal in verdict["signals"] if signal["status"] == "fired"
        for region in signal.get("regions") or [] if isinstance(region, Mapping) and str(region.get("tile")) == tile
    ]  # fmt: skip
    return merged([box for region in regions for box in checked_boxes(region.get("boxes"))])
