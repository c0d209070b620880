"""Whether images show one scene: the contract (choice of backend). The formulas are in README.md."""

from __future__ import annotations

from .. import registry
from ..planes import Tiles
from . import native, reference
from .settings import COARSE, FEW_LEVELS, FINE, MIN_SIDE, Looks

registry.register("likeness", "reference", reference.likeness)
registry.register("likeness", "torch", reference.likeness)  # of the images on the host
registry.register_native("likeness", native.likeness, native.supports, native.UNSUPPORTED)

__all__ = ["COARSE", "FEW_LEVELS", "FINE", "MIN_SIDE", "Looks", "likeness"]


def likeness(x: Tiles, d: Tiles | None = None, r: Tiles | None = None, backend: str | None = "auto") -> list[Looks]:
    """How a denoised image and a reference lie against a noisy one: by structure, place, noise and traces.

    Parameters
    ----------
    x, d, r : Tiles, (N, C, H, W) of one shape
        Noisy input, denoised image, reference; channels are averaged, scan lines are rows. d or r may be None.

    Returns
    -------
    list of Looks, one a tile
        NaN where not evaluated: of an image that is not there, has pixels that are not finite, is one grey level, or
        has a side below `MIN_SIDE` px.
    """
    others = [v.images for v in (d, r) if v is not None]
    call = registry.Call.of("likeness", x.images, *others)
    return registry.choose(call, backend).run(x, d, r)  # type: ignore[no-any-return]
