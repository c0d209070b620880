"""LPIPS on CPU: convolutions by torch (oneDNN), channels last, ReLU inside, weights packed once; a band at a time."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.nn.functional as F

from ..dists.native import packs
from ..registry import Call, no_gradient, refusal
from . import flow
from .network import Network
from .sums import Distance, Features

UNSUPPORTED = (no_gradient,)
_ONE = (1, 1)
_PACKED_FOR = 256  # pixels a side: the order of packed weights hardly depends on it


def supports(call: Call) -> str | None:
    """Every dtype, masks, maps; no gradient."""
    return refusal(UNSUPPORTED, call)


class Native:
    """See `flow.Engine`."""

    memory_format = torch.channels_last

    def layer(self, network: Network, number: int, h: torch.Tensor, padding: tuple[int, int]) -> torch.Tensor:
        layer = network.layers[number][0]
        if layer.index is None:
            return F.max_pool2d(h, layer.side, layer.stride)
        weight, bias, packed = _weights(network)[number]
        stride = (layer.stride, layer.stride)
        if packed:
            return torch.ops.mkldnn._convolution_pointwise(h, weight, bias, padding, stride, _ONE, 1, "relu", [], "")
        return F.relu_(F.conv2d(h, weight, bias, stride=layer.stride, padding=padding))


_Ready = tuple[tuple[torch.Tensor, torch.Tensor, bool] | tuple[None, None, bool], ...]
_ready: weakref.WeakKeyDictionary[Network, _Ready] = weakref.WeakKeyDictionary()  # gone with their network


def _weights(network: Network) -> Any:
    """Of each layer: weight, bias, and whether the weight is packed for oneDNN."""
    if (found := _ready.get(network)) is not None:
        return found
    packed, side = packs(network.dtype), _PACKED_FOR
    made: list[Any] = []
    with torch.inference_mode(False), torch.no_grad():
        for layer, weight, bias in network.layers:
            if weight is None or bias is None:
                made.append((None, None, False))
            else:
                weight = weight.contiguous(memory_format=torch.channels_last)
                if packed:
                    pads, stride = (layer.padding,) * 2, (layer.stride,) * 2
                    shape = (1, weight.shape[1], side, side)
                    weight = torch.ops.mkldnn._reorder_convolution_weight(weight, pads, stride, _ONE, 1, shape)
                made.append((weight, bias, packed))
            side = layer.size(side)
    return _ready.setdefault(network, tuple(made))


def lpips(*arguments: Any) -> Distance:
    return flow.lpips(Native(), *arguments)


def features(*arguments: Any) -> Features:
    return flow.features(Native(), *arguments)


def against(*arguments: Any) -> Distance:
    return flow.against(Native(), *arguments)
