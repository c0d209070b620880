"""The panes of a tile: what each shows, as a PNG inside the file, all in one frame so that a zoom stays in step."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .draw import diverging_table, letter, lookup_table
from .images import Pixels
from .runs import RunData

SIDE = 512  # longest side of an embedded picture, px: the pixels of a usual tile one to one
SHOWN_CANDIDATES = 4
Z_RANGE = 8.0  # the evidence map's colours end there
_RESIDUAL_SIGMAS = 4.0
_RESIDUAL_LEVELS = 33  # more is noise that only makes the file larger


@dataclass
class Picture:
    """One pane: a PNG as a data URI, or the reason why there is none."""

    title: str
    kind: str  # reference, noisy, denoised, residual, evidence, ssim_map
    uri: str | None = None
    missing: str = ""
    width: int = 0
    height: int = 0
    boxes: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Shown:
    """The panes of one tile, column by column."""

    columns: list[list[Picture]]
    height: int  # of the tile, px: the boxes' frame
    width: int
    note: str = ""  # "reduced from ...", where the pictures are smaller than the tile

    @property
    def pictures(self) -> list[Picture]:
        return [picture for column in self.columns for picture in column]


def show(pixels: Pixels, runs: Sequence[RunData], tile: str, boxes: Sequence[list[dict[str, Any]]]) -> Shown:
    """Reference and noisy input, then for each candidate its pixels, its residual and its evidence map.

    `boxes`: of each run, what the evidence scan marked in this tile.
    """
    shown = list(runs)[:SHOWN_CANDIDATES]
    shared = {}
    for role in ("reference", "noisy"):
        read = [pixels.read(run, tile, role) for run in shown[:1]]
        read += [pixels.read(run, tile, role) for run in shown[1:] if read[-1][0] is None]
        shared[role] = next((r for r in read if r[0] is not None), read[0])
    reference, noisy = shared["reference"][0], shared["noisy"][0]
    candidates = [(k, run, *pixels.read(run, tile, "image")) for k, run in enumerate(shown)]

    basis = next((p for p in (reference, *(c[2] for c in candidates), noisy) if p is not None), None)
    low, high = window(basis)
    several = len(runs) > 1
    everywhere = _union(boxes[: len(shown)])
    first = [
        _grey("Reference", "reference", *shared["reference"], low, high),
        _grey("Noisy input", "noisy", *shared["noisy"], low, high),
    ]
    for picture in first:
        picture.boxes = everywhere
    columns = [first]
    for k, run, image, reason in candidates:
        name = letter(k) if several else ""
        column = [
            _grey(f"{name} {run.label}".strip() if several else "Denoised", "denoised", image, reason, low, high),
            _residual(f"{name} residual".strip().capitalize() if several else "Residual", noisy, image),
            _last(f"{name} " if several else "", pixels, run, tile, image, noisy, reference),
        ]
        for picture in column:
            picture.boxes = boxes[k]
        columns.append(column)
    height, width = (0, 0) if basis is None else basis.shape
    note = ""
    if max(height, width) > SIDE:
        note = f"pictures reduced from {width} × {height} px to at most {SIDE} px by area averaging"
    return Shown(columns, height, width, note)


def _union(boxes: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Boxes of all candidates, one where several have the same."""
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for box in (b for some in boxes for b in some):
        found.setdefault((box["kind"], round(box["row"] / 4), round(box["col"] / 4)), box)
    return list(found.values())


def _last(
    prefix: str,
    pixels: Pixels,
    run: RunData,
    tile: str,
    image: np.ndarray | None,
    noisy: np.ndarray | None,
    reference: np.ndarray | None,
) -> Picture:
    """The evidence map, as the run kept it or made here; without a noisy input, how the candidate differs from the
    reference."""
    z, reason = pixels.evidence_map(run, tile, image)
    if z is None and image is not None and noisy is not None:
        z, reason = _scanned(noisy, image, run)
    if z is not None:
        return _evidence_map(f"{prefix}evidence map" if prefix else "Evidence map", z)
    picture = _ssim_map(f"{prefix}SSIM map", image, reference, run)
    if picture.uri is None:
        picture.missing = f"{picture.missing}; {reason}" if reason else picture.missing
    return picture


def _scanned(noisy: np.ndarray, image: np.ndarray, run: RunData) -> tuple[np.ndarray | None, str]:
    from ..trust.residual import residual_tests

    try:
        found = residual_tests(noisy, image, data_range=run.data_range, nan="omit", return_maps=True)
    except ValueError as error:  # too small, shapes that differ
        return None, str(error)
    return (None, "no evidence map") if found.maps is None else (np.asarray(found.maps["evidence"][0]), "")


def window(pixels: np.ndarray | None) -> tuple[float, float]:
    """Grey window from the reference, a little wider than its range, so that noise is not clipped away at once."""
    if pixels is None:
        return 0.0, 1.0
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, (0.2, 99.8)))
    pad = 0.08 * (high - low) or 1.0
    return low - pad, high + pad


def _grey(title: str, kind: str, image: np.ndarray | None, reason: str, low: float, high: float) -> Picture:
    if image is None:
        return Picture(title, kind, missing=reason or "no pixels")
    scaled = np.nan_to_num((_reduced(image) - low) * (255 / (high - low)))
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return Picture(title, kind, _png(grey), "", grey.shape[1], grey.shape[0])


def _residual(title: str, noisy: np.ndarray | None, image: np.ndarray | None) -> Picture:
    """noisy − denoised, mid-grey where nothing was taken."""
    if noisy is None or image is None:
        return Picture(
            title, "residual", missing=f"needs the pixels of the {'noisy input' if noisy is None else 'candidate'}"
        )
    if noisy.shape != image.shape:
        return Picture(title, "residual", missing=f"shapes differ: {noisy.shape} and {image.shape}")
    rest = _reduced(noisy.astype(np.float64) - image.astype(np.float64))
    spread = 1.4826 * float(np.nanmedian(np.abs(rest - np.nanmedian(rest)))) or float(np.nanstd(rest)) or 1.0
    steps = np.nan_to_num(rest / (_RESIDUAL_SIGMAS * spread)).clip(-1, 1)
    half = _RESIDUAL_LEVELS // 2
    grey = np.rint(127.5 + np.rint(steps * half) / half * 127.5).astype(np.uint8)
    return Picture(title, "residual", _png(grey), "", grey.shape[1], grey.shape[0])


def _evidence_map(title: str, z: np.ndarray) -> Picture:
    small = _reduced(z)
    steps = np.rint((np.nan_to_num(small).clip(-Z_RANGE, Z_RANGE) / Z_RANGE + 1) * 32)
    index = np.where(np.isnan(small), 255, steps).astype(np.uint8)
    return Picture(title, "evidence", _png(index, diverging_table(65)), "", index.shape[1], index.shape[0])


def _ssim_map(title: str, image: np.ndarray | None, reference: np.ndarray | None, run: RunData) -> Picture:
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
    small = _reduced(full)
    index = np.where(np.isnan(small), 255, np.rint(np.clip(np.nan_to_num(small), 0, 1) * 254)).astype(np.uint8)
    table = lookup_table()[np.linspace(0, 255, 255).round().astype(int)]
    return Picture(title, kind, _png(index, table), "", index.shape[1], index.shape[0])


def _reduced(image: np.ndarray) -> np.ndarray:
    """At most SIDE px, by area averaging (nothing is sharpened, nothing aliases); small tiles stay as they are."""
    longest = max(image.shape)
    if longest <= SIDE:
        return image.astype(np.float64)
    from PIL import Image

    height, width = (max(1, round(n * SIDE / longest)) for n in image.shape)
    return np.asarray(
        Image.fromarray(image.astype(np.float32)).resize((width, height), Image.Resampling.BOX), dtype=np.float64
    )


def _png(pixels: np.ndarray, table: np.ndarray | None = None) -> str:
    """A grey picture, or one whose values are rows of `table`, 255 being nothing."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    extra: dict[str, Any] = {}
    if table is not None:
        colours = np.full((256, 3), 128, np.uint8)
        colours[: len(table)] = table
        picture.putpalette(colours.tobytes())
        extra["transparency"] = 255
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=7, **extra)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def described(box: dict[str, Any]) -> str:
    """A box in words, for a list beside the panes."""
    z = "" if math.isnan(box["z"]) else f", {abs(box['z']):.1f} σ"
    return f"{box['kind']} at row {box['row']:.0f}, column {box['col']:.0f}{z}"
