"""The two sets of weights that DISTS needs: found, read and checked. Nothing is ever downloaded here.

A weights file is data from outside: pickled code is refused, names, shapes and values are checked, and what fails
raises `WeightsUnavailable`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._constants import kept
from .._errors import WeightsUnavailable

# torchvision.models.VGG16_Weights.IMAGENET1K_V1; the file's name carries the first digits of its SHA-256
VGG16_FILE = "vgg16-397923af.pth"
VGG16_URL = f"https://download.pytorch.org/models/{VGG16_FILE}"
VGG16_SHA256_PREFIX = "397923af"

# α and β: DISTS_pytorch/weights.pt (SHA-256 f5e65c96...) of the PyPI package dists-pytorch 0.1, MIT licence,
# Copyright (c) 2020 Keyan Ding; the same numbers in a format that holds no code.
ALPHA_BETA_FILE = Path(__file__).with_name("alpha_beta.safetensors")
ALPHA_BETA_SHA256 = "db7c34e6a2af1f165475810b478c52a361d6b02f896365b30ad77fce2771758c"

# index in torchvision's `features`, channels in and out; one row of the table a stage
STAGES: tuple[tuple[tuple[int, int, int], ...], ...] = (
    ((0, 3, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
CHANNELS = (3, 64, 128, 256, 512, 512)  # of the maps that are compared: the image and the five stages
SHAPES: dict[str, tuple[int, ...]] = {
    f"{index}.{kind}": (cout, cin, 3, 3) if kind == "weight" else (cout,)
    for stage in STAGES
    for index, cin, cout in stage
    for kind in ("weight", "bias")
}

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """Checked float tensors by name ("0.weight", "0.bias", ...) and where they come from."""

    state: State
    source: str
    calibrated: bool  # False for random ones alone: a path or a state dict is the caller's word
    published: bool  # the very file that torchvision publishes
    sha256: str | None = None  # of the file


def default_path() -> Path:
    """Where torchvision's cache keeps VGG16."""
    return Path(torch.hub.get_dir()) / "checkpoints" / VGG16_FILE


def load(weights: str | os.PathLike[str] | State | Weights | None) -> Weights:
    """Resolve the argument `weights` of `dists`.

    Raises
    ------
    TypeError
        Not None, "random", a path or a state dict.
    WeightsUnavailable
        No such file, or not VGG16's weights.
    """
    if isinstance(weights, Weights):
        return weights
    if isinstance(weights, Mapping):
        return Weights(checked_state(weights, "the state dict"), "state dict", calibrated=True, published=False)
    if weights == "random":
        return random_weights()
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise TypeError(f'weights is {type(weights).__name__}; accepted: None, "random", a path or a state dict')
    path = default_path() if weights is None else Path(weights)
    if weights is None and not path.is_file():
        raise WeightsUnavailable(
            f"DISTS needs VGG16's weights, and torchvision's cache has none ({path}). Remedy: `semnr weights fetch "
            'vgg16` (528 MB, once); or weights=PATH, a .pth or .safetensors file; or weights="random": seeded, '
            "uncalibrated"
        )
    return load_file(path)


def load_file(path: Path) -> Weights:
    """Weights from a .safetensors file or a .pth of plain tensors, read once while it stays the same."""
    if not path.is_file():
        raise WeightsUnavailable(
            f"weights file {path} does not exist or is no file; accepted: a .pth or .safetensors file"
        )
    stat = path.stat()
    return _load_file(path.absolute(), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2)
def _load_file(path: Path, mtime_ns: int, size: int) -> Weights:
    return read_file(path)


def read_file(path: Path) -> Weights:
    """As `load_file`, from the disk in any case."""
    sha256 = file_sha256(path)
    published = sha256.startswith(VGG16_SHA256_PREFIX)
    if path.name == VGG16_FILE and not published:
        raise WeightsUnavailable(
            f"weights file {path} has SHA-256 {sha256[:16]}..., not {VGG16_SHA256_PREFIX}... as its name says: "
            "it is truncated or altered. Delete it and run `semnr weights fetch vgg16`"
        )
    with torch.inference_mode(False):
        state = {key: value.clone() for key, value in checked_state(read_state(path), f"weights file {path}").items()}
    return Weights(state, str(path), calibrated=True, published=published, sha256=sha256)


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


def checked_state(state: Any, name: str) -> dict[str, torch.Tensor]:
    """The 26 tensors of VGG16's convolutions, detached; other entries (the classifier) are left out.

    Keys as torchvision writes them, "features.0.weight", or without "features.".
    """
    if not isinstance(state, Mapping):
        raise WeightsUnavailable(f"{name} holds a {type(state).__name__}; accepted: a state dict of VGG16")
    prefix = "features." if "features.0.weight" in state else ""
    missing = [prefix + key for key in SHAPES if prefix + key not in state]
    if missing:
        raise WeightsUnavailable(
            f"{name} lacks {len(missing)} of {len(SHAPES)} tensors of VGG16, first {missing[0]!r}; accepted: "
            "torchvision's vgg16().state_dict(), or that of its `features`"
        )
    found = {}
    for key, shape in SHAPES.items():
        value = state[prefix + key]
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape or not value.is_floating_point():
            was = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise WeightsUnavailable(f"{name}: {prefix + key!r} is {was}; accepted: a floating tensor of shape {shape}")
        if not bool(torch.isfinite(value).all()):
            raise WeightsUnavailable(f"{name}: {prefix + key!r} has non-finite values")
        found[key] = value.detach()
    return found


@functools.cache
def random_weights(seed: int = 0) -> Weights:
    """He-normal convolutions and zero biases: a stand-in of the same topology, *uncalibrated*.

    NumPy's RandomState, because its stream is frozen across versions and platforms and torch's is not.
    """
    generator = np.random.RandomState(seed)
    state = {}
    with torch.inference_mode(False):
        for key, shape in SHAPES.items():
            if len(shape) == 1:
                state[key] = torch.zeros(shape, device="cpu")
            else:
                values = generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
                state[key] = torch.from_numpy(values.astype(np.float32))
    return Weights(state, "random", calibrated=False, published=False)


@functools.cache
def alpha_beta() -> tuple[torch.Tensor, torch.Tensor]:
    """α (structure) and β (texture), (1475,) float64 each, together normalised to sum 1."""
    with torch.inference_mode(False):
        alpha, beta = (v.double() for v in read_alpha_beta())
        total = alpha.sum() + beta.sum()
        return alpha / total, beta / total


@functools.lru_cache(maxsize=64)
def _alpha_beta_on(device: torch.device) -> tuple[tuple[torch.Tensor, ...], ...]:
    with torch.inference_mode(False):
        return tuple(v.to(device).split(CHANNELS) for v in alpha_beta())


def alpha_beta_of(number: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """α and β of a map (the image, then the stages), on a device: copied to it once."""
    alpha, beta = _alpha_beta_on(device)
    return kept(alpha[number]), kept(beta[number])


def read_alpha_beta() -> tuple[torch.Tensor, torch.Tensor]:
    """α and β as shipped.

    Raises
    ------
    WeightsUnavailable
        The file is missing or altered.
    """
    from safetensors.torch import load as parse

    try:
        data = ALPHA_BETA_FILE.read_bytes()
    except OSError as error:
        raise WeightsUnavailable(f"{ALPHA_BETA_FILE} is missing ({error.strerror}): reinstall semnr") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != ALPHA_BETA_SHA256:
        raise WeightsUnavailable(
            f"{ALPHA_BETA_FILE} has SHA-256 {sha256[:16]}..., not {ALPHA_BETA_SHA256[:16]}...: reinstall semnr"
        )
    tensors = parse(data)
    return tensors["alpha"], tensors["beta"]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
