"""The evidence of a batch whose pixels lie on a device: noise, scan, changes and transfer one after another, then one
copy of all figures to the host.

Nothing between the first operation and that copy waits for a value. The ops are those of `semnr_kernels`, backends
"triton" and "torch"; what is made of their figures on the host is what is made of those of the CPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from semnr_kernels import batched, checks, graphs, registry
from semnr_kernels.changes import Settings as ChangesSettings
from semnr_kernels.changes import on_device as changes_rows
from semnr_kernels.noise import on_device as noise_rows
from semnr_kernels.planes import Tiles
from semnr_kernels.residual import SIZES, Settings
from semnr_kernels.residual import on_device as residual_rows
from semnr_kernels.transfer import Settings as TransferSettings
from semnr_kernels.transfer.blocks import block_side

from ..noise.model import from_fitted, window_places
from . import changes
from .fits import SAMPLES
from .images import own_range
from .residual import ResidualTests, as_tests, filled
from .transfer import MIN_STRUCTURE_Z, Evidence, as_evidence

ALPHA = 0.005  # of `semnr.residual_tests`
MASK = "mask"
_TRANSFER = ("transfer", "se", "structure_z", "energy")
_BATCHED = ("triton", "torch", "triton-interpret")  # backends that take a batch at once


class Asked(NamedTuple):
    """What is taken of a batch: as `trust.columns.Trust` has it, and as it is called."""

    tests: bool
    transfer: bool
    scan_axis: int
    bands: tuple[tuple[float, float], ...]
    block: int | None
    data_range: float | None
    nan: str
    with_map: bool


class Found(NamedTuple):
    """What came back; None where it was not asked for, or cannot be."""

    evidence: Evidence | None
    tests: ResidualTests | None
    changes: dict[str, np.ndarray] | None


def takes(tiles: Mapping[str, Tiles], tests: bool) -> bool:
    """Whether every op that is asked of these images would run on a backend that takes a batch at once."""
    images = tiles["denoised"].images
    ops = (("noise", "residual", "changes") if tests else ()) + (("transfer",) if len(tiles) > 2 else ())
    if not ops or images.shape[1] != 1 or min(images.shape[2:]) < changes.MIN_SIDE:
        return False
    return all(registry.choose(registry.Call.of(op, images)).backend in _BATCHED for op in ops)


def _kernels(op: str, images: torch.Tensor) -> Any:
    """The module of `op` whose kernels take a batch of these images."""
    triton = registry.choose(registry.Call.of(op, images)).backend.startswith("triton")
    return importlib.import_module(f"semnr_kernels.{op}.{'triton_kernel' if triton else 'on_device'}")


def found(tiles: Mapping[str, Tiles], asked: Asked, mask: torch.Tensor | None) -> Found:
    """Of noisy, denoised and maybe a reference or a second frame, (N, 1, H, W) on one device.

    mask: (N, 1, H, W) bool or None.
    """
    inputs = {name: v.images for name, v in tiles.items()}
    if mask is not None:
        inputs[MASK] = mask
    images = tuple(inputs.values())
    told = (tuple(inputs), asked)
    rows, layout, largest = graphs.run("evidence", _of_images, images, *told, key=told)
    return _told(tiles, asked, batched.unpacked(rows, layout), largest)


def _of_images(*of: Any) -> Any:
    """`_computed` of images, their names and what is asked, as a graph wants it."""
    *images, names, asked = of
    return _computed(dict(zip(names, images, strict=True)), asked)


def _computed(
    inputs: Mapping[str, torch.Tensor], asked: Asked
) -> tuple[torch.Tensor, dict[str, tuple[int, ...]], torch.Tensor | None]:
    """All figures in one tensor on the device, their layout, and the map."""
    tiles = {name: Tiles(v) for name, v in inputs.items() if name != MASK}
    figures, largest = _figures(tiles, asked, inputs.get(MASK))
    return batched.packed(figures), batched.layout_of(figures), largest


def _figures(
    tiles: Mapping[str, Tiles], asked: Asked, mask: torch.Tensor | None
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """All figures on the device, (N, ...) by name, and the map."""
    noisy, denoised = tiles["noisy"], tiles["denoised"]
    witness = tiles.get("reference", tiles.get("second_frame"))
    out: dict[str, torch.Tensor] = {}
    valid, bad = {}, {}
    for name, images in tiles.items():
        if name != "third_frame" and images.images.dtype.is_floating_point:
            finite = images.images.isfinite()
            bad[name] = ~(finite if mask is None else finite | ~mask).flatten(1).all(1)
            valid[name] = finite
    out |= {f"bad {name}": v for name, v in bad.items()}
    largest = None
    if asked.tests or asked.with_map:
        found, largest = _tests(noisy, denoised, _valid(valid, mask, ("noisy", "denoised")), asked)
        taps = found.pop("taps")
        out |= found
        settings = ChangesSettings(own_range(denoised.images, asked.data_range), asked.scan_axis)
        clean = None if witness is None else witness.levelled()
        rows = _kernels("changes", denoised.images).rows(noisy.levelled(), denoised.levelled(), clean, settings, taps)
        out |= {f"changes {k}": v for k, v in rows.items()}
        out["level"] = _level(denoised)
    if asked.transfer and witness is not None:
        names = ("noisy", "denoised", *(name for name in ("reference", "second_frame") if name in tiles))
        inside = _valid(valid, mask, names)
        transfer_rows = _kernels("transfer", denoised.images)
        for k, settings_of_band in enumerate(_bands(asked, denoised, "reference" in tiles)):
            within = None if inside is None else inside[:, 0]
            levels = noisy.levelled(), denoised.levelled(), witness.levelled()
            row = transfer_rows.rows(*levels, within, settings_of_band)
            out |= {f"{name} {k}": getattr(row, name) for name in (*_TRANSFER, *(("mse_drop",) if k == 0 else ()))}
    return out, largest


def _valid(finite: Mapping[str, torch.Tensor], mask: torch.Tensor | None, names: Sequence[str]) -> torch.Tensor | None:
    """(N, 1, H, W) bool: pixels of the mask that are finite in each of these images; None: all."""
    out = mask
    for name in names:
        if name in finite:
            out = finite[name] if out is None else out & finite[name]
    return out


def _bands(asked: Asked, denoised: Tiles, clean: bool) -> list[TransferSettings]:
    bands = asked.bands
    side = _side(asked, denoised)
    return [
        TransferSettings(low, high, side, MIN_STRUCTURE_Z, not clean, with_drop=k == 0)
        for k, (low, high) in enumerate(bands)
    ]


def _side(asked: Asked, denoised: Tiles) -> int:
    height, width = denoised.images.shape[2:]
    return asked.block or block_side(height, width, max(high for _, high in asked.bands))


def _level(tiles: Tiles) -> torch.Tensor:
    """(N,): the mean grey level; that of floats without NaN."""
    if tiles.images.dtype.is_floating_point:
        return tiles.images.double().nanmean((1, 2, 3))
    plane = tiles.levelled()
    return plane.level + batched.total(plane.data, 1, 2) / plane.data[0].numel()


def _tests(
    noisy: Tiles, denoised: Tiles, valid: torch.Tensor | None, asked: Asked
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """The law of the noise and the scan, scan lines as rows."""
    data_range = own_range(noisy.images, asked.data_range)
    if valid is not None:
        noisy, denoised = (Tiles(filled(v.images, valid)) for v in (noisy, denoised))
    if asked.scan_axis == -2:
        noisy, denoised = (Tiles(v.images.transpose(2, 3)) for v in (noisy, denoised))
        valid = None if valid is None else valid.transpose(2, 3)
    height, width = noisy.images.shape[2:]
    windows = [noisy.images[:, 0, rows, columns] for _, rows, columns in window_places([(height, width)], SAMPLES)]
    noise = _kernels("noise", noisy.images)
    laws = noise.laws(windows, *noise.ends(windows, data_range))
    taps = noise.whitening(laws.products)
    lines = residual_rows.Lines(laws.gain, laws.offset, laws.floor, taps)
    inside = None if valid is None else valid[:, 0]
    scanned = _kernels("residual", denoised.images).rows
    scan, largest = scanned(noisy.levelled(), denoised.levelled(), inside, lines, _settings(asked))
    found = {f"noise {k}": v for k, v in laws._asdict().items()} | {f"scan {k}": v for k, v in scan.items()}
    return {**found, "taps": taps, "step": noise.steps(windows)}, largest


def _settings(asked: Asked) -> Settings:
    return Settings(ALPHA, SIZES, asked.with_map)


# --- on the host ---


def _refuse(tiles: Mapping[str, Tiles], rows: Mapping[str, np.ndarray], nan: str) -> None:
    """Non-finite pixels, where they are an error: the images are asked again for what is said of them."""
    bad = {name: tiles[name].images for name in tiles if rows.get(f"bad {name}", np.zeros(1)).any()}
    if nan == "error" and bad:
        checks.raise_if_nonfinite(**bad)


def _told(
    tiles: Mapping[str, Tiles], asked: Asked, rows: Mapping[str, np.ndarray], largest: torch.Tensor | None
) -> Found:
    _refuse(tiles, rows, asked.nan)

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in rows.items() if k.startswith(prefix)}

    tests = told_changes = moved = None
    if asked.tests or asked.with_map:
        fitted = zip(noise_rows.told(part("noise ")), rows["step"].tolist(), strict=True)
        models = [from_fitted(*law, step=step) for law, step in fitted]
        scan = residual_rows.told(part("scan "), None if largest is None else largest.cpu().numpy())
        tests = as_tests(scan, models, _settings(asked), asked.scan_axis, asked.nan)
        shape = tuple(tiles["denoised"].images.shape[2:])
        witness = "reference" in tiles or "second_frame" in tiles
        laws = changes.laws_at(models, rows["level"].tolist())
        figures = changes_rows.told(part("changes "), laws, (True, witness), shape, asked.scan_axis)  # type: ignore[arg-type]
        told_changes = changes.as_columns(figures)
    if "transfer 0" in rows:
        bands = asked.bands
        joined = {name: np.stack([rows[f"{name} {k}"] for k in range(len(bands))], 1) for name in _TRANSFER}
        against = "reference" if "reference" in tiles else "second_frame"
        side = _side(asked, tiles["denoised"])
        moved = as_evidence(
            {**joined, "mse_drop": rows["mse_drop 0"]}, bands, against, side, asked.nan, asked.data_range
        )
    return Found(moved, tests, told_changes)
