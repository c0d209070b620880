"""Contact holes and vias: diameter and roundness from sub-pixel rims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_RAYS = 72
_STEP = 0.1  # px along a ray


@dataclass(frozen=True)
class Hole:
    """One hole.

    Attributes
    ----------
    centre : (float, float)
        Row and column of its centre, in pixels.
    cd_px : float
        Diameter of the circle of the mean radius, in pixels.
    roundness : float
        Three standard deviations of the rim's radius about the best circle, in pixels; 0 for a circle.
    radii : ndarray
        Radius of the rim at evenly spaced angles.

    Examples
    --------
    >>> holes = semnr.synth.tile("holes", 192, seed=1)
    >>> hole = semnr.metrology.measure_holes(holes.clean)[0]
    >>> abs(hole.cd_px - holes.truth.cd_nm) < 2, hole.radii.shape  # 1 nm is 1 pixel here
    (True, (72,))
    """

    centre: tuple[float, float]
    cd_px: float
    roundness: float
    radii: np.ndarray


def measure_holes(image: Any, *, level: float | None = None, dark: bool = True, smooth: float = 1.0) -> list[Hole]:
    """Holes that lie wholly in the image, from top to bottom.

    Parameters
    ----------
    image : (H, W) array
        Grey levels of any scale, at least 32 pixels a side.
    level : float, optional
        Grey level of the rim; default half-way between the holes' level and that of their surroundings.
    dark : bool
        Holes are darker than what surrounds them.
    smooth : float
        Standard deviation, px, of the Gaussian that tames the noise; it moves a rim of radius r inwards or outwards by
        about smooth² / 2r.

    Raises
    ------
    ValueError
        Not a finite image, or no holes in it.

    Returns
    -------
    list of Hole

    Examples
    --------
    >>> holes = semnr.synth.tile("holes", 192, seed=1)
    >>> len(semnr.metrology.measure_holes(holes.clean)) == len(holes.truth.cd_each_nm)
    True
    """
    from scipy import ndimage

    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim != 2 or min(pixels.shape) < 32:
        raise ValueError(f"image has shape {pixels.shape}; accepted: (H, W) of at least 32 pixels a side")
    if not np.isfinite(pixels).all():
        raise ValueError("image has non-finite pixels; accepted: finite values")
    if not smooth >= 0:
        raise ValueError(f"smooth is {smooth!r}; accepted: a number of at least 0")
    sign = 1.0 if dark else -1.0
    calm = ndimage.gaussian_filter(sign * pixels, max(smooth, 0.0)) if smooth else sign * pixels
    if level is None:
        low, high = np.percentile(calm, (5, 75))
        cut = float(low + high) / 2
    else:
        cut = sign * float(level)
    labels, count = ndimage.label(calm < cut)
    spline = ndimage.spline_filter(calm, order=3, mode="mirror")  # once, not for every hole
    boxes = ndimage.find_objects(labels)
    holes = []
    for i, box in enumerate(boxes):
        inside = labels[box] == i + 1
        touches = any(s.start == 0 or s.stop == n for s, n in zip(box, pixels.shape, strict=True))
        if touches or inside.sum() < 16:
            continue
        centre = tuple(c + s.start for c, s in zip(ndimage.center_of_mass(inside), box, strict=True))
        hole = _rim(spline, centre, cut, max(s.stop - s.start for s in box))
        if hole is not None:
            holes.append(hole)
    if not holes:
        raise ValueError(f"image has no holes that lie wholly in it ({count} regions below the level {sign * cut:g})")
    return holes


def _rim(spline: np.ndarray, centre: tuple[float, ...], cut: float, reach: float) -> Hole | None:
    """Follow rays from the centre to the level, then centre the rim on its own best circle and follow them again."""
    from scipy import ndimage

    angles = np.arange(_RAYS) * 2 * np.pi / _RAYS
    along = np.arange(0, reach, _STEP)
    row, column = centre
    radii = np.empty(0)
    for _ in range(2):
        rows = row + np.sin(angles)[:, None] * along
        columns = column + np.cos(angles)[:, None] * along
        profile = ndimage.map_coordinates(spline, [rows, columns], order=3, mode="mirror", prefilter=False)
        above = profile >= cut
        above[:, 0] = False
        if not above.any(axis=1).all():
            return None
        at = above.argmax(axis=1)
        before, after = profile[np.arange(_RAYS), at - 1], profile[np.arange(_RAYS), at]
        radii = (at - 1 + (cut - before) / (after - before)) * _STEP
        # the first harmonic of the radius is a shifted centre
        shift_row, shift_column = 2 * (radii * np.sin(angles)).mean(), 2 * (radii * np.cos(angles)).mean()
        row, column = row + shift_row, column + shift_column
    harmonic = shift_row * np.sin(angles) + shift_column * np.cos(angles)
    rest = radii - harmonic - radii.mean()
    return Hole((float(row), float(column)), 2 * float(radii.mean()), 3 * float(rest.std()), radii)
