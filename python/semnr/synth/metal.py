"""Logic-like metal: wires on tracks, jogs to the next track, vias near wire ends. Lengths are pixels."""

from __future__ import annotations

import numpy as np

from .patterns import Layout, Rough, Slot, box_distance, paint_discs, window
from .render import FAR


def _route(
    shape: tuple[int, int], pitch: float, width: float, rng: np.random.Generator
) -> tuple[list[tuple[int, float, float]], list[tuple[float, float, float]], list[tuple[float, float]], np.ndarray]:
    """Wires (track, x0, x1), jogs (x, y0, y1), vias (y, x) and the tracks' y, left to right over all tracks."""
    tracks = np.arange(rng.uniform(0, pitch) - pitch, shape[0] + pitch, pitch)
    free = -pitch * rng.uniform(0, 10, tracks.size)  # each track is free from here on
    wires: list[tuple[int, float, float]] = []
    jogs: list[tuple[float, float, float]] = []
    vias: list[tuple[float, float]] = []

    def wire(track: int, x0: float, long: float) -> float:
        wires.append((track, x0, x0 + long))
        free[track] = x0 + long + pitch * (rng.uniform(0.8, 2) if rng.random() < 0.7 else rng.uniform(2, 6))
        return x0 + long

    def landing(track: int, end: float, inward: int) -> None:
        """One via or two at a wire's end."""
        for n in range(int(rng.choice(3, p=(0.45, 0.35, 0.2)))):
            vias.append((float(tracks[track]), end + inward * width * (0.75 + 1.3 * n)))

    while free.min() < shape[1]:
        track = int(free.argmin())
        x0 = free[track]
        x1 = wire(track, x0, pitch * rng.uniform(4, 14))
        landing(track, x0, 1)
        other = track + int(rng.choice((-1, 1)))
        if rng.random() < 0.4 and 0 <= other < tracks.size and free[other] <= x1 - width - 0.8 * pitch:
            jogs.append((x1 - width / 2, float(tracks[track]), float(tracks[other])))
            end = wire(other, x1 - width, pitch * rng.uniform(3, 10))
            landing(other, end, -1)
        else:
            landing(track, x1, -1)
    return wires, jogs, vias, tracks


def metal(
    shape: tuple[int, int],
    pitch: float,
    width: float,
    rough: Rough,
    layout: np.random.Generator,
    *,
    reach: float,
    glow: float,
) -> Layout:
    """Manhattan wires of one level with vias; `reach` and `glow`: how far outside a wire and a via the distance
    must be right."""
    height, wide = shape
    wires, jogs, vias, tracks = _route(shape, pitch, width, layout)
    phi = np.full(shape, -FAR, np.float32)
    corner = 0.45 * width
    margin = max(width, reach)
    boxes, cds, bodies = [], [], []
    spans: dict[int, list[tuple[float, float, np.ndarray, np.ndarray]]] = {}
    x = np.arange(wide, dtype=np.float32)
    edges = rough.edges(2 * len(wires), wide).reshape(len(wires), 2, wide).astype(np.float32)
    for (track, x0, x1), (upper, lower) in zip(wires, edges, strict=True):
        top, bottom = upper + float(tracks[track] - width / 2), lower + float(tracks[track] + width / 2)
        rows, cols = window(tracks[track], tracks[track], width / 2 + margin, height), window(x0, x1, margin, wide)
        if rows.start >= rows.stop or cols.start >= cols.stop:
            continue
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        part = box_distance(y, x[cols], top[cols], x0, bottom[cols], x1, corner)
        np.maximum(phi[rows, cols], part, out=phi[rows, cols])
        body = window(max(x0, 0), min(x1, wide - 1), -width, wide)  # away from the rounded ends
        if body.stop - body.start > width and top[body].min() >= 0 and bottom[body].max() <= height - 1:
            boxes.append((top[body].mean(), x0, bottom[body].mean(), x1))
            cds.append((bottom - top)[body].mean())
            bodies.append(Slot("y", body.start, body.stop - 1, top, bottom))
            spans.setdefault(track, []).append((body.start, body.stop - 1, top, bottom))
    for at, y0, y1 in jogs:
        y0, y1 = min(y0, y1) - width / 2, max(y0, y1) + width / 2
        rows, cols = window(y0, y1, margin, height), window(at, at, width / 2 + margin, wide)
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        part = box_distance(y, x[cols], y0, at - width / 2, y1, at + width / 2, corner)
        np.maximum(phi[rows, cols], part, out=phi[rows, cols])
    circles = np.array([(y, c, 0.42 * width) for y, c in vias]).reshape(-1, 3)
    shown = [i for i, (row, col, r) in enumerate(circles) if min(row, col, height - 1 - row, wide - 1 - col) >= r]

    def plugs(*skip: int) -> np.ndarray:
        return paint_discs(shape, circles, np.zeros((0, 0)), glow, True, skip)

    return Layout(
        phi,
        vias=plugs(),
        gaps=_gaps(spans, width),
        bodies=bodies,
        discs=circles[shown],
        without=lambda i: (phi, plugs(shown[i])),
        cds=np.array(cds),
        centres=circles[shown, :2],
        boxes=np.array(boxes).reshape(-1, 4),
    )


def _gaps(spans: dict[int, list[tuple[float, float, np.ndarray, np.ndarray]]], width: float) -> list[Slot]:
    """Where two wires of neighbouring tracks run side by side."""
    gaps = []
    for track, upper in spans.items():
        for a in upper:
            for b in spans.get(track + 1, []):
                start, stop = max(a[0], b[0]), min(a[1], b[1])
                if stop - start > width:
                    gaps.append(Slot("y", start, stop, a[3], b[2]))
    return gaps
