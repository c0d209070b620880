"""Evidence transfer of a band: the contract (choice of backend). The formula is in README.md."""

from __future__ import annotations

import torch

from .. import registry
from ..planes import Tiles
from . import native, on_device, reference
from .reference import Transfer
from .settings import Settings

registry.register("transfer", "reference", reference.transfer)
registry.register("transfer", "torch", on_device.transfer, on_device.supports, lambda: on_device.UNSUPPORTED)
registry.register_triton("transfer", "transfer")
registry.register_native("transfer", native.transfer, native.supports, native.UNSUPPORTED)

__all__ = ["Settings", "Transfer", "transfer"]


def transfer(
    x: Tiles, d: Tiles, r: Tiles, valid: torch.Tensor | None, settings: Settings, backend: str | None = "auto"
) -> Transfer:
    """How much of the structure of a band a denoiser let through, ⟨B·d, B·r⟩ / ⟨B·x, B·r⟩ a tile.

    Parameters
    ----------
    x, d, r : Tiles, (N, C, H, W) of one shape and device
        Noisy input, denoised image, reference or second frame.
    valid : (N, 1, H, W) bool, optional
        Pixels that take part; all of them finite.
    settings : Settings
        The band and its blocks.

    Returns
    -------
    Transfer
        T, its standard error, z of the structure, energy over the structure's own, drop of the MSE.
    """
    call = registry.Call.of("transfer", x.images, d.images, r.images, masked=valid is not None)
    return registry.choose(call, backend).run(x, d, r, valid, settings)  # type: ignore[no-any-return]
