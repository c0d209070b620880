"""The metrics as people call them: torch tensor or NumPy array in, the same kind out.

`x` is the candidate (prediction), `y` the reference. Shapes (H, W), (C, H, W) or (N, C, H, W); dtypes uint8,
uint16, float16, bfloat16, float32, float64. Scores are float64. Shared arguments:

data_range
    Width of the intensity scale. Required for floating images; for integers the dtype's range unless given
    (10-bit data in uint16 says `data_range=1023`).
mask
    Valid pixels, bool, (H, W), (N, H, W) or (N, 1, H, W).
reduction
    "mean" over the images, "sum", or "none": one value an image.
nan
    "error" (default): a non-finite pixel that reaches the score raises ValueError. "propagate": it makes that
    image's score NaN. "omit": it is masked.
overshoot
    Values outside [0, data_range]: "keep" (default), "clip" or "error".
details
    Return a `Result` with settings, coverage, clipped fraction and flags instead of the value alone.
backend
    "auto", or a name from `semnr.backends()`; a named backend never falls back.

All raise TypeError or ValueError naming the argument, what it was and what is accepted, and
`BackendUnavailable` where the named backend cannot run the call.

What waits for a GPU: nan="error" reads the score back, nan="omit" looks at the pixels first, and so do
overshoot="clip" and "error" and `details`. With nan="propagate" none of mse, mae, psnr, ssim, ms_ssim, fsim and dists
reads anything back, unless a mask has to be filled in (fsim, dists). psnr, ssim and ms_ssim of the backends "triton"
and "cuda" can then be captured in a CUDA graph, after one call that compiles them and copies their constants. cnr
always waits: it looks at its regions.

Under torch.compile and torch.export a call on tensors is one node (`torch.ops.semnr.ssim`, ...), backward pass
included; pixels are checked and the backend is chosen when the graph runs. `details` and weights that are a state dict
stay outside the graph, and a `Result` that comes out of one evaluates no flags. The backward node keeps the images
alone: for every metric but mse, mae and ssim it computes the forward pass again. Second derivatives are taken outside
torch.compile. Autocast does not change a score: it is computed as it is without.

Tensors that are no pixels in memory (FakeTensor, wrapper subclasses, "meta") and calls under a dispatch mode go the
same way, as one op; sparse, nested and mkldnn tensors are refused. Inside torch.func, grad, jvp and their kind run
on the reference, which is made of torch's ops, and vmap runs image by image; so does forward-mode differentiation.
vmap inside torch.compile is not supported. After a fork, torch runs on one thread in the child. `use_backend` holds
for the thread (the context) that entered it: threads of a pool take "auto" unless they are given the context.
Images of several channels are (C, H, W). With convention="torchmetrics" the window stays 11 unless `window_size` is
given, whatever `sigma` is: torchmetrics' own is 2 · int(3.5 σ + 0.5) + 1. FSIM keeps the filters of the sizes and
settings that it met, up to 256 MiB. 10-bit data in uint16 without `data_range` is scored on 65,535 and says
nothing. Under nan="propagate" the gradient of an image that holds a NaN is NaN, also where its score is left out of
the loss.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import semnr_kernels as kernels
from semnr_kernels import Result, _registry, backends, use_backend
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


def to_tensor(name: str, value: Any) -> Any:
    """A NumPy array as a tensor that shares its memory; anything else as it is."""
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
    """Mean squared error, in squared grey levels, [0, ∞). Exact for integers."""
    return _call(kernels.pixel.mse, x, y, options)


@_mirrors(kernels.pixel.mae)
def mae(x: Array, y: Array, **options: Any) -> Any:
    """Mean absolute error, in grey levels, [0, ∞). Exact for integers."""
    return _call(kernels.pixel.mae, x, y, options)


@_mirrors(kernels.pixel.psnr)
def psnr(x: Array, y: Array, **options: Any) -> Any:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range² / MSE); identical images give inf.

    reduction="mean" is the mean of the images' dB values; "mean_mse" is the PSNR of their mean MSE, the one to
    quote for a wafer. nan="error" waits for a GPU, nan="propagate" does not (see the module's docstring).
    """
    return _call(kernels.pixel.psnr, x, y, options)


@_mirrors(kernels.ssim.ssim)
def ssim(x: Array, y: Array, **options: Any) -> Any:
    """Structural similarity (Wang et al. 2004, IEEE TIP 13(4)), in [-1, 1]; 1 for identical images.

    Parameters
    ----------
    window, window_size, sigma
        "gaussian" (default, 11, 1.5) or "uniform"; any odd size.
    k1, k2
        0.01 and 0.03: stabilise the luminance and the contrast-structure term.
    downsample
        1 (default: nothing is resized), a factor, or "auto" (piq's rule, max(1, round(short side / 256))).
    border
        "valid" (default): windows that lie inside the image. "reflect": one a pixel.
    convention
        "wang2004" (default), "piq", "skimage", "torchmetrics": their defaults, each still overridden by what is
        passed. Reproduces them to 1e-6 or better.
    return_map
        Also the map, (..., H - 10, W - 10) for the default window; NaN where the centre is masked.
    components
        Also the means of the luminance, contrast and structure terms.
    precision
        "float32" (default) or "float64": what a fast backend computes in. The reference computes in float64.

    The mask is exact (normalised convolution over valid pixels); windows whose centre is valid are pooled.
    nan="error" waits for a GPU to read the score back; nan="propagate" does not, and can be captured in a CUDA graph.
    Also mask, reduction, details, nan, overshoot, backend as in the module's docstring.
    """
    return _call(kernels.ssim.ssim, x, y, options)


@_mirrors(kernels.ssim.ms_ssim)
def ms_ssim(x: Array, y: Array, **options: Any) -> Any:
    """Multi-scale SSIM (Wang, Simoncelli, Bovik 2003), in [0, 1]; negative terms are clamped to 0.

    Sides of at least 161 pixels for the default window and five scales. `weights` are the scales' exponents.
    convention: "piq" (default: replicates the edge on odd sizes), "pytorch-msssim" (zero-pads), "torchmetrics"
    (drops the odd row); they differ in the third digit at odd sizes. Otherwise as `ssim`.
    """
    return _call(kernels.ssim.ms_ssim, x, y, options)


@_mirrors(kernels.fsim.fsim)
def fsim(x: Array, y: Array, **options: Any) -> Any:
    """Feature similarity (Zhang et al. 2011, IEEE TIP 20(8)) on phase congruency and gradient, in (0, 1].

    Parameters
    ----------
    chromatic
        FSIMc. None (default): for three channels.
    downsample
        "auto" (default: max(1, round(short side / 256))), "authors" or a factor. Fix one factor for a run over
        tiles: values at different factors do not compare.
    return_map
        Also the local similarity map.
    precision
        "float32" (default) or "float64": what a fast backend computes in. The reference computes in float64.

    The mask is approximate (an FFT sees every pixel) and flagged so. nan="error" waits for a GPU, nan="propagate"
    without a mask does not. Also mask, reduction, details, nan, overshoot, backend as in the module's docstring.
    """
    return _call(kernels.fsim.fsim, x, y, options)


@_mirrors(kernels.dists.dists)
def dists(x: Array, y: Array, **options: Any) -> Any:
    """Deep image structure and texture similarity (Ding et al. 2020): a distance, 0 for identical images.

    Parameters
    ----------
    weights
        None: the published VGG16 weights from the cache, WeightsUnavailable with the remedy where there
        are none. A path (.pth, .safetensors), a state dict, or "random": seeded, *uncalibrated*.
    resize
        None (default: native), "authors" or "piq".
    dtype
        What the network computes in: float32, float64, bfloat16 or float16.
    return_map, map_window
        Also the distance of the window of `map_window` (80) pixels about each pixel.
    memory_budget
        Bytes, or "2GiB" (default 1 GiB), for what lies between the images and the score: an image of any size is
        scored within it.

    One channel is replicated to three. nan="error" waits for a GPU, nan="propagate" without a mask does not. Also
    mask (approximate, flagged), reduction, details, nan, overshoot, backend as in the module's docstring.
    """
    return _call(kernels.dists.dists, x, y, options)


@_mirrors(kernels.cnr.cnr)
def cnr(x: Array, y: Array | None = None, signal: Any = None, background: Any = None, **options: Any) -> Any:
    """Contrast-to-noise ratio of `x` between two populations; NaN where there is no second one, inf without noise.

    Parameters
    ----------
    y
        Reference image on which the masks are built when they are not given.
    signal, background
        Bool masks of the two populations. Not given: Otsu on `y` (or `x`), with a guard band.
    kind
        "two_roi" (default) |μs − μb| / √((σs² + σb²)/2); "sum_var"; "background"; "fixed_noise"; "gcnr", the share of
        pixels told apart (1 − ∫ min(ps, pb); value_range=(low, high) of its 256 bins, default the pooled extremes);
        "rose", |Δμ| / σb · √N_eff with N_eff from the noise's autocorrelation. The last two have no gradient.
    noise
        For "fixed_noise": the σ of the noisy input, `Sigma(map)`, or the noisy image.

    Rows by default (`reduction="none"`). It waits for a GPU whatever `nan` says. Also mask, data_range, nan, details,
    backend as in the module's docstring.
    """
    return _call(kernels.cnr.cnr, x, y, {"signal": signal, "background": background, **options})


@_mirrors(kernels.cnr.cnr_map)
def cnr_map(x: Array, y: Array | None = None, **options: Any) -> Any:
    """CNR in each window of a large image, as a map; NaN where a window lacks a population. See `cnr`."""
    return _call(kernels.cnr.cnr_map, x, y, options)


@_mirrors(kernels.cnr.otsu_masks)
def otsu_masks(reference: Array, **options: Any) -> Any:
    """Signal and background regions of a reference image, for `cnr` and `cnr_map`: a `Masks` of the array's kind.

    smoothing, guard, bins, min_separation, mask, nan: see `semnr_kernels.cnr.otsu_masks`.
    """
    tensors = {k: to_tensor(k, v) for k, v in options.items()}
    found = kernels.cnr.otsu_masks(to_tensor("reference", reference), **tensors)
    if not isinstance(reference, np.ndarray):
        return found
    parts = ("signal", "background", "threshold", "separation")
    return dataclasses.replace(found, **{name: to_numpy(getattr(found, name)) for name in parts})


@_mirrors(kernels.cnr.worst_windows)
def worst_windows(values: Array, **options: Any) -> Any:
    """The `count` lowest finite windows of a map of `cnr_map`, as rectangles of pixels; see there for the arguments."""
    return kernels.cnr.worst_windows(to_tensor("values", values), **options)


def explain(op: str, x: Array, y: Array | None = None, *, backend: str | None = "auto", **options: Any) -> Any:
    """Which backend `op` takes for these arguments, and why the others are out; `print` it for the table.

    op: a metric's name ("ssim", "psnr", ...). Raises ValueError for an unknown one.
    """
    names = {"mse": "pixel", "mae": "pixel", "psnr": "pixel", "ms_ssim": "ssim", "cnr_map": "cnr"}
    known = _registry.ops()
    name = names.get(op, op)
    if name not in known:
        raise ValueError(f"op is {op!r}; accepted: {', '.join(sorted({*known, *names} - {'pixel'}))}")
    image = kernels._checks.as_image("x", to_tensor("x", x))
    others = [] if y is None else [to_tensor("y", y)]
    options = {"masked": options.get("mask") is not None, "valid": options.get("mask") is not None, **options}
    return _registry.explain(_registry.Call.of(name, image, *others, **options), backend)
