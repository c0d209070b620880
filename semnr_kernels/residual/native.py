"""The scan of the residual in C++: one transform there and back a window, then all shapes as sums in place.

The templates act on the whitened residual pixel by pixel: they are small, and the same turned by 90° and mirrored, so
that a whole bank costs less than one more transform. See README.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import native_support
from ..planes import Tiles
from ..registry import Call, no_loop, refusal
from ..transfer.bands import fast_size
from . import marking, spread
from .scanning import BACKGROUND, _spectra, cuts_of, threshold
from .settings import Law, Place, Scanned, Settings
from .templates import bank, template

UNSUPPORTED = (no_loop,)
_SLOPE_RADIUS = 8  # px: the Gaussian of the gradient ends there, at 5 sigma


def supports(call: Call) -> str | None:
    """Any dtype, with a mask or without."""
    return refusal(UNSUPPORTED, call)


class _Plan(NamedTuple):
    """What depends on the size of the tiles and on the shapes alone."""

    native: Any
    turns: np.ndarray  # (columns / 2 + 1, taps): e^(-2πi f k)
    along: np.ndarray  # (shapes, columns / 2 + 1): energy of the shapes over the column
    across: np.ndarray  # the same times the squared frequency down
    right: np.ndarray  # squared frequency along the line
    pixels: int  # of the transform
    weights: np.ndarray  # (64,): of the bands of frequency, all windows together


def scan(
    x: Tiles,
    d: Tiles,
    valid: torch.Tensor | None,
    laws: Sequence[Law],
    settings: Settings,
    *,
    isa: str | None = None,
) -> Scanned:
    """As `reference.scan`, for CPU tensors; `isa` forces an instruction set."""
    module = native_support.module(isa)
    n, _, height, width = x.images.shape
    plan = _plan(isa, height, width, settings.sizes)
    white = np.stack([np.abs(plan.turns[:, : law.taps.size] @ law.taps) ** 2 for law in laws])
    energy = white @ plan.along.T  # (N, shapes)
    gain = torch.from_numpy(np.sqrt(energy / plan.pixels))
    moments = np.sqrt((white @ plan.across.T) * ((white * plan.right) @ plan.along.T))
    counts = [height * width] * n if valid is None else valid.sum((1, 2, 3)).tolist()
    limit = [
        threshold(float(v), max(int(count), 1), settings.alpha)
        for v, count in zip((moments / energy).sum(1), counts, strict=True)
    ]
    limits = torch.tensor(limit, dtype=torch.float64)
    lines = torch.tensor([[law.gain, law.offset, law.floor] for law in laws], dtype=torch.float64)
    whitening = torch.from_numpy(white.astype(np.float32))
    mask = None if valid is None else valid[:, 0].to(torch.uint8).contiguous()
    rows = native_support.empty((n, module.RESIDUAL_ROW), torch.float64)
    found = native_support.empty((n, module.RESIDUAL_MARKS, module.RESIDUAL_MARK), torch.float64)
    largest = native_support.empty((n, height, width), torch.float32) if settings.with_map else None
    module.residual_scan(
        x.planes(isa).argument,
        d.planes(isa).argument,
        *(native_support.address(v) for v in (mask, lines, whitening, gain, limits)),
        plan.native,
        torch.get_num_threads(),
        *(native_support.address(v) for v in (rows, found, largest)),
    )
    variance, edges, count = rows[:, :3].unbind(1)
    power = (rows[:, 3:] / torch.from_numpy(plan.weights)).view(n, 8, 8)
    return Scanned(
        variance.numpy(),
        spread.spectrum_distance(power),
        edges.numpy(),
        np.array(limit),
        [[_place(v) for v in tile[: int(k)]] for tile, k in zip(found.tolist(), count.tolist(), strict=True)],
        None if largest is None else largest.numpy(),
    )


def _place(values: list[float]) -> Place:
    row, column, shape, z, invented = values
    return Place(int(row), int(column), int(shape), z, invented != 0)


@functools.lru_cache(maxsize=8)
def _plan(isa: str | None, height: int, width: int, sizes: tuple[float, ...]) -> _Plan:
    shapes = bank(sizes)
    templates = [template(shape) for shape in shapes]
    cuts = [cuts_of(length) for length in (height, width)]
    room = max(t.shape[0] for t in templates) + 8
    rows, columns = (fast_size(max(end - start for _, (start, end) in cut) + room) for cut in cuts)
    spectra, high = _spectra(shapes, rows, columns)
    down, right = np.fft.fftfreq(rows), np.fft.rfftfreq(columns)
    twice = np.full(right.size, 2.0)  # each column but the first (and the last, of an even length) stands for two
    twice[0] = 1.0
    if columns % 2 == 0:
        twice[-1] = 1.0
    squares = spectra.double().numpy() ** 2
    native = native_support.module(isa).ResidualPlan(
        *([(core.start, core.stop, first, last) for core, (first, last) in cut] for cut in cuts), (rows, columns)
    )
    native.surroundings_down, native.surroundings_right = (_gaussian(f).tolist() for f in (down, right))
    native.smooth, native.slope = _slopes()
    radius = max(t.shape[0] // 2 for t in templates)
    quarters = np.zeros((len(shapes), radius + 1, radius + 1), np.float32)
    for quarter, t in zip(quarters, templates, strict=True):
        reach = t.shape[0] // 2
        quarter[: reach + 1, : reach + 1] = t[reach:, reach:]
    native.radius, native.bumps = radius, quarters.ravel().tolist()
    native.size, native.reach = [s.size for s in shapes], [t.shape[0] // 2 for t in templates]
    native.level = [int(s.size >= marking.LARGE) for s in shapes]
    native.middle = [marking.middle_of(shapes, size) for size in marking.MIDDLES]
    step = marking.sampling(height, width)
    samples = math.ceil(height / step) * math.ceil(width / step)
    shares = [share for share in marking.LEVELS if (1 - share) * height * width >= marking.LEVEL_PIXELS]
    native.step, native.bounds = step, [0, *(round(share * samples) for share in shares), samples]
    native.within, native.share, native.quantile = marking.WITHIN, marking.SHARE, marking.QUANTILE
    native.calmest, native.block, native.around = marking.CALMEST, spread.BLOCK, marking.AROUND
    return _Plan(
        native,
        np.exp(-2j * np.pi * np.outer(right, np.arange(8))),
        squares.sum(1) * twice,
        ((2 * math.pi * down[:, None]) ** 2 * squares).sum(1) * twice,
        (2 * math.pi * right) ** 2,
        rows * columns,
        _weights(high.double().numpy()) * len(cuts[0]) * len(cuts[1]),
    )


def _gaussian(f: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.exp(-2 * (math.pi * BACKGROUND * f) ** 2)
    return out


def _slopes() -> tuple[list[float], list[float]]:
    """Taps of the Gaussian under which the gradient is taken, and of its derivative, as their responses give them."""
    f = np.fft.fftfreq(4096)
    smooth = np.exp(-2 * (math.pi * marking.SLOPE * f) ** 2)
    taps = [np.fft.ifft(response).real[: _SLOPE_RADIUS + 1] for response in (smooth, 2j * math.pi * f * smooth)]
    return taps[0].tolist(), [0.0, *taps[1][1:].tolist()]


def _weights(high: np.ndarray) -> np.ndarray:
    """(64,): the weight of each band of |fy| and fx, see `scanning._bands`."""
    rows, columns = high.shape
    y = (np.abs(np.fft.fftfreq(rows)) * 16).astype(int).clip(max=7)
    x = (np.arange(columns) * 8 // columns).clip(max=7)
    return np.bincount((y[:, None] * 8 + x).ravel(), high.ravel(), 64)
