"""The worst tiles: which they are, and the pixels and maps behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base.pictures import flat
from ..columns import BY_NAME, Column
from ..runs.pixels import RunPixels
from .draw import letter
from .metrics import RANKING
from .runs import RunData


def pick_worst(
    runs: Sequence[RunData], flags: Mapping[str, Mapping[str, Sequence[str]]], count: int
) -> tuple[list[tuple[str, list[str]]], Column | None]:
    """Tiles worth a look, each with the reason: flagged first, then those with marked places, then the lowest scores.

    The candidates take turns.
    """
    ranking = ranked_by(runs)
    low = f"among the {worst_end(ranking)} {ranking.label}" if ranking else ""
    marks = [_marked(run) for run in runs]
    chosen: dict[str, list[str]] = {}
    for turn in ("flagged", "marked", "low"):
        queues = []
        for k, run in enumerate(runs):
            values = run.values(ranking.name) if ranking else np.full(len(run.tiles), np.nan)
            values = -values if ranking and worst_end(ranking) == "highest" else values
            named, strength = flags.get(run.label, {}), marks[k]
            if turn == "flagged":
                rows = [i for i, tile in enumerate(run.tiles) if tile in named]
            elif turn == "marked":
                rows = [i for i in range(len(run.tiles)) if strength[i] > 0]
            else:
                rows = [i for i in range(len(run.tiles)) if not math.isnan(values[i])]
            order = np.nan_to_num(values, nan=np.inf)
            rows.sort(key=lambda i, order=order, strength=strength: (-strength[i], order[i]))  # type: ignore[misc]
            queues.append((f"{letter(k)}: " if len(runs) > 1 else "", run, strength, rows))
        while len(chosen) < count and any(rows for *_, rows in queues):
            for key, run, strength, rows in queues:
                while rows and run.tiles[rows[0]] in chosen:
                    rows.pop(0)
                if rows and len(chosen) < count:
                    row = rows.pop(0)
                    tile = run.tiles[row]
                    why = f"places marked up to {strength[row]:.1f} σ" if strength[row] > 0 else low
                    chosen[tile] = _flags_on(tile, runs, flags) if turn == "flagged" else [key + why]
    return list(chosen.items()), ranking


def ranked_by(runs: Sequence[RunData]) -> Column | None:
    """The column that decides which tiles are the worst: the first of `RANKING` that any run has."""
    return next((BY_NAME[c] for c in RANKING if any(run.has(c) for run in runs)), None)


def worst_end(ranking: Column) -> str:
    """At which end of a column the worst tiles lie."""
    return "highest" if ranking.better == "lower" else "lowest"


def _flags_on(tile: str, runs: Sequence[RunData], flags: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Of every candidate that is flagged there, by which signals."""
    lines = []
    for k, run in enumerate(runs):
        if names := flags.get(run.label, {}).get(tile):
            lines.append((f"{letter(k)}: " if len(runs) > 1 else "") + f"flagged: {', '.join(names)}")
    return lines


def _marked(run: RunData) -> np.ndarray:
    """(tiles,) the strongest box of each tile, in σ; 0 where nothing is marked."""
    texts = run.texts.get("evidence_boxes")
    if texts is None:
        return np.zeros(len(run.tiles))
    strongest = [max((abs(b["z"]) for b in run.boxes(i)), default=0.0) if t else 0.0 for i, t in enumerate(texts)]
    return np.nan_to_num(np.array(strongest))


class Pixels:
    """Reads tiles of the report's runs by role: from functions that were given, else from the sources of run.json."""

    def __init__(self, images: Any, runs: Sequence[RunData]) -> None:
        if images is not None and not callable(images) and not isinstance(images, Mapping):
            raise TypeError(
                f"images is {type(images).__name__}; accepted: a function (tile, role) -> array or None, "
                "or a dict of such functions by run label"
            )
        self._images = images
        self._runs = runs
        self._opened: dict[str, Any] = {}
        self._of_run = {run.label: RunPixels(run.path, run.meta, self._opened, run.images) for run in runs}

    def read(self, run: RunData, tile: str, role: str) -> tuple[np.ndarray | None, str]:
        """Pixels as (H, W) and "", or None and the reason. `role`: reference, noisy or image (the candidate)."""
        given = self._images.get(run.label) if isinstance(self._images, Mapping) else self._images
        # one function serves the roles that all candidates share, and the pixels of the first candidate
        serves = role != "image" or isinstance(self._images, Mapping) or run is self._runs[0]
        if given is None or not serves:
            return self._of_run[run.label].read(tile, role)
        pixels = given(tile, role)
        return (None, "not given") if pixels is None else (flat(np.asarray(pixels)), "")

    def evidence_map(self, run: RunData, tile: str, image: np.ndarray | None) -> tuple[np.ndarray | None, str]:
        """Signed z, above 0 where structure was removed, as the run kept it; or None and the reason."""
        rows = [i for i, name in enumerate(run.tiles) if name == tile]
        at = int(run.values("index")[rows[0]]) if rows and np.isfinite(run.values("index")[rows[0]]) else -1
        return self._of_run[run.label].evidence_map(at, None if image is None else image.shape)

    def close(self) -> None:
        for pixels in self._of_run.values():
            pixels.close()
