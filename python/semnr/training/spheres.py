"""Metal spheres on a support, as a microscope's resolution is tested on them: tin or gold on carbon."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .fields import around, beam, field

_MOST = 260  # spheres of one size


def spheres(rng: np.random.Generator, side: int) -> np.ndarray:
    """Spheres of all sizes from that of a beam up to 130 px, the large ones first, each smaller size in the gaps.

    Secondary electrons make a sphere brighter towards its limb, where its surface is steep; small ones are dimmer, the
    side towards the detector is brighter, and some large ones have facets, which are flat and so of one level, with a
    bright border.
    """
    dark = rng.uniform(0.02, 0.25)
    material = _Material.drawn(rng, dark)
    image = dark * (1 + rng.uniform(0, 0.15) * field(rng, side, rng.uniform(1.0, 2.5)))
    largest, smallest = float(np.exp(rng.uniform(np.log(12), np.log(130)))), float(rng.uniform(1.2, 3.0))
    slope, gap, apart, filled = (
        rng.uniform(1.2, 2.0),
        rng.uniform(0.2, 2.5),
        rng.uniform(0.0, 0.25),
        rng.uniform(0.1, 0.2),
    )
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    room = np.full((side, side), np.inf, np.float32)  # px to the nearest sphere, as far as the next sizes need it
    size = largest
    while size > smallest:
        count = filled * side**2 / (math.pi * size**2) * (size / largest) ** (2 - slope)
        for _ in range(min(_MOST, max(1, rng.poisson(count)))):
            radius = size * rng.uniform(0.8, 1.1)
            free = np.flatnonzero(room.ravel() > radius + gap + apart * radius * rng.random())
            if not free.size:
                break
            at = free[rng.integers(free.size)]
            y, x = at // side + rng.uniform(-0.5, 0.5), at % side + rng.uniform(-0.5, 0.5)
            box = around(y, x, radius + 2 * size + 4)
            room[box] = np.minimum(room[box], np.hypot(rows[box] - y, columns[box] - x) - radius)
            box = around(y, x, radius + 3)
            dy, dx = (rows[box] - y) / radius, (columns[box] - x) / radius
            cover = np.clip((1 - np.hypot(dy, dx)) * radius + 0.5, 0, 1)
            image[box] += cover * (material.sphere(rng, dy, dx, radius) - image[box])
        size *= rng.uniform(0.6, 0.85)
    return beam(rng, image)


@dataclass(frozen=True)
class _Material:
    """How spheres of one scene look. Levels are parts of the range, lengths px."""

    dark: float
    bright: float
    dimmed: float  # radius below which a sphere lets the support shine through
    limb: float
    power: float
    rim: float
    rim_px: float
    shaded: float
    spread: float
    faceted: float  # share of the spheres of more than 9 px
    border: float
    border_px: float
    lit: float  # rad, the side of the detector

    @classmethod
    def drawn(cls, rng: np.random.Generator, dark: float) -> _Material:
        return cls(
            dark=dark,
            bright=rng.uniform(dark + 0.2, 0.85),
            dimmed=rng.uniform(0.5, 7.0),
            limb=rng.uniform(0, 0.35),
            power=rng.uniform(2, 8),
            rim=rng.uniform(0, 0.6),
            rim_px=rng.uniform(0.7, 3.0),
            shaded=rng.uniform(0, 0.1),
            spread=rng.uniform(0, 0.06),
            faceted=float(rng.choice([0.0, rng.uniform(0.3, 1.0)])),
            border=rng.uniform(-0.1, 0.35),
            border_px=rng.uniform(0.7, 2.5),
            lit=rng.uniform(0, 2 * math.pi),
        )

    def sphere(self, rng: np.random.Generator, dy: np.ndarray, dx: np.ndarray, radius: float) -> np.ndarray:
        """Levels of one sphere, (h, w); dy and dx from its centre, in radii."""
        far = np.hypot(dy, dx)
        level = self.dark + (self.bright - self.dark) * (1 - math.exp(-radius / self.dimmed)) * (
            1 + self.spread * rng.normal()
        )
        steep = self.limb * np.clip(far, 0, 1) ** self.power
        rim = self.rim * min(1.0, radius / 12) * np.exp(-np.clip(1 - far, 0, None) * radius / self.rim_px)
        light = self.shaded * (dy * math.sin(self.lit) + dx * math.cos(self.lit))
        body = level * (1 + steep + rim + light)
        if radius > 9 and rng.random() < self.faceted:
            up = np.sqrt(np.clip(1 - far**2, 0, 1))
            for _ in range(int(rng.integers(1, 9))):
                body = self._facet(rng, body, level, dy, dx, up, radius)
        return np.asarray(body, np.float32)

    def _facet(
        self, rng: np.random.Generator, body: np.ndarray, level: float, dy: np.ndarray, dx: np.ndarray, up: np.ndarray,
        radius: float,
    ) -> np.ndarray:  # fmt: skip
        """With a flat cap of 0.1 to 0.4 rad, most on the lit side."""
        tilt = math.acos(rng.uniform(0.05, 1.0))
        turn = self.lit + rng.normal(0, 0.9) if rng.random() < 0.7 else rng.uniform(0, 2 * math.pi)
        along = math.sin(tilt) * (dy * math.sin(turn) + dx * math.cos(turn)) + math.cos(tilt) * up
        outside = (np.arccos(np.clip(along, -1, 1)) - rng.uniform(0.1, 0.4)) * radius  # px over the surface
        flat = level * (1 + self.limb * math.sin(tilt) ** self.power + rng.uniform(-0.15, 0.1))
        body = body + 0.7 * np.clip(0.5 - outside, 0, 1) * (flat - body)
        return np.asarray(body + level * self.border * np.exp(-np.abs(outside) / self.border_px))
