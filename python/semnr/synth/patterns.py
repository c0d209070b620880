"""Geometry: what lies where, with sub-pixel edges. Lengths in here are pixels; pixel centres lie at integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .render import FAR
from .roughness import rough_edges


@dataclass(frozen=True)
class Rough:
    """Line-edge roughness in pixels, and where its randomness comes from."""

    sigma: float
    correlation: float
    hurst: float
    rng: np.random.Generator

    def edges(self, count: int, length: int, spacing: float = 1.0, periodic: bool = False) -> np.ndarray:
        if self.sigma == 0 or count == 0:
            return np.zeros((count, length))
        return rough_edges(
            count,
            length,
            self.rng,
            spacing_nm=spacing,
            sigma_nm=self.sigma,
            correlation_nm=self.correlation,
            hurst=self.hurst,
            periodic=periodic,
        )


@dataclass(frozen=True)
class Slot:
    """A stretch from one edge (`low`) to the next (`high`) across x or y, that slides along the other axis.

    low and high are given at the integer sliding coordinates from `origin` on; a single value holds everywhere.
    """

    across: str
    start: float
    stop: float
    low: np.ndarray
    high: np.ndarray
    origin: int = 0

    def at(self, along: float) -> tuple[float, float]:
        low, high = (edge[int(np.clip(round(along) - self.origin, 0, edge.size - 1))] for edge in (self.low, self.high))
        return float(low), float(high)

    def turned(self) -> Slot:
        return Slot("y" if self.across == "x" else "x", self.start, self.stop, self.low, self.high, self.origin)


@dataclass
class Layout:
    """One tile's geometry, the places that can carry a defect, and its truth."""

    phi: np.ndarray  # signed distance, float32, positive inside the material
    vias: np.ndarray | None = None  # the same for a second layer of plugs
    positive: bool = True  # the features are material (lines, plugs, wires); False: they are openings (holes)
    gaps: list[Slot] = field(default_factory=list)  # between neighbouring features: a bridge fits
    bodies: list[Slot] = field(default_factory=list)  # across a feature: an open (if `severable`) or a nick fits
    severable: bool = True
    discs: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))  # row, col, radius of what can be missing
    without: Callable[[int], tuple[np.ndarray, np.ndarray | None]] | None = None  # phi and vias lacking disc i
    edges: np.ndarray | None = None  # lines: left, right, left, right, ... x (n, H), of lines wholly in the tile
    cds: np.ndarray = field(default_factory=lambda: np.zeros(0))  # per line, hole, plug or wire wholly in the tile
    centres: np.ndarray | None = None  # holes and plugs: row, col
    boxes: np.ndarray | None = None  # wires: top, left, bottom, right


def window(low: float, high: float, margin: float, size: int) -> slice:
    """The pixels from low - margin to high + margin, inside the tile."""
    return slice(max(0, int(np.floor(low - margin))), max(0, min(size, int(np.ceil(high + margin)) + 1)))


def box_distance(
    rows: np.ndarray, cols: np.ndarray, top: object, left: object, bottom: object, right: object, radius: float
) -> np.ndarray:
    """Signed distance (positive inside) to a box with rounded corners; its sides may be arrays (rough edges)."""
    qy = np.maximum(top - rows, rows - bottom) + radius  # type: ignore[operator]
    qx = np.maximum(left - cols, cols - right) + radius  # type: ignore[operator]
    inside = np.minimum(np.maximum(qx, qy), 0)
    np.maximum(qx, 0, out=qx)
    np.maximum(qy, 0, out=qy)
    return radius - np.sqrt(qx * qx + qy * qy) - inside


def lines(
    shape: tuple[int, int],
    pitch: float,
    cd: float,
    rough: Rough,
    layout: np.random.Generator,
    *,
    edge_correlation: float = 0.0,
    orientation: str = "vertical",
) -> Layout:
    """Line/space grating. `edge_correlation` ties the two edges of a line: 1 wiggles, -1 pinches, 0 is independent."""
    if orientation == "horizontal":
        turned = lines(shape[::-1], pitch, cd, rough, layout, edge_correlation=edge_correlation)
        turned.phi = np.ascontiguousarray(turned.phi.T)
        turned.gaps, turned.bodies = ([slot.turned() for slot in slots] for slots in (turned.gaps, turned.bodies))
        return turned
    height, width = shape
    first = layout.uniform(0, pitch) - pitch
    centres = np.arange(first, width + pitch, pitch)
    left, own = rough.edges(2 * centres.size, height).reshape(2, centres.size, height)
    right = edge_correlation * left + np.sqrt(1 - edge_correlation**2) * own
    left, right = left + centres[:, None] - cd / 2, right + centres[:, None] + cd / 2
    phi = np.full(shape, -FAR, np.float32)
    for k, centre in enumerate(centres):
        cols = window(centre, centre, pitch, width)
        x = np.arange(cols.start, cols.stop, dtype=np.float32)
        one = np.minimum(x - left[k, :, None].astype(np.float32), right[k, :, None].astype(np.float32) - x)
        np.maximum(phi[:, cols], one, out=phi[:, cols])
    inside = (left.min(axis=1) >= 0) & (right.max(axis=1) <= width - 1)
    margin = min(8.0, height / 4)
    span = (margin, height - 1 - margin)
    gaps = [
        Slot("x", *span, right[k], left[k + 1])
        for k in range(centres.size - 1)
        if right[k].min() >= 0 and left[k + 1].max() <= width - 1
    ]
    bodies = [Slot("x", *span, left[k], right[k]) for k in np.flatnonzero(inside)]
    edges = np.stack([left[inside], right[inside]], axis=1).reshape(-1, height)
    cds = (right[inside] - left[inside]).mean(axis=1)
    return Layout(phi, gaps=gaps, bodies=bodies, edges=edges, cds=cds)


def paint_discs(
    shape: tuple[int, int],
    discs: np.ndarray,
    rims: np.ndarray,
    reach: float,
    positive: bool,
    skip: tuple[int, ...] = (),
) -> np.ndarray:
    """Signed distance of discs (row, col, radius) whose radius varies with the angle by `rims`."""
    height, width = shape
    phi = np.full(shape, -FAR, np.float32)
    samples = rims.shape[1] if rims.size else 1
    for i, (row, col, radius) in enumerate(discs):
        if i in skip:
            continue
        ys, xs = window(row, row, radius + reach, height), window(col, col, radius + reach, width)
        dy = np.arange(ys.start, ys.stop, dtype=np.float32)[:, None] - np.float32(row)
        dx = np.arange(xs.start, xs.stop, dtype=np.float32) - np.float32(col)
        edge = np.float32(radius)
        if rims.size and rims[i].any():
            turn = (np.arctan2(dy, dx) * np.float32(0.5 / np.pi) + np.float32(0.5)) * np.float32(samples)
            edge = edge + np.append(rims[i], rims[i, 0]).astype(np.float32)[np.rint(turn).astype(np.intp)]
        np.maximum(phi[ys, xs], edge - np.sqrt(dy * dy + dx * dx), out=phi[ys, xs])
    return phi if positive else -phi


def discs(
    shape: tuple[int, int],
    pitch: float,
    cd: float,
    rough: Rough,
    layout: np.random.Generator,
    *,
    positive: bool,
    staggered: bool = False,
    placement: float = 0.0,
) -> Layout:
    """Array of contact holes (openings) or, with `positive`, of plugs; `placement` is the sigma of their position."""
    height, width = shape
    origin = layout.uniform(0, pitch, 2) - pitch
    step = pitch * np.sqrt(0.75) if staggered else pitch
    places = []
    for j, row in enumerate(np.arange(origin[0], height + pitch, step)):
        shift = pitch / 2 if staggered and j % 2 else 0.0
        places += [(row, col, j) for col in np.arange(origin[1] + shift, width + pitch, pitch)]
    grid = np.array(places)
    centres = grid[:, :2] + placement * rough.rng.standard_normal((len(grid), 2))
    samples = max(64, 8 * round(np.pi * cd / 2))  # four a pixel of the rim
    rims = rough.edges(len(grid), samples, spacing=np.pi * cd / samples, periodic=True)
    circles = np.column_stack([centres, np.full(len(grid), cd / 2)])
    # the nearest centre is at most 0.58 pitch away along either axis, wherever the pixel
    reach = 0.6 * pitch - cd / 2 + 4 * placement + 2

    def painted(*skip: int) -> np.ndarray:
        return paint_discs(shape, circles, rims, reach, positive, skip)

    radii = np.sqrt(((cd / 2 + rims) ** 2).mean(axis=1))  # of the circle of the same area
    extent = (cd / 2 + rims.max(axis=1))[:, None]
    whole = ((centres >= extent) & (centres + extent <= np.array(shape) - 1)).all(axis=1)
    removable = np.flatnonzero(whole)
    gaps, bodies = [], []
    for i in removable:
        row, col = centres[i]
        left, right = col - cd / 2 - rims[i, 0], col + cd / 2 + rims[i, samples // 2]
        bodies.append(Slot("x", row, row, np.array([left]), np.array([right])))
        if i + 1 in removable and grid[i + 1, 2] == grid[i, 2]:
            nxt = centres[i + 1, 1] - cd / 2 - rims[i + 1, 0]
            gaps.append(Slot("x", row, row, np.array([right]), np.array([nxt])))
    return Layout(
        painted(),
        positive=positive,
        gaps=gaps,
        bodies=bodies,
        severable=False,
        discs=np.column_stack([centres, radii])[removable],
        without=lambda i: (painted(int(removable[i])), None),
        cds=2 * radii[removable],
        centres=centres[removable],
    )
