"""The scan of the residual in Triton around torch.fft: 16 launches and two transforms a batch, whatever its size.

The kernels are in triton_stages.py and triton_marks.py; what each reads and writes is said where it is launched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from .. import batched, triton_select, triton_support
from ..planes import Levelled, Tiles
from ..registry import Call, no_gradient, refusal
from ..triton_support import launch
from . import marking, on_device, spread, triton_marks, triton_stages
from .on_device import Lines, told
from .scanning import _OVERLAP, cuts_of
from .settings import Law, Scanned, Settings
from .templates import bank

_WIDEST = 8192  # px: a program holds a line
_MOST_TILES = triton_support.SECOND_AXIS // 8


def _long_lines(call: Call) -> str | None:
    return None if call.shape[-1] <= _WIDEST else f"takes no lines above {_WIDEST} px"


def _many_tiles(call: Call) -> str | None:
    return None if call.shape[0] <= _MOST_TILES else f"takes at most {_MOST_TILES} tiles a call"


UNSUPPORTED = (no_gradient, _long_lines, _many_tiles)


def supports(call: Call) -> str | None:
    """Any dtype, with a mask or without."""
    return refusal(UNSUPPORTED, call)


def scan(x: Tiles, d: Tiles, valid: torch.Tensor | None, laws: Sequence[Law], settings: Settings) -> Scanned:
    """As `reference.scan`."""
    lines = on_device.lines_of(laws, x.images.device)
    figures, largest = rows(x.levelled(), d.levelled(), None if valid is None else valid[:, 0], lines, settings)
    return told(batched.on_host(figures), None if largest is None else largest.cpu().numpy())


# --- what depends on the size of the tiles and on the shapes alone ---


class _Tables(NamedTuple):
    turns: torch.Tensor
    along: torch.Tensor
    across: torch.Tensor
    right: torch.Tensor
    gone_down: torch.Tensor  # what the surroundings' Gaussian leaves of a frequency
    gone_right: torch.Tensor
    row_bands: torch.Tensor  # int32
    areas: torch.Tensor
    band_weight: torch.Tensor
    taps: torch.Tensor  # (orbits, shapes) float32
    slopes: torch.Tensor  # (2, 9) float32
    room: torch.Tensor
    radii: torch.Tensor
    bounds: torch.Tensor  # int32: where each level of edge strength begins, among the samples
    own: torch.Tensor  # int32: ranks, as `triton_select` takes them
    middle: torch.Tensor
    limits: torch.Tensor
    levels: torch.Tensor


def _tables(height: int, width: int, sizes: tuple[float, ...]) -> tuple[np.ndarray, ...]:
    shapes, order = bank(sizes), on_device._order(sizes)
    rows, columns = on_device._padded(height, width, sizes)
    plan = on_device._Plan(*map(torch.from_numpy, on_device._plan(rows, columns, sizes)))
    gone = [on_device._gaussian(f) for f in (np.fft.fftfreq(rows), np.fft.rfftfreq(columns))]
    cuts = [cuts_of(length) for length in (height, width)]
    sides = [[end - start for _, (start, end) in cut] for cut in cuts]
    areas = 1 / (np.multiply.outer(*sides).ravel() * float(len(cuts[0]) * len(cuts[1])))
    smooth, slope = on_device._slopes()
    step = marking.sampling(height, width)
    samples, bounds = _levels(height, width)
    kth = [bounds[0], samples, max(1, math.ceil(marking.WITHIN * samples)) - 1]
    ends = [*bounds[1:-1], 0, 0, 0, 0, 0][: len(marking.LEVELS)]  # as many for all sizes: one kernel
    groups = [[a, b - a, max(1, math.ceil(marking.SHARE * (b - a))) - 1] for a, b in pairwise(bounds)]
    assert step * step * samples >= height * width
    found = (
        plan.turns,
        plan.along,
        plan.across,
        plan.right,
        *gone,
        (np.abs(np.fft.fftfreq(rows)) * 16).astype(int).clip(max=7).astype(np.int32),
        areas,
        plan.band_weight,
        _orbits(np.asarray(plan.templates)[:, 0]),
        np.stack([smooth[8:], slope[8:]]),
        on_device._room(tuple(shapes[k].size for k in order), math.sqrt(height * width)),
        on_device._radii(shapes),
        np.array(bounds, np.int32),
        np.array([kth], np.int32),
        np.array([[0, height * width, (height * width + 1) // 2 - 1]], np.int32),
        np.array([[0, samples, *ends]], np.int32),
        np.array(groups, np.int32),
    )
    return tuple(np.ascontiguousarray(v) for v in found)


def _levels(height: int, width: int) -> tuple[int, list[int]]:
    """How many samples there are, and where the levels of edge strength begin among them, with the end."""
    step = marking.sampling(height, width)
    samples = -(-height // step) * -(-width // step)
    shares = [share for share in marking.LEVELS if (1 - share) * height * width >= marking.LEVEL_PIXELS]
    return samples, [0, *(round(share * samples) for share in shares), samples]


def _orbits(templates: np.ndarray) -> np.ndarray:
    """(orbits, shapes) of (shapes, side, side) that are the same turned and mirrored, as `triton_stages.filtered`
    takes them: from the middle, a ≥ b; halved where the orbit has four places, an eighth in the middle."""
    reach = templates.shape[1] // 2
    out = [
        templates[:, reach + a, reach + b] * (0.125 if a == 0 else 0.5 if b in (0, a) else 1.0)
        for a in range(reach + 1)
        for b in range(a + 1)
    ]
    return np.stack(out).astype(np.float32)


# --- a batch ---


def rows(
    x: Levelled, d: Levelled, valid: torch.Tensor | None, lines: Lines, settings: Settings
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """As `on_device.rows`."""
    n, height, width = d.data.shape
    device, pixels, sizes = d.data.device, height * width, settings.sizes
    shapes, order = bank(sizes), on_device._order(sizes)
    t = _Tables(*batched.table(_tables, device, height, width, sizes))
    padded = on_device._padded(height, width, sizes)
    down, across = (len(cuts_of(length)) for length in (height, width))
    windows = down * across
    whole = n * windows * padded[0] * padded[1] * 4  # bytes of the windows, each with its room
    tile = n * pixels * 4
    mask = None if valid is None else valid.contiguous()
    masked = 0 if mask is None else n * pixels
    images, levels = [v.data.contiguous() for v in (x, d)], [v.level for v in (x, d)]
    law = torch.stack(lines[:3]).unbind(0)

    def room(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    # the noise of the tile, and what it leaves of each shape
    size, kinds = padded[1] // 2 + 1, len(shapes)
    white, gain, density = room(n, size), room(n, kinds, dtype=torch.float64), room(n, dtype=torch.float64)
    launch(
        triton_stages.gains, (n,), lines.taps.contiguous(), t.turns, t.along, t.across, t.right, white, gain, density,
        lines.taps.shape[1], size, padded[0] * padded[1], kinds, SHAPES=triton_support.power_of_2(kinds),
        BLOCK=triton_support.block(128, 512),
        moved=n * size * (4 + 8 * (2 * lines.taps.shape[1] + 2 * kinds + 1)),
    )  # fmt: skip

    # the residual over the noise
    parts = triton_stages.PARTS
    most, moments = room(n, parts, dtype=torch.float64), room(n, parts, 3, dtype=torch.float64)
    block = triton_support.block(1024, 2**16)
    launch(triton_stages.extremes, (parts, n), images[1], levels[1], most, pixels, BLOCK=block, moved=tile)
    noise = (*levels, *law, most)
    launch(
        triton_stages.moments,
        (parts, n),
        *images,
        mask,
        *noise,
        moments,
        pixels,
        BLOCK=block,
        moved=2 * tile + masked + n * parts * parts * 8,
    )
    u = room(n * windows, *padded)
    seen = 4 * n * sum(b - a for _, (a, b) in cuts_of(height)) * across * width  # each window reads whole lines
    each = n * windows * padded[0] * parts * 32  # partial sums, which each program adds up
    wide = max(512, triton_support.power_of_2(max(width, padded[1])))
    launch(
        triton_stages.lines, (padded[0], windows, n), *images, mask, *noise, moments, u, height, width, *padded,
        down, across, threads=min(1024, wide // 4), COLUMNS=wide,
        moved=2 * seen + seen * masked // tile + whole + each,
    )  # fmt: skip

    # whitened, less the surroundings
    spectrum = torch.view_as_real(torch.fft.rfft2(u))
    power = room(n * windows, padded[0], 8, dtype=torch.float64)
    groups = -(-padded[0] // triton_stages.TOGETHER)
    launch(
        triton_stages.bands, (groups, n * windows), spectrum, white, t.gone_down, t.gone_right, power, *padded,
        size, windows, LANES=max(64, triton_support.power_of_2(-(-size // 8))),
        moved=2 * spectrum.numel() * 4 + n * windows * (groups * 12 * size + padded[0] * 64),
    )  # fmt: skip
    plane = _back(torch.view_as_complex(spectrum), padded)

    # edges
    step = marking.sampling(height, width)
    samples, bounds = _levels(height, width)
    few_levels, limits_count = len(bounds) - 2, len(marking.LEVELS)
    edges, sampled = room(n, pixels), room(n, samples)
    tall, broad = _tile(32, 64, height, width)
    programs = -(-height // tall) * -(-width // broad)
    launch(
        triton_stages.strength, (programs, n), images[1], levels[1], *law, most, t.slopes, edges, sampled,
        height, width, step, threads=512, ROWS=tall, COLUMNS=broad,
        moved=tile + 4 * n * (samples + programs * (tall + 16) * (broad + 16)),
    )  # fmt: skip
    usual, _ = triton_select.of_rank(edges, t.middle, pixels)
    limits, below = triton_select.of_rank(sampled, t.limits, samples)

    # what is usual, from samples
    reach = on_device._reach(sizes)
    geometry = (height, width, *padded, down, across, reach)
    high, broad_samples = -(-height // step), -(-width // step)
    z = room(n, kinds, samples)
    tall, broad = _tile(32, 64, high, broad_samples)
    programs = -(-high // tall) * -(-broad_samples // broad)
    halo = (tall * step + 2 * reach) * (broad * step + 2 * reach)
    launch(
        triton_stages.sample, (programs, n), plane, t.taps, gain, z, *geometry, step,
        threads=512, SHAPES=kinds, ROWS=tall, COLUMNS=broad,
        moved=4 * n * (kinds * samples + programs * halo),
    )  # fmt: skip
    own, _ = triton_select.of_rank(z.view(n * kinds, samples), t.own, samples)
    small, large = (order.index(marking.middle_of(shapes, middle)) for middle in marking.MIDDLES)
    few = sum(shapes[k].size < marking.LARGE for k in order)
    by_edge = room(n, 2, samples)
    launch(
        triton_stages.grouped, (2, n), sampled, z, limits, below, t.bounds, by_edge, samples, threads=512,
        SHAPES=kinds, SMALL=small, LARGE=large, LEVELS=few_levels, LIMITS=limits_count,
        BLOCK=triton_support.block(2048, 2**16),
        moved=3 * by_edge.numel() * 4,
    )  # fmt: skip
    at_edges, _ = triton_select.of_rank(by_edge.view(n * 2, samples), t.levels, samples)

    # the strongest, and the figures of the tile
    best, largest = room(n, height, width), room(n, height, width) if settings.with_map else None
    blocks_down, blocks_across = max(1, height // spread.BLOCK), max(1, width // spread.BLOCK)
    blocks = room(n, blocks_down * blocks_across, 5, dtype=torch.float64)
    sides = [max(32, triton_support.power_of_2(-(-a // b))) for a, b in ((height, blocks_down), (width, blocks_across))]
    per = 4
    strips = -(-blocks_across // per)
    strip = (height / blocks_down + 2 * reach) * (width + strips * 2 * reach) * blocks_down
    bank_of = {"SHAPES": kinds, "FEW": few, "SMALL": small, "LARGE": large, "LEVELS": few_levels}
    launch(
        triton_stages.strongest, (blocks_down * strips, n), plane, t.taps, edges, mask, gain, own, t.room, limits,
        at_edges, usual, best, blocks, largest, *geometry, blocks_down, blocks_across,
        threads=min(1024, sides[0] * sides[1] // 4), **bank_of, LIMITS=limits_count, PER=per, ROWS=sides[0],
        COLUMNS=sides[1],
        moved=int(4 * n * strip) + (3 if settings.with_map else 2) * tile + masked + blocks.numel() * 8,
    )  # fmt: skip
    found, limit = room(n, 66, dtype=torch.float64), room(n, dtype=torch.float64)
    launch(
        triton_marks.figures, (n,), density, moments, power, t.row_bands, t.areas, t.band_weight, blocks, found,
        limit, padded[0], windows, blocks_down * blocks_across,
        RATE=_OVERLAP * 2 / (2 * math.pi) ** 1.5 / settings.alpha, BLOCK=128,
        moved=8 * (8 * power.numel() // 8 + 2 * blocks.numel() + found.numel()),
    )  # fmt: skip

    # places
    cells_high, cells_wide = (-(-v // triton_marks.CELL) for v in (height, width))
    cells = room(n, cells_high * cells_wide, dtype=torch.int64)
    tall, broad = _tile(32, 128, height, width)
    programs = -(-height // tall) * -(-width // broad)
    launch(
        triton_marks.peaks,
        (programs, n),
        best,
        cells,
        height,
        width,
        threads=512,
        ROWS=tall,
        COLUMNS=broad,
        moved=4 * n * programs * (tall + 6) * (broad + 6) + cells.numel() * 8,
    )
    listed = room(n, marking.LISTED, 5, dtype=torch.float64)
    tried, in_group = triton_marks.TRIED, -(-cells.shape[1] // triton_marks.GROUPS)
    taken = cells.numel() + n * tried * in_group  # 8 bytes each
    launch(
        triton_marks.marks, (n,), cells, cells.shape[1], limit, plane, t.taps, edges, images[1], levels[1], *law, most,
        gain, own, t.room, t.radii, limits, at_edges, listed, *geometry, threads=256, **bank_of,
        RANKED=tuple(int(k) for k in np.argsort(order)), LIMITS=limits_count, LANES=64,
        moved=8 * taken + 4 * n * tried * ((2 * reach + 1) ** 2 + 2) + listed.numel() * 8,
    )  # fmt: skip
    templates, _, reaches, apart = batched.table(on_device._given_back, device, shapes)
    places = room(n, marking.LISTED, 5, dtype=torch.float64)
    side = templates.shape[-1]
    box = min(height, side + 2 * marking.AROUND) * min(width, side + 2 * marking.AROUND)
    launch(
        triton_marks.made, (marking.LISTED, n), images[1], listed, templates, reaches, apart, places, height, width,
        side, threads=256, ROWS=triton_support.block(4, 128), COLUMNS=128,
        moved=n * marking.LISTED * (4 * (box + 2 * side * side) + 80),
    )  # fmt: skip
    figures = {
        "variance": found[:, 0],
        "power": found[:, 2:],
        "structure_z": found[:, 1],
        "threshold": limit,
        "places": places,
    }
    return figures, largest


def _back(spectrum: torch.Tensor, padded: tuple[int, int]) -> torch.Tensor:
    """The planes of some spectra, times the number of their pixels."""
    if not triton_support.interpreted():
        return torch.fft.irfft2(spectrum, s=padded, norm="forward")
    # on the host: MKL on Intel rounds two transforms at once otherwise than each alone
    return torch.stack([torch.fft.irfft2(one, s=padded, norm="forward") for one in spectrum])


def _tile(tall: int, broad: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a program; under the interpreter, a whole small image."""
    if not triton_support.interpreted():
        return tall, broad
    return tuple(min(256, max(32, triton_support.power_of_2(v))) for v in (height, width))  # type: ignore[return-value]


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds: each kernel, and with a mask and the map what that changes."""
    tiles = Levelled.of(torch.zeros((1, 1, 512, 512)))
    lines = on_device.lines_of([Law(1.0, 1.0, 1.0, np.ones(3))], tiles.data.device)
    for masked in (False, True):
        valid = torch.ones((1, 512, 512), dtype=torch.bool) if masked else None
        with triton_support.recording() as made:
            rows(tiles, tiles, valid, lines, Settings(with_map=masked))
        seen: set[str] = set()
        for one in made:
            name = one.kernel.fn.__name__
            if masked and name in ("moments", "lines", "strongest"):
                yield f"residual {name}, mask", one
            elif not masked and name not in seen and one.kernel is not triton_select.select:
                seen.add(name)
                yield f"residual {name}", one
            elif not masked and one.kernel is triton_select.select and f"{one.constants['RANKS']}" not in seen:
                seen.add(f"{one.constants['RANKS']}")
                yield f"residual select of {one.constants['RANKS']}", one
