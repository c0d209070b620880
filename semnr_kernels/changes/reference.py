"""What a denoiser changed beside noise, in NumPy and float64: the definition.

Each image is Fourier transformed once, under a taper; sums over frequencies do the rest.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import fft, ndimage, special

from ..planes import Tiles
from .bound import Noise, sums, transfer_bound, weights
from .settings import Figures, Settings
from .spectra import CENTRES, EDGES, MIN_Z, NOTHING, Measured, Plan, plan_of, ratio

REACH = 8  # px: a denoiser that moves the image further is no denoiser
BLOCK = 8  # px
CALM = 4  # px from what is steep: texture begins
STEEP = 1.5  # px: sigma of the gradient
_LOWEST = 0.12  # cycles/px: from below it, T at frequency 0 is told
_EDGE = 1.0  # px: sigma of the edge whose overshoot is told
FEATURE_PX, _BEAM = 6.0, 0.8  # the small feature whose contrast is told
_MAX_SHIFT_SE = 0.25  # px: beyond, the tile does not say where it lies


def changes(
    x: Tiles | None,
    d: Tiles,
    r: Tiles | None,
    settings: Settings,
    noise: Sequence[Noise | None] | None = None,
) -> list[Figures]:
    """x, d, r: (N, C, H, W); x or r may be None. `noise`: of x, where it is known."""
    noisy, denoised, clean = (_greys(v) for v in (x, d, r))
    laws = noise or [None] * len(d.images)
    return [_one(noisy[i], denoised[i], clean[i], settings, law) for i, law in enumerate(laws)]  # type: ignore[arg-type]


def _greys(v: Tiles | None) -> list[np.ndarray] | defaultdict[int, None]:
    return defaultdict(lambda: None) if v is None else [_grey(tile) for tile in v.images.cpu().numpy()]


def _grey(tile: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (H, W) float64; pixels that are not finite take the mean of those that are."""
    v: np.ndarray = tile.mean(axis=0, dtype=np.float64)
    if not np.isfinite(v).all():
        v = np.where(np.isfinite(v), v, v[np.isfinite(v)].mean() if np.isfinite(v).any() else 0.0)
    return v


def _one(x: np.ndarray | None, d: np.ndarray, r: np.ndarray | None, settings: Settings, noise: Noise | None) -> Figures:
    against = r if x is None else x  # the noisy input where it is known
    if against is None:
        raise ValueError("neither a noisy image nor a reference; accepted: one of them, or both")
    found = _levels(against, d, r, settings.data_range)
    plan = plan_of(d.shape)
    D, T = plan.spectrum(d), plan.spectrum(against)
    found |= _shift(plan, D, T)
    if r is not None:
        X, R = (T, plan.spectrum(r)) if x is not None else (None, T)
        found["transfer_high"] = ratio(plan, plan.high, D, X, R)
        found |= _curve(plan, D, X, R)
        found["transfer_texture"] = _texture(plan, D, X, R, r)
    if x is not None:
        along = 1 if settings.scan_axis == -1 else 0
        scene = None if r is None else r.mean(axis=along)
        found["row_noise_added"] = rows_added(x.mean(axis=along), d.mean(axis=along), scene)
        if noise is not None:
            down, right = weights(noise, d.shape, settings.scan_axis)
            kept = sums(plan, D, T, down[:, None] * right)
            found["transfer_bound"] = transfer_bound(kept, noise, d.shape, settings.scan_axis)
    return found


# --- levels, on plateaus ---


def _blocks(v: np.ndarray) -> np.ndarray:
    h, w = (s // BLOCK * BLOCK for s in v.shape)
    return v[:h, :w].reshape(h // BLOCK, BLOCK, w // BLOCK, BLOCK).mean(axis=(1, 3))


def _levels(t: np.ndarray, d: np.ndarray, r: np.ndarray | None, data_range: float | None) -> Figures:
    """Levels of d over those of t. What tells structure from noise is the reference, or d itself where there is none:
    its noise is less than that of t and mostly the same, so that neither pulls the slope."""
    a, b = _blocks(t), _blocks(d)
    witness = b if r is None else _blocks(r)
    steps = np.zeros_like(witness)
    for axis in (0, 1):
        step = np.abs(np.diff(witness, axis=axis))
        inner = [slice(None), slice(None)]
        for side in (slice(1, None), slice(None, -1)):
            inner[axis] = side
            steps[tuple(inner)] = np.maximum(steps[tuple(inner)], step)
    keep = steps <= np.median(steps)
    for turn in range(3):  # the fit, then twice without what lies far off it: a lost defect is no change of brightness
        u, v, z = a[keep], b[keep], witness[keep]
        z0, u0, v0 = z - z.mean(), u - u.mean(), v - v.mean()
        below = float(z0 @ u0)
        gain = float(z0 @ v0) / below if below else math.nan
        rest = v0 - (gain if math.isfinite(gain) else 1.0) * u0
        spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
        if turn == 2 or not spread > 0:
            break
        inside = np.zeros_like(keep)
        inside[keep] = np.abs(rest - np.median(rest)) <= 3.5 * spread
        if inside.sum() < 16:
            break
        keep = inside
    n = int(keep.sum())
    gain_se = math.sqrt(float((z0**2) @ (rest**2))) / abs(below) if below else math.nan
    noise = math.sqrt(float((z0**2) @ (u0 - z0 * below / float(z0 @ z0)) ** 2)) if below else math.inf
    known = math.isfinite(gain) and below > MIN_Z * noise and gain_se < 0.25
    span = data_range or float(np.subtract(*np.quantile(t, (0.999, 0.001)))) or math.nan
    level = float((v - u).mean()), float((v - u).std(ddof=1)) / math.sqrt(n)
    return {
        "gain_change": (gain - 1, gain_se) if known else NOTHING,
        "offset_change": (level[0] / span, level[1] / span),
    }


def _shift(plan: Plan, D: np.ndarray, T: np.ndarray) -> Figures:
    """Peak of the cross-correlation of D and T in the 1-4 px band: whole pixels, then Newton's steps."""
    cross = plan.band / plan.count * D * T.conj()
    at = fft.irfft2(cross, s=plan.taper.shape)
    near = np.roll(at, (REACH, REACH), axis=(0, 1))[: 2 * REACH + 1, : 2 * REACH + 1]
    peak = np.unravel_index(int(near.argmax()), near.shape)
    delta = np.array([float(p) - REACH for p in peak])
    wy, wx = 2 * np.pi * plan.fy, 2 * np.pi * plan.fx
    weighted = cross * plan.count
    score = hessian = np.zeros(2)
    for _ in range(6):
        turned = weighted * (np.exp(1j * wy * delta[0]) * np.exp(1j * wx * delta[1]))
        score = np.array([(wy * turned.imag).sum(), (wx * turned.imag).sum()])
        real = turned.real
        hessian = np.array(
            [[(wy**2 * real).sum(), (wy * wx * real).sum()], [(wy * wx * real).sum(), (wx**2 * real).sum()]]
        )
        if not np.linalg.det(hessian) > 1e-9 * max(float(np.trace(hessian)), 1e-300) ** 2:
            break
        step = -np.linalg.solve(hessian, score)
        delta = delta + np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < 1e-4:
            break
    imag2 = turned.imag**2 * plan.inflation
    spread = np.array(
        [[(wy**2 * imag2).sum(), (wy * wx * imag2).sum()], [(wy * wx * imag2).sum(), (wx**2 * imag2).sum()]]
    )
    return known_shift(delta, hessian, spread)


def known_shift(delta: np.ndarray, hessian: np.ndarray, spread: np.ndarray) -> Figures:
    """The shift along each axis with its error, where the tile says where it lies."""
    with np.errstate(all="ignore"):
        inverse = np.linalg.pinv(hessian)
        se = np.sqrt(np.diag(inverse @ spread @ inverse.T))
    found = {}
    for k, name in enumerate(("shift_y_px", "shift_x_px")):
        curvature = hessian[k, k] / max(float(np.abs(np.diag(hessian)).max()), 1e-300)
        known = se[k] < _MAX_SHIFT_SE and curvature > 1e-4 and abs(delta[k]) <= REACH
        found[name] = (float(delta[k]), float(se[k])) if known else NOTHING
    return found


def _curve(plan: Plan, D: np.ndarray, X: np.ndarray | None, R: np.ndarray) -> Figures:
    """From the transfer function by rings of frequency: what it does to an edge (relative to T at frequency 0, since
    gain is another figure) and to a small disc."""
    return shape_of([ratio(plan, plan.count * (plan.rings == k), D, X, R) for k in range(len(plan.centres))])


def shape_of(rings: Sequence[Measured]) -> Figures:
    """From T in each ring."""
    measured, spread = np.array(rings).T
    good = np.isfinite(measured) & (spread < 0.25)
    base, base_se = _at_zero(CENTRES[good], measured[good], spread[good])
    if good.sum() < 4 or not base_se < 0.1:
        return dict.fromkeys(("overshoot", "feature_contrast", "transfer_peak"), NOTHING)
    ring = int(np.where(good, measured - 2 * spread, -np.inf).argmax())
    curve: np.ndarray = np.interp(np.log(CENTRES), np.log(CENTRES[good]), measured[good])
    spread = np.where(good, spread, 0.0)
    edge, kernel, disc = _responses()
    response = edge + kernel @ (curve / base - 1)
    best = int(response.argmax())
    over_se = (
        math.hypot(float(np.sqrt(((kernel[best] * spread) ** 2).sum())), float(kernel[best].sum()) * base_se) / base
    )
    return {
        "transfer_peak": (float(measured[ring] / base), math.hypot(float(spread[ring]), base_se) / base),
        "overshoot": (float(response[best]) - 1, over_se),
        "feature_contrast": (float(disc @ curve), float(np.sqrt(((disc * spread) ** 2).sum()))),
    }


def _at_zero(f: np.ndarray, t: np.ndarray, se: np.ndarray) -> Measured:
    """T towards frequency 0: a parabola through the rings below 0.12 cycles/px (it falls short of a strong blur)."""
    low = f < _LOWEST
    if low.sum() < 3:
        return NOTHING
    design = np.stack([np.ones(int(low.sum())), f[low] ** 2], axis=1) / np.hypot(se[low], 0.002)[:, None]
    inverse = np.linalg.inv(design.T @ design)
    return float((inverse @ design.T @ (t[low] / np.hypot(se[low], 0.002)))[0]), math.sqrt(float(inverse[0, 0]))


@lru_cache(maxsize=1)
def _responses() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An edge of 1 px sigma at some positions, (positions,); what T - 1 in each ring adds to it, (positions, rings), by
    s(u) = 1/2 + (1/π) ∫ T(f) A(f) sin(2πfu) / f df; and each ring's share of the energy of a disc, (rings,)."""
    u = np.arange(1.0, 12.25, 0.25)[:, None]
    f = (np.arange(1000) + 0.5) / 2000
    weight = np.exp(-2 * (np.pi * _EDGE * f) ** 2) * np.sin(2 * np.pi * f * u) / (np.pi * f) / 2000
    disc = (special.j1(np.pi * FEATURE_PX * f) / f * np.exp(-2 * (np.pi * _BEAM * f) ** 2)) ** 2 * f
    centres = np.log(np.sqrt(EDGES[1:] * EDGES[:-1]))
    share = np.stack([np.interp(np.log(f), centres, row) for row in np.eye(len(centres))])
    return 0.5 + weight.sum(axis=1), weight @ share.T, share @ disc / disc.sum()


def _texture(plan: Plan, D: np.ndarray, X: np.ndarray | None, R: np.ndarray, r: np.ndarray) -> Measured:
    """Transfer between the edges: over the pixels that lie 4 px or more from what is steep in the reference."""
    root = np.sqrt(plan.texture / plan.count)
    steep = ndimage.gaussian_gradient_magnitude(r, STEEP)
    calm = ndimage.maximum_filter(steep, 2 * CALM + 1) <= max(0.25 * float(steep.max()), float(np.median(steep)))
    bd, br = (fft.irfft2(root * V, s=plan.taper.shape) * calm for V in (D, R))
    bx = br if X is None else fft.irfft2(root * X, s=plan.taper.shape)
    a, b = _blocks(bd * br).ravel(), _blocks(bx * br).ravel()
    noise = math.sqrt(float(((b - b.mean()) ** 2).sum()))
    below = float(b.sum())
    if not below > MIN_Z * noise:
        return NOTHING
    t = float(a.sum()) / below
    return t, math.sqrt(float(((a - t * b) ** 2).sum())) / below


def rows_added(x: np.ndarray, d: np.ndarray, r: np.ndarray | None) -> Measured:
    """Second differences of the row means, where the scene's own are calm, that neither the input's rows nor the
    scene's, smoothed, sharpened or shifted, explain."""
    scene = d if r is None else r
    if len(scene) < 64:
        return NOTHING
    slope = np.abs(scene[2:] - scene[:-2])
    calm = slope <= np.median(slope)

    def bends(rows: np.ndarray, sigmas: tuple[float, ...]) -> np.ndarray:
        shapes = [ndimage.gaussian_filter1d(rows, s) if s else rows for s in sigmas]
        return np.stack([np.diff(v, n=2)[calm] for v in (*shapes, np.gradient(rows))], axis=1)

    scenes = np.zeros((int(calm.sum()), 0)) if r is None else bends(scene, (0.0, 1.0, 2.0))
    inputs = bends(x, (0.0, 1.0, 2.0))
    added = _unexplained(np.diff(d, n=2)[calm], np.concatenate([inputs, scenes], axis=1))
    own = _unexplained(inputs[:, 0], scenes)
    if not own > 0:
        return NOTHING
    ratio = added / own
    return ratio, ratio * math.sqrt(7.8 / len(inputs))  # second differences of independent rows are not independent


def _unexplained(rows: np.ndarray, by: np.ndarray) -> float:
    """Mean square that least squares leave, the largest twentieth aside."""
    if by.shape[1]:
        rows = rows - by @ np.linalg.lstsq(by, rows, rcond=None)[0]
    squares = np.sort(rows**2)
    return float(squares[: round(0.95 * len(squares))].sum() / (len(squares) - by.shape[1]))
