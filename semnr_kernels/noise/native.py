"""The fit of the noise law in C++: pixels sorted by level once, float32 values, float64 sums."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import native_support
from ..noise_law import LAGS, Ends, Fitted, Spacing
from ..planes import Planes
from ..registry import Call, no_loop, refusal

UNSUPPORTED = (no_loop,)


def supports(call: Call) -> str | None:
    """Any dtype and layout."""
    return refusal(UNSUPPORTED, call)


def fit(sets: Sequence[Sequence[torch.Tensor]], ends: Sequence[Ends], *, isa: str | None = None) -> list[Fitted]:
    """As `reference.fit`, of (H, W) windows on the CPU; `isa` forces an instruction set."""
    module = native_support.module(isa)
    planes = [[Planes.of(window[None, None], isa) for window in windows] for windows in sets]
    rows = native_support.empty((len(sets), module.NOISE_ROW), torch.float64)
    module.noise_fit(
        [[_window(plane) for plane in windows] for windows in planes],
        [tuple(end) for end in ends],
        torch.get_num_threads(),
        native_support.address(rows),
    )
    return [_fitted(row, module.NOISE_BINS) for row in rows.tolist()]


def _window(plane: Planes) -> tuple[int, int, int, int, float]:
    _, height, pitch = plane.data.shape
    return (native_support.address(plane.data), pitch, height, plane.width, float(plane.stats[0, 0]))


def _fitted(row: list[float], bins: int) -> Fitted:
    points = int(row[5])
    at = [7 + bins * k for k in range(4)]
    levels, variances, counts = (tuple(row[start : start + points]) for start in at[:3])
    last = at[3] + 2 * LAGS
    products = tuple(zip(row[at[3] : last : 2], row[at[3] + 1 : last : 2], strict=True))
    spacing = Spacing(*row[last:])
    return Fitted(row[0], row[1], row[2], row[3], row[4], levels, variances, counts, row[6], products, spacing)
