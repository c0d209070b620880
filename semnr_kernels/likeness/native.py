"""The looks in C++: float32 transforms with sums in float64."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from scipy import fft

from .. import native_support
from ..planes import Tiles
from ..registry import Call, no_loop, refusal
from .reference import taper
from .settings import FEW_LEVELS, JPEG, NEAR, SEEN, Looks, between, blocks

UNSUPPORTED = (no_loop,)


def supports(call: Call) -> str | None:
    """Any dtype and layout."""
    return refusal(UNSUPPORTED, call)


def likeness(x: Tiles, d: Tiles | None, r: Tiles | None, *, isa: str | None = None) -> list[Looks]:
    """As `reference.likeness`, for CPU tensors; `isa` forces an instruction set."""
    module = native_support.module(isa)
    n, _, height, width = x.images.shape
    rows = native_support.empty((n, module.LIKENESS_ROW), torch.float64)
    module.likeness_rows(
        *((x if v is None else v).planes(isa).argument for v in (x, d, r)),
        d is not None,
        r is not None,
        _plan(isa, height, width),
        torch.get_num_threads(),
        native_support.address(rows),
    )
    return [Looks(*row) for row in rows.tolist()]


@functools.lru_cache(maxsize=8)
def _plan(isa: str | None, height: int, width: int) -> Any:
    rows, columns = (max(1, fft.prev_fast_len(max(1, n))) for n in ((height - 1) // 2, width // 2))
    down, right = (np.arange(n) / (4 * n) for n in (rows, columns))
    ends = [np.where(np.arange(n) == 0, np.sqrt(0.5), 1.0) for n in (rows, columns)]  # of an orthogonal transform
    factors = ends[0], ends[1] / np.cos(np.pi * right)
    cosine = [(v * factors[i % 2]).tolist() for i, v in enumerate(between(down, right))]
    pooled = max(1, height // 2), max(1, width // 2)
    band = [v.tolist() for v in between(np.fft.fftfreq(pooled[0], 2.0), np.fft.rfftfreq(pooled[1], 2.0))]
    return native_support.module(isa).LikenessPlan(
        rows,
        columns,
        cosine,
        band,
        *(taper(n).tolist() for n in pooled),
        [at.tolist() for at in blocks(height, width)] if min(height, width) >= 16 else [],
        SEEN,
        JPEG,
        FEW_LEVELS,
        NEAR,
    )
