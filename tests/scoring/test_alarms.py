"""Alarms on the stream of rows: debounce by place, drift by EWMA, nothing said twice."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import semnr
from semnr.cli import main
from semnr.scoring.alarms import Alarms, read_alarms


def sounded(folder, rules, rows, **options) -> list[dict]:
    alarms = Alarms(folder, read_alarms(rules), **options)
    for i, row in enumerate(rows):
        alarms.watch({"tile": f"t{i}", **row})
    return alarms.raised


def test_a_bound_sounds_once_a_die_after_as_many_tiles_as_it_waits_for(tmp_path) -> None:
    rules = {"low": {"metric": "ssim", "below": 0.8, "per": "die", "count": 2}}
    rows = [
        {"die_x": x, "die_y": 0, "ssim": v} for x, v in ((0, 0.7), (1, 0.7), (0, 0.9), (0, 0.6), (0, 0.5), (1, 0.9))
    ]
    (alarm,) = sounded(tmp_path, rules, rows)
    assert alarm["place"] == {"lot_id": None, "wafer_id": None, "die_x": 0, "die_y": 0}
    assert (alarm["tiles"], alarm["value"], alarm["below"]) == (["t0", "t3"], 0.6, 0.8)
    assert [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()] == [alarm]


def test_a_cluster_counts_tiles_near_its_first_one(tmp_path) -> None:
    rules = {"alarms": {"spot": {"metric": "mse", "above": 1, "per": "cluster", "radius_um": 100, "count": 3}}}
    places = [(0, 0), (90, 0), (1000, 0), (0, 99), (1010, 0), (0, 10)]
    rows = [{"wafer_x_um": x, "wafer_y_um": y, "mse": 2.0} for x, y in places]
    assert [a["tiles"] for a in sounded(tmp_path, rules, rows)] == [["t0", "t1", "t3"]]


def test_rows_without_the_metric_or_without_a_place_never_sound(tmp_path) -> None:
    rules = {"a": {"metric": "ssim", "below": 1, "per": "cluster", "radius_um": 1}, "b": {"metric": "fsim", "below": 1}}
    assert sounded(tmp_path, rules, [{"ssim": 0.5}, {"ssim": math.nan, "fsim": None}]) == []


def test_the_ewma_chart_sounds_on_a_small_lasting_shift_and_not_on_noise(tmp_path) -> None:
    """Half a σ: far inside a Shewhart limit of 3 σ, found by the weighted mean."""
    rules = {"drift": {"metric": "fsim", "ewma": 0.1, "sigmas": 4.0, "baseline": 200, "direction": "down"}}
    rng = np.random.default_rng(5)
    level = np.concatenate([np.zeros(1200), np.full(400, -1.0)])
    rows = [
        {"lot_id": "A" if i < 1200 else "B", "fsim": 0.95 + 0.01 * (rng.standard_normal() + shift)}
        for i, shift in enumerate(level)
    ]
    (alarm,) = sounded(tmp_path, rules, rows)
    assert alarm["place"] == {"lot_id": "B"}
    assert alarm["direction"] == "down"
    assert 1200 < int(alarm["tiles"][0][1:]) < 1260


def test_the_control_limit_is_roberts_own(tmp_path) -> None:
    rules = {"d": {"metric": "v", "ewma": 0.25, "sigmas": 2.0, "mean": 0.0, "sigma": 1.0}}
    limit = 2.0 * math.sqrt(0.25 / 1.75 * (1 - 0.75**2))
    assert sounded(tmp_path, rules, [{"v": limit / 0.25 - 1e-9}]) == []
    (alarm,) = sounded(tmp_path, rules, [{"v": limit / 0.25 + 1e-9}])
    assert alarm["limit"] == pytest.approx(limit, rel=1e-12)


def test_a_resumed_run_repeats_no_alarm_and_cuts_off_a_torn_line(tmp_path) -> None:
    rules = {"low": {"metric": "ssim", "below": 0.8, "per": "wafer", "count": 1}}
    sounded(tmp_path, rules, [{"wafer_id": "1", "ssim": 0.1}])
    with (tmp_path / "alarms.jsonl").open("a") as file:
        file.write('{"alarm": "lo')
    found = sounded(tmp_path, rules, [{"wafer_id": "1", "ssim": 0.1}, {"wafer_id": "2", "ssim": 0.1}], resumed=True)
    assert [a["place"]["wafer_id"] for a in found] == ["1", "2"]
    assert len((tmp_path / "alarms.jsonl").read_text().splitlines()) == 2


def test_score_writes_alarms_as_they_happen_and_a_resume_goes_on_counting(tmp_path) -> None:
    rng = np.random.default_rng(1)
    clean = rng.integers(0, 255, (6, 32, 32), dtype=np.uint8)
    tiles = [
        (f"t{i}", np.clip(c.astype(int) + rng.integers(-1, 2) + (90 if i in (1, 4) else 3), 0, 255).astype(np.uint8))
        for i, c in enumerate(clean)
    ]
    reference = [(f"t{i}", c) for i, c in enumerate(clean)]
    rules = {"low": {"metric": "psnr", "below": 20.0, "per": "run", "count": 2}}
    options = {"out": tmp_path / "run", "metrics": ("psnr",), "alarms": rules}
    first = semnr.score(tiles[:3], reference=reference[:3], **options)
    assert first.alarms == []
    whole = semnr.score(tiles, reference=reference, **options)
    (alarm,) = whole.alarms
    assert alarm["tiles"] == ["t1", "t4"]
    assert whole.info["alarms"] == 1


def lows(count: int = 4):
    """Tiles far below any bound, with their reference."""
    clean = np.random.default_rng(0).integers(0, 255, (count, 32, 32), dtype=np.uint8)
    return [(f"t{i}", 255 - c) for i, c in enumerate(clean)], [(f"t{i}", c) for i, c in enumerate(clean)]


def test_alarms_given_with_the_resume_sound_for_the_rows_that_are_there(tmp_path) -> None:
    tiles, reference = lows()
    rules = {"low": {"metric": "psnr", "below": 20.0, "per": "run", "count": 3}}
    given = {"reference": reference, "out": tmp_path / "run", "metrics": ("psnr",)}
    assert semnr.score(tiles, **given).alarms == []
    (alarm,) = semnr.score(tiles, alarms=rules, **given).alarms
    assert alarm["tiles"] == ["t0", "t1", "t2"]
    assert len(semnr.score(tiles, alarms=rules, **given).alarms) == 1
    tighter = {"low": {**rules["low"], "below": 19.0}}
    assert [a["below"] for a in semnr.score(tiles, alarms=tighter, **given).alarms] == [20.0, 19.0]


def test_an_alarm_whose_row_is_on_the_disk_but_not_the_alarm_sounds_on_resume(tmp_path) -> None:
    tiles, reference = lows()
    rules = {"low": {"metric": "psnr", "below": 20.0, "per": "run", "count": 2}}
    given = {"reference": reference, "out": tmp_path / "run", "metrics": ("psnr",), "alarms": rules}
    (before,) = semnr.score(tiles, **given).alarms
    (tmp_path / "run/alarms.jsonl").unlink()  # killed between the part and its alarm
    assert semnr.score(tiles, **given).alarms == [before]


def test_a_row_that_was_not_scored_sounds_nothing(tmp_path) -> None:
    rules = {"low": {"metric": "ssim", "below": 0.8, "per": "run", "count": 1}}
    assert sounded(tmp_path, rules, [{"ssim": 0.1, "status": "missing"}]) == []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"metric": 3, "below": 1}, "metric is 3"),
        ({"metric": "ssim", "below": 1, "above": 2}, "one of below and above"),
        ({"metric": "ssim", "below": "x"}, "below is 'x'; accepted: a finite number"),
        ({"metric": "ssim", "below": 1, "per": "row"}, "per is 'row'; accepted: run, lot, wafer, die, cluster"),
        ({"metric": "ssim", "below": 1, "per": "cluster"}, "radius_um is 0.0"),
        ({"metric": "ssim", "below": 1, "count": 0}, "count is 0"),
        ({"metric": "ssim", "ewma": 0}, "ewma is 0; accepted: above 0"),
        ({"metric": "ssim", "ewma": 0.1, "mean": 1.0}, "sigma is None"),
        ({"metric": "ssim", "ewma": 0.1, "direction": "left"}, "direction is 'left'"),
    ],
)
def test_a_bad_rule_is_named_with_its_key(rule, message) -> None:
    with pytest.raises(ValueError, match=f"alarm a: .*{message}"):
        read_alarms({"a": rule})


def test_a_file_of_rules_is_read_and_a_broken_one_refused(tmp_path) -> None:
    path = tmp_path / "alarms.toml"
    path.write_text('[alarms.low]\nmetric = "ssim"\nbelow = 0.8\n')
    (rule,) = read_alarms(path)
    assert (rule.name, rule.below, rule.per) == ("low", 0.8, "die")
    path.write_text("[alarms.low")
    with pytest.raises(ValueError, match="not TOML"):
        read_alarms(path)
    with pytest.raises(TypeError, match="alarms is int"):
        read_alarms(7)


# --- what cannot sound ----------------------------------------------------------------------------------------


def unjudged(folder, rule, rows) -> tuple[str, ...]:
    alarms = Alarms(folder, read_alarms({"a": rule}))
    for i, row in enumerate(rows):
        alarms.watch({"tile": f"t{i}", **row})
    return alarms.unjudged({name for row in rows for name in row})


@pytest.mark.parametrize(
    ("rule", "rows", "said"),
    [
        (
            {"metric": "pnsr", "below": 9},
            [{"psnr": 30.0}],
            "alarm a: no tile has a number 'pnsr' (did you mean 'psnr'?)",
        ),
        ({"metric": "psnr", "below": 9}, [{"psnr": None}], "alarm a: no tile has a number 'psnr'"),
        ({"metric": "lot", "below": 9}, [{"lot": "A7"}], "alarm a: no tile has a number 'lot'"),
        ({"metric": "q", "ewma": 0.1, "mean": 0.0, "sigma": 1.0}, [{}], "alarm a: no tile has a number 'q'"),
        (
            {"metric": "v", "ewma": 0.1, "baseline": 3},
            [{"v": 1.0}, {"v": math.inf}, {"v": 2.0}],
            "alarm a: its baseline is 3 tiles with a finite v, the run has 2",
        ),
        (
            {"metric": "v", "above": 1, "per": "cluster", "radius_um": 5},
            [{"v": 2.0}],
            "alarm a: 1 tiles beyond the bound have no wafer_x_um and wafer_y_um, which per='cluster' needs",
        ),
    ],
)
def test_a_rule_that_could_not_sound_says_why(tmp_path, rule, rows, said) -> None:
    assert unjudged(tmp_path, rule, rows) == (said,)


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        ({"metric": "v", "below": 9}, [{"v": 30}]),
        ({"metric": "v", "ewma": 0.1, "baseline": 2}, [{"v": 1.0}, {"v": 2.0}]),
        ({"metric": "v", "above": 1, "per": "cluster", "radius_um": 5}, [{"v": 0.0}]),
    ],
)
def test_a_rule_that_saw_its_column_and_kept_quiet_has_judged(tmp_path, rule, rows) -> None:
    assert unjudged(tmp_path, rule, rows) == ()


def test_a_run_whose_alarm_cannot_be_judged_is_incomplete_and_says_so(tmp_path, capsys) -> None:
    image = np.arange(1024, dtype=np.uint8).reshape(1, 32, 32)
    np.save(tmp_path / "x.npy", image)
    np.save(tmp_path / "y.npy", image // 2)
    (tmp_path / "a.toml").write_text('[alarms.low]\nmetric = "fsim"\nbelow = 0.5\n')
    base = ["score", str(tmp_path / "x.npy"), "--reference", str(tmp_path / "y.npy"), "--metrics", "psnr", "-q"]
    assert main([*base, "--out", str(tmp_path / "a"), "--alarms", str(tmp_path / "a.toml")]) == 3
    assert "not judged: alarm low: no tile has a number 'fsim'" in capsys.readouterr().out
    assert main([*base, "--out", str(tmp_path / "b")]) == 0


def test_a_tile_that_is_read_again_counts_once(tmp_path) -> None:
    rules = {"low": {"metric": "ssim", "below": 0.8, "per": "run", "count": 2}}
    alarms = Alarms(tmp_path, read_alarms(rules))
    for tile in ("a", "a", "b"):
        alarms.watch({"tile": tile, "ssim": 0.1})
    assert [alarm["tiles"] for alarm in alarms.raised] == [["a", "b"]]
