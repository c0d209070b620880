"""Carries out planned defects: changes the geometry around each, renders the difference, records the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .defects import VISIBLE, Change, Defect, DefectTruth, plan
from .patterns import Layout, box_distance, window
from .render import Renderer

PARTICLE, PARTICLE_RIM, SCRATCH = 0.62, 0.25, -0.14  # levels: body, rim above it, depth of a groove


def insert(
    clean: np.ndarray,
    layout: Layout,
    renderer: Renderer,
    defects: Sequence[Defect],
    pixel_nm: float,
    cd: float,
    space: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, tuple[DefectTruth, ...]]:
    """`clean` with the defects in it, and their truth in the order given. cd and space are in pixels.

    Drawn places keep clear of the defects already there where forty draws find room. `layout` is changed.
    """
    shape = (clean.shape[0], clean.shape[1])
    out = clean.copy()
    taken: list[tuple[float, float, float, float]] = []
    truths: dict[int, DefectTruth] = {}
    # Places that the caller fixed come first, so that drawn ones can keep clear of them.
    for i in sorted(range(len(defects)), key=lambda k: defects[k].row is None):
        defect = defects[i]
        for _ in range(40 if defect.row is None else 1):
            change = plan(layout, defect, shape, pixel_nm, cd, rng)
            if not any(_touch(change.box, other, renderer.reach) for other in taken):
                break
        taken.append(change.box)
        truths[i] = _apply(out, layout, renderer, change, defect.contrast, cd, space, pixel_nm, rng)
    return out, tuple(truths[i] for i in range(len(defects)))


def _touch(a: tuple[float, ...], b: tuple[float, ...], margin: float) -> bool:
    return a[0] - margin < b[2] and b[0] - margin < a[2] and a[1] - margin < b[3] and b[1] - margin < a[3]


def _apply(
    out: np.ndarray,
    layout: Layout,
    renderer: Renderer,
    change: Change,
    contrast: float | None,
    cd: float,
    space: float,
    pixel_nm: float,
    rng: np.random.Generator,
) -> DefectTruth:
    top, left, bottom, right = change.box
    margin = renderer.reach + 0.5 * max(cd, space)
    outer = tuple(
        window(low, high, margin + 4 * renderer.spot + 1, size)
        for low, high, size in zip((top, left), (bottom, right), out.shape, strict=True)
    )
    before = renderer.surface(layout.phi[outer], None if layout.vias is None else layout.vias[outer])
    after = _overlay(before, change, outer, pixel_nm, rng)
    if after is None:
        _alter(layout, change, outer, cd, space)
        after = renderer.surface(layout.phi[outer], None if layout.vias is None else layout.vias[outer])
    delta = renderer.blur((after - before).astype(np.float64))
    wanted = contrast
    if contrast is not None:
        extreme = delta.flat[np.abs(delta).argmax()]
        if change.kind not in ("particle", "scratch"):
            wanted = abs(contrast) * float(np.sign(extreme))
        delta *= wanted / extreme if extreme else 0.0
    delta[np.abs(delta) <= VISIBLE] = 0
    here = out[outer]
    changed = np.clip(here + delta, 0, 1)
    delta = changed - here
    mask = delta != 0
    if not mask.any():
        raise ValueError(
            f"{change.kind} at row {(top + bottom) / 2:.1f}, col {(left + right) / 2:.1f} changes no pixel; "
            "accepted: a place inside the tile and a size that the beam can resolve"
        )
    out[outer] = changed
    return DefectTruth(
        change.kind,
        (top + bottom) / 2,
        (left + right) / 2,
        bottom - top,
        right - left,
        float(delta.flat[np.abs(delta).argmax()]),
        int(mask.sum()),
        outer[0].start,
        outer[1].start,
        (out.shape[0], out.shape[1]),
        mask,
    )


def _grid(at: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(at[0].start, at[0].stop)[:, None], np.arange(at[1].start, at[1].stop)


def _alter(layout: Layout, change: Change, at: tuple[slice, ...], cd: float, space: float) -> None:
    """Put the change into the signed distances, in the window `at`."""
    if change.disc is not None and layout.without is not None:
        phi, vias = layout.without(change.disc)
        if vias is None:
            # inside the window other edits may already be there: only what the disc touched is taken over
            touched = layout.phi[at] < phi[at] if not layout.positive else layout.phi[at] > phi[at]
            layout.phi[at][touched] = phi[at][touched]
        elif layout.vias is not None:
            layout.vias[at] = np.minimum(layout.vias[at], vias[at])
        return
    rows, cols = _grid(at)
    top, left, bottom, right = change.box
    if change.kind == "nick":
        shape = change.size - np.hypot(rows - (top + bottom) / 2, cols - (left + right) / 2)
    else:
        # Past the edges: half a CD into the neighbours leaves no rim at the seam; an open ends midway in the spaces.
        deep = 0.5 * (cd if change.kind == "bridge" else min(cd, space))
        dy, dx = (0.0, deep) if change.across == "x" else (deep, 0.0)
        shape = box_distance(rows, cols, top - dy, left - dx, bottom + dy, right + dx, 0.0)
    fillet = 0.0 if change.kind == "nick" else 0.5 * min(change.size, cd, space)
    here = layout.phi[at]
    here[:] = _join(here, shape, fillet) if change.adds else -_join(-here, shape, fillet)


def _join(a: np.ndarray, b: np.ndarray, fillet: float) -> np.ndarray:
    """Signed distance of the union, with the inner corners rounded over about `fillet` pixels, as etched ones are."""
    out = np.maximum(a, b)
    if fillet:
        out += np.maximum(fillet - np.abs(a - b), 0) ** 2 / (4 * fillet)
    return out


def _overlay(
    surface: np.ndarray, change: Change, at: tuple[slice, ...], pixel_nm: float, rng: np.random.Generator
) -> np.ndarray | None:
    """The surface with a particle or scratch upon it; None for a change of the pattern itself."""
    if change.kind not in ("particle", "scratch"):
        return None
    rows, cols = _grid(at)
    top, left, bottom, right = change.box
    dy, dx = rows - (top + bottom) / 2, cols - (left + right) / 2
    if change.kind == "particle":
        # irregular outline of at most the diameter asked for
        angle, waves = np.arctan2(dy, dx), np.arange(2, 5)
        size, phase = rng.uniform(0, 0.06, 3), rng.uniform(0, 2 * np.pi, 3)
        outline = sum(s * np.cos(n * angle + p) for s, n, p in zip(size, waves, phase, strict=True)) - size.sum()
        depth = change.size / 2 * (1 + outline) - np.hypot(dy, dx)
        cover = np.clip(depth + 0.5, 0, 1)
        level = PARTICLE + PARTICLE_RIM * np.exp(-np.maximum(depth, 0) * pixel_nm / 3.0)
        return surface + cover * (level - surface)
    along = dx * np.cos(change.turn) - dy * np.sin(change.turn)
    across = dx * np.sin(change.turn) + dy * np.cos(change.turn)
    half, width = change.size / 2, max(1.5 / pixel_nm, 0.5)  # half the width of a scratch is 1.5 nm
    taper = np.sqrt(np.clip(1 - (along / half) ** 2, 0, 1))
    return surface + SCRATCH * taper * np.exp(-(across**2) / (2 * (width / 1.5) ** 2))
