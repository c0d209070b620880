"""A source whose tiles are denoised when they are read: denoise and score a stream in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semnr._stages import stage
from semnr.denoising._noise import NoiseModel
from semnr.denoising._plan import request
from semnr.denoising._run import DEFAULT_TILE
from semnr.denoising._source import Work, input_role, planned, store
from semnr.tiles import Problem, TileKey, TileSource, TileWriter, open_tiles
from semnr_kernels._errors import TileError


class DenoisedSource(TileSource):
    """Role "image" is the denoised tile, "noisy" what it was made of; every other role is that of the source."""

    def __init__(self, source: TileSource, work: Work, keys: Any, model: str, writer: TileWriter | None = None) -> None:
        self.name = f"{source.name} denoised by {model}"
        self.roles = ("image", "noisy", *(r for r in source.roles if r not in ("image", "noisy", "candidate")))
        self.problems, self.pixel_nm = source.problems, source.pixel_nm
        self.data_range, self.layout = work.asked.data_range, source.layout
        self._source, self._work, self._keys, self._writer = source, work, keys, writer
        self.failed: list[Problem] = []

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[TileKey]:
        return iter(self._keys)

    def find(self, tile: str) -> TileKey | None:
        return self._source.find(tile)

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        self._check_role(role)
        if role != "image":
            return self._source.read(key, self._work.role if role == "noisy" else role)
        with stage("denoise"):
            found = self._work(key)
        try:
            if isinstance(found, Problem):
                raise TileError(key.tile, found.reason, found.status)
            if self._writer is not None:
                with stage("write"):
                    store(self._writer, key, found)
        except TileError as error:
            self.failed.append(Problem(key.tile, error.status, error.reason))
            raise
        return found


def denoised(
    src: Any,
    *,
    model: str = "nlm",
    data_range: float | None = None,
    vst: str | bool = "auto",
    noise: str | NoiseModel = "run",
    tile: int = DEFAULT_TILE,
    halo: int | None = None,
    root: str | Path | None = None,
    **params: Any,
) -> TileSource:
    """The tiles of `src`, each denoised when it is read; for `semnr.score`, which then writes no pixels.

    Arguments, and what is estimated once for the run, are those of `semnr.denoise`. Of several roles `noisy` is
    denoised, else `image`.

    Raises
    ------
    TypeError, ValueError
        As `semnr.denoise`; from `read`, TileError for a tile that cannot be read or denoised.
    """
    asked = request(model, params, vst, noise, data_range, halo)
    source = open_tiles(src, root=root, tile=tile)
    asked, plan, keys = planned(source, asked)
    for remark in () if plan is None else plan.remarks:
        warnings.warn(remark, UserWarning, stacklevel=2)
    return DenoisedSource(source, Work(source, input_role(source), asked, plan, tile), keys, model)
