"""The names of pytorch-msssim 1.0: `ssim`, `ms_ssim`, `SSIM`, `MS_SSIM`.

Images of two or three spatial axes. Two axes run on semnr's kernels; volumes, windows of the caller's and axes shorter
than the window run in torch, separable and in float64 (`semnr.compat.windows`). Values have the dtype of `X`.

Examples
--------
>>> import torch
>>> from semnr.compat.pytorch_msssim import ssim
>>> x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
>>> ssim(x, x, data_range=1, size_average=False)
tensor([1., 1.])
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F

import semnr_kernels as kernels

from . import windows

__all__ = ["MS_SSIM", "SSIM", "ms_ssim", "ssim"]


def ssim(
    X: torch.Tensor,
    Y: torch.Tensor,
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: torch.Tensor | None = None,
    K: Sequence[float] = (0.01, 0.03),
    nonnegative_ssim: bool = False,
) -> torch.Tensor:
    """SSIM as `pytorch_msssim.ssim`.

    Parameters
    ----------
    X, Y : Tensor, (N, C, H, W) or (N, C, D, H, W)
        Candidate and reference, floating. Spatial axes of length 1 are dropped.
    data_range : float
        Width of the intensity scale.
    size_average : bool
        The mean over the images; else one value an image.
    win_size : int
        Length of the window along each axis, odd.
    win_sigma : float
        Standard deviation of the Gaussian window in pixels.
    win : Tensor, (C, 1, ..., win_size), optional
        The window along an axis, the same for each channel; `win_size` and `win_sigma` are then unused.
    K : (float, float)
        K1 and K2.
    nonnegative_ssim : bool
        Negative values of a channel become 0.

    Returns
    -------
    Tensor
        A scalar or (N,), in the dtype of `X`.

    Raises
    ------
    ValueError
        Unlike shapes, another number of dimensions, or an even window.
    RuntimeError
        Images that are not floating or of unlike dtypes.
    """
    X, Y = _spatial(X, Y)
    if X.ndim not in (4, 5):
        raise ValueError(f"X has shape {tuple(X.shape)} without axes of length 1; accepted: 4 or 5 dimensions")
    window = _Window.of(X, win, win_size, win_sigma)
    score, _ = window.rows(X, Y, float(data_range), K)
    return _averaged(score.relu() if nonnegative_ssim else score, size_average).to(X.dtype)


def ms_ssim(
    X: torch.Tensor,
    Y: torch.Tensor,
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: torch.Tensor | None = None,
    weights: Sequence[float] | None = None,
    K: Sequence[float] = (0.01, 0.03),
) -> torch.Tensor:
    """MS-SSIM as `pytorch_msssim.ms_ssim`.

    Parameters
    ----------
    X, Y, data_range, size_average, win_size, win_sigma, win, K
        As for `ssim`. The shorter of the last two axes is longer than 16 · (win_size − 1) pixels.
    weights : sequence of float, optional
        Exponent of each scale. Default: the five of the paper.

    Returns
    -------
    Tensor
        A scalar or (N,), in the dtype of `X`.

    Raises
    ------
    ValueError, RuntimeError
        As `ssim`.
    AssertionError
        The images are too small.
    """
    X, Y = _spatial(X, Y)
    if X.ndim not in (4, 5):
        raise ValueError(f"X has shape {tuple(X.shape)} without axes of length 1; accepted: 4 or 5 dimensions")
    window = _Window.of(X, win, win_size, win_sigma)
    least = (window.size - 1) * 16
    if min(X.shape[-2:]) <= least:
        raise AssertionError(f"X has shape {tuple(X.shape)}; accepted: last two axes longer than {least} pixels")
    exponents = kernels.ssim.MS_WEIGHTS if weights is None else tuple(float(weight) for weight in weights)
    dtype, pool = X.dtype, F.avg_pool2d if X.ndim == 4 else F.avg_pool3d
    terms = []
    for scale in range(len(exponents)):
        if scale:
            odd = [side % 2 for side in X.shape[2:]]
            X, Y = (pool(v, kernel_size=2, padding=odd) for v in (X, Y))
        score, structure = window.rows(X, Y, float(data_range), K)
        terms.append(score if scale == len(exponents) - 1 else structure)
    product = torch.ones((), dtype=torch.float64, device=X.device)
    for term, exponent in zip(terms, exponents, strict=True):
        product = product * _power(term, exponent)
    return _averaged(product, size_average).to(dtype)


class SSIM(torch.nn.Module):
    """`ssim` as a module, as `pytorch_msssim.SSIM`.

    Parameters
    ----------
    data_range, size_average, win_size, win_sigma, K, nonnegative_ssim
        As for `ssim`.
    channel : int
        Channels of the images.
    spatial_dims : int
        2 or 3.

    Examples
    --------
    >>> import torch
    >>> from semnr.compat.pytorch_msssim import SSIM
    >>> x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> SSIM(data_range=1.0, channel=1)(x, x)
    tensor(1.)
    """

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        K: Sequence[float] = (0.01, 0.03),
        nonnegative_ssim: bool = False,
    ) -> None:
        super().__init__()
        self.win_size = win_size
        self.win_sigma = win_sigma
        self.channel = channel
        self.size_average = size_average
        self.data_range = data_range
        self.K = K
        self.nonnegative_ssim = nonnegative_ssim
        self.spatial_dims = spatial_dims

    def forward(self, X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
        """`ssim` of a candidate and a reference."""
        _channels(X, self.channel)
        return ssim(
            X,
            Y,
            data_range=self.data_range,
            size_average=self.size_average,
            win_size=self.win_size,
            win_sigma=self.win_sigma,
            K=self.K,
            nonnegative_ssim=self.nonnegative_ssim,
        )


class MS_SSIM(torch.nn.Module):
    """`ms_ssim` as a module, as `pytorch_msssim.MS_SSIM`.

    Parameters
    ----------
    data_range, size_average, win_size, win_sigma, weights, K
        As for `ms_ssim`.
    channel : int
        Channels of the images.
    spatial_dims : int
        2 or 3.

    Examples
    --------
    >>> import torch
    >>> from semnr.compat.pytorch_msssim import MS_SSIM
    >>> x = torch.rand(1, 1, 164, 164, generator=torch.Generator().manual_seed(0))
    >>> MS_SSIM(data_range=1.0, channel=1)(x, x)
    tensor(1.)
    """

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        weights: Sequence[float] | None = None,
        K: Sequence[float] = (0.01, 0.03),
    ) -> None:
        super().__init__()
        self.win_size = win_size
        self.win_sigma = win_sigma
        self.channel = channel
        self.size_average = size_average
        self.data_range = data_range
        self.weights = weights
        self.K = K
        self.spatial_dims = spatial_dims

    def forward(self, X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
        """`ms_ssim` of a candidate and a reference."""
        _channels(X, self.channel)
        return ms_ssim(
            X,
            Y,
            data_range=self.data_range,
            size_average=self.size_average,
            win_size=self.win_size,
            win_sigma=self.win_sigma,
            weights=self.weights,
            K=self.K,
        )


class _Window:
    """The window along each axis: a Gaussian that the kernels know, or weights of the caller's."""

    def __init__(self, size: int, sigma: float, taps: tuple[float, ...] | None) -> None:
        self.size, self.sigma, self.taps = size, sigma, taps

    @classmethod
    def of(cls, X: torch.Tensor, win: torch.Tensor | None, size: int, sigma: float) -> _Window:
        """Checked; `win` takes the place of size and sigma."""
        taps = None
        if win is not None:
            size = win.shape[-1]
        if size % 2 != 1:
            raise ValueError(f"win_size is {size}; accepted: an odd integer")
        if win is not None:
            if any(side != 1 for side in win.shape[1:-1]):
                raise AssertionError(f"win has shape {tuple(win.shape)}; accepted: (channels, 1, ..., size)")
            rows = win.detach().double().reshape(win.shape[0], size)
            if win.shape[0] != X.shape[1] or not bool((rows == rows[0]).all()):
                raise RuntimeError(
                    f"win has shape {tuple(win.shape)} and X {X.shape[1]} channels; accepted: the same window for each"
                )
            taps = tuple(rows[0].tolist())
        return cls(int(size), float(sigma), taps)

    def rows(
        self, x: torch.Tensor, y: torch.Tensor, data_range: float, K: Sequence[float]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score and contrast·structure, (N, C) float64."""
        if not x.is_floating_point() or x.dtype != y.dtype:
            raise RuntimeError(f"X is {x.dtype} and Y {y.dtype}; accepted: one floating dtype")
        k1, k2 = K
        short = [axis for axis, side in enumerate(x.shape[2:]) if side < self.size]
        if self.taps is None and x.ndim == 4 and not short and windows.usable(data_range):
            settings = windows.settings(
                window_size=self.size, sigma=self.sigma, k1=float(k1), k2=float(k2), data_range=data_range
            )
            found = kernels.ssim.rows(x, y, settings)
            return found.score, found.contrast_structure
        for axis in short:
            warnings.warn(
                f"axis {axis + 2} of shape {tuple(x.shape)} is shorter than the window of {self.size} pixels: "
                "it is not filtered",
                stacklevel=3,
            )
        along = windows.gaussian(self.size, self.sigma) if self.taps is None else self.taps
        taps = [None if axis in short else along for axis in range(x.ndim - 2)]
        constants = ((k1 * data_range) ** 2, (k2 * data_range) ** 2)
        index, structure = windows.index_maps(x, y, taps, constants)
        return index.flatten(2).mean(dim=2), structure.flatten(2).mean(dim=2)


def _spatial(X: torch.Tensor, Y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Checked, without spatial axes of length 1."""
    if X.shape != Y.shape:
        raise ValueError(f"X has shape {tuple(X.shape)} and Y {tuple(Y.shape)}; accepted: the same shape")
    shape = (*X.shape[:2], *(side for side in X.shape[2:] if side != 1))
    return X.reshape(shape), Y.reshape(shape)


def _channels(X: torch.Tensor, channel: int) -> None:
    if X.ndim > 1 and X.shape[1] != channel:
        raise RuntimeError(f"X has {X.shape[1]} channels; accepted: channel={channel}, as the module was made")


def _averaged(rows: torch.Tensor, size_average: bool) -> torch.Tensor:
    return rows.mean() if size_average else rows.mean(dim=1)


def _power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """max(base, 0) ** exponent; the gradient is 0, not infinite, where the base is not above 0."""
    positive = base > 0
    return torch.where(positive, torch.where(positive, base, 1.0) ** exponent, torch.where(base.isnan(), base, 0.0))
