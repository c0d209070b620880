"""LPIPS on CPU: convolutions by Winograd's filtering and oneDNN, channels last, ReLU inside; a band at a time."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.nn.functional as F

from .. import native_support
from ..convolution_cpu import Convolution
from ..registry import Call, no_gradient, refusal
from . import flow
from .network import Network
from .sums import EPS, Distance, Features

UNSUPPORTED = (no_gradient,)
_USUAL = 256  # pixels a side of an image


def supports(call: Call) -> str | None:
    """Every dtype, masks, maps; no gradient."""
    return refusal(UNSUPPORTED, call)


class Native:
    """See `flow.Engine`."""

    memory_format = torch.channels_last

    def __init__(self) -> None:
        self.module = native_support.module()

    def layer(self, network: Network, number: int, h: torch.Tensor, padding: tuple[int, int]) -> torch.Tensor:
        layer = network.layers[number][0]
        convolution = _convolutions(network)[number]
        if convolution is None:
            return F.max_pool2d(h, layer.side, layer.stride)
        return convolution(h, padding, True, self.module)

    def differences(self, x: torch.Tensor, y: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
        if not x.dtype == y.dtype == linear.dtype == torch.float32:
            return flow.Torch().differences(x, y, linear)
        x, y = (v if v.stride(1) == 1 else v.contiguous(memory_format=torch.channels_last) for v in (x, y))
        each = native_support.empty((x.shape[0], *x.shape[2:]), torch.float32)
        self.module.lpips_differences(
            native_support.image(x),
            native_support.image(y),
            tuple(x.shape),
            native_support.address(linear),
            EPS,
            native_support.address(each),
            torch.get_num_threads(),
        )
        return each


_Layers = tuple[Convolution | None, ...]
_ready: weakref.WeakKeyDictionary[Network, _Layers] = weakref.WeakKeyDictionary()  # gone with their network


def _convolutions(network: Network) -> _Layers:
    """Of each layer; None for a pooling."""
    if (made := _ready.get(network)) is not None:
        return made
    side = _USUAL
    layers: list[Convolution | None] = []
    for layer, weight, bias in network.layers:
        if weight is None or bias is None:
            layers.append(None)
        else:
            layers.append(Convolution(weight, bias, layer.stride, layer.padding, side))
        side = layer.size(side)
    return _ready.setdefault(network, tuple(layers))


def lpips(*arguments: Any) -> Distance:
    return flow.lpips(Native(), *arguments)


def features(*arguments: Any) -> Features:
    return flow.features(Native(), *arguments)


def against(*arguments: Any) -> Distance:
    return flow.against(Native(), *arguments)
