"""Metrology of a batch of tiles as columns of a scored run: lines or holes, the denoised against the noisy image.

All figures are in pixels. NaN where a tile does not show the pattern, or where a figure is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .compare import LineComparison, compare_lines, matched, moved
from .holes import Hole, measure_holes
from .line_roughness import Roughness, roughness
from .lines import LineEdges, find_edges

KINDS = ("lines", "holes")
_STRAIGHT = 0.75  # least share of a grating's variance that its mean profile holds; a field of holes has about half
_SAME_FLOOR = 0.5  # of the noisy image's noise floor; below it, a denoiser took the plateau
_FEWEST_HOLES = 3  # fewer round spots are not a field of holes
_SAME_HOLE = 0.5  # of a diameter: centres nearer than this belong to one hole


def columns(
    noisy: Any, denoised: Any, reference: Any = None, pixel_nm: float | None = None, kind: str = "lines"
) -> dict[str, np.ndarray]:
    """Metrology of each tile.

    Parameters
    ----------
    noisy, reference : (N, H, W) or (N, C, H, W) arrays or None
        The input of the denoiser and the clean image, where they are known. Channels are averaged.
    denoised : (N, H, W) or (N, C, H, W) array
        The images that are measured.
    pixel_nm : float, optional
        Adds `cd_nm`.
    kind : "lines" or "holes"
        What the tiles show. A tile that shows something else gets NaN in every column.

    Returns
    -------
    dict of (N,) float64
        Lines: `cd_px` (mean CD), `cd_change_px` (against noisy), `cd_bias_px` (against reference), `edge_rms_px` (edge
        places against noisy, RMS; the noise of finding them in the noisy image is in it), `edge_error_px` and
        `edge_error_noisy_px` (against the reference), `ler_*` and `lwr_*`: 3σ of edges and widths, of the denoised
        and (`_noisy_`) of the input, `_change_` their difference; `_unbiased_`: noise floor taken off, NaN where its
        plateau is gone; `unbiased_ok`: 1 where the denoised edges still have it, 0 where the figure is refused;
        `edge_psd_A_B`: share of the edges' power left at wavelengths from A down to B px.
        Holes: `cd_px`, `cd_change_px`, `cd_bias_px`, `roundness_px`, `roundness_change_px` (3σ of the rim's radius),
        `holes`, `holes_lost` (in the noisy image but not in the denoised; negative: more than before).

    Raises
    ------
    TypeError, ValueError
        An unknown kind, or batches of different shapes.

    Examples
    --------
    >>> figures = semnr.metrology.columns(noisy[None], denoised[None], clean[None], pixel_nm=1.0)
    >>> abs(figures["cd_bias_px"][0]) < 0.5, "ler_change_px" in figures
    (np.True_, True)
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; accepted: {', '.join(map(repr, KINDS))}")
    after = _batch("denoised", denoised, None)
    before, clean = _batch("noisy", noisy, after.shape), _batch("reference", reference, after.shape)
    measure: Callable[..., dict[str, float]] = _lines if kind == "lines" else _holes
    rows = [
        measure(
            None if noisy is None else before[i],
            after[i],
            None if reference is None else clean[i],
        )
        for i in range(len(after))
    ]
    names = dict.fromkeys(_LINE_COLUMNS if kind == "lines" else _HOLE_COLUMNS)
    names.update(dict.fromkeys(name for row in rows for name in row))
    values = {name: np.array([row.get(name, math.nan) for row in rows], dtype=np.float64) for name in names}
    if pixel_nm is not None:
        values["cd_nm"] = values["cd_px"] * float(pixel_nm)
    return values


_LINE_COLUMNS = (
    *("cd_px", "cd_change_px", "cd_bias_px", "edge_rms_px", "edge_error_px", "edge_error_noisy_px"),
    *("ler_noisy_px", "ler_px", "ler_change_px", "ler_noisy_unbiased_px", "ler_unbiased_px"),
    *("lwr_noisy_px", "lwr_px", "lwr_change_px", "lwr_noisy_unbiased_px", "lwr_unbiased_px", "unbiased_ok"),
)
_HOLE_COLUMNS = (
    *("cd_px", "cd_change_px", "cd_bias_px", "roundness_px", "roundness_change_px", "holes", "holes_lost"),
)


def _batch(name: str, images: Any, shape: tuple[int, ...] | None) -> np.ndarray:
    if images is None:
        return np.empty((0, 0, 0))
    pixels = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images, dtype=np.float64)
    if pixels.ndim == 4:
        pixels = pixels.mean(axis=1)
    if pixels.ndim != 3 or (shape is not None and pixels.shape != shape):
        wanted = "(N, H, W) or (N, C, H, W)" if shape is None else f"the shape of denoised, {shape}"
        raise ValueError(f"{name} has shape {pixels.shape}; accepted: {wanted}")
    return pixels


def _found(measure: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What `measure` finds, or None where the image does not show it: such a tile gets NaN, the others are measured."""
    try:
        return measure(*args, **options)
    except ValueError:
        return None


# --- lines ----------------------------------------------------------------------------------------------------


def _lines(noisy: np.ndarray | None, denoised: np.ndarray, reference: np.ndarray | None) -> dict[str, float]:
    # the cut is learnt on the cleanest image and used on all: CDs of one level only compare
    basis = next(image for image in (reference, noisy, denoised) if image is not None)
    first = _found(find_edges, basis) if is_grating(basis) else None
    edges = None if first is None else _found(find_edges, denoised, near=first)
    if first is None or edges is None or not edges.cd_px.size:
        return {}
    row = {"cd_px": float(edges.cd_px.mean())}
    row |= _roughness_columns("ler", edges.positions) | _roughness_columns("lwr", edges.width_rows())
    row["unbiased_ok"] = float(math.isfinite(row["ler_unbiased_px"]))
    before = None if noisy is None else first if basis is noisy else _found(find_edges, noisy, near=first)
    if before is not None and (comparison := _found(compare_lines, before, edges)) is not None:
        row |= _against_noisy(row, before, comparison)
    if reference is not None and math.isfinite(row["ler_px"]):  # edges long enough
        row |= _against_reference(first, edges, before)
    return row


def is_grating(image: np.ndarray) -> bool:
    """Whether the mean profile along one axis holds most of the image's variance, its noise calmed first."""
    from scipy.ndimage import gaussian_filter

    if not np.isfinite(image).all():
        return False
    calm = gaussian_filter(np.asarray(image, np.float64), 2.0)
    total = float(calm.var())
    return total > 0 and max(float(calm.mean(0).var()), float(calm.mean(1).var())) >= _STRAIGHT * total


def _roughness_columns(name: str, places: np.ndarray, infix: str = "") -> dict[str, float]:
    measured: Roughness | None = _found(roughness, places) if places.size else None
    if measured is None:
        return {f"{name}_{infix}px": math.nan, f"{name}_{infix}unbiased_px": math.nan}
    return {f"{name}_{infix}px": measured.biased, f"{name}_{infix}unbiased_px": measured.unbiased}


def _against_noisy(row: Mapping[str, float], before: LineEdges, comparison: LineComparison) -> dict[str, float]:
    more = {"cd_change_px": comparison.cd_shift, "edge_rms_px": comparison.edge_rms}
    if comparison.after.noise**2 < _SAME_FLOOR * comparison.before.noise**2:
        # flat or not, what is left up there is not the noise that was recorded: no floor to take off
        more |= {"ler_unbiased_px": math.nan, "lwr_unbiased_px": math.nan, "unbiased_ok": 0.0}
    more |= _roughness_columns("ler", before.positions, "noisy_")
    more |= _roughness_columns("lwr", before.width_rows(), "noisy_")
    for name in ("ler", "lwr"):
        more[f"{name}_change_px"] = row[f"{name}_px"] - more[f"{name}_noisy_px"]
    more |= {f"edge_psd_{long:.0f}_{short:.0f}": ratio for long, short, ratio in comparison.bands}
    return more


def _against_reference(true: LineEdges, edges: LineEdges, before: LineEdges | None) -> dict[str, float]:
    pair = _found(matched, true, edges)
    more = {} if pair is None else dict(zip(("cd_bias_px", "edge_error_px"), moved(*pair), strict=True))
    if before is not None and (pair := _found(matched, true, before)) is not None:
        more["edge_error_noisy_px"] = moved(*pair)[1]
    return more


# --- holes ----------------------------------------------------------------------------------------------------


def _holes(noisy: np.ndarray | None, denoised: np.ndarray, reference: np.ndarray | None) -> dict[str, float]:
    basis = next(image for image in (reference, noisy, denoised) if image is not None)
    if is_grating(basis):
        return {}
    level = _rim_level(basis)
    first = _found(measure_holes, basis, level=level) or []
    after = _found(measure_holes, denoised, level=level) or []
    if len(first) < _FEWEST_HOLES or not _alike(first):
        return {}
    row = {"holes": float(len(after))}
    if after:
        row |= {"cd_px": _mean(h.cd_px for h in after), "roundness_px": _mean(h.roundness for h in after)}
    before = None if noisy is None else first if basis is noisy else _found(measure_holes, noisy, level=level) or []
    if before is not None:
        row["holes_lost"] = float(len(before) - len(after))
        pairs = _pairs(before, after)
        row["cd_change_px"] = _mean(b.cd_px - a.cd_px for a, b in pairs)
        row["roundness_change_px"] = _mean(b.roundness - a.roundness for a, b in pairs)
    if reference is not None:
        row["cd_bias_px"] = _mean(b.cd_px - a.cd_px for a, b in _pairs(first, after))
    return row


def _rim_level(image: np.ndarray) -> float:
    """Half-way between the holes and their surroundings, after a blur that leaves their floors."""
    from scipy.ndimage import gaussian_filter

    low, high = np.percentile(gaussian_filter(np.asarray(image, np.float64), 1.5), (5, 75))
    return float(low + high) / 2


def _alike(holes: list[Hole]) -> bool:
    """Contacts of one design are of one size; what a threshold cuts out of another pattern is not."""
    sizes = np.array([hole.cd_px for hole in holes])
    low, middle, high = np.percentile(sizes, (25, 50, 75))
    return bool(high - low < 0.35 * middle)


def _pairs(first: list[Hole], second: list[Hole]) -> list[tuple[Hole, Hole]]:
    pairs: list[tuple[Hole, Hole]] = []
    if not second:
        return pairs
    places = np.array([hole.centre for hole in second])
    for hole in first:
        distance = np.hypot(*(places - hole.centre).T)
        nearest = int(distance.argmin())
        if distance[nearest] < _SAME_HOLE * hole.cd_px:
            pairs.append((hole, second[nearest]))
    return pairs


def _mean(values: Any) -> float:
    numbers = list(values)
    return float(np.mean(numbers)) if numbers else math.nan
