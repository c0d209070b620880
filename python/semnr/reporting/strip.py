"""The worst place of a verdict: noisy, denoised and residual side by side, every pixel enlarged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.pictures import grey, webp, window
from ..columns import BY_NAME
from .focus import Crop, cut, hottest
from .images import Pixels, ranked_by, worst_end
from .metrics import number
from .panes import described, residual_grey, residual_of
from .runs import RunData, checked_boxes, merged

SIDE = 48  # of the part that is shown, px
SCALE = 4  # times
_FIRST = {"high": 0, "medium": 1, "low": 2}


@dataclass
class Strip:
    """Three pictures of one place, and where it is."""

    tile: str
    pictures: list[tuple[str, str]]  # (title, data URI)
    crop: Crop
    box: dict[str, Any] | None  # the mark, in px of the crop
    words: str

    @property
    def scale(self) -> int:
        return SCALE


def strip(verdict: Mapping[str, Any], run: RunData, pixels: Pixels) -> Strip | None:
    """The place that speaks most against the candidate; None where its pixels are not at hand."""
    tile, box, why = _place(verdict, run)
    if tile is None:
        return None
    noisy, _ = pixels.read(run, tile, "noisy")
    image, _ = pixels.read(run, tile, "image")
    reference, _ = pixels.read(run, tile, "reference") if noisy is None else (None, "")
    if image is None or (noisy is not None and noisy.shape != image.shape):
        return None
    before = noisy if noisy is not None else reference
    place = (box["row"], box["col"]) if box else hottest(before, image, SIDE)
    row, col = place or (image.shape[0] / 2, image.shape[1] / 2)
    crop = cut(image.shape, row, col, SIDE)
    part = (crop.rows, crop.columns)
    levels = window(image)
    pictures = [("Denoised", webp(grey(image[part], *levels)))]
    if noisy is not None:
        pictures = [("Noisy input", webp(grey(noisy[part], *levels))), *pictures]
        pictures.append(("Residual", webp(residual_grey(residual_of(noisy, image)[part]))))
    elif reference is not None and reference.shape == image.shape:
        pictures = [("Reference", webp(grey(reference[part], *levels))), *pictures]
    said = f"{described(box)}" if box else f"{why}; the part where most was taken away" if place else why
    inside = None if box is None else {**box, "row": box["row"] - crop.top, "col": box["col"] - crop.left}
    return Strip(tile, pictures, crop, inside, said)


def _place(verdict: Mapping[str, Any], run: RunData) -> tuple[str | None, dict[str, Any] | None, str]:
    """(tile, marked place in it or None, why this one)."""
    known = set(run.tiles)
    fired = [s for s in verdict["signals"] if s["status"] == "fired" and s.get("gate", True)]
    fired.sort(key=lambda s: _FIRST.get(str(s.get("severity")), 1))
    regions = [
        region
        for signal in fired
        for region in signal.get("regions") or []
        if isinstance(region, Mapping) and str(region.get("tile")) in known
    ]
    marked = [(str(r["tile"]), box) for r in regions for box in merged(checked_boxes(r.get("boxes")))]
    if not marked:
        tiles = {str(r["tile"]) for r in regions} if regions else known
        marked = [(tile, box) for i, tile in enumerate(run.tiles) if tile in tiles for box in merged(run.boxes(i))]
    if marked:
        tile, box = max(marked, key=lambda pair: abs(pair[1]["z"]) if math.isfinite(pair[1]["z"]) else 0.0)
        return tile, box, ""
    if regions:
        return str(regions[0]["tile"]), None, "the tile that shows it most"
    ranking = ranked_by([run])
    if ranking is None:
        return (run.tiles[0] if run.tiles else None), None, "the first tile"
    values = run.values(ranking.name)
    order = -values if worst_end(ranking) == "highest" else values
    if not np.isfinite(order).any():
        return None, None, ""
    row = int(np.nanargmin(np.where(np.isfinite(order), order, np.nan)))
    label = BY_NAME[ranking.name].label
    return run.tiles[row], None, f"the {worst_end(ranking)} {label}: {number(float(values[row]), ranking.digits)}"


def strips(verdicts: Sequence[Mapping[str, Any]], runs: Sequence[RunData], pixels: Pixels) -> list[Strip | None]:
    """Of each verdict."""
    by_label = {run.label: run for run in runs}
    return [strip(verdict, by_label[verdict["run"]], pixels) for verdict in verdicts]
