"""How images lie against a noisy one, in NumPy and float64: the definition.

The band of structure that is compared holds little above 0.25 cycles/px, so that images are read at half their
resolution, and the band is a weight on their cosine transform: sums of products over it are those over the pixels of
the filtered images, mirrored at their borders (Parseval).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from ..planes import Tiles
from .settings import (
    BETWEEN,
    BLOCK,
    COARSE,
    FEW_LEVELS,
    FINE,
    JPEG,
    MIN_SIDE,
    NEAR,
    SEEN,
    Looks,
    between,
    blocks,
)

__all__ = ["COARSE", "FINE", "likeness"]
_UPPER = np.flatnonzero(np.add.outer(np.arange(BLOCK), np.arange(BLOCK)) >= BLOCK - 1)  # frequencies of a block


def likeness(x: Tiles, d: Tiles | None, r: Tiles | None) -> list[Looks]:
    """See `semnr_kernels.likeness.likeness`."""
    count = len(x.images)
    roles = [[None] * count if v is None else list(_grey(v)) for v in (x, d, r)]
    return [_tile(*images) for images in zip(*roles, strict=True)]


def _grey(tiles: Tiles) -> np.ndarray:
    """(N, H, W) float64, channels averaged."""
    found: np.ndarray = tiles.images.double().mean(1).cpu().numpy()
    return found


def _tile(x: np.ndarray | None, d: np.ndarray | None, r: np.ndarray | None) -> Looks:
    x, d, r = (v if v is not None and np.isfinite(v).all() else None for v in (x, d, r))
    found = dict.fromkeys(Looks._fields, math.nan)
    for name, image in (("span", x), ("d_span", d), ("r_span", r)):
        if image is not None:
            found[name] = float(np.ptp(image))
    if x is not None:
        found["mean"] = float(x.mean())
    if d is not None:
        found |= {"d_mean": float(d.mean()), "d_deviation": float(d.std()) if found["d_span"] > 0 else 0.0}
    if x is None or min(x.shape) < MIN_SIDE:
        return Looks(**found)
    found["roughness"] = _roughness(x)
    if d is not None:
        found |= {"d_roughness": _roughness(d), **_notes(x, d)}
    for name, other in (("d", d), ("r", r)):
        if other is not None and found["span"] > 0 and found[f"{name}_span"] > 0:
            found[f"{name}_correlation"], found[f"{name}_contrast"] = _correlation(x, other)
    if r is not None and found["span"] > 0 and found["r_span"] > 0:
        found["r_down"], found["r_right"], found["r_sure"] = _shift(x, r)
    return Looks(**found)


# --- correlation of structure ---


def _correlation(x: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Each scan line of a frame has noise of its own: every second line, and what its neighbours say of it, are two
    looks at one scene, their noise apart."""
    rows = (x.shape[0] - 1) // 2  # lines that have a neighbour on either side, every second one taken
    v = _columns(x)
    own, neighbours = _band(v[1::2][:rows]), _band((v[0::2][:rows] + v[2::2][:rows]) / 2)
    seen = _band(_columns(other)[1::2][:rows])
    signal, shown = float((own * neighbours).sum()), float((seen**2).sum())
    power = math.sqrt(float((own**2).sum()) * float((neighbours**2).sum()))
    if not power > 0 or signal < SEEN * power or not shown > 0:
        return math.nan, math.nan
    return float((seen * neighbours).sum()) / math.sqrt(signal * shown), math.sqrt(shown / signal)


def _columns(v: np.ndarray) -> np.ndarray:
    """Means of neighbouring columns, two by two."""
    v = v[:, : v.shape[1] // 2 * 2]
    return (v[:, 0::2] + v[:, 1::2]) / 2


def _band(v: np.ndarray) -> np.ndarray:
    """Cosine transform of the structure between FINE and COARSE px, of every second row and column."""
    v = v[: fft.prev_fast_len(v.shape[0]), : fft.prev_fast_len(v.shape[1])]
    down, right = (np.arange(n) / (4 * n) for n in v.shape)
    weights = _response(down, right) / np.cos(np.pi * right)  # what the mean of two columns took
    out: np.ndarray = fft.dctn(v - v.mean(), norm="ortho") * weights
    return out


def _response(down: np.ndarray, right: np.ndarray) -> np.ndarray:
    fine_down, fine_right, coarse_down, coarse_right = between(down, right)
    return np.outer(fine_down, fine_right) - np.outer(coarse_down, coarse_right)


# --- place ---


def _shift(x: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """The peak of their cross-correlation: at every second pixel, then at the pixels around it, then of a parabola."""
    pooled = (x.shape[0] // 2, x.shape[1] // 2)
    down, right = np.fft.fftfreq(pooled[0], 2.0), np.fft.rfftfreq(pooled[1], 2.0)
    cross = _spectrum(other) * _spectrum(x).conj() * _response(down, right) ** 2
    plane = fft.irfft2(cross, s=pooled)
    peak = np.unravel_index(int(plane.argmax()), pooled)
    start = [2 * (int(p) if p <= n // 2 else int(p) - n) for p, n in zip(peak, pooled, strict=True)]
    steps = np.arange(-NEAR, NEAR + 1)
    twice = np.where((right == 0) | (right == 0.25), 1, 2)  # columns that stand for their mirror image too
    rows = np.exp(2j * np.pi * np.outer(start[0] + steps, down))
    columns = np.exp(2j * np.pi * np.outer(right, start[1] + steps)) * twice[:, None]
    near = np.einsum("ij,jk->ik", np.einsum("ij,jk->ik", rows, cross), columns).real
    row, column = np.unravel_index(int(near[1:-1, 1:-1].argmax()), (2 * NEAR - 1,) * 2)
    middle, sure = near[row + 1, column + 1], True
    moved = [float(at + step + 1 - NEAR) for at, step in zip(start, (row, column), strict=True)]
    sides = (near[row, column + 1], near[row + 2, column + 1]), (near[row + 1, column], near[row + 1, column + 2])
    for axis, (before, after) in enumerate(sides):
        bend = before - 2 * middle + after
        sure &= bool(-bend > 1e-3 * middle)  # along straight lines the peak is a ridge
        if bend < 0:
            moved[axis] += 0.5 * float(before - after) / float(bend)
    return moved[0], moved[1], float(sure)


def _spectrum(v: np.ndarray) -> np.ndarray:
    """Of an image pooled by two, under a taper."""
    pooled = _columns(v[: v.shape[0] // 2 * 2])
    pooled = (pooled[0::2] + pooled[1::2]) / 2
    rows, columns = (taper(n) for n in pooled.shape)
    out: np.ndarray = fft.rfft2((pooled - pooled.mean()) * rows[:, None] * columns)
    return out


def taper(size: int) -> np.ndarray:
    """Root of a Hann window without its zeros."""
    out: np.ndarray = np.hanning(size + 2)[1:-1] ** 0.5
    return out


# --- noise, and what a reader should know ---


def _roughness(v: np.ndarray) -> float:
    """A sample of large images."""
    step, part = max(1, v.shape[0] // 128), slice(None, None, max(1, v.shape[1] // 256))
    above, line, below = (rows[:, part] for rows in (v[:-2:step], v[1:-1:step], v[2::step]))
    return float(np.median(np.abs(above - 2 * line + below)))


def _notes(x: np.ndarray, d: np.ndarray) -> dict[str, float]:
    levels, border = _levels(d), _border(d)
    return {
        "d_grid": float(_on_jpeg_grid(d) and not _on_jpeg_grid(x)),
        "d_levels": float(levels) if levels <= FEW_LEVELS < _levels(x) else 0.0,
        "d_border": float(border) if border and not _border(x) else 0.0,
    }


def _on_jpeg_grid(image: np.ndarray) -> bool:
    """Whether blocks of 8 px on JPEG's own grid hold less fine detail than blocks that lie between, wherever these lie.

    Without such a grid the first of them says so already.
    """
    own = _detail(image, 0)
    return all(own < JPEG * _detail(image, i) for i in range(1, 1 + len(BETWEEN)))


def _detail(v: np.ndarray, which: int) -> float:
    """Median over blocks of 8 x 8 px of the energy of their upper half of frequencies; a sample of many blocks."""
    rows, columns = (at[:, None] + np.arange(BLOCK) for at in blocks(*v.shape)[which].T)
    cosines = fft.dctn(v[rows[:, :, None], columns[:, None, :]], axes=(1, 2), norm="ortho")
    return float(np.median(np.square(cosines).reshape(-1, BLOCK * BLOCK)[:, _UPPER].sum(axis=1)))


def _levels(v: np.ndarray) -> int:
    """Number of grey levels in about 128 rows; where a few pixels show many already, their number."""
    rows = v[:: max(1, v.shape[0] // 128)]
    few = np.unique(rows[::4, ::8]).size
    return few if few > FEW_LEVELS else np.unique(rows).size


def _border(v: np.ndarray) -> int:
    """Rows and columns of one grey level that lie around the image, the fewest of the four sides."""
    for width in range(min(v.shape)):
        sides = (v[width], v[-1 - width], v[:, width], v[:, -1 - width])
        if any(np.ptp(line) != 0 for line in sides):
            return width
    return min(v.shape)
