"""Images as the evidence reads them: stacks of tiles of one shape, and which of their pixels are valid."""

from __future__ import annotations

from typing import Any

import torch

from semnr_kernels import checks
from semnr_kernels.planes import Tiles

from ..metrics import to_tensor


def as_tiles(name: str, value: Any, like: torch.Tensor | None = None) -> torch.Tensor:
    """`value` as (N, C, H, W) without a copy, of the shape and device of `like`."""
    tensor = to_tensor(name, value)
    if getattr(tensor, "ndim", 0) == 3 and tensor.shape[0] != 1:  # frames are grey: three of them are no colours
        raise checks.two_readings(name, tensor.shape)
    tensor = checks.as_image(name, tensor).detach()
    if like is not None:
        if tensor.shape != like.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}; accepted: that of noisy, {tuple(like.shape)}")
        if tensor.device != like.device:
            raise ValueError(f"{name} is on {tensor.device}; accepted: the device of noisy, {like.device}")
    return tensor


def as_tiles_once(name: str, value: Any, like: Tiles | None = None) -> Tiles:
    """The same, or `value` itself where it was checked before."""
    return value if isinstance(value, Tiles) else Tiles(as_tiles(name, value, None if like is None else like.images))


def own_range(images: torch.Tensor, data_range: float | None) -> float | None:
    """The width of the intensity scale as given, else that of an integer dtype, else None: not known."""
    if data_range is None and images.dtype in (torch.uint8, torch.uint16):
        return float(torch.iinfo(images.dtype).max)
    return data_range


def valid_pixels(images: dict[str, torch.Tensor], valid: torch.Tensor | None, nan: str) -> torch.Tensor | None:
    """(N, 1, H, W) bool: pixels of the mask that are finite in every image; None: all."""
    finite = None
    for image in images.values():
        if image.dtype.is_floating_point:
            ok = torch.isfinite(image).all(dim=1, keepdim=True)
            finite = ok if finite is None else finite & ok
    if finite is None or bool(finite.all()):
        return valid
    if nan == "error" and (valid is None or bool((valid & ~finite).any())):
        checks.raise_if_nonfinite(**images)
    return finite if valid is None else valid & finite


def finite(images: dict[str, torch.Tensor], valid: torch.Tensor | None, nan: str) -> torch.Tensor | None:
    """The valid mask; in `images` masked pixels become 0, because 0 · NaN is NaN."""
    valid = valid_pixels(images, valid, nan)
    if valid is not None:
        for name, image in images.items():
            images[name] = torch.where(valid, image, 0.0)
    return valid
