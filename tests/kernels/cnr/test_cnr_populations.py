"""gcnr and rose: analytic values, independent histograms, correlated noise, what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

import semnr
from semnr.synth.detector import first_order

RNG = np.random.default_rng
LEFT = np.zeros((256, 256), bool)
LEFT[:, :128] = True
REGIONS = {"signal": LEFT, "background": ~LEFT}


@pytest.mark.parametrize("contrast", [0.0, 0.5, 1.5, 4.0])
def test_gcnr_of_two_normals_is_the_area_that_does_not_overlap(contrast: float) -> None:
    x = RNG(0).standard_normal((256, 256)) + contrast * LEFT
    found = semnr.cnr(x, kind="gcnr", **REGIONS)
    assert found == pytest.approx(1 - 2 * norm.cdf(-contrast / 2), abs=0.06)  # bins with few pixels read high


def test_gcnr_is_that_of_numpys_histograms_over_the_pooled_or_a_given_range() -> None:
    x = RNG(1).gamma(2.0, 3.0, (256, 256)) + 2 * LEFT
    for value_range in (None, (1.0, 20.0)):
        low, high = (x.min(), x.max()) if value_range is None else value_range
        shares = [np.histogram(np.clip(x[m], low, high), 256, (low, high))[0] / m.sum() for m in (LEFT, ~LEFT)]
        found = semnr.cnr(x, kind="gcnr", value_range=value_range, details=True, **REGIONS)
        assert float(found.value) == pytest.approx(1 - np.minimum(*shares).sum(), abs=1e-4)
        assert (float(found.components["low"][0]), float(found.components["high"][0])) == pytest.approx((low, high))


def test_gcnr_does_not_change_under_a_monotone_map_that_moments_would_feel() -> None:
    x = np.round(40 * (RNG(2).standard_normal((256, 256)) + 1.5 * LEFT)).clip(-127, 127) + 128
    cubed = {k: semnr.cnr((x / 255) ** 3, kind=k, **REGIONS) for k in ("gcnr", "two_roi")}
    plain = {k: semnr.cnr(x / 255, kind=k, **REGIONS) for k in ("gcnr", "two_roi")}
    assert abs(cubed["gcnr"] - plain["gcnr"]) < 0.03
    assert abs(cubed["two_roi"] / plain["two_roi"] - 1) > 0.05


def test_roses_ratio_counts_independent_pixels() -> None:
    noise = RNG(3).standard_normal((256, 256))
    white = semnr.cnr(noise + 0.1 * LEFT, kind="rose", details=True, **REGIONS)
    contrast, sigma = float(white.components["contrast"][0]), float(white.components["sigma"][0])
    assert float(white.components["correlation_sum"][0]) == pytest.approx(1, abs=0.25)
    assert float(white.value) == pytest.approx(contrast / sigma * math.sqrt(LEFT.sum()), rel=0.12)
    first_order(noise, 0.5)
    lines = semnr.cnr(noise + 0.1 * LEFT, kind="rose", details=True, **REGIONS)
    assert float(lines.components["correlation_sum"][0]) == pytest.approx(3, rel=0.2)  # (1 + ρ)/(1 − ρ)
    assert float(lines.components["effective_pixels"][0]) == pytest.approx(LEFT.sum() / 3, rel=0.2)


def test_a_larger_feature_is_seen_the_better_in_the_same_noise() -> None:
    noise = RNG(4).standard_normal((256, 256))
    seen = []
    for side in (8, 32):
        spot = np.zeros((256, 256), bool)
        spot[100 : 100 + side, 100 : 100 + side] = True
        seen.append(semnr.cnr(noise + 2 * spot, kind="rose", signal=spot, background=~spot))
    assert seen[1] / seen[0] == pytest.approx(4, rel=0.15)


def test_edge_cases_are_flagged_and_never_zero_for_want_of_something() -> None:
    x = torch.zeros(1, 1, 64, 64)
    x[..., :32] = 1
    half = np.zeros((64, 64), bool)
    half[:, :32] = True
    regions = {"signal": half, "background": ~half}
    assert float(semnr.cnr(x, kind="rose", data_range=1.0, **regions)) == math.inf
    assert float(semnr.cnr(x, kind="gcnr", data_range=1.0, **regions)) == 1
    assert float(semnr.cnr(x * 0, kind="gcnr", data_range=1.0, **regions)) == 0
    nothing = {"signal": half, "background": np.zeros_like(half)}
    for kind in ("gcnr", "rose"):
        found = semnr.cnr(x, kind=kind, data_range=1.0, details=True, **nothing)
        assert math.isnan(float(found.value))
        assert "one population" in found.flags[0]


def test_batches_reductions_and_otsu_regions_work_as_for_the_other_kinds() -> None:
    x = torch.from_numpy(RNG(5).standard_normal((3, 1, 96, 96)) * 0.05)
    x[..., 20:60] += 0.6
    rows = semnr.cnr(x, kind="gcnr")
    assert rows.shape == (3,)
    assert float(semnr.cnr(x, kind="gcnr", reduction="mean")) == pytest.approx(float(rows.mean()))
    assert float(semnr.cnr(x[1], kind="gcnr")) == pytest.approx(float(rows[1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"value_range": (2.0, 1.0)}, "value_range is"), ({"reduction": "median"}, "reduction is 'median'")],
)
def test_wrong_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        semnr.cnr(np.zeros((64, 64)), kind="gcnr", **REGIONS | {"signal": None, "background": None}, **options)
