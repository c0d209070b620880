"""The evidence that the rules on one candidate read: measured from pixels where they are given, else from a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..profiles import Profile
from .evaluate import Inputs

if TYPE_CHECKING:
    from ..trust.columns import Measured

_PIXELS = ("noisy", "denoised", "reference", "second_frame")
_OPTIONS = ("mask", "bands", "block", "nan", "scan_axis")


def measured(inputs: Any, after: Profile) -> tuple[Inputs, Profile]:
    """Evidence transfer, and `after` with the columns that its pixels give."""
    if inputs is None:
        gain = _difference(after.psnr, after.psnr_noisy)
        gain = np.where(np.isnan(gain), after.column("mse_drop"), gain)  # from a second frame, without a reference
        reason = "" if np.isfinite(after.transfer).any() else "no evidence transfer: neither inputs nor such a column"
        return Inputs(after.transfer, after.transfer_se, gain, reason=reason), after
    from ..trust.columns import loudest_band  # loads torch: a run is judged without
    from ..trust.transfer import Evidence, evidence

    of_pixels: Measured | None = None
    if isinstance(inputs, Mapping):
        unknown = [k for k in inputs if k not in (*_PIXELS, *_OPTIONS)]
        if unknown or not {"noisy", "denoised"} <= set(inputs):
            accepted = ", ".join(map(repr, (*_PIXELS, *_OPTIONS)))
            raise ValueError(f"inputs has {list(inputs)}; accepted: 'noisy' and 'denoised', and of {accepted}")
        of_pixels = _of_pixels(inputs, after.data_range)
        inputs = of_pixels.transfer or evidence(inputs["noisy"], inputs["denoised"], hints=False)
    if not isinstance(inputs, Evidence):
        raise TypeError(f"inputs is {type(inputs).__name__}; accepted: a mapping of images, or a semnr Evidence")
    if len(inputs) != len(after):
        raise ValueError(f"inputs has {len(inputs)} tiles and after {len(after)}; accepted: the same, in order")
    t, se, energy = loudest_band(inputs)
    columns, texts = ({}, {}) if of_pixels is None else (of_pixels.columns, of_pixels.texts)
    columns = {**after.columns, **columns, "transfer": t, "transfer_se": se}
    after = dataclasses.replace(after, columns=columns, texts={**after.texts, **texts})
    return Inputs(t, se, inputs.mse_drop, energy, inputs.reason), after


def _of_pixels(inputs: Mapping[str, Any], data_range: float | None) -> Measured:
    """The columns that a scored run would have, with the options that were given."""
    from ..trust.columns import Trust
    from ..trust.images import as_tiles

    if inputs.get("reference") is not None and inputs.get("second_frame") is not None:
        raise ValueError("reference and second_frame are both given; accepted: one of them (or neither)")
    images = {k: as_tiles(k, inputs[k]) for k in _PIXELS if inputs.get(k) is not None}
    how = {k: inputs[k] for k in ("bands", "block", "scan_axis") if inputs.get(k) is not None}
    options = {k: inputs[k] for k in ("mask", "nan") if inputs.get(k) is not None}
    return Trust(**how).measure(images, data_range=data_range, **options)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a − b with infinity minus infinity as 0."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)
