"""Do two images show one scene, on one grid and one scale? What is no pair is said in words, not judged as a denoiser.

Every other column of trust takes for granted that noisy, denoised and reference are images of one field. Here that is
looked at, by the correlation of their structure without noise: `semnr_kernels.likeness` has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from semnr_kernels.likeness import FEW_LEVELS, MIN_SIDE, Looks
from semnr_kernels.likeness import likeness as looks_at
from semnr_kernels.planes import Tiles

from ..metrics import to_tensor

_ALIKE, _OTHER = 0.35, 0.2  # correlation below which images are looked at, and are of two scenes
_EXPLAINED, _BETTER = 0.5, 0.25  # what a turned or shifted image must reach, and gain
_REACH = 8  # px: up to here a shift is a column and a rule of its own
_SHIFT = 0.5  # px from which a reference lies elsewhere
_LOUDER = 3.0  # times the noise: the two look swapped
_SCALE = 4.0  # times the contrast and the level: another scale

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


class Pairs:
    """The noisy and the denoised images of a batch, and their references where there are some, as they are compared.

    Parameters
    ----------
    lines : mapping of str to Tiles, (N, C, H, W) on the CPU
        "noisy", "denoised" and, where there is one, "reference"; scan lines are rows.
    given : mapping of str to Tiles
        The same images as they were given.
    """

    def __init__(self, lines: Mapping[str, Tiles], given: Mapping[str, Tiles]) -> None:
        self.noisy, self.denoised, self.reference = lines["noisy"], lines["denoised"], lines.get("reference")
        self.given = given

    def __len__(self) -> int:
        return len(self.noisy.images)

    @classmethod
    def of(cls, noisy: np.ndarray, denoised: np.ndarray, reference: np.ndarray | None = None) -> Pairs:
        """Of one tile, (H, W) each."""
        tiles = {"noisy": _tiles(noisy), "denoised": _tiles(denoised)}
        if reference is not None:
            tiles["reference"] = _tiles(reference)
        return cls(tiles, tiles)

    @cached_property
    def looks(self) -> list[Looks]:
        return looks_at(self.noisy, self.denoised, self.reference)

    def problem(self, i: int) -> str:
        """Why the denoised image of a tile is none of its noisy one; see `pair_problem`."""
        look, x, d = self.looks[i], _Image(self.noisy, i), _Image(self.denoised, i)
        if min(x.shape) < MIN_SIDE or math.isnan(look.span) or math.isnan(look.d_span):
            return ""  # what is not finite shows nothing
        for name, image, span in (("noisy", x, look.span), ("denoised", d, look.d_span)):
            if span == 0:
                return f"{name} is one grey level ({float(image.pixels.flat[0]):g}) throughout"
        if times := _swapped(look, x, d):
            return f"noisy and denoised look swapped: denoised holds {times:.1f} times its noise"
        return _scene_problem("denoised", x, d, look.d_correlation) or _scale_problem(look)

    def reference_problem(self, i: int) -> str:
        """Why scores against the reference of a tile mean nothing; see `reference_problem`."""
        if self.reference is None:
            return ""
        look, x, y = self.looks[i], _Image(self.noisy, i), _Image(self.reference, i)
        if min(x.shape) < MIN_SIDE or math.isnan(look.span) or math.isnan(look.r_span):
            return ""
        if look.r_span == 0:
            return f"reference is one grey level ({float(y.pixels.flat[0]):g}) throughout"
        if math.isclose(look.span, look.r_span) and np.array_equal(x.pixels, y.pixels):
            return "reference is the noisy image itself"
        if problem := _scene_problem("reference", x, y, look.r_correlation, reach=_REACH * 100):
            return problem
        if look.r_sure and math.hypot(look.r_down, look.r_right) > _SHIFT:
            return f"reference shifted by {look.r_down:.1f}, {look.r_right:.1f} px (down, right) against noisy"
        return ""

    def notes(self, i: int) -> tuple[str, ...]:
        """What a reader should know of a pair that is one: traces of JPEG, few grey levels, an empty border."""
        look = self.looks[i]
        remarks = []
        if look.d_grid == 1:
            remarks.append("denoised shows the 8 px grid of JPEG compression")
        if 0 < look.d_levels <= FEW_LEVELS:
            remarks.append(f"denoised has {look.d_levels:.0f} grey levels only")
        if look.d_border > 0:
            remarks.append(f"denoised has an empty border of {look.d_border:.0f} px")
        return tuple(remarks)


class _Image:
    """One image of a batch, (H, W), fetched when it is asked for."""

    def __init__(self, tiles: Tiles, i: int) -> None:
        self.images = tiles.images[i]

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.images.shape[-2:]
        return int(height), int(width)

    @cached_property
    def pixels(self) -> np.ndarray:
        found: np.ndarray = (self.images[0] if len(self.images) == 1 else self.images.double().mean(0)).numpy()
        return found


def _tiles(image: np.ndarray) -> Tiles:
    pixels = np.ascontiguousarray(image)
    if pixels.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        pixels = pixels.astype(np.float64)
    return Tiles(to_tensor("image", pixels)[None, None])


def likeness(noisy: np.ndarray, other: np.ndarray) -> Likeness:
    """Compare the structure of `other` with that of a noisy frame, both (H, W)."""
    found = Pairs.of(noisy, other).looks[0]
    return Likeness(found.d_correlation, found.d_contrast)


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
    >>> from scipy import ndimage
    >>> rng = np.random.default_rng(0)
    >>> scene = ndimage.gaussian_filter(rng.normal(size=(96, 96)), 3) * 400 + 128
    >>> noisy = rng.normal(scene, 10)
    >>> pair_problem(noisy, scene), pair_problem(noisy, scene[:, ::-1])
    ('', 'denoised is noisy mirrored left to right')
    """
    return Pairs.of(noisy, denoised).problem(0)


def reference_problem(noisy: np.ndarray, reference: np.ndarray) -> str:
    """Why scores against this reference mean nothing for this noisy frame; "" where nothing speaks against it.

    Examples
    --------
    >>> from scipy import ndimage
    >>> rng = np.random.default_rng(0)
    >>> scene = ndimage.gaussian_filter(rng.normal(size=(160, 160)), 3) * 400 + 128
    >>> reference_problem(rng.normal(scene, 10), np.roll(scene, (6, 4), axis=(0, 1)))
    'reference shifted by 6.0, 4.0 px (down, right) against noisy'
    """
    return Pairs.of(noisy, noisy, reference).reference_problem(0)


def notes(noisy: np.ndarray, denoised: np.ndarray) -> tuple[str, ...]:
    """What a reader should know of a pair that is one: traces of JPEG, few grey levels, an empty border."""
    return Pairs.of(noisy, denoised).notes(0)


def shift(noisy: np.ndarray, other: np.ndarray) -> tuple[float, float, bool]:
    """How far `other` lies down and to the right of `noisy`, px, and whether the images say so beyond doubt.

    The peak of their cross-correlation: at every second pixel, then at the pixels around it, then of a parabola.
    """
    found = looks_at(_tiles(noisy), None, _tiles(other))[0]
    if math.isnan(found.r_down):  # one of them is one grey level, or too small
        return 0.0, 0.0, False
    return found.r_down, found.r_right, found.r_sure == 1


def _swapped(look: Looks, x: _Image, d: _Image) -> float:
    """How many times the input's noise an output of one scene and contrast holds; 0 where it is not much more, which
    no denoiser gives."""
    times = (look.d_roughness + 1e-9) / (look.roughness + 1e-9)
    if not times > _LOUDER:
        return 0.0
    against = likeness(d.pixels, x.pixels)
    return times if against.correlation > 0.7 and against.contrast > 0.7 else 0.0


def _scene_problem(name: str, noisy: _Image, image: _Image, found: float, reach: float = _REACH) -> str:
    """Whether `image` shows another scene, or this one turned, shifted or inverted; `found`: their correlation."""
    if math.isnan(found) or found >= _ALIKE:
        return ""
    if found <= -_EXPLAINED:
        return f"{name} has the contrast of noisy inverted (correlation {found:.2f})"
    x, other = noisy.pixels, image.pixels
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


def _scale_problem(look: Looks) -> str:
    """Whether levels and contrast both say that the two are on different scales."""
    level = abs(look.d_mean) / max(abs(look.mean), 1e-12)
    contrast = level if math.isnan(look.d_contrast) else look.d_contrast
    if (contrast > _SCALE and level > _SCALE) or (contrast < 1 / _SCALE and level < 1 / _SCALE):
        return (
            f"denoised is on another intensity scale: {level:.2g} times the level and {contrast:.2g} times the "
            "contrast of noisy"
        )
    return ""
