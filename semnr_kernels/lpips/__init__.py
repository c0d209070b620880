"""LPIPS: the contract (checks, weights, choice of backend, reduction). Formulas are in README.md."""

from __future__ import annotations

from typing import Any

import torch

from .. import _checks, _library, _registry, pretrained
from .._result import Result
from ..dists import RESIZES, _budget, _check_image, _network_dtype
from ..pretrained import LPIPS, Weights, WeightsArgument
from . import reference
from .network import TRUNKS, Network, network_for
from .reference import Distance, Settings

_registry.register("lpips", "reference", reference.lpips)

__all__ = ["Distance", "lpips"]


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
    checked = _checks.pair(x, y, data_range=data_range, mask=mask, nan=nan, overshoot=overshoot)
    _check_image("x", checked.x)
    _checks.choice("net", net, tuple(TRUNKS))
    _checks.choice("resize", resize, RESIZES)
    trunk = pretrained.load(weights, TRUNKS[net][0], "LPIPS")
    weighed = pretrained.load("random" if linear is None and weights == "random" else linear, LPIPS, "LPIPS")
    network = network_for(net, trunk, weighed, _network_dtype(x.dtype, dtype), x.device)
    settings = Settings(checked.data_range, resize, return_map, _budget(memory_budget, x.device))
    call = _registry.Call.of("lpips", checked.x, checked.y, masked=checked.valid is not None)
    found = _registry.choose(call, backend).run(checked.x, checked.y, checked.valid, network, settings)
    return _checks.reduce(found.rows, reduction, checked)


def features(image: torch.Tensor, *, net: str = "alex", data_range: float | None = None) -> reference.Features:
    image4 = _checks.as_image("image", image)
    network = network_for(
        net,
        pretrained.load(None, TRUNKS[net][0], "LPIPS"),
        pretrained.load(None, LPIPS, "LPIPS"),
        torch.float32,
        image.device,
    )
    return reference.features(image4, network, Settings(_checks.as_data_range(image.dtype, data_range), None, False, 2**30))


def against(x: torch.Tensor, kept: reference.Features, *, reduction: str = "mean") -> torch.Tensor:
    return reference.compare(reference.features(x, kept.network, kept.settings), kept).rows
