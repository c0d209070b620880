"""SSIM and MS-SSIM: the contract (checks, presets, choice of backend, reduction). Formulas are in README.md."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from .. import checks, library, registry, tensor_kinds
from ..result import Result
from . import cuda, native, reference
from .reference import SSIMRows

registry.register("ssim", "reference", reference.ssim)
registry.register_native("ssim", native.ssim, native.supports, native.UNSUPPORTED)
registry.register_triton("ssim", "ssim")
registry.register_cuda("ssim", cuda.ssim, cuda.supports, cuda.UNSUPPORTED)

MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003, section 3.2


@dataclass(frozen=True)
class Settings:
    """Everything that a convention decides; what the caller passes overrides it."""

    window: str = "gaussian"
    window_size: int = 11
    sigma: float = 1.5
    k1: float = 0.01
    k2: float = 0.03
    downsample: int | str = 1
    border: str = "valid"
    sample_covariance: bool = False
    clamp_variance: bool = False


CONVENTIONS: Mapping[str, Settings] = {
    "wang2004": Settings(),  # ssim_index.m
    "piq": Settings(downsample="auto"),  # piq.ssim as it comes
    "skimage": Settings(window="uniform", window_size=7, sample_covariance=True),  # structural_similarity as it comes
    "torchmetrics": Settings(clamp_variance=True, border="reflect"),
}
MS_CONVENTIONS = ("piq", "pytorch-msssim", "torchmetrics")


@library.node
def ssim(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float | None = None,
    window: str | None = None,
    window_size: int | None = None,
    sigma: float | None = None,
    k1: float | None = None,
    k2: float | None = None,
    downsample: int | str | None = None,
    border: str | None = None,
    convention: str = "wang2004",
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    return_map: bool = False,
    components: bool = False,
    details: bool = False,
    nan: str = "error",
    overshoot: str = "keep",
    precision: str = "float32",
    backend: str | None = "auto",
) -> Any:
    """Structural similarity of candidate `x` to reference `y`; the arguments are told in `semnr.ssim`."""
    checks.choice("precision", precision, ("float32", "float64"))
    checks.choice("convention", convention, tuple(CONVENTIONS))
    settings = _settings(
        CONVENTIONS[convention],
        window=window,
        window_size=window_size,
        sigma=sigma,
        k1=k1,
        k2=k2,
        downsample=downsample,
        border=border,
    )
    plain = reduction == "mean" and nan == "error" and overshoot == "keep" and mask is None
    if plain and not (return_map or components or details) and settings.downsample == 1:
        score = _plain_score(x, y, data_range, settings, precision, backend)
        if score is not None:
            return torch.scalar_tensor(score, dtype=torch.float64, device=x.device)
    checked = checks.pair(x, y, data_range=data_range, mask=mask, nan=nan, overshoot=overshoot)
    factor = _factor(settings.downsample, checked.x.shape)
    if factor > 1:
        pooled = [_average_pool(v, factor, checked.valid, torch.float64) for v in (checked.x, checked.y)]
        checked = replace(checked, x=pooled[0], y=pooled[1], valid=_pool_mask(checked.valid, factor))
    _fits(checked.x.shape, settings, "x" if factor == 1 else f"x, downsampled by {factor},")

    rows = _run(checked, settings, precision, backend, want_map=return_map, want_components=components)
    per_image = rows.score[:, 0] if rows.score.shape[1] == 1 else rows.score.mean(dim=1)
    _refuse_nonfinite(checked, per_image)
    value = checks.reduce(per_image, reduction, checked)
    if not (return_map or components or details):
        return value
    map_dtype = torch.float64 if precision == "float64" or x.dtype == torch.float64 else torch.float32
    return Result(
        value,
        checked.data_range,
        map=None if rows.map is None else _as_passed(rows.map.to(map_dtype), checked),
        components=None
        if rows.components is None
        else {k: checks.reduce(v.mean(dim=1), reduction, checked) for k, v in rows.components.items()},
        coverage=rows.coverage,
        clipped_fraction=checked.clipped_fraction,
        flags=_flags(per_image, checked),
        settings={"convention": convention, **settings.__dict__, "downsample": factor, "precision": precision},
    )


@library.node
def ms_ssim(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float | None = None,
    window: str | None = None,
    window_size: int | None = None,
    sigma: float | None = None,
    k1: float | None = None,
    k2: float | None = None,
    weights: tuple[float, ...] | None = None,
    convention: str = "piq",
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    details: bool = False,
    nan: str = "error",
    overshoot: str = "keep",
    precision: str = "float32",
    backend: str | None = "auto",
) -> Any:
    """Multi-scale structural similarity (Wang 2003); the arguments are told in `semnr.ms_ssim`."""
    checks.choice("precision", precision, ("float32", "float64"))
    checks.choice("convention", convention, MS_CONVENTIONS)
    base = Settings(clamp_variance=convention == "torchmetrics")
    settings = _settings(base, window=window, window_size=window_size, sigma=sigma, k1=k1, k2=k2)
    scale_weights = MS_WEIGHTS if weights is None else weights
    if not scale_weights or any(not math.isfinite(w) or w < 0 for w in scale_weights) or sum(scale_weights) <= 0:
        raise ValueError(f"weights is {weights}; accepted: one number of at least 0 a scale, not all of them 0")
    checked = checks.pair(x, y, data_range=data_range, mask=mask, nan=nan, overshoot=overshoot)
    smallest = (settings.window_size - 1) * 2 ** (len(scale_weights) - 1) + 1
    if min(checked.x.shape[2:]) < smallest:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; accepted by ms_ssim: sides of at least {smallest} pixels "
            f"({len(scale_weights)} scales of a window of {settings.window_size})"
        )

    terms, level = [], checked
    for scale in range(len(scale_weights)):
        if scale:
            halved = [_halve(v, level.valid, convention, precision) for v in (level.x, level.y)]
            level = replace(level, x=halved[0], y=halved[1], valid=_halve_mask(level.valid, convention))
        last = scale == len(scale_weights) - 1
        if last and convention == "torchmetrics":  # its last scale reflects at the border, the others do not
            settings = replace(settings, border="reflect")
        rows = _run(level, settings, precision, backend, want_map=False, want_components=False)
        terms.append(rows.score if last else rows.contrast_structure)
    stacked = torch.stack(terms)  # (scales, N, C)
    if convention == "torchmetrics":
        stacked = stacked.mean(dim=2, keepdim=True)  # averages the channels before the product
    powers = [_safe_power(term, weight) for term, weight in zip(stacked, scale_weights, strict=True)]
    per_image = torch.stack(powers).prod(dim=0).mean(dim=1)
    _refuse_nonfinite(checked, per_image)
    value = checks.reduce(per_image, reduction, checked)
    if not details:
        return value
    return Result(
        value,
        checked.data_range,
        components={f"scale_{i + 1}": term.mean(dim=1) for i, term in enumerate(terms)},
        clipped_fraction=checked.clipped_fraction,
        flags=_flags(per_image, checked),
        settings={"convention": convention, **settings.__dict__, "weights": scale_weights, "precision": precision},
    )


@functools.cache
def window_taps(window: str, size: int, sigma: float) -> tuple[float, ...]:
    """The 1-D window, normalised in float64; the 2-D window is its outer product."""
    if window == "uniform":
        return (1.0 / size,) * size
    half = (size - 1) // 2
    weights = [math.exp(-(i / sigma) * (i / sigma) / 2) for i in range(-half, half + 1)]
    total = math.fsum(weights)
    return tuple(w / total for w in weights)


def _settings(base: Settings, **given: Any) -> Settings:
    if all(v is None for v in given.values()):
        return base
    settings = replace(base, **{k: v for k, v in given.items() if v is not None})
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
        checks.positive_int("downsample", settings.downsample)  # type: ignore[arg-type]
    return settings


def _factor(downsample: int | str, shape: torch.Size) -> int:
    """The downsampling factor; "auto" is piq's: max(1, round(short side / 256)), Python's rounding."""
    factor = max(1, round(min(shape[2:]) / 256)) if downsample == "auto" else int(downsample)
    if factor > min(shape[2:]):
        raise ValueError(f"downsample is {factor} and x {shape[2]}x{shape[3]} pixels; accepted: at most a side")
    return factor


def _fits(shape: torch.Size, settings: Settings, name: str) -> None:
    size = settings.window_size
    # a mirrored border needs half a window beside the border pixel
    least, what = (size, "the window") if settings.border == "valid" else ((size + 1) // 2, "half the window")
    if min(shape[2:]) < least:
        hint = "; are the channels last? accepted: (C, H, W)" if shape[3] <= 4 < shape[2] else ""
        raise ValueError(f"{name} is {shape[2]}x{shape[3]} pixels; accepted: at least {what}, {least}x{least}{hint}")


def _plain_score(
    x: torch.Tensor,
    y: torch.Tensor,
    data_range: float | None,
    settings: Settings,
    precision: str,
    backend: str | None,
) -> float | None:
    """The usual call, one plain image of one channel to one number; None: the general path answers, or says why not."""
    if not checks.is_plain(x, y):
        return None
    scale = checks.as_data_range(x.dtype, data_range)
    h, w = x.shape[-2:]
    if x.numel() != h * w or min(h, w) < settings.window_size or not registry.native_by_default("ssim", backend):
        return None
    score = native.one_image(
        x,
        y,
        data_range=scale,
        taps=window_taps(settings.window, settings.window_size, float(settings.sigma)),
        k1=settings.k1,
        k2=settings.k2,
        border=settings.border,
        sample_covariance=settings.sample_covariance,
        precision=precision,
    )
    return score if math.isfinite(score) else None


def _run(
    checked: checks.Pair,
    settings: Settings,
    precision: str,
    backend: str | None,
    *,
    want_map: bool,
    want_components: bool,
) -> SSIMRows:
    options = {
        "data_range": checked.data_range,
        "taps": window_taps(settings.window, settings.window_size, float(settings.sigma)),
        "k1": settings.k1,
        "k2": settings.k2,
        "border": settings.border,
        "sample_covariance": settings.sample_covariance,
        "clamp_variance": settings.clamp_variance,
        "valid": checked.valid,
        "want_map": want_map,
        "want_components": want_components,
        "precision": precision,
    }

    def chosen() -> registry.Implementation:
        facts = {**options, "valid": checked.valid is not None}
        return registry.choose(registry.Call.of("ssim", checked.x, checked.y, **facts), backend)

    found = chosen()
    narrow = found.backend in _ON_DEVICES and precision == "float32" and checked.valid is None
    if narrow and checked.nan != "propagate" and too_wide(checked.x, checked.y, checked.data_range, settings.k2):
        options["precision"] = "float64"
        found = chosen()
    return found.run(checked.x, checked.y, **options)


# These keep float32 whatever the pixels hold; the C++ kernel sees for itself where it is too narrow (csrc/ssim).
_ON_DEVICES = ("triton", "cuda", "triton-interpret", "cuda-emulated")


def too_wide(x: torch.Tensor, y: torch.Tensor, data_range: float, k2: float) -> bool:
    """Whether pixels lie so far apart that float32 moments beside C2 = (k2 L)² may not keep their digits.

    Differences of up to L are safe for k2 = 0.03 (csrc/ssim/ssim_tile.hpp: kNarrow). The pixels are looked at only
    where they may lie further apart; that reads the device, so that it is not asked under nan="propagate".
    """
    limit = data_range * k2 / 0.03
    if x.dtype == torch.float64 or (x.dtype in checks.INTEGER_DTYPES and torch.iinfo(x.dtype).max <= limit):
        return False

    def extent(image: torch.Tensor) -> torch.Tensor:
        wide = tensor_kinds.bare(image.to(torch.int32) if image.dtype == torch.uint16 else image)
        low, high = torch.aminmax(wide)
        return high.double() - low.double()

    # a NaN compares false, and its score is NaN in either precision
    return bool(torch.maximum(extent(x), extent(y)) > 1.01 * limit)


def _refuse_nonfinite(checked: checks.Pair, per_image: torch.Tensor) -> None:
    if checked.nan == "error" and not tensor_kinds.finite(per_image):
        checks.raise_if_nonfinite(x=checked.x, y=checked.y)


def _flags(per_image: torch.Tensor, checked: checks.Pair) -> tuple[str, ...]:
    if checked.valid is None:
        return ()
    if undefined := int(torch.isnan(per_image.detach()).sum()):
        return (f"{undefined} images without a valid window: undefined (NaN)",)
    return ()


def _as_passed(values: torch.Tensor, checked: checks.Pair) -> torch.Tensor:
    """(N, C, h, w) with the leading dimensions that the caller passed."""
    return values.reshape(*checked.lead, *values.shape[2:])


def _average_pool(image: torch.Tensor, factor: int, valid: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Mean of each factor x factor block (floor: a rest at the far edge is dropped), over its valid pixels."""
    wide = image.to(dtype)
    if valid is None:
        return F.avg_pool2d(wide, factor)
    share = F.avg_pool2d(valid.to(dtype), factor)
    return F.avg_pool2d(torch.where(valid, wide, 0.0), factor) / torch.where(share > 0, share, 1.0)


def _pool_mask(valid: torch.Tensor | None, factor: int) -> torch.Tensor | None:
    """A block is valid where any of its pixels is: its value is the mean of those."""
    return None if valid is None else F.max_pool2d(valid.float(), factor) > 0


def _halve(image: torch.Tensor, valid: torch.Tensor | None, convention: str, precision: str) -> torch.Tensor:
    """The next scale of MS-SSIM. Libraries part on odd sizes: see README.md.

    float32 holds four 2 x 2 means of 16-bit integers exactly.
    """
    dtype = torch.float64 if precision == "float64" or image.dtype == torch.float64 else torch.float32
    padded, keep = image.to(dtype), valid
    odd = [size % 2 for size in image.shape[2:]]
    if convention == "pytorch-msssim" and any(odd):
        # zeros all round on the odd axes, counted in the mean
        return F.avg_pool2d(padded if keep is None else torch.where(keep, padded, 0.0), 2, padding=odd)
    if convention == "piq" and any(odd):
        padded = F.pad(padded, (1, 0, 1, 0), mode="replicate")
        keep = None if keep is None else F.pad(keep.to(dtype), (1, 0, 1, 0), mode="replicate") > 0
    return _average_pool(padded, 2, keep, dtype)


def _halve_mask(valid: torch.Tensor | None, convention: str) -> torch.Tensor | None:
    if valid is None:
        return None
    odd = [size % 2 for size in valid.shape[2:]]
    if convention == "pytorch-msssim" and any(odd):
        return F.max_pool2d(valid.float(), 2, padding=odd) > 0
    if convention == "piq" and any(odd):
        return _pool_mask(F.pad(valid.float(), (1, 0, 1, 0), mode="replicate") > 0, 2)
    return _pool_mask(valid, 2)


def _safe_power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """max(base, 0) ** exponent, with gradient 0 instead of infinity where the base is not positive."""
    positive = base > 0
    return torch.where(
        positive, torch.where(positive, base, 1.0) ** exponent, torch.where(torch.isnan(base), base, 0.0)
    )
