"""The scan of the residual in torch operations, all tiles of a batch at once, on any device: nothing waits for a value.

As in C++: one transform there and back a window, then the templates as sums in place. The level that each shape's |z|
usually has is taken from every second row and column first, and divides the templates of the second pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .. import batched
from ..batched import by_tile
from ..convolution import conv2d
from ..planes import Levelled, Tiles
from ..transfer.bands import fast_size
from . import marking, spread
from .scanning import _OVERLAP, BACKGROUND, _spectra, cuts_of
from .settings import Law, Place, Scanned, Settings
from .templates import Shape, bank, template

_SLOPE_RADIUS = 8  # px: the Gaussian of the gradient ends there, at 5 sigma
_TRIED = 4 * marking.LISTED  # places that are looked at, strongest first
_CHAIN = 32  # of places, each the flank of the next: as far as such chains are followed
_CELL = 4  # px: a cell holds one largest place
_STEPS = 12  # towards the threshold


class Lines(NamedTuple):
    """The noise of each tile on the device: (N,) float64 each; taps (N, K)."""

    gain: torch.Tensor
    offset: torch.Tensor
    floor: torch.Tensor
    taps: torch.Tensor


def scan(x: Tiles, d: Tiles, valid: torch.Tensor | None, laws: Sequence[Law], settings: Settings) -> Scanned:
    """As `reference.scan`."""
    lines = lines_of(laws, x.images.device)
    mask = None if valid is None else valid[:, 0]
    figures, largest = rows(x.levelled(), d.levelled(), mask, lines, settings)
    return told(batched.on_host(figures), None if largest is None else largest.cpu().numpy())


def lines_of(laws: Sequence[Law], device: torch.device) -> Lines:
    """The laws of a batch on the device."""
    longest = max(law.taps.size for law in laws)
    taps = np.stack([np.pad(law.taps, (0, longest - law.taps.size)) for law in laws])
    numbers = np.array([[law.gain, law.offset, law.floor] for law in laws], dtype=np.float64)
    gain, offset, floor = torch.from_numpy(numbers).to(device).unbind(1)
    return Lines(gain, offset, floor, torch.from_numpy(taps).to(device))


def told(found: dict[str, np.ndarray], largest: np.ndarray | None) -> Scanned:
    """Figures of `rows` that have come back from the device."""
    places = [
        [_place(values) for values in tile if values[0] >= 0]  # one that is none has no row
        for tile in found["places"].tolist()
    ]
    spectrum = spread.spectrum_distance(torch.from_numpy(found["power"].reshape(-1, 8, 8)))
    return Scanned(found["variance"], spectrum, found["structure_z"], found["threshold"], places, largest)


def _place(values: list[float]) -> Place:
    row, column, shape, z, invented = values
    return Place(int(row), int(column), int(shape), z, invented != 0)


def rows(
    x: Levelled, d: Levelled, valid: torch.Tensor | None, lines: Lines, settings: Settings
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """The figures of each tile, and the map of the largest |z| where it was asked for.

    valid: (N, H, W) bool. Of "places", (N, 16, 5), those that there are not have row -1.
    """
    height, width = d.data.shape[1:]
    weight = None if valid is None else valid.float()
    sigma = _sigma(d, lines)
    u = (x.data - d.data + by_tile(x.level - d.level, d.data).float()) / sigma
    count = torch.full((len(u),), height * width, device=u.device, dtype=torch.float64)
    if weight is not None:
        u, count = u * weight, batched.total(weight, 1, 2).clamp(min=1)
    u = _weighted(u - by_tile(batched.total(u, 1, 2) / count, u).float(), weight)
    variance = batched.total(u.square(), 1, 2) / count
    along = width if weight is None else weight.sum(2, keepdim=True).clamp(min=1)
    u = _weighted(u - u.clamp(-3, 3).sum(2, keepdim=True) / along, weight)
    bumps = _Bank(u, lines.taps, settings.sizes)
    limit = _threshold(bumps.density, count, settings.alpha)
    strength = _edge_strength(d.data, sigma)
    step = marking.sampling(height, width)
    sample = bumps.z(bumps.gain.reciprocal(), step).flatten(2).abs()  # (N, shapes, samples)
    own = _own(sample, bumps.sizes, math.sqrt(height * width))
    usual = _usual(sample, own, strength[:, ::step, ::step], strength, bumps)
    scaled = bumps.z((bumps.gain * own).reciprocal())  # (N, shapes, H, W): over what is usual in the tile
    best = _largest(scaled, usual, bumps.few)
    z = scaled[:, bumps.middle] * by_tile(own[:, bumps.middle], strength).float()
    figures = {
        "variance": variance,
        "power": bumps.power,
        "structure_z": _energy_at_edges(z, strength, weight, count),
        "threshold": limit,
        "places": _places(best, scaled, own, usual, sigma, d.data, bumps, limit),
    }
    largest = (scaled * own[..., None, None].float()).abs().amax(1) if settings.with_map else None
    return figures, largest


def _weighted(v: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return v if weight is None else v * weight


def _sigma(d: Levelled, lines: Lines) -> torch.Tensor:
    """(N, H, W): of the noise at the denoised levels."""
    gain, offset, floor = lines.gain, lines.offset + lines.gain * d.level, lines.floor
    low, high = d.data.flatten(1).aminmax(dim=1)
    most = torch.maximum((low + d.level).abs(), (high + d.level).abs())
    floor = torch.maximum(floor, 1e-12 + 1e-12 * most.square())  # a frame without any noise
    gain, offset, floor = (by_tile(v, d.data) for v in (gain, offset, floor))
    variance = torch.addcmul(offset, gain, d.data)  # float64: gain and offset may nearly cancel
    return torch.maximum(variance, floor, out=variance).sqrt_().float()


def _edge_strength(d: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """As `marking.edge_strength`, by taps."""
    smooth, slope = batched.table(_slopes, d.device)
    reach = (_SLOPE_RADIUS,) * 4
    around = F.pad(d[:, None], reach, mode="replicate")[:, 0]
    steep = batched.separable(around, torch.stack([slope, smooth]), torch.stack([smooth, slope]))
    return torch.hypot(steep[:, 0], steep[:, 1]).div_(sigma)


def _slopes() -> tuple[np.ndarray, ...]:
    """Taps of the Gaussian under which the gradient is taken, and of its derivative, as their responses give them."""
    f = np.fft.fftfreq(4096)
    smooth = np.exp(-2 * (math.pi * marking.SLOPE * f) ** 2)
    at = np.arange(-_SLOPE_RADIUS, _SLOPE_RADIUS + 1)
    return tuple(np.fft.ifft(v).real[at].astype(np.float32) for v in (smooth, 2j * math.pi * f * smooth))


# --- the filters ---


class _Plan(NamedTuple):
    """What depends on the size of the tiles and on the shapes alone; shapes in the order of `_Bank.order`."""

    high: torch.Tensor  # (rows, columns/2 + 1) float32: what is left of a spectrum less the surroundings
    turns: torch.Tensor  # (2, 8, columns/2 + 1): cosine and sine along the line
    along: torch.Tensor  # (columns/2 + 1, shapes): energy of the shapes over the column
    across: torch.Tensor  # the same times the squared frequency down
    right: torch.Tensor  # (columns/2 + 1,): squared frequency along the line
    down_bands: torch.Tensor  # (16, rows): bands of |fy|, then those times the surroundings' response
    right_bands: torch.Tensor  # (2, columns/2 + 1, 8): bands of fx, the second with the surroundings'
    band_weight: torch.Tensor  # (64,)
    templates: torch.Tensor  # (shapes, 1, side, side) float32


def _order(sizes: tuple[float, ...]) -> list[int]:
    """Shapes that take the levels of the smaller disc first."""
    shapes = bank(sizes)
    return sorted(range(len(shapes)), key=lambda k: (shapes[k].size >= marking.LARGE, k))


def _padded(height: int, width: int, sizes: tuple[float, ...]) -> tuple[int, int]:
    room = max(template(s).shape[0] for s in bank(sizes)) + 8
    rows, columns = (fast_size(max(end - start for _, (start, end) in cuts_of(n)) + room) for n in (height, width))
    return rows, columns


def _reach(sizes: tuple[float, ...]) -> int:
    """Of the largest template, from its middle."""
    return max(template(s).shape[0] for s in bank(sizes)) // 2


def _plan(rows: int, columns: int, sizes: tuple[float, ...]) -> tuple[np.ndarray, ...]:
    shapes, order = bank(sizes), _order(sizes)
    spectra, high = _spectra(shapes, rows, columns)
    squares = spectra.double().numpy()[order] ** 2
    down, right = np.fft.fftfreq(rows), np.fft.rfftfreq(columns)
    twice = np.full(right.size, 2.0)  # each column but the first (and the last, of an even length) stands for two
    twice[0] = 1.0
    if columns % 2 == 0:
        twice[-1] = 1.0
    phase = 2 * np.pi * np.outer(np.arange(8), right)
    y = (np.abs(down) * 16).astype(int).clip(max=7)
    x = (np.arange(right.size) * 8 // right.size).clip(max=7)
    in_row, in_column = np.arange(8)[:, None] == y, x[:, None] == np.arange(8)
    gone_down, gone_right = (_gaussian(f) for f in (down, right))
    side = max(template(s).shape[0] for s in shapes)
    shown = np.zeros((len(shapes), 1, side, side), np.float32)
    for k, s in enumerate(order):
        t = template(shapes[s])
        cut = (side - t.shape[0]) // 2
        shown[k, 0, cut : side - cut, cut : side - cut] = t
    return (
        high.numpy(),
        np.stack([np.cos(phase), np.sin(phase)]),
        (squares.sum(1) * twice).T,
        (((2 * math.pi * down[:, None]) ** 2 * squares).sum(1) * twice).T,
        (2 * math.pi * right) ** 2,
        np.concatenate([in_row, in_row * gone_down]).astype(np.float64),
        np.stack([1.0 * in_column, -1.0 * in_column * gone_right[:, None]]),
        np.bincount((y[:, None] * 8 + x).ravel(), high.double().numpy().ravel(), 64),
        shown,
    )


def _gaussian(f: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.exp(-2 * (math.pi * BACKGROUND * f) ** 2)
    return out


def _wrapped(length: int, start: int, stop: int) -> np.ndarray:
    out: np.ndarray = np.arange(start, stop) % length
    return out


class _Bank:
    """A residual ready to be scanned, whitened and less its surroundings: `z` filters it with all shapes."""

    def __init__(self, u: torch.Tensor, taps: torch.Tensor, sizes: tuple[float, ...]) -> None:
        n, height, width = u.shape
        self.shapes, self.order = bank(sizes), _order(sizes)
        self.sizes = [self.shapes[k].size for k in self.order]
        self.few = sum(size < marking.LARGE for size in self.sizes)
        self.middle = self.order.index(marking.middle_of(self.shapes))
        padded = rows, columns = _padded(height, width, sizes)
        plan = _Plan(*batched.table(_plan, u.device, rows, columns, sizes))
        self.templates = plan.templates
        white = (taps @ plan.turns[:, : taps.shape[1]]).square().sum(0)  # (N, fx): the whitening filter's power
        energy = white @ plan.along
        self.gain = (energy / (rows * columns)).sqrt()  # (N, shapes): z of such a bump of height 1
        moments = (white @ plan.across) * ((white * plan.right) @ plan.along)
        self.density = (moments.sqrt() / energy).sum(1)
        cuts = [cuts_of(length) for length in (height, width)]
        reach = self.templates.shape[-1] // 2
        thin = white.float()[:, None]
        power = white.new_zeros((n, 8, 8))
        self.windows: list[list[tuple[int, int, torch.Tensor]]] = []
        for down, (top, bottom) in cuts[0]:
            line = []
            for right, (left, end) in cuts[1]:
                spectrum = torch.fft.rfft2(u[:, top:bottom, left:end], s=padded)
                squares = torch.view_as_real(spectrum).square().sum(-1, dtype=torch.float64)
                bands = (plan.down_bands @ squares * white[:, None]).unflatten(1, (2, 8))
                power += (bands @ plan.right_bands).sum(1) / ((bottom - top) * (end - left))
                filtered = torch.fft.irfft2(spectrum * (plan.high * thin), s=padded)
                for axis, length, part, first in ((1, rows, down, top), (2, columns, right, left)):
                    span = part.start - first - reach, part.stop - first + reach
                    filtered = filtered.index_select(axis, batched.table(_wrapped, u.device, length, *span))
                line.append((down.start, right.start, filtered))
            self.windows.append(line)
        self.power = power.flatten(1) / plan.band_weight / (len(cuts[0]) * len(cuts[1]))

    def z(self, scale: torch.Tensor, step: int = 1) -> torch.Tensor:
        """(N, shapes, H, W), or every `step`-th row and column: the filtered residual times `scale`, (N, shapes)."""
        weight = (self.templates * scale.float()[:, :, None, None, None]).flatten(0, 1)
        lines = []
        for line in self.windows:
            found = [
                conv2d(v[None, :, -top % step :, -left % step :], weight, stride=step, groups=len(v))[0]
                for top, left, v in line
            ]
            lines.append(found[0] if len(found) == 1 else torch.cat(found, -1))
        whole = lines[0] if len(lines) == 1 else torch.cat(lines, -2)
        return whole.unflatten(0, scale.shape)


def _threshold(density: torch.Tensor, pixels: torch.Tensor, alpha: float) -> torch.Tensor:
    """As `scanning.threshold`: each step leaves a thirtieth of the distance."""
    rate = _OVERLAP * 2 * pixels * density / (2 * math.pi) ** 1.5
    u = torch.full_like(rate, 3.0)
    for _ in range(_STEPS):
        u = (2 * (rate * u / alpha).clamp(min=math.e).log()).clamp(min=4.0).sqrt()
    return u


# --- what is usual ---


class _Usual(NamedTuple):
    """What |z| usually is at edges of a strength, over what it is in the whole tile: at least 1."""

    inverse: torch.Tensor  # (N, H * W, 2): 1 over it at each pixel, for small and for large shapes


def _own(sample: torch.Tensor, sizes: Sequence[float], side: float) -> torch.Tensor:
    """(N, shapes) float64, as `marking._own`."""
    own = batched.kth(sample, max(1, math.ceil(marking.WITHIN * sample.shape[-1]))).double()
    room = batched.table(_room, own.device, tuple(sizes), side)
    return torch.where(own > 1, own, (own * room).clamp(marking.CALMEST, 1.0))


def _room(sizes: tuple[float, ...], side: float) -> np.ndarray:
    """Few independent places say little of a large size."""
    return 1 + 2 * np.array(sizes) / side


def _usual(
    sample: torch.Tensor, own: torch.Tensor, sampled: torch.Tensor, strength: torch.Tensor, bumps: _Bank
) -> _Usual:
    """As `marking._by_strength`, for the small and the large shapes."""
    size = sample.shape[-1]
    pixels = strength[0].numel()
    shares = [share for share in marking.LEVELS if (1 - share) * pixels >= marking.LEVEL_PIXELS]
    bounds = [0, *(round(share * size) for share in shares), size]
    values, order = sampled.flatten(1).sort(dim=1)
    scales = []
    for middle in marking.MIDDLES:
        k = bumps.order.index(marking.middle_of(bumps.shapes, middle))
        by_edge = sample[:, k].gather(1, order)
        ranks = [batched.kth(by_edge[:, a:b], max(1, math.ceil(marking.SHARE * (b - a)))) for a, b in pairwise(bounds)]
        level = torch.stack(ranks, 1) / (own[:, k, None].float() * marking.QUANTILE)
        scales.append(level.clamp(min=1).reciprocal())
    table = torch.stack(scales, -1)  # (N, levels, 2)
    if not shares:
        return _Usual(table.expand(-1, pixels, -1))
    limits = torch.stack([values[:, at] for at in bounds[1:-1]], 1)
    level = torch.searchsorted(limits, strength.flatten(1), out_int32=True)
    first = batched.table(np.arange, strength.device, len(strength)).int() * len(ranks)
    return _Usual(F.embedding(level.add_(first[:, None]), table.flatten(0, 1)))


def _largest(scaled: torch.Tensor, usual: _Usual, few: int) -> torch.Tensor:
    """(N, H, W): the largest |z| over the shapes, over what is usual."""
    best = None
    inverse = usual.inverse.unflatten(1, scaled.shape[-2:])
    for k, group in enumerate((scaled[:, :few], scaled[:, few:])):
        if group.shape[1]:
            low, high = group.aminmax(dim=1)
            size = torch.maximum(high, -low) * inverse[..., k]
            best = size if best is None else torch.maximum(best, size)
    assert best is not None
    return best


def _energy_at_edges(
    z: torch.Tensor, strength: torch.Tensor, weight: torch.Tensor | None, count: torch.Tensor
) -> torch.Tensor:
    """As `spread.energy_at_edges`."""
    height, width = z.shape[1:]
    usual = batched.kth(strength.flatten(1), (height * width + 1) // 2)
    bounded = strength / (strength + (by_tile(usual, strength) + 1e-3))
    energy = z.square().clamp_(max=16.0)
    e, g = (
        _weighted(v - by_tile(batched.total(_weighted(v, weight), 1, 2) / count, v).float(), weight)
        for v in (energy, bounded)
    )
    both, own = batched.total(e * g, 1, 2), batched.total(g.square(), 1, 2).clamp(min=1e-12)
    left = (e - by_tile(both / own, e).float() * g) * g
    rows, columns = max(1, height // spread.BLOCK), max(1, width // spread.BLOCK)
    k = rows * columns
    if k < 4:
        return torch.full_like(both, torch.nan)
    error = (batched.block_sums(left, rows, columns).square().sum(1) * k / (k - 1)).sqrt()
    return torch.where(error > 0, both / error, 0.0)


# --- places ---


def _places(
    best: torch.Tensor,
    scaled: torch.Tensor,
    own: torch.Tensor,
    usual: _Usual,
    sigma: torch.Tensor,
    d: torch.Tensor,
    bumps: _Bank,
    limit: torch.Tensor,
) -> torch.Tensor:
    """(N, 16, 5) float64: row, column, shape, z, whether it was invented; row -1 where there is no further place."""
    height, width = best.shape[1:]
    pixels = height * width
    peaks = torch.where(best == batched.largest_around(best, 7, 7), best, 0.0)
    value, at = F.max_pool2d(peaks[:, None], _CELL, _CELL, ceil_mode=True, return_indices=True)
    keys = (batched.float_bits(value.flatten(1)) << batched.FLOAT_BITS) | (pixels - 1 - at.flatten(1))
    keys = keys.topk(min(_TRIED, keys.shape[1]), dim=1).values  # equal ones in the order of the pixels
    value, flat = batched.bits_float(keys >> batched.FLOAT_BITS), pixels - 1 - (keys & (2**32 - 1))
    first = batched.table(np.arange, best.device, keys.shape[1])
    wanted = (value > limit[:, None]) | (first == 0)
    row, column = flat // width, flat % width
    z = scaled.flatten(2).gather(2, flat[:, None].expand(-1, scaled.shape[1], -1))  # (N, shapes, places)
    inverse = usual.inverse.gather(1, flat[..., None].expand(-1, -1, 2))
    size = z.abs() * torch.cat(
        [
            inverse[:, None, :, 0].expand(-1, bumps.few, -1),
            inverse[:, None, :, 1].expand(-1, len(bumps.sizes) - bumps.few, -1),
        ],
        1,
    )
    ranked = batched.table(np.argsort, best.device, tuple(bumps.order))  # shapes in the bank's own order
    shape = size.index_select(1, ranked).argmax(1)  # (N, places)
    channel = ranked[shape]
    raw = (z.gather(1, channel[:, None])[:, 0] * own.gather(1, channel)).double()
    radius = batched.table(_radii, best.device, bumps.shapes)  # (2, shapes): as it is, as it is told
    near = torch.hypot((row[:, :, None] - row[:, None]).float(), (column[:, :, None] - column[:, None]).float())
    touching = near.double() < radius[0][shape][:, :, None] + radius[1][shape][:, None] + 2
    flank = (touching & (first[:, None] > first)).float()
    kept = start = wanted.float()[..., None]
    for _ in range(_CHAIN):  # one region, one mark: a place is left out where one before it that is kept reaches it
        kept = start * (flank @ kept == 0)
    chosen = torch.where(kept[..., 0] > 0, first, first + _TRIED).sort(dim=1).values[:, : marking.LISTED]
    there = chosen < _TRIED
    row, column, shape, channel, raw, value = (
        v.gather(1, chosen % _TRIED) for v in (row, column, shape, channel, raw, value)
    )
    spot = sigma.flatten(1).gather(1, row * width + column)
    tall = raw / bumps.gain.gather(1, channel) * spot
    invented = _made(d, row, column, tall, shape, bumps)
    told = torch.stack(
        [row.double(), column.double(), shape.double(), torch.copysign(value.double(), raw), invented.double()], -1
    )
    return torch.where(there[..., None], told, -1.0)


def _radii(shapes: tuple[Shape, ...]) -> np.ndarray:
    return np.array([[s.size / 2 for s in shapes], [round(s.size, 1) / 2 for s in shapes]])


def _given_back(shapes: tuple[Shape, ...]) -> tuple[np.ndarray, ...]:
    """(shapes, side, side) each: the templates within what is looked at, and what that is; (shapes,): its reach, and
    how far from the place others lie."""
    patches = [np.pad(template(s), 1) for s in shapes]
    side = max(t.shape[0] for t in patches)
    bumps, inside = np.zeros((2, len(shapes), side, side), np.float32)
    for k, t in enumerate(patches):
        cut = (side - t.shape[0]) // 2
        bumps[k, cut : side - cut, cut : side - cut] = t
        inside[k, cut : side - cut, cut : side - cut] = 1
    reach = np.array([t.shape[0] // 2 for t in patches])
    return bumps, inside, reach, np.array([s.size + 3 for s in shapes])


def _made(
    d: torch.Tensor,
    row: torch.Tensor,
    column: torch.Tensor,
    tall: torch.Tensor,
    shape: torch.Tensor,
    bumps: _Bank,
) -> torch.Tensor:
    """(N, places) bool, as `marking._made_by_denoiser`: every place's surroundings as large as the largest shape's."""
    n, height, width = d.shape
    templates, insides, reaches, apart = batched.table(_given_back, d.device, bumps.shapes)
    most = templates.shape[-1] // 2
    side = 2 * (most + marking.AROUND) + 1
    reach = reaches[shape]
    offset = batched.table(np.arange, d.device, side)
    lines, inner, centres = [], [], []
    for at, length in ((row, height), (column, width)):
        span = 2 * (reach + marking.AROUND) + 1
        start = torch.minimum(at - reach - marking.AROUND, length - span).clamp(min=0)
        size = torch.minimum(span, length - start)
        lines.append((start[..., None] + offset).clamp(max=length - 1))
        inner.append((size, offset < size[..., None]))
        centres.append(at - start)
    index = lines[0][..., None] * width + lines[1][..., None, :]  # (N, places, side, side)
    inside = inner[0][1][..., None] & inner[1][1][..., None, :]
    field = d.flatten(1).gather(1, index.flatten(1)).view(index.shape)
    mean = torch.where(inside, field, 0.0).sum((2, 3), dtype=torch.float64) / (inner[0][0] * inner[1][0])
    field = torch.where(inside, field - mean.float()[..., None, None], 0.0)
    around = batched.table(np.arange, d.device, -most, most + 1)
    at_rows, at_columns = (
        torch.minimum((centre[..., None] + around).clamp(min=0), size[..., None] - 1)
        for centre, (size, _) in zip(centres, inner, strict=True)
    )
    place = at_rows[..., None] * side + at_columns[..., None, :]
    taken = insides[shape]
    patch = field.flatten(2).gather(2, place.flatten(2)).view(place.shape) * taken
    bump = templates[shape] * tall.float()[..., None, None]
    fields = field.flatten(0, 1)[None]
    count = fields.shape[1]
    by = torch.stack([patch, bump], 2).flatten(0, 2)[:, None]
    with_both = conv2d(fields, by, padding=most, groups=count)[0].unflatten(0, (n, -1, 2))
    energy = conv2d(fields.square(), taken.flatten(0, 1)[:, None], padding=most, groups=count)[0].unflatten(0, (n, -1))
    without = energy - 2 * with_both[:, :, 0] + patch.square().sum((2, 3))[..., None, None]
    given = energy - 2 * with_both.sum(2) + (patch + bump).square().sum((2, 3))[..., None, None]
    y, x = (offset - centre[..., None] for centre in centres)
    whole = [
        (offset >= reach[..., None]) & (offset < (size - reach)[..., None]) for size, _ in inner
    ]  # centres of patches that lie in the surroundings
    far = torch.hypot(y[..., None].float(), x[..., None, :].float()) > apart[shape][..., None, None]
    far &= whole[0][..., None] & whole[1][..., None, :]
    least = [torch.where(far, v, torch.inf).amin((2, 3)) for v in (given, without)]
    return least[0] < least[1]
