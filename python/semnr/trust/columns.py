"""The evidence on a candidate as columns: the same for a scored run, for `guard(inputs=)` and for `stress`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from semnr_kernels import checks
from semnr_kernels.planes import Tiles

from ..metrology import columns as metrology_columns
from ..noise import NoiseModel
from ..tiles.pixels import to_numpy
from . import at_once, changes
from .comparable import Pairs
from .images import as_tiles_once
from .residual import COLUMNS, ResidualTests, residual_tests
from .transfer import Evidence, as_bands, evidence
from .two_frames import without_reference

BOXES = "evidence_boxes"
_SCATTER = 2.8  # over the side in px: how far the residual's variance scatters over tiles that hold noise alone
_LEAST_SIDE = 32  # px: smaller tiles hold neither their noise nor the surroundings of a defect


@dataclass(frozen=True)
class Measured:
    """Columns (float rows) and texts of a batch of tiles, the evidence map (N, H, W) where it was asked for."""

    columns: dict[str, np.ndarray]
    texts: dict[str, tuple[str | None, ...]]
    map: np.ndarray | None = None
    transfer: Evidence | None = None


@dataclass(frozen=True)
class Trust:
    """Which evidence is taken, and how.

    Attributes
    ----------
    tests
        The residual tests and the changes beside noise, too.
    metrology
        "lines", "holes" or None.
    scan_axis
        -1 where scan lines are rows, -2 where they are columns.
    bands, block
        Of evidence transfer, see `semnr.evidence`.
    """

    tests: bool = True
    metrology: str | None = None
    scan_axis: int = -1
    bands: Sequence[tuple[float, float]] = ((1.0, 4.0),)
    block: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"tests": self.tests, "metrology": self.metrology, "scan_axis": self.scan_axis}

    def measure(
        self,
        images: Mapping[str, Any],
        *,
        data_range: float | None,
        nan: str = "error",
        mask: Any = None,
        pixel_nm: float | None = None,
        with_map: bool = False,
        pairs: Pairs | None = None,
        host: Mapping[str, Any] | None = None,
    ) -> Measured:
        """Everything that a batch's images tell of the candidate.

        images: (N, C, H, W) each; "denoised", and of "noisy", "reference", "second_frame", "third_frame" what is known.
        pairs: from `pairs_of`, where noisy and denoised images were looked at before.
        host: the same images in the host's memory, where they lie on a device and were read from there.
        """
        given = pairs.given if pairs is not None and host is None else {}  # what is made of an image is made once
        tiles = _checked({**images, **given})
        noisy, denoised = tiles.get("noisy"), tiles["denoised"]
        witness = tiles.get("reference", tiles.get("second_frame"))
        columns: dict[str, Any] = {}
        texts: dict[str, tuple[str | None, ...]] = {}
        moved = shown = None
        host = images if host is None else host
        done = self._at_once(tiles, data_range, nan, mask, with_map)
        if noisy is not None and witness is not None:
            moved = done.evidence or self._transfer(tiles, data_range, nan, mask)
            columns |= transfer_columns(moved)
            if "reference" not in images:
                estimates, problems = _estimates(images, data_range, nan)
                columns |= {"mse_drop": moved.mse_drop, **estimates}
                texts["frames_problem"] = problems
        if noisy is not None and (self.tests or with_map):
            tests, boxes, shown, noise = self._tests(noisy, denoised, data_range, nan, mask, with_map, done.tests)
            columns |= tests
            options: dict[str, Any] = {"data_range": data_range, "scan_axis": self.scan_axis, "noise": noise}
            columns |= done.changes or changes.columns(noisy, denoised, witness, **options)
            texts[BOXES] = boxes
            if self.tests:
                problems = ("",) * len(denoised.images) if noise is None else tuple(model.problem for model in noise)
                if pairs is None or (pairs.reference is None and "reference" in images):
                    pairs = self.pairs_of(tiles if host is images else host)
                _compare(pairs, problems, columns, texts)
        if self.metrology is not None:
            columns |= metrology_columns(
                _array(host.get("noisy")),
                _array(host["denoised"]),
                _array(host.get("reference")),
                pixel_nm,
                self.metrology,
            )
        return Measured(columns, texts, shown, moved)

    def _at_once(
        self, tiles: Mapping[str, Tiles], data_range: float | None, nan: str, mask: Any, with_map: bool
    ) -> at_once.Found:
        """What is taken on the device itself; nothing of images on the CPU."""
        if "noisy" not in tiles or not at_once.takes(tiles, self.tests or with_map):
            return at_once.Found(None, None, None)
        bands = as_bands(self.bands)
        asked = at_once.Asked(self.tests, len(tiles) > 2, self.scan_axis, bands, self.block, data_range, nan, with_map)
        valid = None if mask is None else checks.as_mask(torch.as_tensor(mask), tiles["denoised"].images)
        return at_once.found(tiles, asked, valid)

    def _transfer(self, images: Mapping[str, Tiles], data_range: float | None, nan: str, mask: Any) -> Evidence:
        reference = images.get("reference")
        return evidence(
            images["noisy"],
            images["denoised"],
            reference=reference,
            second_frame=images["second_frame"] if reference is None else None,
            bands=self.bands,
            block=self.block,
            data_range=data_range,
            mask=mask,
            nan=nan,
            hints=False,
        )

    def _tests(
        self,
        noisy: Tiles,
        denoised: Tiles,
        data_range: float | None,
        nan: str,
        mask: Any,
        with_map: bool,
        found: ResidualTests | None,
    ) -> tuple[dict[str, np.ndarray], tuple[str | None, ...], np.ndarray | None, tuple[NoiseModel, ...] | None]:
        n, *_, height, width = denoised.images.shape
        side = min(height, width)
        if side < _LEAST_SIDE:
            empty = np.full((n, height, width), np.nan, np.float32) if with_map else None
            return dict.fromkeys(COLUMNS, np.full(n, np.nan)), (None,) * n, empty, None
        options: dict[str, Any] = {"data_range": data_range, "nan": nan, "scan_axis": self.scan_axis}
        if found is None:
            found = residual_tests(noisy, denoised, mask=mask, return_maps=with_map, **options)
        shown = None if found.maps is None else found.maps["evidence"]
        known = np.array([not model.problem for model in found.noise])  # without the noise's law they mean nothing
        columns = {k: np.where(known, v, np.nan) for k, v in found.columns().items()}
        columns["residual_variance_se"] = np.full(n, _SCATTER / np.sqrt(height * width))
        boxes = tuple(text if ok else None for text, ok in zip(found.boxes_json(), known, strict=True))
        return columns, boxes, shown, found.noise

    def pairs_of(self, images: Mapping[str, Any]) -> Pairs:
        """A batch's noisy and denoised images, (N, C, H, W), and its reference where there is one, as a pair is
        compared."""
        given = _checked({name: images[name] for name in ("denoised", "noisy", "reference") if name in images})
        return Pairs({name: self._lines(tiles) for name, tiles in given.items()}, given)

    def _lines(self, tiles: Tiles) -> Tiles:
        """On the host, with scan lines as rows."""
        if self.scan_axis == -1 and tiles.images.is_cpu:
            return tiles
        images = tiles.images.cpu()
        return Tiles(images if self.scan_axis == -1 else images.transpose(2, 3))


def _compare(
    pairs: Pairs,
    problems: Sequence[str | None],
    columns: dict[str, Any],
    texts: dict[str, tuple[str | None, ...]],
) -> None:
    """Moments by which tiles that hold one image are told, notes on each pair, what is wrong with its reference."""
    for name, told in (("denoised_mean", "d_mean"), ("denoised_std", "d_deviation"), ("noisy_mean", "mean")):
        columns[name] = np.array([getattr(look, told) for look in pairs.looks])
    found = ("; ".join(filter(None, (problem, *pairs.notes(i)))) for i, problem in enumerate(problems))
    texts["pair_note"] = tuple(text or None for text in found)
    if pairs.reference is not None:
        texts["reference_problem"] = tuple(pairs.reference_problem(i) or None for i in range(len(pairs)))


def transfer_columns(found: Evidence) -> dict[str, np.ndarray]:
    """T of each tile and its standard error, in the band that speaks for it."""
    transfer, se, _ = loudest_band(found)
    return {"transfer": transfer, "transfer_se": se}


def loudest_band(found: Evidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T, standard error, energy) of each tile in the band that lost most, beyond its own uncertainty."""
    upper = np.where(np.isfinite(found.transfer), found.transfer + 2 * found.se, np.inf)
    band = upper.argmin(axis=1)[:, None]
    transfer, se, energy = (np.take_along_axis(v, band, axis=1)[:, 0] for v in (found.transfer, found.se, found.energy))
    return transfer, se, energy


def _estimates(
    images: Mapping[str, Any], data_range: float | None, nan: str
) -> tuple[dict[str, np.ndarray], tuple[str | None, ...]]:
    found = without_reference(
        images["noisy"],
        images["denoised"],
        images["second_frame"],
        images.get("third_frame"),
        data_range=data_range,
        nan=nan,
    )
    # two frames prove less than three, and a reader of the table should see which it were
    return {**found.columns(), "frames": np.full(len(found), float(found.frames))}, tuple(found.problems)


def _checked(images: Mapping[str, Any]) -> dict[str, Tiles]:
    """The images of one shape and device, each with what is made of it."""
    like = as_tiles_once("denoised", images["denoised"])
    return {name: like if name == "denoised" else as_tiles_once(name, v, like) for name, v in images.items()}


def _array(images: Any) -> np.ndarray | None:
    """On the host, where it is asked for: a batch on a device is not fetched for nothing."""
    return None if images is None else to_numpy(images)
