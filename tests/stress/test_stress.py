"""The stress suite: faults do what they say, truth comes from them, and the matrix says who notices."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import semnr
from semnr.cli import main
from semnr.stress import FAULTS, stress_test
from semnr.stress.faults import Case, disc, kept_contrast
from semnr.stress.run import applied
from semnr.stress.scenes import scenes_of
from semnr.trust.changes import columns


@pytest.fixture(scope="module")
def scenes():  # type: ignore[no-untyped-def]
    return scenes_of(None, tiles=3, side=128, seed=31)


@pytest.fixture(scope="module")
def small():  # type: ignore[no-untyped-def]
    return stress_test(tiles=3, side=128, faults=("blur", "offset", "erased_defect"), metrics=("psnr", "ssim"), seed=31)


def case(scenes, i: int = 0, seed: int = 1) -> Case:  # type: ignore[no-untyped-def]
    noisy = scenes.record(seed)
    d = scenes.clean + 0.3 * (noisy - scenes.clean)
    return Case(scenes.clean[i], noisy[i], d[i], d[i], scenes.sigma(scenes.clean[i]))


def test_a_fresh_frame_has_the_noise_of_its_law_and_another_seed_is_another_frame(scenes) -> None:  # type: ignore[no-untyped-def]
    a, b = scenes.record(1) - scenes.clean, scenes.record(2) - scenes.clean
    unit = a / scenes.sigma(scenes.clean)
    assert unit.std() == pytest.approx(1, abs=0.03)
    assert np.corrcoef(unit[..., 1:].ravel(), unit[..., :-1].ravel())[0, 1] == pytest.approx(0.47, abs=0.03)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    np.testing.assert_array_equal(scenes.record(1), scenes.record(1))


@pytest.mark.parametrize("name", list(FAULTS))
def test_every_fault_is_harmless_or_grey_when_weak_and_harmful_when_strong(scenes, name: str) -> None:  # type: ignore[no-untyped-def]
    fault, one = FAULTS[name], case(scenes)
    weak, strong = fault.strengths[0], fault.strengths[-1]
    assert fault.truth(weak, kept_contrast(fault, one, weak, 0)) != "harmful"
    assert fault.truth(strong, kept_contrast(fault, one, strong, 0)) == "harmful"


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_fault_changes_the_image_more_the_stronger_it_is_and_the_same_way_for_a_seed(scenes, name: str) -> None:  # type: ignore[no-untyped-def]
    fault, one = FAULTS[name], case(scenes)
    moved = []
    for strength in (fault.strengths[0], fault.strengths[-1]):
        harmed = fault.apply(one, strength, np.random.default_rng(3))
        again = fault.apply(one, strength, np.random.default_rng(3))
        np.testing.assert_array_equal(harmed.after, again.after)
        moved.append(float(np.abs(harmed.after - harmed.before).max()))
    assert moved[1] > moved[0] > 0


def test_contrast_that_a_gaussian_keeps_of_small_discs_is_what_its_response_says(scenes) -> None:  # type: ignore[no-untyped-def]
    from scipy.ndimage import gaussian_filter

    one, spot = case(scenes), disc((65, 65), 32, 32)
    for sigma in (0.7, 1.5):
        expected = float((gaussian_filter(spot, sigma) * spot).sum() / (spot**2).sum())
        assert kept_contrast(FAULTS["blur"], one, sigma, 0) == pytest.approx(expected, abs=0.01)


def test_an_erased_defect_is_in_the_scene_and_the_frame_but_not_in_the_candidate(scenes) -> None:  # type: ignore[no-untyped-def]
    one = case(scenes)
    lost = FAULTS["erased_defect"].apply(one, 3.0, np.random.default_rng(0))
    np.testing.assert_allclose(lost.scene - one.scene, lost.noisy - one.noisy, atol=1e-12)
    np.testing.assert_array_equal(lost.after, one.after)
    changed = np.abs(lost.scene - one.scene)
    row, col = np.unravel_index(changed.argmax(), changed.shape)
    assert changed[row, col] == pytest.approx(3 * one.spread[row, col], rel=0.2)  # of the noise where it lies
    made_up = FAULTS["invented_defect"].apply(one, 3.0, np.random.default_rng(0))
    np.testing.assert_array_equal(made_up.scene, one.scene)
    np.testing.assert_allclose(np.abs(made_up.after - one.after), changed, atol=1e-12)


def test_gain_offset_and_shift_are_measured_as_they_were_made(scenes) -> None:  # type: ignore[no-untyped-def]
    noisy = scenes.record(1)
    d = scenes.clean + 0.3 * (noisy - scenes.clean)

    def found(name: str, strength: float):  # type: ignore[no-untyped-def]
        after = np.stack([c.after for c in applied(FAULTS[name], strength, scenes, noisy, d, (5,))])
        return columns(noisy[:, None], after[:, None], scenes.clean[:, None], data_range=1.0)

    np.testing.assert_allclose(found("gain", 0.1)["gain_change"], 0.1, atol=0.03)
    np.testing.assert_allclose(found("offset", 0.02)["offset_change"], 0.02, atol=0.002)
    # the taper stays where it is while the image moves: on 128 px the figure comes out up to a tenth low
    np.testing.assert_allclose(np.abs(found("shift", 0.2)["shift_x_px"]), 0.2, atol=0.025)
    still = found("shift", 1e-9)
    for name in ("gain_change", "offset_change", "shift_x_px"):  # within its own standard error
        assert (np.abs(still[name]) < 4 * still[f"{name}_se"]).all(), name


def test_the_transfer_function_gives_the_contrast_of_small_discs_and_the_overshoot_of_edges(scenes) -> None:  # type: ignore[no-untyped-def]
    from scipy.ndimage import gaussian_filter

    noisy = scenes.record(1)
    spot = disc((65, 65), 32, 32)
    blurred = gaussian_filter(noisy, (0, 1.2, 1.2))
    kept = float((gaussian_filter(spot, 1.2) * spot).sum() / (spot**2).sum())
    got = columns(noisy[:, None], blurred[:, None], scenes.clean[:, None])
    np.testing.assert_allclose(got["feature_contrast"], kept, atol=0.05)
    assert got["overshoot"].max() < 0.02
    sharp = noisy + 1.0 * (noisy - gaussian_filter(noisy, (0, 1.5, 1.5)))
    step = (np.arange(64) > 31).astype(float) * np.ones((64, 1))
    edge = gaussian_filter(step, 1.0)
    expected = (edge + (edge - gaussian_filter(edge, 1.5))).max() - 1
    got = columns(noisy[:, None], sharp[:, None], scenes.clean[:, None])
    np.testing.assert_allclose(got["overshoot"][:2], expected, atol=0.02)  # metal has too little fine structure here


def test_added_rows_show_and_rows_that_the_input_has_do_not(scenes) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    rows = 0.02 * rng.standard_normal((len(scenes), 128, 1))
    noisy = scenes.record(1) + rows
    kept = columns(noisy[:, None], (scenes.clean + rows)[:, None], scenes.clean[:, None])
    assert kept["row_noise_added"].max() < 0.3
    added = columns((noisy - rows)[:, None], (scenes.clean + rows)[:, None], scenes.clean[:, None])
    assert added["row_noise_added"].min() > 1


def test_what_cannot_be_measured_is_nan_and_not_zero(scenes) -> None:  # type: ignore[no-untyped-def]
    x = scenes.record(1)[:1, None]
    flat = np.full((1, 1, 128, 128), 0.5)
    alone = columns(x, x, None)
    assert np.isnan(alone["transfer_high"]).all()
    assert np.isnan(alone["overshoot"]).all()
    assert np.isfinite(alone["shift_x_px"]).all()
    noise = flat + 0.05 * np.random.default_rng(0).standard_normal(flat.shape)
    empty = columns(noise, flat, flat)
    for name in ("gain_change", "shift_x_px", "transfer_high", "feature_contrast", "transfer_texture"):
        assert np.isnan(empty[name]).all(), name
    assert abs(float(empty["offset_change"][0])) < 0.01
    tiny = columns(x[..., :16, :16], x[..., :16, :16], None)
    assert all(np.isnan(v).all() for v in tiny.values())
    with pytest.raises(ValueError, match="noisy and reference are both None"):
        columns(None, x, None)
    with pytest.raises(ValueError, match="noisy has shape"):
        columns(x[..., :64], x, None)


def test_integers_and_floats_of_one_image_give_the_same_changes(scenes) -> None:  # type: ignore[no-untyped-def]
    x, r = (np.rint(np.clip(v, 0, 1) * 255) for v in (scenes.record(1)[:1, None], scenes.clean[:1, None]))
    floats = columns(x, r, r, data_range=255)
    whole = columns(x.astype(np.uint8), r.astype(np.uint8), r.astype(np.uint8))
    for name, value in floats.items():
        np.testing.assert_allclose(whole[name], value, rtol=1e-9, err_msg=name)


def test_the_matrix_names_who_notices_and_from_which_strength(small) -> None:  # type: ignore[no-untyped-def]
    found = small.thresholds()
    assert found["blur"]["lost_detail"] in (1.0, 1.5)
    assert found["offset"]["brightness_shift"] in (0.01, 0.02)
    assert found["erased_defect"]["erased_structure"] in (1.0, 2.0)
    assert found["erased_defect"]["brightness_shift"] is None
    mild = next(r for r in small.rows if r["fault"] == "blur" and r["strength"] == 0.7)
    assert mild["metrics"]["psnr"]["change"] > 0  # a blur is rewarded
    assert mild["metrics"]["psnr"]["adverse"] == 0


def test_the_same_seed_gives_the_same_figures_and_another_does_not(small) -> None:  # type: ignore[no-untyped-def]
    options = {"tiles": 3, "side": 128, "faults": ("offset",), "metrics": ("psnr",)}
    rows = [stress_test(**options, seed=s).rows for s in (31, 31, 32)]
    assert json.dumps(rows[0]) == json.dumps(rows[1])
    assert json.dumps(rows[0]) != json.dumps(rows[2])


def test_the_suite_prints_and_saves_json_svg_and_a_page_without_requests(small, tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert "notice none of these" in str(small)
    paths = small.save(tmp_path / "out")
    data = json.loads(paths[0].read_text(encoding="utf-8"))
    assert data["thresholds"]["offset"]["brightness_shift"] in (0.01, 0.02)
    page = paths[1].read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|url\(|<script", page)
    drawn = ET.fromstring(paths[2].read_text(encoding="utf-8"))
    cells = drawn.findall(".//{http://www.w3.org/2000/svg}rect")
    assert len(cells) == len(small.rows) * len(small.notices)


def test_scenes_come_from_a_source_with_its_own_noise(tmp_path) -> None:  # type: ignore[no-untyped-def]
    wafer = semnr.synth.SyntheticWafer(2, 2, 128, seed=3)
    semnr.synth.write_wafer(tmp_path / "wafer.zarr", wafer)
    scenes = scenes_of(tmp_path / "wafer.zarr", tiles=3, side=96, seed=0)
    assert scenes.clean.shape == (3, 96, 96)
    assert scenes.clean.max() <= 1.0
    assert scenes.sigma(0.3) == pytest.approx(wafer.noise.law().sigma(0.3), rel=0.25)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="tiles is 1"):
        stress_test(tiles=1)
    with pytest.raises(ValueError, match="side is 32"):
        stress_test(side=32)
    with pytest.raises(ValueError, match="faults has 'fog'; accepted: 'blur'"):
        stress_test(faults=("fog",))


def test_the_command_writes_its_files_and_prints_json(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "stress"
    arguments = ["stress", "--tiles", "2", "--side", "96", "--faults", "offset", "--metrics", "psnr", "--out", str(out)]
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["fault"] for row in data["rows"]] == ["offset"] * 5
    assert {p.name for p in out.iterdir()} == {"stress.json", "stress.html", "stress.svg"}
    assert main(["stress", "--faults", "fog"]) == 2


def test_the_table_in_the_documentation_is_that_of_the_recorded_rows() -> None:
    import bench_trust

    recorded = bench_trust.stored()
    assert bench_trust.text(recorded) in bench_trust.PAGE.read_text(encoding="utf-8")
    assert bench_trust.TUNING not in recorded["seeds"]


def test_wilsons_interval_is_the_published_one() -> None:
    import bench_trust

    assert bench_trust.interval(0, 100) == pytest.approx((0.0, 0.0370), abs=1e-4)  # Newcombe 1998, method 3
    assert bench_trust.interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
