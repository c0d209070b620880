"""DISTS: the contract (checks, weights, choice of backend, reduction). Formulas are in README.md."""

from __future__ import annotations

import os
from typing import Any

import torch

from .. import _checks, _registry
from .._result import Result
from . import reference
from .network import network_for
from .reference import Distance, Features
from .weights import State, Weights, load

_registry.register("dists", "reference", reference.dists)
_registry.register_triton("dists", "dists")

__all__ = ["Distance", "Features", "distance", "dists", "features"]

SMALLEST = 32  # pixels a side: two are left at the last stage
MEMORY_BUDGET = 2**30
RESIZES = (None, "authors", "piq")
WeightsArgument = str | os.PathLike[str] | State | Weights | None


def dists(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float | None = None,
    weights: WeightsArgument = None,
    resize: str | None = None,
    dtype: torch.dtype | None = None,
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    details: bool = False,
    nan: str = "error",
    overshoot: str = "keep",
    backend: str | None = "auto",
    memory_budget: int | None = None,
) -> Any:
    """Deep image structure and texture similarity of candidate `x` to reference `y`: a distance, 0 for identical.

    Ding, Ma, Wang, Simoncelli, "Image Quality Assessment: Unifying Structure and Texture Similarity", 2020
    (arXiv 2004.07728), eq. 6 to 8. At most about 1; above 1 only for features that are anticorrelated. Differentiable.

    Parameters
    ----------
    x, y
        (H, W), (C, H, W) or (N, C, H, W), one or three channels (RGB); uint8, uint16 or floating; sides of at least 32.
        One channel is replicated to three, and the result's flags say so.
    data_range
        Width of the intensity scale, mapped to 0-1. Required for floating images.
    weights
        None: torchvision's VGG16 from its cache, checked by its SHA-256; nothing is downloaded. A path to a .pth or
        .safetensors file, or a state dict: VGG16's convolutions. "random": seeded and of the same topology, flagged
        "uncalibrated": its values mean nothing beside those of the trained network.
    resize
        None (default): native size. "authors": short side to 256, antialiased, where larger. "piq": bilinear without
        antialiasing. Values at different settings do not compare.
    dtype
        What the network computes in: torch.float32, float64, bfloat16 or float16. None: float64 for float64 images,
        float32 for all others. Statistics stay in float32 or float64.
    mask
        Valid pixels, (H, W), (N, H, W) or (N, 1, H, W). Masked ones take the reference's local mean in both images
        (the network sees every pixel), statistics run over valid positions only; flagged "approximate". NaN where no
        pixel is valid.
    reduction
        "mean", "sum" or "none" (one value an image).
    details
        A `Result`: components "structure" and "texture", (N, 6), are what the means and the variances of each map
        (the image, relu1_2 to relu5_3) add to the distance; settings name the weights.
    nan, overshoot, backend
        As in `semnr.metrics`.
    memory_budget
        Bytes of activations; default 1 GiB. Sets how many pairs go through the network at once, at least one.
        Autograd keeps every pair's activations, whatever the budget.

    Raises
    ------
    TypeError, ValueError
        The argument, what it was, what is accepted.
    WeightsUnavailable
        No weights, or a file that is truncated, altered, of the wrong shape, or holds code.
    """
    checked = _checks.pair(x, y, data_range=data_range, mask=mask, nan=nan, overshoot=overshoot)
    _check_image("x", checked.x)
    _checks.choice("resize", resize, RESIZES)
    budget = MEMORY_BUDGET if memory_budget is None else _checks.positive_int("memory_budget", memory_budget)
    net = network_for(load(weights), _network_dtype(x.dtype, dtype), x.device)
    call = _registry.Call.of(
        "dists", checked.x, checked.y, masked=checked.valid is not None, resize=resize, dtype=net.dtype
    )
    run = _registry.choose(call, backend).run
    found = run(checked.x, checked.y, checked.data_range, checked.valid, net, resize, budget)
    if nan == "error" and not bool(torch.isfinite(found.rows.detach()).all()):
        _checks.raise_if_nonfinite(x=checked.x, y=checked.y)
    value = _checks.reduce(found.rows, reduction, checked)
    if not details:
        return value
    valid = checked.valid
    return Result(
        value,
        checked.data_range,
        components={"structure": found.structure, "texture": found.texture},
        coverage=None if valid is None else valid.double().mean(dim=(1, 2, 3)),
        clipped_fraction=checked.clipped_fraction,
        flags=_flags(net.weights, channels=checked.x.shape[1], masked=valid is not None),
        settings={
            "weights": net.weights.source,
            "weights_sha256": net.weights.sha256,
            "calibrated": net.weights.calibrated,
            "resize": resize,
            "dtype": _checks.dtype_name(net.dtype),
            "reduction": reduction,
            "nan": nan,
            "overshoot": overshoot,
        },
    )


def features(
    image: torch.Tensor,
    *,
    data_range: float | None = None,
    weights: WeightsArgument = None,
    resize: str | None = None,
    dtype: torch.dtype | None = None,
    mask: torch.Tensor | None = None,
    reference_image: torch.Tensor | None = None,
    nan: str = "error",
) -> Features:
    """The maps of one batch, to be computed once for a reference and kept: about 500 bytes a pixel in float32.

    Arguments as in `dists`. With a mask, the masked pixels take the local mean of `reference_image` (pass the
    reference when `image` is a candidate), or of the image itself. nan: "error" or "propagate".

    Raises
    ------
    TypeError, ValueError, WeightsUnavailable
        As `dists`.
    """
    _checks.choice("nan", nan, ("error", "propagate"))
    _checks.choice("resize", resize, RESIZES)
    image4 = _checks.as_image("image", image)
    _check_image("image", image4)
    scale, valid = _checks.as_data_range(image.dtype, data_range), _checks.as_mask(mask, image4)
    other = None if reference_image is None else _checks.as_image("reference_image", reference_image)
    if other is not None and other.shape != image4.shape:
        raise ValueError(f"reference_image has shape {tuple(other.shape)}; accepted: {tuple(image4.shape)}, as image")
    if valid is not None and image.dtype in _checks.FLOAT_DTYPES:
        image4 = torch.where(valid, image4, torch.zeros((), dtype=image4.dtype, device=image4.device))
    if nan == "error":
        _checks.raise_if_nonfinite(image=image4)
    net = network_for(load(weights), _network_dtype(image.dtype, dtype), image.device)
    return reference.features(image4, scale, valid, other, net, resize)


def distance(fx: Features, fy: Features) -> Distance:
    """Compare the maps of a candidate with those of a reference: `rows` holds a distance an image.

    `dists(x, y)` is the mean of `distance(features(x), features(y)).rows`. One of the two may hold a single image,
    which is then compared with each of the other's.

    Raises
    ------
    ValueError
        The two were made with different weights, dtype or resize, or at different sizes.
    """
    if fx.resize != fy.resize or fx.network.dtype != fy.network.dtype:
        made = [f"resize={f.resize!r}, dtype={_checks.dtype_name(f.network.dtype)}" for f in (fx, fy)]
        raise ValueError(f"fx was made with {made[0]} and fy with {made[1]}; accepted: the same settings")
    if fx.network is not fy.network and fx.network.fingerprint != fy.network.fingerprint:
        raise ValueError("fx and fy were made with different weights; accepted: the same weights")
    sx, sy = tuple(fx.maps[0].shape), tuple(fy.maps[0].shape)
    if sx[1:] != sy[1:] or (sx[0] != sy[0] and 1 not in (sx[0], sy[0])):
        raise ValueError(f"fx has shape {sx} and fy {sy}; accepted: the same size, and one image or as many")
    return reference.compare(fx, fy)


def _check_image(name: str, image: torch.Tensor) -> None:
    _, channels, height, width = image.shape
    if channels not in (1, 3):
        raise ValueError(f"{name} has {channels} channels; accepted: 1 (grey) or 3 (RGB)")
    if min(height, width) < SMALLEST:
        raise ValueError(f"{name} is {height} x {width}; accepted: sides of at least {SMALLEST} pixels")


def _network_dtype(image: torch.dtype, dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.float64 if image == torch.float64 else torch.float32
    if dtype not in _checks.FLOAT_DTYPES:
        raise ValueError(f"dtype is {dtype!r}; accepted: torch.float32, float64, bfloat16, float16 or None")
    return dtype


def _flags(weights: Weights, channels: int, masked: bool) -> tuple[str, ...]:
    flags = []
    if not weights.calibrated:
        flags.append("uncalibrated: random network weights, values mean nothing beside those of the trained network")
    elif not weights.published:
        flags.append(f"weights taken on trust: {weights.source} is not the file that torchvision publishes")
    if channels == 1:
        flags.append("one channel replicated to three")
    if masked:
        flags.append("approximate: masked pixels take the reference's local mean")
    return tuple(flags)
