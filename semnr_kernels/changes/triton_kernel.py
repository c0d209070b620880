"""The changes in Triton around torch.fft: 15 launches and two transforms a batch, whatever its size.

The kernels are in triton_stages.py and triton_tail.py; what each reads and writes is said where it is launched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from .. import batched, triton_select, triton_support
from ..planes import Levelled, Tiles
from ..registry import Call, no_gradient, refusal
from ..triton_support import launch
from . import on_device, triton_stages, triton_tail
from .bound import Noise
from .reference import BLOCK, CALM, REACH
from .settings import Figures, Settings
from .spectra import plan_of

_PIECE = 1024  # frequencies of a ring that a program adds up
_BELLS = (0.7, 1.0, 2.0, 3.0, 4.0)  # px: the Gaussians whose differences are the bands
_MOST_TILES = triton_support.SECOND_AXIS // 4
_MOST_BLOCKS = 2**18  # of 8 x 8 px: a program holds them


def _many_tiles(call: Call) -> str | None:
    return None if call.shape[0] <= _MOST_TILES else f"takes at most {_MOST_TILES} tiles a call"


def _large(call: Call) -> str | None:
    blocks = (call.shape[-2] // BLOCK) * (call.shape[-1] // BLOCK)
    return None if blocks <= _MOST_BLOCKS else "takes tiles of at most 4096 x 4096 px"


UNSUPPORTED = (*on_device.UNSUPPORTED, no_gradient, _many_tiles, _large)


def supports(call: Call) -> str | None:
    """Any dtype, sides of at least 32 px."""
    return refusal(UNSUPPORTED, call)


def changes(
    x: Tiles | None,
    d: Tiles,
    r: Tiles | None,
    settings: Settings,
    noise: Sequence[Noise | None] | None = None,
) -> list[Figures]:
    """As `reference.changes`."""
    return on_device.changed(rows, x, d, r, settings, noise)


# --- what depends on the size of the tiles alone ---


class _Tables(NamedTuple):
    taper_down: torch.Tensor
    taper_right: torch.Tensor
    whole: torch.Tensor
    order: torch.Tensor  # int32: frequencies by rings
    pieces: torch.Tensor  # (pieces, 3) int32: of which each is one ring's; where it starts and ends, the ring
    ranks: torch.Tensor  # (rings, 4) int32: of the medians, as `triton_select` takes them
    bells_down: torch.Tensor  # (Gaussians, rows)
    bells_right: torch.Tensor
    turns_down: torch.Tensor  # (rows, 32, 2) float32
    turns_right: torch.Tensor  # (columns, 32, 2)
    inflation: torch.Tensor
    slopes: torch.Tensor  # (2, 7) float32
    steepest: torch.Tensor  # int32 ranks


def _tables(height: int, width: int) -> tuple[np.ndarray, ...]:
    plan = plan_of((height, width))
    _, order, bounds = on_device._rings(height, width)
    pieces = [
        (start, min(start + _PIECE, b), group)
        for group, (a, b) in enumerate(pairwise(bounds))
        for start in range(a, b, _PIECE)
    ]
    # an empty ring has no median: any number, for its weight is 0
    ranks = [(a, b - a, (b - a - 1) // 2, (b - a) // 2) if b > a else (0, 1, 0, 0) for a, b in pairwise(bounds)]
    bells = [
        np.stack([np.exp(-2 * (np.pi * s * f.ravel()) ** 2) for s in _BELLS]) for f in (plan.fy, plan.fx)
    ]  # each but a factor of the Gaussian of both
    at = np.arange(-REACH, REACH + 1)
    turns = []
    for f in (plan.fy, plan.fx):
        phase = 2 * np.pi * np.outer(f.ravel(), at)
        turns.append(np.pad(np.stack([np.cos(phase), np.sin(phase)], -1), ((0, 0), (0, 32 - at.size), (0, 0))))
    smooth, slope = on_device._steep()
    middle, pixels = smooth.size // 2, height * width
    found = (
        *plan.sides,
        np.array([plan.taper.sum()]),
        order.astype(np.int32),
        np.array(pieces, np.int32),
        np.array(ranks, np.int32),
        *bells,
        turns[0].astype(np.float32),
        turns[1],
        np.array([plan.inflation]),
        np.stack([smooth[middle:], slope[middle:]]),
        np.array([[0, pixels, (pixels - 1) // 2, pixels // 2, pixels - 1]], np.int32),
    )
    return tuple(np.ascontiguousarray(v) for v in found)


# --- a batch ---


def rows(
    x: Levelled | None, d: Levelled, r: Levelled | None, settings: Settings, taps: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """As `on_device.rows`."""
    against = r if x is None else x
    if against is None:
        raise ValueError("neither a noisy image nor a reference; accepted: one of them, or both")
    noisy, clean = x is not None, r is not None
    given = [against, d] if r is None or x is None else [against, d, r]
    images, own_levels = tuple(v.data.contiguous() for v in given), tuple(v.level for v in given)
    n, height, width = d.data.shape
    device, count = d.data.device, len(given)
    columns, strips = width // 2 + 1, -(-height // BLOCK)
    high, wide = height // BLOCK, width // BLOCK
    tile, spectrum_bytes = 4 * n * height * width, 8 * n * height * columns
    t = _Tables(*batched.table(_tables, device, height, width))
    kind = {"NOISY": noisy}

    def room(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    # levels
    down, broad = settings.scan_axis == -2, 256
    parts, blocks = room(n, count, strips, 2), room(n, count, high * wide)
    lines = room(n, count, strips, width) if down else room(n, count, height)
    launch(
        triton_stages.means, (strips, n), t.taper_down, t.taper_right, images, own_levels, parts, blocks, lines,
        height, width, strips, threads=512, DOWN=down, COLUMNS=broad,
        moved=count * tile + 8 * (parts.numel() + blocks.numel() + lines.numel()),
    )  # fmt: skip
    level = room(n, 4)
    if settings.data_range:
        span, ranges = triton_support.numbers(device, settings.data_range), 0
    else:
        span, ranges = on_device.span_of(images[0]), 1
    lanes = triton_support.power_of_2(high * wide)
    launch(
        triton_tail.levels, (n,), blocks, own_levels[0], own_levels[1], span, level, high, wide, ranges, 3,
        threads=512, IMAGES=count, BLOCKS=lanes,
        WITNESS=2 if noisy and clean else 0 if clean else 1,
        moved=8 * n * (16 * high * wide + 7),
    )  # fmt: skip
    found = {"gain_change": level[:, :2], "offset_change": level[:, 2:]}

    # spectra
    scaled, scales = room(count, n, height, width, dtype=torch.float32), room(n, dtype=torch.float32)
    launch(
        triton_stages.tapered, (strips, n), t.taper_down, t.taper_right, images, t.whole, parts, scaled, scales, n,
        height, width, strips, threads=512, COLUMNS=broad, PARTS=64,
        moved=2 * count * tile + n * strips * 16 * strips * count,
    )  # fmt: skip
    spectra = torch.view_as_real(torch.fft.rfft2(scaled))

    # place
    crossed = room(n, height, columns, 2, dtype=torch.float32)
    by_column = room(n, triton_tail.PARTS, triton_stages.SHIFTS, columns, 2, dtype=torch.float32)
    across = triton_support.block(32, triton_support.power_of_2(columns))
    programs = -(-columns // across)
    launch(
        triton_tail.cross, (programs, triton_tail.PARTS, n), spectra, t.bells_down, t.bells_right, t.turns_down,
        crossed, by_column, n, height, width, COLUMNS=across,
        moved=3 * spectrum_bytes + 4 * by_column.numel() + n * programs * height * (256 + 8 * 2),
    )  # fmt: skip
    place = room(n, 10)
    launch(
        triton_tail.peak,
        (n,),
        by_column,
        t.turns_right,
        place,
        columns,
        moved=4 * by_column.numel() + n * (columns * 512 + 16),
    )
    launch(
        triton_tail.newton, (n,), crossed, t.inflation, place, height, width, threads=512,
        ROWS=triton_support.block(4, min(256, triton_support.power_of_2(height))),
        COLUMNS=triton_support.block(256, min(256, triton_support.power_of_2(columns))),
        moved=(triton_tail.NEWTON + 1) * spectrum_bytes + n * 80,
    )  # fmt: skip
    found |= {"delta": place[:, :2], "hessian": place[:, 2:6], "spread": place[:, 6:]}

    # sums over rings
    white, along_rows = None, settings.scan_axis == -1
    if taps is not None and noisy:
        turns, _ = batched.table(on_device._lines, device, height, width, settings.scan_axis)
        size = turns.shape[-1]
        white = room(n, size, dtype=torch.float32)
        launch(
            triton_stages.whitened, (-(-size // 128), n), taps.contiguous(), turns, white, taps.shape[1], size,
            BLOCK=128,
            moved=n * size * (4 + 16 * taps.shape[1]),
        )  # fmt: skip
    out = room(n, 64)
    medians, textures, sums = out, out, out
    if clean or white is not None:
        pieces = t.pieces.shape[0]
        each, sums = room(n, pieces, triton_stages.SUMS), room(n, triton_stages.GROUPS, triton_stages.SUMS)
        order = 4 * n * height * columns
        launch(
            triton_stages.rings, (pieces, n), spectra, t.order, t.pieces, t.bells_down, t.bells_right, white, each, n,
            height, width, int(along_rows), **kind, CLEAN=clean, BLOCK=_PIECE,
            moved=count * spectrum_bytes + order + 8 * each.numel(),
        )  # fmt: skip
        launch(
            triton_stages.gathered, (triton_stages.GROUPS, n), each, t.pieces, sums, pieces,
            BLOCK=triton_support.block(64, 256),
            moved=8 * (each.numel() + sums.numel()) + 12 * n * pieces,
        )  # fmt: skip
    if clean:
        rests = room(n, 4 if noisy else 2, height * columns, dtype=torch.float32)
        launch(
            triton_stages.rests, (pieces, n), spectra, t.order, t.pieces, t.bells_down, t.bells_right, sums, rests, n,
            height, width, **kind, BLOCK=_PIECE,
            moved=2 * count * spectrum_bytes + order + 4 * rests.numel(),
        )  # fmt: skip
        medians, _ = triton_select.of_rank(rests.flatten(0, 1), t.ranks, height * columns)
        bands = torch.fft.irfft2(torch.view_as_complex(spectra), s=(height, width), norm="forward")
        textures = _texture(images[-1] if noisy else images[0], bands, t, noisy)
    if clean or white is not None:
        launch(
            triton_tail.transfers, (n,), sums, medians, textures, scales, t.inflation, out, high * wide, **kind,
            CLEAN=clean, BOUND=white is not None, BLOCK=512,
            moved=n * 8 * (triton_stages.GROUPS * 60 + 4 * high * wide + 64),
        )  # fmt: skip
    if clean:
        found |= {"rings": out[:, :24].unflatten(1, (12, 2)), "transfer_high": out[:, 24:26]}
        found["transfer_texture"] = out[:, 26:28]
    if white is not None:
        found["sums"] = out[:, 28:].unflatten(1, (3, 12))
    if noisy:
        found["lines"] = lines.sum(2) / height + torch.stack(own_levels, 1)[..., None] if down else lines
    return found


def _texture(r: torch.Tensor, bands: torch.Tensor, t: _Tables, noisy: bool) -> torch.Tensor:
    """(N, blocks, 2): means of the products of the bands away from what is steep in the reference (N, H, W)."""
    n, height, width = r.shape
    tile, reach, small = 4 * n * height * width, t.slopes.shape[1] - 1, triton_support.interpreted()
    tall, broad = (
        (min(256, triton_support.power_of_2(height)), min(256, triton_support.power_of_2(width))) if small else (32, 64)
    )
    programs = -(-height // tall) * -(-width // broad)
    steep = torch.empty((n, height * width), dtype=torch.float32, device=r.device)
    launch(
        triton_stages.steepness, (programs, n), r, t.slopes, steep, height, width, threads=512, REACH=reach,
        ROWS=tall, COLUMNS=broad,
        moved=tile + 4 * n * programs * (tall + 2 * reach) * (broad + 2 * reach),
    )  # fmt: skip
    ranks, _ = triton_select.of_rank(steep, t.steepest, height * width)
    blocks = (height // BLOCK) * (width // BLOCK)
    out = torch.empty((n, blocks, 2), dtype=torch.float64, device=r.device)
    around = 4 * n * programs * (tall + 2 * CALM) * (broad + 2 * CALM)
    launch(
        triton_stages.calm, (programs, n), steep, ranks, bands, out, n, height, width, threads=512, CALM=CALM,
        NOISY=noisy, ROWS=tall, COLUMNS=broad,
        moved=len(bands) * tile + around + 8 * out.numel(),
    )  # fmt: skip
    return out


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds: each kernel of a noisy image, a denoised one and a reference."""
    tiles = Levelled.of(torch.zeros((1, 1, 512, 512)))
    with triton_support.recording() as made:
        rows(tiles, tiles, tiles, Settings(1.0), torch.ones((1, 3), dtype=torch.float64))
    for one in made:
        which = f" of {one.constants['RANKS']}" if one.kernel is triton_select.select else ""
        yield f"changes {one.kernel.fn.__name__}{which}", one
