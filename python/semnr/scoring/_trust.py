"""Columns of a batch that say what the denoiser did: transfer, residual tests, changes, estimates from frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _changes
from ..noreference import without_reference
from ..residual import COLUMNS, residual_tests
from ..tiles._pixels import to_numpy
from ..transfer import evidence

BOXES = "evidence_boxes"
_LEAST_SIDE = 32  # px: smaller tiles hold neither their noise nor the surroundings of a defect


@dataclass(frozen=True)
class Trust:
    """Which of them a run asked for."""

    tests: bool = True
    metrology: str | None = None
    scan_axis: int = -1

    def to_dict(self) -> dict[str, Any]:
        return {"tests": self.tests, "metrology": self.metrology, "scan_axis": self.scan_axis}

    def columns(
        self, parts: dict[str, Any], data_range: float | None, nan: str, pixel_nm: float | None, with_map: bool
    ) -> tuple[dict[str, Any], np.ndarray | None]:
        """Columns of the batch, and with `with_map` the evidence map (N, H, W). Parts: x, noisy, and y or noisy_2."""
        x, y, noisy = parts["x"], parts.get("y"), parts.get("noisy")
        found: dict[str, Any] = {}
        shown = None
        omit = "omit" if nan == "omit" else "error"
        if noisy is not None:
            found |= self._transfer(parts, data_range, omit)
            if y is None:
                found |= self._estimates(parts, data_range, omit)
        images = [None if v is None else to_numpy(v) for v in (noisy, x, y)]
        if noisy is not None and (self.tests or with_map):
            columns, shown = _tests(noisy, x, data_range, omit, self.scan_axis, with_map)
            second = parts.get("noisy_2")
            witness = images[2] if y is not None else None if second is None else to_numpy(second)
            found |= columns | _changes.columns(images[0], images[1], witness, data_range=data_range)
        if self.metrology is not None:
            from ..metrology._columns import columns as measured

            found |= measured(images[0], images[1], images[2], pixel_nm, self.metrology)
        return found, shown

    def _transfer(self, parts: dict[str, Any], data_range: float | None, nan: str) -> dict[str, Any]:
        y = parts.get("y")
        found = evidence(
            parts["noisy"],
            parts["x"],
            reference=y,
            second_frame=parts["noisy_2"] if y is None else None,
            data_range=data_range,
            nan=nan,
            hints=False,
        )
        columns = {"transfer": found.transfer[:, 0], "transfer_se": found.se[:, 0]}
        return columns if y is not None else {**columns, "mse_drop": found.mse_drop}

    def _estimates(self, parts: dict[str, Any], data_range: float | None, nan: str) -> dict[str, Any]:
        found = without_reference(
            parts["noisy"], parts["x"], parts["noisy_2"], parts.get("noisy_3"), data_range=data_range, nan=nan
        )
        # two frames prove less than three, and a reader of the table should see which it were
        return {**found.columns(), "frames": np.full(len(found), float(found.frames)), "frames_problem": found.problems}


def _tests(
    noisy: Any, x: Any, data_range: float | None, nan: str, scan_axis: int, with_map: bool
) -> tuple[dict[str, Any], np.ndarray | None]:
    n, side = x.shape[0], min(x.shape[-2:])
    if side < _LEAST_SIDE:
        nothing = np.full(n, np.nan)
        empty = np.full((n, *x.shape[-2:]), np.nan, np.float32) if with_map else None
        return {**dict.fromkeys(COLUMNS, nothing), BOXES: [None] * n}, empty
    found = residual_tests(noisy, x, data_range=data_range, nan=nan, scan_axis=scan_axis, return_maps=with_map)
    return {**found.columns(), BOXES: found.boxes_json()}, None if found.maps is None else found.maps["evidence"]
