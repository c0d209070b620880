"""FSIM and FSIMc: the checked calls, the choice of the backend and the reduction. The formulas are in README.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from .. import checks, graphs, library, outputs, registry, tensor_kinds
from ..result import Result
from . import native, reference
from .reference import Comparison, Features, Filters, Settings

registry.register("fsim", "reference", reference.fsim)
registry.register("fsim_features", "reference", reference.features)
registry.register("fsim_compare", "reference", reference.compare)
registry.register_native("fsim", native.fsim, native.supports, native.UNSUPPORTED)
registry.register_native("fsim_features", native.features, native.supports, native.UNSUPPORTED)
registry.register_native("fsim_compare", native.compare, native.supports, native.UNSUPPORTED)
registry.register_triton("fsim", "fsim")
registry.register_triton("fsim_features", "features", folder="fsim")
registry.register_triton("fsim_compare", "compare", folder="fsim")

__all__ = ["Comparison", "Features", "Filters", "Settings", "downsampling_factor", "features", "fsim", "similarity"]


def _prepare(a: Mapping[str, Any]) -> tuple[checks.Pair, registry.Call]:
    checked = checks.pair_of(a)
    settings = _settings(checked.x, "x", a, checked.data_range)
    call = registry.Call.of("fsim", checked.x, checked.y, settings=settings, masked=checked.valid is not None)
    return checked, call


def _outputs(a: Mapping[str, Any]) -> outputs.Outputs:
    return outputs.with_parts(a, {"map": lambda: _map(a)} if a["return_map"] else {})


def _map(a: Mapping[str, Any]) -> outputs.Shape:
    height, width = a["x"].shape[-2:]
    factor = downsampling_factor(height, width, a["downsample"])
    up = factor - 1 if a["downsample"] == "authors" else 0
    return outputs.single_plane(a, (height + up) // factor, (width + up) // factor)


@library.op(outputs=_outputs, call=lambda a: _prepare(a)[1])
def fsim(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float | None = None,
    chromatic: bool | None = None,
    downsample: int | str = "auto",
    scales: int = 4,
    orientations: int = 4,
    min_length: float = 6,
    mult: float = 2,
    sigma_f: float = 0.55,
    delta_theta: float = 1.2,
    k: float = 2.0,
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    return_map: bool = False,
    details: bool = False,
    nan: str = "error",
    overshoot: str = "keep",
    precision: str = "float32",
    backend: str | None = "auto",
) -> Any:
    """Feature similarity of candidate `x` to reference `y`: phase congruency and gradient, in (0, 1].

    Zhang, Zhang, Mou, Zhang, "FSIM: A Feature Similarity Index for Image Quality Assessment", IEEE TIP 20(8), 2011,
    eq. 3 to 9, on the phase congruency of Kovesi 1999. Equal to piq 0.8.0; differentiable.

    Parameters
    ----------
    x, y
        (H, W), (C, H, W) or (N, C, H, W), one or three channels (RGB); uint8, uint16 or floating.
    data_range
        Width of the intensity scale, mapped to 0-255 on which the paper's constants lie. Required for floating images.
    chromatic
        Whether colour enters (FSIMc). None: it does for three channels. False on three channels: FSIM of the luminance.
    downsample
        "auto": average over squares of max(1, round(short side / 256)) pixels, the authors' rule as piq rounds it
        (half to even). "authors": rounds half up and samples as MATLAB's conv2(..., "same"). An integer: that factor.
        Take one factor for all tiles of a run: scores at different factors cannot be compared.
    scales, orientations, min_length, mult, sigma_f, delta_theta, k
        The log-Gabor filters: wavelengths min_length · mult^s pixels, relative bandwidth sigma_f, angular spacing over
        the angular spread, and the noise threshold in standard deviations.
    mask
        Bool, (H, W), (N, H, W) or (N, 1, H, W): True where a pixel is valid. Masked pixels take the reference's local
        mean in both images, because the FFT needs every pixel. The score is the mean over valid pixels, and the result
        has the flag "approximate". NaN where no pixel is valid.
    reduction
        "mean", "sum" or "none" (one value an image).
    return_map
        Also return the local similarity at the downsampled size, (N, 1, h, w) or with the leading dimensions that were
        passed. The score is its mean weighted by the larger phase congruency, `components["weight"]` with `details`.
    details
        Return a `Result`, with the maps "weight", "phase_congruency", "gradient" and, for FSIMc, "chroma".
    precision
        "float32" (default) or "float64": what a fast backend computes in. The backend `reference` computes in float64,
        and so does every backend where a gradient is asked for.
    nan
        "error", "propagate" or "omit": pixels that are not finite are refused, passed on as NaN, or masked.
    overshoot
        "keep", "clip" or "error": values outside [0, data_range] are taken as they are, clipped, or refused.
    backend
        "auto", or a name of `backends()`. A named backend never falls back.

    Returns
    -------
    Tensor or Result
        A float64 scalar, or (N,) with reduction="none". A `Result` where the map or details are asked for.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted; also an image smaller than the longest wavelength
        (48 pixels by default, after downsampling), or a number of channels other than 1 and 3.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> kernels.fsim.fsim(x, y)
    tensor(0.9693, dtype=torch.float64)
    """
    checked, call = _prepare(locals())
    settings = call.settings
    implementation = registry.choose(call, backend)
    if checked.valid is None:  # settings compare without the range; their text has it
        images, key = (checked.x, checked.y), (implementation.backend, repr(settings))
        comparison = graphs.run("fsim", implementation.run, images, None, settings, key=key)
    else:
        comparison = implementation.run(checked.x, checked.y, checked.valid, settings)
    value = checks.reduce(comparison.rows, reduction, checked)
    checks.refuse_nonfinite(checked, value)  # scores lie in (0, 1]: their mean is finite where all are
    if not settings.want_maps:
        return value

    def as_passed(planes: torch.Tensor) -> torch.Tensor:
        narrow = planes.double() if x.dtype == torch.float64 else planes.float()
        return narrow.reshape(narrow.shape[4 - len(checked.lead) - 2 :])

    parts = {
        "weight": comparison.weight,
        "phase_congruency": comparison.phase_congruency,
        "gradient": comparison.gradient,
    }
    if comparison.chroma is not None:
        parts["chroma"] = comparison.chroma
    valid = checked.valid
    return Result(
        value,
        checked.data_range,
        map=as_passed(comparison.similarity) if return_map else None,
        components={name: as_passed(part) for name, part in parts.items()} if details else None,
        coverage=None if valid is None else valid.double().mean(dim=(1, 2, 3)),
        clipped_fraction=checked.clipped_fraction,
        flags=() if valid is None else ("approximate: masked pixels take the reference's local mean",),
        settings={
            "chromatic": settings.chromatic,
            "downsample": downsample,
            "factor": settings.factor,
            "precision": precision,
            **settings.filters.__dict__,
            "reduction": reduction,
            "nan": nan,
            "overshoot": overshoot,
        },
    )


def features(
    image: torch.Tensor,
    *,
    data_range: float | None = None,
    chromatic: bool | None = None,
    downsample: int | str = "auto",
    scales: int = 4,
    orientations: int = 4,
    min_length: float = 6,
    mult: float = 2,
    sigma_f: float = 0.55,
    delta_theta: float = 1.2,
    k: float = 2.0,
    mask: torch.Tensor | None = None,
    reference_image: torch.Tensor | None = None,
    nan: str = "error",
    precision: str = "float32",
    backend: str | None = "auto",
) -> Features:
    """Everything that FSIM reads from one image, to be computed once for a reference and kept.

    Parameters
    ----------
    image : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        One or three channels; uint8, uint16 or floating.
    reference_image : Tensor, of the shape of `image`, optional
        With a mask: the image whose local mean the masked pixels take. Pass the reference when `image` is a candidate.
        Default: `image` itself.
    nan : {"error", "propagate"}
        Pixels that are not finite: refused, or passed on as NaN.
    data_range, chromatic, downsample, mask, precision, backend
        As for `fsim`.
    scales, orientations, min_length, mult, sigma_f, delta_theta, k
        The log-Gabor filters, as for `fsim`.

    Returns
    -------
    Features

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As `fsim`.

    Examples
    --------
    >>> kept = kernels.fsim.features(y)
    >>> kept.phase_congruency.shape
    torch.Size([1, 1, 192, 192])
    """
    given = locals()
    checks.choice("nan", nan, ("error", "propagate"))
    image4 = checks.as_image("image", image)
    scale, valid = checks.as_data_range(image.dtype, data_range), checks.as_mask(mask, image4)
    settings = _settings(image4, "image", given, scale)
    other = None if reference_image is None else checks.as_image("reference_image", reference_image)
    if other is not None and other.shape != image4.shape:
        raise ValueError(f"reference_image has shape {tuple(other.shape)}; accepted: {tuple(image4.shape)}, as image")
    if valid is not None and image.dtype in checks.FLOAT_DTYPES:
        image4 = torch.where(valid, image4, torch.zeros((), dtype=image4.dtype, device=image4.device))
    call = registry.Call.of("fsim_features", image4, other, masked=valid is not None, settings=settings)
    computed = registry.choose(call, backend).run(image4, valid, other, settings)
    if nan == "error" and not tensor_kinds.finite(computed.phase_congruency):
        checks.raise_if_nonfinite(image=image4)
    return computed


def similarity(fx: Features, fy: Features, *, maps: bool = False, backend: str | None = "auto") -> Comparison:
    """Compare the features of a candidate with those of a reference.

    `fsim(x, y)` is the mean of `similarity(features(x), features(y)).rows`. One of the two may hold a single image,
    which is then compared with each image of the other.

    Parameters
    ----------
    fx, fy : Features
        Of the candidate and of the reference, made with the same settings.
    maps : bool
        Also return the local similarity, its factors and its weight.
    backend : str, optional
        As for `fsim`.

    Returns
    -------
    Comparison
        Its `rows` hold one score an image.

    Raises
    ------
    ValueError
        The two were made with different settings or at different sizes.

    Examples
    --------
    >>> kernels.fsim.similarity(kernels.fsim.features(x), kernels.fsim.features(y)).rows
    tensor([0.9693], dtype=torch.float64)
    """
    if fx.settings != fy.settings:
        raise ValueError(f"fx was made with {fx.settings} and fy with {fy.settings}; accepted: the same settings")
    sx, sy = tuple(fx.phase_congruency.shape), tuple(fy.phase_congruency.shape)
    if sx[1:] != sy[1:] or (sx[0] != sy[0] and 1 not in (sx[0], sy[0])):
        raise ValueError(f"fx has shape {sx} and fy {sy}; accepted: the same size, and one image or as many")
    planes = (fx.phase_congruency, fx.gradient, fy.phase_congruency, fy.gradient)
    settings, masked = replace(fx.settings, want_maps=maps), not (fx.valid is None and fy.valid is None)
    call = registry.Call.of("fsim_compare", *planes, masked=masked, settings=settings)
    return registry.choose(call, backend).run(fx, fy, settings)  # type: ignore[no-any-return]


def downsampling_factor(height: int, width: int, rule: int | str = "auto") -> int:
    """The factor by which `downsample=rule` averages an image of this size.

    Parameters
    ----------
    height, width : int
        Of the image, in pixels.
    rule : int or {"auto", "authors"}
        As the argument `downsample` of `fsim`.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        An unknown rule, or a factor below 1.

    Examples
    --------
    >>> kernels.fsim.downsampling_factor(1024, 1536)
    4
    """
    if not isinstance(rule, str):
        return checks.positive_int("downsample", rule)
    if rule not in ("auto", "authors"):
        raise ValueError(f"downsample is {rule!r}; accepted: 'auto', 'authors', or an integer of at least 1")
    ratio = min(height, width) / 256
    return max(1, round(ratio) if rule == "auto" else math.floor(ratio + 0.5))


def _settings(image: torch.Tensor, name: str, a: Mapping[str, Any], data_range: float) -> Settings:
    """Of a contract's arguments, for (N, C, H, W) images called `name`."""
    filters, chromatic, rule = _filters(a), a["chromatic"], a["downsample"]
    _, channels, height, width = image.shape
    if channels not in (1, 3):
        raise ValueError(f"{name} has {channels} channels; accepted: 1 (grey) or 3 (RGB), as (C, H, W)")
    if chromatic not in (None, True, False):
        raise ValueError(f"chromatic is {chromatic!r}; accepted: True, False or None")
    if chromatic and channels != 3:
        raise ValueError(f"chromatic is True and {name} has {channels} channel; accepted: 3 channels, or False or None")
    factor, authors = downsampling_factor(height, width, rule), rule == "authors"
    small = min(-(-side // factor) if authors else side // factor for side in (height, width))
    if small < filters.longest:
        at = f" ({small} pixels after downsampling by {factor})" if factor > 1 else ""
        raise ValueError(
            f"{name} is {height} x {width}{at}; accepted: sides of at least {math.ceil(filters.longest)} pixels, the "
            "longest filter's wavelength (min_length · mult^(scales - 1)), or fewer scales"
        )
    checks.choice("precision", a["precision"], ("float32", "float64"))
    want_maps = bool(a.get("return_map") or a.get("details"))
    in_colour = channels == 3 and chromatic is not False
    return Settings(factor, authors and factor > 1, in_colour, filters, a["precision"], data_range, want_maps)


_LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "min_length": (lambda v: 2 <= v < math.inf, "a wavelength of at least 2 pixels"),
    "mult": (lambda v: 1 < v < math.inf, "a number above 1"),
    "sigma_f": (lambda v: 0 < v < 1, "a number between 0 and 1"),
    "delta_theta": (lambda v: 0 < v < math.inf, "a number above 0"),
    "k": (lambda v: 0 <= v < math.inf, "a number of at least 0"),
}


def _filters(a: Mapping[str, Any]) -> Filters:
    given = checks.fields_of(Filters, a)
    for name, value in given.items():
        given[name] = checks.number(name, value) if name in _LIMITS else checks.integer(name, value)
    for name, (good, accepted) in _LIMITS.items():
        if not good(given[name]):
            raise ValueError(f"{name} is {given[name]!r}; accepted: {accepted}")
    return Filters(**given)
