"""What the rules on one candidate read: measured from the pixels where they are given, else a run's columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._profile import Profile
from ._evaluate import Inputs

_PIXELS = ("noisy", "denoised", "reference", "second_frame")
_OPTIONS = ("mask", "bands", "block", "nan")


def measured(inputs: Any, after: Profile) -> tuple[Inputs, Profile]:
    """Evidence transfer, and `after` with the columns that its pixels give."""
    if inputs is None:
        gain = _difference(after.psnr, after.psnr_noisy)
        gain = np.where(np.isnan(gain), after.column("mse_drop"), gain)  # from a second frame, without a reference
        reason = "" if np.isfinite(after.transfer).any() else "no evidence transfer: neither inputs nor such a column"
        return Inputs(after.transfer, after.transfer_se, gain, reason=reason), after
    from ..transfer import Evidence, evidence

    pixels: Mapping[str, Any] = {}
    if isinstance(inputs, Mapping):
        unknown = [k for k in inputs if k not in (*_PIXELS, *_OPTIONS)]
        if unknown or not {"noisy", "denoised"} <= set(inputs):
            accepted = ", ".join(map(repr, (*_PIXELS, *_OPTIONS)))
            raise ValueError(f"inputs has {list(inputs)}; accepted: 'noisy' and 'denoised', and of {accepted}")
        pixels = inputs
        inputs = evidence(**inputs, data_range=after.data_range, hints=False)
    if not isinstance(inputs, Evidence):
        raise TypeError(f"inputs is {type(inputs).__name__}; accepted: a mapping of images, or a semnr Evidence")
    if len(inputs) != len(after):
        raise ValueError(f"inputs has {len(inputs)} tiles and after {len(after)}; accepted: the same, in order")
    if pixels:
        columns, texts = image_columns(pixels, after.data_range)
        after = dataclasses.replace(after, columns={**after.columns, **columns}, texts={**after.texts, **texts})
    # Several bands: the one that lost most, beyond its own uncertainty, speaks for the tile.
    upper = np.where(np.isfinite(inputs.transfer), inputs.transfer + 2 * inputs.se, np.inf)
    band = upper.argmin(axis=1)[:, None]
    t, se, energy = (np.take_along_axis(v, band, axis=1)[:, 0] for v in (inputs.transfer, inputs.se, inputs.energy))
    columns = {"transfer": t, "transfer_se": se}
    after = dataclasses.replace(after, columns={**after.columns, **columns})
    return Inputs(t, se, inputs.mse_drop, energy, inputs.reason), after


def image_columns(
    pixels: Mapping[str, Any], data_range: float | None
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str | None, ...]]]:
    """The columns of changes and of the residual tests, and the boxes, as a scored run has them."""
    from .._changes import columns
    from ..residual import residual_tests
    from ..transfer import as_tiles

    images = {k: as_tiles(k, pixels[k]) for k in _PIXELS if pixels.get(k) is not None}
    arrays = {k: v.detach().cpu().numpy() for k, v in images.items()}
    witness = arrays.get("reference", arrays.get("second_frame"))
    found = columns(arrays["noisy"], arrays["denoised"], witness, data_range=data_range)
    if min(arrays["noisy"].shape[-2:]) < 32:
        return found, {}
    options = {k: pixels[k] for k in ("mask", "nan") if pixels.get(k) is not None}
    tests = residual_tests(images["noisy"], images["denoised"], data_range=data_range, **options)
    return {**found, **tests.columns()}, {"evidence_boxes": tuple(tests.boxes_json())}


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a − b with infinity minus infinity as 0."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)
