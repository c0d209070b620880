"""Levels that are held whatever the distribution: p-values by field, wafers, discoveries, and what is refused."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import semnr
from semnr import Profile, guard
from semnr.cli import main
from semnr.guarding import Conformal, Stratum, calibrate, discovered, load_rules, needed, p_values
from semnr.guarding.calibration import ALL
from semnr.runs.brief import brief

RULES = {name: semnr.DEFAULT_RULES[name] for name in ("erased_structure", "lost_detail", "brightness_shift")}
COLUMNS = ("removed_z", "removed_count", "feature_contrast", "gain_change", "offset_change")


def fields(rng: np.random.Generator, count: int, tiles: int = 2, harm: float = 0.0, **texts: str) -> Profile:
    """Fields of tiles that share most of what they scatter by, as tiles of one field do; heavy tails."""
    n = count * tiles
    shared = np.repeat(rng.standard_t(3, (len(COLUMNS), count)), tiles, axis=1)
    noise = shared + 0.3 * rng.standard_t(3, (len(COLUMNS), n))
    size = {
        "removed_z": 0.4,
        "removed_count": 0.0,
        "feature_contrast": -0.01,
        "gain_change": 0.004,
        "offset_change": 0.001,
    }
    base = {"removed_z": 4.0, "feature_contrast": 1.0}
    columns = {name: base.get(name, 0.0) + size[name] * (noise[i] + harm) for i, name in enumerate(COLUMNS)}
    said = {name: (value,) * n for name, value in texts.items()}
    said["field"] = tuple(f"f{i}" for i in np.repeat(np.arange(count), tiles))
    return Profile(tuple(f"t{i}" for i in range(n)), columns, 1.0, texts=said, auto_ids=True)


def learnt(rng: np.random.Generator, count: int = 120, **options: object) -> Conformal:
    asked = {"level": 0.05, "wafer_level": 0.05, "unit": "field", "rules": RULES, **options}
    return calibrate([fields(rng, count)], **asked)  # type: ignore[arg-type]


# --- the arithmetic ---


def test_p_of_a_tile_counts_each_field_once_however_many_tiles_it_has() -> None:
    scores = [5.0, 4.0, 3.0, 2.0, 1.0, 6.0]
    kept = Stratum.of({ALL: scores}, ["a", "a", "a", "a", "b", "c"])
    # at 3.5: two of four tiles of a, none of b, all of c: 1.5 fields, counted as 2
    assert kept.tile_p([3.5])[0] == pytest.approx((1 + 2) / 4)
    assert kept.tile_p([0.0, 7.0]).tolist() == [1.0, 0.25]
    assert kept.field == (6.0, 5.0, 1.0)


def test_p_of_a_wafer_is_the_chance_that_the_largest_of_n_and_m_are_old() -> None:
    rng = np.random.default_rng(0)
    n, m = 40, 6
    kept = Stratum.of({ALL: np.arange(n, 0.0, -1)}, range(n))
    for r in (0, 3, n - 1):
        exact = 1 - np.prod([Fraction(n - j, n + m - j) for j in range(r + 1)])
        assert kept.wafer_p(n - r + 0.5, m) == pytest.approx(float(exact), rel=1e-12)
    drawn = [rng.permutation(n + m) for _ in range(4000)]  # ranks; the last m are new
    p = [kept.wafer_p(n - int((d[:n] >= d[n:].max()).sum()) + 0.5, m) for d in drawn]
    assert np.mean(np.array(p) <= 0.3) == pytest.approx(0.3, abs=0.12)
    assert np.mean(np.array(p) <= 0.3) <= 0.3 + 3 * np.sqrt(0.3 * 0.7 / 4000)


def test_numbers_needed() -> None:
    assert [needed(level) for level in (0.01, 0.03, 0.05, 0.5)] == [99, 33, 19, 1]
    assert needed(0.05, fields=20) == 380
    kept = Stratum.of({ALL: np.arange(380.0)}, range(380))
    assert kept.wafer_p(1e9, 20) <= 0.05 < Stratum.of({ALL: np.arange(379.0)}, range(379)).wafer_p(1e9, 20)


def test_kept_scores_are_rounded_upwards_so_that_p_is_never_lowered() -> None:
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(size=300), -(10.0 ** rng.uniform(-4, 4, 100)), [0.0, -np.inf]])
    kept = Stratum.of({ALL: scores}, range(len(scores)))
    exact = np.array([(1 + (scores >= s).sum()) / (len(scores) + 1) for s in scores])
    assert (kept.tile_p(scores) >= exact - 1e-12).all()
    np.testing.assert_allclose(kept.tile_p(scores), exact, atol=0.01)


def test_benjamini_and_hochberg_against_scipy() -> None:
    from scipy.stats import false_discovery_control

    rng = np.random.default_rng(2)
    p = rng.uniform(size=60) ** 3
    for dependence, method in (("positive", "bh"), ("any", "by")):
        expected = false_discovery_control(p, method=method) <= 0.1
        np.testing.assert_array_equal(discovered(p, 0.1, dependence), expected)
    assert not discovered([np.nan, 0.9], 0.1).any()
    with pytest.raises(ValueError, match="dependence is 'none'"):
        discovered(p, 0.1, "none")


# --- the levels ---


def test_levels_are_held_on_unseen_fields_whose_tiles_are_alike() -> None:
    rng = np.random.default_rng(3)
    draws, tiles, wafers = 150, [], []
    for _ in range(draws):
        rule = learnt(rng, 60, level=0.1, wafer_level=0.2, fields_per_wafer=10)
        wafer = fields(rng, 10)
        p = p_values(wafer, rule)
        tiles.append(np.mean(p.tile <= 0.1))
        wafers.append(p.wafer_p[""] <= 0.2)
    for shares, level in ((tiles, 0.1), (wafers, 0.2)):
        error = np.std(shares) / np.sqrt(draws)
        assert np.mean(shares) <= level + 3 * error
        assert np.mean(shares) >= 0.4 * level  # it is no empty promise


def test_a_harmed_wafer_fires_and_names_its_fields() -> None:
    rng = np.random.default_rng(4)
    rule = learnt(rng, 400, fields_per_wafer=10)
    wafer = Profile.concat([fields(rng, 8), fields(rng, 2, harm=60.0)])
    wafer = dataclasses.replace(wafer, texts={"field": tuple(f"f{i // 2}" for i in range(20))})
    verdict = guard(None, wafer, rules={"conformal": rule})
    signal = verdict["conformal"]
    assert (verdict.outcome, signal.status) == ("failed", "fired")
    assert {r["field"] for r in signal.regions} >= {"//f8", "//f9"}
    assert all(r["signal"] in RULES and r["p_value"] <= 0.05 for r in signal.regions)
    assert signal.evidence["fields_found_at_false_discovery_rate_0.1"] >= 2
    assert (signal.evidence["level_held_per_tile"], signal.evidence["level_held_per_wafer"]) == (0.05, 0.05)
    assert "p" in str(verdict)


def test_a_harmless_wafer_passes_and_unknown_evidence_never_does() -> None:
    rng = np.random.default_rng(5)
    rule = learnt(rng, 400, fields_per_wafer=4)
    calm = fields(np.random.default_rng(8), 4)
    passed = guard(None, calm, rules={"conformal": rule})
    assert passed.outcome == "passed"
    assert any("conformal: p 0." in line and "0.05 fire" in line for _, line in brief(passed))
    columns = {**calm.columns, "feature_contrast": np.where(np.arange(8) == 3, np.nan, calm.column("feature_contrast"))}
    blind = dataclasses.replace(calm, columns=columns)
    verdict = guard(None, blind, rules={"conformal": rule})
    assert np.isnan(p_values(blind, rule).tile).tolist() == [False] * 3 + [True] + [False] * 4
    assert verdict["conformal"].status == "unknown"
    assert "no feature_contrast" in verdict["conformal"].advice
    assert verdict.exit_code == 3
    nothing = dataclasses.replace(calm, columns={"psnr": np.full(8, 30.0)})
    assert guard(None, nothing, rules={"conformal": rule})["conformal"].needs == "the noisy input"


def test_a_wafer_of_more_fields_than_the_calibration_can_bear_is_unknown_with_the_number_needed() -> None:
    rng = np.random.default_rng(6)
    rule = learnt(rng, 60)
    verdict = guard(None, fields(rng, 30), rules={"conformal": rule})
    assert verdict["conformal"].status == "unknown"
    assert f"needs {needed(0.05, 30)} calibration fields, there are 51" in verdict["conformal"].advice


def test_strata_have_a_calibration_each_and_a_kind_that_was_not_seen_has_no_p() -> None:
    rng = np.random.default_rng(7)
    parts = [fields(rng, 40, pattern="lines", dose="40"), fields(rng, 40, harm=20.0, pattern="holes", dose="40")]
    rule = calibrate(parts, level=0.05, unit="field", rules=RULES, strata=("pattern", "dose"))
    assert {name: kept.fields for name, kept in rule.calibration.items()} == {
        "pattern=lines, dose=40": 34, "pattern=holes, dose=40": 34,
    }  # fmt: skip
    shifted = fields(rng, 20, harm=20.0, pattern="holes", dose="40")
    assert np.mean(p_values(shifted, rule).tile <= 0.05) < 0.3
    wrong = dataclasses.replace(shifted, texts={**shifted.texts, "pattern": ("lines",) * len(shifted)})
    assert np.mean(p_values(wrong, rule).tile <= 0.05) > 0.7
    strange = dataclasses.replace(shifted, texts={**shifted.texts, "pattern": ("vias",) * len(shifted)})
    assert np.isnan(p_values(strange, rule).tile).all()
    assert "no calibration of pattern=vias" in guard(None, strange, rules={"conformal": rule})["conformal"].advice
    binned = calibrate(
        [fields(rng, 60)], level=0.1, wafer_level=0.1, unit="field", rules=RULES, strata=("feature_contrast:0.5,2",)
    )
    assert list(binned.calibration) == ["feature_contrast 0.5 to 2"]


# --- files, and what is refused ---


def test_a_rule_survives_its_file_is_moved_by_hand_and_its_scores_are_sealed(tmp_path: Path) -> None:
    rule = learnt(np.random.default_rng(9))
    made = semnr.stress.Learnt({**RULES, "conformal": rule}, {"seed": 9})
    made.save(tmp_path / "rules.toml")
    text = (tmp_path / "rules.toml").read_text(encoding="utf-8")
    assert load_rules(tmp_path / "rules.toml") == made.rules
    moved = tmp_path / "moved.toml"
    moved.write_text(text.replace("\nlevel = 0.05", "\nlevel = 0.02"), encoding="utf-8")
    assert load_rules(moved)["conformal"] == rule.moved(level=0.02)
    moved.write_text(text.replace("\nlevel = 0.05", "\nlevel = 0.001"), encoding="utf-8")
    with pytest.raises(ValueError, match="102 calibration fields of all are too few; accepted: at least 999 "):
        load_rules(moved)
    score = f"{rule.calibration['all'].field[3]!r}"
    moved.write_text(text.replace(score, f"{float(score) - 1e-4!r}", 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"sha256|largest first"):
        load_rules(moved)


def test_too_few_fields_are_refused_with_the_number_needed() -> None:
    rng = np.random.default_rng(10)
    with pytest.raises(ValueError, match=r"has 34 calibration fields of all .*at least 99 \(117 in all\)"):
        learnt(rng, 40, level=0.01)
    with pytest.raises(ValueError, match=r"wafer_level 0.05 with 20 fields a wafer: at least 380"):
        learnt(rng, 40, fields_per_wafer=20)
    assert learnt(rng, 117, level=0.01).level == 0.01
    with pytest.raises(ValueError, match="unit is 'die', and tiles have no die_x, die_y"):
        learnt(rng, 40, unit="die")
    with pytest.raises(ValueError, match="unit is 'site', which is no column"):
        learnt(rng, 40, unit="site")
    with pytest.raises(ValueError, match="80 tiles have no value"):
        learnt(rng, 40, strata=("pattern",))
    with pytest.raises(ValueError, match="harmless is empty"):
        calibrate([])
    with pytest.raises(ValueError, match=r"tiles is 10; accepted for level 0\.01: at least 99"):
        semnr.learn_rules(tiles=10, frames=2, false_alarm=0.1, level=0.01)


def test_re_imagings_give_a_rule_by_pattern_and_dose() -> None:
    made = semnr.learn_rules(
        tiles=30, side=48, frames=2, false_alarm=0.1, level=0.3, wafer_level=0.3, strata=("pattern", "dose"),
        doses=(0.5, 1.0), seed=3, rules={k: semnr.DEFAULT_RULES[k] for k in ("lost_detail", "brightness_shift")},
    )  # fmt: skip
    rule = made.rules["conformal"]
    assert isinstance(rule, Conformal)
    assert rule.unit == "tile"
    assert sorted(rule.calibration)[0] == "pattern=holes, dose=40"
    assert made.provenance["calibration_fields"] == {name: 3 for name in rule.calibration}
    assert made.provenance["sha256"] == rule.sha256
    assert all(len(kept.field) == 3 and kept.tiles == 6 for kept in rule.calibration.values())


def test_the_command_learns_from_accepted_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = semnr.synth.tile("lines", 64, seed=0)
    noisy = np.stack([site.noisy(frame=k, dtype="uint8") for k in range(24)])
    clean = np.stack([site.reference("uint8")] * 24)
    for name, half in (("lot", slice(0, 22)), ("new", slice(22, 24))):
        semnr.score(clean[half], reference=clean[half], noisy=noisy[half], out=tmp_path / name, metrics="psnr")
    lot, new, rules = (str(tmp_path / name) for name in ("lot", "new", "rules.toml"))
    learn = ["guard", lot, "--learn", "accepted", "--unit", "tile", "--rules-out", rules]
    assert main([*learn, "--level", "0.01"]) == 2
    assert "at least 99" in capsys.readouterr().err
    assert main([*learn, "--level", "0.1", "--wafer-level", "0.2"]) == 0
    assert "false alarms at most 0.1 a tile and 0.2 a wafer" in capsys.readouterr().out
    main(["guard", new, "--rules", rules, "--verbose"])
    assert "p of the wafer" in capsys.readouterr().out
    assert main(["guard", "--learn", "accepted", "--rules-out", rules]) == 2
    assert main(["guard", "--learn", "synthetic", "--unit", "die", "--rules-out", rules]) == 2
