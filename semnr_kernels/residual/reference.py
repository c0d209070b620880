"""The scan of the residual in torch, on any device, windows in float32: the definition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..planes import Tiles
from .marking import edge_strength, marks, middle_of, scanned
from .scanning import scan as prepare
from .scanning import threshold
from .settings import Law, Scanned, Settings
from .spread import energy_at_edges, spectrum_distance

_CHUNK_PIXELS = 2**20  # pixels worked on at once


def scan(x: Tiles, d: Tiles, valid: torch.Tensor | None, laws: Sequence[Law], settings: Settings) -> Scanned:
    """x, d: (N, C, H, W), finite; valid: (N, 1, H, W) bool or None."""
    n, c, h, w = x.images.shape
    step = max(1, _CHUNK_PIXELS // (c * h * w))
    parts = []
    for start in range(0, n, step):
        rows = slice(start, start + step)
        a, b = (v.images[rows].float().mean(1) for v in (x, d))
        weight = torch.ones_like(a) if valid is None else valid[rows, 0].float()
        parts.append(_chunk(a, b, weight, laws[rows], settings))
    maps = [p.largest for p in parts if p.largest is not None]
    return Scanned(
        variance=np.concatenate([p.variance for p in parts]),
        spectrum=np.concatenate([p.spectrum for p in parts]),
        structure_z=np.concatenate([p.structure_z for p in parts]),
        threshold=np.concatenate([p.threshold for p in parts]),
        places=[places for p in parts for places in p.places],
        largest=np.concatenate(maps) if maps else None,
    )


def _chunk(x: torch.Tensor, d: torch.Tensor, weight: torch.Tensor, laws: Sequence[Law], settings: Settings) -> Scanned:
    levels = d.double().cpu().numpy()
    variance = np.stack([np.maximum(v.gain * level + v.offset, v.floor) for v, level in zip(laws, levels, strict=True)])
    floor = 1e-12 + 1e-6 * np.abs(levels).max((1, 2), keepdims=True) ** 2 * 1e-6  # a frame without any noise
    sigma = torch.from_numpy(np.sqrt(np.maximum(variance, floor))).float().to(x.device)
    u = (x - d) / sigma
    count = weight.sum((1, 2)).clamp(min=1)
    u = (u - ((u * weight).sum((1, 2)) / count)[:, None, None]) * weight
    measured = (u.square().sum((1, 2)) / count).double().cpu().numpy()
    u = _less_lines(u, weight)
    found = prepare(u, [law.taps for law in laws], settings.sizes)
    strength = edge_strength(d, sigma)
    seen = scanned(found, strength)
    limit = np.array([threshold(float(v), int(c), settings.alpha) for v, c in zip(found.density, count, strict=True)])
    sigmas = sigma.cpu().numpy()
    return Scanned(
        measured,
        spectrum_distance(found.power),
        energy_at_edges(found.z(middle_of(found.shapes)), strength, weight),
        limit,
        [marks(found, seen, i, d[i].cpu().numpy(), sigmas[i], limit[i]) for i in range(len(laws))],
        seen.largest.cpu().numpy() if settings.with_map else None,
    )


def _less_lines(u: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Each scan line's own offset is noise of the tool, not structure: taken out, outliers turned down."""
    core = u.clamp(-3, 3)
    offset = core.sum(2, keepdim=True) / weight.sum(2, keepdim=True).clamp(min=1)
    return (u - offset) * weight
