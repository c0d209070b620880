"""The definition of SSIM (Wang et al. 2004, eq. 6 to 13) in float64; every other backend is tested against it.

Differentiable, any device. Moments are taken about each image's mean, so that a 16-bit pedestal costs nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..constants import constant
from .settings import Settings


class SSIMRows(NamedTuple):
    """What every backend returns: means over the windows, for each image and channel.

    Parameters
    ----------
    score : Tensor, (N, C) float64
        SSIM.
    contrast_structure : Tensor, (N, C) float64
        Mean of contrast times structure, which MS-SSIM multiplies over the scales.
    components : dict of str to Tensor, optional
        "luminance", "contrast" and "structure", (N, C) float64 each.
    map : Tensor, (N, C, h, w), optional
        The value of each window; NaN where the window's centre pixel is masked.
    coverage : Tensor, (N,) float64, optional
        With a mask: mean share of valid weight under the averaged windows.
    absolute : Tensor, (N, C) float64, optional
        Mean of |x − y| over the pixels, masked or not.
    extent : Tensor, (2,) float64, optional
        The smallest and the largest pixel of both images. A backend may pass over NaN. No gradient flows through it.
    squared : Tensor, (N, C) float64, optional
        Mean of (x − y)² over the pixels, from the read that made `absolute`: a training step's PSNR for nothing. No
        gradient flows through it.

    Examples
    --------
    >>> job = kernels.ssim.Settings(data_range=255.0)
    >>> rows = kernels.ssim.reference.ssim(x[None, None], y[None, None], None, job)
    >>> type(rows).__name__, rows.score.shape
    ('SSIMRows', torch.Size([1, 1]))
    """

    score: torch.Tensor
    contrast_structure: torch.Tensor
    components: dict[str, torch.Tensor] | None
    map: torch.Tensor | None
    coverage: torch.Tensor | None
    absolute: torch.Tensor | None = None
    extent: torch.Tensor | None = None
    squared: torch.Tensor | None = None


def ssim(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Settings) -> SSIMRows:
    """SSIM of x against y, both (N, C, H, W) of one dtype; valid: (N, 1, H, W) bool, or None: every pixel.

    In float64, whatever `s.precision` says.
    """
    a, shift_a = _centred(x, valid)  # [N, C, H, W], [N, C, 1, 1]
    b, shift_b = _centred(y, valid)
    window = constant(x.device, torch.float64, *s.taps)  # [size]
    weight = None if valid is None else _filter(valid.double(), window, s.border)  # [N, 1, h, w]

    def average(image: torch.Tensor) -> torch.Tensor:
        if weight is None or valid is None:
            return _filter(image, window, s.border)  # [N, C, h, w]
        # normalised convolution; windows with no valid pixel are not pooled, so any divisor does
        return _filter(torch.where(valid, image, 0.0), window, s.border) / torch.where(weight > 0, weight, 1.0)

    mean_a, mean_b = average(a), average(b)  # [N, C, h, w] each, as all that follows
    c1, c2, _, scale = s.constants
    var_x = scale * (average(a * a) - mean_a * mean_a)
    var_y = scale * (average(b * b) - mean_b * mean_b)
    cov = scale * (average(a * b) - mean_a * mean_b)
    mu_x, mu_y = mean_a + shift_a, mean_b + shift_b
    if s.clamp_variance:
        var_x, var_y = var_x.clamp(min=0), var_y.clamp(min=0)

    luminance = (2 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)  # eq. 6
    contrast_structure = (2 * cov + c2) / (var_x + var_y + c2)  # eq. 9 times eq. 10
    index = luminance * contrast_structure  # eq. 13

    pooled = None if valid is None else _centres(valid, s.window_size, s.border)  # [N, 1, h, w]
    components = None
    if s.want_components:
        deviations = _safe_sqrt(var_x * var_y)
        components = {
            "luminance": _pool(luminance, pooled),
            "contrast": _pool((2 * deviations + c2) / (var_x + var_y + c2), pooled),
            "structure": _pool((cov + c2 / 2) / (deviations + c2 / 2), pooled),
        }
    ssim_map = None
    if s.want_map:
        ssim_map = index if pooled is None else torch.where(pooled, index, torch.nan)
    coverage = None if pooled is None or weight is None else _pool(weight, pooled)[:, 0]
    apart = measured(x, y) if s.want_apart else {}
    return SSIMRows(_pool(index, pooled), _pool(contrast_structure, pooled), components, ssim_map, coverage, **apart)


def measured(x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """The last three of `SSIMRows`, by torch: here, and where a backend's kernels do not have them."""
    wide = (x.double(), y.double())
    apart = wide[0] - wide[1]
    with torch.no_grad():
        ends = [end for image in wide for end in torch.aminmax(image)]
        extent = torch.stack((torch.minimum(ends[0], ends[2]), torch.maximum(ends[1], ends[3])))
        squared = apart.square().mean(dim=(2, 3))
    return {"absolute": apart.abs().mean(dim=(2, 3)), "extent": extent, "squared": squared}


def _centred(image: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The image in float64 about its mean, and that mean (N, C, 1, 1): a constant, no gradient flows into it."""
    wide = image.double()
    with torch.no_grad():
        if valid is None:
            shift = wide.mean(dim=(2, 3), keepdim=True)
        else:
            shift = torch.where(valid, wide, 0.0).sum(dim=(2, 3), keepdim=True)
            shift = shift / valid.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        # a NaN pixel must spoil the windows that hold it, not the whole image
        shift = torch.where(torch.isfinite(shift), shift, 0.0)
    return wide - shift, shift


def _filter(image: torch.Tensor, window: torch.Tensor, border: str) -> torch.Tensor:
    """Separable correlation of (N, C, H, W) with `window` along both axes."""
    n, c, h, w = image.shape
    half = (len(window) - 1) // 2
    flat = image.reshape(n * c, 1, h, w)
    if border == "reflect" and half:
        flat = F.pad(flat, (half, half, half, half), mode="reflect")
    flat = F.conv2d(flat, window.reshape(1, 1, -1, 1))
    flat = F.conv2d(flat, window.reshape(1, 1, 1, -1))
    return flat.reshape(n, c, *flat.shape[2:])


def _centres(valid: torch.Tensor, size: int, border: str) -> torch.Tensor:
    """Windows that are pooled: those whose centre pixel is valid."""
    half = (size - 1) // 2
    if border == "reflect" or half == 0:
        return valid
    return valid[:, :, half:-half, half:-half]


def _pool(values: torch.Tensor, pooled: torch.Tensor | None) -> torch.Tensor:
    """Mean over windows, (N, C); NaN where no window is pooled."""
    if pooled is None:
        return values.mean(dim=(2, 3))
    return torch.where(pooled, values, 0.0).sum(dim=(2, 3)) / pooled.sum(dim=(2, 3))


def _safe_sqrt(value: torch.Tensor) -> torch.Tensor:
    """sqrt whose gradient at zero (flat windows) is zero instead of infinite."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)
