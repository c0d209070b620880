"""Do two images show one scene, on one grid and one scale? What is no pair is said in words, not judged as a denoiser.

Every other column of trust takes for granted that noisy, denoised and reference are images of one field. Here that is
looked at, by the correlation of their structure without noise. Each scan line of an SEM frame has noise of its own:
every second line of a noisy frame, and what its neighbours say of it, are two looks at one scene, their noise apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

MIN_SIDE = 32  # px
_FINE, _COARSE = 1.5, 12.0  # px: the band whose structure is compared
_SEEN = 0.08  # correlation of the two looks from which a frame has structure at all
_ALIKE, _OTHER = 0.35, 0.2  # correlation below which images are looked at, and are of two scenes
_EXPLAINED, _BETTER = 0.5, 0.25  # what a turned or shifted image must reach, and gain
_REACH = 8  # px: up to here a shift is a column and a rule of its own
_SHIFT = 0.5  # px from which a reference lies elsewhere
_LOUDER = 3.0  # times the noise: the two look swapped
_SCALE = 4.0  # times the contrast and the level: another scale
_JPEG = 0.75  # share of the fine detail that blocks on JPEG's grid hold
_BETWEEN = ((4, 0), (0, 4), (4, 4), (2, 6), (6, 2))  # px, down and across, off that grid
_UPPER = np.add.outer(np.arange(8), np.arange(8)) >= 7
_FEW_LEVELS = 16

_TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored left to right": lambda v: v[:, ::-1],
    "mirrored top to bottom": lambda v: v[::-1],
    "turned by 180 degrees": lambda v: v[::-1, ::-1],
    "transposed": lambda v: v.T,
    "turned by 90 degrees": lambda v: np.rot90(v),
    "turned by 270 degrees": lambda v: np.rot90(v, 3),
    "transposed and turned by 180 degrees": lambda v: v[::-1, ::-1].T,
}


@dataclass(frozen=True)
class Likeness:
    """How an image lies against the noisy frame of one scene.

    Attributes
    ----------
    correlation : float
        Of their structure, freed of the frame's noise: 1 one scene, 0 two, -1 inverted. NaN: the frame shows none.
    contrast : float
        Contrast of the image's structure over the frame's.
    """

    correlation: float
    contrast: float


def likeness(noisy: np.ndarray, other: np.ndarray) -> Likeness:
    """Compare the structure of `other` with that of a noisy frame, both (H, W) float64."""
    own, neighbours, seen = (_band(v) for v in _looks(noisy, other))
    signal = float((own * neighbours).sum())
    power = math.sqrt(float((own**2).sum()) * float((neighbours**2).sum()))
    found = float((seen**2).sum())
    if not power > 0 or signal < _SEEN * power or not found > 0:
        return Likeness(math.nan, math.nan)
    return Likeness(float((seen * neighbours).sum()) / math.sqrt(signal * found), math.sqrt(found / signal))


def pair_problem(noisy: np.ndarray, denoised: np.ndarray) -> str:
    """Why a denoised image is none of this noisy one; "" where nothing speaks against it.

    Parameters
    ----------
    noisy, denoised : ndarray, (H, W)
        Scan lines are rows.

    Returns
    -------
    str
        A sentence for people: swapped, turned, mirrored, shifted by more than a rule would measure, inverted, of
        another scene, on another scale, one grey level.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scene = ndimage.gaussian_filter(rng.normal(size=(96, 96)), 3) * 400 + 128
    >>> noisy = rng.normal(scene, 10)
    >>> pair_problem(noisy, scene), pair_problem(noisy, scene[:, ::-1])
    ('', 'denoised is noisy mirrored left to right')
    """
    x, d = (np.asarray(v, np.float64) for v in (noisy, denoised))
    if min(x.shape) < MIN_SIDE:
        return ""
    for name, image in (("noisy", x), ("denoised", d)):
        if np.ptp(image) == 0:
            return f"{name} is one grey level ({image.flat[0]:g}) throughout"
    if _swapped(x, d):
        return f"noisy and denoised look swapped: denoised holds {_roughness(d) / _roughness(x):.1f} times its noise"
    found = likeness(x, d)
    return _scene_problem("denoised", x, d, found.correlation) or _scale_problem(x, d, found.contrast)


def reference_problem(noisy: np.ndarray, reference: np.ndarray) -> str:
    """Why scores against this reference mean nothing for this noisy frame; "" where nothing speaks against it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scene = ndimage.gaussian_filter(rng.normal(size=(96, 96)), 3) * 400 + 128
    >>> reference_problem(rng.normal(scene, 10), np.roll(scene, (6, 4), axis=(0, 1)))
    'reference shifted by 6.0, 4.0 px (down, right) against noisy'
    """
    x, y = (np.asarray(v, np.float64) for v in (noisy, reference))
    if min(x.shape) < MIN_SIDE:
        return ""
    if np.ptp(y) == 0:
        return f"reference is one grey level ({y.flat[0]:g}) throughout"
    if np.array_equal(x, y):
        return "reference is the noisy image itself"
    if problem := _scene_problem("reference", x, y, likeness(x, y).correlation, reach=_REACH * 100):
        return problem
    down, right, sure = shift(x, y)
    if sure and math.hypot(down, right) > _SHIFT:
        return f"reference shifted by {down:.1f}, {right:.1f} px (down, right) against noisy"
    return ""


def notes(noisy: np.ndarray, denoised: np.ndarray) -> tuple[str, ...]:
    """What a reader should know of a pair that is one: traces of JPEG, few grey levels, an empty border."""
    x, d = (np.asarray(v, np.float64) for v in (noisy, denoised))
    if min(x.shape) < MIN_SIDE:
        return ()
    found = []
    if _on_jpeg_grid(d) and not _on_jpeg_grid(x):
        found.append("denoised shows the 8 px grid of JPEG compression")
    levels = np.unique(d[:: max(1, d.shape[0] // 128)]).size
    if levels <= _FEW_LEVELS < np.unique(x[:: max(1, x.shape[0] // 128)]).size:
        found.append(f"denoised has {levels} grey levels only")
    if (frame := _frame(d)) and not _frame(x):
        found.append(f"denoised has an empty border of {frame} px")
    return tuple(found)


def shift(noisy: np.ndarray, other: np.ndarray) -> tuple[float, float, bool]:
    """How far `other` lies down and to the right of `noisy`, px, and whether the images say so beyond doubt."""
    a, b = (_windowed(_band2(v)) for v in (noisy, other))
    cross = fft.irfft2(fft.rfft2(b) * fft.rfft2(a).conj(), s=a.shape)
    peak = np.unravel_index(int(cross.argmax()), cross.shape)
    moved = [float(p) if p <= n // 2 else float(p) - n for p, n in zip(peak, cross.shape, strict=True)]
    sure = True
    for axis in (0, 1):
        around = [cross[tuple((peak[k] + (k == axis) * step) % cross.shape[k] for k in (0, 1))] for step in (-1, 0, 1)]
        bend = around[0] - 2 * around[1] + around[2]
        sure &= bool(-bend > 1e-3 * around[1])  # along straight lines the peak is a ridge
        if bend < 0:
            moved[axis] += 0.5 * float(around[0] - around[2]) / float(bend)
    return moved[0], moved[1], sure


def _on_jpeg_grid(image: np.ndarray) -> bool:
    """Whether blocks of 8 px on JPEG's own grid hold less fine detail than blocks that lie between, wherever these lie.

    Without such a grid the first of them says so already.
    """
    own = _detail(image, 0, 0)
    return all(own < _JPEG * _detail(image, *offset) for offset in _BETWEEN)


def _detail(v: np.ndarray, row: int, column: int) -> float:
    """Median over blocks of 8 x 8 px of the energy of their upper half of frequencies."""
    v = v[row:, column:]
    h, w = (n // 8 for n in v.shape)
    blocks = v[: 8 * h, : 8 * w].reshape(h, 8, w, 8).transpose(0, 2, 1, 3)
    energy = fft.dctn(blocks, axes=(2, 3), norm="ortho") ** 2
    return float(np.median((energy * _UPPER).sum(axis=(2, 3))))


def _looks(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every second line of x, what its neighbours say of it, and the same lines of the other image."""
    rows = (x.shape[0] - 1) // 2
    own = x[1::2][:rows]
    return own, (x[0::2][:rows] + x[2::2][:rows]) / 2, other[1::2][:rows]


def _band(v: np.ndarray, rows: float = 2.0) -> np.ndarray:
    """Structure between _FINE and _COARSE px; `rows`: px that a row stands for."""
    v = v - v.mean()
    fine = ndimage.gaussian_filter(v, (_FINE / rows, _FINE), mode="nearest", truncate=3)
    band: np.ndarray = fine - ndimage.gaussian_filter(v, (_COARSE / rows, _COARSE), mode="nearest", truncate=3)
    return band


def _band2(v: np.ndarray) -> np.ndarray:
    return _band(v, rows=1.0)


def _windowed(v: np.ndarray) -> np.ndarray:
    rows, columns = (np.hanning(n + 2)[1:-1] ** 0.5 for n in v.shape)
    return v * rows[:, None] * columns


def _roughness(v: np.ndarray) -> float:
    """Median second difference across the lines: noise, where most of the image is no edge."""
    return float(np.median(np.abs(v[:-2] - 2 * v[1:-1] + v[2:]))) + 1e-9


def _swapped(x: np.ndarray, d: np.ndarray) -> bool:
    """Much more noise in the output than in the input, of one scene and contrast: no denoiser does that."""
    if not _roughness(d) > _LOUDER * _roughness(x):
        return False
    found = likeness(d, x)
    return bool(found.correlation > 0.7 and found.contrast > 0.7)


def _scene_problem(name: str, x: np.ndarray, other: np.ndarray, found: float, reach: float = _REACH) -> str:
    """Whether `other` shows another scene, or this one turned, shifted or inverted; `found`: their correlation."""
    if math.isnan(found) or found >= _ALIKE:
        return ""
    if found <= -_EXPLAINED:
        return f"{name} has the contrast of noisy inverted (correlation {found:.2f})"
    down, right, _ = shift(x, other)
    turned = {"": _aligned(x, other)}
    turned |= {told: _aligned(x, turn(other)) for told, turn in _TURNS.items() if turn(other).shape == x.shape}
    told = max(turned, key=lambda name: turned[name] + 0.05 * (not name))
    if turned[told] >= max(_EXPLAINED, found + _BETTER):
        if told:
            return f"{name} is noisy {told}"
        if math.hypot(down, right) <= reach:
            return ""
        return f"{name} shifted by {down:.1f}, {right:.1f} px (down, right) against noisy"
    if found < _OTHER:
        return f"{name} does not show what noisy shows (correlation of their structure {found:.2f}): another site?"
    return ""


def _aligned(x: np.ndarray, other: np.ndarray) -> float:
    """Correlation of their structure after the best shift by whole pixels."""
    down, right, _ = shift(x, other)
    rows, columns = round(down), round(right)
    h, w = x.shape
    if abs(rows) > h - MIN_SIDE or abs(columns) > w - MIN_SIDE:
        return -1.0
    a = x[max(0, -rows) : h - max(0, rows), max(0, -columns) : w - max(0, columns)]
    b = other[max(0, rows) : h - max(0, -rows), max(0, columns) : w - max(0, -columns)]
    found = likeness(a, b).correlation
    return -1.0 if math.isnan(found) else found


def _scale_problem(x: np.ndarray, d: np.ndarray, contrast: float) -> str:
    """Whether levels and contrast both say that the two are on different scales."""
    level = abs(float(d.mean())) / max(abs(float(x.mean())), 1e-12)
    if math.isnan(contrast):
        contrast = level
    if (contrast > _SCALE and level > _SCALE) or (contrast < 1 / _SCALE and level < 1 / _SCALE):
        return (
            f"denoised is on another intensity scale: {level:.2g} times the level and {contrast:.2g} times the "
            "contrast of noisy"
        )
    return ""


def _frame(v: np.ndarray) -> int:
    """Rows and columns of one grey level that lie around the image, the fewest of the four sides."""
    sides = []
    for turned in (v, v[::-1], v.T, v.T[::-1]):
        same = np.ptp(turned, axis=1) == 0
        sides.append(int(same.size if same.all() else same.argmin()))
    return min(sides)
