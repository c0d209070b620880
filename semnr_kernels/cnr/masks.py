"""The two populations of a reference image: light smoothing, Otsu's threshold, a guard band.

Built once on the reference and reused unchanged for every candidate, so that a candidate cannot choose its own regions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .. import _checks, _registry

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
    smoothing = _at_least_zero("smoothing", smoothing)
    min_separation = _at_least_zero("min_separation", min_separation)
    if isinstance(guard, bool) or not isinstance(guard, int) or guard < 0:
        raise ValueError(f"guard is {guard!r}; accepted: an integer of at least 0")
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 2:
        raise ValueError(f"bins is {bins!r}; accepted: an integer of at least 2")
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
    v = image.double().mean(dim=1, keepdim=True)
    finite = torch.isfinite(v)
    valid = torch.ones_like(finite) if valid is None else valid
    bad = (valid & ~finite).any(dim=(1, 2, 3))
    if nan == "error" and bool(bad.any()):
        _checks.raise_if_nonfinite(**{name: torch.where(valid, v, 0.0)})
    valid = valid & finite
    # Around one of its own pixels: a flat image stays exactly flat through the smoothing, a pedestal costs no digits
    pivot = torch.where(valid, v, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
    pivot = torch.where(torch.isfinite(pivot), pivot, 0.0)
    v = smooth(torch.where(valid, v - pivot, 0.0), valid, smoothing)

    signal, background = torch.zeros_like(valid), torch.zeros_like(valid)
    thresholds, separations, flags = [], [], []
    for i in range(v.shape[0]):
        t, separation, flag = math.nan, math.nan, ONE_POPULATION
        values = v[i][valid[i]]
        if nan == "propagate" and bool(bad[i]):
            flag = NON_FINITE
        elif values.numel() and bool(values.max() > values.min()):
            t = otsu_threshold(values, bins)
            bright, dark = valid[i] & (v[i] > t), valid[i] & (v[i] <= t)
            separation = class_separation(v[i][bright], v[i][dark])
            if separation >= min_separation:
                core = bright & ~dilate(dark, guard), dark & ~dilate(bright, guard)
                if bool(core[0].any()) and bool(core[1].any()):
                    signal[i], background[i] = core
                    flag = ""
        thresholds.append(t + float(pivot[i]))
        separations.append(separation)
        flags.append(flag)
    rows = torch.tensor([thresholds, separations], dtype=torch.float64, device=v.device)
    return Masks(signal, background, rows[0], rows[1], tuple(flags))


def otsu_threshold(values: torch.Tensor, bins: int) -> float:
    """The bin centre that maximises the variance between the classes `> t` and `<= t`; `values` are not all equal."""
    edges = torch.linspace(
        float(values.min()), float(values.max()), bins + 1, dtype=torch.float64, device=values.device
    )
    counts = _registry.choose(_registry.Call.of("histogram", values)).run(values, edges).double()
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(0), counts.flip(0).cumsum(0).flip(0)
    mean_below = (counts * centres).cumsum(0) / below
    mean_above = ((counts * centres).flip(0).cumsum(0) / above.flip(0)).flip(0)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(centres[between.argmax()])


def class_separation(bright: torch.Tensor, dark: torch.Tensor) -> float:
    """√2 Δμ / √(σ1² + σ2²), the D of Ashman et al. (1994); inf for two exact levels."""
    spread = (bright.var(correction=0) + dark.var(correction=0)) / 2
    return float((bright.mean() - dark.mean()) / spread.sqrt())


def smooth(v: torch.Tensor, valid: torch.Tensor, sigma: float) -> torch.Tensor:
    """Normalised Gaussian convolution over valid pixels; (N, 1, H, W), invalid pixels of `v` being 0."""
    if sigma == 0:
        return v
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=v.dtype, device=v.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    stack = torch.cat([v, valid.to(v.dtype)], dim=1)
    stack = F.conv2d(stack, kernel.view(1, 1, -1, 1).expand(2, 1, -1, 1), padding=(radius, 0), groups=2)
    stack = F.conv2d(stack, kernel.view(1, 1, 1, -1).expand(2, 1, 1, -1), padding=(0, radius), groups=2)
    value, weight = stack[:, :1], stack[:, 1:]
    return torch.where(valid, value / torch.where(valid, weight, 1.0), 0.0)


def dilate(region: torch.Tensor, radius: int) -> torch.Tensor:
    """Square dilation of a (1, H, W) bool region; nothing enters from outside the image."""
    if radius == 0:
        return region
    return F.max_pool2d(region.float()[None], 2 * radius + 1, stride=1, padding=radius)[0] > 0


def _at_least_zero(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {type(value).__name__}; accepted: a number of at least 0")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is {value}; accepted: a finite number of at least 0")
    return float(value)
