"""A wafer of dies with coordinates: any number of synthetic tiles, each made when it is asked for."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..base.random_streams import CHANCE, choice, number, seed_words, size, stream, whole
from ..tiles import TileKey, TileSource
from .defects import KINDS, Defect, NoRoom
from .detector import Detector, as_detector, as_dtype
from .tiles import PATTERNS, SyntheticTile, Truth, tile

_KEPT = 8  # tiles kept for the next role that is read: a few MB whatever the wafer's size


@dataclass(frozen=True)
class WaferTile:
    """One tile of a synthetic wafer with its pixels.

    Attributes
    ----------
    key : TileKey
        Id and coordinates.
    reference, noisy : ndarray
        The clean image and a recording of it.
    noisy_2 : ndarray or None
        A second recording, where the wafer has one.
    truth : Truth
        Edges, sizes and defects.

    Examples
    --------
    >>> wafer = semnr.synth.SyntheticWafer(dies=2, tile=64, seed=1)
    >>> one = next(wafer.tiles())
    >>> one.noisy.shape, one.noisy_2 is None
    ((64, 64), True)
    """

    key: TileKey
    reference: np.ndarray
    noisy: np.ndarray
    noisy_2: np.ndarray | None
    truth: Truth


class SyntheticWafer(TileSource):
    """A synthetic wafer, also a source of tiles: `semnr.score(wafer)` needs no disk.

    Every tile depends on (seed, its index) alone: any order, any number of workers, any part of the wafer gives
    the same bytes. Die indexes have (0, 0) at the die in the wafer's centre, die_x to the right, die_y up; x_um,
    y_um is the tile's centre within its die, from the die's lower-left corner; wafer_x_um, wafer_y_um is the same
    point from the wafer's centre.

    Parameters
    ----------
    dies
        How many, spread evenly over the wafer; None: all dies whose four corners lie inside the edge exclusion.
    sites_per_die
        Tiles per die, on a regular grid, the same places (and the same design) in each die.
    tile
        Side of a tile in pixels, or (height, width).
    pattern
        One of `PATTERNS`, or several, taken in turn by the sites of a die.
    diameter_mm, die_size_mm, edge_exclusion_mm
        The wafer; die size is (width, height), by default a scanner's full field.
    pixel_nm, seed
        As for `tile`.
    defect_rate, defect_kinds
        Probability that a tile carries a defect, and the kinds to draw from (where the pattern can hold none of
        them, the tile stays clean).
    dtype, data_range
        Of every image read: "uint8", "uint16" (data_range=4095 for 12 bit), "float32", "float64".
    dose, frames, noise
        The recording; `noise` is a `Detector` or a dict of its fields.
    second_frame
        Adds the role "noisy_2": an independent recording of the same site.
    options
        Further arguments of `tile` (pitch_nm, cd_nm, ler_sigma_nm, look, ...).

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.

    Examples
    --------
    >>> wafer = semnr.synth.SyntheticWafer(dies=4, sites_per_die=2, tile=64, seed=1)
    >>> len(wafer), wafer.key(0).tile, wafer.find("t000001").index
    (8, 't000000', 1)
    >>> wafer.read(wafer.key(0), "reference").dtype, wafer.truth(0).pattern
    (dtype('uint8'), 'lines')
    >>> wafer.synthesise(0).clean.shape, sum(1 for _ in wafer.tiles())
    ((64, 64), 8)
    """

    def __init__(
        self,
        dies: int | None = None,
        sites_per_die: int = 1,
        tile: int | tuple[int, int] = 512,
        *,
        pattern: str | Sequence[str] = "lines",
        diameter_mm: float = 300.0,
        die_size_mm: tuple[float, float] = (26.0, 33.0),
        edge_exclusion_mm: float = 3.0,
        pixel_nm: float = 1.0,
        seed: int = 0,
        defect_rate: float = 0.0,
        defect_kinds: Sequence[str] = KINDS,
        dtype: object = "uint8",
        data_range: float | None = None,
        dose: float | None = None,
        frames: int | None = None,
        noise: Detector | Mapping[str, float] | None = None,
        second_frame: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = "synthetic wafer"
        self.roles = ("image", "noisy", "reference", *(("noisy_2",) if second_frame else ()))
        self.shape = size("tile", tile)
        self.patterns = (pattern,) if isinstance(pattern, str) else tuple(pattern)
        if not self.patterns:
            raise ValueError(f"pattern is empty; accepted: {', '.join(map(repr, PATTERNS))}, or several of them")
        for one in self.patterns:
            choice("pattern", one, PATTERNS)
        self.pixel_nm: float = number("pixel_nm", pixel_nm, 0, above=True)
        self.seed = seed_words(seed)
        self.defect_rate = number("defect_rate", defect_rate, 0, 1)
        if not defect_kinds:
            raise ValueError(f"defect_kinds is empty; accepted: {', '.join(map(repr, KINDS))}")
        self.defect_kinds = tuple(choice("defect_kinds", kind, KINDS) for kind in defect_kinds)
        self.dtype, self.data_range = as_dtype(dtype, data_range)
        self.noise = as_detector(noise, dose=dose, frames=frames)
        self.options = dict(options or {})
        if taken := sorted(set(self.options) & {"pattern", "shape", "pixel_nm", "seed", "layout_seed", "defects"}):
            raise ValueError(f"options holds {taken[0]!r}; accepted: arguments of tile() that are not the wafer's own")
        self.diameter_mm = number("diameter_mm", diameter_mm, 0, above=True)
        self.edge_exclusion_mm = number("edge_exclusion_mm", edge_exclusion_mm, 0)
        if not isinstance(die_size_mm, Sequence) or len(die_size_mm) != 2:
            raise TypeError(f"die_size_mm is {die_size_mm!r}; accepted: (width, height) in mm")
        width, height = (number("die_size_mm", side, 0, above=True) for side in die_size_mm)
        self.die_size_mm = (width, height)
        self.dies = self._place_dies(dies)
        self.sites_um = self._place_sites(whole("sites_per_die", sites_per_die, 1))
        self._start()

    def _start(self) -> None:
        self._kept: OrderedDict[int, SyntheticTile] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_kept", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def _place_dies(self, count: int | None) -> np.ndarray:
        """(n, 2) die_x, die_y, row by row from the bottom."""
        width, height = self.die_size_mm
        radius = self.diameter_mm / 2 - self.edge_exclusion_mm
        if radius <= 0 or math.hypot(width, height) / 2 > radius:
            raise ValueError(
                f"edge_exclusion_mm is {self.edge_exclusion_mm:g} with diameter_mm {self.diameter_mm:g} and "
                f"die_size_mm {self.die_size_mm}; accepted: at least the centre die inside the exclusion"
            )
        reach_x, reach_y = int(radius / width) + 1, int(radius / height) + 1
        y, x = np.mgrid[-reach_y : reach_y + 1, -reach_x : reach_x + 1]
        corner = np.hypot((np.abs(x) + 0.5) * width, (np.abs(y) + 0.5) * height)
        dies = np.column_stack([x[corner <= radius], y[corner <= radius]])
        if count is None:
            return dies
        if whole("dies", count, 1) > len(dies):
            raise ValueError(
                f"dies is {count}; accepted: up to {len(dies)}, which fit on {self.diameter_mm:g} mm with "
                f"die_size_mm {self.die_size_mm} (make the dies smaller, or use sites_per_die)"
            )
        return dies[np.round((np.arange(count) + 0.5) * len(dies) / count - 0.5).astype(int)]

    def _place_sites(self, count: int) -> tuple[int, int, int]:
        """Sites per die, and the columns and rows of their grid."""
        width, height = self.die_size_mm
        columns = min(count, math.ceil(math.sqrt(count * width / height)))
        rows = math.ceil(count / columns)
        view = [side * self.pixel_nm * 1e-6 for side in self.shape]
        if height / rows < view[0] or width / columns < view[1]:
            raise ValueError(
                f"sites_per_die is {count}; accepted: fewer, as {columns} x {rows} tiles of "
                f"{view[1]:g} x {view[0]:g} mm overlap in a die of {self.die_size_mm} mm"
            )
        return count, columns, rows

    def __len__(self) -> int:
        return len(self.dies) * self.sites_um[0]

    def __iter__(self) -> Iterator[TileKey]:
        return (self.key(index) for index in range(len(self)))

    def key(self, index: int) -> TileKey:
        """The key of a tile: its id and its columns.

        Parameters
        ----------
        index : int
            Its place, from 0.

        Returns
        -------
        TileKey

        Raises
        ------
        ValueError
            No such tile.
        """
        if whole("index", index) >= len(self):
            raise ValueError(f"index is {index}; accepted: 0 to {len(self) - 1}")
        count, columns, rows = self.sites_um
        die, site = divmod(index, count)
        die_x, die_y = (int(v) for v in self.dies[die])
        width, height = (1e3 * side for side in self.die_size_mm)
        x = (site % columns + 0.5) * width / columns
        y = (site // columns + 0.5) * height / rows
        meta = {
            "die_x": die_x,
            "die_y": die_y,
            "site_id": site,
            "x_um": round(x, 3),
            "y_um": round(y, 3),
            "wafer_x_um": round((die_x - 0.5) * width + x, 3),
            "wafer_y_um": round((die_y - 0.5) * height + y, 3),
        }
        return TileKey(f"t{index:06d}", index, None, meta)

    def find(self, tile: str) -> TileKey | None:
        """The key of a tile by its id.

        Parameters
        ----------
        tile : str
            Its id.

        Returns
        -------
        TileKey or None
        """
        digits = tile.removeprefix("t")
        if not digits.isdecimal() or int(digits) >= len(self) or f"t{int(digits):06d}" != tile:
            return None
        return self.key(int(digits))

    def synthesise(self, index: int) -> SyntheticTile:
        """A tile with its truth.

        Parameters
        ----------
        index : int
            Its place, from 0.

        Returns
        -------
        SyntheticTile

        Raises
        ------
        ValueError
            No such tile.
        """
        if whole("index", index) >= len(self):
            raise ValueError(f"index is {index}; accepted: 0 to {len(self) - 1}")
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        made = self._make(index)
        with self._lock:
            self._kept[index] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made

    def _make(self, index: int) -> SyntheticTile:
        site = index % self.sites_um[0]
        pattern = self.patterns[site % len(self.patterns)]
        seed = (*self.seed, index)
        made = partial(
            tile, pattern, self.shape, pixel_nm=self.pixel_nm, seed=seed, layout_seed=(*self.seed, site), **self.options
        )
        if stream(seed, CHANCE).random() < self.defect_rate:
            try:
                return made(defects=[Defect(self.defect_kinds)])
            except NoRoom:  # this tile holds no feature that could carry the kinds asked for
                pass
        return made()

    def truth(self, key: TileKey | int) -> Truth:
        """Edges, sizes and defects of a tile.

        Parameters
        ----------
        key : TileKey or int
            The tile, or its place.

        Returns
        -------
        Truth
        """
        return self.synthesise(key if isinstance(key, int) else key.index).truth

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        """The pixels of one tile.

        Parameters
        ----------
        key : TileKey
            One of its keys.
        role : str
            "image" and "noisy": a recording. "reference": the clean image. "noisy_2": a second recording.

        Returns
        -------
        ndarray, (H, W)
        """
        choice("role", role, self.roles)
        made = self.synthesise(key.index)
        if role == "reference":
            return made.reference(self.dtype, self.data_range)
        frame = 1 if role == "noisy_2" else 0
        return made.noisy(noise=self.noise, frame=frame, dtype=self.dtype, data_range=self.data_range)

    def tiles(self) -> Iterator[WaferTile]:
        """Every tile with its pixels and truth, one at a time.

        Yields
        ------
        WaferTile
        """
        for key in self:
            second = self.read(key, "noisy_2") if "noisy_2" in self.roles else None
            truth = self.truth(key)
            yield WaferTile(key, self.read(key, "reference"), self.read(key, "noisy"), second, truth)
