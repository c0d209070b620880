"""Thresholds say what they are: on labelled tiles, on normal tiles alone, and never without what they need."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semnr.anomaly import (
    Threshold,
    auroc,
    average_precision,
    choose_threshold,
    generalisation,
    precision_recall,
)

TEXTBOOK = [0.002, 0.0015, 0.005, 0.0008, 0.007]


def test_the_textbook_case_flags_the_third_and_the_fifth_image() -> None:
    flags = Threshold(0.004).flags(TEXTBOOK)
    assert (np.flatnonzero(flags) + 1).tolist() == [3, 5]


def test_the_textbook_errors_are_overfitting_and_are_said_to_be() -> None:
    told = generalisation(0.0005, 0.01)
    assert told["overfits"]
    assert told["ratio"] == pytest.approx(20)
    assert told["statement"].startswith("overfitting: the error is 0.01 on new tiles against 0.0005")
    alike = generalisation([0.9, 1.0, 1.1], [1.0, 1.1, 1.2])
    assert not alike["overfits"]
    assert "no overfitting" in alike["statement"]


def test_a_large_ratio_within_its_errors_is_no_overfitting() -> None:
    assert not generalisation([0.1, 0.1, 0.1], [0.05, 0.02, 0.6])["overfits"]


NORMAL = np.arange(1.0, 11.0)  # 1 to 10
ANOMALOUS = np.array([4.5, 8.5, 9.5, 12.0, 13.0, 14.0])


def every_threshold() -> list[tuple[float, float, float]]:
    """(threshold, recall, precision) by hand, at and below every score."""
    rows = []
    for t in np.concatenate([NORMAL, ANOMALOUS, [0.0]]):
        caught, false = int((t < ANOMALOUS).sum()), int((t < NORMAL).sum())
        if caught + false:
            rows.append((t, caught / 6, caught / (caught + false)))
    return rows


@pytest.mark.parametrize("recall", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_recall_first_gives_the_highest_precision_that_still_has_it(recall: float) -> None:
    limit = choose_threshold(NORMAL, ANOMALOUS, recall=recall)
    best = max(p for _, r, p in every_threshold() if r >= recall)
    assert limit.figures["recall"] >= recall
    assert limit.figures["precision"] == pytest.approx(best)


def test_f1_and_cost_are_the_best_there_are() -> None:
    f1 = choose_threshold(NORMAL, ANOMALOUS, method="f1").figures["f1"]
    assert f1 == pytest.approx(max(2 * p * r / (p + r) for _, r, p in every_threshold() if r))
    for missed in (1.0, 3.0, 30.0):
        limit = choose_threshold(NORMAL, ANOMALOUS, method="cost", cost_missed=missed, cost_false=1.0)
        costs = [missed * (t >= ANOMALOUS).sum() + (t < NORMAL).sum() for t, *_ in every_threshold()]
        costs.append(missed * len(ANOMALOUS))  # none flagged
        got = missed * limit.figures["false_negatives"] + limit.figures["false_positives"]
        assert got == pytest.approx(min(costs))


def test_without_anomalous_tiles_a_labelled_method_is_refused() -> None:
    for method in ("recall", "f1", "cost"):
        with pytest.raises(ValueError, match=r"anomalous holds no score.*method='normals'"):
            choose_threshold(NORMAL, [], method=method)
    with pytest.raises(ValueError, match="normal holds no score"):
        choose_threshold([], ANOMALOUS)


def test_a_quantile_of_too_few_normal_tiles_is_refused_with_the_number_it_takes() -> None:
    with pytest.raises(ValueError, match="at least 99 normal tiles"):
        choose_threshold(np.arange(98.0), method="normals", false_alarms=0.01)
    limit = choose_threshold(np.arange(99.0), method="normals", false_alarms=0.01)
    assert (limit.value, limit.figures["rank"]) == (98.0, 99)


def test_the_false_alarm_statement_holds_on_new_tiles() -> None:
    """Of 400 calibrations, each of its own: the mean rate is below what is stated, the interval covers as often."""
    rng = np.random.default_rng(1)
    rates, covered = [], 0
    for _ in range(400):
        limit = choose_threshold(rng.gamma(2.0, size=199), method="normals", false_alarms=0.05, confidence=0.9)
        value = limit.value
        rate = math.exp(-value) * (1 + value)  # of a gamma of shape 2
        low, high = limit.figures["false_alarm_rate_interval"]
        rates.append(rate)
        covered += low <= rate <= high
    assert np.mean(rates) < 0.05 + 3 * np.std(rates) / 20
    assert limit.figures["false_alarms_at_most"] == pytest.approx(0.05)
    assert 0.86 < covered / 400 < 0.94


def test_a_moved_threshold_states_nothing_of_the_old_one() -> None:
    limit = choose_threshold(NORMAL, ANOMALOUS, score="scan").moved(3.0)
    assert (limit.value, limit.method, limit.score, dict(limit.figures)) == (3.0, "given", "scan", {})
    assert "nothing is stated" in limit.statement


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "best"}, "method is 'best'"),
        ({"recall": 0}, "recall is 0"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"method": "cost", "cost_missed": 0}, "cost_missed is 0"),
        ({"method": "normals", "false_alarms": 2}, "false_alarms is 2"),
    ],
)
def test_arguments_out_of_range_are_named(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        choose_threshold(NORMAL, ANOMALOUS, **options)


def test_areas_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.integers(0, 12, 60).astype(float), rng.integers(4, 16, 25).astype(float)
    pairs = np.sign(bad[:, None] - good[None])
    assert auroc(good, bad) == pytest.approx(float((pairs + 1).mean() / 2))
    steps = []
    for t in sorted(set(bad), reverse=True):
        caught, false = (bad >= t).sum(), (good >= t).sum()
        steps.append((bad == t).sum() * caught / (caught + false))
    assert average_precision(good, bad) == pytest.approx(sum(steps) / 25)
    assert math.isnan(auroc(good, []))


def test_the_curve_runs_from_everything_flagged_to_the_last_anomalous_tile() -> None:
    curve = precision_recall(NORMAL, ANOMALOUS)
    assert curve[0]["recall"] == 1
    assert curve[0]["precision"] == pytest.approx(6 / 16)
    assert curve[-1]["precision"] == 1
    assert [row["threshold"] for row in curve] == sorted(row["threshold"] for row in curve)
