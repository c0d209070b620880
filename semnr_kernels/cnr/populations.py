"""Two kinds of CNR that are not a ratio of moments: `gcnr` uses histograms, `rose` the autocorrelation of the noise.

Regions, checks and flags are those of `cnr`. Neither has a gradient, a map or a second backend: they are computed
from sorted pixels and one Fourier transform, once an image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from .. import checks, registry
from ..result import Result

KINDS = ("gcnr", "rose")
BINS = 256
LAGS = 8  # px along each axis over which the noise's correlation is summed


def call(a: Mapping[str, Any]) -> registry.Call:
    """The call of a `cnr` with these arguments, of one of these kinds."""
    return registry.Call.of(a["kind"], checks.as_image("x", a["x"]).detach())


def populations(a: Mapping[str, Any]) -> torch.Tensor | Result:
    """Generalised CNR, or Rose's signal-to-noise ratio, of two regions: `cnr` with these arguments, by name.

    Parameters
    ----------
    x, y, signal, background, mask, data_range, reduction, nan
        As for `cnr`; several channels are averaged.
    kind : {"gcnr", "rose"}
        "gcnr": 1 − Σ min(ps, pb) over 256 bins (Rodriguez-Molares et al. 2020, doi 10.1109/TUFFC.2019.2956855): the
        share of pixels that the best threshold tells apart, beyond chance; 0 to 1, unchanged by any monotone map of
        the levels that keeps the bins apart. Small regions read high: two equal populations of n pixels each give
        about √(256/(π n)) × 1.1 in noise that fills the range.
        "rose": |Δμ| / σb · √N_eff, N_eff = (pixels of the signal region) / Σρ, with ρ the autocorrelation of the
        background at all lags up to 8 px in either direction (Rose 1948; Burgess 1999, doi 10.1364/JOSAA.16.000633):
        a feature is seen from about 5. White noise: Σρ = 1; correlated by ρ along the line: (1 + ρ)/(1 − ρ). The
        error of Σρ is about 17/√(background pixels); at least 1 is taken.
    value_range : (low, high), optional
        Of the histogram's bins, pixels beyond count in the end bins; default: the pooled extremes of both regions of
        the image, which one outlier stretches.
    details : bool
        Return a `Result` with `contrast`, `signal_pixels`, `background_pixels` and `low`, `high` (gcnr) or `sigma`,
        `correlation_sum`, `effective_pixels` (rose), a row an image.

    Returns
    -------
    Tensor or Result
        Float64, unitless; NaN without a second population, inf ("rose") without noise.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    """
    from . import cnr

    x, kind, value_range, reduction = (a[name] for name in ("x", "kind", "value_range", "reduction"))
    ends = None if value_range is None else _ends(value_range)
    run = registry.choose(call(a), a["backend"]).run
    of_moments = {name: a[name] for name in ("signal", "background", "mask", "data_range", "nan")}
    base: Any = cnr(x, a["y"], details=True, **of_moments)
    image = checks.as_image("x", x).detach().double().mean(1)
    inside, outside = (base.components[name][:, 0] for name in ("signal", "background"))
    rows = []
    for v, s, b in zip(image, inside, outside, strict=True):
        known = bool(s.any()) and bool(b.any()) and bool(torch.isfinite(v[s | b]).all())
        nothing = dict.fromkeys(_COMPONENTS[kind], math.nan)
        rows.append(run(kind, v, s, b, ends) if known else nothing)
    columns = {
        k: torch.tensor([row[k] for row in rows], dtype=torch.float64, device=x.device) for k in _COMPONENTS[kind]
    }
    checked = checks.pair(x, x, data_range=1.0, nan="propagate")
    value = checks.reduce(columns.pop("value"), reduction, checked)
    if not a["details"]:
        return value
    shared = {k: base.components[k] for k in ("contrast", "signal_pixels", "background_pixels", "signal", "background")}
    flags = tuple(f for f in base.flags if "no noise" not in f)
    settings = {**base.settings, "kind": kind, "reduction": reduction}
    settings |= {"bins": BINS, "value_range": value_range} if kind == "gcnr" else {"lags": LAGS}
    return Result(
        value, base.data_range, components={**shared, **columns}, coverage=base.coverage, flags=flags, settings=settings
    )


def _ends(value_range: Any) -> tuple[float, float]:
    ends = checks.option("value_range", "tuple[float, ...]", value_range)
    if len(ends) != 2 or not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1]):
        raise ValueError(f"value_range is {value_range!r}; accepted: (low, high), finite, with low < high, or None")
    return ends[0], ends[1]


def measured(
    kind: str, v: torch.Tensor, s: torch.Tensor, b: torch.Tensor, ends: tuple[float, float] | None
) -> dict[str, float]:
    """One image, (H, W) float64, in its regions."""
    return _gcnr(v, s, b, ends) if kind == "gcnr" else _rose(v, s, b)


_COMPONENTS = {"gcnr": ("value", "low", "high"), "rose": ("value", "sigma", "correlation_sum", "effective_pixels")}


def _gcnr(v: torch.Tensor, s: torch.Tensor, b: torch.Tensor, given: tuple[float, float] | None) -> dict[str, float]:
    one, other = v[s], v[b]
    low = float(min(one.min(), other.min())) if given is None else float(given[0])
    high = float(max(one.max(), other.max())) if given is None else float(given[1])
    if low == high:
        return {"value": 0.0, "low": low, "high": high}
    shares = []
    for values in (one, other):
        at = ((values - low) / (high - low) * BINS).long().clamp(0, BINS - 1)
        shares.append(torch.bincount(at, minlength=BINS).double() / at.numel())
    return {"value": 1 - float(torch.minimum(*shares).sum()), "low": low, "high": high}


def _rose(v: torch.Tensor, s: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    background = v[b]
    sigma = float(background.std(correction=0))
    contrast = abs(float(v[s].mean() - background.mean()))
    pixels = int(s.sum())
    if sigma == 0:
        value = math.inf if contrast else math.nan
        return {"value": value, "sigma": 0.0, "correlation_sum": math.nan, "effective_pixels": math.nan}
    total = max(1.0, _correlation_sum(torch.where(b, (v - background.mean()) / sigma, 0.0), b))
    return {
        "value": contrast / sigma * math.sqrt(pixels / total),
        "sigma": sigma,
        "correlation_sum": total,
        "effective_pixels": pixels / total,
    }


def _correlation_sum(u: torch.Tensor, b: torch.Tensor) -> float:
    """Σρ over the lags: products of neighbours that both lie in the region, over the count of such pairs."""
    shape = tuple(side + LAGS for side in u.shape)
    products, pairs = (
        torch.fft.irfft2(torch.fft.rfft2(part.double(), s=shape).abs().square(), s=shape) for part in (u, b)
    )
    lags = torch.arange(-LAGS, LAGS + 1, device=u.device)
    near = (lags[:, None] % shape[0], lags % shape[1])
    count = pairs[near].round()
    return float(torch.where(count > 0, products[near] / count.clamp(min=1), 0.0).sum())
