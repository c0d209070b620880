"""Sources whose tiles are computed when they are read: several frames as one, and denoised ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels.errors import TileError

from ..base.timing import stage
from ..noise.model import NoiseModel
from ..tiles import Problem, TileKey, TileSource, TileWriter, open_tiles
from ..tiles.over import Over
from .frames import fuse
from .plan import request
from .tiled import DEFAULT_TILE, as_dtype
from .work import Work, input_role, planned, store

_FRAMES = ("noisy", "noisy_2", "noisy_3")


class FusedSource(Over):
    """Role "noisy" is the registered mean of the frames of a site; the frames themselves are no longer there."""

    def __init__(self, source: TileSource) -> None:
        super().__init__(source)
        # in the order of scanning: the first one is what the others are registered to
        self._frames = tuple(role for role in _FRAMES if role in source.roles)
        if len(self._frames) < 2:
            raise ValueError(
                f"frames is True, but {source.name} has the roles {', '.join(source.roles)}; accepted: a source with "
                "noisy and noisy_2 (and noisy_3)"
            )
        self.name = f"{source.name}, {len(self._frames)} frames fused"
        self.roles = ("noisy", *(role for role in source.roles if role not in (*_FRAMES, "image")))

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "fused": list(self._frames)}

    def read(self, key: TileKey, role: str = "noisy") -> np.ndarray:
        self._check_role(role)
        if role != "noisy":
            return self._source.read(key, role)
        frames = [self._source.read(key, frame) for frame in self._frames]
        try:
            image, _ = fuse(frames)
        except ValueError as error:
            raise TileError(key.tile, str(error), "error") from error
        return as_dtype(image, frames[0].dtype, self.data_range)


class DenoisedSource(Over):
    """Role "image" is the denoised tile, "noisy" what it was made of; every other role is that of the source."""

    def __init__(self, source: TileSource, work: Work, keys: Any, model: str, writer: TileWriter | None = None) -> None:
        super().__init__(source)
        self.name = f"{source.name} denoised by {model}"
        self.roles = ("image", "noisy", *(r for r in source.roles if r not in ("image", "noisy", "candidate")))
        self.data_range, self.ranges = work.asked.data_range, None
        self._work, self._keys, self._writer = work, keys, writer
        self.failed: list[Problem] = []

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "denoiser": self._work.settings()}

    def __iter__(self) -> Iterator[TileKey]:
        return iter(self._keys)

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        self._check_role(role)
        if role != "image":
            return self._source.read(key, self._work.role if role == "noisy" else role)
        with stage("denoise"):
            denoised = self._work(key)
        try:
            if isinstance(denoised, Problem):
                raise TileError(key.tile, denoised.reason, denoised.status)
            if self._writer is not None:
                with stage("write"):
                    store(self._writer, key, denoised)
        except TileError as error:
            self.failed.append(Problem(key.tile, error.status, error.reason))
            raise
        return denoised


def opened(src: Any, root: Any, tile: int, frames: bool) -> TileSource:
    """The source to denoise: as it is, or its frames as one image."""
    source = open_tiles(src, root=root, tile=tile)
    return FusedSource(source) if frames else source


def denoised(
    src: Any,
    *,
    model: str = "nlm",
    data_range: float | None = None,
    vst: str | bool = "auto",
    noise: str | NoiseModel = "run",
    tile: int = DEFAULT_TILE,
    halo: int | None = None,
    frames: bool = False,
    root: str | Path | None = None,
    **params: Any,
) -> TileSource:
    """A source whose tiles are denoised as they are read; for `semnr.score`, which then writes no pixels.

    What depends on the images (the noise, thresholds) is estimated once for the run, as `semnr.denoise` does.

    Parameters
    ----------
    src : anything that `semnr.open_tiles` takes
        Of several roles `noisy` is denoised, else `image`.
    model, data_range, vst, noise, tile, halo, frames, root, **params
        As for `semnr.denoise`.

    Returns
    -------
    TileSource
        Role "image" is the denoised tile, "noisy" the tile that it was made of; further roles are those of `src`.

    Raises
    ------
    TypeError, ValueError
        As `semnr.denoise`. `read` raises TileError for a tile that cannot be read or denoised.

    Examples
    --------
    >>> source = semnr.denoising.denoised(np.stack([noisy, second]), model="gaussian")
    >>> source.roles, source.read(next(iter(source))).shape
    (('image', 'noisy'), (128, 128))
    """
    asked = request(model, params, vst, noise, data_range, halo)
    source = opened(src, root, tile, frames)
    asked, plan, keys = planned(source, asked)
    for remark in () if plan is None else plan.remarks:
        warnings.warn(remark, UserWarning, stacklevel=2)
    return DenoisedSource(source, Work(source, input_role(source), asked, plan, tile), keys, model)
