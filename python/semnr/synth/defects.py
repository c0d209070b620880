"""Defects of known kind, place, size and contrast, put into a tile with exact truth.

A defect changes the geometry (bridge, open, missing hole, nick) or lies upon it (particle, scratch). The tile is
rendered around it with and without the change; the difference, scaled to the contrast that was asked for, is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..base.random_streams import number
from .patterns import Layout, Slot

KINDS = ("bridge", "open", "particle", "missing_hole", "scratch", "nick")
#: a pixel belongs to a defect's mask where the clean image changes by more than this part of the range
VISIBLE = 1e-4


class NoRoom(ValueError):
    """The pattern, or this tile of it, has no place for a defect of that kind."""


@dataclass(frozen=True)
class Defect:
    """What to put in.

    Parameters
    ----------
    kind
        One of `KINDS`, several (one is drawn of those that the pattern can hold), or "any".
    row, col
        Centre in pixels. A defect of the pattern moves to the nearest place that can hold it; a particle and a
        scratch stay exactly here. Drawn where None (give both or neither).
    size_nm, size_px
        Bridge: thickness. Open: length of the gap. Nick: depth of the bite, whose mouth is twice as wide.
        Particle: diameter. Scratch: length. Missing hole: not used. Drawn, after the pattern's CD, where None.
    contrast
        Largest signed change of the clean image, as a part of the range. None: what the material gives. Only a
        particle and a scratch take a sign; the others keep their material's.

    Examples
    --------
    >>> defect = semnr.synth.Defect("particle", row=64, col=64, size_px=8, contrast=0.3)
    >>> made = semnr.synth.tile("lines", 128, seed=1, defects=[defect])
    >>> made.truth.defects[0].kind
    'particle'
    """

    kind: str | tuple[str, ...]
    row: float | None = None
    col: float | None = None
    size_nm: float | None = None
    size_px: float | None = None
    contrast: float | None = None

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"kind is {kind!r}; accepted: {', '.join(map(repr, KINDS))}, several of them, 'any'")
        if (self.row is None) != (self.col is None):
            raise ValueError(f"row is {self.row} and col {self.col}; accepted: both, or neither")
        if self.size_nm is not None and self.size_px is not None:
            raise ValueError("size_nm and size_px are both given; accepted: one of them")
        for name in ("size_nm", "size_px"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), 0, above=True)
        if self.contrast is not None and not number("contrast", self.contrast, -1, 1):
            raise ValueError("contrast is 0; accepted: a number in [-1, 1] other than 0, or None")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds to draw from, as a tuple."""
        return KINDS if self.kind == "any" else (self.kind,) if isinstance(self.kind, str) else tuple(self.kind)


@dataclass(frozen=True)
class DefectTruth:
    """What was put in.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    row, col : float
        Centre of the changed geometry, in pixels.
    height_px, width_px : float
        Its size.
    contrast : float
        Largest signed change of the clean image, as a part of the range.
    area_px : int
        Pixels that changed visibly. Bloom and beam blur change pixels around the box as well.

    Examples
    --------
    >>> made = semnr.synth.tile("lines", 128, seed=1, defects=["bridge"])
    >>> truth = made.truth.defects[0]
    >>> truth.kind, int(truth.mask().sum()) == truth.area_px
    ('bridge', True)
    """

    kind: str
    row: float
    col: float
    height_px: float
    width_px: float
    contrast: float
    area_px: int
    _top: int = field(repr=False, compare=False, default=0)
    _left: int = field(repr=False, compare=False, default=0)
    _shape: tuple[int, int] = field(repr=False, compare=False, default=(0, 0))
    _mask: np.ndarray | None = field(repr=False, compare=False, default=None)

    def mask(self) -> np.ndarray:
        """The pixels that differ from the tile without this defect.

        Returns
        -------
        ndarray, (H, W), bool
        """
        out = np.zeros(self._shape, bool)
        if self._mask is not None:
            rows, cols = self._mask.shape
            out[self._top : self._top + rows, self._left : self._left + cols] = self._mask
        return out


@dataclass
class Change:
    """A planned defect: its box, and what it does to the geometry in a window of pixels."""

    kind: str
    box: tuple[float, float, float, float]  # top, left, bottom, right
    size: float = 0.0
    across: str = "x"  # the axis that a bridge or an open spans
    adds: bool = False  # adds material; else cuts it
    disc: int | None = None  # which of the layout's discs is missing
    turn: float = 0.0  # angle of a scratch


def possible(layout: Layout) -> tuple[str, ...]:
    """The kinds that this tile can hold."""
    able = {
        "bridge": bool(layout.gaps),
        "open": bool(layout.bodies) and layout.severable,
        "missing_hole": len(layout.discs) > 0,
        "nick": bool(layout.bodies),
    }
    return tuple(kind for kind in KINDS if able.get(kind, True))


def _pick(slots: Sequence[Slot], defect: Defect, rng: np.random.Generator) -> tuple[Slot, float]:
    """A slot and a sliding coordinate: drawn, or the nearest to the place that was asked for."""
    row, col = defect.row, defect.col
    if row is None or col is None:
        slot = slots[int(rng.integers(len(slots)))]
        return slot, float(rng.uniform(slot.start, slot.stop))

    def nearest(slot: Slot) -> tuple[float, float]:
        wanted, across = (row, col) if slot.across == "x" else (col, row)
        along = float(np.clip(wanted, slot.start, slot.stop))
        return float(np.hypot(sum(slot.at(along)) / 2 - across, along - wanted)), along

    best = min(slots, key=lambda slot: nearest(slot)[0])
    return best, nearest(best)[1]


def _boxed(slot: Slot, along: float, low: float, high: float, size: float) -> tuple[float, float, float, float]:
    a, b = along - size / 2, along + size / 2
    return (a, low, b, high) if slot.across == "x" else (low, a, high, b)


def plan(
    layout: Layout, defect: Defect, shape: tuple[int, int], pixel_nm: float, cd: float, rng: np.random.Generator
) -> Change:
    """Kind, place and size of one defect. `cd` is in pixels.

    Raises
    ------
    NoRoom
        The pattern, or this tile of it, has no place for the kind.
    """
    able = [kind for kind in defect.kinds if kind in possible(layout)]
    if not able:
        raise NoRoom(f"kind is {defect.kind!r}; accepted on this tile: {', '.join(map(repr, possible(layout)))}")
    kind = able[int(rng.integers(len(able)))]
    size = defect.size_px if defect.size_nm is None else defect.size_nm / pixel_nm
    if size is None:
        low, high = {"nick": (0.2, 0.5), "scratch": (2.5, 8), "particle": (0.4, 1.4)}.get(kind, (0.35, 0.9))
        size = cd * float(rng.uniform(low, high))
    if kind in ("particle", "scratch"):
        edge = np.minimum(size / 2 + 2, np.array(shape) / 3)
        row, col = rng.uniform(edge, np.array(shape) - 1 - edge)
        if defect.row is not None and defect.col is not None:
            row, col = defect.row, defect.col
        turn = float(rng.uniform(0, np.pi)) if kind == "scratch" else 0.0
        across = 3.0 / pixel_nm if kind == "scratch" else size  # a scratch is 3 nm wide
        tall = max(size * abs(np.sin(turn)), across) if kind == "scratch" else size
        wide = max(size * abs(np.cos(turn)), across) if kind == "scratch" else size
        return Change(kind, (row - tall / 2, col - wide / 2, row + tall / 2, col + wide / 2), size, turn=turn)
    if kind == "missing_hole":
        rows, cols, radii = layout.discs.T
        i = int(rng.integers(len(rows)))
        if defect.row is not None and defect.col is not None:
            i = int(np.hypot(rows - defect.row, cols - defect.col).argmin())
        box = (rows[i] - radii[i], cols[i] - radii[i], rows[i] + radii[i], cols[i] + radii[i])
        return Change(kind, tuple(map(float, box)), disc=i)  # type: ignore[arg-type]
    slot, along = _pick(layout.gaps if kind == "bridge" else layout.bodies, defect, rng)
    low, high = slot.at(along)
    if kind == "nick":
        at = low if rng.random() < 0.5 else high
        if defect.row is not None and defect.col is not None:
            wanted = defect.col if slot.across == "x" else defect.row
            at = low if abs(wanted - low) <= abs(wanted - high) else high
        return Change(kind, _boxed(slot, along, at - size, at + size, 2 * size), size, slot.across)
    adds = kind == "bridge" and layout.positive
    return Change(kind, _boxed(slot, along, low, high, size), size, slot.across, adds)
