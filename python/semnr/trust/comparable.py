"""Do two images show one scene, on one grid and one scale? What is no pair is said in words, not judged as a denoiser.

Every other column of trust takes for granted that noisy, denoised and reference are images of one field. Here that is
looked at, by the correlation of their structure without noise. Each scan line of an SEM frame has noise of its own:
every second line of a noisy frame, and what its neighbours say of it, are two looks at one scene, their noise apart.

The band of structure that is compared holds little above 0.25 cycles/px, so that images are read at half their
resolution, in float32, and the band is a weight on their cosine transform: sums of products over it are those over the
pixels of the filtered images, mirrored at their borders (Parseval).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import fft

MIN_SIDE = 32  # px
_FINE, _COARSE = 1.5, 12.0  # px: the band whose structure is compared
_SEEN = 0.12  # correlation of the two looks from which a frame has structure at all
_ALIKE, _OTHER = 0.35, 0.2  # correlation below which images are looked at, and are of two scenes
_EXPLAINED, _BETTER = 0.5, 0.25  # what a turned or shifted image must reach, and gain
_REACH = 8  # px: up to here a shift is a column and a rule of its own
_SHIFT = 0.5  # px from which a reference lies elsewhere
_LOUDER = 3.0  # times the noise: the two look swapped
_SCALE = 4.0  # times the contrast and the level: another scale
_JPEG = 0.75  # share of the fine detail that blocks on JPEG's grid hold
_NEAR = 3  # px around the peak at every second pixel
_BETWEEN = ((4, 0), (0, 4), (4, 4), (2, 6), (6, 2))  # px, down and across, off that grid
_UPPER = np.flatnonzero(np.add.outer(np.arange(8), np.arange(8)) >= 7)  # of the 64 frequencies of a block
_BLOCKS = 1024  # blocks that speak for an image
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


class Frame:
    """A noisy frame, (H, W), with what every comparison with it needs, made when first asked for."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = np.asarray(pixels)

    @classmethod
    def of(cls, noisy: np.ndarray | Frame) -> Frame:
        """`noisy` itself where it is one."""
        return noisy if isinstance(noisy, Frame) else cls(noisy)

    @cached_property
    def looks(self) -> tuple[np.ndarray, float, float]:
        """The band of the lines between its own, their covariance with its own, √(power of both)."""
        rows, v = _looked_at(self.pixels), _columns(self.pixels)
        own, neighbours = _band(v[1::2][:rows]), _band((v[0::2][:rows] + v[2::2][:rows]) / 2)
        power = math.sqrt(_product(own, own) * _product(neighbours, neighbours))
        return neighbours, _product(own, neighbours), power

    @cached_property
    def roughness(self) -> float:
        return _roughness(self.pixels)

    @cached_property
    def spectrum(self) -> np.ndarray:
        return _spectrum(self.pixels)


def likeness(noisy: np.ndarray | Frame, other: np.ndarray) -> Likeness:
    """Compare the structure of `other` with that of a noisy frame, both (H, W)."""
    neighbours, signal, power = Frame.of(noisy).looks
    seen = _band(_columns(other[1::2][: _looked_at(other)]))
    shown = _product(seen, seen)
    if not power > 0 or signal < _SEEN * power or not shown > 0:
        return Likeness(math.nan, math.nan)
    return Likeness(_product(seen, neighbours) / math.sqrt(signal * shown), math.sqrt(shown / signal))


def _product(a: np.ndarray, b: np.ndarray) -> float:
    """Σ a b, the same on any number of threads."""
    return float((a * b).sum())


def pair_problem(noisy: np.ndarray | Frame, denoised: np.ndarray) -> str:
    """Why a denoised image is none of this noisy one; "" where nothing speaks against it.

    Parameters
    ----------
    noisy, denoised : ndarray, (H, W)
        Scan lines are rows. A `Frame` of the noisy image keeps what `reference_problem` needs of it again.

    Returns
    -------
    str
        A sentence for people: swapped, turned, mirrored, shifted by more than a rule would measure, inverted, of
        another scene, on another scale, one grey level.

    Examples
    --------
    >>> from scipy import ndimage
    >>> rng = np.random.default_rng(0)
    >>> scene = ndimage.gaussian_filter(rng.normal(size=(96, 96)), 3) * 400 + 128
    >>> noisy = rng.normal(scene, 10)
    >>> pair_problem(noisy, scene), pair_problem(noisy, scene[:, ::-1])
    ('', 'denoised is noisy mirrored left to right')
    """
    frame, d = Frame.of(noisy), np.asarray(denoised)
    x = frame.pixels
    if min(x.shape) < MIN_SIDE:
        return ""
    for name, image in (("noisy", x), ("denoised", d)):
        if np.ptp(image) == 0:
            return f"{name} is one grey level ({float(image.flat[0]):g}) throughout"
    if times := _swapped(frame, d):
        return f"noisy and denoised look swapped: denoised holds {times:.1f} times its noise"
    found = likeness(frame, d)
    return _scene_problem("denoised", frame, d, found.correlation) or _scale_problem(x, d, found.contrast)


def reference_problem(noisy: np.ndarray | Frame, reference: np.ndarray) -> str:
    """Why scores against this reference mean nothing for this noisy frame; "" where nothing speaks against it.

    Examples
    --------
    >>> from scipy import ndimage
    >>> rng = np.random.default_rng(0)
    >>> scene = ndimage.gaussian_filter(rng.normal(size=(160, 160)), 3) * 400 + 128
    >>> reference_problem(rng.normal(scene, 10), np.roll(scene, (6, 4), axis=(0, 1)))
    'reference shifted by 6.0, 4.0 px (down, right) against noisy'
    """
    frame, y = Frame.of(noisy), np.asarray(reference)
    x = frame.pixels
    if min(x.shape) < MIN_SIDE:
        return ""
    if np.ptp(y) == 0:
        return f"reference is one grey level ({float(y.flat[0]):g}) throughout"
    if np.array_equal(x, y):
        return "reference is the noisy image itself"
    if problem := _scene_problem("reference", frame, y, likeness(frame, y).correlation, reach=_REACH * 100):
        return problem
    down, right, sure = shift(frame, y)
    if sure and math.hypot(down, right) > _SHIFT:
        return f"reference shifted by {down:.1f}, {right:.1f} px (down, right) against noisy"
    return ""


def notes(noisy: np.ndarray, denoised: np.ndarray) -> tuple[str, ...]:
    """What a reader should know of a pair that is one: traces of JPEG, few grey levels, an empty border."""
    x, d = np.asarray(noisy), np.asarray(denoised)
    if min(x.shape) < MIN_SIDE:
        return ()
    remarks = []
    if _on_jpeg_grid(d) and not _on_jpeg_grid(x):
        remarks.append("denoised shows the 8 px grid of JPEG compression")
    if (levels := _levels(d)) <= _FEW_LEVELS < _levels(x):
        remarks.append(f"denoised has {levels} grey levels only")
    if (frame := _frame(d)) and not _frame(x):
        remarks.append(f"denoised has an empty border of {frame} px")
    return tuple(remarks)


def shift(noisy: np.ndarray | Frame, other: np.ndarray) -> tuple[float, float, bool]:
    """How far `other` lies down and to the right of `noisy`, px, and whether the images say so beyond doubt.

    The peak of their cross-correlation: at every second pixel, then at the pixels around it, then of a parabola.
    """
    a, b = Frame.of(noisy).spectrum, _spectrum(other)
    pooled = (other.shape[0] // 2, other.shape[1] // 2)
    cross = b * a.conj() * _spectrum_weights(pooled)
    plane = fft.irfft2(cross, s=pooled)
    peak = np.unravel_index(int(plane.argmax()), pooled)
    start = [2 * (int(p) if p <= n // 2 else int(p) - n) for p, n in zip(peak, pooled, strict=True)]
    near = _around(cross, pooled, start)
    row, column = np.unravel_index(int(near[1:-1, 1:-1].argmax()), (2 * _NEAR - 1,) * 2)
    middle, sure = near[row + 1, column + 1], True
    moved = [float(at + step + 1 - _NEAR) for at, step in zip(start, (row, column), strict=True)]
    sides = (near[row, column + 1], near[row + 2, column + 1]), (near[row + 1, column], near[row + 1, column + 2])
    for axis, (before, after) in enumerate(sides):
        bend = before - 2 * middle + after
        sure &= bool(-bend > 1e-3 * middle)  # along straight lines the peak is a ridge
        if bend < 0:
            moved[axis] += 0.5 * float(before - after) / float(bend)
    return moved[0], moved[1], sure


def _on_jpeg_grid(image: np.ndarray) -> bool:
    """Whether blocks of 8 px on JPEG's own grid hold less fine detail than blocks that lie between, wherever these lie.

    Without such a grid the first of them says so already.
    """
    own = _detail(image, 0, 0)
    return all(own < _JPEG * _detail(image, *offset) for offset in _BETWEEN)


def _detail(v: np.ndarray, row: int, column: int) -> float:
    """Median over blocks of 8 x 8 px of the energy of their upper half of frequencies; a sample of many blocks."""
    v = v[row:, column:]
    h, w = (n // 8 for n in v.shape)
    blocks = v[: 8 * h, : 8 * w].reshape(h, 8, w, 8)
    down, right = np.divmod(_sample(h * w), w)
    taken = blocks[down, :, right].astype(np.float32)
    cosines = fft.dctn(taken, axes=(1, 2), norm="ortho", overwrite_x=True)
    return float(np.median(np.square(cosines).reshape(-1, 64)[:, _UPPER].sum(axis=1)))


@lru_cache(maxsize=32)
def _sample(count: int) -> np.ndarray:
    """Which of so many blocks are looked at: drawn once, so that no period of the scene is met."""
    return np.sort(np.random.default_rng(0).permutation(count)[:_BLOCKS])


def _levels(v: np.ndarray) -> int:
    """Number of grey levels in about 128 rows; where a few pixels show many already, their number."""
    rows = v[:: max(1, v.shape[0] // 128)]
    few = np.unique(rows[::4, ::8]).size
    return few if few > _FEW_LEVELS else np.unique(rows).size


def _looked_at(v: np.ndarray) -> int:
    """How many of its lines have a neighbour on either side, every second one taken."""
    return int((v.shape[0] - 1) // 2)


def _columns(v: np.ndarray) -> np.ndarray:
    """Means of neighbouring columns, two by two, float32."""
    v = v[:, : v.shape[1] // 2 * 2].astype(np.float32)
    return (v[:, 0::2] + v[:, 1::2]) / 2


def _band(v: np.ndarray) -> np.ndarray:
    """Cosine transform of the structure between _FINE and _COARSE px, of every second row and column."""
    v = v[: fft.prev_fast_len(v.shape[0]), : fft.prev_fast_len(v.shape[1])]
    out: np.ndarray = fft.dctn(v - v.mean(), norm="ortho") * _cosine_weights(v.shape)
    return out


@lru_cache(maxsize=16)
def _cosine_weights(shape: tuple[int, int]) -> np.ndarray:
    down, right = (np.arange(n) / (4 * n) for n in shape)
    out: np.ndarray = _between(down, right) / np.cos(np.pi * right)  # what the mean of two columns took
    return out.astype(np.float32)


@lru_cache(maxsize=16)
def _spectrum_weights(pooled: tuple[int, int]) -> np.ndarray:
    return _between(*(np.abs(f) for f in _frequencies(pooled))) ** 2


def _between(down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What a Gaussian of _FINE px less one of _COARSE px lets through at these frequencies, cycles/px, float32."""
    square = -2 * math.pi**2 * (down[:, None] ** 2 + right**2)
    out: np.ndarray = np.exp(_FINE**2 * square) - np.exp(_COARSE**2 * square)
    return out.astype(np.float32)


def _frequencies(pooled: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cycles/px down and across of the real spectrum of an image pooled by two."""
    return np.fft.fftfreq(pooled[0], 2.0), np.fft.rfftfreq(pooled[1], 2.0)


def _spectrum(v: np.ndarray) -> np.ndarray:
    """Of an image pooled by two, under a taper."""
    pooled = _columns(v[: v.shape[0] // 2 * 2])
    pooled = (pooled[0::2] + pooled[1::2]) / 2
    rows, columns = ((np.hanning(n + 2)[1:-1] ** 0.5).astype(np.float32) for n in pooled.shape)
    out: np.ndarray = fft.rfft2((pooled - pooled.mean()) * rows[:, None] * columns)
    return out


def _around(cross: np.ndarray, pooled: tuple[int, int], start: list[int]) -> np.ndarray:
    """The correlation that has the spectrum `cross` at whole pixels up to _NEAR from `start`."""
    down, right = _frequencies(pooled)
    steps = np.arange(-_NEAR, _NEAR + 1)
    rows = np.exp(2j * np.pi * np.outer(start[0] + steps, down))
    twice = np.where((right == 0) | (right == 0.25), 1, 2)  # columns that stand for their mirror image too
    columns = np.exp(2j * np.pi * np.outer(right, start[1] + steps)) * twice[:, None]
    out: np.ndarray = np.einsum("ij,jk->ik", np.einsum("ij,jk->ik", rows.astype(cross.dtype), cross), columns).real
    return out / (pooled[0] * pooled[1])


def _roughness(v: np.ndarray) -> float:
    """Median second difference across lines: noise, where most of the image is no edge; a sample of large images."""
    step, part = max(1, v.shape[0] // 128), slice(None, None, max(1, v.shape[1] // 256))
    above, line, below = (rows[:, part].astype(np.float32) for rows in (v[:-2:step], v[1:-1:step], v[2::step]))
    return float(np.median(np.abs(above - 2 * line + below))) + 1e-9


def _swapped(noisy: Frame, d: np.ndarray) -> float:
    """How many times the input's noise an output of one scene and contrast holds; 0 where it is not much more, which
    no denoiser gives."""
    times = _roughness(d) / noisy.roughness
    if not times > _LOUDER:
        return 0.0
    against = likeness(d, noisy.pixels)
    return times if against.correlation > 0.7 and against.contrast > 0.7 else 0.0


def _scene_problem(name: str, noisy: Frame, other: np.ndarray, found: float, reach: float = _REACH) -> str:
    """Whether `other` shows another scene, or this one turned, shifted or inverted; `found`: their correlation."""
    if math.isnan(found) or found >= _ALIKE:
        return ""
    if found <= -_EXPLAINED:
        return f"{name} has the contrast of noisy inverted (correlation {found:.2f})"
    x = noisy.pixels
    down, right, _ = shift(noisy, other)
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
    level = abs(float(d.mean(dtype=np.float64))) / max(abs(float(x.mean(dtype=np.float64))), 1e-12)
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
    for width in range(min(v.shape)):
        sides = (v[width], v[-1 - width], v[:, width], v[:, -1 - width])
        if any(np.ptp(line) != 0 for line in sides):
            return width
    return min(v.shape)
