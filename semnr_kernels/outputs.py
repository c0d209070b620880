"""What each metric returns, with shape and dtype, known without the data: for ops that a compiler traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

COMPONENTS = ("luminance", "contrast", "structure")


def labels(name: str, a: Mapping[str, Any]) -> tuple[str, ...]:
    """What an op returns, in order; known without the data."""
    maps = ("map",) * bool(a.get("return_map")) + COMPONENTS * bool(a.get("components"))
    masked = a["mask"] is not None or (a["nan"] == "omit" and a["x"].is_floating_point())
    return ("value", *maps, *(("coverage",) if maps and masked else ()))


def pick(result: Any, label: str) -> Any:
    if isinstance(result, torch.Tensor):
        return result
    return result.components[label] if label in COMPONENTS else getattr(result, label)


def output(name: str, label: str, a: Mapping[str, Any]) -> tuple[tuple[Any, ...], torch.dtype]:
    """Shape and dtype of one output."""
    x = a["x"]
    images, (h, w) = tuple(x.shape[:-3]) if x.ndim == 4 else (), x.shape[-2:]
    if label == "coverage":
        return images or (1,), torch.float64
    if label == "map":
        wide = x.dtype == torch.float64 or (name == "ssim" and a["precision"] == "float64")
        lead = tuple(x.shape[:-2]) if name == "ssim" else (*images, 1)[: x.ndim - 2]
        return (*lead, *_map_size(name, h, w, a)), torch.float64 if wide else torch.float32
    if name == "cnr_map":
        cells = [(side - of) // step + 1 for side, of, step in zip((h, w), a["window"], a["stride"], strict=True)]
        return (*images, *cells), torch.float64
    return images if a["reduction"] == "none" else (), torch.float64


def _map_size(name: str, h: Any, w: Any, a: Mapping[str, Any]) -> tuple[Any, Any]:
    if name == "dists":
        return h, w
    if name == "fsim":
        from .fsim import downsampling_factor

        factor = downsampling_factor(h, w, a["downsample"])
        up = factor - 1 if a["downsample"] == "authors" else 0
        return (h + up) // factor, (w + up) // factor
    from .ssim import CONVENTIONS

    settings = CONVENTIONS[a["convention"]]
    size, border, downsample = (
        getattr(settings, k) if a[k] is None else a[k] for k in ("window_size", "border", "downsample")
    )
    factor = max(1, round(min(h, w) / 256)) if downsample == "auto" else downsample
    less = 0 if border == "reflect" else size - 1
    return h // factor - less, w // factor - less
