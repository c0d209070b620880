"""Denoise, score and guard in one pass over the tiles: the only place that combines the three."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import denoising
from .denoising.tiled import DEFAULT_TILE
from .noise import NoiseModel

__all__ = ["denoise"]


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
    crop: Any = None,
    mask: Any = None,
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
        filled window by window. A path ending in .tif (or .png) for an image, a mosaic or a stack of pages: one file of
        the same size, bit depth and photometric, with all tags of the instrument; it is there whole or not at all. Any
        other path: written tile by tile by `semnr.tiles.create_tiles` ("clean.zarr" a tile
        stack, else a folder of TIFFs with a plan), with the coordinates, pixel size and range of the source.
    model : str
        One of `semnr.denoising.MODELS`. Parameters (`params`) and defaults:
        "gaussian" (sigma=1.5 px), "median" (size=5), "nlm" (strength=0.8, sigma=None, patch_size=7,
        patch_distance=6), "wavelet" (strength=1.2, sigma=None, wavelet="db2", levels=3, shifts=4),
        "tv" (strength=1.2, sigma=None, iterations=50), "semnr-small", "semnr-base" or the path of
        .safetensors weights (texture=0.0, ensemble=1 (4 for "semnr-base"), precision="float32", device="cpu",
        batch=None, compiled=False), "bm3d" (strength=1.0, sigma=None; optional package, non-commercial licence, its
        tiles differ from the whole).
        `texture`, 0 (least error) to 1: leave noise where faint texture may lie in it. `ensemble`, 1, 2 or 4: mirrored
        copies of the image that the network denoises and whose results are averaged, at that many times the cost.
        `precision`: "bfloat16" and "float16" differ by at most 0.03 and 0.004 sigma of the noise (rms). `batch`:
        windows at once (None: 1, on a GPU 8). `compiled`: torch.compile. A device other than "cpu" *never ran on a
        GPU*.
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
    crop : "auto" or four int, optional
        Sources only: what of each image is denoised. "auto" leaves out the microscope's data bar, (left, top, right,
        bottom) all but this box; the rest stays as it was. None: whole images.
    mask : path or array, optional
        Sources only: an image that is 0 where pixels stay as they were; they take no part in the noise either.
    root : path, optional
        Folder that the paths of a plan may lie in.
    quiet : bool
        False: progress on stderr (sources only).
    **params
        Parameters of the model, see `model`.

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

    Examples
    --------
    >>> smooth = semnr.denoise(noisy, model="median", size=3)
    >>> smooth.shape, smooth.dtype
    ((128, 128), dtype('uint8'))
    >>> done = semnr.denoise(np.stack([noisy, second]), "clean.zarr", model="gaussian")  # a source of tiles
    >>> done.counts["ok"], done.exit_code
    (2, 0)
    """
    scores = None
    if score is not False:
        if crop is not None or mask is not None:
            raise ValueError(
                f"{'crop' if crop is not None else 'mask'} is given with score; accepted: denoise first, then `semnr "
                "check` or `semnr score` with the same"
            )
        from .scoring.beside import Scores  # loads torch, which classical denoising does without

        scores = Scores(score, out)
    return denoising.denoise(
        src,
        out,
        model=model,
        data_range=data_range,
        vst=vst,
        noise=noise,
        tile=tile,
        halo=halo,
        workers=workers,
        overwrite=overwrite,
        resume=resume,
        scores=scores,
        frames=frames,
        crop=crop,
        mask=mask,
        root=root,
        quiet=quiet,
        **params,
    )
