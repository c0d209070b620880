"""What the scan of a residual is asked for, and the noise that it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SIZES = (3.0, 4.2, 6.0, 8.5, 12.0)  # px, steps of √2: a feature between two loses 2 % of its z


@dataclass(frozen=True)
class Settings:
    """`alpha`: share of intact tiles in which noise alone may mark a place. `sizes`: diameters, px.

    `with_map`: also the largest |z| at each pixel.
    """

    alpha: float = 0.005
    sizes: tuple[float, ...] = SIZES
    with_map: bool = False


class Law(NamedTuple):
    """Of a tile's noise: its variance is gain · level + offset, at least `floor`; `taps` whiten it along the line."""

    gain: float
    offset: float
    floor: float
    taps: np.ndarray


class Place(NamedTuple):
    """A place of large |z|: `z` is over what is usual there, signed as the residual; `shape` an index of the bank."""

    row: int
    column: int
    shape: int
    z: float
    invented: bool


class Scanned(NamedTuple):
    """A tile a row: the figures of `semnr.residual_tests`, places strongest first, the map of the largest |z|."""

    variance: np.ndarray
    spectrum: np.ndarray
    structure_z: np.ndarray
    threshold: np.ndarray
    places: list[list[Place]]
    largest: np.ndarray | None  # (N, H, W) float32
