"""`semnr.denoise`: arrays in and out, or a source of tiles into a file, through the same windows."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..base.outputs import local
from ..base.threads import in_order, pool
from ..noise.model import NoiseModel, array_windows
from ..tiles.extent import files_of
from .over_tiles import Scores, denoise_source
from .plan import Plan, Request, request
from .tiled import DEFAULT_TILE, Tile, cut, default_workers

_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")


def denoise(
    src: Any,
    out: Any = None,
    *,
    model: str = "nlm",
    data_range: float | None = None,
    vst: str | bool = "auto",
    noise: str | NoiseModel = "run",
    tile: int = DEFAULT_TILE,
    halo: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    scores: Scores | None = None,
    frames: bool = False,
    crop: Any = None,
    mask: Any = None,
    root: str | Path | None = None,
    quiet: bool = True,
    **params: Any,
) -> Any:
    """Denoise an array or a source, as `semnr.denoise` does, without scores.

    Parameters
    ----------
    src, out, model, data_range, vst, noise, tile, halo, workers, overwrite, resume, frames
        As for `semnr.denoise`.
    crop, mask, root, quiet, **params
        As for `semnr.denoise`.
    scores : optional
        What scores the tiles beside the writing; `semnr.denoise` makes it from its argument `score`.

    Returns
    -------
    array or Denoised
        As `semnr.denoise`.

    Examples
    --------
    >>> semnr.denoising.denoise(noisy, model="gaussian").shape
    (128, 128)
    """
    asked = request(model, params, vst, noise, data_range, halo)
    side = _count("tile", tile)
    threads = default_workers() if workers is None else _count("workers", workers)
    if isinstance(out, str | Path):
        return denoise_source(
            src, local("out", out), asked, side, threads, overwrite=overwrite, resume=resume,
            scores=scores, frames=frames, crop=crop, mask=mask, root=root, quiet=quiet,
        )  # fmt: skip
    for name, value in (("crop", crop), ("mask", mask)):
        if value is not None:
            raise ValueError(
                f"{name} is given and out is no path; accepted: a source of tiles and a path as out (of an array, give "
                "the part that counts: x[top:bottom, left:right])"
            )
    for name, value in (("score", scores is not None), ("resume", resume), ("frames", frames)):
        if value:
            raise ValueError(f"{name} is {value!r} and out is no path; accepted: a source of tiles and a path as out")
    return _denoise_array(src, out, asked, side, threads)


def _denoise_array(src: Any, out: Any, asked: Request, side: int, workers: int) -> Any:
    tensor = type(src).__module__.partition(".")[0] == "torch" and hasattr(src, "detach")
    x = src.detach().cpu().numpy() if tensor else src
    if not (hasattr(x, "shape") and hasattr(x, "dtype") and hasattr(x, "__getitem__")):
        raise TypeError(
            f"src is {type(src).__name__} and out is {'None' if out is None else type(out).__name__}; accepted: an "
            'array of shape (H, W) or (T, H, W), or any source of tiles together with a path as out (out="clean.zarr")'
        )
    dtype = np.dtype(x.dtype)
    if dtype.newbyteorder("=").name not in _DTYPES:
        raise TypeError(f"src has dtype {dtype.name}; accepted: {', '.join(_DTYPES)}")
    if len(x.shape) not in (2, 3) or 0 in x.shape:
        raise ValueError(f"src has shape {tuple(x.shape)}; accepted: (H, W) or a stack (T, H, W), not empty")
    if out is None:
        result = np.empty(x.shape, dtype)
    else:
        result = out
        _refuse_itself(x, out)
        there = (tuple(getattr(out, "shape", ())), getattr(out, "dtype", None))
        if there != (tuple(x.shape), dtype) or not hasattr(out, "__setitem__"):
            raise ValueError(
                f"out has shape {there[0]} and dtype {there[1]}; accepted: an array like src, "
                f"{tuple(x.shape)} {dtype.name}, or a path, or None"
            )
    with pool(workers, "denoise") as executor:
        for (_, frame, place), pixels in in_order(executor, _job(x), _jobs(x, asked, side), 2 * workers):
            plane = (slice(place.top, place.bottom), slice(place.left, place.right))
            result[plane if frame is None else (frame, *plane)] = pixels
    if not tensor or out is not None:
        return result
    import torch

    return torch.from_numpy(result)


def _refuse_itself(x: Any, out: Any) -> None:
    """A halo is read from around each window: results written over the input would become input."""
    shared = isinstance(out, np.ndarray) and isinstance(x, np.ndarray) and np.may_share_memory(x, out)
    files = [os.path.realpath(path) for path in (*files_of(x), *files_of(out))]
    if x is out or shared or len(files) != len(set(files)):
        raise ValueError("out shares its memory with src; accepted: another array, or None")


def _jobs(x: Any, asked: Request, side: int) -> Iterator[tuple[Plan, int | None, Tile]]:
    frames: list[int | None] = [None] if len(x.shape) == 2 else list(range(x.shape[0]))
    plan = None
    for frame in frames:
        if plan is None or asked.noise == "image":
            whole = x if frame is None or asked.noise != "image" else x[frame]
            plan = asked.plan(lambda whole=whole: array_windows(whole))  # type: ignore[misc]
            for remark in plan.remarks:
                warnings.warn(remark, UserWarning, stacklevel=2)
        for place in cut(tuple(x.shape[-2:]), side):
            yield plan, frame, place


def _job(x: Any) -> Any:
    def work(job: tuple[Plan, int | None, Tile]) -> np.ndarray:
        plan, frame, place = job

        def read(rows: slice, columns: slice) -> np.ndarray:
            return np.asarray(x[rows, columns] if frame is None else x[frame, rows, columns])

        return plan.runner.tile(read, tuple(x.shape[-2:]), place, "src" if frame is None else f"src[{frame}]")

    return work


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; accepted: an integer of at least 1")
    return value
