"""The scan of a denoiser's residual: the contract (choice of backend). The formulas are in README.md."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import registry
from ..planes import Tiles
from . import native, on_device, reference
from .settings import SIZES, Law, Place, Scanned, Settings
from .templates import Shape, bank

registry.register("residual", "reference", reference.scan)
registry.register("residual", "torch", on_device.scan)
registry.register_triton("residual", "scan")
registry.register_native("residual", native.scan, native.supports, native.UNSUPPORTED)

__all__ = ["SIZES", "Law", "Place", "Scanned", "Settings", "Shape", "bank", "scan"]


def scan(
    x: Tiles,
    d: Tiles,
    valid: torch.Tensor | None,
    laws: Sequence[Law],
    settings: Settings,
    backend: str | None = "auto",
) -> Scanned:
    """Hold noisy - denoised against the noise, place by place, with scan lines as rows.

    Parameters
    ----------
    x, d : Tiles, (N, C, H, W) of one shape and device, finite
        Noisy input and denoised image, sides of at least 32 px; channels are averaged.
    valid : (N, 1, H, W) bool, optional
        Pixels that take part.
    laws : sequence of Law, one a tile
    settings : Settings

    Returns
    -------
    Scanned
    """
    call = registry.Call.of("residual", x.images, d.images, masked=valid is not None)
    return registry.choose(call, backend).run(x, d, valid, laws, settings)  # type: ignore[no-any-return]
