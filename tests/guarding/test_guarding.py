"""The gate: each rule on constructed profiles, what is no evidence, exit codes, rules as data."""

from __future__ import annotations

import dataclasses
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import cases
import semnr
from semnr.cli import main
from semnr.guarding import DEFAULT_RULES, dump_rules, guard, load_rules
from semnr.profiles import Profile

N = 20
CALIBRATED = {"dists": {"weights": "vgg16", "calibrated": True, "resize": None}, "fsim_downsample": 2}
RANDOM = {"dists": {"weights": "random", "calibrated": False, "resize": None}, "fsim_downsample": 2}
COMPARING = ("over_smoothing", "texture_drift", "lost_contrast")


def scores(**columns: Any) -> Profile:
    """A profile of N tiles that no rule objects to, with some columns replaced."""
    base: dict[str, Any] = {
        "mse": 1e-3, "psnr": 30.0, "ssim": 0.9, "fsim": 0.95, "dists": 0.1, "cnr_fixed_noise_worst": 5.0,
        "psnr_noisy": 20.0, "transfer": 0.99, "transfer_se": 0.01,
        "overshoot": 0.004, "feature_contrast": 0.98, "transfer_high": 0.97, "transfer_texture": 0.97,
        "transfer_peak": 1.0, "row_noise_added": 0.01,
        "gain_change": 0.001, "offset_change": 0.0, "shift_y_px": 0.01, "shift_x_px": -0.01,
        "removed_z": 4.0, "removed_count": 0.0, "invented_z": 3.0, "invented_count": 0.0,
        "residual_variance": 0.95, "residual_structure_z": -3.0, "transfer_bound": 1.0,
    }  # fmt: skip
    fixed = {k: columns.pop(k) for k in ("settings", "kind", "label", "status", "tiles", "data_range") if k in columns}
    base.update(columns)
    rows = {k: np.broadcast_to(np.asarray(v, dtype=float), (N,)).copy() for k, v in base.items()}
    tiles = fixed.pop("tiles", tuple(f"t{i:06d}" for i in range(N)))
    return Profile(tiles, rows, **{"data_range": 1.0, "settings": CALIBRATED, "label": "x", **fixed})


def some(base: float, other: float, count: int) -> np.ndarray:
    """`count` rows of `other`, the rest `base`."""
    return np.where(np.arange(N) < count, other, base)


def only(name: str, **changes: Any) -> dict[str, Any]:
    return {name: dataclasses.replace(DEFAULT_RULES[name], **changes)}


def test_two_equal_candidates_pass() -> None:
    verdict = guard(scores(), scores())
    assert verdict.passed
    assert verdict.exit_code == 0
    assert {s.status for s in verdict.signals} == {"clear"}
    assert [s.name for s in verdict.signals] == list(DEFAULT_RULES)
    assert len(verdict.path) == len(DEFAULT_RULES)


@pytest.mark.parametrize(
    ("after", "fires"),
    [
        ({"psnr": 31.0, "fsim": 0.93}, "over_smoothing"),
        ({"dists": 0.15}, "texture_drift"),
        ({"psnr": 31.0, "cnr_fixed_noise_worst": 4.5}, "lost_contrast"),
        ({"transfer": 0.7}, "evidence_transfer"),
        ({"transfer": 0.7, "psnr": 19.0}, "evidence_ruined"),
    ],
)
def test_each_rule_fires_on_what_it_is_for_and_no_other_does(after: dict[str, float], fires: str) -> None:
    verdict = guard(scores(), scores(**after))
    assert [s.name for s in verdict.signals if s.status == "fired"] == [fires]
    assert verdict.exit_code == 1
    assert not verdict.passed
    assert verdict[fires].advice
    assert len(verdict[fires].regions) == N


@pytest.mark.parametrize(
    "after",
    [
        {"psnr": 31.0},  # better PSNR, the same FSIM
        {"fsim": 0.9},  # lower FSIM, no better PSNR
        {"psnr": 30.05, "fsim": 0.9},  # not beyond the threshold of PSNR
        {"dists": 0.15, "ssim": 0.85},  # SSIM not stable: another matter
        {"cnr_fixed_noise_worst": 4.0},  # contrast fell without a better PSNR
        {"psnr": 31.0, "cnr_fixed_noise_worst": 4.9},  # 2 %
    ],
)
def test_half_of_a_disagreement_fires_nothing(after: dict[str, float]) -> None:
    assert guard(scores(), scores(**after)).passed


@pytest.mark.parametrize(("count", "status"), [(1, "clear"), (2, "fired")])
def test_a_share_of_the_tiles_fires_the_run_only_when_it_is_more_than_the_share(count: int, status: str) -> None:
    after = scores(psnr=some(30, 31, count), fsim=some(0.95, 0.90, count))
    signal = guard(scores(), after, rules=only("over_smoothing"))[
        "over_smoothing"
    ]  # share 0.05 of 20: 1 tile is not more
    assert signal.status == status
    assert signal.evidence["tiles_fired"] == count
    assert [r["tile"] for r in signal.regions] == ([] if status == "clear" else ["t000000", "t000001"])


@pytest.mark.parametrize(("scatter", "status"), [(0.002, "fired"), (0.05, "clear")])
def test_a_mean_difference_fires_only_when_it_stands_clear_of_its_standard_error(scatter: float, status: str) -> None:
    rule = only("over_smoothing", share=1.0)
    noise = scatter * np.where(np.arange(N) % 2, 1.0, -1.0)
    signal = guard(scores(), scores(psnr=31.0, fsim=0.945 + noise), rules=rule)["over_smoothing"]
    assert signal.status == status
    assert signal.evidence["fsim_change"] == pytest.approx(-0.005)
    assert signal.evidence["fsim_change_se"] == pytest.approx(scatter * np.sqrt(N / (N - 1)) / np.sqrt(N), rel=1e-6)


def test_a_change_of_exactly_the_threshold_does_not_fire_and_stable_includes_it() -> None:
    before = scores(fsim=0.5, ssim=0.5, dists=0.5)
    down = only(
        "over_smoothing", conditions=(dataclasses.replace(DEFAULT_RULES["over_smoothing"].conditions[1], by=0.25),)
    )
    assert guard(before, scores(fsim=0.25), rules=down).passed
    assert not guard(before, scores(fsim=0.2499), rules=down).passed
    ssim, dists = DEFAULT_RULES["texture_drift"].conditions
    drift = only("texture_drift", conditions=(dataclasses.replace(ssim, by=0.25), dists))
    assert not guard(before, scores(ssim=0.75, dists=0.6), rules=drift).passed
    assert guard(before, scores(ssim=0.7501, dists=0.6), rules=drift).passed


def test_one_tile_is_judged_by_itself() -> None:
    one = lambda **c: Profile(("a",), {k: [v] for k, v in c.items()}, 1.0)  # noqa: E731
    verdict = guard(one(psnr=30, fsim=0.95), one(psnr=31, fsim=0.9), rules=only("over_smoothing"))
    assert verdict["over_smoothing"].status == "fired"


def test_infinite_psnr_counts_as_a_rise_and_infinite_in_both_as_no_change() -> None:
    rule = only("over_smoothing")
    inf = np.inf
    assert guard(scores(psnr=inf), scores(psnr=inf, fsim=0.9), rules=rule).passed
    verdict = guard(scores(), scores(psnr=inf, fsim=0.9), rules=rule)
    assert verdict["over_smoothing"].status == "fired"
    assert verdict["over_smoothing"].evidence["psnr_infinite_tiles"] == N
    json.dumps(verdict.to_dict(), allow_nan=False)
    assert guard(scores(psnr=inf), scores(psnr=30, fsim=0.9), rules=rule).passed


def test_rows_of_nan_are_missing_evidence_and_never_pass() -> None:
    rule = only("over_smoothing")
    holed = scores(fsim=some(0.95, np.nan, 3))
    signal = guard(scores(), holed, rules=rule)["over_smoothing"]
    assert signal.status == "unknown"
    assert "17 of 20" in signal.evidence["reason"]
    none = guard(scores(), scores(fsim=np.nan), rules=rule)
    assert none.exit_code == 3
    assert "no tile has fsim" in none["over_smoothing"].evidence["reason"]
    bad = guard(scores(), scores(psnr=31, fsim=some(0.90, np.nan, 3)), rules=rule)
    assert bad.exit_code == 1  # what is known is enough to fire


def test_dists_on_a_sample_of_the_tiles_is_evidence_enough() -> None:
    sample = some(np.nan, 0.1, 4)
    assert guard(scores(dists=sample), scores(dists=sample), rules=only("texture_drift")).passed


@pytest.mark.parametrize(("before", "after"), [("noisy", "denoised"), ("denoised", "noisy")])
def test_against_the_noisy_input_the_comparing_rules_are_not_comparable(before: str, after: str) -> None:
    verdict = guard(scores(kind=before), scores(kind=after))
    assert [verdict[name].status for name in COMPARING] == ["not_comparable"] * 3
    assert verdict.exit_code == 3
    assert guard(scores(kind=before), scores(kind=after), allow_unknown=COMPARING).exit_code == 0


def test_without_a_baseline_the_comparing_rules_are_unknown_and_the_transfer_rule_speaks() -> None:
    verdict = guard(None, scores())
    assert [verdict[name].status for name in COMPARING] == ["unknown"] * 3
    assert verdict["evidence_transfer"].status == "clear"
    assert verdict.exit_code == 3
    assert guard(None, scores(transfer=0.5), allow_unknown=COMPARING).exit_code == 1


def test_random_weights_leave_texture_drift_not_evaluated_however_far_dists_moved() -> None:
    verdict = guard(scores(settings=RANDOM), scores(settings=RANDOM, dists=0.9))
    assert verdict["texture_drift"].status == "not_evaluated"
    assert verdict.exit_code == 3
    waived = guard(scores(settings=RANDOM), scores(settings=RANDOM), allow_unknown="texture_drift")
    assert waived.passed
    assert waived.waived == ("texture_drift",)
    assert waived.to_dict()["waived"] == ["texture_drift"]
    assert "(waived)" in str(waived)


def test_a_waiver_never_covers_a_rule_that_fired() -> None:
    assert guard(scores(), scores(transfer=0.5), allow_unknown=("evidence_transfer",)).exit_code == 1


def test_a_waiver_of_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match=r"allow_unknown has 'over-smoothing'; accepted: 'over_smoothing'"):
        guard(scores(), scores(), allow_unknown=("over-smoothing",))


def test_an_optional_rule_without_evidence_does_not_hold_the_gate_and_one_without_gate_only_shows() -> None:
    assert guard(None, scores(), rules=only("over_smoothing", required=False)).passed
    shown = guard(scores(), scores(psnr=31, fsim=0.9), rules=only("over_smoothing", gate=False))
    assert shown["over_smoothing"].status == "fired"
    assert shown.passed


@pytest.mark.parametrize(
    ("transfer", "se", "psnr", "status"),
    [
        (0.86, 0.009, 30, "fired"),  # 0.878
        (0.86, 0.011, 30, "clear"),  # 0.882
        (0.60, 0.15, 30, "clear"),  # 0.90: not sure enough
        (0.60, 0.01, 19, "clear"),  # PSNR fell: the other rule's matter
        (0.60, 0.01, np.inf, "fired"),
        (np.nan, np.nan, 30, "unknown"),
        (0.60, 0.01, np.nan, "unknown"),
    ],
)
def test_the_transfer_rule_fires_below_its_bound_by_two_standard_errors(
    transfer: float, se: float, psnr: float, status: str
) -> None:
    # Alternating by a little, so that the mean's own error does not decide
    after = scores(transfer=transfer, transfer_se=se, psnr=psnr)
    rule = only("evidence_transfer")
    if status == "clear" and transfer < 0.88:  # the mean of 20 such tiles would be sure: look at the tiles alone
        after = scores(transfer=some(1.0, transfer, 10), transfer_se=se, psnr=psnr)
    assert guard(None, after, rules=rule)["evidence_transfer"].status == status


def test_without_a_reference_the_drop_of_mse_against_a_second_frame_says_whether_psnr_rose() -> None:
    frames = {"psnr": np.nan, "psnr_noisy": np.nan, "transfer": 0.7}
    rule = only("evidence_transfer")
    assert guard(None, scores(**frames, mse_drop=0.01), rules=rule)["evidence_transfer"].status == "fired"
    assert guard(None, scores(**frames, mse_drop=-0.01), rules=rule)["evidence_transfer"].status == "clear"
    assert guard(None, scores(**frames), rules=rule)["evidence_transfer"].status == "unknown"


def test_many_tiles_each_unsure_are_sure_together() -> None:
    wobble = 0.02 * np.where(np.arange(N) % 2, 1, -1)
    signal = guard(None, scores(transfer=0.8 + wobble, transfer_se=0.08), rules=only("evidence_transfer"))[
        "evidence_transfer"
    ]
    assert signal.status == "fired"
    assert signal.evidence["tiles_fired"] == 0
    assert len(signal.regions) == 5


def test_transfer_known_on_too_few_tiles_is_unknown() -> None:
    after = scores(transfer=some(np.nan, 0.99, 9))
    assert guard(None, after, rules=only("evidence_transfer")).exit_code == 3
    assert guard(None, scores(transfer=some(np.nan, 0.99, 10)), rules=only("evidence_transfer")).passed


def test_tiles_that_were_not_scored_keep_the_gate_shut_until_waived() -> None:
    after = scores(
        status=("missing", "unreadable", *("ok",) * (N - 2)), psnr=some(30, np.nan, 2), fsim=some(0.95, np.nan, 2)
    )
    verdict = guard(scores(), after)
    assert verdict["tiles_scored"].status == "unknown"
    assert [r["tile"] for r in verdict["tiles_scored"].regions] == ["t000000", "t000001"]
    assert verdict.exit_code == 3
    assert guard(scores(), after, allow_unknown=("tiles_scored",)).passed


def test_regions_are_worst_first_with_the_tiles_place() -> None:
    after = scores(psnr=31.0, fsim=0.90 - 0.001 * np.arange(N), die_x=np.arange(N))
    regions = guard(scores(), after)["over_smoothing"].regions
    assert [r["tile"] for r in regions[:2]] == ["t000019", "t000018"]
    assert regions[0]["die_x"] == 19
    assert regions[0]["fsim_change"] == pytest.approx(0.881 - 0.95)


def test_the_same_tiles_in_another_order_are_paired_by_id() -> None:
    order = np.arange(N)[::-1]
    before = scores(fsim=0.9 + 0.001 * np.arange(N))
    after = scores(fsim=(0.9 + 0.001 * np.arange(N))[order], tiles=tuple(np.array(before.tiles)[order]), psnr=31)
    assert guard(before, after)["over_smoothing"].evidence["fsim_change"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tiles": ("other", *(f"t{i:06d}" for i in range(1, N)))},
            r"tiles: 1 only in before \(t000000\), 1 only in after \(other\)",
        ),
        ({"data_range": 255.0}, "data_range: 1 and 255"),
        ({"settings": {**CALIBRATED, "fsim_downsample": 1}}, "fsim_downsample: 2 and 1"),
        ({"settings": RANDOM}, "dists calibrated: True and False"),
        ({"settings": {**CALIBRATED, "reference": "b.zarr"}}, "reference: a.zarr and b.zarr"),
        ({"reference_mean": 0.6}, "reference: its mean or σ differs on 20 tiles"),
    ],
)
def test_profiles_that_do_not_compare_are_refused_by_what_differs(change: dict[str, Any], message: str) -> None:
    before = scores(reference_mean=0.5, reference_std=0.1)
    if "reference: a" in message:
        before = scores(settings={**CALIBRATED, "reference": "a.zarr"})
    else:
        change = {"reference_mean": 0.5, "reference_std": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        guard(before, scores(**change))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="before is dict"):
        guard({}, scores())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="after is NoneType"):
        guard(scores(), None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="inputs is list"):
        guard(scores(), scores(), inputs=[1])
    with pytest.raises(ValueError, match="inputs has"):
        guard(scores(), scores(), inputs={"noisy": 1})
    with pytest.raises(TypeError, match="rules is int"):
        guard(scores(), scores(), rules=3)


def test_the_path_ends_at_the_first_no_and_names_numbers() -> None:
    path = guard(scores(), scores(psnr=29.0, fsim=0.9)).path
    assert path[0].startswith("over_smoothing: psnr up by more than 0.1? no, -1")
    assert "fsim" not in path[0]
    assert path[0].endswith("-> clear")


def test_the_verdict_prints_as_a_table_and_as_json() -> None:
    verdict = guard(scores(label="released"), scores(psnr=31, fsim=0.9, label="new"))
    text = str(verdict)
    assert text.startswith("guard: failed (new against released, 20 tiles)")
    assert "Worst tiles: t000000" in text
    data = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert (data["passed"], data["exit_code"], data["before"], data["after"]) == (False, 1, "released", "new")
    assert data["signals"][0]["regions"][0]["tile"] == "t000000"
    with pytest.raises(KeyError, match="no signal 'ringing'"):
        verdict["ringing"]


def test_pixels_as_inputs_tell_a_blur_from_a_mild_denoiser_with_either_kind_of_truth() -> None:
    clean = np.stack([gaussian_filter(cases.lines(96, 96, pitch=8, seed=i), 0.5) for i in range(4)])[:, None]
    rng = np.random.default_rng(0)
    noisy, second = (clean + 0.15 * rng.standard_normal(clean.shape) for _ in range(2))
    ids = tuple("abcd")
    for sigma, status in ((0.6, "clear"), (1.6, "fired")):
        denoised = gaussian_filter(noisy, (0, 0, sigma, sigma))
        after = Profile(ids, {"psnr": [1.0] * 4}, 1.0)
        for truth in ({"reference": clean}, {"second_frame": second}):
            verdict = guard(
                None, after, {"noisy": noisy, "denoised": denoised, **truth}, rules=only("evidence_transfer")
            )
            assert verdict["evidence_transfer"].status == status
    alone = guard(None, after, {"noisy": noisy, "denoised": denoised}, rules=only("evidence_transfer"))
    assert alone.exit_code == 3
    assert "one frame alone" in alone["evidence_transfer"].evidence["reason"]
    with pytest.raises(ValueError, match="inputs has 3 tiles and after 4"):
        guard(None, after, {"noisy": noisy[:3], "denoised": denoised[:3]})


def test_band_energy_stands_in_for_uncalibrated_dists_labelled_and_deciding_nothing() -> None:
    clean = np.broadcast_to(cases.lines(64, 64), (N, 1, 64, 64))
    noisy = clean + 0.05 * np.random.default_rng(1).standard_normal(clean.shape)
    inputs = semnr.evidence(noisy, gaussian_filter(noisy, (0, 0, 2, 2)), clean.copy())
    signal = guard(scores(settings=RANDOM), scores(settings=RANDOM), inputs)["texture_drift"]
    assert signal.status == "not_evaluated"
    assert "band energy" in signal.evidence["stand_in"]
    assert signal.evidence["band_energy"] < 0.8


def test_default_rules_survive_a_round_trip_through_toml(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "rules.toml"
    file.write_text(dump_rules(DEFAULT_RULES), encoding="utf-8")
    assert dict(load_rules(file)) == dict(DEFAULT_RULES)
    assert guard(scores(), scores(psnr=31, fsim=0.9), rules=str(file)).exit_code == 1


def test_a_rule_of_ones_own_in_plain_data() -> None:
    rules = {
        "rules": {"ssim_fell": {"kind": "comparison", "conditions": [{"metric": "ssim", "change": "down", "by": 0.02}]}}
    }
    assert guard(scores(), scores(ssim=0.85), rules=rules)["ssim_fell"].status == "fired"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 2\n[rules.a]", "version is 2"),
        ("x = 1\n", "unknown entry 'x'"),
        ("version = 1\n", "no .rules.NAME. table"),
        ("[rules.a]\nseverity = 'high'", "rule 'a': kind is missing"),
        ("[rules.a]\nkind = 'magic'", "kind is 'magic'; accepted: 'comparison', 'transfer', 'range'"),
        ("[rules.a]\nkind = 'comparison'", "no conditions"),
        ("[rules.a]\nkind = 'transfer'\nbelow = 'low'", "below is 'low'"),
        ("[rules.a]\nkind = 'transfer'\nbelow = nan", "below is nan"),
        ("[rules.a]\nkind = 'transfer'\nshare = 1.5", "share is 1.5; accepted: a number between 0 and 1"),
        ("[rules.a]\nkind = 'transfer'\nrequired = 1", "required is 1; accepted: true or false"),
        ("[rules.a]\nkind = 'transfer'\nz = true", "z is True"),
        ("[rules.a]\nkind = 'transfer'\nthreshold = 1", "unknown entry 'threshold'"),
        ("[rules.a]\nkind = 'transfer'\nconditions = []", "unknown entry 'conditions'"),
        (
            "[rules.a]\nkind = 'comparison'\nconditions = [{ metric = 'psrn', change = 'up', by = 1 }]",
            "metric is 'psrn'",
        ),
        (
            "[rules.a]\nkind = 'comparison'\nconditions = [{ metric = 'psnr', change = 'up' }]",
            "condition 1: by is missing",
        ),
        ("[rules.a]\nkind = 'comparison'\nconditions = 3", "conditions is 3"),
        ("[rules.a\n", "are not TOML"),
        ("[rules.a]\nkind = 'range'", "no bounds"),
        ("[rules.a]\nkind = 'range'\nbounds = 3", "bounds is 3"),
        ("[rules.a]\nkind = 'range'\nbounds = [{ column = 'x y', above = 1 }]", "bound 1: column is 'x y'"),
        ("[rules.a]\nkind = 'range'\nbounds = [{ column = 'x' }]", "none of below, above and certain"),
        ("[rules.a]\nkind = 'range'\nbounds = [{ column = 'x', below = 2, above = 1 }]", "accepted: below < above"),
        ("[rules.a]\nkind = 'range'\nbounds = [{ column = 'x', over = 2 }]", "unknown entry 'over'"),
        ("[rules.a]\nkind = 'range'\nquestion = 3\nbounds = []", "question is 3"),
    ],
)
def test_wrong_rules_are_refused_with_the_file_the_rule_and_the_entry(tmp_path, text: str, message: str) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        load_rules(file)
    assert "mine.toml" in str(caught.value)


def test_missing_rules_are_an_error_that_names_the_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"none.toml cannot be read"):
        load_rules(tmp_path / "none.toml")


# --- rules on columns of one candidate ---

RANGE = {"kind": "range", "bounds": [{"column": "gain_change", "below": -0.03, "above": 0.03}], "z": 2.0}


def ranged(after: Profile, **changes: Any) -> Any:
    return guard(None, after, rules={"rules": {"brightness": {**RANGE, **changes}}})["brightness"]


@pytest.mark.parametrize(
    ("value", "se", "status"),
    [
        (0.029, 0.0, "clear"),
        (0.05, 0.005, "fired"),
        (0.05, 0.02, "clear"),
        (-0.05, 0.005, "fired"),
        (-0.05, 0.02, "clear"),
    ],
)
def test_a_column_fires_beyond_its_bound_by_z_standard_errors(value: float, se: float, status: str) -> None:
    # one tile in ten: their mean alone decides nothing
    after = scores(gain_change=some(0.0, value, 2), gain_change_se=se)
    assert ranged(after).status == status


def test_tiles_that_are_each_unsure_of_a_column_are_sure_together() -> None:
    wobble = 0.001 * np.where(np.arange(N) % 2, 1, -1)
    signal = ranged(scores(gain_change=0.05 + wobble, gain_change_se=0.02))
    assert signal.status == "fired"
    assert signal.evidence["tiles_fired"] == 0


def test_a_column_nobody_measured_is_unknown_and_holds_the_gate() -> None:
    signal = ranged(scores(gain_change=np.nan))
    assert signal.status == "unknown"
    assert signal.evidence["reason"] == "no tile has gain_change"
    missing = guard(None, scores(), rules={"rules": {"x": {**RANGE, "bounds": [{"column": "no_such", "above": 1.0}]}}})
    assert missing.exit_code == 3
    few = ranged(scores(gain_change=some(np.nan, 0.0, 3)), min_coverage=0.5)
    assert few.status == "unknown"
    assert "only 3 of 20" in few.evidence["reason"]


def test_a_share_of_tiles_may_stray_but_one_beyond_doubt_is_enough() -> None:
    bounds = [{"column": "removed_count", "above": 0.5}, {"column": "removed_z", "certain": 8.0}]
    one = lambda z: scores(removed_count=some(0, 1, 1), removed_z=some(4, z, 1))  # noqa: E731
    assert ranged(one(6.0), bounds=bounds, share=0.05, z=0.0).status == "clear"
    signal = ranged(one(8.1), bounds=bounds, share=0.05, z=0.0)
    assert signal.status == "fired"
    assert [r["tile"] for r in signal.regions] == ["t000000"]
    assert ranged(scores(removed_count=some(0, 1, 2)), bounds=bounds, share=0.05, z=0.0).status == "fired"


def test_regions_carry_the_boxes_of_the_rules_own_kind() -> None:
    boxes = [{"kind": kind, "row": 5, "col": 6, "height": 7, "width": 8, "z": 9.0} for kind in ("removed", "invented")]
    after = scores(removed_count=some(0, 1, 4), invented_count=some(0, 1, 4))
    after = dataclasses.replace(after, texts={"evidence_boxes": (json.dumps(boxes), *(None,) * (N - 1))})
    verdict = guard(scores(), after)
    assert verdict["erased_structure"].regions[0]["boxes"] == boxes[:1]
    assert verdict["invented_structure"].regions[0]["boxes"] == boxes[1:]
    assert "boxes" not in verdict["erased_structure"].regions[1]
    json.dumps(verdict.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("columns", "fires"),
    [
        ({"feature_contrast": 0.85}, "lost_detail"),
        ({"overshoot": 0.06}, "over_sharpening"),
        ({"transfer_high": 1.2}, "over_sharpening"),
        ({"transfer": 1.2}, "over_sharpening"),
        ({"transfer_peak": 1.3}, "over_sharpening"),
        ({"removed_count": 1.0}, "erased_structure"),
        ({"invented_count": 1.0}, "invented_structure"),
        ({"gain_change": -0.06}, "brightness_shift"),
        ({"offset_change": 0.03}, "brightness_shift"),
        ({"shift_x_px": -0.3}, "geometric_shift"),
        ({"transfer_texture": 0.6}, "texture_wash"),
        ({"row_noise_added": 3.0}, "row_artefacts"),
        ({"transfer_bound": 0.8}, "transfer_bound"),
    ],
)
def test_each_fault_of_one_candidate_fires_its_own_signal(columns: dict[str, float], fires: str) -> None:
    verdict = guard(scores(), scores(**columns))
    assert [s.name for s in verdict.signals if s.status == "fired"] == [fires]
    assert verdict.exit_code == 1
    assert verdict[fires].advice


def test_a_shift_along_straight_lines_that_nobody_can_measure_is_no_missing_evidence() -> None:
    assert guard(scores(), scores(shift_y_px=np.nan))["geometric_shift"].status == "clear"


def test_pixels_as_inputs_give_the_columns_of_the_rules_on_one_candidate() -> None:
    clean = np.stack([gaussian_filter(cases.lines(96, 96, pitch=24, seed=i), 0.8) for i in range(4)])[:, None]
    noisy = clean + 0.05 * np.random.default_rng(0).standard_normal(clean.shape)
    after = Profile(tuple("abcd"), {"psnr": [30.0] * 4}, 1.0)
    for gain, status in ((1.0, "clear"), (1.1, "fired")):
        denoised = gain * (clean + 0.3 * (noisy - clean))
        verdict = guard(None, after, {"noisy": noisy, "denoised": denoised, "reference": clean})
        assert verdict["brightness_shift"].status == status
        assert verdict["brightness_shift"].evidence["gain_change"] == pytest.approx(gain - 1, abs=0.02)


def test_tile_flags_are_what_the_verdict_counts() -> None:
    before, after = scores(), scores(psnr=31.0, fsim=some(0.95, 0.9, 7), gain_change=some(0.0, 0.1, 3))
    verdict, flags = guard(before, after), semnr.guarding.tile_flags(before, after)
    for signal in verdict.signals:
        assert int(flags[signal.name][1].sum()) == signal.evidence["tiles_fired"]
    assert list(np.flatnonzero(flags["brightness_shift"][1])) == [0, 1, 2]


# --- the flowchart ---


def test_the_flowchart_asks_the_articles_questions_in_order_and_names_what_a_yes_raises() -> None:
    steps = guard(scores(), scores(psnr=31.0, fsim=0.9)).flowchart
    assert [s["question"] for s in steps[:4]] == [
        "PSNR up?",
        "PSNR up and FSIM down?",
        "SSIM stable and DISTS worse?",
        "PSNR up and CNR down at the weakest features?",
    ]
    assert [(s["answer"], s["signal"]) for s in steps[:3]] == [("yes", None), ("yes", "over_smoothing"), ("no", None)]
    assert steps[0]["numbers"]["psnr_change"] == pytest.approx(1.0)
    assert [s["next"] for s in steps[:-1]] == [s["question"] for s in steps[1:]]
    assert steps[-1]["next"] == "reject: over smoothing"
    text = str(guard(scores(), scores(psnr=31.0, fsim=0.9)))
    assert "path through the flowchart:" in text
    assert "==> over smoothing" in text


def test_the_flowchart_ends_in_accept_only_on_evidence() -> None:
    assert guard(scores(), scores()).flowchart[-1]["next"].startswith("accept")
    held = guard(None, scores()).flowchart
    assert held[-1]["next"].startswith("hold: no evidence on over smoothing")
    assert held[0]["question"] == "PSNR up over the noisy input?"
    assert held[1]["answer"] == "unknown"
    noisy = guard(scores(kind="noisy"), scores()).flowchart
    assert noisy[1]["answer"] == "not comparable"


# --- learnt thresholds ---


@pytest.fixture(scope="module")
def learnt():  # type: ignore[no-untyped-def]
    return semnr.learn_rules(tiles=12, side=96, frames=2, false_alarm=0.05, seed=5)


def test_learnt_rules_say_where_they_come_from_and_survive_their_file(learnt, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "learnt.toml"
    learnt.save(file)
    assert dict(load_rules(file)) == dict(learnt.rules)
    text = file.read_text(encoding="utf-8")
    assert "[provenance]" in text
    assert "false_alarm = 0.05" in text
    assert learnt.provenance["noise"]["correlation"] == 0.47
    assert [r.advice for r in learnt.rules.values()] == [r.advice for r in DEFAULT_RULES.values()]


def test_learnt_thresholds_flag_few_tiles_of_a_frame_they_have_not_seen_and_a_real_fault_still(learnt) -> None:  # type: ignore[no-untyped-def]
    shares = [v for v in learnt.provenance["unseen_frame_flagged"].values() if v == v]
    assert len(shares) > 8
    assert max(shares) <= 0.25  # 12 tiles
    verdict = guard(None, scores(gain_change=-0.1, feature_contrast=0.7), rules=learnt.rules)
    assert verdict["brightness_shift"].status == "fired"
    assert verdict["lost_detail"].status == "fired"


def test_a_noisier_column_gets_a_wider_bound() -> None:
    from semnr.guarding import Bound
    from semnr.stress.learn import _bound

    rng = np.random.default_rng(0)
    calm, wild = ([scores(gain_change=s * rng.standard_normal(N)) for _ in range(10)] for s in (1e-4, 0.1))
    bound = Bound("gain_change", -0.03, 0.03)
    assert (_bound(bound, 2.0, calm, 0.01).below, _bound(bound, 2.0, calm, 0.01).above) == (-0.015, 0.015)
    learnt = _bound(bound, 2.0, wild, 0.01)
    stray = np.concatenate([p.column("gain_change") for p in wild])
    assert (stray > learnt.above).mean() <= 0.01
    assert learnt.above == pytest.approx(np.quantile(stray, 0.99, method="higher"), rel=1e-3)


def test_too_few_tiles_for_the_false_alarm_rate_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1000 tiles in all"):
        semnr.learn_rules(tiles=10, frames=2, false_alarm=0.001)


# --- the gate's files ---


def test_junit_counts_failures_errors_and_skipped_as_the_gate_does() -> None:
    verdict = guard(
        scores(settings=RANDOM),
        scores(settings=RANDOM, psnr=31, fsim=0.9, shift_x_px=np.nan, shift_y_px=np.nan, transfer_texture=np.nan),
        allow_unknown="texture_drift",
    )
    suites = ET.fromstring(semnr.guarding.junit(verdict, seconds=1.5))
    suite = suites[0]
    assert suites.tag == "testsuites"
    assert [child.tag for child in suite if child.tag != "testcase"] == ["properties", "system-out", "system-err"]
    found = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert found["over_smoothing"] == ["failure"]
    assert found["geometric_shift"] == ["error"]  # required, no evidence
    assert found["texture_drift"] == ["skipped"]  # waived
    assert found["texture_wash"] == ["skipped"]  # optional
    assert found["evidence_transfer"] == []
    assert len(found) == len(verdict.signals) == int(suite.get("tests") or 0)
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("1", "1", "2")
    for name in ("name", "timestamp", "hostname", "time", "id", "package"):  # what the schema requires
        assert suite.get(name)
    for case in suite.iter("testcase"):
        assert {"name", "classname", "time"} <= set(case.attrib)
    for failure in suite.iter("failure"):
        assert failure.get("type")


def test_junit_survives_names_that_xml_cannot_hold() -> None:
    verdict = guard(scores(label="a<b>&\x00"), scores(label="]]>\x1b", psnr=31, fsim=0.9))
    suite = ET.fromstring(semnr.guarding.junit(verdict))[0]
    assert suite.get("name") is not None


def test_a_baseline_file_judges_as_the_run_it_was_written_from(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "baseline.json"
    rng = np.random.default_rng(0)
    before = scores(
        fsim=0.95 + 1e-3 * rng.standard_normal(N), psnr=some(30, np.inf, 1), dists=some(0.1, np.nan, 9),
        reference_mean=0.5, reference_std=0.1, label="released",
    )  # fmt: skip
    semnr.guarding.write_baseline(before, file)
    again = semnr.guarding.read_baseline(file)
    after = scores(psnr=31, fsim=0.9, reference_mean=0.5, reference_std=0.1)
    one, other = guard(before, after), guard(again, after)
    assert [s.status for s in one.signals] == [s.status for s in other.signals]
    assert other.before == "released"
    for a, b in zip(one.signals, other.signals, strict=True):
        assert b.evidence == pytest.approx(a.evidence, rel=1e-6, nan_ok=True)
    with pytest.raises(ValueError, match="reference: its mean"):
        guard(again, scores(reference_mean=0.6, reference_std=0.1))
    assert file.stat().st_size < 250 * N + 2000


def test_a_baseline_that_was_changed_by_hand_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "baseline.json"
    semnr.guarding.write_baseline(scores(), file)
    file.write_text(file.read_text(encoding="utf-8").replace("0.95", "0.85", 1), encoding="utf-8")
    with pytest.raises(ValueError, match="was changed since"):
        semnr.guarding.read_baseline(file)
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="is no semnr-baseline"):
        semnr.guarding.read_baseline(file)


class FakeMlflow:
    """Keeps what it is given; copies artefacts, since their folder is temporary."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.metrics: dict[str, float] = {}
        self.artifacts: dict[str, str] = {}

    def set_tags(self, tags: dict[str, str]) -> None:
        self.tags |= tags

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.metrics |= metrics

    def log_artifact(self, path: str, artifact_path: str) -> None:
        self.artifacts[f"{artifact_path}/{Path(path).name}"] = Path(path).read_text(encoding="utf-8")


def test_mlflow_gets_the_verdict_as_tags_the_profile_as_metrics_and_the_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from semnr.guarding.mlflow import log

    report = tmp_path / "report.html"
    report.write_text("<p>", encoding="utf-8")
    after = scores(psnr=some(31, np.inf, 1), fsim=0.9)
    fake, verdict = FakeMlflow(), guard(scores(), after)
    log(verdict, after, artifacts=[report], mlflow=fake)
    assert fake.tags["semnr.passed"] == "false"
    assert fake.tags["semnr.fired"] == "over_smoothing"
    assert fake.tags["semnr.signal.evidence_transfer"] == "clear"
    assert fake.metrics["semnr.fsim"] == pytest.approx(0.9)
    assert all(np.isfinite(v) for v in fake.metrics.values())
    assert set(fake.artifacts) == {"semnr/verdict.json", "semnr/junit.xml", "semnr/report.html"}
    assert json.loads(fake.artifacts["semnr/verdict.json"])["exit_code"] == 1


def test_without_mlflow_the_error_names_the_remedy(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from semnr.guarding.mlflow import log

    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match="pip install mlflow"):
        log(guard(scores(), scores()))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):  # type: ignore[no-untyped-def]
    """Two scored runs of six tiles: a mild denoiser and a blur."""
    folder = tmp_path_factory.mktemp("runs")
    clean = np.stack([gaussian_filter(cases.lines(96, 96, pitch=12, seed=i), 0.6) for i in range(6)])
    noisy = clean + 0.08 * np.random.default_rng(0).standard_normal(clean.shape)
    options = {"reference": clean, "noisy": noisy, "data_range": 1.0, "metrics": ("psnr", "ssim", "fsim", "cnr")}
    for name, d in (("mild", clean + 0.3 * (noisy - clean)), ("blur", gaussian_filter(noisy, (0, 2, 2)))):
        semnr.score(d, out=folder / name, label=name, **options)
    return folder


OPEN = ("texture_drift", "lost_contrast", "erased_structure", "invented_structure")  # no DISTS; small tiles


def waived(*names: str) -> list[str]:
    return [word for name in names for word in ("--allow-unknown", name)]


def test_the_command_writes_junit_and_a_baseline_only_of_what_passes(runs, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    mild, blur, file = str(runs / "mild"), str(runs / "blur"), tmp_path / "baseline.json"
    assert main(["guard", blur, "--write-baseline", str(file)]) == 1
    assert not file.exists()
    assert "not written" in capsys.readouterr().out
    assert main(["guard", mild, "--write-baseline", str(file)]) == 3  # nothing to compare with yet
    assert file.exists()
    report = tmp_path / "guard.xml"
    capsys.readouterr()
    code = main(["guard", blur, "--baseline", str(file), "--junit", str(report), "--json", *waived(*OPEN)])
    verdict = json.loads(capsys.readouterr().out)
    assert code == 1
    assert verdict["exit_code"] == 1
    assert verdict["before"] == "mild"
    names = {case.get("name") for case in ET.parse(report).iter("testcase") if case.find("failure") is not None}
    assert "lost_detail" in names
    both = main(["guard", mild, blur, *waived(*OPEN)])
    assert both == code
    assert main(["guard", mild, blur, "--baseline", str(file)]) == 2
    assert main(["guard", mild]) == 3


def test_the_command_learns_rules(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "rules.toml"
    arguments = ["guard", "--learn", "synthetic", "--tiles", "6", "--frames", "2", "--false-alarm", "0.1"]
    assert main([*arguments, "--rules-out", str(file)]) == 0
    assert "unseen frame" in capsys.readouterr().out
    assert set(load_rules(file)) == set(DEFAULT_RULES)
    assert main(arguments) == 2
