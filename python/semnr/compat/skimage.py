"""The full-reference metrics of `skimage.metrics`: change `from skimage.metrics import ...` and nothing else.

`structural_similarity`, `peak_signal_noise_ratio`, `mean_squared_error`, `normalized_root_mse` and
`normalized_mutual_information` of scikit-image 0.26, on arrays. The mean SSIM of images of two axes runs on semnr's
kernels; `full`, `gradient`, other numbers of axes and an explicit `win_size` beside `gaussian_weights` run in float64
torch. Segmentation metrics and `hausdorff_*` are not here.

Examples
--------
>>> from semnr.compat.skimage import structural_similarity
>>> round(float(structural_similarity(clean, denoised)), 2)
0.89
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import entropy

import semnr_kernels as kernels

from . import windows

__all__ = [
    "mean_squared_error",
    "normalized_mutual_information",
    "normalized_root_mse",
    "peak_signal_noise_ratio",
    "structural_similarity",
]

_TRUNCATE = 3.5  # standard deviations of the Gaussian window


def structural_similarity(
    im1: np.ndarray,
    im2: np.ndarray,
    *,
    win_size: int | None = None,
    gradient: bool = False,
    data_range: float | None = None,
    channel_axis: int | None = None,
    gaussian_weights: bool = False,
    full: bool = False,
    **kwargs: Any,
) -> Any:
    """Mean SSIM as `skimage.metrics.structural_similarity`.

    Parameters
    ----------
    im1, im2 : ndarray
        Images of any number of axes and one shape.
    win_size : int, optional
        Side of the window, odd. Default: 7, or what `sigma` asks for with `gaussian_weights`.
    gradient : bool
        Also the gradient with respect to `im2`, as scikit-image defines it.
    data_range : float, optional
        Width of the intensity scale. Required for floating images.
    channel_axis : int, optional
        Axis of the channels, over which the score is averaged.
    gaussian_weights : bool
        A Gaussian window of `sigma` instead of a uniform one.
    full : bool
        Also the map.
    **kwargs
        `K1`, `K2`, `sigma`, `use_sample_covariance`.

    Returns
    -------
    float or tuple
        The mean over the windows inside the image; then the gradient and the map where they are asked for.

    Raises
    ------
    ValueError
        Unlike shapes, a window that is even or too large, negative K1, K2 or sigma, floating images without
        `data_range`.
    """
    _same_shape(im1, im2)
    float_type = _float_type(im1.dtype)
    if channel_axis is not None:
        axis = channel_axis % im1.ndim
        parts = [
            structural_similarity(
                np.take(im1, channel, axis=axis),
                np.take(im2, channel, axis=axis),
                win_size=win_size,
                gradient=gradient,
                data_range=data_range,
                gaussian_weights=gaussian_weights,
                full=full,
                **kwargs,
            )
            for channel in range(im1.shape[axis])
        ]
        if not (gradient or full):
            return np.array(parts, dtype=float_type).mean()
        scores, *maps = zip(*parts, strict=True)
        stacked = (np.stack(planes, axis=axis).astype(float_type, copy=False) for planes in maps)
        return (np.array(scores, dtype=float_type).mean(), *stacked)

    k1, k2, sigma = (kwargs.pop(name, default) for name, default in (("K1", 0.01), ("K2", 0.03), ("sigma", 1.5)))
    for name, value in (("K1", k1), ("K2", k2), ("sigma", sigma)):
        if value < 0:
            raise ValueError(f"{name} is {value}; accepted: a number of at least 0")
    sample = bool(kwargs.pop("use_sample_covariance", True))

    natural = 2 * int(_TRUNCATE * sigma + 0.5) + 1 if gaussian_weights else 7
    size = natural if win_size is None else win_size
    if min(im1.shape, default=0) < size:
        raise ValueError(
            f"win_size is {size} and the images are {im1.shape}; accepted: at most the shortest side. Colour images "
            "name the axis of their channels in channel_axis"
        )
    if size % 2 != 1:
        raise ValueError(f"win_size is {size}; accepted: an odd integer")
    scale = float(_data_range(im1, im2) if data_range is None else data_range)

    score = None
    plain = im1.ndim == 2 and size == (natural if gaussian_weights else size)
    if plain and windows.usable(scale) and sigma > 0 and im1.dtype == im2.dtype:
        settings = windows.settings(
            window="gaussian" if gaussian_weights else "uniform",
            window_size=int(size),
            sigma=float(sigma),
            k1=float(k1),
            k2=float(k2),
            sample_covariance=sample,
            data_range=scale,
            precision="float64" if float_type == np.float64 else "float32",
        )
        rows = kernels.ssim.rows(_image(im1, float_type), _image(im2, float_type), settings)
        score = np.float64(rows.score.item())
        if not (gradient or full):
            return score
    taps = windows.gaussian(natural, sigma) if gaussian_weights else windows.uniform(size)
    if gaussian_weights and sigma == 0:
        taps = (1.0,)
    count = size**im1.ndim
    found = _in_torch(
        im1.astype(float_type, copy=False),
        im2.astype(float_type, copy=False),
        taps,
        (k1 * scale, k2 * scale),
        count / (count - 1) if sample and count > 1 else (np.inf if sample else 1.0),
        (size - 1) // 2,
        gradient,
        full,
    )
    return found if score is None else (score, *found[1:])  # the score is the same with and without its map


def _in_torch(
    im1: np.ndarray,
    im2: np.ndarray,
    taps: Sequence[float],
    roots: tuple[float, float],
    unbiased: float,
    crop: int,
    gradient: bool,
    full: bool,
) -> Any:
    """The map over the mirrored images (the border pixel twice), its mean without the border, and the gradient."""
    float_type = im1.dtype
    along = [taps] * im1.ndim

    def smooth(values: torch.Tensor) -> torch.Tensor:
        return windows.correlate(_mirrored(values, len(taps) // 2), along)

    x, y = (torch.from_numpy(np.ascontiguousarray(v)).double() for v in (im1, im2))
    ux, uy = smooth(x), smooth(y)
    vx = unbiased * (smooth(x * x) - ux * ux)
    vy = unbiased * (smooth(y * y) - uy * uy)
    vxy = unbiased * (smooth(x * y) - ux * uy)
    c1, c2 = (root**2 for root in roots)
    a1, a2 = 2 * ux * uy + c1, 2 * vxy + c2
    b1, b2 = ux**2 + uy**2 + c1, vx + vy + c2
    index = a1 * a2 / (b1 * b2)
    inner = index[tuple(slice(crop, side - crop) for side in index.shape)]
    results: list[Any] = [np.float64(inner.mean().item())]
    if gradient:  # Avanaki 2009, eq. 7 and 8
        slope = smooth(a1 / (b1 * b2)) * x - smooth(index / b2) * y
        slope = slope + smooth((ux * (a2 - a1) - uy * (b2 - b1) * index) / (b1 * b2))
        results.append((slope * (2 / x.numel())).numpy().astype(float_type, copy=False))
    if full:
        results.append(index.numpy().astype(float_type, copy=False))
    return results[0] if len(results) == 1 else tuple(results)


def _mirrored(values: torch.Tensor, pad: int) -> torch.Tensor:
    """`pad` more on each side of each axis, mirrored about the edge of the border pixel (SciPy's mode "reflect")."""
    for axis, side in enumerate(values.shape):
        at = torch.arange(-pad, side + pad) % (2 * side)
        values = values.index_select(axis, torch.minimum(at, 2 * side - 1 - at))
    return values


def mean_squared_error(image0: np.ndarray, image1: np.ndarray) -> np.floating:
    """Mean squared error as `skimage.metrics.mean_squared_error`, float64.

    Parameters
    ----------
    image0, image1 : ndarray
        Images of any number of axes and one shape.

    Raises
    ------
    ValueError
        Unlike shapes.
    """
    _same_shape(image0, image1)
    if image0.dtype == image1.dtype and str(image0.dtype) in _KERNEL_DTYPES and image0.size:
        rows = kernels.pixel.mse(*(_flat(image) for image in (image0, image1)), nan="propagate")
        return np.float64(rows.item())
    float_type = _float_type(image0.dtype, image1.dtype)
    difference = np.asarray(image0, dtype=float_type) - np.asarray(image1, dtype=float_type)
    return np.mean(difference**2, dtype=np.float64)


def normalized_root_mse(
    image_true: np.ndarray, image_test: np.ndarray, *, normalization: str = "euclidean"
) -> np.floating:
    """Root mean squared error over a norm of `image_true`, as `skimage.metrics.normalized_root_mse`.

    Parameters
    ----------
    image_true, image_test : ndarray
        Reference and candidate of one shape.
    normalization : {"euclidean", "min-max", "mean"}
        What it is divided by: the root of the mean square, the range or the mean of `image_true`.

    Raises
    ------
    ValueError
        Unlike shapes, or another normalisation.
    """
    _same_shape(image_true, image_test)
    true = np.asarray(image_true, dtype=_float_type(image_true.dtype, image_test.dtype))
    rule = normalization.lower()
    if rule == "euclidean":
        norm = np.sqrt(np.mean(true * true, dtype=np.float64))
    elif rule == "min-max":
        norm = true.max() - true.min()
    elif rule == "mean":
        norm = true.mean()
    else:
        raise ValueError(f"normalization is {normalization!r}; accepted: 'euclidean', 'min-max', 'mean'")
    return np.sqrt(mean_squared_error(image_true, image_test)) / norm


def peak_signal_noise_ratio(
    image_true: np.ndarray, image_test: np.ndarray, *, data_range: float | None = None
) -> np.floating:
    """PSNR in dB as `skimage.metrics.peak_signal_noise_ratio`.

    Parameters
    ----------
    image_true, image_test : ndarray
        Reference and candidate of one shape.
    data_range : float, optional
        Width of the intensity scale. Default: of the dtype of `image_true`; 1 for floating images without negative
        values, else 2.

    Raises
    ------
    ValueError
        Unlike shapes, or values outside the range of their dtype and no `data_range`.
    """
    _same_shape(image_true, image_test)
    if data_range is None:
        if image_true.dtype != image_test.dtype:
            warnings.warn("the dtypes differ: data_range is that of image_true", stacklevel=2)
        low, high = _limits(image_true.dtype)
        least, most = np.min(image_true), np.max(image_true)
        if most > high or least < low:
            raise ValueError(
                f"image_true has values from {least} to {most}, outside what its dtype stands for, {low} to {high}; "
                "accepted: an explicit data_range"
            )
        data_range = high if least >= 0 else high - low
    error = mean_squared_error(image_true, image_test)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(float(data_range) ** 2 / error)


def normalized_mutual_information(image0: np.ndarray, image1: np.ndarray, *, bins: Any = 100) -> np.floating:
    """Normalised mutual information, from 1 to 2, as `skimage.metrics.normalized_mutual_information`.

    Parameters
    ----------
    image0, image1 : ndarray
        Images of one number of axes; the smaller one is padded with zeros.
    bins : int or sequence of int
        Of the joint histogram, along each axis.

    Raises
    ------
    ValueError
        Another number of axes.
    """
    if image0.ndim != image1.ndim:
        raise ValueError(f"image0 has {image0.ndim} axes and image1 {image1.ndim}; accepted: the same number")
    largest = np.maximum(image0.shape, image1.shape)
    padded = [
        np.pad(image, [(0, most - side) for most, side in zip(largest, image.shape, strict=True)]).reshape(-1)
        for image in (image0, image1)
    ]
    joint, _ = np.histogramdd(padded, bins=bins, density=True)
    return (entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1))) / entropy(joint.reshape(-1))


# --- dtypes and shapes, by scikit-image's rules ---------------------------------------------------------------

_KERNEL_DTYPES = ("uint8", "uint16", "float32", "float64")


def _same_shape(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape:
        raise ValueError(f"the images have shapes {first.shape} and {second.shape}; accepted: the same shape")


def _float_type(*dtypes: np.dtype) -> np.dtype:
    """What scikit-image computes these in: float32 for float16 and float32, else float64; of several the widest."""
    for dtype in dtypes:
        if dtype.kind == "c":
            raise ValueError(f"the images are {dtype}; accepted: real images")
    narrow = (np.dtype(np.float16), np.dtype(np.float32))
    return np.result_type(*(np.float32 if dtype in narrow else np.float64 for dtype in dtypes))


def _limits(dtype: np.dtype) -> tuple[float, float]:
    if dtype.kind == "f":
        return -1.0, 1.0
    if dtype.kind == "b":
        return 0, 1
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def _data_range(im1: np.ndarray, im2: np.ndarray) -> float:
    if im1.dtype.kind == "f" or im2.dtype.kind == "f":
        raise ValueError("data_range is missing; it is required for floating images, whose dtype does not say it")
    if im1.dtype != im2.dtype:
        warnings.warn("the dtypes differ: data_range is that of im1", stacklevel=3)
    low, high = _limits(im1.dtype)
    if im1.dtype.kind in "iu" and im1.dtype != np.uint8:
        warnings.warn(
            f"data_range is {high - low:.0f}, of the dtype of im1; give it where the images use less", stacklevel=3
        )
    return high - low


def _image(image: np.ndarray, float_type: np.dtype) -> torch.Tensor:
    """(1, 1, H, W), without a copy where the kernels read the dtype."""
    if str(image.dtype) not in _KERNEL_DTYPES or not image.dtype.isnative:
        image = image.astype(float_type)
    if any(stride < 0 for stride in image.strides) or not image.flags.writeable:
        image = image.copy()
    return torch.from_numpy(image)[None, None]


def _flat(image: np.ndarray) -> torch.Tensor:
    """All pixels as one image."""
    return _image(image.reshape(1, -1), image.dtype)
