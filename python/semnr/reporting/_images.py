"""The worst tiles: which they are, their pixels, and the PNGs that go into the file."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._draw import letter, lookup_table
from ._metrics import BY_COLUMN, RANKING, Metric
from ._runs import RunData

Reader = Callable[[str, str], "np.ndarray | None"]
SIDE = 320  # longest side of an embedded picture, px: enough to see a 6-px defect of a 512-px tile
SHOWN_CANDIDATES = 4


@dataclass
class Picture:
    """One cell of the worst-tiles grid: a PNG as a data URI, or the reason why there is none."""

    title: str
    kind: str  # reference, noisy, denoised, ssim_map
    uri: str | None = None
    missing: str = ""
    width: int = 0
    height: int = 0


@dataclass
class WorstTile:
    tile: str
    place: str
    why: list[str]
    pictures: list[Picture]
    numbers: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # run label -> (metric, value)
    scale: str = ""  # "shown at 320 of 512 px", where reduced


def pick_worst(
    runs: Sequence[RunData], flags: Mapping[str, Mapping[str, Sequence[str]]], count: int
) -> tuple[list[tuple[str, list[str]]], Metric | None]:
    """Tiles worth a look, each with the reason: flagged first, then the lowest scores; the candidates take turns."""
    ranking = next((BY_COLUMN[c] for c in RANKING if any(run.has(c) for run in runs)), None)
    chosen: dict[str, list[str]] = {}
    for flagged in (True, False):
        queues = []
        for k, run in enumerate(runs):
            values = run.values(ranking.column) if ranking else np.full(len(run.tiles), np.nan)
            marked = flags.get(run.label, {})
            rows = [i for i, t in enumerate(run.tiles) if (t in marked if flagged else not math.isnan(values[i]))]
            rows.sort(key=lambda i, values=values: np.nan_to_num(values[i], nan=np.inf))  # type: ignore[misc]
            queues.append((f"{letter(k)}: " if len(runs) > 1 else "", run, marked, rows))
        while len(chosen) < count and any(rows for *_, rows in queues):
            for key, run, marked, rows in queues:
                while rows and run.tiles[rows[0]] in chosen:
                    rows.pop(0)
                if rows and len(chosen) < count:
                    tile = run.tiles[rows.pop(0)]
                    low = f"among the lowest {ranking.label}" if ranking else ""
                    chosen[tile] = [key + (f"flagged: {', '.join(marked[tile])}" if flagged else low)]
    return list(chosen.items()), ranking


class Pixels:
    """Reads tiles of a run by role, from a callable or from the sources named in run.json; opens each source once."""

    def __init__(self, images: Any, runs: Sequence[RunData]) -> None:
        if images is not None and not callable(images) and not isinstance(images, Mapping):
            raise TypeError(
                f"images is {type(images).__name__}; accepted: a function (tile, role) -> array or None, "
                "or a dict of such functions by run label"
            )
        self._images = images
        self._runs = runs
        self._open: dict[str, Any] = {}  # source -> TileSource, or the reason (str) why it could not be opened

    def read(self, run: RunData, tile: str, role: str) -> tuple[np.ndarray | None, str]:
        """Pixels as (H, W) and "", or None and the reason. `role`: reference, noisy or image (the candidate)."""
        given = self._images.get(run.label) if isinstance(self._images, Mapping) else self._images
        if given is not None:
            # one function serves the roles that all candidates share, and the pixels of the first candidate
            if role == "image" and not isinstance(self._images, Mapping) and run is not self._runs[0]:
                return self._from_sources(run, tile, role)
            pixels = given(tile, role)
            return (None, "not given") if pixels is None else (_flat(np.asarray(pixels)), "")
        return self._from_sources(run, tile, role)

    def _from_sources(self, run: RunData, tile: str, role: str) -> tuple[np.ndarray | None, str]:
        from semnr_kernels._errors import SemnrError

        named = {name: run.meta.get(name) or run.settings.get(name) for name in ("source", "reference", "noisy")}
        order = {"image": ("source",), "reference": ("reference", "source"), "noisy": ("noisy", "source", "reference")}
        reasons = []
        for name in order[role]:
            if not named[name]:
                continue
            source = self._source(str(named[name]), run)
            if isinstance(source, str):
                reasons.append(source)
                continue
            held = _role_of(source.roles, role, name)
            if held is None:
                continue
            try:
                key = source.find(tile)
                if key is not None:
                    return _flat(source.read(key, held)), ""
                reasons.append("no such tile in the source")
            except (SemnrError, OSError, ValueError) as error:
                reasons.append(str(error))
        return None, reasons[0] if reasons else f"the run names no {role} pixels"

    def _source(self, name: str, run: RunData) -> Any:
        from semnr_kernels._errors import SemnrError

        from ..tiles import open_tiles

        beside = run.path / name  # run.json names sources relative to its folder
        where = str(beside.resolve()) if "://" not in name and beside.exists() else name
        if where not in self._open:
            try:
                self._open[where] = open_tiles(where)
            except (SemnrError, OSError, ValueError, TypeError) as error:
                self._open[where] = f"source not at hand: {error}"
        return self._open[where]

    def close(self) -> None:
        for source in self._open.values():
            if not isinstance(source, str):
                source.close()


def _role_of(roles: Sequence[str], role: str, source: str) -> str | None:
    """Which of a source's roles answers for `role`."""
    accepted = {
        "image": ("candidate", "image", "denoised", "noisy"),
        "reference": ("reference", "image") if source == "reference" else ("reference",),
        "noisy": ("noisy", "image") if source == "noisy" else ("noisy",),
    }[role]
    return next((name for name in accepted if name in roles), None)


def _flat(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 3:
        return pixels[0] if pixels.shape[0] == 1 else pixels.mean(axis=0)
    if pixels.ndim != 2:
        raise ValueError(f"a tile has shape {pixels.shape}; accepted: (H, W) or (C, H, W)")
    return pixels


def show(pixels: Pixels, runs: Sequence[RunData], tile: str) -> tuple[list[Picture], str]:
    """Reference, noisy input, then for each candidate its pixels and SSIM map; and the note on their size."""
    shown = list(runs)[:SHOWN_CANDIDATES]
    shared = {}
    for role in ("reference", "noisy"):
        read = [pixels.read(run, tile, role) for run in shown[:1]]
        read += [pixels.read(run, tile, role) for run in shown[1:] if read[-1][0] is None]
        shared[role] = next((r for r in read if r[0] is not None), read[0])
    candidates = [(k, run, *pixels.read(run, tile, "image")) for k, run in enumerate(shown)]

    basis = next((p for p in (shared["reference"][0], *(c[2] for c in candidates)) if p is not None), None)
    low, high = _window(basis)
    pictures = [
        _grey("Reference", "reference", *shared["reference"], low, high),
        _grey("Noisy input", "noisy", *shared["noisy"], low, high),
    ]
    for k, run, image, reason in candidates:
        several = len(runs) > 1
        name = f"{letter(k)} {run.label}" if several else "Denoised"
        pictures.append(_grey(name, "denoised", image, reason, low, high))
        title = f"SSIM map of {name}" if several else "SSIM map"
        pictures.append(_ssim_map(title, image, shared["reference"][0], run))
    note = ""
    if basis is not None and max(basis.shape) > SIDE:
        note = f"pictures reduced from {basis.shape[1]} × {basis.shape[0]} px to at most {SIDE} px by area averaging"
    return pictures, note


def _window(pixels: np.ndarray | None) -> tuple[float, float]:
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
    return Picture(title, kind, _png(index, palette=True), "", index.shape[1], index.shape[0])


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


def _png(pixels: np.ndarray, palette: bool = False) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    extra: dict[str, Any] = {}
    if palette:
        table = lookup_table()[np.linspace(0, 255, 255).round().astype(int)]
        picture = picture.convert("P") if picture.mode != "L" else picture
        picture.putpalette(np.concatenate([table, [[128, 128, 128]]]).astype(np.uint8).tobytes())
        extra["transparency"] = 255
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, **extra)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
