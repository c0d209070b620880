"""DISTS: the checked calls, the weights, the choice of the backend and the reduction. The formulas are in README.md."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from .. import checks, graphs, library, outputs, registry, tensor_kinds
from ..result import Result
from . import native, reference
from .network import Network, network_for
from .score import Distance, Features, Settings
from .sums import CELL
from .weights import Weights, WeightsArgument, load

for _op in ("dists", "dists_features", "dists_compare"):
    _run = _op.removeprefix("dists_")
    registry.register(_op, "reference", getattr(reference, _run))
    registry.register_native(_op, getattr(native, _run), native.supports, native.UNSUPPORTED)
    registry.register_triton(_op, _run, folder="dists")

__all__ = ["Distance", "Features", "against", "distance", "dists", "features", "similarity"]

SMALLEST = 32  # pixels a side: two are left at the last stage
MEMORY_BUDGET = 2**30
MAP_WINDOW = 80  # pixels a side: five positions of the last stage
RESIZES = (None, "authors", "piq")


def _prepare(a: Mapping[str, Any]) -> tuple[checks.Pair, registry.Call]:
    checked = checks.pair_of(a)
    _check_image("x", checked.x)
    settings = _settings(a, checked.x, checked.data_range)
    masked = checked.valid is not None
    return checked, registry.Call.of("dists", checked.x, checked.y, settings=settings, masked=masked)


def _settings(a: Mapping[str, Any], image: torch.Tensor, data_range: float, **fixed: Any) -> Settings:
    """Of a contract's arguments; `fixed`: what is not theirs to say."""
    own = {
        "memory_budget": _budget(a["memory_budget"], image.device),
        "window": _window(a["map_window"]) if a.get("return_map") else None,
        "data_range": data_range,
        "store": a.get("store"),
        **fixed,
    }
    if "resize" not in fixed:
        checks.choice("resize", a["resize"], RESIZES)
        own |= {"resize": a["resize"], "dtype": _network_dtype(image.dtype, a["dtype"])}
    return Settings(**own)


def _outputs(a: Mapping[str, Any]) -> outputs.Outputs:
    shape = a["x"].shape
    return outputs.with_parts(a, {"map": lambda: outputs.single_plane(a, *shape[-2:])} if a["return_map"] else {})


def _no_place_in_a_graph(weights: object) -> str | None:
    plain = weights is None or isinstance(weights, str | os.PathLike)
    return None if plain else "weights that are neither None nor a path nor a name have no place in a graph"


def encoded_weights(name: str) -> library.Encoding:
    """How an argument of this name that says which weights travels in a schema."""
    return library.Encoding(
        (),
        {name: "str?"},
        lambda weights: {name: weights},
        lambda parts: parts[name],
        _no_place_in_a_graph,
    )


@library.op(outputs=_outputs, call=lambda a: _prepare(a)[1], encodings={"weights": encoded_weights("weights")})
@library.full_precision
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
    return_map: bool = False,
    map_window: int = MAP_WINDOW,
    details: bool = False,
    nan: str = "error",
    overshoot: str = "keep",
    backend: str | None = "auto",
    memory_budget: int | str | None = None,
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
        None: the published weights of VGG16 from the cache (`semnr weights fetch vgg16`), checked by their SHA-256;
        nothing is downloaded. A path to a .pth or .safetensors file, or a state dict: VGG16's convolutions. "random":
        seeded weights of the same shapes. The result then has the flag "uncalibrated", and its values cannot be
        compared with those of the trained network.
    resize
        None (default): native size. "authors": short side to 256, antialiased, where it is larger. "piq": bilinear
        without antialiasing. Values at different settings cannot be compared.
    dtype
        What the network computes in: torch.float32, float64, bfloat16 or float16. None: float64 for float64 images,
        float32 for all others. Statistics stay in float32 or float64.
    mask
        Bool, (H, W), (N, H, W) or (N, 1, H, W): True where a pixel is valid. Masked pixels take the reference's local
        mean in both images, because the network needs every pixel. Statistics are taken over valid positions only, and
        the result has the flag "approximate". NaN where no pixel is valid.
    reduction
        "mean", "sum" or "none" (one value an image).
    return_map
        Also return the distance of the window around each pixel, (N, 1, H, W) or with the leading dimensions that were
        passed: it shows where structure or texture differs. Means, variances and covariances are those of the window
        instead of the whole map's; 0 where they agree. The mean of the map is not the score, because a variance over
        the image also contains the differences between windows. A window that covers the image gives the score
        everywhere.
    map_window
        Side of the window in pixels, an odd multiple of 16; it is cut where the image ends. The map has one value every
        16 pixels and is bilinear in between.
    details
        Return a `Result`: components "structure" and "texture", (N, 6), are what the means and the variances of each
        map (the image, relu1_2 to relu5_3) add to the distance; the settings name the weights.
    nan
        "error", "propagate" or "omit": pixels that are not finite are refused, passed on as NaN, or masked.
    overshoot
        "keep", "clip" or "error": values outside [0, data_range] are taken as they are, clipped, or refused.
    backend
        "auto", or a name of `backends()`. A named backend never falls back.
    memory_budget
        Bytes, or text such as "2GiB", for everything that is held between the images and the score. Default: 1 GiB, on
        a GPU a quarter of its memory. As many pairs go through the network at once as fit. A pair that does not fit
        goes through it a band of rows at a time, to the same value (within 1e-5; measured 1e-7), so any size can be
        scored. Autograd keeps all activations, whatever the budget.

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
    >>> kernels.dists.dists(x, y, weights="random").shape  # random weights: the value itself says nothing
    torch.Size([])
    """
    given = locals()
    checked, call = _prepare(given)
    net = network_for(load(weights), call.settings.dtype, x.device)
    implementation = registry.choose(call, backend)
    if checked.valid is None:
        # the graph holds the network, so that its number stays its own
        images, key = (checked.x, checked.y), (implementation.backend, id(net), repr(call.settings))
        found = graphs.run("dists", implementation.run, images, None, net, call.settings, key=key)
    else:
        found = implementation.run(checked.x, checked.y, checked.valid, net, call.settings)
    if nan == "error":
        _require_finite(found, checked.valid, net, x=checked.x, y=checked.y)
    return _result(given, found, checked, net, call.settings)


@library.full_precision
def against(
    x: torch.Tensor,
    kept: Features,
    *,
    reduction: str = "mean",
    return_map: bool = False,
    map_window: int = MAP_WINDOW,
    details: bool = False,
    nan: str = "error",
    overshoot: str = "keep",
    backend: str | None = "auto",
    memory_budget: int | str | None = None,
) -> Any:
    """`dists(x, y)` where `kept` is `features(y)`: half of the network's work, and the maps of `x` are not kept.

    Parameters
    ----------
    x : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        The candidate, of the size and on the device of `kept`.
    kept : Features
        What `features` returned for the reference. Its weights, dtype, resize, mask and data_range apply. Where it
        holds a single image, each image of `x` is compared with it.
    nan : {"error", "propagate"}
        Pixels that are not finite: refused, or passed on as NaN.
    reduction, return_map, map_window, details, overshoot, backend, memory_budget
        As for `dists`.

    Returns
    -------
    Tensor or Result
        As `dists`.

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As `dists`; also a size, number of images or device other than that of `kept`.

    Examples
    --------
    >>> kept = kernels.dists.features(y, weights="random")
    >>> direct = kernels.dists.dists(x, y, weights="random")
    >>> bool(torch.isclose(kernels.dists.against(x, kept), direct, rtol=1e-4))
    True
    """
    given = locals()
    checks.choice("nan", nan, ("error", "propagate"))
    if not isinstance(kept, Features):
        raise TypeError(f"kept is {type(kept).__name__}; accepted: what semnr_kernels.dists.features returns")
    checked = checks.pair_of(given, y=x, data_range=kept.data_range)
    _check_image("x", checked.x)
    count = kept.maps[0].shape[0]
    if tuple(checked.x.shape[-2:]) != kept.size or count not in (1, checked.x.shape[0]):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and kept holds {count} images of {kept.size[0]} x {kept.size[1]}; "
            "accepted: the same size, and as many images or one kept"
        )
    net, masked = kept.network, kept.shares is not None
    settings = _settings(given, checked.x, checked.data_range, resize=kept.resize, dtype=net.dtype)
    call = registry.Call.of("dists", checked.x, *kept.maps, settings=settings, masked=masked)
    found = registry.choose(call, backend).run(checked.x, kept, None, net, settings)
    if kept.filled is not None:
        checked = replace(checked, valid=kept.filled[1].expand(checked.x.shape[0], -1, -1, -1))
    if nan == "error":
        _require_finite(found, checked.valid, net, x=checked.x, kept=kept.maps[0])
    return _result(given, found, checked, net, settings)


@library.full_precision
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
    store: torch.dtype | None = None,
    backend: str | None = "auto",
    memory_budget: int | str | None = None,
) -> Features:
    """The maps of one batch, to be computed once for a reference and kept: 488 bytes a pixel in float32, 244 in half.

    Parameters
    ----------
    image : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        One or three channels; uint8, uint16 or floating; sides of at least 32 pixels.
    reference_image : Tensor, of the shape of `image`, optional
        With a mask: the image whose local mean the masked pixels take. Pass the reference when `image` is a candidate.
        Default: `image` itself.
    nan : {"error", "propagate"}
        Pixels that are not finite: refused, or passed on as NaN.
    store : torch.dtype, optional
        In which the maps are kept. Default: the network's. torch.bfloat16 after a float32 network halves the memory,
        for an error of the score of at most 2e-3 (measured 1e-5).
    memory_budget : int or str, optional
        Bytes, or text such as "2GiB", for what is held between the image and its maps.
    data_range, weights, resize, dtype, mask, backend
        As for `dists`.

    Returns
    -------
    Features

    Raises
    ------
    TypeError, ValueError, WeightsUnavailable, BackendUnavailable
        As `dists`.

    Examples
    --------
    >>> kept = kernels.dists.features(y, weights="random")
    >>> [tuple(m.shape[1:]) for m in kept.maps[:3]]
    [(3, 192, 192), (64, 192, 192), (128, 96, 96)]
    """
    given = locals()
    checks.choice("nan", nan, ("error", "propagate"))
    checks.choice("resize", resize, RESIZES)
    image4 = checks.as_image("image", image)
    _check_image("image", image4)
    scale, valid = checks.as_data_range(image.dtype, data_range), checks.as_mask(mask, image4)
    other = None if reference_image is None else checks.as_image("reference_image", reference_image)
    if other is not None and other.shape != image4.shape:
        raise ValueError(f"reference_image has shape {tuple(other.shape)}; accepted: {tuple(image4.shape)}, as image")
    if valid is not None and image.dtype in checks.FLOAT_DTYPES:
        image4 = torch.where(valid, image4, torch.zeros((), dtype=image4.dtype, device=image4.device))
    if nan == "error":
        checks.raise_if_nonfinite(image=image4)
    if store not in (None, *checks.FLOAT_DTYPES):
        raise ValueError(f"store is {store!r}; accepted: torch.float32, float64, bfloat16, float16 or None")
    settings = _settings(given, image4, scale)
    net = network_for(load(weights), settings.dtype, image.device)
    if (net.dtype == torch.float64) != ((store or net.dtype) == torch.float64):
        raise ValueError(f"store is {store} after a network in {net.dtype}; accepted: float64 after float64 only")
    call = registry.Call.of("dists_features", image4, other, settings=settings, masked=valid is not None)
    return registry.choose(call, backend).run(image4, valid, other, net, settings)


@library.full_precision
def similarity(fx: Features, fy: Features, *, map_window: int | None = None, backend: str | None = "auto") -> Distance:
    """Compare the maps of a candidate with those of a reference.

    `dists(x, y)` is the mean of `similarity(features(x), features(y)).rows`. One of the two may hold a single image,
    which is then compared with each image of the other.

    Parameters
    ----------
    fx, fy : Features
        Of the candidate and of the reference, made with the same weights, dtype and resize.
    map_window : int, optional
        Pixels, an odd multiple of 16: also return the map of windows of this side, as `dists` does.
    backend : str, optional
        As for `dists`.

    Returns
    -------
    Distance
        Its `rows` hold one distance an image.

    Raises
    ------
    ValueError
        The two were made with different weights, dtype or resize, or at different sizes.

    Examples
    --------
    >>> fx, fy = (kernels.dists.features(image, weights="random") for image in (x, y))
    >>> kernels.dists.similarity(fx, fy).rows.shape
    torch.Size([1])
    """
    if fx.resize != fy.resize or fx.network.dtype != fy.network.dtype:
        made = [f"resize={f.resize!r}, dtype={checks.dtype_name(f.network.dtype)}" for f in (fx, fy)]
        raise ValueError(f"fx was made with {made[0]} and fy with {made[1]}; accepted: the same settings")
    if fx.network is not fy.network and fx.network.weights.sha256 != fy.network.weights.sha256:
        raise ValueError("fx and fy were made with different weights; accepted: the same weights")
    sx, sy = tuple(fx.maps[0].shape), tuple(fy.maps[0].shape)
    if sx[1:] != sy[1:] or (sx[0] != sy[0] and 1 not in (sx[0], sy[0])):
        raise ValueError(f"fx has shape {sx} and fy {sy}; accepted: the same size, and one image or as many")
    settings = Settings(dtype=fx.network.dtype, window=None if map_window is None else _window(map_window))
    call = registry.Call.of("dists_compare", *fx.maps, *fy.maps, settings=settings)
    return registry.choose(call, backend).run(fx, fy, settings)


distance = similarity  # its former name


def _check_image(name: str, image: torch.Tensor) -> None:
    _, channels, height, width = image.shape
    if channels not in (1, 3):
        raise ValueError(f"{name} has {channels} channels; accepted: 1 (grey) or 3 (RGB), as (C, H, W)")
    if min(height, width) < SMALLEST:
        raise ValueError(f"{name} is {height} x {width}; accepted: sides of at least {SMALLEST} pixels")


def _result(a: Mapping[str, Any], found: Distance, checked: checks.Pair, net: Network, settings: Settings) -> Any:
    value = checks.reduce(found.rows, a["reduction"], checked)
    if not (a["return_map"] or a["details"]):
        return value
    valid, shown = checked.valid, found.map
    if shown is not None:
        shown = shown if checked.x.dtype == torch.float64 else shown.float()
        shown = shown.reshape(shown.shape[4 - len(checked.lead) - 2 :])
    return Result(
        value,
        checked.data_range,
        map=shown,
        components={"structure": found.structure, "texture": found.texture} if a["details"] else None,
        coverage=None if valid is None else valid.double().mean(dim=(1, 2, 3)),
        clipped_fraction=checked.clipped_fraction,
        flags=_flags(net.weights, channels=checked.x.shape[1], masked=valid is not None),
        settings={
            "weights": net.weights.source,
            "weights_sha256": net.weights.sha256,
            "calibrated": net.weights.calibrated,
            "resize": settings.resize,
            "dtype": checks.dtype_name(net.dtype),
            **({"map_window": a["map_window"]} if a["return_map"] else {}),
            "reduction": a["reduction"],
            "nan": checked.nan,
            "overshoot": a["overshoot"],
        },
    )


def _require_finite(found: Distance, valid: torch.Tensor | None, net: Network, **images: torch.Tensor) -> None:
    bad = ~torch.isfinite(tensor_kinds.bare(found.rows))
    if not bool(bad.any()):
        return
    checks.raise_if_nonfinite(**images)
    if valid is not None:  # without a valid pixel there is no distance
        bad = bad & valid.any(dim=3).any(dim=2).any(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"dtype is {net.dtype}, and the network's values leave its range; accepted: a wider dtype "
            f'({_wider(net.dtype)}), a data_range nearer to the pixels\' values, or nan="propagate"'
        )


def _wider(dtype: torch.dtype) -> str:
    return "torch.bfloat16, float32 or float64" if dtype == torch.float16 else "torch.float64"


def _budget(value: int | str | None, device: torch.device) -> int:
    """Bytes: 1073741824, "512MiB", "2GiB". None: of a device a quarter of all its memory, whatever is in use."""
    if value is None:
        if device.type != "cuda":
            return MEMORY_BUDGET
        return max(MEMORY_BUDGET, torch.cuda.get_device_properties(device).total_memory // 4)
    if isinstance(value, str):
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("GB", 10**9), ("MB", 10**6)):
            number = value.strip().removesuffix(unit)
            if number != value.strip() and number.strip().replace(".", "", 1).isdigit() and float(number) > 0:
                return int(float(number) * size)
    elif isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError(f"memory_budget is {value!r}; accepted: bytes above 0, or a text such as '512MiB' or '2GiB'")


def _window(value: int) -> int:
    """Cells across a window of `value` pixels."""
    if isinstance(value, bool) or not isinstance(value, int) or value < CELL or value % (2 * CELL) != CELL:
        raise ValueError(f"map_window is {value!r}; accepted: an odd multiple of {CELL} pixels ({CELL}, 48, 80, ...)")
    return value // CELL


def _network_dtype(image: torch.dtype, dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.float64 if image == torch.float64 else torch.float32
    if dtype not in checks.FLOAT_DTYPES:
        raise ValueError(f"dtype is {dtype!r}; accepted: torch.float32, float64, bfloat16, float16 or None")
    return dtype


def _flags(weights: Weights, channels: int, masked: bool) -> tuple[str, ...]:
    flags = []
    if not weights.calibrated:
        flags.append("uncalibrated: random network weights, values mean nothing beside those of the trained network")
    elif not weights.published:
        flags.append(f"weights taken on trust: {weights.source} does not hold the published tensors of VGG16")
    if channels == 1:
        flags.append("one channel replicated to three")
    if masked:
        flags.append("approximate: masked pixels take the reference's local mean")
    return tuple(flags)
