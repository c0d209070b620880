"""The full-reference metrics of piq 0.8.0 that semnr has: `ssim`, `multi_scale_ssim`, `psnr`, `fsim`, and their losses.

Signatures, defaults and exceptions are piq's: a pixel outside [0, data_range] is an AssertionError. SSIM looks for such
pixels in the pass that computes it. Values are computed in float32 moments or wider and returned in the dtype of the
images (float32 for integers). Complex images (N, C, H, W, 2) are a stated limit, see docs/compat.md.

Examples
--------
>>> import torch
>>> from semnr.compat import piq
>>> x = torch.from_numpy(denoised / 255).float()[None, None]
>>> y = torch.from_numpy(clean / 255).float()[None, None]
>>> piq.ssim(x, y, downsample=False).round(decimals=2)
tensor(0.9000)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.modules.loss import _Loss

import semnr_kernels as kernels
from semnr_kernels import registry
from semnr_kernels.fsim import Filters, downsampling_factor
from semnr_kernels.fsim import Settings as FSIMSettings

from . import windows

__all__ = [
    "DISTS",
    "LPIPS",
    "FSIMLoss",
    "MultiScaleSSIMLoss",
    "SSIMLoss",
    "fsim",
    "multi_scale_ssim",
    "psnr",
    "ssim",
]

_GREY = (0.299, 0.587, 0.114)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def ssim(
    x: torch.Tensor,
    y: torch.Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: int | float = 1.0,
    reduction: str = "mean",
    full: bool = False,
    downsample: bool = True,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Any:
    """SSIM as `piq.ssim`, averaged over the channels.

    Parameters
    ----------
    x, y : Tensor, (N, C, H, W)
        Candidate and reference, values in [0, data_range].
    kernel_size : int
        Side of the window in pixels, odd.
    kernel_sigma : float
        Standard deviation of the Gaussian window in pixels.
    data_range : float
        Largest value of the images.
    reduction : {"mean", "sum", "none"}
        Over the images.
    full : bool
        Also the mean of contrast times structure.
    downsample : bool
        Average over squares of max(1, round(short side / 256)) pixels first.
    k1, k2 : float
        Stabilise the luminance and the contrast-structure term.

    Returns
    -------
    Tensor or list of Tensor
        In the dtype of `x`; with `full` a list of the score and the contrast-structure term.

    Raises
    ------
    AssertionError
        An even `kernel_size`, another number of dimensions, unlike shapes or devices, a pixel outside [0, data_range].
    ValueError
        A window larger than the image, or another `reduction`.
    NotImplementedError
        Complex images.

    Examples
    --------
    >>> import torch
    >>> from semnr.compat import piq
    >>> x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> piq.ssim(x, x, reduction="none")
    tensor([1., 1.])
    """
    _odd(kernel_size)
    _alike(x, y, (4, 5))
    _real(x)
    checked = data_range > 0
    limit, dtype = float(data_range), _dtype(x)
    x, y = _numbers(x, y)
    factor = downsampling_factor(*x.shape[-2:]) if downsample else 1
    if factor > 1:
        _inside(x, y, limit)
        wide = torch.promote_types(x.dtype, torch.float32)
        x, y = (F.avg_pool2d(v.to(wide), factor) for v in (x, y))
    if min(x.shape[-2:]) < kernel_size:
        raise ValueError(
            f"kernel_size is {kernel_size} and x is {x.shape[-2]} x {x.shape[-1]} pixels"
            f"{f' after averaging by {factor}' if factor > 1 else ''}; accepted: a window that fits"
        )
    fused = checked and factor == 1
    settings = windows.settings(
        window_size=int(kernel_size),
        sigma=float(kernel_sigma),
        k1=float(k1),
        k2=float(k2),
        data_range=_scale(limit),
        want_apart=fused,
    )
    rows = kernels.ssim.rows(x, y, settings)
    if fused and rows.extent is not None:
        low, high = rows.extent.tolist()
        if not (low >= 0 and high <= limit) or not torch.isfinite(rows.score.detach()).all():
            _inside(x, y, limit)
    score = _reduced(rows.score.mean(dim=1), reduction).to(dtype)
    if not full:
        return score
    return [score, _reduced(rows.contrast_structure.mean(dim=1), reduction).to(dtype)]


class SSIMLoss(_Loss):
    """1 − SSIM as `piq.SSIMLoss`.

    Parameters
    ----------
    kernel_size, kernel_sigma, k1, k2, downsample, reduction, data_range
        As for `ssim`.

    Raises
    ------
    AssertionError
        An even `kernel_size`.

    Examples
    --------
    >>> import torch
    >>> from semnr.compat import piq
    >>> x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    >>> piq.SSIMLoss()(x, torch.zeros(1, 1, 64, 64)).backward()
    >>> x.grad.shape
    torch.Size([1, 1, 64, 64])
    """

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        downsample: bool = True,
        reduction: str = "mean",
        data_range: int | float = 1.0,
    ) -> None:
        super().__init__()
        _odd(kernel_size)
        self.reduction = reduction
        self.kernel_size = kernel_size
        self.kernel_sigma = kernel_sigma
        self.k1 = k1
        self.k2 = k2
        self.downsample = downsample
        self.data_range = data_range

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """1 − `ssim` of a candidate and a reference, (N, C, H, W)."""
        score: torch.Tensor = ssim(
            x,
            y,
            kernel_size=self.kernel_size,
            kernel_sigma=self.kernel_sigma,
            downsample=self.downsample,
            data_range=self.data_range,
            reduction=self.reduction,
            k1=self.k1,
            k2=self.k2,
        )
        return 1 - score


def multi_scale_ssim(
    x: torch.Tensor,
    y: torch.Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: int | float = 1.0,
    reduction: str = "mean",
    scale_weights: torch.Tensor | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
) -> torch.Tensor:
    """MS-SSIM as `piq.multi_scale_ssim`.

    Parameters
    ----------
    x, y, kernel_size, kernel_sigma, data_range, reduction, k1, k2
        As for `ssim`. Sides of at least (kernel_size − 1) · 2^(scales − 1) + 1 pixels.
    scale_weights : Tensor, (scales,), optional
        Exponents of the scales, at least 0; they are divided by their sum. Default: the five of the paper.

    Returns
    -------
    Tensor
        In the dtype of `x`.

    Raises
    ------
    AssertionError, ValueError, NotImplementedError
        As `ssim`; ValueError for weights that are no vector and for images that are too small.

    Examples
    --------
    >>> import torch
    >>> from semnr.compat import piq
    >>> x = torch.rand(1, 1, 176, 176, generator=torch.Generator().manual_seed(0))
    >>> piq.multi_scale_ssim(x, x)
    tensor(1.)
    """
    _odd(kernel_size)
    _alike(x, y, (4, 5))
    _real(x)
    if scale_weights is not None and scale_weights.dim() != 1:
        raise ValueError(f"scale_weights has {scale_weights.dim()} dimensions; accepted: a vector of one a scale")
    if data_range > 0:
        _inside(x, y, float(data_range))
    weights = kernels.ssim.MS_WEIGHTS
    if scale_weights is not None:
        given = scale_weights.detach().double()
        weights = tuple((given / given.sum()).tolist())
    least = (kernel_size - 1) * 2 ** (len(weights) - 1) + 1
    if min(x.shape[-2:]) < least:
        raise ValueError(f"x is {x.shape[-2]} x {x.shape[-1]} pixels; accepted: sides of at least {least}")
    dtype = _dtype(x)
    x, y = _numbers(x, y)
    rows = kernels.ssim.ms_ssim(
        x,
        y,
        data_range=_scale(float(data_range)),
        window_size=int(kernel_size),
        sigma=float(kernel_sigma),
        k1=float(k1),
        k2=float(k2),
        weights=weights,
        nan="propagate",
        reduction="none",
    )
    return _reduced(rows, reduction).to(dtype)


class MultiScaleSSIMLoss(_Loss):
    """1 − MS-SSIM as `piq.MultiScaleSSIMLoss`, with the buffer `scale_weights`.

    Parameters
    ----------
    kernel_size, kernel_sigma, k1, k2, scale_weights, reduction, data_range
        As for `multi_scale_ssim`.

    Raises
    ------
    AssertionError
        An even `kernel_size`.

    Examples
    --------
    >>> from semnr.compat import piq
    >>> piq.MultiScaleSSIMLoss().scale_weights.shape
    torch.Size([5])
    """

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        scale_weights: torch.Tensor | None = None,
        reduction: str = "mean",
        data_range: int | float = 1.0,
    ) -> None:
        super().__init__()
        _odd(kernel_size)
        self.reduction = reduction
        given = torch.tensor(kernels.ssim.MS_WEIGHTS) if scale_weights is None else scale_weights
        self.scale_weights: torch.Tensor
        self.register_buffer("scale_weights", given)
        self.kernel_size = kernel_size
        self.kernel_sigma = kernel_sigma
        self.k1 = k1
        self.k2 = k2
        self.data_range = data_range

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """1 − `multi_scale_ssim` of a candidate and a reference, (N, C, H, W)."""
        score = multi_scale_ssim(
            x,
            y,
            kernel_size=self.kernel_size,
            kernel_sigma=self.kernel_sigma,
            data_range=self.data_range,
            reduction=self.reduction,
            scale_weights=self.scale_weights,
            k1=self.k1,
            k2=self.k2,
        )
        return 1 - score


def psnr(
    x: torch.Tensor,
    y: torch.Tensor,
    data_range: int | float = 1.0,
    reduction: str = "mean",
    convert_to_greyscale: bool = False,
) -> torch.Tensor:
    """PSNR in dB as `piq.psnr`: −10 log10(MSE / data_range² + 1e-8), at most 80 dB.

    Parameters
    ----------
    x, y : Tensor, (N, C, H, W) or (N, C, H, W, 2)
        Candidate and reference, values in [0, data_range].
    data_range : float
        Largest value of the images.
    reduction : {"mean", "sum", "none"}
        Over the images.
    convert_to_greyscale : bool
        Of three channels take 0.299 R + 0.587 G + 0.114 B.

    Returns
    -------
    Tensor
        In the dtype of `x`.

    Raises
    ------
    AssertionError, ValueError
        As `ssim`.

    Examples
    --------
    >>> import torch
    >>> from semnr.compat import piq
    >>> piq.psnr(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    tensor(-4.3429e-08)
    """
    _alike(x, y, (4, 5))
    if data_range > 0:
        _inside(x, y, float(data_range))
    dtype = _dtype(x)
    x, y = _numbers(x, y)
    if convert_to_greyscale and x.shape[1] == 3:
        grey = torch.tensor(_GREY, dtype=torch.float64, device=x.device).reshape(1, 3, *(1,) * (x.ndim - 2))
        x, y = ((v.double() * grey).sum(dim=1, keepdim=True) for v in (x, y))
    if x.ndim == 4:
        mse = kernels.pixel.mse(x, y, nan="propagate", reduction="none")
    else:
        mse = (x.double() - y.double()).square().mean(dim=(1, 2, 3))
    score = -10 * torch.log10(mse / float(data_range) ** 2 + 1e-8)
    return _reduced(score, reduction).to(dtype)


def fsim(
    x: torch.Tensor,
    y: torch.Tensor,
    reduction: str = "mean",
    data_range: int | float = 1.0,
    chromatic: bool = True,
    scales: int = 4,
    orientations: int = 4,
    min_length: int = 6,
    mult: int = 2,
    sigma_f: float = 0.55,
    delta_theta: float = 1.2,
    k: float = 2.0,
) -> torch.Tensor:
    """FSIM and FSIMc as `piq.fsim`: images smaller than the longest wavelength are scored too.

    Parameters
    ----------
    x, y : Tensor, (N, C, H, W), C of 1 or 3
        Candidate and reference, values in [0, data_range].
    reduction : {"mean", "sum", "none"}
        Over the images.
    data_range : float
        Largest value of the images.
    chromatic : bool
        Whether colour enters; needs three channels. False on three channels: the luminance alone.
    scales, orientations, min_length, mult, sigma_f, delta_theta, k
        The log-Gabor filters, as for `semnr.fsim`.

    Returns
    -------
    Tensor
        In the dtype of `x`.

    Raises
    ------
    AssertionError
        As `ssim`; also `chromatic` on one channel.
    ValueError
        Another `reduction`.
    RuntimeError
        Another number of channels.

    Examples
    --------
    >>> import torch
    >>> from semnr.compat import piq
    >>> x = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    >>> piq.fsim(x, x)
    tensor(1.)
    """
    _alike(x, y, (4, 4))
    if data_range > 0:
        _inside(x, y, float(data_range))
    channels = x.shape[1]
    if chromatic and channels != 3:
        raise AssertionError(f"chromatic is True and x has {channels} channels; accepted: 3, or chromatic=False")
    if channels not in (1, 3):
        raise RuntimeError(f"x has {channels} channels; accepted: 1 or 3")
    dtype = _dtype(x)
    x, y = _numbers(x, y)
    settings = FSIMSettings(
        factor=downsampling_factor(*x.shape[-2:]),
        chromatic=bool(chromatic),
        filters=Filters(int(scales), int(orientations), min_length, mult, sigma_f, delta_theta, k),
        precision="float64" if x.dtype == torch.float64 else "float32",
        data_range=_scale(float(data_range)),
    )
    call = registry.Call.of("fsim", x, y, settings=settings)
    rows = registry.choose(call, "auto").run(x, y, None, settings).rows
    return _reduced(rows, reduction).to(dtype)


class FSIMLoss(_Loss):
    """1 − FSIM, clipped to [0, 1], as `piq.FSIMLoss`.

    Parameters
    ----------
    reduction, data_range, chromatic, scales, orientations, min_length, mult, sigma_f, delta_theta, k
        As for `fsim`.

    Examples
    --------
    >>> import torch
    >>> from semnr.compat import piq
    >>> x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> piq.FSIMLoss()(x, x)
    tensor(0.)
    """

    def __init__(
        self,
        reduction: str = "mean",
        data_range: int | float = 1.0,
        chromatic: bool = True,
        scales: int = 4,
        orientations: int = 4,
        min_length: int = 6,
        mult: int = 2,
        sigma_f: float = 0.55,
        delta_theta: float = 1.2,
        k: float = 2.0,
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.data_range = data_range
        self.options = {
            "chromatic": chromatic,
            "scales": scales,
            "orientations": orientations,
            "min_length": min_length,
            "mult": mult,
            "sigma_f": sigma_f,
            "delta_theta": delta_theta,
            "k": k,
        }

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """1 − `fsim` of a candidate and a reference, (N, C, H, W)."""
        score = fsim(x, y, reduction=self.reduction, data_range=self.data_range, **self.options)  # type: ignore[arg-type]
        return 1 - score.clamp(0, 1)


class _Perceptual(_Loss):
    """A distance of VGG16's features; images in [0, 1], standardised as ImageNet's."""

    def __init__(self, reduction: str, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if (tuple(mean), tuple(std)) != _IMAGENET:
            raise NotImplementedError(
                f"mean is {list(mean)} and std {list(std)}; accepted: those of ImageNet (the defaults), for images in "
                "[0, 1]: see the limits in docs/compat.md"
            )
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction is {reduction!r}; accepted: 'mean', 'sum', 'none'")
        self.reduction = reduction

    def _distance(self, metric: Any, x: torch.Tensor, y: torch.Tensor, **options: Any) -> torch.Tensor:
        _alike(x, y, (4, 4))
        if x.shape[1] not in (1, 3):
            raise RuntimeError(f"x has {x.shape[1]} channels; accepted: 1 (grey, repeated) or 3")
        dtype = _dtype(x)
        x, y = _numbers(x, y)
        rows = metric(x, y, data_range=1.0, nan="propagate", reduction="none", **options)
        return _reduced(rows, self.reduction).to(dtype)


class DISTS(_Perceptual):
    """DISTS, a distance, as `piq.DISTS`: larger images are first reduced to a short side of 256 pixels.

    The published weights of VGG16 are needed at the first call (`semnr weights fetch vgg16`); nothing is downloaded
    otherwise.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Over the images.
    mean, std : sequence of float
        Those of ImageNet alone.

    Raises
    ------
    NotImplementedError
        Another `mean` or `std`.
    WeightsUnavailable
        At the first call, where the weights are not there.
    """

    def __init__(
        self,
        reduction: str = "mean",
        mean: Sequence[float] = _IMAGENET[0],
        std: Sequence[float] = _IMAGENET[1],
    ) -> None:
        super().__init__(reduction, mean, std)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The distance of a candidate and a reference, (N, 3, H, W) in [0, 1]."""
        short = min(x.shape[-2:])
        if short > 256:
            x, y = (
                F.interpolate(v, scale_factor=256 / short, recompute_scale_factor=False, mode="bilinear")
                for v in (x, y)
            )
        return self._distance(kernels.dists.dists, x, y)


class LPIPS(_Perceptual):
    """LPIPS of VGG16, a distance, as `piq.LPIPS`.

    The published weights are needed at the first call (`semnr weights fetch vgg16 lpips`); nothing is downloaded
    otherwise.

    Parameters
    ----------
    replace_pooling, distance
        The defaults alone: max pooling, "mse".
    reduction : {"mean", "sum", "none"}
        Over the images.
    mean, std : sequence of float
        Those of ImageNet alone.

    Raises
    ------
    NotImplementedError
        Another value than the default where that alone is accepted.
    WeightsUnavailable
        At the first call, where the weights are not there.
    """

    def __init__(
        self,
        replace_pooling: bool = False,
        distance: str = "mse",
        reduction: str = "mean",
        mean: Sequence[float] = _IMAGENET[0],
        std: Sequence[float] = _IMAGENET[1],
    ) -> None:
        super().__init__(reduction, mean, std)
        if replace_pooling or distance != "mse":
            raise NotImplementedError(
                f"replace_pooling is {replace_pooling} and distance {distance!r}; accepted: False and 'mse'"
            )

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The distance of a candidate and a reference, (N, 3, H, W) in [0, 1]."""
        return self._distance(kernels.lpips.lpips, x, y, net="vgg")


# --- what piq checks, and its reduction -----------------------------------------------------------------------


def _odd(kernel_size: int) -> None:
    if kernel_size % 2 != 1:
        raise AssertionError(f"kernel_size is {kernel_size}; accepted: an odd integer")


def _alike(x: Any, y: Any, ranks: tuple[int, int]) -> None:
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, torch.Tensor):
            raise AssertionError(f"{name} is {type(value).__name__}; accepted: a torch.Tensor")
    if x.device != y.device:
        raise AssertionError(f"x is on {x.device} and y on {y.device}; accepted: the same device")
    if x.shape != y.shape:
        raise AssertionError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; accepted: the same shape")
    if not ranks[0] <= x.ndim <= ranks[1]:
        raise AssertionError(f"x has {x.ndim} dimensions; accepted: {' or '.join(map(str, sorted(set(ranks))))}")


def _real(x: torch.Tensor) -> None:
    if x.ndim == 5:
        raise NotImplementedError(
            f"x has shape {tuple(x.shape)}: complex images; accepted: (N, C, H, W), see the limits in docs/compat.md"
        )


def _inside(x: torch.Tensor, y: torch.Tensor, limit: float) -> None:
    for name, value in (("x", x), ("y", y)):
        low, high = (float(end) for end in torch.aminmax(value.detach()))
        if not (low >= 0 and high <= limit):
            raise AssertionError(
                f"{name} has values from {low:g} to {high:g}; accepted: from 0 to data_range {limit:g}"
            )


def _dtype(x: torch.Tensor) -> torch.dtype:
    return x.dtype if x.is_floating_point() else torch.float32


def _numbers(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both of one dtype that the kernels take."""
    if x.dtype != y.dtype and x.is_floating_point() and y.is_floating_point():
        raise RuntimeError(f"x is {x.dtype} and y {y.dtype}; accepted: the same dtype")
    known = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if x.dtype == y.dtype and x.dtype in known:
        return x, y
    return x.to(_dtype(x)), y.to(_dtype(x))


def _scale(data_range: float) -> float:
    """The width of the scale: a sign changes no score."""
    if not (1e-30 <= abs(data_range) <= 1e30):
        raise ValueError(f"data_range is {data_range}; accepted: a finite number other than 0")
    return abs(data_range)


def _reduced(rows: torch.Tensor, reduction: str) -> torch.Tensor:
    if reduction == "none":
        return rows
    if reduction == "mean":
        return rows.mean(dim=0)
    if reduction == "sum":
        return rows.sum(dim=0)
    raise ValueError(f"reduction is {reduction!r}; accepted: 'mean', 'sum', 'none'")
