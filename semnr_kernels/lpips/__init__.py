"""LPIPS: the contract (checks, weights, choice of backend, reduction). Formulas are in README.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from .. import _checks, _library, _registry, _tensors, pretrained
from .._result import Result
from ..dists import RESIZES, _budget, _check_image, _network_dtype, _wider
from ..pretrained import LPIPS, Weights, WeightsArgument
from . import native, reference
from .network import TRUNKS, Network, network_for
from .sums import Distance, Features, Settings, finite

for _op in ("lpips", "lpips_features", "lpips_against"):
    _run = _op.removeprefix("lpips_")
    _registry.register(_op, "reference", getattr(reference, _run))
    # oneDNN picks the instruction set itself: no variant of its own for each
    _registry.register(_op, "native", getattr(native, _run), native.supports, lambda: native.UNSUPPORTED)

__all__ = ["Distance", "Features", "against", "features", "lpips"]


@_library.full_precision
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
        dict of that network, or "random": seeded, flagged "uncalibrated"; the linear layers too, unless given.
    linear
        The linear layers. None: the published ones from the cache (`semnr weights fetch lpips`). A path or a state dict
        of "alex.0" to "vgg.4", or "random".
    resize
        None (default): native size, as the authors' code. "authors", "piq": as in `dists`.
    dtype
        What the network computes in: torch.float32, float64, bfloat16 or float16. None: float64 for float64 images,
        float32 for all others. Norms and differences stay in float32 or float64.
    mask
        Valid pixels, (H, W), (N, H, W) or (N, 1, H, W). Masked ones take the reference's local mean in both images,
        positions count by their share of valid pixels; flagged "approximate". NaN where no pixel is valid.
    reduction
        "mean", "sum" or "none" (one value an image).
    return_map
        Also the distance at each pixel, (N, 1, H, W) or with the leading dimensions that were passed: each map's
        differences, bilinear between its positions, added up.
    details
        A `Result`: component "layers", (N, 5), is what each map adds; settings name the weights.
    nan, overshoot, backend
        As in `semnr.metrics`.
    memory_budget
        Bytes, or "2GiB", for what lies between the images and the score; default 1 GiB, on a GPU a quarter of its
        memory. Images of any size are scored, a band of rows at a time. Autograd keeps all activations.

    Raises
    ------
    TypeError, ValueError
        The argument, what it was, what is accepted.
    WeightsUnavailable
        No weights, or a file that is truncated, altered, of the wrong shape, or holds code.
    """
    checked = _checks.pair(x, y, data_range=data_range, mask=mask, nan=nan, overshoot=overshoot)
    _check_image("x", checked.x)
    settings = _settings(net, resize, checked.data_range, memory_budget, x.device, return_map)
    network = _network(net, weights, linear, _network_dtype(x.dtype, dtype), x.device)
    masked = checked.valid is not None
    options = {"resize": resize, "dtype": network.dtype, "map": return_map}
    call = _registry.Call.of("lpips", checked.x, checked.y, masked=masked, **options)
    found = _registry.choose(call, backend).run(checked.x, checked.y, checked.valid, network, settings)
    # a ReLU may make a number of a NaN: what is none among the pixels is none as a score
    known = finite(checked.x, checked.valid) & finite(checked.y, checked.valid)
    found = replace(found, rows=torch.where(known, found.rows, torch.nan))
    if nan == "error":
        _require_finite(found, checked.valid, network, x=checked.x, y=checked.y)
    value = _checks.reduce(found.rows, reduction, checked)
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
            "dtype": _checks.dtype_name(network.dtype),
            "reduction": reduction,
            "nan": nan,
            "overshoot": overshoot,
        },
    )


@_library.full_precision
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

    480 bytes a pixel for VGG16 in float32, 26 for AlexNet. Arguments as in `lpips`; nan: "error" or "propagate".

    Raises
    ------
    TypeError, ValueError, WeightsUnavailable
        As `lpips`.
    """
    _checks.choice("nan", nan, ("error", "propagate"))
    image4 = _checks.as_image("image", image)
    _check_image("image", image4)
    if nan == "error":
        _checks.raise_if_nonfinite(image=image4)
    scale = _checks.as_data_range(image.dtype, data_range)
    settings = _settings(net, resize, scale, memory_budget, image.device, want_map=False)
    network = _network(net, weights, linear, _network_dtype(image.dtype, dtype), image.device)
    call = _registry.Call.of("lpips_features", image4, dtype=network.dtype)
    return _registry.choose(call, backend).run(image4, network, settings)


@_library.full_precision
def against(
    x: torch.Tensor, kept: Features, *, reduction: str = "mean", nan: str = "error", backend: str | None = "auto"
) -> torch.Tensor:
    """`lpips(x, y)` where `kept` is `features(y)`: half of the network's work. A single kept image serves each of `x`.

    Raises
    ------
    TypeError, ValueError
        Also a size or number of images other than that of `kept`.
    """
    if not isinstance(kept, Features):
        raise TypeError(f"kept is {type(kept).__name__}; accepted: what semnr_kernels.lpips.features returns")
    _checks.choice("nan", nan, ("error", "propagate"))
    checked = _checks.pair(x, x, data_range=kept.settings.data_range, nan=nan)
    _check_image("x", checked.x)
    if tuple(checked.x.shape[-2:]) != kept.size or kept.count not in (1, checked.x.shape[0]):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and kept holds {kept.count} images of {kept.size[0]} x {kept.size[1]}; "
            "accepted: the same size, and as many images or one kept"
        )
    call = _registry.Call.of("lpips_against", checked.x, *kept.maps, dtype=kept.network.dtype)
    found = _registry.choose(call, backend).run(checked.x, kept)
    known = finite(checked.x) & kept.finite
    found = replace(found, rows=torch.where(known, found.rows, torch.nan))
    if nan == "error":
        _require_finite(found, None, kept.network, x=checked.x)
    return _checks.reduce(found.rows, reduction, checked)


def _settings(
    net: str, resize: str | None, scale: float, budget: int | str | None, device: torch.device, want_map: bool
) -> Settings:
    _checks.choice("net", net, tuple(TRUNKS))
    _checks.choice("resize", resize, RESIZES)
    return Settings(scale, resize, want_map, _budget(budget, device))


def _network(
    net: str, weights: WeightsArgument, linear: WeightsArgument, dtype: torch.dtype, device: torch.device
) -> Network:
    random = linear is None and isinstance(weights, str) and weights == "random"
    trunk: Weights = pretrained.load(weights, TRUNKS[net][0], "LPIPS")
    layers: Weights = pretrained.load("random" if random else linear, LPIPS, "LPIPS")
    return network_for(net, trunk, layers, dtype, device)


def _as_passed(shown: torch.Tensor, checked: _checks.Pair) -> torch.Tensor:
    shown = shown if checked.x.dtype == torch.float64 else shown.float()
    return shown.reshape(shown.shape[4 - len(checked.lead) - 2 :])


def _require_finite(found: Distance, valid: torch.Tensor | None, network: Network, **images: torch.Tensor) -> None:
    bad = ~torch.isfinite(_tensors.bare(found.rows))
    if not bool(bad.any()):
        return
    _checks.raise_if_nonfinite(**images)
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
