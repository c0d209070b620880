"""One row of results: what a denoiser made of the images of one field, against the truth about it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage

from semnr_kernels.errors import WeightsUnavailable

from ..metrology import edge_psd, find_edges
from ..profiles import Reference
from ..trust.columns import loudest_band
from ..trust.registration import fitted
from ..trust.residual import residual_tests
from ..trust.transfer import evidence
from .fields import Field
from .methods import TOP
from .protocol import Protocol

BANDS = ((128, 64), (64, 32), (32, 16), (16, 8))  # px of wavelength
_BLANK_SIGMAS = 2.0  # of the noise: a disc above it is a structure
NETWORKS_NEEDED = ("dists", "lpips")  # metrics that need weights


def figures() -> tuple[str, ...]:
    """Names of the columns of figures, in the order of the table."""
    return (
        "psnr", "ssim", "fsim", "lpips", "dists", "cnr_retention", "transfer", "kept_2", "kept_3", "kept_5",
        "invented", "removed", "invented_blank", "edge_error", "cd_bias", *(f"edge_psd_{a}_{b}" for a, b in BANDS),
    )  # fmt: skip


class Truth:
    """A field that many outputs are scored against; what depends on the field alone is computed once.

    Parameters
    ----------
    field : Field
    protocol : Protocol
    """

    def __init__(self, field: Field, protocol: Protocol) -> None:
        self.field, self.protocol = field, protocol
        border = protocol["border"]
        self.inner = (slice(border, -border),) * 2
        self.missing: dict[str, str] = {}  # metric -> why it has no figure
        self.edges: Any = None
        if field.kind in ("real", "wafer"):
            y = self._clean()[self.inner]
            self.reference = Reference(_tensor(y), data_range=255.0, metrics=("psnr", "ssim", "fsim"))
            # the clean frame of a pair has another gain than the noisy one: found on the frame, one for all outputs
            x = self.field.frame.astype(np.float64)[self.inner]
            self.gain = float(np.polyfit(y.ravel(), x.ravel(), 1)[0])
            self.signal, self.background = (np.asarray(region)[0, 0] for region in self.reference.regions())
        elif field.kind == "lines":
            self.edges = find_edges(self._clean(), orientation="vertical")

    def _clean(self) -> np.ndarray:
        assert self.field.clean is not None
        return self.field.clean

    def score(self, frame: np.ndarray, marked: np.ndarray | None) -> dict[str, float]:
        """The figures of one denoiser.

        Parameters
        ----------
        frame, marked : ndarray, (H, W) uint16
            What it made of the frame, and of the frame with discs in it (None: nothing).

        Returns
        -------
        dict of str to float
            Only the figures that the field's kind has.
        """
        d = frame.astype(np.float64) * (255 / TOP)
        if self.field.kind == "lines":
            return self._lines(d)
        if self.field.kind == "blank":
            return {"invented_blank": float(invented_blank(self.field.frame.astype(np.float64), d))}
        row = self._against(d)
        if marked is not None:
            row |= self._kept(d, marked.astype(np.float64) * (255 / TOP))
        return row

    def _against(self, d: np.ndarray) -> dict[str, float]:
        x, y = self.field.frame.astype(np.float64)[self.inner], self._clean()[self.inner]
        d = d[self.inner]
        candidate = _tensor(np.clip(fitted(d, y), 0, 255))
        row = {name: float(getattr(self.reference, name)(candidate)) for name in ("psnr", "ssim", "fsim")}
        if self.signal.any() and self.background.any():  # else the field has one population alone: there is no contrast
            contrasts = [float(v[self.signal].mean() - v[self.background].mean()) for v in (d, y)]
            row["cnr_retention"] = contrasts[0] / (self.gain * contrasts[1])
        for name in NETWORKS_NEEDED:
            try:
                row[name] = float(getattr(self.reference, name)(candidate))
            except WeightsUnavailable as error:
                self.missing[name] = " ".join(str(error).split())
        # the evidence is of the output as it is, in the scan's own place: no gain is taken off
        transfer, _, _ = loudest_band(evidence(x, d, reference=y, data_range=255.0, hints=False))
        row["transfer"] = float(transfer[0])
        whole = (_tensor(v) for v in (x, d))
        tests = residual_tests(*whole, data_range=255.0)
        known = not tests.noise[0].problem
        row["invented"] = float(tests.invented_count[0]) if known else math.nan
        row["removed"] = float(tests.removed_count[0]) if known else math.nan
        return row

    def _kept(self, plain: np.ndarray, marked: np.ndarray) -> dict[str, float]:
        """Mean share of the contrast that discs keep, by contrast: both frames have the same noise."""
        near, put = self.protocol["discs"]["near"], self.field.marked
        assert put is not None
        change = put.astype(np.float64) - self.field.frame
        kept: dict[float, list[float]] = {}
        for disc in self.field.discs:
            window = np.s_[disc.row - near : disc.row + near + 1, disc.col - near : disc.col + near + 1]
            wanted, found = change[window], (marked - plain)[window]
            power = float((wanted**2).sum())
            if power > 0:  # the range has not cut all of it off
                kept.setdefault(disc.contrast, []).append(float((found * wanted).sum()) / power)
        return {f"kept_{contrast:g}": float(np.mean(shares)) for contrast, shares in kept.items()}

    def _lines(self, d: np.ndarray) -> dict[str, float]:
        clean = self.edges
        try:
            found = find_edges(d, near=clean)
        except ValueError:  # no edges are left, or none that can be told
            return {}
        distance = np.abs(clean.positions.mean(axis=1)[None] - found.positions.mean(axis=1)[:, None])
        truth = clean.positions[distance.argmin(axis=1)]
        moved = found.positions - truth
        count = min(len(found.cd_px), len(clean.cd_px))
        row = {
            "edge_error": float(np.sqrt(((moved - moved.mean(axis=1, keepdims=True)) ** 2).mean())),
            "cd_bias": float(np.mean(found.cd_px[:count] - clean.cd_px[:count])),
        }
        frequency, measured = edge_psd(found.positions)
        _, true = edge_psd(truth)
        for longest, shortest in BANDS:
            band = (frequency > 1 / longest) & (frequency <= 1 / shortest)
            if band.any():
                row[f"edge_psd_{longest}_{shortest}"] = float(measured[band].sum() / true[band].sum())
        return row


def _tensor(image: np.ndarray) -> np.ndarray:
    """(1, 1, H, W) float32: what the compiled kernels take."""
    return np.ascontiguousarray(image, np.float32)[None, None]


def invented_blank(x: np.ndarray, d: np.ndarray) -> int:
    """How many structures stand in the output for a frame that shows nothing but noise: discs of 4 px above 2 σ that
    are stronger than the frame itself shows any within 2 px. What the noise makes by itself is not counted."""
    before, after = _discs(x), _discs(d)
    shown = np.where(after > 0, ndimage.maximum_filter(before, 5), -ndimage.minimum_filter(before, 5))
    there = (np.abs(after) > _BLANK_SIGMAS * x.std()) & (np.abs(after) > shown)
    return int(ndimage.label(there)[1])


def _discs(x: np.ndarray) -> np.ndarray:
    """Mean of a disc of 4 px over its surroundings, around each pixel whose disc lies in the image."""
    disc = np.hypot(*np.mgrid[-3:4, -3:4]) <= 2
    around = ndimage.uniform_filter(x, 31, mode="nearest")
    return np.asarray(ndimage.convolve(x - around, disc / disc.sum()))[3:-3, 3:-3]
