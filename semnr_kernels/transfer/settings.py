"""What a transfer is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The band from `low` to `high` (σ in px of two Gaussians), blocks of `block` px for the standard error.

    `least_z`: standard errors that structure must stand above 0 for the blocks to tell; below, the spectra are asked.
    `noisy_reference`: r is a second noisy frame, not a clean image. `with_drop`: also the drop of the MSE.
    """

    low: float = 1.0
    high: float = 4.0
    block: int = 32
    least_z: float = 4.0
    noisy_reference: bool = False
    with_drop: bool = True
