"""CNR and its map: the checked calls, the regions, the choice of the backend and the reduction. See README.md.

`KINDS` lists the kinds of CNR that are a ratio of moments, which are those that `cnr_map` takes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from .. import checks, library, outputs, registry, tensor_kinds
from ..result import Result
from . import cuda, native, populations, reference
from .masks import MIN_SEPARATION, ONE_POPULATION, STATES, Masks, Regions, otsu_masks
from .masks import build as build_masks
from .noise import Noise, Sigma
from .noise import resolve as _resolve_noise
from .windows import Window, worst_windows

__all__ = ["KINDS", "Masks", "Sigma", "Window", "cnr", "cnr_map", "otsu_masks", "worst_windows"]

KINDS = reference.KINDS
ALL_KINDS = (*KINDS, *populations.KINDS)
for _op in populations.KINDS:
    registry.register(_op, "reference", populations.measured)

# The kernels are the moments of a region; the ratios over them are few and the same everywhere.
for _op in ("cnr", "cnr_map"):
    registry.register(_op, "reference", reference.of_regions)
    registry.register_native(_op, native.of_regions, native.supports, native.UNSUPPORTED)
    registry.register_cuda(_op, cuda.of_regions, cuda.supports, cuda.UNSUPPORTED)
    registry.register_triton(_op, "of_regions", folder="cnr")
registry.register("histogram", "reference", reference.histogram)
registry.register_native("histogram", native.histogram, native.supports_histogram, native.UNSUPPORTED_HISTOGRAM)
registry.register_triton("histogram", "histogram", "supports_histogram", "cnr", "UNSUPPORTED_HISTOGRAM")
registry.register("otsu_smooth", "reference", reference.smoothed)
registry.register_native("otsu_smooth", native.smoothed, native.supports_image, native.UNSUPPORTED_IMAGE)
registry.register_triton("otsu_smooth", "smoothed", "supports_smoothed", "cnr", "UNSUPPORTED_SMOOTHED")
registry.register("otsu_split", "reference", reference.split)
registry.register_native("otsu_split", native.split)
registry.register("guard_band", "reference", reference.guard_band)
registry.register_native("guard_band", native.guard_band)
registry.register_cuda("histogram", cuda.histogram, cuda.supports_histogram, cuda.UNSUPPORTED_HISTOGRAM)

NO_NOISE = "undefined: kind='fixed_noise' without noise="
ZERO_NOISE = "infinite: no noise"
NOTHING = "undefined: neither contrast nor noise"
NO_REFERENCE_CONTRAST = "contrast_retention undefined: the reference has no contrast"


@dataclass(frozen=True)
class _Job:
    """A checked call: the images, their regions and the noise."""

    checked: checks.Pair
    y: torch.Tensor | None
    signal: torch.Tensor  # (N, 1, H, W) bool
    background: torch.Tensor
    masks: Regions | None  # where they were built here
    noise: Noise
    kind: str
    settings: dict[str, Any]

    @property
    def call(self) -> registry.Call:
        return registry.Call.of("cnr", self.checked.x, *self.others, masked=True)

    @property
    def others(self) -> tuple[torch.Tensor, ...]:
        """What may want a gradient beside the candidate."""
        return tuple(v for v in (self.y, self.noise.value) if v is not None)


def _pack_noise(noise: Any) -> dict[str, Any]:
    is_image, is_number = isinstance(noise, torch.Tensor), isinstance(noise, int | float)
    by_map = None if is_image or is_number or noise is None else torch.as_tensor(noise.map)
    return {"noise": noise if is_image else None, "noise_map": by_map, "noise_sigma": noise if is_number else None}


def _unpack_noise(parts: dict[str, Any]) -> Any:
    by_map, number = parts["noise_map"], parts["noise_sigma"]
    return Sigma(by_map) if by_map is not None else number if number is not None else parts["noise"]


def _no_gradient(a: Mapping[str, Any]) -> str | None:
    kind = a["kind"]
    return f"(kind={kind!r}) has no gradient; accepted: another kind" if kind in populations.KINDS else None


def _map_outputs(a: Mapping[str, Any]) -> outputs.Outputs:
    def shape() -> outputs.Shape:
        sides = zip(a["x"].shape[-2:], a["window"], a["stride"], strict=True)
        return (*outputs.images(a), *((side - of) // step + 1 for side, of, step in sides)), torch.float64

    return {"value": shape}


_ENCODINGS = {"noise": library.Encoding(("noise", "noise_map"), {"noise_sigma": "float?"}, _pack_noise, _unpack_noise)}


@library.op(outputs=outputs.scores_alone, call=lambda a: _call(a), no_gradient=_no_gradient, encodings=_ENCODINGS)
def cnr(
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    signal: torch.Tensor | None = None,
    background: torch.Tensor | None = None,
    kind: str = "two_roi",
    noise: float | torch.Tensor | Sigma | None = None,
    mask: torch.Tensor | None = None,
    data_range: float | None = None,
    value_range: tuple[float, ...] | None = None,
    reduction: str = "none",
    details: bool = False,
    nan: str = "error",
    backend: str | None = "auto",
) -> torch.Tensor | Result:
    """Contrast-to-noise ratio between a signal and a background region, per image.

    Parameters
    ----------
    x : Tensor
        Candidate, (H, W), (C, H, W) or (N, C, H, W); uint8, uint16 or floating. Of several channels, the mean of
        their ratios is returned.
    y : Tensor, optional
        Reference of the shape and dtype of x. The regions are built on it, and `contrast_retention` is taken to it.
        Its σ is never used.
    signal, background : Tensor, optional
        Bool regions, (H, W), (N, H, W) or (N, 1, H, W); both or neither, without a common pixel. Without them they are
        built by `otsu_masks` with its defaults, on y, or on x where there is no y.
    kind : {"two_roi", "sum_var", "background", "fixed_noise", "gcnr", "rose"}
        With Δμ = μs − μb and population variances, the first four are:
        |Δμ| / √((σs² + σb²)/2); |Δμ| / √(σs² + σb²); Δμ / σb, signed; |Δμ| / σ(noise). `populations` describes the last
        two. They have no gradient and run on the backend `reference` alone.
    noise : number, Tensor or Sigma, optional
        For kind="fixed_noise" alone, the noise of the *noisy input*, in the units of x:
        a number or a (N,) tensor is σ; a tensor of the shape and dtype of x is the noisy image, whose
        σ = √((σs² + σb²)/2) is measured in the same regions; `Sigma(map)` is a map of σ, pooled in the regions as
        variances. Without it the result is NaN, flagged.
    mask : Tensor, optional
        Bool, (H, W), (N, H, W) or (N, 1, H, W): True where a pixel is valid. Only valid pixels count.
    value_range : (low, high), optional
        For kind="gcnr" alone: the range of the histogram's bins, in grey levels.
    data_range : float, optional
        Width of the intensity scale. It is only stored in the result: no kind depends on it. NaN there when floating
        images come without it.
    reduction : {"none", "mean", "sum"}
        "none": (N,), a scalar for an unbatched image. An undefined image makes a mean NaN.
    details : bool
        Return a `Result`. Its components, a row an image: `contrast` (Δμ, signed), `sigma`, `signal_mean`,
        `background_mean`, `signal_pixels`, `background_pixels`; with y `reference_contrast` and
        `contrast_retention` = Δμ(x)/Δμ(y); the regions `signal` and `background`, (N, 1, H, W); and, where they were
        built here, `threshold` and `separation`.
    nan : {"error", "propagate", "omit"}
        Non-finite pixels: refused where they reach a result; passed on; or masked.
    backend : str, optional
        Name of a backend, or "auto".

    Returns
    -------
    Tensor or Result
        Float64, without a unit. It is ±inf where there is no noise. It is NaN where there is no second population,
        neither contrast nor noise, or no `noise` for kind="fixed_noise". A quantity that is missing never gives 0;
        `Result.flags` says which images and why.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Notes
    -----
    README.md beside this file says who uses which kind, and why a ratio over the output's own σ rises under
    over-smoothing. "background" is SNR9 of NIST's detection-limits.

    Examples
    --------
    >>> kernels.cnr.cnr(x, y)
    tensor(56.7310, dtype=torch.float64)
    >>> kernels.cnr.cnr(x, y, details=True).components["contrast_retention"]
    tensor([1.0006], dtype=torch.float64)
    """
    given = locals()
    checks.choice("reduction", reduction, ("mean", "sum", "none"))
    _read_by_kind(given)
    if kind in populations.KINDS:
        return populations.populations(given)
    job = _prepare(given)
    parts = _measure(job, registry.choose(job.call, backend).run)
    value = parts["value"].mean(dim=1)
    _refuse_nonfinite(job, [value, *(parts[k] for k in ("contrast_retention",) if k in parts)])
    if not details:
        return checks.reduce(value, reduction, job.checked)
    rows = {name: part.mean(dim=1) for name, part in parts.items() if name != "value"}
    covered = (job.signal | job.background).sum(dim=(1, 2, 3), dtype=torch.float64)
    total = math.prod(job.signal.shape[1:]) if job.checked.valid is None else job.checked.valid.sum(dim=(1, 2, 3))
    components: dict[str, Any] = {**rows, "signal": job.signal, "background": job.background}
    if job.masks is not None:
        components |= {"threshold": job.masks.threshold, "separation": job.masks.separation}
    return Result(
        checks.reduce(value, reduction, job.checked),
        job.checked.data_range,
        components=components,
        coverage=covered / total,
        flags=_flags(job, value, rows),
        settings={**job.settings, "reduction": reduction},
    )


def _prepare_retention(a: Mapping[str, Any]) -> _Job:
    return _prepare({**a, "kind": "two_roi", "noise": None})


@library.op(outputs=outputs.scores_alone, call=lambda a: _prepare_retention(a).call)
def contrast_retention(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    signal: torch.Tensor | None = None,
    background: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    data_range: float | None = None,
    reduction: str = "none",
    nan: str = "error",
    backend: str | None = "auto",
) -> torch.Tensor:
    """Contrast of the candidate over that of the reference, Δμ(x) / Δμ(y), between the same two regions; 1: all kept.

    It is the `contrast_retention` of `cnr(..., details=True)`, as an op of its own: a loss needs it alone.

    Parameters
    ----------
    x, y : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, of one shape and dtype. Channels are averaged.
    signal, background : bool Tensor, optional
        The two regions, disjoint; both or neither. Default: built on `y` as for `cnr`. No gradient flows through them.
    mask : bool Tensor, optional
        True where a pixel is valid.
    data_range : float, optional
        Width of the intensity scale; the ratio does not depend on it.
    reduction : {"none", "mean", "sum"}
        Over the images.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    backend : str, optional
        "auto", or a name of `backends()`. A named backend never falls back.

    Returns
    -------
    Tensor
        Float64, one value an image or, after a reduction, one. NaN for an image whose reference has no two regions, or
        no contrast between them.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> kernels.cnr.contrast_retention(x, y)
    tensor(1.0000, dtype=torch.float64)
    """
    given = locals()
    checks.choice("reduction", reduction, ("mean", "sum", "none"))
    job = _prepare_retention(given)
    parts = _measure(job, registry.choose(job.call, backend).run)
    value = parts["contrast_retention"].mean(dim=1)
    _refuse_nonfinite(job, [value])
    return checks.reduce(value, reduction, job.checked)


def rows(
    x: torch.Tensor,
    y: torch.Tensor,
    signal: torch.Tensor,
    background: torch.Tensor,
    *,
    mask: torch.Tensor | None,
    data_range: float,
    nan: str,
    backend: str | None,
    disjoint: bool,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """`cnr(kind="two_roi", reduction="none")` and the reasons that `told` makes flags of, none of it read back.

    disjoint: the regions are known to share no pixel.
    """
    job = _prepare({**locals(), "kind": "two_roi", "noise": None})
    parts = _measure(job, registry.choose(job.call, backend).run)
    value = parts["value"].mean(dim=1)
    _refuse_nonfinite(job, [value, parts["contrast_retention"]])
    of_images = {name: part.mean(dim=1) for name, part in parts.items() if name != "value"}
    return value, _reasons(job, value, of_images)


@library.op(outputs=_map_outputs, call=lambda a: _prepare_map(a)[1], encodings=_ENCODINGS)
def cnr_map(
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    window: int | tuple[int, int] = 64,
    stride: int | tuple[int, int] = 32,
    signal: torch.Tensor | None = None,
    background: torch.Tensor | None = None,
    kind: str = "two_roi",
    noise: float | torch.Tensor | Sigma | None = None,
    mask: torch.Tensor | None = None,
    data_range: float | None = None,
    min_pixels: int = 1,
    worst: int = 5,
    details: bool = False,
    nan: str = "error",
    backend: str | None = "auto",
) -> torch.Tensor | Result:
    """`cnr` in each window of a regular grid.

    The regions are those of the whole image, built once (see `cnr`); the means, the σ and, for a noisy image or a
    map of σ, the noise are taken inside each window.

    Parameters
    ----------
    x, y, signal, background, kind, noise, mask, data_range, nan, backend
        As for `cnr`.
    window, stride : int or (int, int)
        Rows and columns, in pixels. Windows lie inside the image, the first in its upper-left corner. Where pixels at
        the right or the bottom lie in no window, a flag says so.
    min_pixels : int
        Pixels of *each* region that a window must hold.
    worst : int
        How many of the lowest windows to list. For kind="background" they are ordered by magnitude.
    details : bool
        Return a `Result`. Its components, maps of the same shape: `contrast`, `sigma`, `signal_pixels`,
        `background_pixels`; with y `reference_contrast` and `contrast_retention`; and `worst`, a tuple of `Window`.

    Returns
    -------
    Tensor or Result
        Float64, (N, rows, columns), or (rows, columns) for an unbatched image. NaN where a window lacks a
        population, inf where it has no noise.

    Raises
    ------
    TypeError, ValueError
        As `cnr`; also a window larger than the image.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> ratios = kernels.cnr.cnr_map(x, y)  # windows of 64 pixels, every 32 pixels
    >>> ratios.shape, ratios.min()
    (torch.Size([5, 5]), tensor(56.5541, dtype=torch.float64))
    """
    job, call = _prepare_map(locals())
    windows, strides = call.settings.window, call.settings.stride
    size = tuple(job.checked.x.shape[-2:])
    of = functools.partial(registry.choose(call, backend).run, settings=call.settings)
    parts = {name: part.mean(dim=1) for name, part in _measure(job, of, min_pixels).items()}
    _refuse_nonfinite(job, [parts[k] for k in ("value", "contrast_retention") if k in parts])
    shaped = {name: part if job.checked.batched else part[0] for name, part in parts.items()}
    value = shaped.pop("value")
    if not details:
        return value
    shaped = {k: v for k, v in shaped.items() if k not in ("signal_mean", "background_mean")}
    left = tuple((side - w) % s for side, w, s in zip(size, windows, strides, strict=True))
    flags: tuple[str, ...] = (f"the last {left[0]} rows and {left[1]} columns lie in no window",) if any(left) else ()
    lacking = int((torch.minimum(parts["signal_pixels"], parts["background_pixels"]) < min_pixels).sum())
    if lacking:
        flags += (
            f"undefined in {lacking} of {parts['value'].numel()} windows: fewer than {min_pixels} pixels of a region",
        )
    ranked = parts["value"].abs() if kind == "background" else parts["value"]
    listed = worst_windows(ranked, window=windows, stride=strides, count=worst)
    return Result(
        value,
        job.checked.data_range,
        components={**shaped, "worst": listed},
        flags=flags + _flags(job, parts["value"], parts, pixels=False),
        settings={**job.settings, "window": windows, "stride": strides, "min_pixels": min_pixels},
    )


def _read_by_kind(a: Mapping[str, Any]) -> None:
    """Refuse a kind that is not there, and an argument that the kind does not read."""
    kind = a["kind"]
    checks.choice("kind", kind, ALL_KINDS)
    if a["value_range"] is not None and kind != "gcnr":
        raise ValueError(f"value_range is given, but kind={kind!r} does not read it; accepted: kind='gcnr', or None")
    if kind in populations.KINDS and a["noise"] is not None:
        raise ValueError(f"noise is given, but kind={kind!r} does not read it; accepted: kind='fixed_noise'")


def _call(a: Mapping[str, Any]) -> registry.Call:
    _read_by_kind(a)
    return populations.call(a) if a["kind"] in populations.KINDS else _prepare(a).call


def _prepare_map(a: Mapping[str, Any]) -> tuple[_Job, registry.Call]:
    settings = reference.Settings(checks.sides("window", a["window"]), checks.sides("stride", a["stride"]))
    checks.choice("kind", a["kind"], KINDS)
    checks.positive_int("min_pixels", a["min_pixels"])
    checks.positive_int("worst", a["worst"])
    job, of = _prepare(a), settings.window
    size = job.checked.x.shape[-2:]
    if of is not None and (of[0] > size[0] or of[1] > size[1]):
        raise ValueError(f"window is {of[0]}×{of[1]} and the image {size[0]}×{size[1]}; accepted: a smaller one")
    return job, registry.Call.of("cnr_map", job.checked.x, *job.others, settings=settings, masked=True)


def _prepare(a: Mapping[str, Any]) -> _Job:
    x, y, kind, nan, mask = (a[name] for name in ("x", "y", "kind", "nan", "mask"))
    signal, background = a["signal"], a["background"]
    unstated = a["data_range"] is None and isinstance(x, torch.Tensor) and x.dtype in checks.FLOAT_DTYPES
    checked = checks.pair_of(a, y=x if y is None else y, **({"data_range": 1.0} if unstated else {}))
    if unstated:
        checked = replace(checked, data_range=math.nan)
    resolved = _resolve_noise(a["noise"], kind, checked.x, tuple(x.shape), nan)
    if (signal is None) != (background is None):
        missing = "signal" if signal is None else "background"
        raise ValueError(
            f"{missing} is missing; accepted: signal and background both, or neither (built by otsu_masks)"
        )
    settings: dict[str, Any] = {"kind": kind, "nan": nan, "noise": resolved.how}
    built = None
    if signal is None:
        # On the image as it was passed: pixels that the candidate lost must not move the reference's threshold.
        name, source = ("x", x) if y is None else ("y", y)
        image = checks.as_image(name, source)
        built = build_masks(image, checks.as_mask(mask, image), nan=nan, name=name)
        s, b = built.signal, built.background
        settings |= {"masks": f"otsu({name})", "smoothing": 1.0, "guard": 2, "bins": 256}
        settings |= {"min_separation": MIN_SEPARATION}
    else:
        s = cast(torch.Tensor, checks.as_mask(signal, checked.x, "signal"))
        b = cast(torch.Tensor, checks.as_mask(background, checked.x, "background"))
        settings["masks"] = "given"
        both = s & b
        # as bytes: torch finds one 30 times sooner than it counts bools
        if not a.get("disjoint") and bool(tensor_kinds.bare(both).view(torch.uint8).any()):
            raise ValueError(f"signal and background share {int(both.sum())} pixels; accepted: disjoint regions")
    if checked.valid is not None:
        s, b = s & checked.valid, b & checked.valid
    return _Job(checked, None if y is None else checked.y, s, b, built, resolved, kind, settings)


def _measure(
    job: _Job, of: Callable[..., tuple[reference.Moments, ...]], min_pixels: int = 1
) -> dict[str, torch.Tensor]:
    """The ratio and what it was made of, each (N, C, ...)."""
    found = of(job.checked.x, job.signal, job.background)
    of_reference = None if job.y is None else of(job.y, job.signal, job.background)
    if job.kind == "fixed_noise":
        variance = job.noise.variance(of, job.signal, job.background, found[0].mean)
    else:
        variance = reference.noise_variance(job.kind, *found)
    return _parts(job.kind, found, of_reference, variance, min_pixels)


def _parts(
    kind: str,
    found: tuple[reference.Moments, ...],
    of_reference: tuple[reference.Moments, ...] | None,
    variance: torch.Tensor,
    min_pixels: int,
) -> dict[str, torch.Tensor]:
    s, b = found
    there = (s.pixels >= min_pixels) & (b.pixels >= min_pixels)

    def where_there(part: torch.Tensor) -> torch.Tensor:
        return torch.where(there, part, torch.nan)

    contrast, variance = where_there(s.mean - b.mean), where_there(variance)
    parts = {
        "value": reference.ratio(contrast, variance, signed=kind == "background"),
        "contrast": contrast,
        "sigma": variance.detach().sqrt(),
        "signal_mean": s.mean,
        "background_mean": b.mean,
        "signal_pixels": s.pixels,
        "background_pixels": b.pixels,
    }
    if of_reference is not None:
        parts["reference_contrast"] = where_there(of_reference[0].mean - of_reference[1].mean)
        parts["contrast_retention"] = reference.retention(contrast, parts["reference_contrast"])
    return parts


def _refuse_nonfinite(job: _Job, results: list[torch.Tensor]) -> None:
    if job.checked.nan == "error" and not all(tensor_kinds.finite(r) for r in results):
        images = {"x": job.checked.x} if job.y is None else {"x": job.checked.x, "y": job.y}
        if job.noise.how == "image" and job.noise.value is not None:
            images["noise"] = job.noise.value
        checks.raise_if_nonfinite(**images)


def _flags(job: _Job, value: torch.Tensor, parts: dict[str, torch.Tensor], *, pixels: bool = True) -> tuple[str, ...]:
    reasons = _reasons(job, value, parts, pixels=pixels)
    return told(dict(zip(reasons, torch.stack(tuple(reasons.values())).tolist(), strict=True)))


def _reasons(
    job: _Job, value: torch.Tensor, parts: dict[str, torch.Tensor], *, pixels: bool = True
) -> dict[str, torch.Tensor]:
    """Why images are undefined or infinite, somewhere: for each reason, (N,) bool where the images lie."""
    n = value.shape[0]
    reasons: dict[str, torch.Tensor] = {}
    if job.masks is not None:
        for state, text in enumerate(STATES):
            if text:
                reasons[text] = job.masks.state == state
    elif pixels:
        reasons[ONE_POPULATION] = (parts["signal_pixels"] == 0) | (parts["background_pixels"] == 0)
    if job.kind == "fixed_noise" and job.noise.how == "none":
        reasons[NO_NOISE] = torch.ones(n, dtype=torch.bool, device=value.device)
    reasons[ZERO_NOISE] = torch.isinf(value)
    reasons[NOTHING] = (parts["contrast"] == 0) & (parts["sigma"] == 0)
    if "reference_contrast" in parts:
        reasons[NO_REFERENCE_CONTRAST] = parts["reference_contrast"] == 0
    return {text: hit.reshape(n, -1).any(dim=1) for text, hit in reasons.items()}


def told(reasons: Mapping[str, Sequence[bool]]) -> tuple[str, ...]:
    """One text a reason that holds somewhere, with the images it holds for."""
    flags = []
    for text, hit in reasons.items():
        n, images = len(hit), [i for i, here in enumerate(hit) if here]
        if images:
            shown = ", ".join(map(str, images[:8])) + (f" and {len(images) - 8} more" if len(images) > 8 else "")
            flags.append(text if n == 1 else f"{text} (image{'s' if len(images) > 1 else ''} {shown})")
    return tuple(flags)
