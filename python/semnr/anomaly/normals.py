"""The tiles that a model is fitted to: read, checked and split so that what is held out is new to the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semnr_kernels.errors import TileError

from ..noise.model import MAX_WINDOWS, NoiseModel, array_windows, evenly, fit_noise
from ..tiles import Problem, TileKey, TileSource, open_tiles
from ..tiles.pixels import to_numpy
from .thresholds import positive

LEAST_SIDE = 32  # px: smaller tiles hold neither their noise nor the surroundings of a defect
GROUPS = ("lot_id", "wafer_id")  # what splits a source by, the first that has two values
_ROLES = ("noisy", "image")


@dataclass
class Tiles:
    """The tiles of a source that can be used, as float32 grey levels, and what is wrong with the others."""

    images: list[np.ndarray]
    keys: list[TileKey]
    data_range: float
    dtype: str
    problems: list[Problem] = field(default_factory=list)
    identical: int = 0  # tiles that equal an earlier one, pixel by pixel

    @property
    def shapes(self) -> set[tuple[int, ...]]:
        return {image.shape for image in self.images}

    def noise(self, scan_axis: int = -1) -> NoiseModel:
        """One law of all tiles, from windows spread over them."""
        chosen = [self.images[i] for i in evenly(len(self.images), MAX_WINDOWS)]
        windows = [window for image in chosen for window in array_windows(image, limit=1)]
        return fit_noise(windows, data_range=self.data_range, scan_axis=scan_axis)

    def remarks(self) -> list[str]:
        same = [f"{self.identical} tiles equal an earlier one, pixel by pixel: they teach nothing new"]
        return [*left_out(self.problems), *(same if self.identical else [])]


def left_out(problems: Sequence[Problem]) -> list[str]:
    """How many tiles cannot be used, and why the first one cannot."""
    if not problems:
        return []
    return [f"{len(problems)} tiles were left out, first {problems[0].tile}: {problems[0].reason}"]


def input_role(source: TileSource) -> str:
    """The role that holds the recorded tile."""
    return next((role for role in _ROLES if role in source.roles), source.roles[0])


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W) float32; channels averaged."""
    image = np.asarray(pixels, np.float32)
    return image if image.ndim == 2 else image.mean(axis=0)


def digest(image: np.ndarray) -> str:
    """By which a tile is known again, pixel by pixel."""
    return hashlib.sha256(np.ascontiguousarray(image, np.float32).tobytes()).hexdigest()[:16]


def range_of(source: TileSource, dtype: np.dtype[Any], given: float | None) -> float:
    """The width of the intensity scale: as given, as the source says, or the dtype's."""
    known = given if given is not None else source.data_range
    if known is None and dtype.kind == "u":
        return float(np.iinfo(dtype).max)
    if known is None:
        raise ValueError(f"data_range is missing; it is required for {dtype} tiles (for example data_range=1.0)")
    return positive("data_range", known)


def usable(name: str, source: TileSource, data_range: float | None) -> Iterator[tuple[TileKey, Any]]:
    """Each tile with its (pixels as read, data range), or with the problem that keeps it out."""
    role, kind = input_role(source), None
    for key in source:
        try:
            pixels = to_numpy(source.read(key, role))
        except TileError as error:
            yield key, Problem(key.tile, error.status, error.reason)
            continue
        kind = kind or pixels.dtype
        top = range_of(source, kind, data_range)
        if pixels.dtype != kind:
            yield key, Problem(key.tile, "wrong_dtype", f"tile is {pixels.dtype}, the first one {kind}")
        elif min(pixels.shape[-2:]) < LEAST_SIDE:
            size = "x".join(map(str, pixels.shape[-2:]))
            yield key, Problem(key.tile, "wrong_size", f"tile is {size} px; accepted: sides of at least {LEAST_SIDE}")
        elif not np.isfinite(pixels).all():
            yield key, Problem(key.tile, "error", "tile has non-finite pixels")
        else:
            yield key, (pixels, top)


def read_tiles(name: str, source: Any, *, data_range: float | None = None, least: int = 2) -> Tiles:
    """All usable tiles of a source, in memory.

    Raises
    ------
    ValueError
        Fewer than `least` usable tiles, or all of them identical: the argument `name`, what is wrong, what is accepted.
    """
    opened = source if isinstance(source, TileSource) else open_tiles(source)
    images, keys, top, kind = [], [], 0.0, ""
    problems = list(opened.problems)
    seen: set[str] = set()
    identical = 0
    for key, got in usable(name, opened, data_range):
        if isinstance(got, Problem):
            problems.append(got)
            continue
        pixels, top = got
        kind = pixels.dtype.name
        image = grey(pixels)
        mark = digest(image)
        identical += mark in seen
        seen.add(mark)
        images.append(image)
        keys.append(key)
    if len(images) < least:
        why = f"; first {problems[0].tile}: {problems[0].reason}" if problems else ""
        raise ValueError(
            f"{name} has {len(images)} tiles that can be used and {len(problems)} that cannot{why}; accepted: at least "
            f"{least} finite grey tiles of one dtype, of {LEAST_SIDE} px and more"
        )
    if len(images) > 1 and len(seen) == 1:
        raise ValueError(
            f"{name} has {len(images)} tiles that are all identical, pixel by pixel: nothing of what varies between "
            "normal tiles can be learnt; accepted: different recordings"
        )
    return Tiles(images, keys, top, kind, problems, identical)


def split(tiles: Tiles, held_out: float, by: str) -> tuple[list[int], list[int], str]:
    """(training, held out, how it was split): whole lots or wafers where the tiles name them, else the last tiles.

    Raises
    ------
    ValueError
        The column that was asked for is not there, or has one value.
    """
    count = len(tiles.images)
    wanted = max(1, round(held_out * count))
    columns = GROUPS if by == "auto" else (by,)
    for column in columns:
        values = [tile.meta.get(column) for tile in tiles.keys]
        groups = list(dict.fromkeys(v for v in values if v is not None))
        if len(groups) < 2:
            continue
        chosen: set[Any] = set()
        for group in reversed(groups):  # the last ones, until there are enough
            if sum(v in chosen for v in values) >= wanted or len(chosen) == len(groups) - 1:
                break
            chosen.add(group)
        inside = [i for i, v in enumerate(values) if v not in chosen]
        outside = [i for i, v in enumerate(values) if v in chosen]
        return inside, outside, f"by {column}: {len(chosen)} of {len(groups)} held out"
    if by not in ("auto", "none"):
        raise ValueError(f"data.split is {by!r}, a column that the tiles lack or that has one value; accepted: 'auto'")
    return (
        list(range(count - wanted)),
        list(range(count - wanted, count)),
        "the last tiles held out: the source names no lots or wafers, so neighbours may lie on both sides",
    )
