"""The arguments of a run, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from semnr_kernels import WeightsUnavailable, lpips
from semnr_kernels.checks import as_data_range
from semnr_kernels.dists.weights import load
from semnr_kernels.pretrained import VGG16
from semnr_kernels.registry import check_named

from ..columns import ASKED, METRICS
from ..noise.model import check_scan_axis
from ..tiles import open_tiles
from ..tiles.source import TileSource
from ..tiles.together import together
from ..trust.columns import Trust
from ..wafers import Wafer
from .stream import Inputs


def count_of(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; accepted: an integer of at least 1")
    return value


def metrics_of(metrics: Sequence[str] | None) -> tuple[str, ...]:
    """As asked for, in one order; None: the five axes."""
    if metrics is None:
        return METRICS
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    unknown = [m for m in names if m not in ASKED]
    if unknown or not names:
        raise ValueError(f"metrics is {list(names)!r}; accepted: one or more of {', '.join(ASKED)}")
    return tuple(m for m in ASKED if m in names)


def dists_of(
    wanted: tuple[str, ...], weights: Any, everything: bool, before: Any
) -> tuple[tuple[str, ...], dict[str, Any], str | None]:
    """(metrics, what is known of DISTS's weights, why DISTS is left out), before any tile is read.

    everything: the metrics are the default, which DISTS without weights of its own is left out of, unless the run that
    is gone on with (its metrics are `before`) has it.

    Raises
    ------
    WeightsUnavailable
        DISTS is asked for and its weights are not there, or damaged.
    """
    rest = tuple(m for m in wanted if m != "dists")
    if everything and weights is None and before == list(rest):
        return rest, {}, "DISTS is left out, as when this run began"
    try:
        loaded = load(weights)
    except WeightsUnavailable:
        if not everything or weights is not None or VGG16.installed or "dists" in (before or ()):
            raise
        return (
            rest,
            {},
            (
                f"DISTS is left out: its weights are not at {VGG16.path}; to have it: `semnr weights fetch vgg16` "
                "(once), or --dists-weights FILE"
            ),
        )
    return wanted, {"sha256": loaded.sha256, "calibrated": loaded.calibrated}, None


def ready(
    inputs: Inputs, metrics: Sequence[str] | None, weights: Any, backend: str | None, target: Any, before: Any
) -> tuple[tuple[str, ...], dict[str, Any], list[str]]:
    """(metrics, what is known of DISTS's weights, remarks): all that the metrics need is there.

    target: the device, None for the CPU; before: metrics of the run that is gone on with, or None.

    Raises
    ------
    BackendUnavailable, WeightsUnavailable
        Before anything is written.
    """
    wanted, left_out = metrics_of(metrics), None
    dists: dict[str, Any] = {}
    if inputs.reference is not None and "dists" in wanted:
        wanted, dists, left_out = dists_of(wanted, weights, metrics is None, before)
    if inputs.reference is not None and "lpips" in wanted:
        lpips.published()
    check_named(
        backend, ops_of(wanted) if inputs.reference is not None else [], "cpu" if target is None else target.type
    )
    return wanted, dists, [left_out] if left_out else []


def ops_of(metrics: Sequence[str]) -> list[str]:
    """The kernels that the metrics run on."""
    return ["pixel" if name == "psnr" else name for name in metrics]


def scale_of(value: float | None) -> float | None:
    """A given data_range, checked; None is decided by the tiles' dtype."""
    import torch

    return None if value is None else as_data_range(torch.uint8, value)


def scale_of_masked(inputs: Inputs) -> float | None:
    """Of integers that a mask makes floating: their dtype's, as without a mask."""
    if inputs.frame is None or inputs.frame.mask is None:
        return None
    return inputs.frame.top()


def bytes_of(value: int | str) -> int:
    """2048, "512MiB", "2GiB" in bytes."""
    units = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9, "b": 1}
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str):
        text = value.strip().lower()
        text = f"{text}b" if text.isdecimal() else text  # plain bytes
        for unit, size in units.items():
            number = text.removesuffix(unit).strip()
            if number != text and number.replace(".", "", 1).isdigit() and float(number) > 0:
                return int(float(number) * size)
    raise ValueError(f"memory_budget is {value!r}; accepted: bytes, or a text such as '512MiB' or '2GiB'")


def factor_of(value: int | str) -> int | str:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"fsim_downsample is {value!r}; accepted: 'auto' or an integer of at least 1")


def inputs_of(
    source: TileSource,
    reference: Any,
    noisy: Any,
    root: Any,
    noisy_2: Any = None,
    noisy_3: Any = None,
    match: str | Sequence[str] | None = None,
    crop: Any = None,
    mask: Any = None,
) -> Inputs:
    """Where the pixels of each tile come from, under one id, and what of them counts."""
    inputs = _places(source, reference, noisy, root, noisy_2, noisy_3)
    if inputs.computes and (crop is not None or mask is not None):
        raise ValueError(
            f"{'crop' if crop is not None else 'mask'} is given for {source.name}, which is denoised as it is read; "
            "accepted: `semnr denoise` first, then the scores"
        )
    named = {name: place for name, place in inputs.named().items() if place is not None}
    laid = together({"candidate": inputs.candidate, **named}, match, crop, mask)
    places: dict[str, Any] = dict(laid.places)
    return replace(inputs, frame=laid.frame, remarks=laid.remarks, **places)


def _places(source: TileSource, reference: Any, noisy: Any, root: Any, noisy_2: Any, noisy_3: Any) -> Inputs:
    candidate = "candidate" if "candidate" in source.roles else "image"

    def place(given: Any, role: str) -> tuple[TileSource, str] | None:
        if given is not None:
            other = open_tiles(given, root=root)
            return other, role if role in other.roles else "image"
        return (source, role) if role in source.roles else None

    where, input_ = place(reference, "reference"), place(noisy, "noisy")
    if where is not None:  # clean pixels know better than further frames, which are then not read
        return Inputs((source, candidate), where, input_)
    second, third = place(noisy_2, "noisy_2"), place(noisy_3, "noisy_3")
    if second is None and third is not None:
        raise ValueError("noisy_3 is given without noisy_2; accepted: a second frame, or a second and a third one")
    if input_ is None:
        raise ValueError(
            f"reference is missing: {source.name} has {', '.join(source.roles)} only, and no noisy input; accepted: "
            "noisy=SOURCE, what the denoiser was given, for the rules that need no clean image; with noisy_2=SOURCE, a "
            "second frame of each site, for estimates of PSNR and contrast; or reference=SOURCE; or a source that has "
            "them (columns of a plan, arrays of a tile stack, folders)"
            + "".join(f" ({remark})" for remark in source.remarks)
        )
    return Inputs((source, candidate), None, input_, second, third)


def trust_of(tests: bool, metrology: str | None, scan_axis: int) -> Trust:
    if not isinstance(tests, bool):
        raise TypeError(f"tests is {tests!r}; accepted: True or False")
    if metrology not in (None, "lines", "holes"):
        raise ValueError(f"metrology is {metrology!r}; accepted: 'lines', 'holes' or None")
    check_scan_axis(scan_axis)
    return Trust(tests, metrology, scan_axis)


def maps_can_be(names: Sequence[str], inputs: Inputs) -> None:
    """Each map needs its pixels: the noisy input for `evidence`, a reference for `ssim` and `cnr`."""
    for name in names:
        if name == "evidence" and inputs.noisy is None:
            raise ValueError("maps has 'evidence' without the noisy input; accepted: with noisy=SOURCE or such a role")
        if name in ("ssim", "cnr") and inputs.reference is None:
            raise ValueError(f"maps has {name!r} without a reference; accepted without one: 'evidence', 'image'")


def layout_of(wafer: Any, source: TileSource) -> Wafer | None:
    """The wafer's layout as given, or as the source knows it."""
    if wafer is None:
        return source.layout
    if isinstance(wafer, Wafer):
        return wafer
    raise TypeError(f"wafer is {type(wafer).__name__}; accepted: semnr.wafers.Wafer, or None")


def can_travel(inputs: Inputs, argument: str) -> None:
    """Sources that live in this process's memory cannot be opened by another."""
    for place in (inputs.candidate, *inputs.others.values()):
        if place[0].recipe is None:
            raise ValueError(
                f"{place[0].name} is held in this process; accepted with {argument}: sources opened from "
                "a path or URL that the workers can open too"
            )
