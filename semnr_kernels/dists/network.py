"""VGG16 up to relu5_3 with L2 pooling, in plain torch: the maps that DISTS compares."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..constants import constant, kept
from ..convolution import conv2d
from ..pretrained import Networks, Weights
from .weights import STAGES

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POOL_EPS = 1e-12
_KEPT = 4  # networks: 59 MB each in float32


def work_dtype(dtype: torch.dtype) -> torch.dtype:
    """What is computed beside the convolutions of a network of this dtype: float32 at least."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True, eq=False)
class Network:
    """Frozen convolutions in one dtype on one device."""

    stages: tuple[tuple[tuple[torch.Tensor, torch.Tensor], ...], ...]  # per stage: (weight, bias) of each layer
    weights: Weights
    dtype: torch.dtype
    device: torch.device

    @property
    def work(self) -> torch.dtype:
        """Images, pooling and statistics: never below float32 (a square overflows float16 at 256)."""
        return work_dtype(self.dtype)

    def maps(self, image: torch.Tensor) -> Iterator[torch.Tensor]:
        """The image itself, then relu1_2, relu2_2, relu3_3, relu4_3, relu5_3, one at a time.

        image: (N, 3, H, W) on the 0-1 scale, dtype `work`. Maps have dtype `dtype`.
        """
        yield image
        h = normalised(image).to(self.dtype)
        for number, stage in enumerate(self.stages):
            if number:
                h = l2_pool(h, self.work)
            for weight, bias in stage:
                h = F.relu_(conv2d(h, weight, bias, padding=1))
            yield h


def normalised(image: torch.Tensor) -> torch.Tensor:
    """(N, 1 or 3, H, W) on the 0-1 scale as the network takes it, (N, 3, H, W)."""
    mean, std = (constant(image.device, image.dtype, *v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (image - mean) / std


def l2_pool(h: torch.Tensor, work: torch.dtype) -> torch.Tensor:
    """√(Hann-weighted mean of squares), every second pixel, zeros beyond the border (Hénaff and Simoncelli 2016)."""
    wide = h.to(work)
    return (hann_mean(wide * wide) + POOL_EPS).sqrt().to(h.dtype)


def hann_mean(planes: torch.Tensor, padding: int = 1) -> torch.Tensor:
    """3 × 3 Hann window (½, 1, ½)² / 4 at stride 2."""
    hann = (0.5, 1.0, 0.5)
    window = constant(planes.device, planes.dtype, *(a * b / 4 for a in hann for b in hann))
    kernel = window.reshape(3, 3).expand(planes.shape[1], 1, 3, 3)
    return conv2d(planes, kernel, stride=2, padding=padding, groups=planes.shape[1])


_networks: Networks[Network] = Networks(_KEPT)


def network_for(weights: Weights, dtype: torch.dtype, device: torch.device) -> Network:
    """The network for these weights; one instance is shared by every thread."""
    network = _networks.of((weights,), (dtype, device), lambda: _build(weights, dtype, device))
    for layer in itertools.chain.from_iterable(network.stages):
        for tensor in layer:
            kept(tensor)
    return network


def _build(weights: Weights, dtype: torch.dtype, device: torch.device) -> Network:
    def tensor(key: str) -> torch.Tensor:
        return weights.state[key].to(device=device, dtype=dtype).contiguous()

    with torch.inference_mode(False), torch.no_grad():
        stages = tuple(
            tuple((tensor(f"{index}.weight"), tensor(f"{index}.bias")) for index, _, _ in stage) for stage in STAGES
        )
    return Network(stages, weights, dtype, device)
