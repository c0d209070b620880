"""Edges of a line/space grating, row by row, by matching each row to the edge's own mean profile.

A threshold on a noisy row finds the noise; filtering along the edge first removes the roughness that is to be
measured. So each edge's mean profile is built from all rows, aligned by their present shifts; each row's shift is then
the one that fits its pixels to that profile best (least squares: maximum likelihood for Gaussian noise; the noise's
correlation along the scan is fitted and whitened). Rows stay independent, so that the error of a place is white along
the edge and can be taken off as a noise floor (C. A. Mack, J. Micro/Nanolith. MEMS MOEMS 12, 033016 (2013)).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .edge_matching import match, profile_places

_WINDOW = 14  # px on either side of an edge that are matched, where the neighbours leave them


@dataclass(frozen=True)
class LineEdges:
    """Edges of lines in one image.

    Attributes
    ----------
    positions : (edges, length) float64
        Place of each edge in each row, px from the first pixel's centre; across the lines.
    rising : (edges,) bool
        True where the line begins (dark to bright).
    cd_px : (lines,) float64
        Mean width of each line that has both edges.
    orientation : str
        "vertical": positions are columns, one a row. "horizontal": rows, one a column.
    level : float
        Grey level at which the mean profile was cut.

    Examples
    --------
    >>> edges = semnr.metrology.find_edges(clean)
    >>> edges.positions.shape[1], edges.orientation
    (128, 'vertical')
    >>> edges.select([0, 1]).width_rows().shape  # the width of the first line in each row
    (1, 128)
    """

    positions: np.ndarray
    rising: np.ndarray
    cd_px: np.ndarray
    orientation: str
    level: float

    @property
    def lines(self) -> list[tuple[int, int]]:
        """The two rows of `positions` of each whole line: left edge, right edge."""
        return [(i, i + 1) for i in range(len(self.rising) - 1) if self.rising[i] and not self.rising[i + 1]]

    def select(self, edges: list[int]) -> LineEdges:
        """Some of the edges.

        Parameters
        ----------
        edges : list of int
            Which rows of `positions`.

        Returns
        -------
        LineEdges
            With the CDs of the lines that keep both edges.
        """
        return _measured(self.positions[edges], self.rising[edges], self.orientation, self.level)

    def width_rows(self) -> np.ndarray:
        """The width of each line in each row.

        Returns
        -------
        ndarray, (lines, length)
            In pixels.
        """
        return np.array([self.positions[b] - self.positions[a] for a, b in self.lines]).reshape(
            len(self.lines), self.positions.shape[1]
        )


def find_edges(image: Any, *, orientation: str = "auto", level: float | None = None, near: Any = None) -> LineEdges:
    """Find the edges of bright lines on dark spaces.

    Parameters
    ----------
    image : (H, W) array
        Grey levels of any scale; at least 32 pixels a side. Lines straight but for their roughness.
    orientation : "auto", "vertical" or "horizontal"
        How the lines run; "auto": across the direction in which the mean profile varies most.
    level : float, optional
        Grey level that defines an edge's place on its mean profile; default half-way between the spaces' level and
        the edge's peak. CD depends on it: compare CDs of one level only.
    near : LineEdges, optional
        Edges of another image of the same field (the noisy one): orientation and level are taken from it.

    Raises
    ------
    TypeError, ValueError
        Not a finite two-dimensional image, too small, or no edges in it.

    Returns
    -------
    LineEdges

    Examples
    --------
    >>> edges = semnr.metrology.find_edges(clean, level=255 * site.truth.edge_level)
    >>> abs(edges.cd_px.mean() - site.truth.cd_nm) < 0.5  # 1 nm is 1 pixel here
    np.True_
    """
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim != 2 or min(pixels.shape) < 32:
        raise ValueError(f"image has shape {pixels.shape}; accepted: (H, W) of at least 32 pixels a side")
    if not np.isfinite(pixels).all():
        raise ValueError(f"image has {int((~np.isfinite(pixels)).sum())} non-finite pixels; accepted: finite values")
    if orientation not in ("auto", "vertical", "horizontal"):
        raise ValueError(f"orientation is {orientation!r}; accepted: 'auto', 'vertical' or 'horizontal'")
    if near is not None:
        orientation, level = near.orientation, near.level if level is None else level
    if orientation == "auto":
        orientation = "vertical" if pixels.mean(0).std() >= pixels.mean(1).std() else "horizontal"
    rows = pixels if orientation == "vertical" else pixels.T
    coarse, rising, low, high = _coarse(rows.mean(axis=0))
    half_way = (low + high) / 2 if level is None else float(level)
    centres = np.rint(coarse).astype(np.int64)
    reach = np.array([_reach(coarse, i, rows.shape[1]) for i in range(coarse.size)])
    shifts, profiles = match(rows, centres, reach)
    means = [
        _crossing(profile_places(profile.size, reach[i, 0]), profile, half_way, coarse[i] - centres[i], rising[i])
        for i, profile in enumerate(profiles)
    ]
    return _measured((centres + np.array(means))[:, None] + shifts, rising, orientation, half_way)


def _measured(places: np.ndarray, rising: np.ndarray, orientation: str, level: float) -> LineEdges:
    bare = LineEdges(places, rising, np.empty(0), orientation, level)
    return replace(bare, cd_px=bare.width_rows().mean(axis=1))


def _coarse(profile: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """(places, rising, level of the spaces, level of the peaks) from the mean profile."""
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(profile, 1.0, mode="nearest")
    low, high = np.percentile(smooth, (5, 99))
    if not high - low > 1e-9 * max(1.0, abs(high)):
        raise ValueError("image has no lines: its mean profile is flat; accepted: a grating")
    # the lines' own level, between their bright edges: the cut must lie below it, or the peaks' inner flanks cross too
    above = smooth > low + 0.25 * (high - low)
    inside = float(np.percentile(smooth[above], 10))
    cut = low + 0.5 * (inside - low)
    sign = smooth > cut
    at = np.flatnonzero(sign[1:] != sign[:-1])
    places = at + (cut - smooth[at]) / (smooth[at + 1] - smooth[at])
    keep = (places > 4) & (places < profile.size - 5)
    if not keep.any():
        raise ValueError("image has no edges that lie inside it; accepted: a grating")
    return places[keep], sign[at + 1][keep], float(low), float(high)


def _reach(coarse: np.ndarray, index: int, width: int) -> tuple[int, int]:
    """Pixels to the left and right of an edge that are its own: to the middle of the line or space beside it."""
    left = coarse[index] - (coarse[index - 1] if index else -coarse[index])
    right = (coarse[index + 1] if index + 1 < coarse.size else 2 * (width - 1) - coarse[index]) - coarse[index]
    return max(3, min(_WINDOW, int(left / 2))), max(3, min(_WINDOW, int(right / 2)))


def _crossing(at: np.ndarray, profile: np.ndarray, level: float, near: float, up: bool) -> float:
    """Where the profile crosses `level` in the edge's direction, nearest to `near`."""
    above = profile > level
    crossings = np.flatnonzero((above[1:] != above[:-1]) & (above[1:] == up))
    if not crossings.size:
        raise ValueError(
            f"level is {level:g}, which the edge near {near:g} px of its window does not cross; its profile "
            f"runs from {profile.min():g} to {profile.max():g}"
        )
    before, after = profile[crossings], profile[crossings + 1]
    places = at[crossings] + (level - before) / (after - before) * (at[1] - at[0])
    return float(places[np.abs(places - near).argmin()])
