"""The places where a tile differs from its reconstruction, held against what normal tiles show.

The residual over the σ of the noise is filtered with discs of 3 to 24 px and squares of 4 to 9 px, each matched to the
noise (`semnr.residual_tests` has the formula). A reconstruction is never perfect, and how far it is off differs from
size to size. So each size is read on a scale of its own: |z| is divided by the level that one pixel in a thousand
exceeds on normal tiles that the network was not trained on, and multiplied by the level that one pixel in a thousand of
pure noise exceeds. Equal values of two sizes are then equally rare on normal tiles, and the largest one over the sizes
is the one of the smallest tail probability.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from semnr_kernels.residual.scanning import Scan, scan
from semnr_kernels.residual.templates import bank

from ..noise import NoiseModel

SIZES = (3.0, 4.0, 6.0, 9.0, 12.0, 16.0, 24.0)  # px: diameters, and sides of squares where the bank has such
SHAPES = bank(SIZES)
RARE = 1e-3  # share of the pixels of normal tiles above `usual`
OF_NOISE = 3.2905  # |z| that this share of a standard normal variable exceeds
LISTED = 16  # places of a tile that are told
_CORE = 3.0  # a line's own offset is its mean of values turned down to this many σ


class Places:
    """The scan of a batch of residuals.

    Parameters
    ----------
    images, made : ndarray, (N, H, W)
        Tiles and reconstructions, grey levels.
    noise : NoiseModel
        Of the tiles.
    usual : sequence of float
        A level for each of `SHAPES`, see `usual_of`.
    scan_axis : {-1, -2}
        Along which axis the beam scans.
    """

    def __init__(
        self, images: np.ndarray, made: np.ndarray, noise: NoiseModel, usual: Sequence[float], scan_axis: int = -1
    ) -> None:
        found = _scan(images, made, noise, scan_axis)
        best = torch.zeros(images.shape if scan_axis == -1 else images.transpose(0, 2, 1).shape)
        which = torch.zeros_like(best, dtype=torch.uint8)
        for k, level in enumerate(usual):
            z = found.z(k) * (OF_NOISE / level)
            better = z.abs() > best.abs()
            best = torch.where(better, z, best)
            which.masked_fill_(better, k)
        signed, kinds = best.numpy(), which.numpy()
        self.map = signed if scan_axis == -1 else signed.transpose(0, 2, 1)
        self._which = kinds if scan_axis == -1 else kinds.transpose(0, 2, 1)

    def strongest(self) -> np.ndarray:
        """(N,) float64: the largest value of each tile, without its sign."""
        return np.asarray(np.abs(self.map).max(axis=(1, 2)), np.float64)

    def boxes_json(self, limits: Sequence[float]) -> tuple[str | None, ...]:
        """The places beyond a limit, strongest first, as JSON text; None where a tile has none."""
        made = []
        for signed, which, limit in zip(self.map, self._which, limits, strict=True):
            boxes = list(_boxes(np.abs(signed), which, float(limit)))
            made.append(json.dumps(boxes) if boxes else None)
        return tuple(made)


def usual_of(images: Sequence[np.ndarray], made: Sequence[np.ndarray], noise: NoiseModel, axis: int) -> list[float]:
    """The level of each of `SHAPES` that a share `RARE` of the pixels of normal (H, W) tiles exceeds."""
    rows: list[list[np.ndarray]] = [[] for _ in SHAPES]
    for image, other in zip(images, made, strict=True):
        found = _scan(image[None], other[None], noise, axis)
        for k, row in enumerate(rows):
            row.append(found.z(k).abs().numpy().ravel())
    return [max(float(np.quantile(np.concatenate(row), 1 - RARE)), 1e-3) for row in rows]


def _scan(images: np.ndarray, made: np.ndarray, noise: NoiseModel, scan_axis: int) -> Scan:
    """The scan of the residual, with scan lines as rows; what is common to a line is noise of the tool."""
    units = ((images - made) / noise.sigma(made)).astype(np.float32)
    units = units if scan_axis == -1 else np.ascontiguousarray(units.transpose(0, 2, 1))
    units -= units.mean(axis=(1, 2), keepdims=True)
    units -= np.clip(units, -_CORE, _CORE).mean(axis=2, keepdims=True)
    return scan(torch.from_numpy(units), [noise.whitening()] * len(units), SIZES)


def _boxes(size: np.ndarray, which: np.ndarray, limit: float) -> list[dict[str, object]]:
    """One box a place: what lies within the box of a stronger one is its flank."""
    rows, columns = np.nonzero(size > limit)
    order = np.argsort(-size[rows, columns], kind="stable")
    told: list[dict[str, object]] = []
    taken: list[tuple[int, int, float]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        side = SHAPES[int(which[row, column])].size
        if any(np.hypot(row - y, column - x) < (side + other) / 2 + 2 for y, x, other in taken):
            continue
        taken.append((row, column, side))
        z = round(float(size[row, column]), 2)
        told.append({"kind": "removed", "row": row, "col": column, "height": side, "width": side, "z": z})
        if len(told) == LISTED:
            break
    return told
