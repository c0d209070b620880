"""The panes of a tile: the whole tile reduced, and in it the place to look at with every pixel, all in one frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..base.pictures import OVERVIEW_QUALITY, coloured, grey, reduced, webp, window
from .draw import diverging_table, letter, lookup_table
from .focus import Crop, cut, hottest
from .images import Pixels
from .runs import RunData

Colour = Callable[[np.ndarray], np.ndarray]  # levels to uint8 grey or RGBA

SIDE = 256  # longest side of a tile's overview, px
DETAIL = 160  # side of the part that is shown with every pixel, px; smaller tiles are shown whole
SHOWN_CANDIDATES = 4
Z_RANGE = 8.0  # the evidence map's colours end there
RESIDUAL_SIGMAS = 4.0
RESIDUAL_LEVELS = 33  # more is noise that only makes the file larger
_Z_LEVELS = 65


@dataclass
class Picture:
    """One pane: the overview and the detail as data URIs, or the reason why there are none."""

    title: str
    kind: str  # reference, noisy, denoised, residual, evidence, ssim_map
    uri: str | None = None
    missing: str = ""
    width: int = 0
    height: int = 0
    detail: str | None = None  # None where the overview has every pixel
    boxes: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Shown:
    """The panes of one tile, column by column."""

    columns: list[list[Picture]]
    height: int  # of the tile, px: the frame of boxes and detail
    width: int
    crop: Crop | None = None  # the part with every pixel; None where that is the whole tile

    @property
    def pictures(self) -> list[Picture]:
        return [picture for column in self.columns for picture in column]


def show(pixels: Pixels, runs: Sequence[RunData], tile: str, boxes: Sequence[list[dict[str, Any]]]) -> Shown:
    """Reference and noisy input, then for each candidate its pixels, its residual and its evidence map.

    `boxes`: of each run, what the evidence scan marked in this tile.
    """
    shown = list(runs)[:SHOWN_CANDIDATES]
    shared = {role: shared_role(pixels, shown, tile, role) for role in ("reference", "noisy")}
    reference, noisy = shared["reference"][0], shared["noisy"][0]
    candidates = [(k, run, *pixels.read(run, tile, "image")) for k, run in enumerate(shown)]

    basis = next((p for p in (reference, *(c[2] for c in candidates), noisy) if p is not None), None)
    levels = window(basis)
    everywhere = _union(boxes[: len(shown)])
    others = [image for _, _, image, _ in candidates if image is not None]
    crop = None if basis is None else _detail(basis, noisy if noisy is not None else reference, others, everywhere)
    several = len(runs) > 1
    first = [_grey("Noisy input", "noisy", *shared["noisy"], levels, crop)]
    if reference is not None or any(run.meta.get("reference") for run in runs):
        first.insert(0, _grey("Reference", "reference", *shared["reference"], levels, crop))
    for picture in first:
        picture.boxes = everywhere
    columns = [first]
    for k, run, image, reason in candidates:
        name = letter(k) if several else ""
        column = [
            _grey(f"{name} {run.label}".strip() if several else "Denoised", "denoised", image, reason, levels, crop),
            _residual(f"{name} residual".strip().capitalize() if several else "Residual", noisy, image, crop),
            _last(f"{name} " if several else "", pixels, run, tile, image, noisy, reference, crop),
        ]
        for picture in column:
            picture.boxes = boxes[k]
        columns.append(column)
    height, width = (0, 0) if basis is None else basis.shape
    return Shown(columns, height, width, crop)


def shared_role(pixels: Pixels, runs: Sequence[RunData], tile: str, role: str) -> tuple[np.ndarray | None, str]:
    """Pixels that all candidates share, from the first run that has them; or None and the first run's reason."""
    first: tuple[np.ndarray | None, str] = (None, "no run")
    for k, run in enumerate(runs):
        answer = pixels.read(run, tile, role)
        if answer[0] is not None:
            return answer
        first = answer if k == 0 else first
    return first


def _detail(
    basis: np.ndarray, before: np.ndarray | None, after: Sequence[np.ndarray], boxes: Sequence[Mapping[str, Any]]
) -> Crop | None:
    """The part of a tile to show with every pixel: around the strongest mark, else where most was taken away."""
    if max(basis.shape) <= SIDE:
        return None
    if boxes:
        strongest = max(boxes, key=lambda b: abs(b["z"]) if b["z"] == b["z"] else 0.0)
        return cut(basis.shape, strongest["row"], strongest["col"], DETAIL)
    place = next((p for p in (hottest(before, image, DETAIL) for image in after) if p is not None), None)
    row, col = place or (basis.shape[0] / 2, basis.shape[1] / 2)
    return cut(basis.shape, row, col, DETAIL)


def _union(boxes: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Boxes of all candidates, one where several have the same."""
    distinct: dict[tuple[str, int, int], dict[str, Any]] = {}
    for box in (b for some in boxes for b in some):
        distinct.setdefault((box["kind"], round(box["row"] / 4), round(box["col"] / 4)), box)
    return list(distinct.values())


def _last(
    prefix: str,
    pixels: Pixels,
    run: RunData,
    tile: str,
    image: np.ndarray | None,
    noisy: np.ndarray | None,
    reference: np.ndarray | None,
    crop: Crop | None,
) -> Picture:
    """The evidence map, as the run kept it or made here; without a noisy input, how the candidate differs from the
    reference."""
    z, reason = pixels.evidence_map(run, tile, image)
    if z is None and image is not None and noisy is not None:
        z, reason = scanned(noisy, image, run)
    if z is not None:
        return _evidence_map(f"{prefix}evidence map" if prefix else "Evidence map", z, crop)
    picture = _ssim_map(f"{prefix}SSIM map", image, reference, run, crop)
    if picture.uri is None:
        picture.missing = f"{picture.missing}; {reason}" if reason else picture.missing
    return picture


def scanned(noisy: np.ndarray, image: np.ndarray, run: RunData) -> tuple[np.ndarray | None, str]:
    """The evidence map made from pixels, or None and the reason."""
    from ..trust.residual import residual_tests

    try:
        tests = residual_tests(noisy, image, data_range=run.data_range, nan="omit", return_maps=True)
    except ValueError as error:  # too small, shapes that differ
        return None, str(error)
    return (None, "no evidence map") if tests.maps is None else (np.asarray(tests.maps["evidence"][0]), "")


def _stored(title: str, kind: str, image: np.ndarray, crop: Crop | None, colour: Colour) -> Picture:
    """A picture of `image`: reduced and, where that loses pixels, its detail. `colour` makes uint8 of levels."""
    whole = colour(reduced(image, SIDE))
    height, width = whole.shape[:2]
    if crop is None:
        return Picture(title, kind, webp(whole), "", width, height)
    rows, columns = crop.rows, crop.columns
    overview = webp(whole, OVERVIEW_QUALITY)
    return Picture(title, kind, overview, "", width, height, webp(colour(image[rows, columns])))


def _grey(
    title: str, kind: str, image: np.ndarray | None, reason: str, levels: tuple[float, float], crop: Crop | None
) -> Picture:
    if image is None:
        return Picture(title, kind, missing=reason or "no pixels")
    return _stored(title, kind, image, crop, lambda pixels: grey(pixels, *levels))


def residual_of(noisy: np.ndarray, image: np.ndarray) -> np.ndarray:
    """noisy − denoised in units of its own spread, taken where it is ordinary."""
    rest = noisy.astype(np.float64) - image.astype(np.float64)
    spread = 1.4826 * float(np.nanmedian(np.abs(rest - np.nanmedian(rest)))) or float(np.nanstd(rest)) or 1.0
    return rest / spread


def residual_grey(rest: np.ndarray) -> np.ndarray:
    """uint8 of `residual_of`: mid-grey where nothing was taken."""
    half = RESIDUAL_LEVELS // 2
    steps = np.nan_to_num(rest / RESIDUAL_SIGMAS).clip(-1, 1)
    return np.rint(127.5 + np.rint(steps * half) / half * 127.5).astype(np.uint8)


def _residual(title: str, noisy: np.ndarray | None, image: np.ndarray | None, crop: Crop | None = None) -> Picture:
    if noisy is None or image is None:
        return Picture(
            title, "residual", missing=f"needs the pixels of the {'noisy input' if noisy is None else 'candidate'}"
        )
    if noisy.shape != image.shape:
        return Picture(title, "residual", missing=f"shapes differ: {noisy.shape} and {image.shape}")
    return _stored(title, "residual", residual_of(noisy, image), crop, residual_grey)


def _evidence_map(title: str, z: np.ndarray, crop: Crop | None) -> Picture:
    table = diverging_table(_Z_LEVELS)

    def colour(values: np.ndarray) -> np.ndarray:
        steps = np.rint((np.nan_to_num(values).clip(-Z_RANGE, Z_RANGE) / Z_RANGE + 1) * (_Z_LEVELS // 2))
        return coloured(np.where(np.isnan(values), _Z_LEVELS, steps).astype(np.uint8), table)

    return _stored(title, "evidence", z, crop, colour)


def _ssim_map(
    title: str, image: np.ndarray | None, reference: np.ndarray | None, run: RunData, crop: Crop | None = None
) -> Picture:
    kind = "ssim_map"
    if image is None or reference is None:
        lacking = "candidate" if image is None else "reference"
        return Picture(title, kind, missing=f"needs the pixels of the {lacking}")
    if image.shape != reference.shape:
        return Picture(title, kind, missing=f"shapes differ: {image.shape} and {reference.shape}")
    import torch

    from semnr_kernels.ssim import ssim

    data_range = run.data_range or (np.iinfo(image.dtype).max if image.dtype.kind == "u" else None)
    if data_range is None:
        return Picture(title, kind, missing="the run states no data_range")
    try:
        x, y = (torch.from_numpy(np.ascontiguousarray(p, dtype=np.float64)) for p in (image, reference))
        _, ssim_map = ssim(x, y, data_range=float(data_range), return_map=True)
    except ValueError as error:  # smaller than the window, NaN pixels
        return Picture(title, kind, missing=str(error))
    local = ssim_map.detach().cpu().numpy().astype(float).reshape(ssim_map.shape[-2:])
    # the valid border: the map is smaller than the tile; it is laid into the tile's frame, the border left empty
    full = np.full(image.shape, np.nan)
    top, left = ((full.shape[i] - local.shape[i]) // 2 for i in (0, 1))
    full[top : top + local.shape[0], left : left + local.shape[1]] = local
    table = lookup_table()[np.linspace(0, 255, 255).round().astype(int)]

    def colour(values: np.ndarray) -> np.ndarray:
        steps = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 254)
        return coloured(np.where(np.isnan(values), 255, steps).astype(np.uint8), table)

    return _stored(title, kind, full, crop, colour)


def described(box: dict[str, Any]) -> str:
    """A box in words, for a list beside the panes."""
    z = "" if box["z"] != box["z"] else f", {abs(box['z']):.1f} σ"
    return f"{box['kind']} at row {box['row']:.0f}, column {box['col']:.0f}{z}"
