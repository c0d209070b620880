"""The two sets of weights that DISTS needs: VGG16's convolutions, and α and β, which are shipped."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import torch

from .. import pretrained
from ..constants import kept
from ..errors import WeightsUnavailable
from ..pretrained import VGG16, VGG16_LAYERS, Weights, WeightsArgument

# α and β: DISTS_pytorch/weights.pt (SHA-256 f5e65c96...) of the PyPI package dists-pytorch 0.1, MIT licence,
# Copyright (c) 2020 Keyan Ding; the same numbers in a format that holds no code.
ALPHA_BETA_FILE = Path(__file__).with_name("alpha_beta.safetensors")
ALPHA_BETA_SHA256 = "db7c34e6a2af1f165475810b478c52a361d6b02f896365b30ad77fce2771758c"

_COUNTS = (2, 2, 3, 3, 3)  # convolutions of each stage
# index in torchvision's `features`, channels in and out; one row of the table a stage
STAGES: tuple[tuple[tuple[int, int, int], ...], ...] = tuple(
    tuple(layer[:3] for layer in VGG16_LAYERS[sum(_COUNTS[:stage]) : sum(_COUNTS[: stage + 1])])
    for stage in range(len(_COUNTS))
)
CHANNELS = (3, 64, 128, 256, 512, 512)  # of the maps that are compared: the image and the five stages


def load(weights: WeightsArgument | Weights) -> Weights:
    """Resolve the argument `weights` of `dists`; see `pretrained.load`."""
    return pretrained.load(weights, VGG16, "DISTS")


def random_weights(seed: int = 0) -> Weights:
    """A stand-in for VGG16, *uncalibrated*; see `pretrained.random_weights`."""
    return pretrained.random_weights(VGG16, seed)


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
