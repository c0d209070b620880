"""What a denoiser changed beside noise: the contract (choice of backend). The formulas are in README.md."""

from __future__ import annotations

from collections.abc import Sequence

from .. import registry
from ..planes import Tiles
from . import native, on_device, reference
from .bound import Noise
from .reference import FEATURE_PX
from .settings import NAMES, Figures, Settings

registry.register("changes", "reference", reference.changes)
registry.register("changes", "torch", on_device.changes, on_device.supports, lambda: on_device.UNSUPPORTED)
registry.register_triton("changes", "changes")
registry.register_native("changes", native.changes, native.supports, native.UNSUPPORTED)

__all__ = ["FEATURE_PX", "NAMES", "Figures", "Noise", "Settings", "changes"]


def changes(
    x: Tiles | None,
    d: Tiles,
    r: Tiles | None,
    settings: Settings,
    noise: Sequence[Noise | None] | None = None,
    backend: str | None = "auto",
) -> list[Figures]:
    """Brightness, place, fine contrast, overshoot, texture and rows of each tile, with standard errors.

    Parameters
    ----------
    x, d, r : Tiles, (N, C, H, W) of one shape
        Noisy input, denoised image, reference; channels are averaged. x or r may be None, not both.
    settings : Settings
    noise : sequence of N Noise or None, optional
        Of x; where it is known, `transfer_bound` is told.

    Returns
    -------
    list of dict, one a tile
        (value, standard error) by the names of `NAMES`; NaN or left out where not evaluated.
    """
    others = [v.images for v in (x, r) if v is not None]
    call = registry.Call.of("changes", d.images, *others)
    return registry.choose(call, backend).run(x, d, r, settings, noise)  # type: ignore[no-any-return]
