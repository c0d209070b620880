"""From geometry to grey: material contrast, secondary-electron bloom at edges, shadow, pixel, beam spot.

Geometry arrives as a signed distance in pixels (positive inside the material); a grey level is a function of that
distance, averaged exactly over the pixel, so that an edge keeps its sub-pixel place. The bloom falls off
exponentially from the edge, as the escape probability of secondary electrons does (L. Reimer, Scanning Electron
Microscopy, 2nd ed., 1998, ch. 4; J. S. Villarrubia et al., Ultramicroscopy 154, 15 (2015), for line edges).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from ..base.random_streams import number

FAR = 1e4  # px: a signed distance at which every profile is flat


@dataclass(frozen=True)
class Look:
    """How a pattern looks: grey levels on the scale of 0 to 1, lengths in nm.

    Parameters
    ----------
    outside, inside : float
        Level far from any edge, outside and inside the material.
    edge, edge_nm : float
        Height of the edge peak above `inside` before the beam blurs it, and its decay length.
    shadow, shadow_nm : float
        Dip below `outside` at the foot of an edge, and its decay length.
    spot_nm : float
        Standard deviation of the Gaussian beam spot.
    via, glow, glow_nm : float
        Level of a via, the part of its contrast that reaches out, and its decay length.
    texture : float
        Standard deviation of the material's grain after the beam.
    shading : float
        Half the difference in level between opposite corners (charging, detector).

    Examples
    --------
    >>> plain = semnr.synth.tile("lines", 64, look=semnr.synth.Look(texture=0.0, shading=0.0))
    >>> plain.clean.shape
    (64, 64)
    """

    outside: float = 0.24
    inside: float = 0.42
    edge: float = 0.55
    edge_nm: float = 3.0
    shadow: float = 0.06
    shadow_nm: float = 6.0
    spot_nm: float = 1.5
    via: float = 0.95
    glow: float = 0.0
    glow_nm: float = 8.0
    texture: float = 0.006
    shading: float = 0.006

    def __post_init__(self) -> None:
        for field in fields(self):
            name = f"look.{field.name}"
            if field.name in ("edge_nm", "shadow_nm", "glow_nm"):
                number(name, getattr(self, field.name), 0, above=True)
            else:
                number(name, getattr(self, field.name), 0)


LOOKS = {
    "lines": Look(),
    "holes": Look(outside=0.12, inside=0.42, edge=0.5, edge_nm=4.0, shadow=0.03),
    "vias": Look(outside=0.26, inside=0.62, edge=0.12, edge_nm=4.0, shadow=0.02, spot_nm=2.0),
    "metal": Look(
        outside=0.14, inside=0.34, edge=0.05, edge_nm=5.0, shadow=0.0, spot_nm=3.0, via=0.93, glow=0.25, glow_nm=7.0
    ),
}


def as_look(pattern: str, look: Look | dict[str, float] | None) -> Look:
    """The look of `pattern`: its own, one that was given, or its own with some fields replaced."""
    if look is None:
        return LOOKS[pattern]
    if isinstance(look, Look):
        return look
    if not isinstance(look, dict):
        raise TypeError(f"look is {type(look).__name__}; accepted: a Look, or a dict of its fields")
    known = [field.name for field in fields(Look)]
    if unknown := sorted(set(look) - set(known)):
        raise ValueError(f"look has {', '.join(map(repr, unknown))}; accepted: {', '.join(known)}")
    return replace(LOOKS[pattern], **look)


def _step_integral(d: np.ndarray, below: float, tail: float, above: float, peak: float, lo: float, hi: float):
    """Antiderivative of: below - tail·exp(d/lo) for d < 0, above + peak·exp(-d/hi) for d ≥ 0."""
    neg, pos = np.minimum(d, 0), np.maximum(d, 0)
    return below * neg - tail * lo * (np.exp(neg / lo) - 1) + above * pos + peak * hi * (1 - np.exp(-pos / hi))


class Renderer:
    """Renders signed distances with one look at one pixel size."""

    def __init__(self, look: Look, pixel_nm: float) -> None:
        self.look = look
        self.spot = look.spot_nm / pixel_nm
        edge, shadow, glow = (length / pixel_nm for length in (look.edge_nm, look.shadow_nm, look.glow_nm))
        self.grid = self._grid(10 * shadow, 10 * edge)
        self.table = self._pixel_mean(self.grid, look.outside, look.shadow, look.inside, look.edge, shadow, edge)
        self.via_grid = self._grid(10 * glow, 2)
        self.via_table = self._pixel_mean(self.via_grid, 0, -look.glow, 1, 0, glow, 1) * (look.via - look.inside)
        #: px outside the material, and around a via, beyond which its profile is flat
        self.foot = 10 * shadow if look.shadow else 2.0
        self.halo = 10 * glow if look.glow else 2.0
        #: px around a change of geometry beyond which no grey level changes (by more than 1e-4 of the step)
        self.reach = int(np.ceil(10 * max(edge, shadow, glow if look.glow else 0) + 4 * self.spot)) + 2

    @staticmethod
    def _grid(below: float, above: float) -> np.ndarray:
        # 16 steps a pixel: the kinks of the pixel mean, at ±½, are grid points
        return np.arange(-16 * (int(below) + 2), 16 * (int(above) + 2) + 1) / 16

    @staticmethod
    def _pixel_mean(grid: np.ndarray, *step: float) -> np.ndarray:
        return _step_integral(grid + 0.5, *step) - _step_integral(grid - 0.5, *step)

    def surface(self, phi: np.ndarray, vias: np.ndarray | None) -> np.ndarray:
        """Grey levels before the beam's blur, float32."""
        out = np.interp(phi, self.grid, self.table).astype(np.float32)
        if vias is not None:
            near = vias > self.via_grid[0]
            out[near] += np.interp(vias[near], self.via_grid, self.via_table).astype(np.float32)
        return out

    def blur(self, image: np.ndarray) -> np.ndarray:
        """The beam spot; pixels beyond the border repeat the border."""
        from scipy.ndimage import gaussian_filter

        return image if self.spot == 0 else gaussian_filter(image, self.spot, mode="nearest", truncate=4.0)

    @property
    def edge_level(self) -> float:
        """Grey level at which the clean profile of a straight, lone edge crosses the edge's true place."""
        if self.spot == 0:
            return float(np.interp(0.0, self.grid, self.table))
        offsets = np.linspace(-4, 4, 513)
        weights = np.exp(-(offsets**2) / 2)
        return float(np.interp(self.spot * offsets, self.grid, self.table) @ weights / weights.sum())

    def clean(
        self, phi: np.ndarray, vias: np.ndarray | None, texture: np.random.Generator, shading: np.random.Generator
    ) -> np.ndarray:
        """The noise-free image, float64, on the 0-1 scale (vias may reach above 1: the caller clips)."""
        height, width = phi.shape
        image = self.surface(phi, vias)
        if self.look.texture:
            # grain finer than the spot: white before the beam, with the spot's correlation after it
            grain = texture.standard_normal((height, width), dtype=np.float32)
            image += grain * np.float32(self.look.texture / self._white_gain())
        out = self.blur(image).astype(np.float64)
        if self.look.shading:
            angle = shading.uniform(0, 2 * np.pi)
            ramp = [np.linspace(-1, 1, n) * f(angle) for n, f in ((height, np.sin), (width, np.cos))]
            out += self.look.shading * (ramp[0][:, None] + ramp[1]) / (abs(np.sin(angle)) + abs(np.cos(angle)))
        return out

    def _white_gain(self) -> float:
        """Standard deviation that the spot leaves of white noise of 1."""
        impulse = np.zeros(2 * int(4 * self.spot + 1) + 1)
        impulse[impulse.size // 2] = 1
        from scipy.ndimage import gaussian_filter1d

        kernel = impulse if self.spot == 0 else gaussian_filter1d(impulse, self.spot, truncate=4.0)
        return float((kernel**2).sum())
