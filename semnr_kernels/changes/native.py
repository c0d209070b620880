"""The changes in C++: float32 transforms with sums in float64; what is left to do with a dozen numbers is done here."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .. import native_support
from ..planes import Tiles
from ..registry import Call, no_loop, refusal
from .bound import SUMS, Noise, transfer_bound, weights
from .reference import BLOCK, CALM, STEEP, known_shift, rows_added, shape_of
from .settings import Figures, Settings
from .spectra import BAND, CENTRES, EDGES, HIGH, MIN_Z, NOTHING, TEXTURE, plan_of

RINGS = len(CENTRES)


def _too_small(call: Call) -> str | None:
    return None if min(call.shape[-2:]) >= 4 * BLOCK else "has no loop for sides below 32 px"


UNSUPPORTED = (no_loop, _too_small)


def supports(call: Call) -> str | None:
    """Any dtype."""
    return refusal(UNSUPPORTED, call)


def changes(
    x: Tiles | None,
    d: Tiles,
    r: Tiles | None,
    settings: Settings,
    noise: Sequence[Noise | None] | None = None,
    *,
    isa: str | None = None,
) -> list[Figures]:
    """As `reference.changes`, for CPU tensors; `isa` forces an instruction set."""
    module = native_support.module(isa)
    against = r if x is None else x
    if against is None:
        raise ValueError("neither a noisy image nor a reference; accepted: one of them, or both")
    n, _, height, width = d.images.shape
    down = settings.scan_axis == -2
    rows = native_support.empty((n, module.CHANGES_ROW), torch.float64)
    lines = native_support.empty((n, 3, width if down else height), torch.float64)
    spans = torch.tensor(_spans(against, settings.data_range), dtype=torch.float64)
    laws = [None] * n if noise is None or x is None else list(noise)
    down_weights, right_weights = _weights(laws, (height, width), settings.scan_axis)
    module.changes_rows(
        *(v.planes(isa).argument for v in (against, d, d if r is None else r)),
        x is not None,
        r is not None,
        native_support.address(spans),
        native_support.address(down_weights),
        native_support.address(right_weights),
        down,
        _plan(isa, height, width),
        torch.get_num_threads(),
        native_support.address(rows),
        native_support.address(lines),
    )
    found = []
    for row, means, law in zip(rows.numpy(), lines.numpy(), laws, strict=True):
        figures = _figures(row, means if x is not None else None, r is not None)
        if law is not None:
            kept = row[-SUMS * module.CHANGES_RINGS :].reshape(SUMS, -1)
            figures["transfer_bound"] = transfer_bound(kept, law, (height, width), settings.scan_axis)
        found.append(figures)
    return found


def _weights(laws: Sequence[Noise | None], shape: tuple[int, int], scan_axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, rows) and (N, columns // 2 + 1) float32: of each frequency, 0 where the noise is unknown."""
    down = torch.zeros(len(laws), shape[0])
    right = torch.zeros(len(laws), shape[1] // 2 + 1)
    for i, law in enumerate(laws):
        if law is not None:
            for to, values in zip((down, right), weights(law, shape, scan_axis), strict=True):
                to[i] = torch.from_numpy(values)
    return down, right


def _figures(row: np.ndarray, lines: np.ndarray | None, reference: bool) -> Figures:
    found: Figures = {"gain_change": _pair(row), "offset_change": _pair(row[2:])}
    delta, hessian, spread = row[4:6], _matrix(row[6:9]), _matrix(row[9:12])
    found |= known_shift(delta, hessian, spread)
    if reference:
        rings = row[14 : 14 + 2 * RINGS].reshape(-1, 2)
        found["transfer_high"] = _pair(row[12:])
        found |= shape_of([_pair(ring) for ring in rings])
        found["transfer_texture"] = _pair(row[14 + 2 * RINGS :])
    if lines is not None:
        found["row_noise_added"] = rows_added(lines[0], lines[1], lines[2] if reference else None)
    return found


def _pair(values: np.ndarray) -> tuple[float, float]:
    return NOTHING if math.isnan(values[0]) else (float(values[0]), float(values[1]))


def _matrix(values: np.ndarray) -> np.ndarray:
    yy, yx, xx = values
    return np.array([[yy, yx], [yx, xx]])


def _spans(against: Tiles, data_range: float | None) -> list[float]:
    """What the offset of each tile is a share of."""
    if data_range:
        return [data_range] * len(against.images)
    grey = against.images.double().mean(1).nan_to_num(math.nan, math.nan, math.nan).flatten(1)
    spans = [np.subtract(*np.nanquantile(tile, (0.999, 0.001))) for tile in grey.numpy()]
    return [float(span) or math.nan for span in spans]


@functools.lru_cache(maxsize=8)
def _plan(isa: str | None, height: int, width: int) -> Any:
    plan = plan_of((height, width))
    groups = np.digitize(np.hypot(plan.fy, plan.fx), EDGES).astype(np.uint8)
    at = np.arange(math.floor(4 * STEEP + 0.5) + 1)  # as scipy's Gaussian filters, which end at 4 sigma
    smooth = np.exp(-0.5 * (at / STEEP) ** 2)
    smooth /= 2 * smooth.sum() - smooth[0]
    return native_support.module(isa).ChangesPlan(
        *(side.tolist() for side in plan.sides),
        groups.ctypes.data,
        [BAND, HIGH, TEXTURE],
        plan.inflation,
        MIN_Z,
        smooth.tolist(),
        (at / STEEP**2 * smooth).tolist(),
        CALM,
    )
