"""One tile after another, denoised under a plan. A tile cut from a mosaic gets its halo from the tiles around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Any

import numpy as np

from semnr_kernels.errors import TileError

from ..base.jsonable import plain
from ..noise.model import MAX_WINDOWS, NoiseModel, array_windows, evenly, sample_windows
from ..tiles import Problem, TileKey, TileSource, TileWriter
from ..tiles.planes import PlaneSource
from ..tiles.source import length_of, one_range
from ..tiles.writer import IdError
from . import resident
from .part import Box, Part, filled, inside_of, pasted
from .plan import Plan, Request
from .tiled import Tile, cut


def store(writer: TileWriter, key: TileKey, pixels: np.ndarray) -> None:
    """Write a denoised tile; what the form cannot hold is a TileError."""
    try:
        writer.write(key, pixels)
    except TypeError as error:  # another dtype than the tiles before
        raise TileError(key.tile, str(error), "error") from error
    except ValueError as error:  # an id that is no name; or larger than the tiles before, or RGB
        raise TileError(key.tile, str(error), "error" if isinstance(error, IdError) else "wrong_size") from error


def input_role(source: TileSource) -> str:
    """What of a source is denoised."""
    return "noisy" if "noisy" in source.roles else "image"


def planned(
    source: TileSource, asked: Request, part: Part | None = None
) -> tuple[Request, Plan | None, Iterable[TileKey]]:
    """(request, plan, keys): what is estimated once for the whole source; without a plan each tile has its own."""
    if asked.data_range is None:
        asked = dataclasses.replace(asked, data_range=one_range([source]))
    if asked.noise == "image" and _is_cut(source):
        raise ValueError(
            f"noise is 'image', but {source.name} is a mosaic that is cut into tiles; accepted: 'run' or a NoiseModel"
        )
    keys, windows = _sample(source, input_role(source), part) if asked.looks else (source, [])
    # with nothing to look at, each tile is on its own: all of them turn out to be problems, or nearly so
    plan = None if asked.noise == "image" or (asked.looks and not windows) else asked.plan(lambda: windows)
    return asked, plan, keys


@dataclasses.dataclass(frozen=True)
class Work:
    """Read and denoise one tile; what stops it is its Problem, and the run goes on."""

    source: TileSource
    role: str
    asked: Request
    plan: Plan | None  # None: one for each image
    side: int
    part: Part | None = None  # what of each image is denoised; None: all of it
    device: Any = None  # of what reads the tiles next: whole tiles that are denoised there stay there too
    noted: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (tile, remark), of tiles with own plans

    def settings(self) -> dict[str, Any]:
        """All that a denoised pixel depends on beside the source, as plain data."""
        asked, plan = self.asked, self.plan
        noise = asked.noise if plan is None else plan.noise
        return {
            "model": asked.model.name,
            "weights": asked.model.checksum(),
            "params": plain(dict(asked.params)),
            "role": self.role,
            "vst": asked.vst if plan is None else plan.vst,
            "sigma": None if plan is None else plain(plan.sigma),
            "noise": noise.to_dict() if isinstance(noise, NoiseModel) else noise,
            "halo": asked.halo if plan is None else plan.runner.halo,
            "tile": self.side,
            "data_range": asked.data_range,
            **({} if self.part is None else {"crop": plain(self.part.crop), "mask": self.part.mask}),
        }

    def remarks(self) -> tuple[str, ...]:
        """What the reader of the run should know of its input."""
        left = () if self.part is None else self.part.remarks
        if self.plan is not None:
            return (*self.plan.remarks, *left)
        tiles = sorted({tile for tile, _ in self.noted})
        return (*([f"{len(tiles)} tile(s), the first one {tiles[0]}: {min(self.noted)[1]}"] if tiles else []), *left)

    def __call__(self, key: TileKey) -> np.ndarray | Problem:
        try:
            return self._from_mosaic(key) if _is_cut(self.source) else self._whole(key)
        except TileError as error:
            return Problem(key.tile, getattr(error, "status", "unreadable"), error.reason)
        except ValueError as error:  # non-finite pixels, or too small to take its noise from
            return Problem(key.tile, "error", str(error))

    def _whole(self, key: TileKey) -> np.ndarray:
        whole = self.source.read(key, self.role)
        if self.part is None:
            return self._pixels(key, whole)
        box, counts = self.part.of_image(key, whole)
        return pasted(whole, self._pixels(key, inside_of(whole, box, counts)), box, counts)

    def _pixels(self, key: TileKey, x: np.ndarray) -> np.ndarray:
        shape = (x.shape[-2], x.shape[-1])
        plan = self.plan or self.asked.plan(lambda: array_windows(x))
        if self.plan is None:
            self.noted.extend((key.tile, remark) for remark in plan.remarks)
        if self.device is not None and resident.serves(plan.runner, x, self.device):
            return resident.denoised(x, plan.runner, self.side)
        result = np.empty_like(x)
        for tile in cut(shape, self.side):
            result[..., tile.top : tile.bottom, tile.left : tile.right] = plan.runner.tile(
                lambda rows, columns: x[..., rows, columns], shape, tile, f"tile {key.tile}"
            )
        return result

    def _from_mosaic(self, key: TileKey) -> np.ndarray:
        source, plan = self.source, self.plan or self.asked.plan(list)
        assert isinstance(source, PlaneSource)  # by _is_cut
        at, rows, columns = source.place(key)
        tile = Tile(rows.start, rows.stop, columns.start, columns.stop)
        if self.part is not None:
            return self._part_of_mosaic(key, at, tile, plan)
        return plan.runner.tile(
            lambda rows, columns: source.window(key.tile, at, rows, columns),
            source.sizes()[at],
            tile,
            f"tile {key.tile} or its halo",
        )

    def _part_of_mosaic(self, key: TileKey, at: int, tile: Tile, plan: Plan) -> np.ndarray:
        """A tile of which only what lies in the box is denoised, from pixels of the box alone."""
        source, part = self.source, self.part
        assert isinstance(source, PlaneSource)  # by _is_cut
        assert part is not None
        box, counts = part.of_plane(at)
        left, top, right, bottom = box
        whole = source.window(key.tile, at, slice(tile.top, tile.bottom), slice(tile.left, tile.right))
        inner = Tile(
            max(tile.top, top) - top, min(tile.bottom, bottom) - top,
            max(tile.left, left) - left, min(tile.right, right) - left,
        )  # fmt: skip
        if inner.top >= inner.bottom or inner.left >= inner.right:
            return whole
        read = _window_reader(source, key.tile, at, box, counts)
        denoised = plan.runner.tile(read, (bottom - top, right - left), inner, f"tile {key.tile} or its halo")
        place = (
            inner.left + left - tile.left, inner.top + top - tile.top,
            inner.right + left - tile.left, inner.bottom + top - tile.top,
        )  # fmt: skip
        counted = None if counts is None else counts[inner.top : inner.bottom, inner.left : inner.right]
        return pasted(whole, denoised, place, counted)


def _window_reader(
    source: PlaneSource, name: str, plane: int, box: Box, counts: np.ndarray | None
) -> Callable[[slice, slice], np.ndarray]:
    """Reads windows of the box of a mosaic, in its own rows and columns."""
    left, top, _, _ = box

    def read(rows: slice, columns: slice) -> np.ndarray:
        pixels = source.window(
            name, plane, slice(rows.start + top, rows.stop + top), slice(columns.start + left, columns.stop + left)
        )
        return filled(pixels, None if counts is None else counts[rows, columns])

    return read


def _is_cut(source: TileSource) -> bool:
    """Whether its tiles are parts of larger planes, which can be read across their borders."""
    return isinstance(source, PlaneSource) and source.is_cut


def _sample(source: TileSource, role: str, part: Part | None = None) -> tuple[Iterable[TileKey], list[np.ndarray]]:
    """The keys to go through, and windows to estimate from: readable ones, spread over the source."""
    windows: list[np.ndarray] = []

    def look(key: TileKey) -> None:
        try:
            pixels = source.read(key, role)
        except TileError:
            return  # counted and listed when its turn comes
        try:
            pixels = pixels if part is None else inside_of(pixels, *part.of_image(key, pixels))
        except TileError:
            return
        x = pixels if pixels.ndim == 2 else pixels[0]
        windows.extend(window for window in array_windows(x, limit=1) if np.isfinite(window).all())

    if isinstance(source, PlaneSource) and _is_cut(source):
        places = [
            ((0, 0, width, height), None) if part is None else part.of_plane(plane)
            for plane, (height, width) in enumerate(source.sizes())
        ]

        def window(plane: int, rows: slice, columns: slice) -> np.ndarray:
            try:
                pixels = _window_reader(source, "sample", plane, *places[plane])(rows, columns)
            except TileError:
                return np.empty((0, 0))
            return pixels if pixels.ndim == 2 else pixels[0]

        sampled = sample_windows([(bottom - top, right - left) for (left, top, right, bottom), _ in places], window)
        return source, [pixels for pixels in sampled if pixels.size and np.isfinite(pixels).all()]
    total = length_of(source)
    if total is None:  # a stream is read once: its first tiles stand for it
        keys = iter(source)
        head = list(islice(keys, MAX_WINDOWS))
        for key in head:
            look(key)
        return chain(head, keys), windows
    chosen = set(evenly(total)) if total else set()
    for place, key in enumerate(source):
        if place in chosen:
            look(key)
    if not windows:  # none of the chosen could be read: any other one will do
        for key in source:
            look(key)
            if windows:
                break
    return source, windows
