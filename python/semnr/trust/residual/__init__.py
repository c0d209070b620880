"""What a denoiser took out, held against the noise: no clean reference is needed.

The residual, noisy − denoised, of a denoiser that takes noise alone looks like the noise: its variance follows the
law of the frame (gain · level + offset), its spectrum is that of the scan line, it knows nothing of the edges, and
nowhere holds a bump. Each of these is tested here; the last one place by place, so that one lost defect shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from semnr_kernels import checks
from semnr_kernels.planes import Tiles
from semnr_kernels.residual import SIZES, Law, Place, Scanned, Settings, Shape, bank, scan
from semnr_kernels.residual.marking import LISTED

from ...base.jsonable import plain
from ...noise import NoiseModel
from ...noise.model import check_scan_axis
from ..fits import as_models, fit_tiles
from ..images import as_tiles_once, own_range, valid_pixels
from ..shown import Drawn

__all__ = ["COLUMNS", "SIZES", "ResidualTests", "residual_tests"]

COLUMNS = (
    *("residual_variance", "residual_spectrum", "residual_structure_z"),
    *("removed_z", "removed_count", "invented_z", "invented_count"),
)
_MIN_SIDE = 32  # of a tile: below, neither its noise nor the surroundings of a bump are known


@dataclass(frozen=True, repr=False)
class ResidualTests(Drawn):
    """What `semnr.residual_tests` found, a row a tile.

    Attributes
    ----------
    variance : ndarray, (N,)
        Variance of the residual over that of the law: 1 as the law says, above where structure was taken with the
        noise, below where noise was left in.
    spectrum : ndarray, (N,)
        Root mean square, over 8 × 8 bands of frequency, of ln(residual power / power of the fitted noise), the
        bands' common level taken out. 0: the shape of the noise; 0.1: bands 10 % off. Noise left in counts too.
    structure_z : ndarray, (N,)
        Residual energy at edges of the denoised image against that away from them, in standard errors. Well above
        0: the residual holds what the edges lost. Below 0: noise was left in at the edges.
    removed_z, invented_z : ndarray, (N,)
        Largest |z| of the scan where structure was removed, or invented, over what is usual in the tile; the
        strongest place of the tile is told even where it is below the threshold, 0 stands for the other kind.
    removed_count, invented_count : ndarray, (N,)
        Places whose |z| is beyond `threshold`, of the 16 strongest.
    boxes : tuple of lists, (N,)
        Those places, strongest first, at most 16 a tile: {"kind", "row", "col", "height", "width", "z"}, the centre
        and size in pixels and the signed z (noisy minus denoised).
    threshold : ndarray, (N,)
        |z| that noise alone exceeds somewhere in a tile of this size with probability alpha.
    noise : tuple of NoiseModel, (N,)
        The noise that each tile was held against.
    maps : mapping or None
        With ``return_maps=True``: "evidence" (N, H, W) float32, the largest |z| over the sizes at each pixel, below 0
        around the places where structure was invented.

    settings : mapping
        What the tests were asked for.

    Examples
    --------
    >>> found = semnr.residual_tests(noisy, denoised)
    >>> found.removed_count.tolist(), found.boxes_json()
    ([0.0], [None])
    >>> sorted(found.columns())[:2], found.to_dict()["settings"]["alpha"]
    (['invented_count', 'invented_z'], 0.005)
    """

    variance: np.ndarray
    spectrum: np.ndarray
    structure_z: np.ndarray
    removed_z: np.ndarray
    removed_count: np.ndarray
    invented_z: np.ndarray
    invented_count: np.ndarray
    boxes: tuple[list[dict[str, Any]], ...]
    threshold: np.ndarray
    noise: tuple[Any, ...]
    maps: Mapping[str, np.ndarray] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.variance)

    def columns(self) -> dict[str, np.ndarray]:
        """The figures under the names that a scored run has for them.

        Returns
        -------
        dict of str to ndarray, (N,)
        """
        return {
            "residual_variance": self.variance,
            "residual_spectrum": self.spectrum,
            "residual_structure_z": self.structure_z,
            "removed_z": self.removed_z,
            "removed_count": self.removed_count,
            "invented_z": self.invented_z,
            "invented_count": self.invented_count,
        }

    def _in_short(self) -> str:
        """How many places were marked, and the variance."""
        removed, invented = int(self.removed_count.sum()), int(self.invented_count.sum())
        return f"{removed} places removed, {invented} invented, variance {np.mean(self.variance):.2f} of the law's"

    def _table(self) -> dict[str, Any]:
        """The figures of each tile."""
        return {name.removeprefix("residual_").replace("_", " "): rows for name, rows in self.columns().items()}

    def _marks(self, tile: int) -> Sequence[Mapping[str, Any]]:
        """The boxes of a tile."""
        return self.boxes[tile]

    def boxes_json(self) -> list[str | None]:
        """The boxes of each tile as JSON text.

        Returns
        -------
        list of (str or None)
            None where a tile has no box.
        """
        return [json.dumps(found) if found else None for found in self.boxes]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps in plain lists, for JSON.

        Returns
        -------
        dict
        """
        noise = [model.to_dict() for model in self.noise]
        more = {"boxes": list(self.boxes), "threshold": self.threshold, "settings": dict(self.settings)}
        return {name: plain(value) for name, value in {**self.columns(), **more}.items()} | {"noise": plain(noise)}

    def __str__(self) -> str:
        rows = [f"residual tests, {len(self)} tile(s)"]
        for i in range(len(self)):
            rows.append(
                f"  {i}: variance {self.variance[i]:.2f} of the law's, spectrum off by {self.spectrum[i]:.2f}, "
                f"edges z {self.structure_z[i]:.1f}, {self.removed_count[i]:.0f} removed, "
                f"{self.invented_count[i]:.0f} invented (|z| above {self.threshold[i]:.2f})"
            )
        return "\n".join(rows)


def residual_tests(
    noisy: Any,
    denoised: Any,
    *,
    noise: NoiseModel | Sequence[NoiseModel] | None = None,
    alpha: float = 0.005,
    sizes: Sequence[float] = SIZES,
    data_range: float | None = None,
    mask: Any = None,
    nan: str = "error",
    scan_axis: int = -1,
    return_maps: bool = False,
) -> ResidualTests:
    """Test the residual of a denoiser against the noise of its input.

    The residual is divided by the σ of the noise at the denoised level, then scanned with discs of several diameters
    by a filter matched to each in this noise (prewhitened along the scan line). A place is marked where |z| exceeds
    what noise alone reaches anywhere in the tile with probability `alpha`, and what the tile's other edges of
    that strength show. Adding the bump back tells removed from invented: a removed structure comes back, an
    invented one vanishes.

    Parameters
    ----------
    noisy, denoised : Tensor or ndarray, (N, C, H, W) with C of 1 or 3, (1, H, W) or (H, W)
        Input and output of the denoiser on one intensity scale, sides of at least 32 px. Channels are averaged.
        The mean of several frames is an input too, and shows fainter losses: the noise is fitted to it.
    noise : NoiseModel, sequence of N, optional
        The noise of `noisy`; default: fitted to each tile (`semnr.denoising.estimate_noise`).
    alpha : float
        Share of intact tiles in which noise alone may mark a place.
    sizes : sequence of float
        Diameters in px, 2 to 32.
    data_range : float, optional
        Level at which the detector clips, for the fit of the noise; default as `estimate_noise`.
    mask : bool, (H, W), (N, H, W) or (N, 1, H, W), optional
        Valid pixels; the others take no part.
    nan : {"error", "omit"}
        Non-finite pixels: refuse, or treat as masked.
    scan_axis : -1 or -2
        Along which axis the beam scans; -1 (default): scan lines are rows.
    return_maps : bool
        Also the evidence map.

    Returns
    -------
    ResidualTests

    Raises
    ------
    TypeError, ValueError
        The argument, what it was, what is accepted.

    Notes
    -----
    One frame says no more than its noise allows: a bump of contrast c · σ reaches z = c · g with g = 2.9 for a disc
    of 6 px under a beam of σ 0.8 px, 4.4 for a sharp square of 6 px, where neighbours along the line correlate by
    0.47; the threshold of a 512² tile is 5.9, less in effect where the denoiser leaves noise in its output. What is
    found how often: benchmarks/quality/bench_evidence.py.
    Models: Foi et al. 2008 (doi 10.1109/TIP.2008.2001399) for the variance; the matched filter of North (1943);
    threshold by the expected Euler characteristic, Worsley et al. 1996.

    Examples
    --------
    >>> spoiled = denoised.copy()
    >>> spoiled[60:68, 60:68] = spoiled[60:68, 76:84]  # paint over a place of the image
    >>> found = semnr.residual_tests(noisy, spoiled)
    >>> len(found), found.variance[0] > semnr.residual_tests(noisy, denoised).variance[0]
    (1, np.True_)
    """
    checks.choice("nan", nan, ("error", "omit"))
    wanted = _as_sizes(sizes)
    if not (isinstance(alpha, int | float) and 0 < alpha < 1):
        raise ValueError(f"alpha is {alpha!r}; accepted: a probability between 0 and 1")
    check_scan_axis(scan_axis)
    x = as_tiles_once("noisy", noisy)
    d = as_tiles_once("denoised", denoised, like=x)
    n, _, height, width = x.images.shape
    if min(height, width) < _MIN_SIDE:
        raise ValueError(f"noisy is {height} x {width} px; accepted: sides of at least {_MIN_SIDE}")
    valid = checks.as_mask(torch.as_tensor(mask), x.images) if mask is not None else None
    valid = valid_pixels({"noisy": x.images, "denoised": d.images}, valid, nan)
    models = as_models(noise, n)
    data_range = own_range(x.images, data_range)
    if scan_axis == -2:
        x, d = (Tiles(v.images.transpose(2, 3)) for v in (x, d))
        valid = None if valid is None else valid.transpose(2, 3)
    asked = Settings(float(alpha), wanted, return_maps)
    found, models = _tiles(x, d, valid, models, data_range, asked)
    return as_tests(found, models, asked, scan_axis, nan)


def as_tests(found: Scanned, models: Sequence[NoiseModel], asked: Settings, scan_axis: int, nan: str) -> ResidualTests:
    """The result of a scan of tiles with scan lines as rows, and of the noise that they were held against."""
    shapes = bank(asked.sizes)
    tiles = list(zip(found.places, found.threshold.tolist(), strict=True))
    maps = None
    if found.largest is not None:
        signed = _signed(found.largest, found.places, shapes, found.threshold)
        maps = {"evidence": signed if scan_axis == -1 else signed.transpose(0, 2, 1)}
    return ResidualTests(
        found.variance,
        found.spectrum,
        found.structure_z,
        removed_z=np.array([_strongest(places, False) for places, _ in tiles]),
        removed_count=np.array([_beyond(places, False, limit) for places, limit in tiles]),
        invented_z=np.array([_strongest(places, True) for places, _ in tiles]),
        invented_count=np.array([_beyond(places, True, limit) for places, limit in tiles]),
        boxes=tuple(_boxes(places, limit, shapes, scan_axis)[:LISTED] for places, limit in tiles),
        threshold=found.threshold,
        noise=tuple(models),
        maps=maps,
        settings={"alpha": asked.alpha, "sizes": asked.sizes, "scan_axis": scan_axis, "nan": nan},
    )


def _as_sizes(sizes: Sequence[float]) -> tuple[float, ...]:
    try:
        wanted = tuple(float(s) for s in sizes)
    except (TypeError, ValueError):
        raise TypeError(f"sizes is {sizes!r}; accepted: diameters in px, such as (3, 6, 12)") from None
    if not wanted or not all(2 <= s <= 32 for s in wanted):
        raise ValueError(f"sizes is {sizes!r}; accepted: at least one, each from 2 to 32 px")
    return wanted


def _tiles(
    x: Tiles, d: Tiles, valid: torch.Tensor | None, models: list[Any] | None, data_range: float | None, asked: Settings
) -> tuple[Scanned, list[Any]]:
    """The scan of tiles with scan lines as rows, and the noise that they were held against."""
    if valid is not None:
        x, d = (Tiles(filled(v.images, valid)) for v in (x, d))
    if models is None:
        models = fit_tiles(x.images, data_range)
    laws = [Law(model.gain, model.offset, model.floor, model.whitening()) for model in models]
    return scan(x, d, valid, laws, asked), models


def filled(v: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) float32: channels averaged; pixels that take no part get the mean of the others."""
    v = v.float().mean(1, keepdim=True)
    kept = torch.where(valid, v, 0.0)
    mean = kept.sum((2, 3), keepdim=True) / valid.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(valid, v, mean)


def _boxes(places: Sequence[Place], limit: float, shapes: Sequence[Shape], scan_axis: int) -> list[dict[str, Any]]:
    """The places beyond the limit, as they are told."""
    told = []
    for place in places:
        if abs(place.z) > limit:
            row, col = (place.row, place.column) if scan_axis == -1 else (place.column, place.row)
            side, kind = round(shapes[place.shape].size, 1), "invented" if place.invented else "removed"
            told.append({"kind": kind, "row": row, "col": col, "height": side, "width": side, "z": round(place.z, 2)})
    return told


def _strongest(places: Sequence[Place], invented: bool) -> float:
    return max((abs(round(p.z, 2)) for p in places if p.invented == invented), default=0.0)


def _beyond(places: Sequence[Place], invented: bool, limit: float) -> float:
    return float(sum(abs(p.z) > limit for p in places if p.invented == invented))


def _signed(
    largest: np.ndarray, places: Sequence[Sequence[Place]], shapes: Sequence[Shape], limit: np.ndarray
) -> np.ndarray:
    """The largest |z|, below 0 around the places where structure was invented."""
    rows, cols = np.ogrid[: largest.shape[1], : largest.shape[2]]
    for i, tile in enumerate(places):
        for p in tile:
            if p.invented and abs(p.z) > limit[i]:
                near = np.hypot(rows - p.row, cols - p.column) <= round(shapes[p.shape].size, 1) / 2 + 3
                largest[i][near] *= -1
    return largest
