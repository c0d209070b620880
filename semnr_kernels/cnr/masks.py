"""The two populations of a reference image: light smoothing, Otsu's threshold, a guard band.

Built once on the reference and reused unchanged for every candidate, so that a candidate cannot choose its own regions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .. import _checks, _registry
from .reference import Cores, Smoothed

# √2 Δμ / √(σ1² + σ2²) of the two classes. Splitting a Gaussian gives 2.65 and a uniform density, which is what a plain
# brightness ramp has, 2√3 = 3.46: a split that separates no better than that has not found two populations.
MIN_SEPARATION = 3.5

ONE_POPULATION = "undefined: one population"
NON_FINITE = "undefined: non-finite pixels where the masks are built"


@dataclass(frozen=True)
class Masks:
    """Signal (bright) and background (dark) regions; empty where no second population was found.

    signal, background: bool, (N, 1, H, W), or (H, W) for one unbatched image.
    threshold, separation: float64, (N,) or a scalar; NaN where there is none. See `MIN_SEPARATION`.
    flags: one text an image; "" where both regions stand.
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
        Gaussian σ in pixels before the threshold, renormalised at the borders and at the mask; 0: none.
    guard : int
        Pixels within this distance (square neighbourhood) of the other population belong to neither. A feature
        narrower than 2·guard + 1 pixels keeps no pixel.
    bins : int
        Histogram bins over the range of the smoothed image.
    min_separation : float
        Least √2 Δμ / √(σ1² + σ2²) of the two classes, before the guard band, that counts as two populations.
        0 accepts every split.
    mask : Tensor, optional
        Valid pixels, bool; others enter neither the smoothing nor the histogram nor a region.
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
    Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9 (1979), eq. 12-19. No second
    population: a flat image, classes that separate too little, or a region that the guard band leaves empty.
    """
    image = _checks.as_image("reference", reference)
    _checks.choice("nan", nan, ("error", "propagate", "omit"))
    smoothing = _checks.number("smoothing", smoothing, least=0)
    min_separation = _checks.number("min_separation", min_separation, least=0)
    guard, bins = _checks.integer("guard", guard, 0), _checks.integer("bins", bins, 2)
    masks = build(image, _checks.as_mask(mask, image), smoothing, guard, bins, min_separation, nan)
    if reference.ndim == 4:
        return masks
    return Masks(masks.signal[0, 0], masks.background[0, 0], masks.threshold[0], masks.separation[0], flags=masks.flags)


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
) -> Masks:
    """`otsu_masks` of a checked (N, C, H, W) image and (N, 1, H, W) mask."""
    smooth = _step("otsu_smooth", image)
    found: Smoothed = smooth(image, valid, gaussian_taps(smoothing))
    lows, highs, bad = torch.stack((found.low, found.high, found.bad.double())).tolist()
    if nan == "error" and any(bad):
        mean = image.double().mean(dim=1, keepdim=True)
        _checks.raise_if_nonfinite(**{name: mean if valid is None else torch.where(valid, mean, 0.0)})
    v, inside = found.values, found.valid
    flags, thresholds = [ONE_POPULATION] * len(v), [math.nan] * len(v)
    for i in range(len(v)):
        if nan == "propagate" and bad[i]:
            flags[i] = NON_FINITE
        elif highs[i] > lows[i]:
            values = v[i].flatten() if inside is None else v[i][inside[i]]
            thresholds[i] = otsu_threshold(values, lows[i], highs[i], bins)

    at = torch.tensor(thresholds, dtype=torch.float64, device=v.device)
    halves = _step("otsu_split", v)(v, inside, at)
    separations = class_separation(v, *halves)
    cores: Cores = _step("guard_band", halves[0])(*halves, guard)
    split = (separations >= min_separation) & (cores.signal_pixels > 0) & (cores.background_pixels > 0)
    signal, background = cores.signal, cores.background
    if not bool(split.all()):
        signal, background = (m & split.reshape(-1, 1, 1, 1) for m in (signal, background))
    flags = [flag if flag == NON_FINITE or not here else "" for flag, here in zip(flags, split.tolist(), strict=True)]
    return Masks(signal, background, at + found.pivot, separations, tuple(flags))


def otsu_threshold(values: torch.Tensor, low: float, high: float, bins: int) -> float:
    """The bin centre that maximises the variance between the classes `> t` and `<= t`.

    values: 1-d float64 from `low` to `high`, which are not equal.
    """
    # 256 numbers: on the CPU, so that the threshold does not depend on the device
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64, device="cpu")
    counts = _step("histogram", values, bins=bins)(values, edges.to(values.device)).cpu().double()
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(0), counts.flip(0).cumsum(0).flip(0)
    mean_below = (counts * centres).cumsum(0) / below
    mean_above = ((counts * centres).flip(0).cumsum(0) / above.flip(0)).flip(0)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(centres[between.argmax()])


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
    call, (named, _) = _registry.Call.of(op, x, **options), _registry._requested(None)
    usable = named != "auto" and _registry._why_not(call, named) is None
    with _registry.use_backend(named if usable else "auto"):
        return _registry.choose(call).run
