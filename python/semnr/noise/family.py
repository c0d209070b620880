"""Whether an input is like the training images of a network: figures of its noise, compared with their ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .model import NoiseModel

#: what each figure is, for the message
FIGURES = {
    "correlation": "correlation of the noise with the next pixel of the line",
    "tail": "correlation at lag 2 beyond that of a first-order process",
    "contrast": "range of grey levels (5th to 95th percentile) over the noise's sigma",
    "growth": "noise sigma at bright over that at dark levels",
    "clipped": "share of pixels at the ends of the range",
}


def figures(noise: NoiseModel, windows: Sequence[np.ndarray]) -> dict[str, float]:
    """The figures of an input. Any gain and offset of the recording leave them as they are."""
    measured = {"clipped": noise.clipped_low + noise.clipped_high}
    if noise.correlation:
        first, second = (*noise.correlation, 0.0)[:2]
        measured |= {"correlation": first, "tail": second - first * abs(first)}
    pixels = np.concatenate([np.asarray(w, np.float64).ravel() for w in windows]) if windows else np.zeros(0)
    if not pixels.size:
        return measured
    low, middle, high = np.quantile(pixels, (0.05, 0.5, 0.95))
    sigma = float(noise.sigma(middle))
    if sigma > 0:
        measured["contrast"] = float(high - low) / sigma
        dark = float(noise.sigma(low))
        measured["growth"] = float(noise.sigma(high)) / dark if dark > 0 else np.inf
    return measured


def remarks(measured: Mapping[str, float], family: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """A sentence for each figure outside the training's range; none: the input is of the family."""
    out = []
    for name, value in measured.items():
        if name not in family:
            continue
        low, high = family[name]
        if not low <= value <= high:
            out.append(
                f"outside the training noise family: {FIGURES[name]} is {value:.3g}, trained on {low:.3g} to {high:.3g}"
            )
    return tuple(out)
