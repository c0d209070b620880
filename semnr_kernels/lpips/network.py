"""AlexNet and VGG16 as LPIPS uses them: convolutions, ReLU and max pooling, and the maps that are compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..constants import kept
from ..convolution import conv2d
from ..dists.network import normalised, work_dtype
from ..pretrained import ALEXNET, LINEAR_CHANNELS, VGG16, Networks, Published, Weights

__all__ = ["TRUNKS", "Layer", "Network", "network_for", "normalised"]

_KEPT = 4  # networks: VGG16 59 MB in float32, AlexNet 10 MB


@dataclass(frozen=True)
class Layer:
    """A convolution with its ReLU (`index` in torchvision's `features`), or a max pooling (None)."""

    index: int | None
    side: int
    stride: int
    padding: int
    compared: bool = False  # what it gives is one of the maps that LPIPS compares

    def size(self, length: int) -> int:
        """Outputs along an axis of `length`."""
        return (length + 2 * self.padding - self.side) // self.stride + 1


def _vgg() -> tuple[Layer, ...]:
    stages = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
    layers: list[Layer] = []
    for stage in stages:
        layers += [Layer(None, 2, 2, 0)] if layers else []
        layers += [Layer(index, 3, 1, 1, compared=index == stage[-1]) for index in stage]
    return tuple(layers)


_POOL = Layer(None, 3, 2, 0)
TRUNKS: dict[str, tuple[Published, tuple[Layer, ...]]] = {
    "alex": (
        ALEXNET,
        (
            Layer(0, 11, 4, 2, True), _POOL, Layer(3, 5, 1, 2, True), _POOL,
            Layer(6, 3, 1, 1, True), Layer(8, 3, 1, 1, True), Layer(10, 3, 1, 1, True),
        ),
    ),
    "vgg": (VGG16, _vgg()),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Network:
    """Frozen layers in one dtype on one device, and the linear layers' weights in `work`."""

    name: str
    layers: tuple[tuple[Layer, torch.Tensor | None, torch.Tensor | None], ...]
    linear: tuple[torch.Tensor, ...]  # (C,) of each compared map
    weights: Weights
    linear_weights: Weights
    dtype: torch.dtype
    device: torch.device

    @property
    def work(self) -> torch.dtype:
        """Images, norms and differences: never below float32."""
        return work_dtype(self.dtype)

    @property
    def calibrated(self) -> bool:
        return self.weights.calibrated and self.linear_weights.calibrated

    @property
    def published(self) -> bool:
        return self.weights.published and self.linear_weights.published

    def maps(self, image: torch.Tensor) -> Iterator[torch.Tensor]:
        """The five compared maps of (N, 1 or 3, H, W) on the 0-1 scale, one at a time, in `dtype`."""
        h = normalised(image).to(self.dtype)
        for layer, weight, bias in self.layers:
            h = applied(layer, weight, bias, h)
            if layer.compared:
                yield h


def applied(
    layer: Layer,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    h: torch.Tensor,
    padding: tuple[int, int] | None = None,
) -> torch.Tensor:
    """A layer, its ReLU included; padding: down and across, that of the layer unless given."""
    if weight is None:
        return F.max_pool2d(h, layer.side, layer.stride)
    pads = (layer.padding, layer.padding) if padding is None else padding
    return F.relu_(conv2d(h, weight, bias, stride=layer.stride, padding=pads))


_networks: Networks[Network] = Networks(_KEPT)


def network_for(name: str, weights: Weights, linear: Weights, dtype: torch.dtype, device: torch.device) -> Network:
    """The network for these weights; one instance is shared by every thread."""
    network = _networks.of(
        (weights, linear), (name, dtype, device), lambda: _build(name, weights, linear, dtype, device)
    )
    for tensor in itertools.chain(network.linear, *((w, b) for _, w, b in network.layers)):
        if tensor is not None:
            kept(tensor)
    return network


def _build(name: str, weights: Weights, linear: Weights, dtype: torch.dtype, device: torch.device) -> Network:
    def tensor(state: Weights, key: str, to: torch.dtype) -> torch.Tensor:
        return state.state[key].to(device=device, dtype=to).contiguous()

    work = work_dtype(dtype)
    with torch.inference_mode(False), torch.no_grad():
        layers = tuple(
            (layer, None, None)
            if layer.index is None
            else (layer, tensor(weights, f"{layer.index}.weight", dtype), tensor(weights, f"{layer.index}.bias", dtype))
            for layer in TRUNKS[name][1]
        )
        weighed = tuple(tensor(linear, f"{name}.{i}", work) for i in range(len(LINEAR_CHANNELS[name])))
    return Network(name, layers, weighed, weights, linear, dtype, device)
