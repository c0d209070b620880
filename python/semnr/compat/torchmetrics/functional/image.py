"""`torchmetrics.functional.image`: SSIM, MS-SSIM, PSNR and DISTS of torchmetrics 1.9, in the dtype of `preds`.

Images of two axes with one square window run on semnr's kernels. Volumes (N, C, D, H, W), windows or sigmas that
differ by axis, and images without contrast where `data_range` is None run in torch, separable and in float64.

Examples
--------
>>> import torch
>>> from semnr.compat.torchmetrics.functional.image import structural_similarity_index_measure
>>> preds = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
>>> structural_similarity_index_measure(preds, preds * 0.75, data_range=1.0).round(decimals=2)
tensor(0.9200)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

import semnr_kernels as kernels
from semnr_kernels.ssim import Settings

from ... import windows

__all__ = [
    "deep_image_structure_and_texture_similarity",
    "multiscale_structural_similarity_index_measure",
    "peak_signal_noise_ratio",
    "structural_similarity_index_measure",
]

REDUCTIONS = ("elementwise_mean", "sum", "none", None)
Range = float | tuple[float, float] | None


def structural_similarity_index_measure(
    preds: torch.Tensor,
    target: torch.Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    reduction: str | None = "elementwise_mean",
    data_range: Range = None,
    k1: float = 0.01,
    k2: float = 0.03,
    return_full_image: bool = False,
    return_contrast_sensitivity: bool = False,
) -> Any:
    """SSIM as `torchmetrics.functional.image.structural_similarity_index_measure`.

    Parameters
    ----------
    preds, target : Tensor, (N, C, H, W) or (N, C, D, H, W)
        Candidate and reference; `target` takes the dtype of `preds`.
    gaussian_kernel : bool
        A Gaussian window of 2 · int(3.5 σ + 0.5) + 1 pixels an axis; else a uniform one of `kernel_size`.
    sigma : float or one an axis
        Standard deviation of the Gaussian window in pixels.
    kernel_size : int or one an axis
        Side of the uniform window, odd.
    reduction : {"elementwise_mean", "sum", "none", None}
        Over the images.
    data_range : float or (float, float), optional
        Width of the scale, or its ends, to which the images are clamped. Default: the larger range of both images.
    k1, k2 : float
        Stabilise the luminance and the contrast-structure term.
    return_full_image : bool
        Also the map.
    return_contrast_sensitivity : bool
        Also the mean of contrast times structure of each image.

    Returns
    -------
    Tensor or tuple of Tensor

    Raises
    ------
    ValueError
        Another number of dimensions, a window or sigma that does not fit, or both maps at once.
    RuntimeError
        Unlike shapes, images that are not floating, a window whose half is larger than the image.
    """
    preds, target = check(preds, target)
    score, more = similarity(
        preds,
        target,
        Window.of(preds, gaussian_kernel, sigma, kernel_size),
        data_range,
        (k1, k2),
        want_map=return_full_image,
        want_structure=return_contrast_sensitivity,
    )
    return reduced(score, reduction) if more is None else (reduced(score, reduction), more)


def multiscale_structural_similarity_index_measure(
    preds: torch.Tensor,
    target: torch.Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    reduction: str | None = "elementwise_mean",
    data_range: Range = None,
    k1: float = 0.01,
    k2: float = 0.03,
    betas: tuple[float, ...] = kernels.ssim.MS_WEIGHTS,
    normalize: str | None = "relu",
) -> torch.Tensor:
    """MS-SSIM as `torchmetrics.functional.image.multiscale_structural_similarity_index_measure`.

    Parameters
    ----------
    preds, target, gaussian_kernel, sigma, kernel_size, reduction, data_range, k1, k2
        As for `structural_similarity_index_measure`. Without `data_range` each scale takes its own.
    betas : tuple of float
        Exponent of each scale.
    normalize : {"relu", "simple", None}
        Negative terms become 0; all terms go from [-1, 1] to [0, 1]; or they stay, and may give NaN.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        Also for betas that are no tuple of floats, another `normalize`, and images too small for the scales.
    RuntimeError
        As `structural_similarity_index_measure`.
    """
    check_scales(betas, normalize)
    preds, target = check(preds, target)
    rows = multiscale(preds, target, gaussian_kernel, sigma, kernel_size, data_range, (k1, k2), betas, normalize)
    return reduced(rows, reduction)


def peak_signal_noise_ratio(
    preds: torch.Tensor,
    target: torch.Tensor,
    data_range: float | tuple[float, float],
    base: float = 10.0,
    reduction: str | None = "elementwise_mean",
    dim: int | tuple[int, ...] | None = None,
) -> torch.Tensor:
    """PSNR as `torchmetrics.functional.image.peak_signal_noise_ratio`.

    Parameters
    ----------
    preds, target : Tensor
        Candidate and reference of any one shape.
    data_range : float or (float, float)
        Width of the scale, or its ends, to which the images are clamped.
    base : float
        Of the logarithm.
    reduction : {"elementwise_mean", "sum", "none", None}
        Over what `dim` leaves.
    dim : int or tuple of int, optional
        Axes that one value is taken over. Default: all.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        Another `reduction`.
    """
    if dim is None and reduction != "elementwise_mean":
        warnings.warn(f"reduction={reduction!r} has no effect where dim is None", stacklevel=2)
    if isinstance(data_range, tuple):
        preds, target = (v.clamp(*data_range) for v in (preds, target))
        scale = torch.tensor(data_range[1] - data_range[0])
    else:
        scale = torch.tensor(float(data_range))
    return decibels(*squared_error(preds, target, dim), scale, base, reduction)


def deep_image_structure_and_texture_similarity(
    preds: torch.Tensor, target: torch.Tensor, reduction: str | None = None
) -> torch.Tensor:
    """DISTS as `torchmetrics.functional.image.deep_image_structure_and_texture_similarity`.

    Parameters
    ----------
    preds, target : Tensor, (N, 3, H, W)
        Candidate and reference in [0, 1].
    reduction : {"mean", "sum", "none", None}
        Over the images.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        Another `reduction`.
    WeightsUnavailable
        The weights of VGG16 are not there (`semnr weights fetch vgg16`).
    """
    rows = kernels.dists.dists(preds, target, data_range=1.0, nan="propagate", reduction="none").to(preds.dtype)
    if reduction in (None, "none"):
        return rows
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; accepted: 'mean', 'sum', 'none', None")
    return rows.mean() if reduction == "mean" else rows.sum()


# --- shared with the classes ----------------------------------------------------------------------------------


def check(preds: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in the dtype of `preds`."""
    if preds.shape != target.shape:
        raise RuntimeError(f"preds has shape {tuple(preds.shape)} and target {tuple(target.shape)}; accepted: the same")
    if preds.ndim not in (4, 5):
        raise ValueError(f"preds has shape {tuple(preds.shape)}; accepted: (N, C, H, W) or (N, C, D, H, W)")
    if not preds.is_floating_point():
        raise RuntimeError(f"preds is {preds.dtype}; accepted: a floating dtype")
    return preds, target.to(preds.dtype)


def reduced(rows: torch.Tensor, reduction: str | None) -> torch.Tensor:
    """Over the images."""
    if reduction == "elementwise_mean":
        return rows.mean()
    if reduction == "sum":
        return rows.sum()
    if reduction in ("none", None):
        return rows
    raise ValueError(f"reduction is {reduction!r}; accepted: 'elementwise_mean', 'sum', 'none', None")


@dataclass(frozen=True)
class Window:
    """Along each axis its taps, and how far the image is mirrored."""

    gaussian: bool
    sizes: tuple[int, ...]
    sigmas: tuple[float, ...]
    pads: tuple[int, ...]

    @classmethod
    def of(cls, like: torch.Tensor, gaussian: bool, sigma: Any, kernel_size: Any) -> Window:
        """Checked against the axes of `like`."""
        axes = like.ndim - 2
        sigmas = tuple(sigma) if isinstance(sigma, Sequence) else (sigma,) * axes
        sizes = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size,) * axes
        for name, values in (("kernel_size", sizes), ("sigma", sigmas)):
            if len(values) != axes:
                raise ValueError(f"{name} has {len(values)} values; accepted: a number, or {axes} of them")
        if any(size % 2 == 0 or size <= 0 for size in sizes):
            raise ValueError(f"kernel_size is {kernel_size}; accepted: odd numbers above 0")
        if any(one <= 0 for one in sigmas):
            raise ValueError(f"sigma is {sigma}; accepted: numbers above 0")
        taken = tuple(int(3.5 * one + 0.5) * 2 + 1 for one in sigmas) if gaussian else sizes
        # torchmetrics mirrors the third axis by half of kernel_size whatever the window
        pads = tuple((size - 1) // 2 for size in (*taken[:2], *sizes[2:]))
        return cls(gaussian, taken, tuple(float(one) for one in sigmas), pads)

    @property
    def square(self) -> bool:
        """Whether it is one window along two axes, which the kernels have."""
        alike = len(set(self.sizes)) == 1 and (not self.gaussian or len(set(self.sigmas)) == 1)
        return len(self.sizes) == 2 and alike and self.sizes[0] > 1

    @property
    def taps(self) -> list[tuple[float, ...]]:
        """Along each axis."""
        if self.gaussian:
            return [windows.gaussian(size, one) for size, one in zip(self.sizes, self.sigmas, strict=True)]
        return [windows.uniform(size) for size in self.sizes]


def similarity(
    preds: torch.Tensor,
    target: torch.Tensor,
    window: Window,
    data_range: Range,
    k: tuple[float, float],
    *,
    want_map: bool = False,
    want_structure: bool = False,
    want_score: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """SSIM of each image, and the map or the contrast-structure term of each, in the dtype of `preds`."""
    if want_map and want_structure:
        raise ValueError("return_full_image and return_contrast_sensitivity are True; accepted: one of them")
    if any(pad >= side for pad, side in zip(window.pads, preds.shape[2:], strict=True)):
        raise RuntimeError(
            f"preds has shape {tuple(preds.shape)} and the window {window.sizes} pixels; accepted: sides longer than "
            f"{window.pads}, by which the images are mirrored"
        )
    dtype = preds.dtype
    if isinstance(data_range, tuple):
        preds, target = (v.clamp(*data_range) for v in (preds, target))
        scale = float(data_range[1] - data_range[0])
    elif data_range is None:
        scale = max(float(high - low) for low, high in (torch.aminmax(v.detach()) for v in (preds, target)))
    else:
        scale = float(data_range)
    k1, k2 = k
    if not window.square or not windows.usable(scale):
        return _in_torch(preds, target, window, scale, k, want_map, want_structure)
    settings = windows.settings(
        window="gaussian" if window.gaussian else "uniform",
        window_size=window.sizes[0],
        sigma=window.sigmas[0],
        k1=float(k1),
        k2=float(k2),
        clamp_variance=True,
        border="reflect",
        data_range=scale,
        want_map=want_map,
    )
    more = None
    if want_structure:  # of the windows inside the image
        if min(preds.shape[2:]) >= window.sizes[0]:
            inside = windows.settings(**{**vars_of(settings), "border": "valid"})
            more = kernels.ssim.rows(preds, target, inside).contrast_structure.mean(dim=1).to(dtype)
        else:
            more = torch.full_like(preds[:, 0, 0, 0], torch.nan)
        if not want_score:
            return more, more
    rows = kernels.ssim.rows(preds, target, settings)
    if want_map and rows.map is not None:
        more = rows.map.to(dtype)
    return rows.score.mean(dim=1).to(dtype), more


def vars_of(settings: Settings) -> dict[str, Any]:
    """Its fields, without what it keeps."""
    return {name: getattr(settings, name) for name in Settings.__dataclass_fields__}


def _in_torch(
    preds: torch.Tensor,
    target: torch.Tensor,
    window: Window,
    scale: float,
    k: tuple[float, float],
    want_map: bool,
    want_structure: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    around = [pad for pad in reversed(window.pads) for _ in range(2)]
    x, y = (F.pad(v.double(), around, mode="reflect") for v in (preds, target))
    constants = ((k[0] * scale) ** 2, (k[1] * scale) ** 2)
    index, structure = windows.index_maps(x, y, window.taps, constants, clamp=True)
    score = index.flatten(1).mean(dim=1).to(preds.dtype)
    if want_structure:
        cut = (slice(None), slice(None), *(slice(pad, -pad) for pad in window.pads))
        return score, structure[cut].flatten(1).mean(dim=1).to(preds.dtype)
    return score, index.to(preds.dtype) if want_map else None


def check_scales(betas: Any, normalize: Any) -> None:
    """Those of MS-SSIM."""
    if not isinstance(betas, tuple) or not all(isinstance(beta, float) for beta in betas):
        raise ValueError(f"betas is {betas!r}; accepted: a tuple of floats")
    if normalize and normalize not in ("relu", "simple"):
        raise ValueError(f"normalize is {normalize!r}; accepted: 'relu', 'simple', None")


def multiscale(
    preds: torch.Tensor,
    target: torch.Tensor,
    gaussian_kernel: bool,
    sigma: Any,
    kernel_size: Any,
    data_range: Range,
    k: tuple[float, float],
    betas: tuple[float, ...],
    normalize: str | None,
) -> torch.Tensor:
    """MS-SSIM of each image, in the dtype of `preds`."""
    sizes = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size,) * (preds.ndim - 2)
    height, width = preds.shape[-2:]
    if min(height, width) < 2 ** len(betas):
        raise ValueError(
            f"preds is {height} x {width} pixels; accepted for {len(betas)} betas: at least {2 ** len(betas)}"
        )
    share = max(1, len(betas) - 1) ** 2
    for name, side, size in (("high", height, sizes[0]), ("wide", width, sizes[1])):
        if side // share <= size - 1:
            raise ValueError(f"preds is {side} pixels {name}; accepted: more than {(size - 1) * share}")
    window = Window.of(preds, gaussian_kernel, sigma, kernel_size)
    pool = F.avg_pool2d if preds.ndim == 4 else F.avg_pool3d
    product = torch.ones((), dtype=torch.float64, device=preds.device)
    for scale, beta in enumerate(betas):
        if scale:
            preds, target = pool(preds, 2), pool(target, 2)
        last = scale == len(betas) - 1
        score, structure = similarity(preds, target, window, data_range, k, want_structure=not last, want_score=last)
        term = (score if last or structure is None else structure).double()
        if normalize == "relu":
            positive = term > 0  # the gradient of 0 ** beta would be infinite
            powered = torch.where(
                positive, torch.where(positive, term, 1.0) ** beta, torch.where(term.isnan(), term, 0)
            )
        else:
            powered = ((term + 1) / 2 if normalize == "simple" else term) ** beta
        product = product * powered
    return product.to(preds.dtype)


def squared_error(
    preds: torch.Tensor, target: torch.Tensor, dim: int | tuple[int, ...] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sums of squared differences over `dim`, and how many differences each is of."""
    preds, target = (v if v.is_floating_point() else v.float() for v in (preds, target))
    if dim is None:
        return (preds - target).square().sum(), torch.tensor(target.numel(), device=target.device)
    total = (preds - target).square().sum(dim=dim)
    axes = [dim] if isinstance(dim, int) else list(dim)
    count = 1
    for axis in axes:
        count *= target.shape[axis]
    found = torch.tensor(count if axes else target.numel(), device=target.device)
    return total, found.expand_as(total) if axes else found


def decibels(
    total: torch.Tensor, count: torch.Tensor, scale: torch.Tensor, base: float, reduction: str | None
) -> torch.Tensor:
    """PSNR of sums of squared differences."""
    natural = 2 * torch.log(scale) - torch.log(total / count)
    return reduced(natural * (10 / torch.log(torch.tensor(base))), reduction)
