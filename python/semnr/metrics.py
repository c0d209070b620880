"""The public functions of the metrics: they take torch tensors or NumPy arrays and return the same kind.

Arrays of other libraries are read where they lie: by DLPack they are torch tensors, by `__array__` NumPy arrays.

`x` is the candidate, `y` the reference. Scores are float64. Each function says what it takes; docs/numerics.md says
what holds for all of them.

Waiting for a GPU
    nan="error" reads the score back. nan="omit", overshoot="clip" or "error", and `details` look at the pixels first.
    With nan="propagate" no metric but cnr reads anything back, unless a mask has to be filled in (fsim, dists). psnr,
    ssim and ms_ssim of the backends "triton" and "cuda" can then be captured in a CUDA graph, after one call that
    compiles them and copies their constants, and so can a training step with SSIMLoss or L1SSIMLoss: see
    docs/performance.md. nan="error" says so inside a capture. cnr always waits, because it looks at its regions.
torch.compile and torch.export
    A call on tensors is one node (`torch.ops.semnr.ssim`, ...), backward pass included. Pixels are checked and the
    backend is chosen when the graph runs. `details` and weights that are a state dict stay outside the graph; a
    `Result` that comes out of a graph evaluates no flags. The backward node keeps the images alone: for every metric
    but mse, mae and ssim it computes the forward pass again. Second derivatives have to be taken outside
    torch.compile, and so has vmap. Autocast does not change a score.
torch.func and unusual tensors
    Inside grad, jvp and their kind, and under forward-mode differentiation, the backend `reference` runs; vmap runs
    image by image. FakeTensor, wrapper subclasses and "meta" tensors, and calls under a dispatch mode, go as one op.
    Sparse, nested and mkldnn tensors are refused.
Processes and threads
    After a fork, torch runs on one thread in the child. `use_backend` holds for the thread (the context) that entered
    it; threads of a pool take "auto" unless they are given the context.
Good to know
    Three dimensions are (C, H, W), one image of 1 or 3 channels; others are refused, because they may be a stack: a
    stack of grey images is (N, 1, H, W), one image of more channels (1, C, H, W). Sources of tiles (`semnr.check`,
    `semnr.score`, `semnr.denoise`) read (T, H, W) as T grey images. With convention="torchmetrics" the window stays 11
    unless `window_size` is given, whatever `sigma` is (torchmetrics itself takes 2 · int(3.5 σ + 0.5) + 1). FSIM keeps
    the filters of the sizes that it met, up to 256 MiB. 10-bit data in uint16 without `data_range` is scored on a range
    of 65,535. Under nan="propagate" the gradient of an image that holds a NaN is NaN, also where its score is left out
    of the loss.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import semnr_kernels as kernels
from semnr_kernels import Result, backends, library, registry, use_backend
from semnr_kernels.cnr import Sigma

__all__ = [
    "Result",
    "Sigma",
    "backends",
    "cnr",
    "cnr_map",
    "dists",
    "explain",
    "fsim",
    "lpips",
    "mae",
    "ms_ssim",
    "mse",
    "otsu_masks",
    "psnr",
    "ssim",
    "use_backend",
    "worst_windows",
]

Array = torch.Tensor | np.ndarray


# Arguments that hold pixels.
_IMAGES = ("x", "y", "mask", "signal", "background")


def _as_known(name: str, value: Any) -> Any:
    """Another library's array as a tensor (DLPack) or a NumPy array (`__array__`), in the memory that it has."""
    if name not in _IMAGES or value is None or isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value
    if hasattr(value, "__dlpack__"):
        try:
            return torch.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError):
            pass  # read-only, or of a dtype that DLPack or torch lacks: as an array, or refused by name
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return np.asarray(value)
    return value


def to_tensor(name: str, value: Any) -> Any:
    """An array as a tensor that shares its memory; anything else as it is."""
    value = _as_known(name, value)
    if not isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.getmaskarray(value).any():
            raise TypeError(
                f"{name} is a numpy.ma.MaskedArray with masked pixels; accepted: {name}.data, and "
                f"mask=~numpy.ma.getmaskarray({name}) (True: a valid pixel)"
            )
        value = value.data
    if value.dtype.byteorder not in "=|" and value.dtype.isnative is False:
        value = value.astype(value.dtype.newbyteorder("="))
    if any(stride < 0 for stride in value.strides) or not value.flags.writeable:
        value = value.copy()  # torch has neither negative strides nor read-only tensors
    try:
        return torch.from_numpy(value)
    except TypeError:
        raise TypeError(f"{name} has dtype {value.dtype}; accepted: uint8, uint16, float16, float32, float64") from None


def to_numpy(value: Any) -> Any:
    """Tensors as NumPy values, through a Result, tuple or mapping of them."""
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().numpy()
        return array[()] if array.ndim == 0 else array
    if isinstance(value, kernels.Result):
        return dataclasses.replace(
            value, **{f: to_numpy(getattr(value, f)) for f in ("value", "map", "components", "coverage")}
        )
    if isinstance(value, Mapping):
        return {k: to_numpy(v) for k, v in value.items()}
    return value


def _call(function: Callable[..., Any], x: Any, y: Any, options: Mapping[str, Any]) -> Any:
    """Run a kernel on arrays or tensors and give back the kind that came in."""
    if type(x) is torch.Tensor and type(y) is torch.Tensor:
        for value in options.values():
            if isinstance(value, np.ndarray):
                break
        else:  # the usual call
            return function(x, y, **options)
    x, y = _as_known("x", x), _as_known("y", y)
    numpy_in = isinstance(x, np.ndarray)
    if y is not None and isinstance(y, np.ndarray) != numpy_in and isinstance(y, np.ndarray | torch.Tensor):
        raise TypeError(f"x is {type(x).__name__} and y {type(y).__name__}; accepted: both of one kind")
    tensors = {k: to_tensor(k, v) for k, v in options.items()}
    result = function(to_tensor("x", x), to_tensor("y", y), **tensors)
    return to_numpy(result) if numpy_in else result


def _mirrors(kernel: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Show the kernel's own signature in help() and editors: it is written once."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__signature__ = inspect.signature(kernel)  # type: ignore[attr-defined]
        return function

    return decorate


@_mirrors(kernels.pixel.mse)
def mse(x: Array, y: Array, **options: Any) -> Any:
    """Mean squared error, in squared grey levels, at least 0. It is exact for integers.

    Parameters
    ----------
    x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, both tensors or both arrays, of one shape and dtype: uint8, uint16, float16, bfloat16,
        float32 or float64.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range].
    data_range : float, optional
        Width of the intensity scale. Needed for `overshoot` alone. Default for integers: the range of the dtype, so
        that 10-bit data in uint16 must say 1023.
    backend : str
        "auto", or a name of `semnr.backends()`; a named backend never falls back.

    Returns
    -------
    Tensor or ndarray
        A float64 scalar, or (N,) with reduction="none".

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> print(f"{semnr.mse(denoised, clean):.1f}")
    55.6
    """
    return _call(kernels.pixel.mse, x, y, options)


@_mirrors(kernels.pixel.mae)
def mae(x: Array, y: Array, **options: Any) -> Any:
    """Mean absolute error, in grey levels, at least 0. It is exact for integers.

    Parameters
    ----------
    x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, both tensors or both arrays, of one shape and dtype: uint8, uint16, float16, bfloat16,
        float32 or float64.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range].
    data_range : float, optional
        Width of the intensity scale. Needed for `overshoot` alone. Default for integers: the range of the dtype, so
        that 10-bit data in uint16 must say 1023.
    backend : str
        "auto", or a name of `semnr.backends()`; a named backend never falls back.

    Returns
    -------
    Tensor or ndarray
        A float64 scalar, or (N,) with reduction="none".

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> print(f"{semnr.mae(denoised, clean):.1f}")
    5.6
    """
    return _call(kernels.pixel.mae, x, y, options)


@_mirrors(kernels.pixel.psnr)
def psnr(x: Array, y: Array, **options: Any) -> Any:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range² / MSE). Identical images give inf.

    Parameters
    ----------
    x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, both tensors or both arrays, of one shape and dtype: uint8, uint16, float16, bfloat16,
        float32 or float64.
    data_range : float, optional
        Width of the intensity scale. Required for floating images; default for integers: the range of the dtype, so
        that 10-bit data in uint16 must say 1023.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid.
    reduction : {"mean", "mean_mse", "sum", "none"}
        Over the images: their mean, their sum, or one value an image. "mean" is the mean of the dB values; "mean_mse"
        is the PSNR of the mean MSE, the one to quote for a wafer.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range].
    details : bool
        Give a `Result`, with settings, coverage, clipped fraction and flags, instead of the value alone.
    backend : str
        "auto", or a name of `semnr.backends()`; a named backend never falls back.

    Returns
    -------
    Tensor or ndarray, or Result
        A float64 scalar, or (N,) with reduction="none"; a `Result` with details=True.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> print(f"{semnr.psnr(denoised, clean):.2f}")
    30.68
    >>> print(f"{semnr.psnr(denoised / 255, clean / 255, data_range=1.0):.2f}")  # floats must say their range
    30.68
    """
    return _call(kernels.pixel.psnr, x, y, options)


@_mirrors(kernels.ssim.ssim)
def ssim(x: Array, y: Array, **options: Any) -> Any:
    """Structural similarity (Wang et al. 2004, IEEE TIP 13(4)), in [−1, 1]; 1 for identical images.

    Parameters
    ----------
    x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, both tensors or both arrays, of one shape and dtype: uint8, uint16, float16, bfloat16,
        float32 or float64.
    data_range : float, optional
        Width of the intensity scale. Required for floating images; default for integers: the range of the dtype, so
        that 10-bit data in uint16 must say 1023.
    window : {"gaussian", "uniform"}, optional
        Shape of the window. Default: that of the convention, "gaussian".
    window_size : int, optional
        Side of the window, odd. Default: 11.
    sigma : float, optional
        Standard deviation of the Gaussian window, in pixels. Default: 1.5.
    k1, k2 : float, optional
        Stabilise the luminance term and the contrast-structure term. Default: 0.01 and 0.03.
    downsample : int or "auto", optional
        Factor by which both images are averaged first; "auto" is the rule of piq, max(1, round(short side / 256)).
        Default: 1, nothing is resized.
    border : {"valid", "reflect"}, optional
        "valid": windows that lie inside the image. "reflect": one window a pixel. Default: "valid".
    convention : {"wang2004", "piq", "skimage", "torchmetrics"}
        The defaults of a library, reproduced to 1e-6 or better. What is passed overrides them.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid. Exact: normalised convolution over valid pixels; windows whose centre is valid are
        pooled.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    return_map : bool
        Also the map, (..., H − 10, W − 10) for the default window; NaN where the centre is masked.
    components : bool
        Also the means of the luminance, contrast and structure terms.
    details : bool
        Give a `Result`, with settings, coverage, clipped fraction and flags, instead of the value alone.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range].
    precision : {"float32", "float64"}
        What a fast backend computes in. The backend `reference` always computes in float64.
    backend : str
        "auto", or a name of `semnr.backends()`; a named backend never falls back.

    Returns
    -------
    Tensor or ndarray, or Result
        A float64 scalar, or (N,) with reduction="none". A `Result` where a map, components or details are asked for; it
        unpacks into the value, then the map and the components.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Notes
    -----
    nan="error" reads the score back and so waits for a GPU; nan="propagate" does not.

    Examples
    --------
    >>> print(f"{semnr.ssim(noisy, clean):.3f}, {semnr.ssim(denoised, clean):.3f}")
    0.461, 0.898
    >>> value, ssim_map = semnr.ssim(denoised, clean, return_map=True)
    >>> ssim_map.shape
    (118, 118)
    """
    return _call(kernels.ssim.ssim, x, y, options)


@_mirrors(kernels.ssim.ms_ssim)
def ms_ssim(x: Array, y: Array, **options: Any) -> Any:
    """Multi-scale structural similarity (Wang, Simoncelli, Bovik 2003), in [0, 1]; 1 for identical images.

    With the default window and five scales, both sides have to be at least 161 pixels. Negative terms are set to 0.

    Parameters
    ----------
    x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, both tensors or both arrays, of one shape and dtype: uint8, uint16, float16, bfloat16,
        float32 or float64.
    data_range : float, optional
        Width of the intensity scale. Required for floating images; default for integers: the range of the dtype, so
        that 10-bit data in uint16 must say 1023.
    window : {"gaussian", "uniform"}, optional
        Shape of the window. Default: that of the convention, "gaussian".
    window_size : int, optional
        Side of the window, odd. Default: 11.
    sigma : float, optional
        Standard deviation of the Gaussian window, in pixels. Default: 1.5.
    k1, k2 : float, optional
        Stabilise the luminance term and the contrast-structure term. Default: 0.01 and 0.03.
    weights : tuple of float, optional
        Exponents of the scales, one a scale. Default: the five of the paper.
    convention : {"piq", "pytorch-msssim", "torchmetrics"}
        What happens to an odd row or column at a coarser scale: "piq" replicates it, "pytorch-msssim" adds zeros,
        "torchmetrics" drops it. They differ in the third digit.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    details : bool
        Give a `Result`, with settings, coverage, clipped fraction and flags, instead of the value alone.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range].
    precision : {"float32", "float64"}
        What a fast backend computes in. The backend `reference` always computes in float64.
    backend : str
        "auto", or a name of `semnr.backends()`; a named backend never falls back.

    Returns
    -------
    Tensor or ndarray, or Result
        A float64 scalar, or (N,) with reduction="none"; a `Result` with details=True.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> print(f"{semnr.ms_ssim(denoised, clean, window_size=7):.3f}")  # a smaller window for 128 pixels
    0.963
    """
    return _call(kernels.ssim.ms_ssim, x, y, options)


@_mirrors(kernels.fsim.fsim)
def fsim(x: Array, y: Array, **options: Any) -> Any:
    """Feature similarity (Zhang et al. 2011, IEEE TIP 20(8)), in (0, 1]; 1 for identical images.

    It compares phase congruency and gradient. Three channels give FSIMc unless `chromatic` says otherwise.

    Parameters
    ----------
    x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, both tensors or both arrays, of one shape and dtype: uint8, uint16, float16, bfloat16,
        float32 or float64.
    data_range : float, optional
        Width of the intensity scale. Required for floating images; default for integers: the range of the dtype, so
        that 10-bit data in uint16 must say 1023.
    chromatic : bool, optional
        Whether colour enters (FSIMc). Default: for three channels.
    downsample : int or {"auto", "authors"}
        "auto": max(1, round(short side / 256)), the rule of piq. "authors": the rounding and sampling of the authors'
        code. Fix one factor for a run over tiles: scores at different factors do not compare.
    scales, orientations : int
        Number of scales and orientations of the log-Gabor filters.
    min_length, mult : float
        Shortest wavelength in pixels, and the ratio between scales.
    sigma_f, delta_theta : float
        Bandwidth of a filter over frequency, and angular spacing over angular width.
    k : float
        Standard deviations of the noise above its mean that energy must have.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid. Approximate, because an FFT sees every pixel, and flagged so.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    return_map : bool
        Also the map of local similarity.
    details : bool
        Give a `Result`, with settings, coverage, clipped fraction and flags, instead of the value alone.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range].
    precision : {"float32", "float64"}
        What a fast backend computes in. The backend `reference` always computes in float64.
    backend : str
        "auto", or a name of `semnr.backends()`; a named backend never falls back.

    Returns
    -------
    Tensor or ndarray, or Result
        A float64 scalar, or (N,) with reduction="none"; a `Result` where a map or details are asked for.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> print(f"{semnr.fsim(noisy, clean):.3f}, {semnr.fsim(denoised, clean):.3f}")
    0.731, 0.928
    """
    return _call(kernels.fsim.fsim, x, y, options)


@_mirrors(kernels.dists.dists)
def dists(x: Array, y: Array, **options: Any) -> Any:
    """Deep image structure and texture similarity (Ding et al. 2020): a distance, 0 for identical images.

    Parameters
    ----------
    x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, both tensors or both arrays, of one shape and dtype: uint8, uint16, float16, bfloat16,
        float32 or float64.
    data_range : float, optional
        Width of the intensity scale. Required for floating images; default for integers: the range of the dtype, so
        that 10-bit data in uint16 must say 1023.
    weights : path, mapping or "random", optional
        None: the published weights of VGG16 in the cache (`semnr weights fetch vgg16` puts them there). A
        path (.pth, .safetensors) or a state dict: weights of your own. "random": seeded, *uncalibrated* and flagged so.
    resize : {"authors", "piq"}, optional
        Resize the short side to 256 as the authors' or piq's code does. Default: native size.
    dtype : torch.dtype, optional
        What the network computes in: float32, float64, bfloat16 or float16.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid. Approximate, because a network sees every pixel, and flagged so.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    return_map : bool
        Also the map of the distance in windows.
    map_window : int
        Side of those windows, in pixels.
    details : bool
        Give a `Result`, with settings, coverage, clipped fraction and flags, instead of the value alone.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range].
    backend : str
        "auto", or a name of `semnr.backends()`; a named backend never falls back.
    memory_budget : int or str, optional
        Bytes, or text such as "2GiB", for what lies between the images and the score; images of any size are scored
        within it. Default: 1 GiB.

    Returns
    -------
    Tensor or ndarray, or Result
        A float64 scalar, or (N,) with reduction="none"; a `Result` where a map or details are asked for.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.
    WeightsUnavailable
        There are no weights; the message says how to get them.

    Examples
    --------
    >>> distance = semnr.dists(denoised[:64, :64], clean[:64, :64], weights="random", details=True)
    >>> distance.flags[0]
    'uncalibrated...'
    """
    return _call(kernels.dists.dists, x, y, options)


@_mirrors(kernels.lpips.lpips)
def lpips(x: Array, y: Array, **options: Any) -> Any:
    """Learned perceptual distance (Zhang et al. 2018, version 0.1): 0 for identical images.

    Parameters
    ----------
    x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, both tensors or both arrays, of one shape and dtype: uint8, uint16, float16, bfloat16,
        float32 or float64.
    net : {"alex", "vgg"}
        AlexNet, the authors' choice for scores, or VGG16, their choice for losses.
    data_range : float, optional
        Width of the intensity scale. Required for floating images; default for integers: the range of the dtype, so
        that 10-bit data in uint16 must say 1023.
    weights : path, mapping or "random", optional
        None: the published convolutions in the cache (`semnr weights fetch alexnet`, or `vgg16`, puts them there). A
        path (.pth, .safetensors) or a state dict: weights of your own. "random": seeded, *uncalibrated* and flagged so.
    linear : path, mapping or "random", optional
        The linear layers. None: the published ones in the cache (`semnr weights fetch lpips`).
    resize : {"authors", "piq"}, optional
        Resize the short side to 256 as the authors' or piq's code does. Default: native size.
    dtype : torch.dtype, optional
        What the network computes in: float32, float64, bfloat16 or float16.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid. Approximate, because a network sees every pixel, and flagged so.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    return_map : bool
        Also the map of the distance at each pixel.
    details : bool
        Give a `Result`, with settings, coverage, clipped fraction and flags, instead of the value alone.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range].
    backend : str
        "auto", or a name of `semnr.backends()`; a named backend never falls back.
    memory_budget : int or str, optional
        Bytes, or text such as "2GiB", for what lies between the images and the score; images of any size are scored
        within it. Default: 1 GiB.

    Returns
    -------
    Tensor or ndarray, or Result
        A float64 scalar, or (N,) with reduction="none"; a `Result` where a map or details are asked for.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.
    WeightsUnavailable
        There are no weights; the message says how to get them.

    Examples
    --------
    >>> distance = semnr.lpips(denoised[:64, :64], clean[:64, :64], weights="random", details=True)
    >>> distance.flags[0]
    'uncalibrated...'
    """
    return _call(kernels.lpips.lpips, x, y, options)


@_mirrors(kernels.cnr.cnr)
def cnr(x: Array, y: Array | None = None, signal: Any = None, background: Any = None, **options: Any) -> Any:
    """Contrast-to-noise ratio of `x` between two regions.

    It is NaN where there is no second population, and inf without noise.

    Parameters
    ----------
    x : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        Candidate.
    y : Tensor or ndarray, optional
        Reference, on which the regions are built where none are passed.
    signal, background : bool array, optional
        The two regions. Default: Otsu's threshold on `y` (or `x`), with a guard band, see `semnr.otsu_masks`.
    kind : str
        "two_roi": |μs − μb| / √((σs² + σb²) / 2). "sum_var": |μs − μb| / √(σs² + σb²). "background": (μs − μb) / σb.
        "fixed_noise": |μs − μb| over the noise of the input. "gcnr": the share of pixels that can be told apart.
        "rose": |Δμ| / σb · √N_eff. The last two have no gradient.
    noise : float, array or Sigma, optional
        For "fixed_noise": the standard deviation of the noisy input, `Sigma(map)`, or the noisy image itself.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid.
    data_range : float, optional
        Width of the intensity scale; no ratio depends on it, it is kept in the `Result`.
    value_range : (float, float), optional
        Range of the 256 bins of "gcnr". Default: the extremes of both regions.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    details : bool
        Give a `Result`, with settings, coverage, clipped fraction and flags, instead of the value alone.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    backend : str
        "auto", or a name of `semnr.backends()`; a named backend never falls back.

    Returns
    -------
    Tensor or ndarray, or Result
        Float64, one value an image by default; a `Result` with details=True.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> print(f"{semnr.cnr(noisy, clean):.1f}, {semnr.cnr(denoised, clean):.1f}")  # over its own noise
    3.4, 6.1
    >>> fixed = [semnr.cnr(x, clean, kind="fixed_noise", noise=noisy) for x in (noisy, denoised)]
    >>> print(f"{fixed[0]:.2f}, {fixed[1]:.2f}")  # over the noise of the input: contrast was lost
    3.40, 3.29
    """
    return _call(kernels.cnr.cnr, x, y, {"signal": signal, "background": background, **options})


@_mirrors(kernels.cnr.cnr_map)
def cnr_map(x: Array, y: Array | None = None, **options: Any) -> Any:
    """The contrast-to-noise ratio in each window of a regular grid.

    The regions are those of the whole image; means and noise are taken inside each window.

    Parameters
    ----------
    x : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        Candidate.
    y : Tensor or ndarray, optional
        Reference, on which the regions are built where none are passed.
    window, stride : int or (int, int)
        Rows and columns, in pixels. Windows lie inside the image; a remainder that no window reaches is flagged.
    signal, background : bool array, optional
        The two regions. Default: Otsu's threshold on `y` (or `x`), with a guard band, see `semnr.otsu_masks`.
    kind : str
        "two_roi": |μs − μb| / √((σs² + σb²) / 2). "sum_var": |μs − μb| / √(σs² + σb²). "background": (μs − μb) / σb.
        "fixed_noise": |μs − μb| over the noise of the input.
    noise : float, array or Sigma, optional
        For "fixed_noise": the standard deviation of the noisy input, `Sigma(map)`, or the noisy image itself.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid.
    data_range : float, optional
        Width of the intensity scale, kept in the `Result`.
    min_pixels : int
        Pixels of each region that a window must hold.
    worst : int
        How many of the lowest windows a `Result` lists.
    details : bool
        Give a `Result`, with settings, coverage, clipped fraction and flags, instead of the value alone.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    backend : str
        "auto", or a name of `semnr.backends()`; a named backend never falls back.

    Returns
    -------
    Tensor or ndarray, or Result
        Float64, (rows, columns) of windows, or (N, rows, columns) for a batch. NaN where a window lacks a region, inf
        where it has no noise. A `Result` with details=True has maps of contrast, noise and retention beside it.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> semnr.cnr_map(denoised, clean, window=64, stride=32).shape
    (3, 3)
    """
    return _call(kernels.cnr.cnr_map, x, y, options)


@_mirrors(kernels.cnr.otsu_masks)
def otsu_masks(reference: Array, **options: Any) -> Any:
    """Signal and background regions of an image, for `semnr.cnr` and `semnr.cnr_map`.

    Light smoothing, Otsu's threshold on a histogram, signal above it, and a guard band between the two. Build them once
    on the reference and reuse them for every candidate.

    Parameters
    ----------
    reference : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
        The image. Bright is signal.
    smoothing : float
        Standard deviation of the Gaussian, in pixels.
    guard : int
        Pixels within this distance of the other population are dropped.
    bins : int
        Of the histogram.
    min_separation : float
        Least distance of the two populations, in units of their spread, for there to be two.
    mask : bool array, optional
        True where a pixel is valid.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite.

    Returns
    -------
    Masks
        With `signal`, `background`, `threshold` and `separation`, of the kind of the image. The regions are empty where
        there is one population only.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.

    Examples
    --------
    >>> masks = semnr.otsu_masks(clean)
    >>> masks.signal.dtype, bool((masks.signal & masks.background).any())
    (dtype('bool'), False)
    """
    tensors = {k: to_tensor(k, v) for k, v in options.items()}
    masks = kernels.cnr.otsu_masks(to_tensor("reference", reference), **tensors)
    if not isinstance(reference, np.ndarray):
        return masks
    parts = ("signal", "background", "threshold", "separation")
    return dataclasses.replace(masks, **{name: to_numpy(getattr(masks, name)) for name in parts})


@_mirrors(kernels.cnr.worst_windows)
def worst_windows(values: Array, **options: Any) -> Any:
    """The lowest windows of a map of `semnr.cnr_map`, as rectangles of pixels.

    Parameters
    ----------
    values : Tensor or ndarray, (rows, columns) or (N, rows, columns)
        A map of `semnr.cnr_map`, or of its contrast retention.
    window, stride : int or (int, int)
        Those that the map was made with.
    count : int
        How many windows.

    Returns
    -------
    tuple of Window
        Finite ones alone, lowest first: image, row, column, top, left, bottom, right and value of each.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.

    Examples
    --------
    >>> values = semnr.cnr_map(denoised, clean, window=64, stride=32)
    >>> lowest = semnr.worst_windows(values, window=64, stride=32, count=1)[0]
    >>> lowest.bottom - lowest.top, lowest.value == values.min()
    (64, np.True_)
    """
    return kernels.cnr.worst_windows(to_tensor("values", values), **options)


def explain(op: str, x: Array, y: Array | None = None, *, backend: str | None = "auto", **options: Any) -> Any:
    """Which backend a call takes, and why the others are out.

    Parameters
    ----------
    op : str
        Name of a metric, such as "ssim".
    x : Tensor or ndarray
        The candidate.
    y : Tensor or ndarray, optional
        The reference.
    backend : str, optional
        As in the call.
    **options
        Options of the call.

    Returns
    -------
    Explanation
        `print` shows the table; `.chosen` is the backend.

    Raises
    ------
    TypeError, ValueError
        An unknown op, an option that it does not have (the accepted ones are named), or what the call would refuse.

    Notes
    -----
    Told is what a call with these arguments would run: they are checked as there. A second image that is missing is
    taken as the first, a `data_range` that is missing as 1, and weights are not loaded.

    Examples
    --------
    >>> table = semnr.explain("ssim", noisy, clean, backend="reference")
    >>> table.chosen
    'reference'
    >>> print(table)
    ssim: 1x1x128x128 uint8 on cpu, backend='reference' (argument)
     -> reference  torch, float64: the definition...
    """
    registry.ops()  # which imports them
    if op not in library.ops:
        raise ValueError(f"op is {op!r}; accepted: {', '.join(sorted(library.ops))}")
    images = [to_tensor(name, value) for name, value in (("x", x), ("y", y)) if value is not None]
    return library.explain(op, *images, backend=backend, **{k: to_tensor(k, v) for k, v in options.items()})
