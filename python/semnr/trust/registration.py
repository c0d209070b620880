"""Lay a clean image onto the noisy one of its field: an affine map, and gain and offset, by least squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .comparable import shift

BORDER = 12  # px around a registered image that no score looks at
_CALM = 2.0  # px: both images are smoothed so far before they are compared
_ROUNDS = 20
_STILL = 1e-3  # px: a smaller step ends the search


@dataclass(frozen=True)
class Registered:
    """A reference as it lies on the noisy image.

    Attributes
    ----------
    image : ndarray, (H, W), float64
        registered(r) = reference(A · (r − c) + c + (p0, p1)), c half the shape, A = [[1 + p2, p3], [p4, 1 + p5]], rows
        first; cubic spline, nearest border. On the reference's own intensity scale.
    affine : tuple of float
        p0 to p5.
    """

    image: np.ndarray
    affine: tuple[float, ...]


def register(noisy: np.ndarray, reference: np.ndarray) -> Registered:
    """Find the affine map, gain and offset that lay `reference` onto `noisy`, both (H, W), by Gauss and Newton's steps.

    The start is the peak of their cross-correlation.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scene = 128 + 400 * ndimage.gaussian_filter(rng.normal(size=(128, 128)), 3)
    >>> found = register(rng.normal(scene, 8), ndimage.shift(scene, (2.5, -1.25), order=3, mode="nearest"))
    >>> np.round(found.affine[:2], 1).tolist()
    [2.5, -1.2]
    """
    x, y = (np.asarray(v, np.float64) for v in (noisy, reference))
    down, right, _ = shift(x, y)
    p = np.array([down, right, 0.0, 0.0, 0.0, 0.0])
    calm = ndimage.gaussian_filter(x, _CALM)
    rows, columns = np.ogrid[: x.shape[0], : x.shape[1]]
    r, c = rows - x.shape[0] / 2 + 0 * columns, columns - x.shape[1] / 2 + 0 * rows
    inner = (slice(BORDER, -BORDER),) * 2 if min(x.shape) > 4 * BORDER else (slice(None),) * 2
    smooth = ndimage.gaussian_filter(y, _CALM)
    for _ in range(_ROUNDS):
        moved = _moved(smooth, p)
        gy, gx = np.gradient(moved)
        terms = np.stack(
            [v[inner].ravel() for v in (gy, gx, gy * r, gy * c, gx * r, gx * c, moved, np.ones_like(moved))]
        )
        found = np.linalg.lstsq(terms @ terms.T, terms @ calm[inner].ravel(), rcond=1e-12)[0]
        step = found[:6] / (found[6] or 1.0)
        step[:2] = np.clip(step[:2], -1.0, 1.0)
        p = p + step
        if np.abs(step[:2]).max() < _STILL and np.abs(step[2:]).max() * max(x.shape) < _STILL:
            break
    return Registered(_moved(y, p), tuple(float(v) for v in p))


def fitted(image: np.ndarray, to: np.ndarray) -> np.ndarray:
    """`image` times the gain plus the offset that bring it nearest to another one, by least squares."""
    v, w = np.asarray(image, np.float64), np.asarray(to, np.float64)
    centred = v - v.mean()
    power = float((centred**2).sum())
    gain = float((centred * (w - w.mean())).sum()) / power if power > 0 else 1.0
    out: np.ndarray = gain * centred + w.mean()
    return out


def _moved(image: np.ndarray, p: np.ndarray) -> np.ndarray:
    centre = np.array(image.shape) / 2
    matrix = np.array([[1 + p[2], p[3]], [p[4], 1 + p[5]]])
    moved: np.ndarray = ndimage.affine_transform(
        image, matrix, centre + p[:2] - matrix @ centre, order=3, mode="nearest"
    )
    return moved
