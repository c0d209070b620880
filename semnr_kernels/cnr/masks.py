"""The two populations of a reference image: light smoothing, Otsu's threshold, a guard band.

Built once on the reference and reused unchanged for every candidate, so that a candidate cannot choose its own regions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .. import checks, registry
from ..constants import constant
from .reference import Bins, Cores, Smoothed

# √2 Δμ / √(σ1² + σ2²) of the two classes. Splitting a Gaussian gives 2.65 and a uniform density, which is what a plain
# brightness ramp has, 2√3 = 3.46: a split that separates no better than that has not found two populations.
MIN_SEPARATION = 3.5

ONE_POPULATION = "undefined: one population"
NON_FINITE = "undefined: non-finite pixels where the masks are built"


@dataclass(frozen=True)
class Masks:
    """Signal (bright) and background (dark) regions; empty where no second population was found.

    Attributes
    ----------
    signal, background : bool Tensor, (N, 1, H, W), or (H, W) for one unbatched image
        True where a pixel belongs to the region.
    threshold : Tensor, (N,) float64 or a scalar
        Otsu's threshold in grey levels of the smoothed image; NaN where there is none.
    separation : Tensor, (N,) float64 or a scalar
        √2 Δμ / √(σ1² + σ2²) of the two classes; NaN where there is none. See `MIN_SEPARATION`.
    flags : tuple of str
        One text an image: "" where both regions hold pixels, else why they do not.

    Examples
    --------
    >>> masks = kernels.cnr.otsu_masks(y)
    >>> masks.signal.shape, bool((masks.signal & masks.background).any()), masks.flags
    (torch.Size([192, 192]), False, ('',))
    """

    signal: torch.Tensor
    background: torch.Tensor
    threshold: torch.Tensor
    separation: torch.Tensor
    flags: tuple[str, ...]


def otsu_masks(
    reference: torch.Tensor,
    *,
    smoothing: float = 1.0,
    guard: int = 2,
    bins: int = 256,
    min_separation: float = MIN_SEPARATION,
    mask: torch.Tensor | None = None,
    nan: str = "error",
) -> Masks:
    """Signal and background regions of a reference image, for `cnr` and `cnr_map`.

    Parameters
    ----------
    reference : Tensor
        (H, W), (C, H, W) or (N, C, H, W), integer or floating; channels are averaged.
    smoothing : float
        Gaussian σ in pixels before the threshold, at least 0, renormalised at the borders and at the mask; 0: no
        smoothing.
    guard : int
        Pixels within this distance (square neighbourhood) of the other population belong to neither. A feature
        narrower than 2·guard + 1 pixels keeps no pixel.
    bins : int
        Histogram bins over the range of the smoothed image.
    min_separation : float
        Least √2 Δμ / √(σ1² + σ2²) of the two classes, before the guard band, that counts as two populations.
        0 accepts every split.
    mask : Tensor, optional
        Bool, (H, W), (N, H, W) or (N, 1, H, W): True where a pixel is valid. Others enter neither the smoothing nor the
        histogram nor a region.
    nan : {"error", "propagate", "omit"}
        Non-finite pixels: refused; make the image's masks empty; or treated as invalid.

    Returns
    -------
    Masks

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong kind, size or range, or non-finite pixels under nan="error".

    Notes
    -----
    Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9 (1979), eq. 12-19. There is no
    second population in a flat image, where the classes separate too little, and where the guard band leaves a region
    empty.

    Examples
    --------
    >>> masks = kernels.cnr.otsu_masks(y)
    >>> masks.threshold, masks.separation
    (tensor(103.9062, dtype=torch.float64), tensor(5.6748, dtype=torch.float64))
    """
    image = checks.as_image("reference", reference)
    checks.choice("nan", nan, ("error", "propagate", "omit"))
    smoothing = checks.number("smoothing", smoothing, least=0)
    min_separation = checks.number("min_separation", min_separation, least=0)
    guard, bins = checks.integer("guard", guard, 0), checks.integer("bins", bins, 2)
    regions = build(image, checks.as_mask(mask, image), smoothing, guard, bins, min_separation, nan)
    if reference.ndim == 4:
        return Masks(regions.signal, regions.background, regions.threshold, regions.separation, regions.flags())
    return Masks(
        regions.signal[0, 0], regions.background[0, 0], regions.threshold[0], regions.separation[0], regions.flags()
    )


@dataclass(frozen=True)
class Regions:
    """What `build` found, (N, 1, H, W) and (N,), where the image lies: none of it was read back from a device."""

    signal: torch.Tensor
    background: torch.Tensor
    threshold: torch.Tensor
    separation: torch.Tensor
    state: torch.Tensor  # (N,) int64: which of STATES

    def flags(self) -> tuple[str, ...]:
        return tuple(STATES[i] for i in self.state.tolist())


STATES = ("", ONE_POPULATION, NON_FINITE)


@torch.no_grad()
def build(
    image: torch.Tensor,
    valid: torch.Tensor | None,
    smoothing: float = 1.0,
    guard: int = 2,
    bins: int = 256,
    min_separation: float = MIN_SEPARATION,
    nan: str = "error",
    name: str = "reference",
) -> Regions:
    """`otsu_masks` of a checked (N, C, H, W) image and (N, 1, H, W) mask. The host waits for nothing of a device unless
    nan is "error" and the image floating."""
    smooth = _step("otsu_smooth", image)
    smoothed: Smoothed = smooth(image, valid, gaussian_taps(smoothing))
    v, inside, broken = smoothed.values, smoothed.valid, smoothed.bad > 0
    if nan == "error" and image.is_floating_point() and bool(broken.any()):
        mean = image.double().mean(dim=1, keepdim=True)
        checks.raise_if_nonfinite(**{name: mean if valid is None else torch.where(valid, mean, 0.0)})
    broken = broken & (nan == "propagate")
    varied = (smoothed.high > smoothed.low) & ~broken
    low, high = torch.where(varied, smoothed.low, 0.0), torch.where(varied, smoothed.high, 1.0)
    thresholds = [
        otsu_threshold(v[i], None if inside is None else inside[i], low[i], high[i], bins) for i in range(len(v))
    ]
    at = torch.where(varied, torch.cat(thresholds), torch.nan)
    halves = _step("otsu_split", v)(v, inside, at)
    separations = class_separation(v, *halves)
    cores: Cores = _step("guard_band", halves[0])(*halves, guard)
    split = (separations >= min_separation) & (cores.signal_pixels > 0) & (cores.background_pixels > 0)
    signal, background = cores.signal, cores.background
    if not (v.is_cpu and bool(split.all())):
        signal, background = (m & split.reshape(-1, 1, 1, 1) for m in (signal, background))
    state = torch.where(broken, STATES.index(NON_FINITE), torch.where(split, 0, STATES.index(ONE_POPULATION)))
    return Regions(signal, background, at + smoothed.pivot, separations, state)


def otsu_threshold(
    v: torch.Tensor, inside: torch.Tensor | None, low: torch.Tensor, high: torch.Tensor, bins: int
) -> torch.Tensor:
    """(1,): the bin centre that maximises the variance between the classes `> t` and `<= t`.

    v: float64 from `low` to `high`, scalars that are not equal; pixels that are not `inside` do not count. Sums are of
    integers, so that the threshold depends on neither the device nor the order of its sums.
    """
    k = constant(v.device, torch.float64, *range(bins + 1))
    step = (high - low) / bins
    edges = torch.where(k < (bins + 1) // 2, low + step * k, high - step * (bins - k))  # as torch.linspace
    values = v.flatten() if inside is None else torch.where(inside, v, low).flatten()
    counts = _step("histogram", values, settings=Bins(bins))(values, edges)
    if inside is not None:
        counts[:1] -= (~inside).sum()
    twice = counts * constant(v.device, torch.int64, *range(1, 2 * bins, 2))  # centres, in half bins
    below, sum_below = counts.cumsum(0), twice.cumsum(0)
    above, sum_above = below[-1:] - below[:-1], sum_below[-1:] - sum_below[:-1]
    apart = sum_below[:-1] / below[:-1] - sum_above / above
    between = below[:-1].double() * above * apart**2
    centres = (edges[:-1] + edges[1:]) / 2
    return centres.index_select(0, between.argmax(0, keepdim=True))


def class_separation(v: torch.Tensor, bright: torch.Tensor, dark: torch.Tensor) -> torch.Tensor:
    """(N,): √2 Δμ / √(σ1² + σ2²), the D of Ashman et al. (1994); inf for two exact levels, NaN without two classes."""
    high, low = _step("cnr", v, masked=True)(v, bright, dark)
    return ((high.mean - low.mean) / ((high.variance + low.variance) / 2).sqrt())[:, 0]


def gaussian_taps(sigma: float) -> tuple[float, ...]:
    """The right half of a Gaussian of unit sum, out to 4 σ; one tap where sigma is 0."""
    radius = int(4 * sigma + 0.5)
    half = [1.0, *(math.exp(-0.5 * (j / sigma) ** 2) for j in range(1, radius + 1))]
    total = half[0] + 2 * math.fsum(half[1:])
    return tuple(v / total for v in half)


def _step(op: str, x: torch.Tensor, **options: Any) -> Callable[..., Any]:
    """What runs one step: the backend of `use_backend` where it can, else what "auto" takes.

    A step is no op that a caller knows: no backend need have all of them.
    """
    call, (named, _) = registry.Call.of(op, x, **options), registry._requested(None)
    usable = named != "auto" and registry._why_not(call, named) is None
    with registry.use_backend(named if usable else "auto"):
        return registry.choose(call).run
