"""Clean scenes to train on: the package's own wafer patterns, and fields of objects for everything else.

A network trained on lines alone paints lines. So beside gratings, holes, plugs and wires there are dead leaves
(occluding discs, ellipses and polygons with the bright rims of secondary electrons: Lee, Mumford and Huang,
doi 10.1023/A:1011109015675, and Achddou et al., doi 10.1137/21M1414000, for their use in training denoisers),
particles side by side on a support, spheres of all sizes with facets (what a microscope's resolution is tested on: tin
or gold on carbon), porous and fibrous fields, grain, and nothing at all. Everything comes from a seed; no file is read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..base.random_streams import stream
from ..synth import Look, tile
from .fields import around, beam
from .fields import field as random_field
from .spheres import spheres

KINDS = ("lines", "holes", "vias", "metal", "leaves", "particles", "porous", "grain", "blank", "composed", "spheres")
SHARES: Mapping[str, float] = {
    "lines": 0.2, "holes": 0.1, "vias": 0.1, "metal": 0.16, "leaves": 0.15, "particles": 0.14, "porous": 0.08,
    "grain": 0.04, "blank": 0.03,
}  # fmt: skip
ROUGHNESS = 2.0
_PURPOSE = 71  # of the seed: scenes of training have streams of their own


def scene(
    seed: int, index: int, side: int, shares: Mapping[str, float] = SHARES, roughness: float = ROUGHNESS
) -> np.ndarray:
    """Scene `index` of a seed: (side, side) float32 on 0..1. `roughness`: the largest LER sigma of patterns, in nm."""
    rng = stream(seed, _PURPOSE, index)
    names = list(shares)
    weights = np.array([shares[name] for name in names], float)
    kind = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    image = _composed(rng, side, shares, roughness) if kind == "composed" else _of_kind(rng, kind, side, roughness)
    if rng.random() < 0.5:
        image = image.T
    return np.ascontiguousarray(np.clip(image, 0, 1), np.float32)


def _of_kind(rng: np.random.Generator, kind: str, side: int, roughness: float) -> np.ndarray:
    fields = {
        "leaves": _leaves, "particles": _particles, "porous": _porous, "grain": _grain, "blank": _blank,
        "spheres": spheres,
    }  # fmt: skip
    made = fields.get(kind)
    return made(rng, side) if made else _pattern(rng, kind, side, roughness)


def _composed(rng: np.random.Generator, side: int, shares: Mapping[str, float], roughness: float) -> np.ndarray:
    """Structure that no kind has by itself: two scenes of two kinds, each bent by a smooth displacement and at a scale
    of its own, one inside a region and the other outside of it, with or without a bright border."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    kinds = [kind for kind in KINDS if kind not in ("composed", "blank")]
    names = [kind for kind in kinds if shares.get(kind, 0) > 0] or kinds
    parts = []
    for kind in rng.choice(names, 2):
        room = int(1.5 * side)
        image = _of_kind(rng, str(kind), room, roughness)
        bend, scale = rng.uniform(0, 10), float(np.exp(rng.uniform(-0.35, 0.35)))
        at = (np.mgrid[:side, :side] - side / 2) * scale + room / 2
        moved = [axis + bend * random_field(rng, side, 4.0) for axis in at]
        parts.append(map_coordinates(image, moved, order=3, mode="reflect"))
    field = gaussian_filter(random_field(rng, side, rng.uniform(2.5, 4.0)), 2.0)
    distance = (field - rng.uniform(-0.6, 0.6) * field.std()) / (np.hypot(*np.gradient(field)).mean() + 1e-6)
    inside = np.clip(distance + 0.5, 0, 1)
    rim = float(rng.choice([0.0, rng.uniform(0.05, 0.4)])) * np.exp(-np.abs(distance) / rng.uniform(1, 3))
    image = gaussian_filter(inside, rng.uniform(0.4, 1.0)) * (parts[0] - parts[1]) + parts[1] + rim
    return np.asarray(image)


def _pattern(rng: np.random.Generator, kind: str, side: int, roughness: float) -> np.ndarray:
    pixel = float(np.exp(rng.uniform(np.log(0.6), np.log(2.6))))
    pitch = {"lines": 48.0, "holes": 64.0, "vias": 64.0, "metal": 56.0}[kind] * float(np.exp(rng.uniform(-0.6, 0.7)))
    pitch = max(pitch, 7 * pixel)
    dark, bright = np.sort(rng.uniform(0.05, 0.85, 2))
    if kind in ("lines", "holes") and rng.random() < 0.3:
        dark, bright = bright, dark
    look = Look(
        outside=float(dark),
        inside=float(bright),
        edge=float(rng.choice([0.0, rng.uniform(0.05, 0.7)])),
        edge_nm=float(rng.uniform(1.5, 6)),
        shadow=float(rng.uniform(0, 0.1)),
        shadow_nm=float(rng.uniform(2, 10)),
        spot_nm=float(rng.uniform(0.6, 1.8) * pixel),
        via=float(rng.uniform(max(0.3, bright), 1.0)),
        glow=float(rng.uniform(0, 0.3)) if kind == "metal" else 0.0,
        texture=float(rng.choice([0.0, rng.uniform(0.003, 0.03)])),
        shading=float(rng.uniform(0, 0.05)),
    )
    defects = ("any",) * int(rng.integers(0, 4)) if rng.random() < 0.6 else ()
    wanted = dict(
        pixel_nm=pixel,
        seed=[int(rng.integers(2**31)), 5],
        pitch_nm=pitch,
        cd_nm=pitch * float(rng.uniform(0.3, 0.7)),
        ler_sigma_nm=float(rng.uniform(0, roughness)),
        correlation_nm=float(rng.uniform(5, 60)),
        hurst=float(rng.uniform(0.3, 0.9)),
        look=look,
    )
    try:
        return tile(kind, side, defects=defects, **wanted).clean  # type: ignore[arg-type]
    except ValueError:  # no room for such a defect, or for such a pitch
        wanted.pop("cd_nm")
        return tile(kind, side, **(wanted | {"pitch_nm": max(pitch, 16 * pixel)})).clean  # type: ignore[arg-type]


def _leaves(rng: np.random.Generator, side: int) -> np.ndarray:
    """Objects that hide each other, the nearest last; sizes by a power law, so that there is no scale of its own."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    image = np.full((side, side), rng.uniform(0.05, 0.6), np.float32)
    spheres = rng.random() < 0.5
    lowest, highest = rng.uniform(2, 8), rng.uniform(20, 110)
    for _ in range(int(rng.integers(40, 320))):
        u = rng.random()
        radius = (lowest**-2 + u * (highest**-2 - lowest**-2)) ** -0.5
        stretch = 1.0 if spheres else rng.uniform(0.3, 1.0)
        reach = radius + 3
        y, x = rng.uniform(-reach, side + reach, 2)
        box = around(y, x, reach)
        dy, dx = rows[box] - y, columns[box] - x
        if not dy.size:
            continue
        angle = rng.uniform(0, np.pi)
        p = dy * np.sin(angle) + dx * np.cos(angle)
        q = (dy * np.cos(angle) - dx * np.sin(angle)) / stretch
        far = np.abs(p) + np.abs(q) if not spheres and rng.random() < 0.3 else np.hypot(p, q)
        depth = (radius - far) * stretch  # px inside the edge, about
        cover = np.clip(depth + 0.5, 0, 1)
        if not cover.any():
            continue
        level = rng.uniform(0.05, 0.8)
        inside = np.clip(depth, 0, None)
        body = level + rng.uniform(0, 0.5) * np.exp(-inside / rng.uniform(0.8, max(1.0, radius / 4)))
        if spheres:  # secondary electrons: brighter where the surface is steep, and a shaded side
            slope = np.clip(1 - inside / radius, 0, 1)
            body = level * (0.7 + 0.6 * slope**3) + rng.uniform(-0.15, 0.15) * (p / radius)
        image[box] += cover * (body.astype(np.float32) - image[box])
    return beam(rng, image)


def _particles(rng: np.random.Generator, side: int) -> np.ndarray:
    """Round grains of many sizes that do not touch, the large ones first, the small ones in the gaps between them."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    dark, bright = np.sort(rng.uniform(0.0, 1.0, 2) ** (1.6, 0.6))
    dark = min(dark, 0.6 * bright)
    image = dark + rng.uniform(0, 0.04) * random_field(rng, side, rng.uniform(1.0, 2.5)).astype(np.float32)
    lowest, highest = rng.uniform(1.2, 4.0), np.exp(rng.uniform(np.log(8), np.log(60)))
    count, slope = int(rng.integers(60, 900)), rng.uniform(1.0, 2.5)
    u = rng.random(count)
    radii = np.sort((lowest**-slope + u * (highest**-slope - lowest**-slope)) ** (-1 / slope))[::-1]
    smaller_are_dimmer, gap = rng.uniform(0, 0.5), rng.uniform(0.0, 3.0)
    spread, rim, rim_px = rng.uniform(0, 0.08), rng.uniform(-0.1, 0.3), rng.uniform(0.8, 3)
    spots, shading = rng.uniform(0, 0.06), rng.uniform(0, 0.08)
    oval = rng.uniform(0, 0.12) if rng.random() < 0.7 else rng.uniform(0.1, 0.4)
    placed = np.empty((count, 3), np.float32)  # y, x, radius
    n = 0
    mottled = random_field(rng, side, 1.5).astype(np.float32)
    for radius in radii:
        tries = rng.uniform(-radius, side + radius, (24, 1, 2)).astype(np.float32)
        far = np.hypot(*np.moveaxis(tries - placed[None, :n, :2], -1, 0)) - placed[:n, 2] - radius
        free = np.flatnonzero((far > gap).all(axis=1))
        if not free.size:
            continue
        y, x = tries[free[0], 0]
        placed[n] = y, x, radius
        n += 1
        box = around(y, x, radius * (1 + oval) + 3)
        dy, dx = rows[box] - y, columns[box] - x
        if not dy.size:
            continue
        angle, stretch = rng.uniform(0, np.pi), 1 + rng.uniform(0, oval)
        p, q = dy * np.sin(angle) + dx * np.cos(angle), (dy * np.cos(angle) - dx * np.sin(angle)) * stretch
        depth = radius - np.hypot(p, q)
        level = dark + (bright - dark) * (1 - smaller_are_dimmer * (1 - radius / highest)) * (1 + spread * rng.normal())
        body = level * (1 + rim * np.exp(-np.clip(depth, 0, None) / rim_px) + spots * mottled[box])
        body += shading * p / radius
        cover = np.clip(depth + 0.5, 0, 1)
        image[box] += cover * (body - image[box])
    return beam(rng, image)


def _porous(rng: np.random.Generator, side: int) -> np.ndarray:
    """Level sets of a smooth field: pores, membranes, fibres (where it is stretched)."""
    field = random_field(rng, side, rng.uniform(1.8, 3.0), float(rng.choice([1.0, rng.uniform(2, 8)])))
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(field, rng.uniform(0.6, 3.0))
    field /= field.std()
    distance = (field - rng.uniform(-0.8, 0.8)) / (np.hypot(*np.gradient(field)).mean() + 1e-6)
    low, high = rng.uniform(0.05, 0.8, 2)
    step = np.clip(distance + 0.5, 0, 1)
    rim = rng.uniform(0, 0.4) * np.exp(-np.abs(distance) / rng.uniform(1, 4))
    return beam(rng, low + (high - low) * step + rim + rng.uniform(0, 0.06) * field)


def _grain(rng: np.random.Generator, side: int) -> np.ndarray:
    field = random_field(rng, side, rng.uniform(0.8, 2.2), rng.uniform(1, 3))
    return beam(rng, rng.uniform(0.15, 0.75) + rng.uniform(0.02, 0.15) * field)


def _blank(rng: np.random.Generator, side: int) -> np.ndarray:
    return np.full((side, side), rng.choice([0.0, rng.uniform(0, 1)]), np.float32)


def specks(count: int, side: int, sigma: np.ndarray, rng: np.random.Generator, most: int = 4) -> tuple[np.ndarray, ...]:
    """Small defects for a batch of patches: (change (count, side, side), templates (count, most, side, side)).

    Discs and squares of 2 to 9 px, of 1.5 to 8 sigma of the pixel's noise either way, under a beam. Real defects
    are rare, and what is rare is what a mean error teaches a network to wipe out: here most patches have some.
    `templates` are in units of grey (their contrast included), zero where there is none.
    """
    at = np.arange(side, dtype=np.float32)
    number = rng.integers(0, most + 1, count)
    y, x = rng.uniform(6, side - 6, (2, count, most, 1)).astype(np.float32)
    half = rng.uniform(1.0, 4.5, (count, most, 1)).astype(np.float32)
    soft = rng.uniform(0.4, 1.0, (count, most, 1)).astype(np.float32)
    contrast = np.exp(rng.uniform(np.log(1.5), np.log(8.0), (count, most))) * rng.choice([-1.0, 1.0], (count, most))
    contrast = (contrast * sigma[:, None] * (np.arange(most) < number[:, None])).astype(np.float32)
    dy, dx = np.abs(at - y), np.abs(at - x)
    square = _edge((half - dy) / soft)[..., :, None] * _edge((half - dx) / soft)[..., None, :]
    radius = np.sqrt(dy[..., :, None] ** 2 + dx[..., None, :] ** 2)
    disc = _edge((half[..., None] - radius) / soft[..., None])
    shape = np.where(rng.random((count, most, 1, 1)) < 0.5, square, disc)
    templates = (contrast[..., None, None] * shape).astype(np.float32)
    return templates.sum(axis=1), templates


def _edge(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(2 * x))
