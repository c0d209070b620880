"""What a denoiser did to a grating: CD, edge places, roughness and the edges' spectrum, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .line_roughness import Roughness, edge_psd, roughness
from .lines import LineEdges, find_edges


@dataclass(frozen=True)
class LineComparison:
    """Lines of one field before and after.

    Attributes
    ----------
    cd_shift : float
        Mean of (CD after - CD before) over the lines, in `unit`.
    edge_rms : float
        RMS distance of the edges' places after from before, each edge's own mean shift included.
    before, after : Roughness
        LER of each; `unbiased` is refused where the noise plateau is missing.
    bands : tuple of (longest, shortest, ratio)
        Octaves of wavelength in `unit`, and the share of the PSD left there, the noise floor of before taken off
        where it is known. NaN where nothing stands above the noise.

    unit : str
        "px" or "nm".

    Examples
    --------
    >>> comparison = semnr.metrology.compare_lines(noisy, denoised)
    >>> comparison.unit, abs(comparison.cd_shift) < 1, len(comparison.bands)
    ('px', True, 4)
    """

    cd_shift: float
    edge_rms: float
    before: Roughness
    after: Roughness
    bands: tuple[tuple[float, float, float], ...]
    unit: str


def compare_lines(
    before: Any, after: Any, *, pixel_nm: float | None = None, level: float | None = None
) -> LineComparison:
    """Compare the lines of an image before a denoiser (or of the clean image) with those after it.

    Parameters
    ----------
    before, after : (H, W) array or LineEdges
        Two images of one field, on one scale of grey levels.
    pixel_nm : float, optional
        Size of a pixel. With it figures are in nm, else in pixels.
    level : float, optional
        Grey level that defines an edge, as for `find_edges`.

    Returns
    -------
    LineComparison

    Raises
    ------
    ValueError
        They do not show the same lines.

    Examples
    --------
    >>> comparison = semnr.metrology.compare_lines(clean, denoised, pixel_nm=1.0)
    >>> 0 < comparison.edge_rms < 0.5, comparison.unit  # how far the edges moved
    (True, 'nm')
    """
    first = before if isinstance(before, LineEdges) else find_edges(before, level=level)
    second = after if isinstance(after, LineEdges) else find_edges(after, near=first)
    first, second = matched(first, second)
    shift, rms = moved(first, second)
    scale, unit = (1.0, "px") if pixel_nm is None else (float(pixel_nm), "nm")
    ler = roughness(first.positions, pixel_nm=pixel_nm), roughness(second.positions, pixel_nm=pixel_nm)
    return LineComparison(
        cd_shift=scale * shift,
        edge_rms=scale * rms,
        before=ler[0],
        after=ler[1],
        bands=band_ratios(first.positions, second.positions, pixel_nm, ler[0]),
        unit=unit,
    )


def moved(first: LineEdges, second: LineEdges) -> tuple[float, float]:
    """(mean change of CD, RMS distance of places) of edges that were matched, px."""
    shift = float((second.cd_px - first.cd_px).mean()) if first.cd_px.size else float("nan")
    return shift, float(np.sqrt(((second.positions - first.positions) ** 2).mean()))


def matched(first: LineEdges, second: LineEdges) -> tuple[LineEdges, LineEdges]:
    """The edges that both have: a line at the border of the image may be found in one of them only."""
    if first.orientation != second.orientation or first.positions.shape[1] != second.positions.shape[1]:
        raise ValueError(
            f"before has {first.orientation} lines of {first.positions.shape[1]} rows, after {second.orientation} ones "
            f"of {second.positions.shape[1]}; accepted: two images of one field"
        )
    here, there = first.positions.mean(axis=1), second.positions.mean(axis=1)
    near = np.abs(there[None] - here[:, None]) + np.where(second.rising[None] == first.rising[:, None], 0, np.inf)
    spacing = np.diff(np.sort(here)).min() if here.size > 1 else np.inf
    pairs = [(i, int(row.argmin())) for i, row in enumerate(near) if row.min() < spacing / 2]
    if len(pairs) < 0.75 * max(len(here), len(there)):
        raise ValueError(
            f"before has {len(here)} edges and after {len(there)}, of which {len(pairs)} lie on each other; accepted: "
            "two images of one field"
        )
    mine, theirs = (list(index) for index in zip(*pairs, strict=True))
    return first.select(mine), second.select(theirs)


def band_ratios(
    before: np.ndarray, after: np.ndarray, pixel_nm: float | None, ler: Roughness
) -> tuple[tuple[float, float, float], ...]:
    """Octaves of wavelength from the length of the edges down to 4 px: PSD after over PSD before."""
    scale = 1.0 if pixel_nm is None else float(pixel_nm)
    frequency, first = edge_psd(before)
    _, second = edge_psd(after)
    floor = 0.0 if ler.refused else 2 * (ler.noise / scale) ** 2
    bands, longest = [], float(before.shape[1]) / 2
    while longest > 4:
        band = (frequency > 1 / longest) & (frequency <= 2 / longest)
        signal = float((first[band] - floor).mean()) if band.any() else 0.0
        # a band in which the noise is most of the power says nothing of the signal
        known = band.any() and signal > 0.25 * floor
        ratio = float(second[band].mean()) / signal if known else float("nan")
        bands.append((longest * scale, longest / 2 * scale, ratio))
        longest /= 2
    return tuple(bands)
