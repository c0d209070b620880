"""Tiles from sources to batches: paired by id, problems set aside, memory bounded."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from semnr_kernels import BackendUnavailable, TileError, WeightsUnavailable

from ..tiles.framing import Frame
from ..tiles.limits import at_most
from ..tiles.source import Problem, TileKey, TileSource, length_of

Loaded = dict[str, np.ndarray]


@dataclass(frozen=True)
class Inputs:
    """Where candidate, reference and noisy pixels come from: (source, role) each; None where there is none.

    Without a reference there are one to three noisy frames of each site.
    """

    candidate: tuple[TileSource, str]
    reference: tuple[TileSource, str] | None
    noisy: tuple[TileSource, str] | None
    noisy_2: tuple[TileSource, str] | None = None
    noisy_3: tuple[TileSource, str] | None = None
    frame: Frame | None = None  # what of each image counts
    remarks: tuple[str, ...] = ()  # how images of several sources were paired, and which were left over

    @property
    def others(self) -> dict[str, tuple[TileSource, str]]:
        """Every place beside the candidate's, by the name of its pixels in a batch."""
        places = {"y": self.reference, "noisy": self.noisy, "noisy_2": self.noisy_2, "noisy_3": self.noisy_3}
        return {name: place for name, place in places.items() if place is not None}

    @property
    def computes(self) -> bool:
        """Whether the candidate's pixels are made as they are read."""
        return "denoiser" in self.candidate[0].settings()

    @property
    def witness(self) -> tuple[TileSource, str]:
        """What each tile is held against: its tiles without a candidate are missing from the run."""
        return self.reference or self.noisy_2 or self.others["noisy"]

    @property
    def alone(self) -> bool:
        """Whether nothing but the noisy input is there to tell what is structure."""
        return self.reference is None and self.noisy_2 is None

    def sources(self) -> list[TileSource]:
        """Each source once."""
        places = (self.candidate, *self.others.values())
        return list({id(source): source for source, _ in places}.values())

    def named(self) -> dict[str, tuple[TileSource, str] | None]:
        """The places by the argument of `score` that gives each."""
        return {name: getattr(self, name) for name in ("reference", "noisy", "noisy_2", "noisy_3")}

    def given(self, *arguments: Any) -> list[tuple[TileSource, Any]]:
        """The other sources, each with the argument (reference, noisy, noisy_2, noisy_3) that it was opened from."""
        pairs = zip(self.named().values(), arguments, strict=True)
        return [(place[0], argument) for place, argument in pairs if place is not None and argument is not None]

    def load(self, key: TileKey, most: int = sys.maxsize, *, computed: bool = True) -> Loaded | Problem:
        """Pixels of every part of one tile, of at most `most` bytes, or what is wrong with it.

        computed: False leaves out a candidate that is denoised as it is read.
        """
        source, role = self.candidate
        parts = {"x": (source, role, key)} if computed or not self.computes else {}
        for name, (other, its_role) in self.others.items():
            its_key = key if other is source else other.find(key.tile)
            if its_key is None:
                status = "no_reference" if name == "y" else "missing"
                return Problem(key.tile, status, f"{other.name} has no tile {key.tile}")
            parts[name] = (other, its_role, its_key)
        loaded: Loaded = {}
        for name, (other, its_role, its_key) in parts.items():
            try:
                with at_most(most // len(parts)):
                    loaded[name] = other.read(its_key, its_role)
            except TileError as error:
                return Problem(key.tile, error.status, f"{its_role}: {error.reason}")
            except (BackendUnavailable, WeightsUnavailable):
                raise  # of this machine, not of a tile
            except Exception as error:  # of whatever a source is made of: one tile, not the run
                memory = "there is not enough memory for it; " if isinstance(error, MemoryError) else ""
                return Problem(key.tile, "unreadable", f"{its_role}: {memory}{type(error).__name__}: {error}")
        return (_mismatch(key, loaded) if "x" in loaded else None) or loaded


@dataclass(frozen=True)
class HeldPixels:
    """Pixels of a run whose sources lie in this process, by tile and role, for its report and thumbnails.

    Parameters
    ----------
    inputs : Inputs
        The sources as they were scored.
    """

    inputs: Inputs

    def __call__(self, tile: str, role: str) -> np.ndarray | None:
        """Pixels of a tile ("image" is the candidate), or None where there are none."""
        place = self.inputs.candidate if role == "image" else self.inputs.named().get(role)
        if place is None:
            return None
        source, held = place
        try:
            key = source.find(tile)
            return None if key is None else source.read(key, held)
        except TileError:
            return None


def held(inputs: Inputs) -> HeldPixels | None:
    """The pixels that no path leads to once the run is over; None where all can be opened again, or be read once."""
    sources = inputs.sources()
    if all(source.origin is not None for source in sources) or inputs.computes:
        return None
    return HeldPixels(inputs) if all(length_of(source) is not None for source in sources) else None


def _mismatch(key: TileKey, loaded: Loaded) -> Problem | None:
    x = loaded["x"]
    for name, other in loaded.items():
        what = {"y": "reference", "noisy": "noisy input", "noisy_2": "second frame", "noisy_3": "third frame"}.get(name)
        if other.ndim != x.ndim:
            return Problem(key.tile, "wrong_size", f"candidate is {_colour(x)}, {what} {_colour(other)}")
        if other.shape != x.shape:
            return Problem(key.tile, "wrong_size", f"candidate is {_size(x)}, {what} {_size(other)}{_bar(x, other)}")
        if other.dtype != x.dtype:
            return Problem(key.tile, "wrong_dtype", f"candidate is {x.dtype}, {what} {other.dtype}")
    return None


def _bar(one: np.ndarray, other: np.ndarray) -> str:
    """What may explain a difference of a few rows."""
    rows = abs(one.shape[-2] - other.shape[-2])
    if one.shape[-1] != other.shape[-1] or not 0 < rows <= 0.2 * max(one.shape[-2], other.shape[-2]):
        return ""
    return f": {rows} rows more, as a data bar has; --crop auto leaves it out, --crop left,top,right,bottom anything"


def _size(image: np.ndarray) -> str:
    return "x".join(map(str, image.shape))


def _colour(image: np.ndarray) -> str:
    return "grey" if image.ndim == 2 else "in colour (RGB)"


@dataclass(frozen=True)
class Batch:
    """Tiles of one shape and dtype; `parts` holds x, y and maybe noisy, (N, C, H, W).

    there: of candidates that were made on a device, what lies there of each tile, by role; None: not of all of them.
    """

    keys: list[TileKey]
    parts: dict[str, np.ndarray]
    there: list[Mapping[str, Any]] | None = None


def batches(tiles: Iterator[tuple[TileKey, Any]], batch_bytes: int) -> Iterator[Batch | tuple[TileKey, Problem]]:
    """Runs of tiles of one shape and dtype, bounded in bytes; problems as they come."""
    keys: list[TileKey] = []
    held: list[Loaded] = []
    size = 0

    def stacked() -> Batch:
        nonlocal size
        parts = {}
        for name in held[0]:
            images = [tile[name] if tile[name].ndim == 3 else tile[name][None] for tile in held]
            alone = len(images) == 1 and images[0].flags.writeable  # torch warns of arrays that it may not write
            parts[name] = np.asarray(images[0][None] if alone else np.stack(images))  # one large tile is not copied
        there = [one for tile in held if (one := getattr(tile["x"], "there", None)) is not None]
        batch = Batch(list(keys), parts, there if len(there) == len(held) else None)
        keys.clear()
        held.clear()
        size = 0
        return batch

    for key, loaded in tiles:
        if isinstance(loaded, Problem):
            if any(before.tile == key.tile for before in keys):  # read again: its later row is the one that counts
                yield stacked()
            yield key, loaded
            continue
        alike = not held or (held[0]["x"].shape, held[0]["x"].dtype) == (loaded["x"].shape, loaded["x"].dtype)
        if held and (not alike or size + loaded["x"].nbytes > batch_bytes):
            yield stacked()
        keys.append(key)
        held.append(loaded)
        size += loaded["x"].nbytes
    if held:
        yield stacked()
