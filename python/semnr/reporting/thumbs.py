"""Thumbnails for the wafer map and the gallery: one sheet a role, so that a tile shows without the pixels of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base.pictures import OVERVIEW_QUALITY, grey, webp, window
from .draw import letter
from .images import Pixels
from .runs import RunData

SIDE = 72  # px
ACROSS = 12  # thumbnails in a row of a sheet
SHOWN_CANDIDATES = 4
_MOST_PIXELS = 3e8  # read for thumbnails; beyond, fewer tiles get one


def thumbnails(
    runs: Sequence[RunData],
    pixels: Pixels,
    tiles: Sequence[str],
    first: Sequence[str],
    flags: Mapping[str, Mapping[str, Any]],
    count: int,
) -> dict[str, Any] | None:
    """Sheets of up to `count` tiles, those that need a look before the others; None where no pixels are at hand."""
    chosen = _chosen(tiles, first, flags, count)
    shown = list(runs)[:SHOWN_CANDIDATES]
    roles = [("noisy", runs[0], "Noisy input")]
    roles += [
        ("image", run, f"{letter(k)} {run.label}" if len(runs) > 1 else "Denoised") for k, run in enumerate(shown)
    ]
    small: list[list[np.ndarray | None]] = [[] for _ in roles]
    slots: dict[int, int] = {}
    at = {tile: i for i, tile in enumerate(tiles)}
    read = 0
    for tile in chosen:
        images = [pixels.read(run, tile, role)[0] for role, run, _ in roles]
        basis = next((p for p in reversed(images) if p is not None), None)
        if basis is None:
            if not slots:
                return None  # the sources are not at hand: not asked for every tile
            continue
        low, high = window(basis)
        for sheet, image in zip(small, images, strict=True):
            sheet.append(None if image is None else _small(image, low, high))
        slots[at[tile]] = len(slots)
        read += sum(p.size for p in images if p is not None)
        if read > _MOST_PIXELS:
            break
    if not slots:
        return None
    sheets = [
        {"label": label, "uri": _sheet(sheet)}
        for (_, _, label), sheet in zip(roles, small, strict=True)
        if any(image is not None for image in sheet)
    ]
    return {"side": SIDE, "across": ACROSS, "slots": slots, "sheets": sheets}


def _chosen(
    tiles: Sequence[str], first: Sequence[str], flags: Mapping[str, Mapping[str, Any]], count: int
) -> list[str]:
    known = set(tiles)
    flagged = [tile for marked in flags.values() for tile in marked if tile in known]
    wanted = list(dict.fromkeys([*first, *flagged]))[:count]
    rest = count - len(wanted)
    if rest > 0:
        others = [tile for tile in tiles if tile not in set(wanted)]
        spread: Any = (
            np.unique(np.linspace(0, len(others) - 1, min(rest, len(others))).round().astype(int)) if others else []
        )
        wanted += [others[i] for i in spread]
    return wanted


def _small(image: np.ndarray, low: float, high: float) -> np.ndarray:
    from PIL import Image

    scale = SIDE / max(image.shape)
    height, width = (max(1, round(n * scale)) for n in image.shape)
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    small = np.asarray(Image.fromarray(image.astype(np.float32)).resize((width, height), method))
    thumb = np.full((SIDE, SIDE), 128, np.uint8)
    thumb[:height, :width] = grey(small, low, high)
    return thumb


def _sheet(images: Sequence[np.ndarray | None]) -> str:
    rows = -(-len(images) // ACROSS)
    sheet = np.full((rows * SIDE, min(ACROSS, len(images)) * SIDE), 128, np.uint8)
    for i, image in enumerate(images):
        if image is not None:
            row, column = divmod(i, ACROSS)
            sheet[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = image
    return webp(sheet, OVERVIEW_QUALITY)
