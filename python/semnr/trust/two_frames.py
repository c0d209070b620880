"""What a denoised image is worth where no clean one exists: from two, three or more noisy frames of the site.

With d the denoised image of frame x, s the unknown clean image and a, b two more frames whose noise has mean zero and
is independent of that of x and of each other:

    uMSE = mean (a − d)(b − d),                      E uMSE = mean (s − d)²           (three frames)
    uMSE = mean (a − d)² − (a − x)²/2,               E uMSE = mean (s − d)²           (two frames of one dose)

The first is the unsupervised MSE of Marcos-Morales et al. 2023 (ICML, arXiv 2210.05553), mean (a − d)² − (b − c)²/2,
with b, c = a, b and averaged over the two roles of a and b: ½(a − d)² + ½(b − d)² − ½(a − b)² = (a − d)(b − d). It
needs no equal dose: its noise terms are products of independent factors. The second takes the noise of a from the
pair, so that both frames must have the same noise variance. Both are differences that may come out below zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from semnr_kernels.checks import as_data_range, as_mask, choice
from semnr_kernels.cnr import otsu_masks
from semnr_kernels.transfer.blocks import block_side, block_sums

from ..base.jsonable import plain
from .frame_checks import fluctuation, suspects
from .images import as_tiles, finite
from .shown import Shown
from .unknown import UNKNOWN

__all__ = ["NoReference", "without_reference"]

_DB = 10 / math.log(10)
_BLOCK = 32  # px: blocks whose spread gives the standard errors
_CHUNK_PIXELS = 4 * 2**20
_WEIGHT = 4 / 9  # of the control variate
# uMSE must stand this many standard errors above 0 for a PSNR in dB to mean anything.
MIN_Z = 2.0


@dataclass(frozen=True, repr=False)
class NoReference(Shown):
    """What `semnr.without_reference` found, a row a tile; `_se` are standard errors over the noise.

    Attributes
    ----------
    umse, umse_se : ndarray, (N,)
        Unbiased estimate of mean (s − d)², in squared grey levels. May be below 0.
    upsnr, upsnr_se : ndarray, (N,)
        10 log10(data_range² / uMSE). NaN where uMSE is not 2 standard errors above 0; then
    upsnr_low : ndarray, (N,)
        says what it is at least: the PSNR at uMSE + 2 standard errors.
    upsnr_noisy, upsnr_noisy_se : ndarray, (N,)
        The same of the noisy input itself.
    structure, structure_se : ndarray, (N,)
        Correlation of d with the clean image, of their fluctuations about a local mean of 8 px sigma:
        cov(d, a) / √(var d · cov(a, b)). Three frames (two: NaN). Noise left in d lowers it, as it lowers SSIM's
        structure term.
    contrast_retention, contrast_retention_se : ndarray, (N,)
        Δμ of d over that of the other frames, in the two regions that Otsu's threshold finds in d. NaN with one
        population. Regions drawn on d favour d, by the noise that is left in it: at most a fraction of its σ.
    cnr_fixed_noise : ndarray, (N,)
        |Δμ of d| over the σ of the noise in those regions, from differences of frames.
    noise_sigma : ndarray, (N,)
        σ of the input's noise from the frames' differences: root of mean (x − a)(x − b), or of mean (x − a)²/2.
    frames : int
        2 or 3.
    estimated, unknown : tuple, mapping
        The axes that were estimated, and those that were not, with the reason.
    problems : tuple of str, (N,)
        What speaks against the frames of a tile, empty where nothing does: a shift, another gain, dependent noise.
        The estimates are given nevertheless; `usable` is False.
    checks : mapping of ndarray, (N,)
        The figures behind `problems`: shift_y, shift_x (px), gain, dependence (correlation of the frames' noise).

    settings : mapping
        Data range and NaN policy.

    Examples
    --------
    >>> found = semnr.without_reference(noisy, denoised, second)
    >>> found.frames, found.estimated
    (2, ('mse', 'psnr', 'contrast_retention', 'cnr_fixed_noise'))
    >>> print(f"{found.upsnr[0]:.0f} dB")  # 30.7 dB against the clean image
    31 dB
    >>> sorted(found.columns())[:2], found.to_dict()["frames"]
    (['cnr_fixed_noise_estimated', 'contrast_retention_estimated'], 2)
    """

    umse: np.ndarray
    umse_se: np.ndarray
    upsnr: np.ndarray
    upsnr_se: np.ndarray
    upsnr_low: np.ndarray
    upsnr_noisy: np.ndarray
    upsnr_noisy_se: np.ndarray
    structure: np.ndarray
    structure_se: np.ndarray
    contrast_retention: np.ndarray
    contrast_retention_se: np.ndarray
    cnr_fixed_noise: np.ndarray
    noise_sigma: np.ndarray
    frames: int
    estimated: tuple[str, ...]
    unknown: Mapping[str, str]
    problems: tuple[str, ...]
    checks: Mapping[str, np.ndarray]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.umse)

    @property
    def usable(self) -> np.ndarray:
        """(N,) bool: nothing speaks against the frames."""
        return np.array([not text for text in self.problems])

    def columns(self) -> dict[str, np.ndarray]:
        """The figures under the names that a scored run has for them.

        Returns
        -------
        dict of str to ndarray, (N,)
            NaN where the frames are not usable.
        """
        names = {
            "umse": "mse_estimated",
            "umse_se": "mse_estimated_se",
            "upsnr": "psnr_estimated",
            "upsnr_se": "psnr_estimated_se",
            "upsnr_noisy": "psnr_noisy_estimated",
            "structure": "structure_estimated",
            "structure_se": "structure_estimated_se",
            "contrast_retention": "contrast_retention_estimated",
            "contrast_retention_se": "contrast_retention_estimated_se",
            "cnr_fixed_noise": "cnr_fixed_noise_estimated",
        }
        usable = self.usable
        found = {column: np.where(usable, getattr(self, name), np.nan) for name, column in names.items()}
        with np.errstate(all="ignore"):  # as for PSNR: an error that is told from 0
            worth = np.where(usable & (self.umse > MIN_Z * self.umse_se), self.noise_sigma**2 / self.umse, np.nan)
            found |= {"frames_worth": worth, "frames_worth_se": worth * self.umse_se / self.umse}
        return found | {"frames_usable": usable.astype(np.float64)}

    def _in_short(self) -> str:
        """The estimated PSNR, and how many tiles have frames that cannot be used."""
        known = self.upsnr[np.isfinite(self.upsnr)]
        psnr = f"PSNR about {known.mean():.1f} dB" if known.size else "PSNR unknown"
        unusable = int((~self.usable).sum())
        return f"{self.frames} frames, {psnr}{f', {unusable} with unusable frames' if unusable else ''}"

    def _table(self) -> dict[str, Any]:
        """The estimates of each tile, and what speaks against its frames."""
        names = {"PSNR, dB": "upsnr", "± (1 se)": "upsnr_se", "PSNR of the noisy, dB": "upsnr_noisy"}
        names |= {"structure": "structure", "contrast kept": "contrast_retention", "CNR": "cnr_fixed_noise"}
        return {**{title: getattr(self, name) for title, name in names.items()}, "problem": self.problems}

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain lists, for JSON.

        Returns
        -------
        dict
            NaN is None.
        """
        return {name: plain(getattr(self, name)) for name in self.__dataclass_fields__}

    def __str__(self) -> str:
        good = np.isfinite(self.upsnr)
        rows = [f"estimates from {self.frames} noisy frames, {len(self)} tile(s)"]
        if good.any():
            rows.append(f"  PSNR {self.upsnr[good].mean():.2f} dB (± {self.upsnr_se[good].mean():.2f} a tile)")
        rows += [f"  {axis}: unknown: {reason}" for axis, reason in self.unknown.items()]
        for text in dict.fromkeys(text for text in self.problems if text):
            rows.append(f"  {self.problems.count(text)} tile(s): {text}")
        return "\n".join(rows)


def without_reference(
    noisy: Any,
    denoised: Any,
    second_frame: Any,
    third_frame: Any = None,
    *,
    data_range: float | None = None,
    mask: Any = None,
    nan: str = "error",
) -> NoReference:
    """Estimate the axes of the profile of a denoised image from noisy frames alone.

    Parameters
    ----------
    noisy, denoised : Tensor or ndarray, (N, C, H, W) with C of 1 or 3, (1, H, W) or (H, W)
        Input and output of the denoiser, on one intensity scale.
    second_frame, third_frame : same shape
        Further frames of the site on that scale: registered, their noise independent of each other's and of that of
        `noisy`. The denoiser must not have seen them. With two frames the dose of both must be the same.
    data_range : float
        Width of the intensity scale; required for floating images.
    mask : bool, (H, W), (N, H, W) or (N, 1, H, W), optional
        Valid pixels.
    nan : {"error", "omit"}
        Non-finite pixels: refuse, or treat as masked.

    Returns
    -------
    NoReference

    Raises
    ------
    TypeError, ValueError
        The argument, what it was, what is accepted.

    Notes
    -----
    The standard error of uMSE from three frames of one dose is about 0.75 σ² √(c / pixels), c = 1.6 for noise that
    correlates by 0.47 along the line: 0.18 % of σ² on 512². A denoiser that gains 10 dB is known to 0.08 dB, one that
    gains 15 dB to 0.25 dB. Two frames, or doses that differ: 2 and 1.3 times that. Evidence transfer
    (`semnr.evidence(second_frame=)`) and the residual tests need no clean image either.

    Examples
    --------
    >>> found = semnr.without_reference(noisy, denoised, second)
    >>> found.usable.tolist(), sorted(found.unknown)
    ([True], ['dists', 'fsim', 'ssim', 'structure'])
    """
    choice("nan", nan, ("error", "omit"))
    x = as_tiles("noisy", noisy)
    d = as_tiles("denoised", denoised, like=x)
    if second_frame is None:
        raise ValueError(
            "second_frame is None; accepted: another noisy frame of the site. From one frame nothing is estimated: "
            "semnr.residual_tests gives hints"
        )
    a = as_tiles("second_frame", second_frame, like=x)
    b = None if third_frame is None else as_tiles("third_frame", third_frame, like=x)
    scale = as_data_range(x.dtype, data_range)
    valid = as_mask(torch.as_tensor(mask), x) if mask is not None else None
    n, c, h, w = x.shape
    step = max(1, _CHUNK_PIXELS // (c * h * w))
    parts = []
    for start in range(0, n, step):
        rows = slice(start, start + step)
        images = {"noisy": x[rows].double(), "denoised": d[rows].double(), "second_frame": a[rows].double()}
        if b is not None:
            images["third_frame"] = b[rows].double()
        m = finite(images, None if valid is None else valid[rows], nan)
        parts.append(_tiles(*images.values(), valid=m))  # type: ignore[misc]
    found = {k: np.concatenate([p[k] for p in parts]) for k in parts[0] if k != "problems"}
    checks = {k: found.pop(k) for k in ("shift_y", "shift_x", "gain", "dependence")}
    for name in ("", "_noisy"):
        mse, se = found[f"umse{name}"], found[f"umse{name}_se"]
        known = mse > MIN_Z * se
        with np.errstate(all="ignore"):
            found[f"upsnr{name}"] = np.where(known, _DB * np.log(scale**2 / mse), np.nan)
            found[f"upsnr{name}_se"] = np.where(known, _DB * se / mse, np.nan)
            found["upsnr_low"] = found.get("upsnr_low", _DB * np.log(scale**2 / np.maximum(mse + 2 * se, 1e-300)))
    found.pop("umse_noisy"), found.pop("umse_noisy_se")
    unknown = dict(UNKNOWN)
    estimated = ["mse", "psnr", "structure", "contrast_retention", "cnr_fixed_noise"]
    if b is None:
        estimated.remove("structure")
        unknown["structure"] = "two frames: the variance of the clean image needs a pair beside the input"
    return NoReference(
        **found,
        frames=2 if b is None else 3,
        estimated=tuple(estimated),
        unknown=unknown,
        problems=tuple(text for p in parts for text in p["problems"]),
        checks=checks,
        settings={"data_range": scale, "nan": nan},
    )


def _tiles(
    x: torch.Tensor, d: torch.Tensor, a: torch.Tensor, b: torch.Tensor | None = None, *, valid: torch.Tensor | None
) -> dict[str, Any]:
    channels = x.shape[1]
    w = torch.ones_like(x[:, :1]) if valid is None else valid.double()
    side = min(_BLOCK, block_side(x.shape[2], x.shape[3], _BLOCK))

    def mean(product: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean over the valid pixels of (N, C, H, W), and its standard error from the spread of the blocks."""
        return _mean((product * w).sum(1), w[:, 0] * channels, side)

    out: dict[str, Any] = {}
    if b is None:
        mse = mean((a - d).square() - (a - x).square() / 2)
        noise = mean((x - a).square() / 2)
    else:
        # (p − q)(p + q)/2 has the noise of p q, but no mean: s − d, which varies over the tile, stays out of its spread
        mse = mean((a - d) * (b - d))[0], mean((a - b) * (a + b - 2 * d) / 2)[1]
        noise = mean((x - a) * (x - b))[0], mean((a - b) * (a + b - 2 * x) / 2)[1]
        mse = _calmer(*mse, *mean((a - b).square() / 2 - ((a - x).square() + (b - x).square()) / 4))
    out["umse"], out["umse_se"] = mse
    out["umse_noisy"], out["umse_noisy_se"] = noise
    out["noise_sigma"] = noise[0].clamp(min=0).sqrt()
    frames = [x, a] if b is None else [x, a, b]
    fluctuations = [fluctuation(v, w, valid) for v in (d, *frames)]
    out["structure"], out["structure_se"] = _structure(*fluctuations, side=side)
    out |= _contrast(x, d, a, b, valid, side)
    checks, out["problems"] = suspects(frames, fluctuations[1:], d, w, valid, side, out["umse"])
    out |= checks
    return {k: v if k == "problems" else v.cpu().numpy() for k, v in out.items()}


def _calmer(
    value: torch.Tensor, se: torch.Tensor, contrast: torch.Tensor, contrast_se: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """uMSE with a control variate: ½(a − b)² − ¼(a − x)² − ¼(b − x)² has mean zero where the three frames have one
    dose, contains −nₐ n_b, and takes the variance of nₐ n_b from σ⁴ to 5/9 σ⁴ (Gaussian noise, weight 4/9). Where it
    is not zero within 3 standard errors the doses differ, and uMSE stays as it is."""
    one_dose = contrast.abs() <= 3 * contrast_se
    less = (se.square() - (_WEIGHT * contrast_se).square()).maximum(0.25 * se.square()).sqrt()
    return torch.where(one_dose, value + _WEIGHT * contrast, value), torch.where(one_dose, less, se)


def _mean(total: torch.Tensor, count: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ total / Σ count of (N, H, W), and its standard error."""
    s, c = block_sums(total, side), block_sums(count, side)
    whole = c.sum(1).clamp(min=1)
    value = s.sum(1) / whole
    k = s.shape[1]
    if k < 4:
        return value, torch.full_like(value, torch.nan)
    spread = (s - value[:, None] * c).square().sum(1) * k / (k - 1)
    return value, spread.sqrt() / whole


def _structure(
    fd: torch.Tensor, fx: torch.Tensor, fa: torch.Tensor, fb: torch.Tensor | None = None, *, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlation of d and s: covariances with independent noise are those of the clean images."""
    if fb is None:
        nothing = torch.full((len(fd),), torch.nan, dtype=fd.dtype, device=fd.device)
        return nothing, nothing
    products = (0.5 * fd * (fa + fb), fd * fd, fa * fb)
    cross, own, clean = (block_sums(p.sum(1), side) for p in products)
    k = cross.shape[1]
    p, q, r = cross.sum(1), own.sum(1), clean.sum(1)
    good = (q > 0) & (r > 0)
    value = torch.where(good, p / (q * r).clamp(min=1e-300).sqrt(), torch.nan)
    # spread of the logarithm's first-order terms over the blocks
    terms = cross / p[:, None] - 0.5 * own / q[:, None] - 0.5 * clean / r[:, None]
    se = value.abs() * (terms.square().sum(1) * k / max(k - 1, 1)).sqrt()
    return value, se


def _contrast(
    x: torch.Tensor, d: torch.Tensor, a: torch.Tensor, b: torch.Tensor | None, valid: torch.Tensor | None, side: int
) -> dict[str, torch.Tensor]:
    found = otsu_masks(d.mean(1, keepdim=True), mask=valid)
    signal, background = (v.double() for v in (found.signal, found.background))
    other = a if b is None else (a + b) / 2

    def delta(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Δμ and, by blocks, the terms whose sum deviates from it."""
        v = v.mean(1, keepdim=True)
        parts, terms = [], []
        for region in (signal, background):
            total, count = block_sums((v * region)[:, 0], side), block_sums(region[:, 0], side)
            area = count.sum(1)
            level = total.sum(1) / area
            parts.append(level)
            terms.append((total - level[:, None] * count) / area[:, None])
        return parts[0] - parts[1], terms[0] - terms[1]

    (after, after_terms), (before, before_terms) = delta(d), delta(other)
    ratio = after / before
    k = after_terms.shape[1]
    terms = (after_terms - ratio[:, None] * before_terms) / before[:, None]
    se = (terms.square().sum(1) * k / max(k - 1, 1)).sqrt()
    within = signal + background
    square = (x - a).square() / 2 if b is None else (x - a) * (x - b)
    sigma = ((square * within).sum((1, 2, 3)) / within.sum((1, 2, 3)) / x.shape[1]).clamp(min=0).sqrt()
    return {"contrast_retention": ratio, "contrast_retention_se": se, "cnr_fixed_noise": after.abs() / sigma}
