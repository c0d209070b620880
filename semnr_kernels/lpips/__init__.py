"""LPIPS: the checked calls, the weights, the choice of the backend and the reduction. The formulas are in README.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from .. import checks, dists, library, outputs, pretrained, registry, tensor_kinds
from ..dists import RESIZES, _budget, _check_image, _network_dtype, _wider, encoded_weights
from ..pretrained import LPIPS, Weights, WeightsArgument
from ..result import Result
from . import native, reference, together
from .network import TRUNKS, Network, network_for
from .sums import Distance, Features, Settings, finite

for _op in ("lpips", "lpips_features", "lpips_against"):
    _run = _op.removeprefix("lpips_")
    registry.register(_op, "reference", getattr(reference, _run))
    # oneDNN picks the instruction set itself: no variant of its own for each
    registry.register(_op, "native", getattr(native, _run), native.supports, lambda: native.UNSUPPORTED)

__all__ = ["Distance", "Features", "against", "features", "lpips", "published", "with_dists"]


def _prepare(a: Mapping[str, Any]) -> tuple[checks.Pair, registry.Call]:
    checked = checks.pair_of(a)
    _check_image("x", checked.x)
    settings = _settings(a, checked.x, checked.data_range)
    masked = checked.valid is not None
    return checked, registry.Call.of("lpips", checked.x, checked.y, settings=settings, masked=masked)


def _settings(a: Mapping[str, Any], image: torch.Tensor, data_range: float) -> Settings:
    checks.choice("net", a["net"], tuple(TRUNKS))
    checks.choice("resize", a["resize"], RESIZES)
    return Settings(
        net=a["net"],
        resize=a["resize"],
        memory_budget=_budget(a["memory_budget"], image.device),
        dtype=_network_dtype(image.dtype, a["dtype"]),
        data_range=data_range,
        want_map=bool(a.get("return_map")),
    )


def _outputs(a: Mapping[str, Any]) -> outputs.Outputs:
    shape = a["x"].shape
    return outputs.with_parts(a, {"map": lambda: outputs.single_plane(a, *shape[-2:])} if a["return_map"] else {})


_ENCODINGS = {name: encoded_weights(name) for name in ("weights", "linear")}


@library.op(outputs=_outputs, call=lambda a: _prepare(a)[1], encodings=_ENCODINGS)
@library.full_precision
def lpips(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    net: str = "alex",
    data_range: float | None = None,
    weights: WeightsArgument = None,
    linear: WeightsArgument = None,
    resize: str | None = None,
    dtype: torch.dtype | None = None,
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    return_map: bool = False,
    details: bool = False,
    nan: str = "error",
    overshoot: str = "keep",
    backend: str | None = "auto",
    memory_budget: int | str | None = None,
) -> Any:
    """Learned perceptual distance of candidate `x` to reference `y`: 0 for identical images.

    Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
    2018 (arXiv 1801.03924), eq. 1, version 0.1. Differentiable.

    Parameters
    ----------
    x, y
        (H, W), (C, H, W) or (N, C, H, W), one or three channels (RGB); uint8, uint16 or floating; sides of at least 32.
        One channel is replicated to three, and the result's flags say so.
    net
        "alex" (AlexNet, the authors' choice for scores) or "vgg" (VGG16, their choice for losses).
    data_range
        Width of the intensity scale, mapped to 0-1. Required for floating images.
    weights
        None: the published convolutions from the cache (`semnr weights fetch alexnet` or `vgg16`). A path or a state
        dict of that network. "random": seeded weights, for the linear layers too unless they are given; the result then
        has the flag "uncalibrated".
    linear
        The linear layers. None: the published ones from the cache (`semnr weights fetch lpips`). A path or a state dict
        of "alex.0" to "vgg.4", or "random".
    resize
        None (default): native size, as the authors' code. "authors", "piq": as in `dists`.
    dtype
        What the network computes in: torch.float32, float64, bfloat16 or float16. None: float64 for float64 images,
        float32 for all others. Norms and differences stay in float32 or float64.
    mask
        Bool, (H, W), (N, H, W) or (N, 1, H, W): True where a pixel is valid. Masked pixels take the reference's local
        mean in both images, and positions are weighted by their share of valid pixels. The result has the flag
        "approximate". NaN where no pixel is valid.
    reduction
        "mean", "sum" or "none" (one value an image).
    return_map
        Also return the distance at each pixel, (N, 1, H, W) or with the leading dimensions that were passed: the sum of
        the differences of each map, bilinear between its positions.
    details
        Return a `Result`: component "layers", (N, 5), is what each map adds; the settings name the weights.
    nan
        "error", "propagate" or "omit": pixels that are not finite are refused, passed on as NaN, or masked.
    overshoot
        "keep", "clip" or "error": values outside [0, data_range] are taken as they are, clipped, or refused.
    backend
        "auto", or a name of `backends()`. A named backend never falls back.
    memory_budget
        Bytes, or text such as "2GiB", for everything that is held between the images and the score. Default: 1 GiB, on
        a GPU a quarter of its memory. Images of any size are scored, a band of rows at a time. Autograd keeps all
        activations.

    Returns
    -------
    Tensor or Result
        A float64 scalar, or (N,) with reduction="none". A `Result` where the map or details are asked for.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    WeightsUnavailable
        There are no weights, or the file is truncated, altered, of the wrong shape, or holds code.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> kernels.lpips.lpips(x, y, weights="random").shape  # random weights: the value itself says nothing
    torch.Size([])
    """
    checked, call = _prepare(locals())
    network = _network(call.settings, weights, linear, x.device)
    found = registry.choose(call, backend).run(checked.x, checked.y, checked.valid, network, call.settings)
    # a ReLU may make a number of a NaN: what is none among the pixels is none as a score
    known = finite(checked.x, checked.valid) & finite(checked.y, checked.valid)
    found = replace(found, rows=torch.where(known, found.rows, torch.nan))
    if nan == "error":
        _require_finite(found, checked.valid, network, x=checked.x, y=checked.y)
    value = checks.reduce(found.rows, reduction, checked)
    if not (return_map or details):
        return value
    valid = checked.valid
    return Result(
        value,
        checked.data_range,
        map=None if found.map is None else _as_passed(found.map, checked),
        components={"layers": found.layers} if details else None,
        coverage=None if valid is None else valid.double().mean(dim=(1, 2, 3)),
        clipped_fraction=checked.clipped_fraction,
        flags=_flags(network, checked.x.shape[1], valid is not None),
        settings={
            "net": net,
            "weights": network.weights.source,
            "weights_sha256": network.weights.sha256,
            "linear": network.linear_weights.source,
            "linear_sha256": network.linear_weights.sha256,
            "calibrated": network.calibrated,
            "resize": resize,
            "dtype": checks.dtype_name(network.dtype),
            "reduction": reduction,
            "nan": nan,
            "overshoot": overshoot,
        },
    )


@library.full_precision
def features(
    image: torch.Tensor,
    *,
    net: str = "alex",
    data_range: float | None = None,
    weights: WeightsArgument = None,
    linear: WeightsArgument = None,
    resize: str | None = None,
    dtype: torch.dtype | None = None,
    nan: str = "error",
    backend: str | None = "auto",
    memory_budget: int | str | None = None,
) -> Features:
    """The compared maps of one batch, to be computed once for a reference and kept.

    They take 480 bytes a pixel for VGG16 in float32, 26 for AlexNet.

    Parameters
    ----------
    image : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        One or three channels; uint8, uint16 or floating; sides of at least 32 pixels.
    nan : {"error", "propagate"}
        Pixels that are not finite: refused, or passed on as NaN.
    net, data_range, weights, linear, resize, dtype, backend, memory_budget
        As for `lpips`.

    Returns
    -------
    Features

    Raises
    ------
    TypeError, ValueError, WeightsUnavailable, BackendUnavailable
        As `lpips`.

    Examples
    --------
    >>> kept = kernels.lpips.features(y, weights="random")
    >>> [tuple(m.shape[1:]) for m in kept.maps[:2]]
    [(64, 47, 47), (192, 23, 23)]
    """
    given = locals()
    checks.choice("nan", nan, ("error", "propagate"))
    image4 = checks.as_image("image", image)
    _check_image("image", image4)
    if nan == "error":
        checks.raise_if_nonfinite(image=image4)
    scale = checks.as_data_range(image.dtype, data_range)
    settings = _settings(given, image4, scale)
    network = _network(settings, weights, linear, image.device)
    call = registry.Call.of("lpips_features", image4, settings=settings)
    return registry.choose(call, backend).run(image4, network, settings)


@library.full_precision
def against(
    x: torch.Tensor, kept: Features, *, reduction: str = "mean", nan: str = "error", backend: str | None = "auto"
) -> torch.Tensor:
    """`lpips(x, y)` where `kept` is `features(y)`: half of the network's work.

    Parameters
    ----------
    x : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        The candidate, of the size of `kept`.
    kept : Features
        What `features` returned for the reference; its settings apply. A single kept image is compared with each image
        of `x`.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    nan : {"error", "propagate"}
        Pixels that are not finite: refused, or passed on as NaN.
    backend : str, optional
        As for `lpips`.

    Returns
    -------
    Tensor
        A float64 scalar, or (N,) with reduction="none".

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As `lpips`; also a size or number of images other than that of `kept`.

    Examples
    --------
    >>> kept = kernels.lpips.features(y, weights="random")
    >>> direct = kernels.lpips.lpips(x, y, weights="random")
    >>> bool(torch.isclose(kernels.lpips.against(x, kept), direct, rtol=1e-4))
    True
    """
    if not isinstance(kept, Features):
        raise TypeError(f"kept is {type(kept).__name__}; accepted: what semnr_kernels.lpips.features returns")
    checks.choice("nan", nan, ("error", "propagate"))
    checked = checks.pair(x, x, data_range=kept.settings.data_range, nan=nan)
    _check_image("x", checked.x)
    if tuple(checked.x.shape[-2:]) != kept.size or kept.count not in (1, checked.x.shape[0]):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and kept holds {kept.count} images of {kept.size[0]} x {kept.size[1]}; "
            "accepted: the same size, and as many images or one kept"
        )
    call = registry.Call.of("lpips_against", checked.x, *kept.maps, settings=kept.settings)
    found = registry.choose(call, backend).run(checked.x, kept)
    known = finite(checked.x) & kept.finite
    found = replace(found, rows=torch.where(known, found.rows, torch.nan))
    if nan == "error":
        _require_finite(found, None, kept.network, x=checked.x)
    return checks.reduce(found.rows, reduction, checked)


@library.full_precision
def with_dists(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float | None = None,
    dtype: torch.dtype | None = None,
    weights: WeightsArgument = None,
    linear: WeightsArgument = None,
    memory_budget: int | str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """DISTS and LPIPS of VGG16 at native size, with the first two convolutions computed once for both.

    There is no mask and no gradient. On a GPU, or where a whole pair does not fit into the memory budget, the two run
    one after the other.

    Parameters
    ----------
    x, y, data_range, dtype, weights, linear, memory_budget
        As for `lpips`; `weights` are those of VGG16.

    Returns
    -------
    Tensor
        DISTS, (N,) float64.
    Tensor
        LPIPS, (N,) float64.

    Raises
    ------
    TypeError, ValueError, WeightsUnavailable
        As `lpips`.

    Examples
    --------
    >>> of_dists, of_lpips = kernels.lpips.with_dists(x, y, weights="random")
    >>> of_dists.shape, of_lpips.shape
    (torch.Size([1]), torch.Size([1]))
    """
    checked = checks.pair(x, y, data_range=data_range)
    _check_image("x", checked.x)
    budget, wanted = _budget(memory_budget, x.device), _network_dtype(x.dtype, dtype)
    settings = Settings("vgg", None, budget, wanted, checked.data_range)
    network = _network(settings, weights, linear, x.device)
    options: dict[str, Any] = {"data_range": checked.data_range, "weights": weights, "dtype": dtype}
    options |= {"reduction": "none", "memory_budget": budget}
    with torch.no_grad():
        made = None
        if x.device.type == "cpu" and registry.backends()["native"] == "available":
            net = dists.network_for(dists.load(weights), wanted, x.device)
            made = together.both(checked.x, checked.y, checked.data_range, network, net, budget)
        if made is None:
            one = dists.dists(checked.x, checked.y, **options)
            other = lpips(checked.x, checked.y, net="vgg", linear=linear, **options)
            made = one.reshape(-1), other.reshape(-1)
    if not all(bool(torch.isfinite(rows).all()) for rows in made):
        checks.raise_if_nonfinite(x=checked.x, y=checked.y)
    return made


def published(net: str = "alex") -> dict[str, str]:
    """Which published weights a score is computed with: the network, and the SHA-256 of its two sets of weights.

    Parameters
    ----------
    net : {"alex", "vgg"}
        The network.

    Returns
    -------
    dict of str
        "net", "weights_sha256" of the convolutions and "linear_sha256" of the linear layers.

    Raises
    ------
    WeightsUnavailable
        They are not in the cache, or damaged.

    Examples
    --------
    >>> kernels.lpips.published("vgg")["net"]  # doctest: +SKIP
    'vgg'
    """
    trunk, linear = pretrained.load(None, TRUNKS[net][0], "LPIPS"), pretrained.load(None, LPIPS, "LPIPS")
    return {"net": net, "weights_sha256": trunk.sha256, "linear_sha256": linear.sha256}


def _network(settings: Settings, weights: WeightsArgument, linear: WeightsArgument, device: torch.device) -> Network:
    random = linear is None and isinstance(weights, str) and weights == "random"
    trunk: Weights = pretrained.load(weights, TRUNKS[settings.net][0], "LPIPS")
    layers: Weights = pretrained.load("random" if random else linear, LPIPS, "LPIPS")
    return network_for(settings.net, trunk, layers, settings.dtype, device)


def _as_passed(shown: torch.Tensor, checked: checks.Pair) -> torch.Tensor:
    shown = shown if checked.x.dtype == torch.float64 else shown.float()
    return shown.reshape(shown.shape[4 - len(checked.lead) - 2 :])


def _require_finite(found: Distance, valid: torch.Tensor | None, network: Network, **images: torch.Tensor) -> None:
    bad = ~torch.isfinite(tensor_kinds.bare(found.rows))
    if not bool(bad.any()):
        return
    checks.raise_if_nonfinite(**images)
    if valid is not None:  # without a valid pixel there is no distance
        bad = bad & valid.any(dim=3).any(dim=2).any(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"dtype is {network.dtype}, and the network's values leave its range; accepted: a wider dtype "
            f'({_wider(network.dtype)}), a data_range nearer to the pixels\' values, or nan="propagate"'
        )


def _flags(network: Network, channels: int, masked: bool) -> tuple[str, ...]:
    flags = []
    if not network.calibrated:
        flags.append("uncalibrated: random network weights, values mean nothing beside those of the trained network")
    elif not network.published:
        sources = f"{network.weights.source} or {network.linear_weights.source}"
        flags.append(f"weights taken on trust: {sources} does not hold the published tensors")
    if channels == 1:
        flags.append("one channel replicated to three")
    if masked:
        flags.append("approximate: masked pixels take the reference's local mean")
    return tuple(flags)
