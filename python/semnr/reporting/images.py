"""The worst tiles: which they are, and where their pixels and maps are read from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from semnr_kernels._errors import SemnrError

from ..columns import BY_NAME, Column
from ..tiles import open_tiles
from .draw import letter
from .metrics import RANKING
from .runs import RunData

Reader = Callable[[str, str], "np.ndarray | None"]


def pick_worst(
    runs: Sequence[RunData], flags: Mapping[str, Mapping[str, Sequence[str]]], count: int
) -> tuple[list[tuple[str, list[str]]], Column | None]:
    """Tiles worth a look, each with the reason: flagged first, then those with marked places, then the lowest scores.

    The candidates take turns.
    """
    ranking = next((BY_NAME[c] for c in RANKING if any(run.has(c) for run in runs)), None)
    low = f"among the lowest {ranking.label}" if ranking else ""
    marks = [_marked(run) for run in runs]
    chosen: dict[str, list[str]] = {}
    for turn in ("flagged", "marked", "low"):
        queues = []
        for k, run in enumerate(runs):
            values = run.values(ranking.name) if ranking else np.full(len(run.tiles), np.nan)
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


def _flags_on(tile: str, runs: Sequence[RunData], flags: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Of every candidate that is flagged there, by which signals."""
    found = []
    for k, run in enumerate(runs):
        if names := flags.get(run.label, {}).get(tile):
            found.append((f"{letter(k)}: " if len(runs) > 1 else "") + f"flagged: {', '.join(names)}")
    return found


def _marked(run: RunData) -> np.ndarray:
    """(tiles,) the strongest box of each tile, in σ; 0 where nothing is marked."""
    texts = run.texts.get("evidence_boxes")
    if texts is None:
        return np.zeros(len(run.tiles))
    strongest = [max((abs(b["z"]) for b in run.boxes(i)), default=0.0) if t else 0.0 for i, t in enumerate(texts)]
    return np.nan_to_num(np.array(strongest))


class Pixels:
    """Reads tiles of a run by role, from a callable or from the sources named in run.json; opens each source once."""

    def __init__(self, images: Any, runs: Sequence[RunData]) -> None:
        if images is not None and not callable(images) and not isinstance(images, Mapping):
            raise TypeError(
                f"images is {type(images).__name__}; accepted: a function (tile, role) -> array or None, "
                "or a dict of such functions by run label"
            )
        self._images = images
        self._runs = runs
        self._evidence: dict[str, Any] = {}  # run label -> the array of its evidence maps, or None
        self._open: dict[str, Any] = {}  # source -> TileSource, or the reason (str) why it could not be opened

    def read(self, run: RunData, tile: str, role: str) -> tuple[np.ndarray | None, str]:
        """Pixels as (H, W) and "", or None and the reason. `role`: reference, noisy or image (the candidate)."""
        given = self._images.get(run.label) if isinstance(self._images, Mapping) else self._images
        if given is not None:
            # one function serves the roles that all candidates share, and the pixels of the first candidate
            if role == "image" and not isinstance(self._images, Mapping) and run is not self._runs[0]:
                return self._from_sources(run, tile, role)
            pixels = given(tile, role)
            return (None, "not given") if pixels is None else (_flat(np.asarray(pixels)), "")
        return self._from_sources(run, tile, role)

    def _from_sources(self, run: RunData, tile: str, role: str) -> tuple[np.ndarray | None, str]:
        named = {name: run.meta.get(name) or run.settings.get(name) for name in ("source", "reference", "noisy")}
        order = {"image": ("source",), "reference": ("reference", "source"), "noisy": ("noisy", "source", "reference")}
        reasons = []
        for name in order[role]:
            if not named[name]:
                continue
            source = self._source(str(named[name]), run)
            if isinstance(source, str):
                reasons.append(source)
                continue
            held = _role_of(source.roles, role, name)
            if held is None:
                continue
            try:
                key = source.find(tile)
                if key is not None:
                    return _flat(source.read(key, held)), ""
                reasons.append("no such tile in the source")
            except (SemnrError, OSError, ValueError) as error:
                reasons.append(str(error))
        return None, reasons[0] if reasons else f"the run names no {role} pixels"

    def _source(self, name: str, run: RunData) -> Any:
        beside = run.path / name  # run.json names sources relative to its folder
        where = str(beside.resolve()) if "://" not in name and beside.exists() else name
        if where not in self._open:
            try:
                self._open[where] = open_tiles(where)
            except (SemnrError, OSError, ValueError, TypeError) as error:
                self._open[where] = f"source not at hand: {error}"
        return self._open[where]

    def evidence_map(self, run: RunData, tile: str, image: np.ndarray | None) -> tuple[np.ndarray | None, str]:
        """Signed z, above 0 where structure was removed, as the run kept it; or None and the reason."""
        array = self._maps(run)
        if array is None:
            return None, "the run kept no evidence maps (semnr score --maps evidence)"
        rows = [i for i, name in enumerate(run.tiles) if name == tile]
        at = int(run.values("index")[rows[0]]) if rows and np.isfinite(run.values("index")[rows[0]]) else -1
        if not 0 <= at < array.shape[0]:
            return None, "the run kept no evidence map of this tile"
        z = np.asarray(array[at])
        if image is not None:
            z = z[: image.shape[0], : image.shape[1]]  # smaller tiles of a run lie in the corner
        return (z, "") if np.isfinite(z).any() else (None, "the run kept no evidence map of this tile")

    def _maps(self, run: RunData) -> Any:
        if run.label not in self._evidence:
            path = run.path / "maps.zarr"
            found = None
            if path.is_dir():
                import zarr

                found = zarr.open_group(str(path), mode="r").get("evidence")
            self._evidence[run.label] = found
        return self._evidence[run.label]

    def close(self) -> None:
        for source in self._open.values():
            if not isinstance(source, str):
                source.close()


def _role_of(roles: Sequence[str], role: str, source: str) -> str | None:
    """Which of a source's roles answers for `role`."""
    accepted = {
        "image": ("candidate", "image", "denoised", "noisy"),
        "reference": ("reference", "image") if source == "reference" else ("reference",),
        "noisy": ("noisy", "image") if source == "noisy" else ("noisy",),
    }[role]
    return next((name for name in accepted if name in roles), None)


def _flat(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 3:
        return pixels[0] if pixels.shape[0] == 1 else pixels.mean(axis=0)
    if pixels.ndim != 2:
        raise ValueError(f"a tile has shape {pixels.shape}; accepted: (H, W) or (C, H, W)")
    return pixels
