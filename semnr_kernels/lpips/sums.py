"""What LPIPS keeps of two images, and what a call of it needs: common to every backend."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .network import Network

EPS = 1e-10  # beside the norm of a position's channels, as lpips 0.1.4


@dataclass(frozen=True)
class Settings:
    """All that LPIPS needs beside the pixels and the network."""

    net: str = "alex"
    resize: str | None = None
    memory_budget: int = 2**30
    dtype: torch.dtype = torch.float32  # the network's
    data_range: float = 1.0
    want_map: bool = False


@dataclass(frozen=True)
class Distance:
    """What the comparison of two images gives.

    Attributes
    ----------
    rows : Tensor, (N,)
        LPIPS of each image.
    layers : Tensor, (N, 5)
        What each of the five maps adds to it.
    map : Tensor, (N, 1, H, W), optional
        The distance at each pixel.

    Examples
    --------
    >>> kernels.lpips.lpips(x, y, weights="random", details=True).components["layers"].shape
    torch.Size([1, 5])
    """

    rows: torch.Tensor
    layers: torch.Tensor
    map: torch.Tensor | None = None


@dataclass(frozen=True)
class Features:
    """The compared maps of one batch, kept for comparisons: 127 values a pixel for VGG16, 6 for AlexNet.

    Attributes
    ----------
    maps : tuple of Tensor, (N, C, h, w) each
        As the network gives them.
    network : Network
        With which they were made.
    settings : Settings
        How they were made.
    size : (int, int)
        Height and width of the image that was passed, in pixels.
    finite : bool Tensor, (N,)
        Whether all pixels of an image are finite.

    Examples
    --------
    >>> kept = kernels.lpips.features(y, weights="random")
    >>> kept.count, kept.size, kept.finite
    (1, (192, 192), tensor([True]))
    """

    maps: tuple[torch.Tensor, ...]
    network: Network
    settings: Settings
    size: tuple[int, int]
    finite: torch.Tensor

    @property
    def count(self) -> int:
        """Number of images."""
        return self.maps[0].shape[0]


def averaged(each: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Mean over positions, (N,) float64; by weights (N, h, w)."""
    each = each.double()
    if weight is None:
        return each.mean(dim=(1, 2))
    return (each * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))


def share_at(share: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The share of valid pixels under each position of a map of this size, (N, h, w)."""
    return F.adaptive_avg_pool2d(share, size)[:, 0]


def groups(count: int, together: int) -> list[slice]:
    together = max(1, together)
    return [slice(start, min(start + together, count)) for start in range(0, count, together)]


def joined(parts: list[Distance], size: torch.Size | tuple[int, ...]) -> Distance:
    """The parts of a batch, one after the other; the map at the size of the images."""
    maps = [part.map for part in parts if part.map is not None]
    shown = torch.cat(maps) if maps else None
    if shown is not None and tuple(shown.shape[-2:]) != tuple(size):
        shown = F.interpolate(shown, size=tuple(size), mode="bilinear")
    return Distance(torch.cat([p.rows for p in parts]), torch.cat([p.layers for p in parts]), shown)


def finite(image: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Whether each image's valid pixels are numbers, (N,)."""
    fine = torch.isfinite(image.detach())
    return (fine if valid is None else fine | ~valid).flatten(1).all(dim=1)
