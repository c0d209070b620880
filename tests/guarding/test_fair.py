"""Verdicts that are fair: the baseline is judged too, and a change is only said where it is one and can be told."""

from __future__ import annotations

import math

import numpy as np
import pytest

import semnr
from semnr.guarding import DEFAULT_RULES, Comparison, Range
from semnr.profiles import Profile, reading
from semnr.profiles.reading import enough, read, tolerance_of
from semnr.runs.verdict import Verdict

GOOD = {
    "psnr": 30.0, "psnr_noisy": 20.0, "ssim": 0.9, "fsim": 0.95, "transfer": 1.0, "transfer_se": 0.005,
    "feature_contrast": 0.97, "shift_x_px": 0.0, "shift_y_px": 0.0, "gain_change": 0.0, "offset_change": 0.0,
    "removed_count": 0.0, "invented_count": 0.0, "overshoot": 0.001,
}  # fmt: skip
NOISE = {"psnr": 0.1, "ssim": 0.002, "fsim": 0.001, "transfer": 0.003, "feature_contrast": 0.005}


def run(tiles: int = 40, seed: int = 0, label: str = "", **changed: float) -> Profile:
    """A constructed run: columns about a value, tile by tile the same scenes for every seed."""
    scenes, own = np.random.default_rng(7), np.random.default_rng(seed + 100)
    columns = {}
    for name, value in {**GOOD, **changed}.items():
        scale = NOISE.get(name, 0.0)
        scatter = 4 * scale * scenes.standard_normal(tiles) + scale * own.standard_normal(tiles)
        columns[name] = value + scatter
    return Profile(tuple(f"t{i}" for i in range(tiles)), columns, 255.0, {}, label=label)


def test_two_that_both_blur_are_both_told_and_the_better_one_is_named() -> None:
    old = run(label="old", transfer=0.6, feature_contrast=0.6)
    new = run(seed=1, label="new", transfer=0.7, feature_contrast=0.7, psnr=31.0)
    verdict = semnr.guard(old, new)
    assert {signal.name for signal in verdict.baseline_fired} == {"evidence_transfer", "lost_detail"}
    assert verdict.standing.startswith("Neither is fit: old fails evidence transfer, lost detail too. new is better on")
    assert (verdict.changes["transfer"], verdict.changes["psnr"]) == ("better", "better")
    assert "Neither is fit" in str(verdict)
    assert str(Verdict.from_dict(verdict.to_dict())) == str(verdict)


def test_a_good_candidate_of_a_bad_baseline_is_not_blamed() -> None:
    verdict = semnr.guard(run(label="old", transfer=0.6, feature_contrast=0.6), run(seed=1, label="new"))
    assert not verdict.fired
    assert verdict.standing.startswith("old fails evidence transfer, lost detail by itself. new is better on")


def test_two_alike_are_the_same_within_tolerance() -> None:
    verdict = semnr.guard(run(tiles=200), run(tiles=200, seed=1))
    assert set(verdict.changes.values()) == {"same"}
    assert "Neither" not in verdict.standing


def test_a_shift_of_a_thousandth_of_a_pixel_is_not_paid() -> None:
    before, after = run(label="a"), run(seed=1, label="b", shift_x_px=0.001)
    assert semnr.guard(before, after).changes["shift_x_px"] == "same"
    found = {d.column: d.verdict for d in semnr.compare(before, after).candidates["b"]}
    assert found["shift_x_px"] == "same"
    worse = {d.column: d.verdict for d in semnr.compare(before, run(label="c", shift_x_px=0.05)).candidates["c"]}
    assert worse["shift_x_px"] == "worse"


@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_five_tiles_are_too_few_to_say_and_not_no_difference(tiles) -> None:
    before, after = run(tiles=tiles, label="a"), run(tiles=tiles, seed=1, label="b", psnr=30.05)
    assert set(semnr.guard(before, after).changes.values()) == {"too few tiles"}
    assert {d.verdict for d in semnr.compare(before, after).candidates["b"]} == {"too few tiles"}


def test_tiles_of_one_die_are_one_witness() -> None:
    before, after = run(label="a"), run(seed=1, label="b", psnr=32.0)
    for profile in (before, after):
        profile.columns["die_x"] = np.arange(40) // 20
        profile.columns["die_y"] = np.zeros(40)
    assert semnr.guard(before, after).changes["psnr"] == "too few tiles"


def test_a_wide_interval_is_no_sameness() -> None:
    assert read(0.01, -0.3, 0.3, 0.1, significant=False, sure=True) == "too few tiles"
    assert read(0.01, -0.05, 0.07, 0.1, significant=False, sure=True) == "same"
    assert read(0.05, 0.04, 0.06, 0.1, significant=True, sure=True) == "same"
    assert read(-0.5, -0.6, -0.4, 0.1, significant=True, sure=True) == "worse"
    assert read(math.nan, -0.6, -0.4, 0.1, significant=True, sure=True) == "too few tiles"


def test_how_many_tiles_are_enough_is_what_a_sign_flip_can_show() -> None:
    from semnr.profiles.statistics import sign_flip

    for clusters in range(1, 14):
        least = sign_flip(np.ones(clusters), np.arange(clusters))
        assert enough(clusters, 1) == (least <= 0.05)
    assert not enough(9, 20)
    assert enough(9, 10)


def test_chance_reads_as_a_change_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(3)
    words = []
    for _ in range(400):
        gains = {f"c{k}": rng.standard_normal(30) for k in range(4)}
        words.append(set(reading.readings(gains, np.arange(30), dict.fromkeys(gains, 0.0)).values()))
    assert np.mean([bool({"better", "worse"} & found) for found in words]) < 0.09


def test_tolerances_are_those_of_the_rules() -> None:
    ratios = ("transfer", "transfer_bound", "transfer_high", "transfer_texture", "feature_contrast")
    ideal = dict.fromkeys(ratios, 1.0)
    absolute = {name for name in reading.TOLERANCE if name not in ("psnr_estimated", "cd_change_px", "cd_bias_px")}
    for rule in DEFAULT_RULES.values():
        if isinstance(rule, Comparison):
            for condition in rule.conditions:
                table = reading.RELATIVE if condition.relative else reading.TOLERANCE
                assert table[condition.metric] == condition.by, condition.metric
        if isinstance(rule, Range):
            for bound in rule.bounds:
                if bound.column in absolute:
                    ends = [end for end in (bound.below, bound.above) if math.isfinite(end)]
                    nearest = min(abs(end - ideal.get(bound.column, 0.0)) for end in ends)
                    assert tolerance_of(bound.column, 0.0) == pytest.approx(nearest / 10), bound.column
