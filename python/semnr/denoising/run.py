"""`semnr.denoise`: arrays in and out, or a source of tiles into a file, through the same windows."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.outputs import local
from ..base.threads import in_order, pool
from ..noise.model import NoiseModel, array_windows
from ..tiles.extent import files_of
from .plan import Plan, Request, request
from .tiled import Tile, cut, default_workers

if TYPE_CHECKING:
    from ..scoring import Run
    from ..tiles import Problem

DEFAULT_TILE = 512  # side of the windows that large images are worked on in
_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")


@dataclass(frozen=True)
class Denoised:
    """What a run over a source did. `exit_code` is 1 where a rule fired on its scores, 3 where tiles were left out."""

    out: str
    source: str
    origin: str  # where it lies, seen from `out`, or what its first tile holds: names of sources repeat
    model: str
    weights: str | None  # SHA-256 of a learned model's
    params: dict[str, Any]
    role: str  # of the source, that was denoised
    data_range: float | None
    vst: bool | None  # None: decided for each image
    sigma: float | None
    noise: NoiseModel | None
    halo: int | None
    tile: int
    exact_tiling: bool
    counts: dict[str, int]
    problems: tuple[Problem, ...] = field(default=())
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()  # such as an input outside the noise family that a network was trained on
    kept: int = 0  # tiles of an earlier run that this one went on with
    run: Run | None = None  # the scores, with score=True

    @property
    def exit_code(self) -> int:
        if self.run is not None and self.run.exit_code:
            return self.run.exit_code
        return 3 if self.problems or not self.counts.get("ok") else 0

    def to_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["noise"] = None if self.noise is None else self.noise.to_dict()
        plain["run"] = None if self.run is None else str(self.run.path)
        plain["problems"] = [{"tile": p.tile, "status": p.status, "reason": p.reason} for p in self.problems]
        return plain


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
    score: bool | str | Path | Mapping[str, Any] = False,
    frames: bool = False,
    root: str | Path | None = None,
    quiet: bool = True,
    **params: Any,
) -> Any:
    """Denoise an image, a stack, a mosaic of any size or a source of tiles.

    Everything that depends on the image (the noise, thresholds) is estimated once and then fixed, so that the
    result does not depend on `tile` (within 1e-6, `Model.exact_tiling`) nor on `workers` (bit for bit).

    Parameters
    ----------
    src : array or source
        An array (H, W) or stack (T, H, W) of uint8, uint16, float16, float32, float64: NumPy, a memory map, a Zarr
        array or a CPU torch tensor. Or, with a path as `out`, whatever `semnr.open_tiles` takes; of several roles,
        `noisy` is denoised where there is one, else `image`.
    out : None, array or path
        None: a new array comes back (arrays only). An array, memory map or Zarr array of the same shape and dtype:
        filled window by window. A path: written tile by tile by `semnr.tiles.create_tiles` ("clean.zarr" a tile
        stack, else a folder of TIFFs with a plan), with the coordinates, pixel size and range of the source.
    model : str
        One of `semnr.denoising.MODELS`. Parameters (`params`) and defaults:
        "gaussian" (sigma=1.5 px), "median" (size=5), "nlm" (strength=0.8, sigma=None, patch_size=7,
        patch_distance=6), "wavelet" (strength=1.2, sigma=None, wavelet="db2", levels=3, shifts=4),
        "tv" (strength=1.2, sigma=None, iterations=50), "semnr-small" or the path of .safetensors weights
        (texture=0.0, precision="float32", device="cpu", batch=None, compiled=False), "bm3d" (strength=1.0,
        sigma=None; optional package, non-commercial licence, its tiles differ from the whole).
        `texture`, 0 (least error) to 1: leave noise where faint texture may lie in it. `precision`: "bfloat16" and
        "float16" differ by at most 0.03 and 0.004 sigma of the noise (rms). `batch`: windows at once (None: 1, on a
        GPU 8). `compiled`: torch.compile. A device other than "cpu" *never ran on a GPU*.
        Except for "gaussian", `sigma` is the noise's standard deviation in grey levels; None: estimated.
    data_range : float, optional
        Upper end of the scale of integers (1023 for 10-bit data in uint16), to which results are clipped; default
        the source's, or that of the dtype. Floats are never clipped.
    vst : "auto", True or False
        Stabilise the variance (generalised Anscombe transform, exact unbiased inverse) around the model. "auto":
        where the model expects uniform noise and the noise model says that it grows with the signal.
    noise : "run", "image" or NoiseModel
        One estimate for the run (from up to 16 tiles), one for each image, or given.
    tile : int
        Side of the windows that large images are worked on in; of the tiles that a mosaic is written as.
    halo : int, optional
        Pixels around a window; None: what the model needs. Too few for an exact model is refused.
    workers : int, optional
        Threads; default the processors of this process.
    overwrite : bool
        Replace what an earlier run left at the path `out`.
    resume : bool
        Go on with what an interrupted run of the same settings left at the path `out`: tiles that are there, whole,
        are kept.
    score : bool, path or mapping
        Sources only: score the tiles with `semnr.score` as they are denoised, in the same pass, against the
        `reference` or the further frames of `src`. True: the scores go beside `out` ("clean-scores"); a path: there; a
        mapping: arguments of `semnr.score` (out, metrics, rules, alarms, ...). With rules the run is guarded too.
    frames : bool
        Sources only: the roles noisy, noisy_2 (and noisy_3) are frames of one site. They are registered and averaged
        before they are denoised (`semnr.denoising.fuse`); the noise is that of the average.
    root : path, optional
        Folder that the paths of a plan may lie in.
    quiet : bool
        False: progress on stderr (sources only).

    Returns
    -------
    array or Denoised
        The array (a tensor for a tensor), or a summary: counts, problems (tiles that, or in a mosaic the halo of which,
        could not be read; the others are done), noise, halo, seconds, `run` (the scores, a `semnr.Run`).

    Raises
    ------
    TypeError, ValueError
        Unknown model or parameter, bad values, non-finite pixels in an array: the argument, what it was, what is
        accepted.
    FileExistsError
        `out` holds tiles, and neither overwrite nor resume is True.
    ImportError
        model="bm3d" without the package.

    Notes
    -----
    Mean PSNR / SSIM / FSIM over five real pairs (8 bit, sigma 11 to 26 grey levels, correlated along the scan), as
    registered and fitted in the tests: noisy 22.4 / 0.48 / 0.889, gaussian 29.4 / 0.83 / 0.923, median 29.7 / 0.80 /
    0.931, nlm 31.9 / 0.89 / 0.953, wavelet 30.6 / 0.86 / 0.941, tv 30.9 / 0.88 / 0.952. The
    defaults are the best of a coarse search on these same pairs. bm3d: 32.7 / 0.91 / 0.965, and seams between
    tiles of 256² (rms 0.6, largest 14 grey levels).
    """
    asked = request(model, params, vst, noise, data_range, halo)
    side = _count("tile", tile)
    threads = default_workers() if workers is None else _count("workers", workers)
    if isinstance(out, str | Path):
        from .over_tiles import denoise_source

        return denoise_source(
            src, local("out", out), asked, side, threads, overwrite=overwrite, resume=resume,
            score=_scoring(score, Path(out)), frames=frames, root=root, quiet=quiet,
        )  # fmt: skip
    for name, value in (("score", score), ("resume", resume), ("frames", frames)):
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


def _scoring(score: Any, out: Path) -> dict[str, Any] | None:
    """The arguments of `semnr.score`, or None."""
    if score is False:
        return None
    options: dict[str, Any] = {"out": out.with_name(f"{out.stem}-scores")}
    if isinstance(score, Mapping):
        options |= score
    elif isinstance(score, str | Path):
        options["out"] = score
    elif score is not True:
        raise TypeError(f"score is {type(score).__name__}; accepted: True, False, a path, arguments of semnr.score")
    if taken := sorted({"src", "resume", "workers", "quiet"} & set(options)):
        raise ValueError(f"score has {taken[0]!r}, which denoise sets itself; accepted: other arguments of semnr.score")
    return options


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; accepted: an integer of at least 1")
    return value
