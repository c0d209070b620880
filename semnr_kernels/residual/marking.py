"""From maps of z to the regions that fail, and whether structure was removed there or invented."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from ..transfer.bands import fast_size
from .scanning import Scan
from .settings import Place
from .templates import Shape, template

LISTED = 16  # regions kept a tile, strongest first
LEVELS = (0.5, 0.75, 0.9, 0.96, 0.985)  # shares of the pixels below the levels of edge strength told apart
LEVEL_PIXELS = 3900  # of a level at least: one lost defect must stay within the 2 % above SHARE
WITHIN = 0.6827  # share of |z| below 1 in noise
SHARE, QUANTILE = 0.98, 2.3263  # and below this
MIDDLES = (5.0, 8.0)  # px: the discs nearest to them stand for the small and for the large shapes
LARGE = 5.5  # px: shapes from here on take the levels of the larger of two discs
CALMEST = 0.75  # a residual calmer than this share of the noise is not trusted to say how calm it is
AROUND = 48  # px: how far the surroundings reach that a patch is compared with
SLOPE = 1.5  # px: Gaussian sigma of the gradient


def edge_strength(d: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gradient of (N, H, W) denoised images under a Gaussian, per pixel, in units of the noise's σ."""
    pad = 8
    height, width = d.shape[-2:]
    mean = d.mean((1, 2), keepdim=True)
    around = torch.nn.functional.pad((d - mean)[:, None], (pad, pad, pad, pad), mode="replicate")[:, 0]
    shape = (fast_size(height + 2 * pad), fast_size(width + 2 * pad))
    fy = torch.fft.fftfreq(shape[0], device=d.device)[:, None]
    fx = torch.fft.rfftfreq(shape[1], device=d.device)
    spectrum = torch.fft.rfft2(around, s=shape) * torch.exp(-2 * (math.pi * SLOPE) ** 2 * (fy**2 + fx**2))
    square = torch.zeros_like(d)
    for f in (fy, fx):
        slope = torch.fft.irfft2(spectrum * (2j * math.pi * f), s=shape)
        square += slope[:, pad : pad + height, pad : pad + width].square()
    return square.sqrt() / sigma


@dataclass(frozen=True)
class Scanned:
    """The scan of (N, H, W) tiles, every shape against how large its |z| usually is there."""

    best: torch.Tensor  # (N, H, W): the largest |z| over the shapes, over what is usual
    raw: torch.Tensor  # the z that gave it, signed, before it was divided
    which: torch.Tensor  # uint8: the shape that gave it
    largest: torch.Tensor  # the largest |z| of any shape, undivided


def scanned(found: Scan, strength: torch.Tensor) -> Scanned:
    """How large |z| usually is, for each shape: in all of the tile, times by strength of the edge at the place.

    In all of the tile: below 1 where the denoiser leaves noise of that size in its output, so that its residual is
    calmer than the noise and shows a loss the better; above 1 where it adds some. By strength, at least 1: every
    denoiser errs a little along every edge; that is a figure of the tile, not a place in it. A region is marked when
    it stands out from what the tile's other edges of its strength show.
    """
    steps = {small: _by_strength(found, strength, small) for small in {s.size < LARGE for s in found.shapes}}
    for part in steps.values():
        part.reciprocal_()
    like = strength.float()
    out = Scanned(*(torch.zeros_like(like, dtype=kind) for kind in (None, None, torch.uint8, None)))
    for k, shape in enumerate(found.shapes):
        raw = found.z(k)
        size = raw.abs()
        torch.maximum(out.largest, size, out=out.largest)
        size.mul_(steps[shape.size < LARGE]).div_(_own(raw, shape)[:, None, None])
        better = size > out.best
        torch.maximum(out.best, size, out=out.best)
        torch.where(better, raw, out.raw, out=out.raw)
        out.which.masked_fill_(better, k)
    return out


def _own(z: torch.Tensor, shape: Shape) -> torch.Tensor:
    """(N,): the level that 68 % of a tile's |z| stay below. Few independent places say little of a large size: only
    what is clearly below 1 counts."""
    side = math.sqrt(z.shape[1] * z.shape[2])
    some = _sample(z).flatten(1).abs()
    own = some.kthvalue(max(1, math.ceil(WITHIN * some.shape[1])), dim=1).values
    return torch.where(own > 1, own, (own * (1 + 2 * shape.size / side)).clamp(CALMEST, 1.0))


def _by_strength(found: Scan, strength: torch.Tensor, small: bool) -> torch.Tensor:
    """(N, H, W), at least 1: what a disc that stands for small or for large shapes shows at edges of that strength."""
    k = middle_of(found.shapes, MIDDLES[0] if small else MIDDLES[1])
    z = found.z(k)
    z = z / _own(z, found.shapes[k])[:, None, None]
    out = torch.empty_like(z)
    shares = [share for share in LEVELS if (1 - share) * z[0].numel() >= LEVEL_PIXELS]
    for i in range(len(z)):
        flat = _sample(strength[i]).flatten()
        order = torch.argsort(flat)
        value = _sample(z[i]).flatten()[order].abs()
        bounds = [0, *(round(share * flat.numel()) for share in shares), flat.numel()]
        scale = []
        for a, b in pairwise(bounds):
            kth = max(1, math.ceil(SHARE * (b - a)))
            scale.append(max(1.0, float(value[a:b].kthvalue(kth).values) / QUANTILE))
        limits = flat[order[torch.tensor(bounds[1:-1], dtype=torch.long, device=z.device)]]
        out[i] = torch.tensor(scale, device=z.device)[torch.bucketize(strength[i], limits)]
    return out


def _sample(v: torch.Tensor) -> torch.Tensor:
    step = sampling(v.shape[-2], v.shape[-1])
    return v[..., ::step, ::step]


def sampling(height: int, width: int) -> int:
    """Every second row and column of a large image is looked at: neighbours say the same."""
    return 2 if height * width >= 2**16 else 1


def middle_of(shapes: tuple[Shape, ...], size: float = 5.0) -> int:
    """The shape that stands for several where one figure is wanted: the disc nearest to a size."""
    return min(range(len(shapes)), key=lambda k: (shapes[k].square, abs(math.log(shapes[k].size / size))))


def marks(found: Scan, seen: Scanned, i: int, d: np.ndarray, sigma: np.ndarray, limit: float) -> list[Place]:
    """The places of tile `i` beyond `limit`, strongest first, or its strongest one; the shape that fits each best."""
    best = seen.best[i]
    if float(best.max()) > limit:
        pooled = torch.nn.functional.max_pool2d(best[None], (7, 1), 1, (3, 0))
        pooled = torch.nn.functional.max_pool2d(pooled, (1, 7), 1, (0, 3))[0]
        at = torch.nonzero(((best == pooled) & (best > limit)).flatten()).flatten()
        strong = at[torch.argsort(best.flatten()[at], descending=True, stable=True)][: 4 * LISTED]
    else:
        strong = best.flatten().argmax()[None]
    places: list[Place] = []
    for flat in strong.tolist():
        row, col = divmod(flat, best.shape[1])
        k = int(seen.which[i, row, col])
        shape = found.shapes[k]
        # one region, one mark: weaker places that the stronger one's template reaches are its flanks
        if any(
            math.hypot(row - p.row, col - p.column) < (shape.size + round(found.shapes[p.shape].size, 1)) / 2 + 2
            for p in places
        ):
            continue
        raw = float(seen.raw[i, row, col])
        height = raw / float(found.gain[k, i]) * sigma[row, col]
        z = math.copysign(float(best[row, col]), raw)
        places.append(Place(row, col, k, z, _made_by_denoiser(d, row, col, height, shape)))
        if len(places) == LISTED:
            break
    return places


def _made_by_denoiser(d: np.ndarray, row: int, col: int, height: float, shape: Shape) -> bool:
    """Whether the denoised image with the residual's bump given back is more like its surroundings than without.

    A bump that the denoiser made is what the residual has with the other sign: given back, it vanishes, and the
    patch finds its like elsewhere in the pattern. A bump that was removed makes it the only one of its kind. The
    smallest squared distance to any patch within AROUND px decides (as in non-local means, Buades 2005).
    """
    from scipy.signal import fftconvolve

    t = np.pad(template(shape), 1)
    reach = t.shape[0] // 2
    sides = []
    for at, length in zip((row, col), d.shape, strict=True):
        start = max(0, min(at - reach - AROUND, length - 2 * (reach + AROUND) - 1))
        sides.append((start, min(start + 2 * (reach + AROUND) + 1, length)))
    (top, bottom), (left, right) = sides
    field = d[top:bottom, left:right].astype(np.float64)
    field -= field.mean()
    rows = np.clip(np.arange(row - reach, row + reach + 1) - top, 0, field.shape[0] - 1)
    cols = np.clip(np.arange(col - reach, col + reach + 1) - left, 0, field.shape[1] - 1)
    patch, bump = field[np.ix_(rows, cols)], height * t
    with_patch, with_bump = (fftconvolve(field, v[::-1, ::-1], mode="valid") for v in (patch, bump))
    own = fftconvolve(field**2, np.ones_like(patch), mode="valid")
    y, x = np.ogrid[: own.shape[0], : own.shape[1]]
    far = np.hypot(y - (row - top - reach), x - (col - left - reach)) > shape.size + 3
    if not far.any():
        return False
    without = own - 2 * with_patch + (patch**2).sum()
    given_back = own - 2 * (with_patch + with_bump) + ((patch + bump) ** 2).sum()
    return bool(given_back[far].min() < without[far].min())
