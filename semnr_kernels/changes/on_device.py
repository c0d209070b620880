"""The changes in torch operations, all tiles of a batch at once, on any device: nothing waits for a value.

Spectra in float32 of images on one scale, a power of two; frequencies in the order of their rings, so that sums and
medians of a ring are those of a slice. What is left to do with a dozen numbers is done on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .. import batched
from ..batched import by_tile
from ..planes import Levelled, Tiles
from ..registry import Call, refusal
from .bound import SUMS, Noise, _taken, transfer_bound
from .reference import BLOCK, CALM, REACH, STEEP, known_shift, rows_added, shape_of
from .settings import Figures, Settings
from .spectra import CENTRES, EDGES, MIN_Z, NOTHING, plan_of

RINGS = len(CENTRES)
GROUPS = RINGS + 2  # with what lies inside the first ring, and outside the last
_NEWTON = 6
_LEAST_BLOCKS = 16


def _too_small(call: Call) -> str | None:
    return None if min(call.shape[-2:]) >= 4 * BLOCK else "takes no sides below 32 px"


UNSUPPORTED = (_too_small,)


def supports(call: Call) -> str | None:
    """Any dtype."""
    return refusal(UNSUPPORTED, call)


def changes(
    x: Tiles | None,
    d: Tiles,
    r: Tiles | None,
    settings: Settings,
    noise: Sequence[Noise | None] | None = None,
) -> list[Figures]:
    """As `reference.changes`."""
    return changed(rows, x, d, r, settings, noise)


def changed(
    rows: Callable[..., dict[str, torch.Tensor]],
    x: Tiles | None,
    d: Tiles,
    r: Tiles | None,
    settings: Settings,
    noise: Sequence[Noise | None] | None,
) -> list[Figures]:
    """The figures that `rows` give."""
    laws = [None] * len(d.images) if noise is None or x is None else list(noise)
    noisy, clean = (None if v is None else v.levelled() for v in (x, r))
    taps = None
    if any(law is not None for law in laws):
        longest = max(len(law.taps) for law in laws if law is not None)
        known = np.stack([np.pad(law.taps, (0, longest - len(law.taps))) if law else np.zeros(longest) for law in laws])
        taps = torch.from_numpy(known).to(d.images.device)
    found = batched.on_host(rows(noisy, d.levelled(), clean, settings, taps))
    return told(
        found, laws, (x is not None, r is not None), (d.images.shape[-2], d.images.shape[-1]), settings.scan_axis
    )


def told(
    found: dict[str, np.ndarray],
    laws: Sequence[Noise | None],
    given: tuple[bool, bool],
    shape: tuple[int, int],
    scan_axis: int,
) -> list[Figures]:
    """The figures of `rows` that have come back from the device; `given`: whether noisy and reference were."""
    out = []
    for i, law in enumerate(laws):
        row = {name: v[i] for name, v in found.items()}
        figures: Figures = {name: _pair(row[name]) for name in ("gain_change", "offset_change")}
        figures |= known_shift(row["delta"], row["hessian"].reshape(2, 2), row["spread"].reshape(2, 2))
        if given[1]:
            figures |= shape_of([_pair(ring) for ring in row["rings"]])
            figures |= {name: _pair(row[name]) for name in ("transfer_high", "transfer_texture")}
        if given[0]:
            means = row["lines"]
            figures["row_noise_added"] = rows_added(means[0], means[1], means[2] if given[1] else None)
        if law is not None:
            figures["transfer_bound"] = transfer_bound(row["sums"], law, shape, scan_axis)
        out.append(figures)
    return out


def _pair(values: np.ndarray) -> tuple[float, float]:
    return NOTHING if math.isnan(values[0]) else (float(values[0]), float(values[1]))


def rows(
    x: Levelled | None, d: Levelled, r: Levelled | None, settings: Settings, taps: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """(N, ...) float64 each. taps: (N, K) that make the noise of x white along the line, where `sums` are asked for."""
    against = r if x is None else x
    if against is None:
        raise ValueError("neither a noisy image nor a reference; accepted: one of them, or both")
    given = [against, d] if r is None or x is None else [against, d, r]
    images = torch.stack([v.data for v in given])
    height, width = images.shape[-2:]
    found = _levels(against, d, d if r is None else r, settings.data_range)
    plan = _Plan(*batched.table(_plan, images.device, height, width))
    scale = _scale(images)
    scaled = images * by_tile(scale, d.data)
    mean = (scaled * plan.taper).sum((2, 3), dtype=torch.float64) / plan.whole
    spectra = torch.fft.rfft2((scaled - mean.float()[..., None, None]) * plan.taper)  # (2 or 3, N, rows, columns)
    found |= _shift(spectra[1], spectra[0], plan, height, width)
    order = batched.table(_order, images.device, height, width)
    flat, bounds = spectra.flatten(2).index_select(2, order), _rings(height, width)[2]
    if r is not None:
        found |= _transfers(flat[1], None if x is None else flat[0], flat[0 if x is None else 2], plan, bounds)
        found["transfer_texture"] = _texture(spectra, scaled[-1] if x is not None else scaled[0], plan, x is not None)
    if x is not None:
        down = settings.scan_axis == -2
        means = images.sum(2 if down else 3, dtype=torch.float64) / (height if down else width)
        found["lines"] = (means + torch.stack([v.level for v in given])[..., None]).transpose(0, 1)
        if taps is not None:
            found["sums"] = _sums(flat[1], flat[0], taps, plan, bounds, (height, width), settings.scan_axis, scale)
    return found


# --- what depends on the size alone ---


class _Plan(NamedTuple):
    taper: torch.Tensor  # float32
    whole: torch.Tensor  # (1,): its sum
    band: torch.Tensor  # (rows, columns) float32: the 1-4 px band, each frequency as often as it is
    texture: torch.Tensor  # the root of the 1-3 px band
    down: torch.Tensor  # (3, rows): powers 0, 1, 2 of 2π fy
    right: torch.Tensor  # (3, columns)
    often: torch.Tensor  # in the order of the rings, float32: how often each frequency is
    high: torch.Tensor  # the 0.7-2 px band
    group: torch.Tensor  # int64: which ring
    ranks: torch.Tensor  # (GROUPS, 2): where the two middle ones of each group lie, once they are sorted
    inflation: torch.Tensor  # (1,)


def _plan(height: int, width: int) -> tuple[np.ndarray, ...]:
    plan = plan_of((height, width))
    group, order, bounds = _rings(height, width)
    powers = [np.stack([(2 * np.pi * f) ** p for p in range(3)]) for f in (plan.fy[:, 0], plan.fx[0])]
    first, size = np.array(bounds[:-1]), np.diff(bounds)
    ranks = np.stack([first + np.maximum(size - 1, 0) // 2, first + np.maximum(size, 1) // 2], 1)
    return (
        plan.taper.astype(np.float32),
        np.array([plan.taper.sum()]),
        plan.band.astype(np.float32),
        np.sqrt(plan.texture / plan.count).astype(np.float32),
        *powers,
        plan.count.ravel()[order].astype(np.float32),
        plan.high.ravel()[order].astype(np.float32),
        group[order],
        np.minimum(ranks, group.size - 1),
        np.array([plan.inflation]),
    )


def _order(height: int, width: int) -> np.ndarray:
    return _rings(height, width)[1]


@lru_cache(maxsize=8)
def _rings(height: int, width: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The group of each frequency, flat; the order by group; where each group begins, and the end."""
    plan = plan_of((height, width))
    group = np.digitize(np.hypot(plan.fy, plan.fx), EDGES).ravel()
    order = np.argsort(group, kind="stable")
    return group, order, np.searchsorted(group[order], np.arange(GROUPS + 1)).tolist()


def _scale(images: torch.Tensor) -> torch.Tensor:
    """(N,): the power of two that brings what is left of each tile's images below 1."""
    low, high = images.transpose(0, 1).flatten(1).aminmax(dim=1)
    return torch.ldexp(torch.ones_like(low), -torch.frexp(torch.maximum(high, -low)).exponent)


# --- levels, on plateaus ---


def _blocks(v: torch.Tensor) -> torch.Tensor:
    """(..., H, W) to (..., rows, columns) float64: means of blocks; what is left over at the far edges is left out."""
    rows, columns = v.shape[-2] // BLOCK, v.shape[-1] // BLOCK
    v = v[..., : rows * BLOCK, : columns * BLOCK].unflatten(-1, (columns, BLOCK)).unflatten(-3, (rows, BLOCK))
    return v.sum((-3, -1), dtype=torch.float64) / BLOCK**2


def _levels(t: Levelled, d: Levelled, witness: Levelled, data_range: float | None) -> dict[str, torch.Tensor]:
    """As `reference._levels`."""
    a, b = _blocks(t.data), _blocks(d.data)
    w = b if witness is d else a if witness is t else _blocks(witness.data)
    steps = torch.zeros_like(w)
    for axis in (1, 2):
        step = w.diff(dim=axis).abs()
        for side in ((1, 0), (0, 1)):
            pad = (0, 0, *side) if axis == 1 else side
            steps = torch.maximum(steps, F.pad(step, pad))
    a, b, w, steps = (v.flatten(1) for v in (a, b, w, steps))
    keep = steps <= batched.median(steps)[:, None]
    live = keep.any(1)
    for turn in range(3):  # the fit, then twice without what lies far off it: a lost defect is no change of brightness
        n = keep.sum(1)
        u, v, z = (_centred(value, keep, n) for value in (a, b, w))
        below = (z * u).sum(1)
        gain = torch.where(below != 0, (z * v).sum(1) / below, torch.nan)
        rest = v - torch.where(gain.isfinite(), gain, 1.0)[:, None] * u
        if turn == 2:
            break
        off = (rest - batched.masked_median(rest, keep)[:, None]).abs()
        spread = 1.4826 * batched.masked_median(off, keep)
        inside = keep & (off <= 3.5 * spread[:, None])
        live = live & (spread > 0) & (inside.sum(1) >= _LEAST_BLOCKS)
        keep = torch.where(live[:, None], inside, keep)
    rest = torch.where(keep, rest, 0.0)
    z2 = z.square()
    error = (z2 * rest.square()).sum(1).sqrt() / below.abs()
    left = u - z * (below / z2.sum(1))[:, None]
    noise = torch.where(below != 0, (z2 * left.square()).sum(1).sqrt(), torch.inf)
    known = gain.isfinite() & (below > MIN_Z * noise) & (error < 0.25)
    span = torch.full_like(below, data_range) if data_range else span_of(t.data)
    apart = b - a
    mean = torch.where(keep, apart, 0.0).sum(1) / n
    spread = (torch.where(keep, apart - mean[:, None], 0.0).square().sum(1) / (n - 1)).sqrt()
    level = mean + (d.level - t.level)
    return {
        "gain_change": torch.stack([torch.where(known, gain - 1, torch.nan), error], 1),
        "offset_change": torch.stack([level / span, spread / n.sqrt() / span], 1),
    }


def span_of(images: torch.Tensor) -> torch.Tensor:
    """(N,) float64: what lies between all but a thousandth of the pixels at either end; NaN of one grey level."""
    ends = [_quantile(images.flatten(1), share) for share in (0.999, 0.001)]
    span = ends[0] - ends[1]
    return torch.where(span != 0, span, torch.nan)


def _centred(v: torch.Tensor, keep: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    v = torch.where(keep, v, 0.0)
    return torch.where(keep, v - (v.sum(1) / n)[:, None], 0.0)


def _quantile(v: torch.Tensor, share: float) -> torch.Tensor:
    at = share * (v.shape[1] - 1)
    low = math.floor(at)
    below, above = batched.kth(v, low + 1).double(), batched.kth(v, min(low + 2, v.shape[1])).double()
    return below + (above - below) * (at - low)


# --- place ---


def _shift(d: torch.Tensor, t: torch.Tensor, plan: _Plan, height: int, width: int) -> dict[str, torch.Tensor]:
    """As `reference._shift`: sums over the spectrum are matrix products, since each frequency's turn is a product."""
    cross = t.conj_physical().mul_(d).mul_(plan.band)
    down, right = batched.table(_turns, cross.device, height, width)
    near = batched.product(batched.product(down, cross).to(right.dtype), right).real  # (N, 17, 17)
    peak = near.flatten(1).argmax(1)
    side = 2 * REACH + 1
    delta = torch.stack([peak // side, peak % side], 1).double() - REACH
    live = torch.ones_like(peak, dtype=torch.bool)
    at, hessian = delta, torch.zeros_like(delta).repeat(1, 2)
    for _ in range(_NEWTON):
        turns = [torch.polar(torch.ones_like(w), w) for w in _phases(delta, plan)]
        left = (plan.down * turns[0][:, None]).to(cross.dtype)  # (N, 3, rows)
        sums = batched.product(left, cross).to(turns[1].dtype) @ (plan.right * turns[1][:, None]).transpose(1, 2)
        gy, gx = sums[:, 1, 0].imag, sums[:, 0, 1].imag
        yy, yx, xx = sums[:, 2, 0].real, sums[:, 1, 1].real, sums[:, 0, 2].real
        at = torch.where(live[:, None], delta, at)
        hessian = torch.where(live[:, None], torch.stack([yy, yx, yx, xx], 1), hessian)
        det = yy * xx - yx * yx
        live = live & (det > 1e-9 * (yy + xx).clamp(min=1e-300).square())
        step = -torch.stack([xx * gy - yx * gx, yy * gx - yx * gy], 1) / torch.where(live, det, 1.0)[:, None]
        delta = torch.where(live[:, None], delta + step.clamp(-0.5, 0.5), delta)
        live = live & (step.abs().amax(1) >= 1e-4)
    y, x = (torch.polar(torch.ones_like(w), w).to(cross.dtype) for w in _phases(at, plan))
    turned = (cross * y[:, :, None]).mul_(x[:, None])
    square = turned.imag.square()
    spread = batched.product(plan.down.float(), square).double() @ plan.right.T * plan.inflation
    spread = torch.stack([spread[:, 2, 0], spread[:, 1, 1], spread[:, 1, 1], spread[:, 0, 2]], 1)
    return {"delta": delta, "hessian": hessian, "spread": spread}


def _phases(delta: torch.Tensor, plan: _Plan) -> tuple[torch.Tensor, torch.Tensor]:
    return plan.down[1] * delta[:, :1], plan.right[1] * delta[:, 1:]


def _turns(height: int, width: int) -> tuple[np.ndarray, ...]:
    """(17, rows) complex64 and (columns, 17) complex128: whole shifts within REACH."""
    plan, at = plan_of((height, width)), np.arange(-REACH, REACH + 1)
    down, right = (np.exp(2j * np.pi * np.outer(at, f.ravel())) for f in (plan.fy, plan.fx))
    return down.astype(np.complex64), np.ascontiguousarray(right.T)


# --- transfer functions, by rings ---


def _power(v: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(v).square().sum(-1)


def _along(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Re a b*."""
    return (torch.view_as_real(a) * torch.view_as_real(b)).sum(-1)


def _by_group(v: torch.Tensor, bounds: Sequence[int]) -> torch.Tensor:
    """(..., M) to (..., GROUPS) float64."""
    return torch.stack([v[..., a:b].sum(-1, dtype=torch.float64) for a, b in pairwise(bounds)], -1)


def _medians(v: torch.Tensor, plan: _Plan) -> torch.Tensor:
    """(..., M) that are not negative to (..., GROUPS): of each group."""
    keys = ((plan.group << batched.FLOAT_BITS) | batched.float_bits(v)).sort(dim=-1).values
    found = batched.bits_float(keys[..., plan.ranks] & (2**32 - 1))
    return found.double().mean(-1)


def _transfers(
    d: torch.Tensor, x: torch.Tensor | None, r: torch.Tensor, plan: _Plan, bounds: Sequence[int]
) -> dict[str, torch.Tensor]:
    """As `spectra.ratio`, in each ring (N, RINGS, 2) and in the 0.7-2 px band (N, 2)."""
    own = r if x is None else x
    products = torch.stack([_along(d, r), _along(own, r), _power(r)], 1)  # (N, 3, M)
    rings = _by_group(products * plan.often, bounds)
    band = batched.total(products * plan.high, 2)
    weights = torch.stack([plan.often, plan.high]).square()
    energy = _by_group(products[:, 2:] * weights, bounds)  # (N, 2, GROUPS)
    inside = slice(1, 1 + RINGS)

    def sigmas(rest: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """In the rings and in the band, of the rest of either."""
        parts = plan.inflation * _medians(torch.stack(rest, 1), plan) * energy / (2 * math.log(2))
        return parts[:, 0, inside].sqrt(), parts[:, 1].sum(1).sqrt()

    def left(v: torch.Tensor, share: torch.Tensor, share_of_band: torch.Tensor, of: torch.Tensor) -> list[torch.Tensor]:
        by_ring = share.float()[:, plan.group]
        return [_power(v - by_ring * of), _power(v - share_of_band.float()[:, None] * of)]

    below, below_band = rings[:, 1], band[:, 1]
    known, known_band = below[:, inside] > 0, below_band > 0
    if x is not None:
        ratio, ratio_band = below / rings[:, 2].clamp(min=1e-300), below_band / band[:, 2].clamp(min=1e-300)
        noise, noise_band = sigmas(left(x, ratio, ratio_band, r))
        known &= below[:, inside] > MIN_Z * noise
        known_band &= below_band > MIN_Z * noise_band
    t = torch.where(F.pad(known, (1, 1)), rings[:, 0] / below, 0.0)
    t_band = torch.where(known_band, band[:, 0] / below_band, 0.0)
    error, error_band = sigmas(left(d, t, t_band, own))
    nan = torch.nan
    return {
        "rings": torch.stack([torch.where(known, t[:, inside], nan), error / below[:, inside]], -1),
        "transfer_high": torch.stack([torch.where(known_band, t_band, nan), error_band / below_band], -1),
    }


def _sums(
    d: torch.Tensor,
    x: torch.Tensor,
    taps: torch.Tensor,
    plan: _Plan,
    bounds: Sequence[int],
    shape: tuple[int, int],
    scan_axis: int,
    scale: torch.Tensor,
) -> torch.Tensor:
    """As `bound.sums`: (N, SUMS, RINGS)."""
    turns, at = batched.table(_lines, d.device, *shape, scan_axis)
    white = (taps @ turns[:, : taps.shape[1]]).square().sum(0).float()  # (N, frequencies along the line)
    weight = white[:, at] * plan.often
    products = torch.stack([_power(d), _power(x), _along(d, x)], 1) * weight[:, None]
    found = _by_group(products, bounds)[..., 1 : 1 + RINGS]
    assert found.shape[1] == SUMS
    return found / scale.double().square()[:, None, None]


def _lines(height: int, width: int, scan_axis: int) -> tuple[np.ndarray, ...]:
    """(2, 8, frequencies along the line): cosine and sine, 0 of those that are left out; of each frequency in the order
    of the rings, which it is."""
    along = np.fft.rfftfreq(width) if scan_axis == -1 else np.fft.fftfreq(height)
    phase = 2 * np.pi * np.outer(np.arange(8), along)
    turns = np.stack([np.cos(phase), np.sin(phase)]) * _taken((height, width), scan_axis)
    rows, columns = np.divmod(_order(height, width), width // 2 + 1)
    return turns, columns if scan_axis == -1 else rows


# --- texture ---


def _texture(spectra: torch.Tensor, r: torch.Tensor, plan: _Plan, noisy: bool) -> torch.Tensor:
    """As `reference._texture`; r: (N, H, W)."""
    height, width = r.shape[-2:]
    smooth, slope = batched.table(_steep, r.device)
    reach = smooth.shape[0] // 2
    around = batched.symmetric(r, reach)
    steep = batched.separable(around, torch.stack([slope, smooth]), torch.stack([smooth, slope]))
    steep = torch.hypot(steep[:, 0], steep[:, 1])
    flat = steep.flatten(1)
    limit = torch.maximum(0.25 * flat.amax(1), batched.median(flat).to(flat.dtype))
    calm = batched.largest_around(steep, 2 * CALM + 1, 2 * CALM + 1) <= by_tile(limit, steep)
    bands = torch.fft.irfft2(spectra * plan.texture, s=(height, width))
    br = bands[2 if noisy else 0] * calm
    a = _blocks(bands[1] * br).flatten(1)
    b = _blocks((bands[0] if noisy else br) * br).flatten(1)
    below = b.sum(1)
    noise = (b - b.mean(1, keepdim=True)).square().sum(1).sqrt()
    known = below > MIN_Z * noise
    t = torch.where(known, a.sum(1) / below, torch.nan)
    return torch.stack([t, (a - t[:, None] * b).square().sum(1).sqrt() / below], 1)


def _steep() -> tuple[np.ndarray, ...]:
    """Taps of scipy's Gaussian, which ends at 4 sigma, and of its derivative."""
    reach = math.floor(4 * STEEP + 0.5)
    at = np.arange(-reach, reach + 1)
    smooth = np.exp(-0.5 * (at / STEEP) ** 2)
    smooth /= smooth.sum()
    return smooth.astype(np.float32), (at / STEEP**2 * smooth).astype(np.float32)
