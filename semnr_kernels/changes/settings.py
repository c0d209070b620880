"""What the changes of a tile are measured against, and what comes out."""

from __future__ import annotations

from typing import NamedTuple

from .spectra import Measured

NAMES = (
    "gain_change", "offset_change", "shift_y_px", "shift_x_px",
    "transfer_high", "transfer_texture", "transfer_peak", "feature_contrast", "overshoot", "row_noise_added",
    "transfer_bound",
)  # fmt: skip


class Settings(NamedTuple):
    """`data_range`: what the offset is a share of; None: the span of what the image is compared with. `scan_axis`: -1
    where scan lines are rows, -2 where they are columns."""

    data_range: float | None = None
    scan_axis: int = -1


Figures = dict[str, Measured]  # by name, of one tile; NaN or left out where not evaluated
