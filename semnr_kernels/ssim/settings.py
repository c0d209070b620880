"""What goes from a checked call of SSIM to its backends: one frozen dataclass, and the conventions as values of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from .. import checks
from . import float32_window


@functools.cache
def window_taps(window: str, size: int, sigma: float) -> tuple[float, ...]:
    """The window along one axis, normalised in float64; the 2-D window is its outer product.

    Parameters
    ----------
    window : {"gaussian", "uniform"}
        Its shape.
    size : int
        Its length in pixels, odd.
    sigma : float
        Standard deviation of the Gaussian in pixels, above 0.

    Returns
    -------
    tuple of float
        `size` weights, whose sum is 1.

    Examples
    --------
    >>> [round(tap, 4) for tap in kernels.ssim.window_taps("gaussian", 3, 1.5)]
    [0.3078, 0.3844, 0.3078]
    """
    if window == "uniform":
        return (1.0 / size,) * size
    half = (size - 1) // 2
    weights = [math.exp(-(i / sigma) * (i / sigma) / 2) for i in range(-half, half + 1)]
    total = math.fsum(weights)
    return tuple(w / total for w in weights)


@dataclass(frozen=True)
class Settings:
    """All that SSIM needs beside the pixels. A convention decides the first nine; what the caller passes overrides it.

    Attributes
    ----------
    window : {"gaussian", "uniform"}
        Shape of the window.
    window_size : int
        Side of the window in pixels, odd.
    sigma : float
        Standard deviation of the Gaussian window in pixels.
    k1, k2 : float
        Constants of the luminance term and of the contrast-structure term.
    downsample : int or "auto"
        Factor by which both images are averaged first.
    border : {"valid", "reflect"}
        Windows inside the image alone, or one a pixel with the image mirrored.
    sample_covariance : bool
        Whether variances are scaled by n / (n − 1), n the pixels of the window.
    clamp_variance : bool
        Whether negative variances are raised to 0. Those of the compiled backends are never negative.
    precision : {"float32", "float64"}
        Type of the moments.
    data_range : float
        Width of the intensity scale in grey levels.
    want_map : bool
        Whether the backend returns the map.
    want_components : bool
        Whether the backend returns the three terms.
    want_apart : bool
        Whether the backend returns the means of |x − y| and (x − y)² and the extremes of the pixels, from one read.

    Examples
    --------
    >>> settings = kernels.ssim.Settings(window_size=7)
    >>> settings.windows(torch.zeros(1, 1, 192, 192)), settings.told()["k2"]
    ((186, 186), 0.03)
    """

    window: str = "gaussian"
    window_size: int = 11
    sigma: float = 1.5
    k1: float = 0.01
    k2: float = 0.03
    downsample: int | str = 1
    border: str = "valid"
    sample_covariance: bool = False
    clamp_variance: bool = False
    precision: str = "float32"
    data_range: float = 1.0
    want_map: bool = False
    want_components: bool = False
    want_apart: bool = False

    @functools.cached_property
    def taps(self) -> tuple[float, ...]:
        """The window along one axis, in float64."""
        return window_taps(self.window, self.window_size, float(self.sigma))

    @functools.cached_property
    def float32_taps(self) -> tuple[float, ...]:
        return float32_window.normalised(self.taps)

    @property
    def window_in_precision(self) -> tuple[float, ...]:
        """The taps in the precision of the moments."""
        return self.taps if self.double else self.float32_taps

    @property
    def double(self) -> bool:
        """Whether the moments are float64."""
        return self.precision == "float64"

    @property
    def work(self) -> torch.dtype:
        """The type of the moments and of the map."""
        return torch.float64 if self.double else torch.float32

    @property
    def reflect(self) -> bool:
        """Windows at every pixel, the image mirrored about its border pixels."""
        return self.border == "reflect" and self.window_size > 1

    @functools.cached_property
    def constants(self) -> tuple[float, float, float, float]:
        """C1, C2, L and n / (n − 1)."""
        scale, count = self.data_range, self.window_size**2
        unbiased = count / (count - 1) if self.sample_covariance and count > 1 else 1.0
        return (self.k1 * scale) ** 2, (self.k2 * scale) ** 2, scale, unbiased

    @functools.cached_property
    def in_double(self) -> Settings:
        """The same with float64 moments."""
        return self if self.double else replace(self, precision="float64")

    def for_images(self, dtype: torch.dtype, masked: bool) -> Settings:
        """These settings, with float64 moments where the call needs them.

        Parameters
        ----------
        dtype : torch.dtype
            Of the images; float64 images take float64 moments.
        masked : bool
            Whether there is a mask, which takes float64 moments, as the components do.

        Returns
        -------
        Settings

        Examples
        --------
        >>> kernels.ssim.Settings().for_images(torch.float64, masked=False).precision
        'float64'
        """
        return self.in_double if dtype == torch.float64 or masked or self.want_components else self

    def windows(self, x: torch.Tensor) -> tuple[int, int]:
        """How many windows an image has along each axis.

        Parameters
        ----------
        x : Tensor, (N, C, H, W)
            The image; only its shape is read.

        Returns
        -------
        (int, int)
            Down and across.
        """
        less = 0 if self.reflect else self.window_size - 1
        return x.shape[2] - less, x.shape[3] - less

    def told(self) -> dict[str, Any]:
        """The options that a convention decides, as the `settings` of a result hold them.

        Returns
        -------
        dict of str to value
        """
        return {name: getattr(self, name) for name in _OF_A_CONVENTION}


_OF_A_CONVENTION = tuple(Settings.__dataclass_fields__)[:9]
_GIVEN = ("window", "window_size", "sigma", "k1", "k2", "downsample", "border")
_ALL = (*_GIVEN, "convention", "precision", "return_map", "components")

CONVENTIONS: Mapping[str, Settings] = {
    "wang2004": Settings(),  # ssim_index.m
    "piq": Settings(downsample="auto"),  # piq.ssim as it comes
    "skimage": Settings(window="uniform", window_size=7, sample_covariance=True),  # structural_similarity as it comes
    "torchmetrics": Settings(clamp_variance=True, border="reflect"),
}
MS_CONVENTIONS: Mapping[str, Settings] = {
    "piq": Settings(),
    "pytorch-msssim": Settings(),
    "torchmetrics": Settings(clamp_variance=True),
}


def settings_of(
    arguments: Mapping[str, Any], data_range: float, conventions: Mapping[str, Settings] = CONVENTIONS
) -> Settings:
    """The settings of a call with these arguments, by name; those that it does not have are the convention's.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    """
    values = tuple(map(arguments.get, _ALL))
    try:
        return _kept(values, data_range, conventions is CONVENTIONS)
    except TypeError:  # a value that is no key; what is wrong with it is said there
        return _made(values, data_range, conventions is CONVENTIONS)


def _made(values: tuple[Any, ...], data_range: float, single_scale: bool) -> Settings:
    *given, convention, precision, want_map, want_components = values
    conventions = CONVENTIONS if single_scale else MS_CONVENTIONS
    checks.choice("precision", precision, ("float32", "float64"))
    checks.choice("convention", convention, tuple(conventions))
    own = {name: value for name, value in zip(_GIVEN, given, strict=True) if value is not None}
    settings = replace(
        conventions[convention],
        **own,
        precision=precision,
        data_range=data_range,
        want_map=bool(want_map),
        want_components=bool(want_components),
    )
    return _checked(settings) if own else settings


_kept = functools.lru_cache(maxsize=512)(_made)


def _checked(settings: Settings) -> Settings:
    checks.choice("window", settings.window, ("gaussian", "uniform"))
    checks.choice("border", settings.border, ("valid", "reflect"))
    checks.positive_int("window_size", settings.window_size)
    if settings.window_size % 2 == 0:
        raise ValueError(f"window_size is {settings.window_size}; accepted: an odd integer")
    for name in ("sigma", "k1", "k2"):
        checks.number(name, getattr(settings, name), least=0)
    if settings.sigma == 0:
        raise ValueError("sigma is 0; accepted: a finite number above 0")
    if settings.downsample != "auto":
        checks.positive_int("downsample", settings.downsample)
    return settings
