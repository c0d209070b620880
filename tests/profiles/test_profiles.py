"""The profile: the same numbers as the metrics one by one, axes and area by hand, aggregates, runs."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
import torch

import cases
import semnr
from semnr.profiles import Profile
from semnr.profiles.radar import RANGES, area, on_axis
from semnr.runs import Run

FOUR = ("psnr", "ssim", "fsim", "cnr")


def stack(count: int = 3, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    pairs = [cases.noisy_pair(side, side, sigma=0.05 + 0.02 * i, seed=i) for i in range(count)]
    return tuple(np.stack(v)[:, None] for v in zip(*pairs, strict=True))  # type: ignore[return-value]


def rows(**columns: Any) -> Profile:
    n = len(next(iter(columns.values())))
    return Profile(tuple(f"t{i:06d}" for i in range(n)), columns, 1.0)


def perfect(n: int = 1) -> dict[str, list[float]]:
    return {"mse": [0.0] * n, "psnr": [np.inf] * n, "ssim": [1.0] * n, "fsim": [1.0] * n, "dists": [0.0] * n,
            "cnr_two_roi": [10.0] * n}  # fmt: skip


def test_rows_are_those_of_each_metric_by_itself() -> None:
    x, y = stack()
    noisy = y + 2 * (x - y)
    p = semnr.profile(x, y, data_range=1.0, metrics=FOUR, noise=noisy)
    each = {"data_range": 1.0, "reduction": "none"}
    np.testing.assert_allclose(p.mse, ((x - y) ** 2).mean((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(p.mae, np.abs(x - y).mean((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(p.psnr, semnr.psnr(x, y, **each))
    np.testing.assert_allclose(p.ssim, semnr.ssim(x, y, **each))
    np.testing.assert_allclose(p.fsim, semnr.fsim(x, y, **each))
    np.testing.assert_allclose(p.cnr, semnr.cnr(x, y, reduction="none"))
    np.testing.assert_allclose(p.cnr_fixed_noise, semnr.cnr(x, y, reduction="none", kind="fixed_noise", noise=noisy))
    assert all(v.dtype == np.float64 and v.shape == (3,) for v in p.columns.values())
    assert 0.9 < p.contrast_retention.min() < 1.1


def test_contrast_lost_in_one_place_shows_in_the_worst_window_and_hardly_in_the_tile() -> None:
    y = np.broadcast_to(np.kron(np.indices((16, 16)).sum(0) % 2, np.ones((12, 12))), (1, 1, 192, 192)).copy()
    x = y.copy()
    x[..., :64, :64] = 0.5 + 0.4 * (y[..., :64, :64] - 0.5)
    for cut in ((), (0,), (0, 0)):
        p = semnr.profile(x[cut], y[cut], data_range=1.0, metrics="cnr", noise=0.1)
        assert p.contrast_retention[0] > 0.9
        assert p.column("contrast_retention_worst")[0] == pytest.approx(0.4, abs=1e-12)
        assert p.column("cnr_fixed_noise_worst")[0] == pytest.approx(4, abs=1e-9)
    flat = semnr.profile(0 * x, 0 * y, data_range=1.0, metrics="cnr", noise=0.1)
    assert np.isnan(flat.column("cnr_fixed_noise_worst")).all()


def test_torch_and_numpy_and_every_rank_agree() -> None:
    x, y = stack(1)
    want = semnr.profile(x, y, data_range=1.0, metrics=FOUR)
    for make in (lambda v: v, torch.from_numpy):
        for cut in ((0,), (0, 0), ()):
            got = semnr.profile(make(x[cut]), make(y[cut]), data_range=1.0, metrics=FOUR)
            for name in ("psnr", "ssim", "fsim", "cnr"):
                np.testing.assert_allclose(got.column(name), want.column(name), rtol=1e-12)


def test_integers_need_no_data_range_and_keep_their_own() -> None:
    x, y = ((v * 1023).astype(np.uint16) for v in stack())
    assert semnr.profile(x, y, metrics="psnr").data_range == 65535
    ten = semnr.profile(x, y, metrics="psnr", data_range=1023)
    assert ten.data_range == 1023
    np.testing.assert_allclose(ten.psnr, semnr.psnr(x, y, data_range=1023, reduction="none"))
    with pytest.raises(ValueError, match="data_range is missing"):
        semnr.profile(*stack(), metrics="psnr")


@pytest.mark.parametrize("mask", [False, True])
def test_a_reference_gives_the_numbers_of_the_profile_and_works_once(mask: bool, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    x, y = stack(2)
    valid = np.ones((64, 64), dtype=bool)
    valid[:10, :20] = False
    options: dict[str, Any] = {"data_range": 1.0, "dists_weights": "random", "mask": valid if mask else None}
    want = semnr.profile(x, y, noise=0.1, **options)
    reference = semnr.Reference(y, **options)
    first = reference.profile(x, noise=0.1)
    for name in want.columns:
        np.testing.assert_allclose(first.column(name), want.column(name), rtol=1e-6, atol=1e-7)
    assert set(first.flags) == set(want.flags)
    assert first.settings == want.settings

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("built a second time")

    monkeypatch.setattr("semnr_kernels.cnr.otsu_masks", again)
    second = reference.profile(x * 0.99)
    assert (second.psnr != first.psnr).all()
    np.testing.assert_allclose(
        second.fsim, semnr.fsim(x * 0.99, y, data_range=1.0, reduction="none", mask=options["mask"]), rtol=1e-9
    )


def test_dists_without_weights_says_so_and_random_ones_are_flagged(monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    x, y = stack(1)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(semnr.WeightsUnavailable, match="random"):
        semnr.profile(x, y, data_range=1.0)
    p = semnr.profile(x, y, data_range=1.0, dists_weights="random")
    assert any("uncalibrated" in f for f in p.flags)
    assert p.calibrated is False
    assert np.isfinite(p.dists).all()
    assert np.isfinite(p.area)
    assert semnr.profile(x, y, data_range=1.0, metrics=FOUR).calibrated is None


def test_a_metric_that_was_not_asked_for_is_nan_and_the_area_with_it() -> None:
    p = semnr.profile(*stack(), data_range=1.0, metrics=("psnr", "ssim"))
    assert np.isnan(p.fsim).all()
    assert list(p.axes()) == ["psnr", "ssim"]
    assert np.isnan(p.area)
    assert np.isnan(p.mean_axis)
    assert np.isnan(p.area_rows()).all()


def test_axes_map_the_ends_of_their_ranges_to_0_and_1() -> None:
    for name, (low, high) in RANGES.items():
        assert on_axis(low, (low, high)) == 0
        assert on_axis(high, (low, high)) == 1
        assert on_axis(high + (high - low), (low, high)) == 1
        assert on_axis((low + high) / 2, (low, high)) == pytest.approx(0.5)
        assert np.isnan(on_axis(np.nan, (low, high))), name
    assert list(RANGES) == ["psnr", "ssim", "fsim", "dists", "cnr"]


def test_a_perfect_image_fills_the_pentagon() -> None:
    p = rows(**perfect())
    assert p.axes() == {"psnr": 1, "ssim": 1, "fsim": 1, "dists": 1, "cnr": 1}
    assert p.area == 1
    assert p.mean_axis == 1


def test_the_area_is_that_of_the_drawn_polygon() -> None:
    values = np.array([0.9, 0.2, 0.7, 0.4, 0.6])
    angles = np.arange(5) * 2 * np.pi / 5
    x, y = values * np.cos(angles), values * np.sin(angles)
    shoelace = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    full = 5 / 2 * np.sin(2 * np.pi / 5)
    assert area(values) == pytest.approx(shoelace / full)
    assert area(values) == pytest.approx((0.9 * 0.2 + 0.2 * 0.7 + 0.7 * 0.4 + 0.4 * 0.6 + 0.6 * 0.9) / 5)
    assert area(values[[0, 2, 1, 3, 4]]) != pytest.approx(area(values))  # which is why the mean stands beside it


def test_axes_of_a_known_profile_by_hand() -> None:
    p = rows(
        mse=[1e-3, 1e-3], psnr=[30.0, 30.0], ssim=[0.8, 0.6], fsim=[0.9, 0.8], dists=[0.1, 0.2], cnr_two_roi=[4.0, 2.0]
    )
    want = [0.5, 0.7, 0.7, 0.7, 0.3]
    np.testing.assert_allclose(list(p.axes().values()), want)
    assert p.mean_axis == pytest.approx(0.58)
    assert p.area == pytest.approx((0.5 * 0.7 + 0.7 * 0.7 + 0.7 * 0.7 + 0.7 * 0.3 + 0.3 * 0.5) / 5)
    np.testing.assert_allclose(p.axes_rows()[0], [0.5, 0.8, 0.8, 0.8, 0.4])
    np.testing.assert_allclose(p.axes({"ssim": (0.5, 0.9)})["ssim"], 0.5)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [({"ms_ssim": (0, 1)}, "ranges has 'ms_ssim'"), ({"psnr": (30, 30)}, "two different"), ({"psnr": 3}, "3")],
)
def test_ranges_that_make_no_axis_are_refused(ranges: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows(**perfect()).axes(ranges)


def test_the_cnr_axis_reads_the_fixed_noise_ratio_where_the_noise_is_known() -> None:
    assert rows(**perfect()).cnr_axis == "cnr_two_roi"
    p = rows(**perfect(), cnr_fixed_noise=[5.0])
    assert p.cnr_axis == "cnr_fixed_noise"
    assert p.axes()["cnr"] == 0.5


def test_infinite_psnr_is_counted_apart_and_the_run_takes_its_psnr_from_the_mean_mse() -> None:
    p = rows(mse=[0.0, 0.01, 0.03], psnr=[np.inf, 20.0, 10 * np.log10(1 / 0.03)])
    found = p.summary()
    assert found["infinite_psnr"] == 1
    assert found["psnr"]["n"] == 2
    assert found["psnr"]["mean_of_db"] == pytest.approx((20 + 10 * np.log10(1 / 0.03)) / 2)
    assert "mean" not in found["psnr"]
    assert found["psnr_of_mean_mse"] == pytest.approx(10 * np.log10(1 / (0.04 / 3)))
    assert rows(**perfect()).summary()["psnr_of_mean_mse"] == np.inf
    json.dumps(p.to_dict(), allow_nan=False)
    assert p.to_dict()["columns"]["psnr"][0] == "inf"


def test_identical_images_profile_without_an_error() -> None:
    _, y = stack(2)
    p = semnr.profile(y, y, data_range=1.0, metrics=FOUR)
    assert np.isposinf(p.psnr).all()
    np.testing.assert_allclose(p.ssim, 1)
    assert p.axes()["psnr"] == 1


def test_nan_pixels_are_refused_passed_on_or_masked() -> None:
    x, y = stack(2)
    x[0, 0, 3, 4] = np.nan
    with pytest.raises(ValueError, match="x has 1 non-finite"):
        semnr.profile(x, y, data_range=1.0, metrics=FOUR)
    passed = semnr.profile(x, y, data_range=1.0, metrics=FOUR, nan="propagate")
    assert np.isnan(passed.psnr[0])
    assert np.isnan(passed.fsim[0])
    assert np.isfinite(passed.fsim[1])
    masked = semnr.profile(x, y, data_range=1.0, metrics=FOUR, nan="omit")
    assert np.isfinite([masked.psnr, masked.ssim, masked.fsim]).all()


def test_given_masks_are_used_and_checked() -> None:
    x, y = stack(2)
    signal = np.zeros((64, 64), dtype=bool)
    signal[:20] = True
    p = semnr.profile(x, y, data_range=1.0, metrics="cnr", masks=(signal, ~signal))
    np.testing.assert_allclose(p.cnr, semnr.cnr(x, y, signal=signal, background=~signal, reduction="none"))
    same = semnr.profile(x, y, data_range=1.0, metrics="cnr", masks={"signal": signal, "background": ~signal})
    np.testing.assert_array_equal(same.cnr, p.cnr)
    with pytest.raises(ValueError, match="masks has the keys"):
        semnr.profile(x, y, data_range=1.0, metrics="cnr", masks={"signal": signal})
    with pytest.raises(TypeError, match="masks is"):
        semnr.profile(x, y, data_range=1.0, metrics="cnr", masks=signal)


def test_the_noisy_image_itself_is_a_noisy_profile() -> None:
    x, y = stack(1)
    assert semnr.profile(x, y, data_range=1.0, metrics="cnr", noise=x).kind == "noisy"
    assert semnr.profile(x, y, data_range=1.0, metrics="cnr", noise=x + 1).kind == "denoised"
    assert semnr.profile(x, y, data_range=1.0, metrics="psnr", kind="noisy").kind == "noisy"
    with pytest.raises(ValueError, match="kind is 'raw'"):
        semnr.profile(x, y, data_range=1.0, metrics="psnr", kind="raw")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"metrics": ("psnr", "vmaf")}, ValueError, "metrics is 'vmaf'"),
        ({"metrics": ()}, ValueError, "metrics is empty"),
        ({"nan": "skip"}, ValueError, "nan is 'skip'"),
        ({"tiles": ("a",)}, ValueError, "tiles has 1 ids for 2 images"),
        ({"y": np.zeros((2, 1, 64, 63))}, ValueError, "x has shape"),
        ({"y": torch.zeros(2, 1, 64, 64)}, TypeError, "x is ndarray and y Tensor"),
        ({"x": "image.png"}, TypeError, "x is str"),
    ],
)
def test_wrong_arguments_are_named(change: dict, error: type[Exception], message: str) -> None:
    x, y = stack(2)
    arguments = {"x": x, "y": y, "data_range": 1.0, "metrics": ("psnr",), **change}
    with pytest.raises(error, match=message):
        semnr.profile(**arguments)


def test_concat_joins_batches_and_refuses_what_does_not_belong_together() -> None:
    x, y = stack(4)
    whole = semnr.profile(x, y, data_range=1.0, metrics=FOUR)
    parts = [semnr.profile(x[i : i + 2], y[i : i + 2], data_range=1.0, metrics=FOUR) for i in (0, 2)]
    joined = Profile.concat(parts)
    assert joined.tiles == whole.tiles
    for name in whole.columns:
        np.testing.assert_allclose(joined.column(name), whole.column(name), rtol=1e-9)
    with pytest.raises(ValueError, match="profiles differ in settings"):
        Profile.concat([parts[0], semnr.profile(x, y, data_range=1.0, metrics="psnr")])
    named = semnr.profile(x, y, data_range=1.0, metrics="psnr", tiles=tuple("abcd"))
    with pytest.raises(ValueError, match="tiles has 'a' twice"):
        Profile.concat([named, named])


def test_details_add_the_terms_of_ssim_and_the_clipped_share() -> None:
    x, y = stack(2)
    p = semnr.profile(np.clip(x * 1.3, 0, 1), y, data_range=1.0, metrics=("psnr", "ssim"), details=True)
    assert {"ssim_luminance", "ssim_contrast", "ssim_structure"} <= set(p.columns)
    np.testing.assert_allclose(p.column("clipped_high"), (x * 1.3 >= 1).mean((1, 2, 3)))


def test_to_pandas_has_a_row_a_tile() -> None:
    pytest.importorskip("pandas")
    frame = semnr.profile(*stack(), data_range=1.0, metrics="psnr").to_pandas()
    assert list(frame["tile"]) == ["t000000", "t000001", "t000002"]
    assert "psnr" in frame


def test_plot_without_matplotlib_says_what_to_install(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'semnr\[plot\]'"):
        rows(**perfect()).plot()


def test_plot_draws_five_axes() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    ax = rows(**perfect()).plot()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["PSNR", "SSIM", "FSIM", "DISTS", "CNR"]


def _write_run(folder, info: dict[str, Any], columns: dict[str, list]) -> None:  # type: ignore[no-untyped-def]
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "tiles").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    pq.write_table(pa.table(columns), folder / "tiles" / "part-00000.parquet")


def test_a_scored_run_comes_back_as_a_profile(tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = {"data_range": 255.0, "fsim_downsample": 2, "dists": {"weights": "random", "calibrated": False}}
    columns = {
        "tile": ["b", "a", "c"], "index": [1, 0, 2], "path": [None, "a.tif", "c.tif"], "die_x": [1, 0, 2],
        "lot_id": ["L1", "L1", "L1"], "psnr": [30.0, 40.0, None], "mse": [65.0, 6.5, None], "dists": [None, 0.2, None],
        "psnr_noisy": [20.0, 20.0, None], "status": ["ok", "ok", "missing"], "reason": [None, None, "no file"],
    }  # fmt: skip
    info = {"label": "wavelet", "source": "x.zarr", "reference": "y.zarr", "settings": settings}
    _write_run(tmp_path / "run", info, columns)
    p = Run.open(tmp_path / "run").profile()
    assert p.tiles == ("a", "b", "c")
    assert p.status == ("ok", "ok", "missing")
    np.testing.assert_array_equal(p.psnr, [40, 30, np.nan])
    np.testing.assert_array_equal(p.columns["die_x"], [0, 1, 2])
    assert "lot_id" not in p.columns
    assert (p.label, p.data_range, p.kind, p.calibrated) == ("wavelet", 255, "denoised", False)
    assert p.settings["reference"] == "y.zarr"
    assert any("uncalibrated" in f for f in p.flags)
    assert p.summary()["not_scored"] == 1


def test_a_run_of_the_noisy_input_is_a_noisy_profile_and_its_range_is_found(tmp_path) -> None:  # type: ignore[no-untyped-def]
    psnr = 10 * np.log10(255**2 / 650.25)
    columns = {"tile": ["a"], "index": [0], "psnr": [psnr], "psnr_noisy": [psnr], "mse": [650.25], "status": ["ok"]}
    _write_run(tmp_path / "run", {"label": "raw", "source": "x", "reference": "x", "settings": {}}, columns)
    p = Run.open(tmp_path / "run").profile()
    assert p.kind == "noisy"
    assert p.data_range == pytest.approx(255)
    assert "reference" not in p.settings  # its own: the name says nothing


def test_a_folder_that_is_no_run_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"no run.json"):
        Run.open(tmp_path).profile()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        Run.open(tmp_path).profile()


# --- intervals, places, comparison ---


def dies(n: int = 60, each: int = 3, seed: int = 0, label: str = "", **shift: float) -> Profile:
    """Scores that vary by die and by tile, with constants added to some columns."""
    rng = np.random.default_rng(seed)
    die = np.repeat(np.arange(n // each), each)
    common = np.random.default_rng(99).standard_normal(n)
    columns = {
        "mse": 10 ** -(2.5 + 0.1 * shift.get("psnr", 0.0) + 0.02 * common),
        "psnr": 25 + shift.get("psnr", 0.0) + 0.2 * common + 0.05 * rng.standard_normal(n),
        "ssim": 0.8 + shift.get("ssim", 0.0) + 0.01 * common + 0.002 * rng.standard_normal(n),
        "fsim": 0.9 + 0.01 * rng.standard_normal(n),
        "dists": 0.1 + 0.0 * common,
        "cnr_two_roi": 3.0 + 0.1 * common,
        "transfer": 0.98 + shift.get("transfer", 0.0) + 0.002 * rng.standard_normal(n),
        "die_x": die.astype(float),
        "die_y": np.zeros(n),
    }
    texts = {"lot_id": tuple("A" if d < 10 else "B" for d in die), "wafer_id": ("1",) * n}
    return Profile(tuple(f"t{i:06d}" for i in range(n)), columns, 1.0, label=label, texts=texts)


def test_intervals_hold_the_value_and_shrink_with_the_number_of_tiles() -> None:
    small, large = dies(60).intervals(), dies(600).intervals()
    for name, (value, low, high) in small["axes"].items():
        assert low <= value <= high, name
        assert large["axes"][name][2] - large["axes"][name][1] <= high - low + 1e-12
    for name in ("area", "mean_axis"):
        assert small[name][1] <= small[name][0] <= small[name][2]
    assert small["area"][0] == pytest.approx(dies(60).area)
    assert (small["tiles"], small["clusters"]) == (60, 20)


def test_an_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    n = 400
    ssim = 0.5 + 0.1 * np.random.default_rng(3).standard_normal(n)
    got = rows(psnr=[30.0] * n, ssim=ssim, fsim=[0.9] * n, dists=[0.1] * n, cnr_two_roi=[3.0] * n).intervals()
    value, low, high = got["axes"]["ssim"]
    half = 1.96 * ssim.std() / np.sqrt(n)
    assert (value - low, high - value) == (pytest.approx(half, rel=0.15), pytest.approx(half, rel=0.15))


def test_tiles_of_one_die_that_are_all_alike_count_as_one() -> None:
    n, each = 120, 6
    values = np.repeat(np.random.default_rng(1).standard_normal(n // each), each) * 0.1 + 0.5
    alike = {"psnr": [30.0] * n, "ssim": values, "fsim": [0.9] * n, "dists": [0.1] * n, "cnr_two_roi": [3.0] * n}
    alone = rows(**alike).intervals()["axes"]["ssim"]
    by_die = rows(**alike, die_x=np.repeat(np.arange(n // each), each), die_y=[0] * n).intervals()["axes"]["ssim"]
    assert (by_die[2] - by_die[1]) / (alone[2] - alone[1]) == pytest.approx(np.sqrt(each), rel=0.2)


def test_the_same_seed_gives_the_same_interval_and_a_missing_axis_is_nan() -> None:
    assert dies().intervals(seed=4) == dies().intervals(seed=4)
    got = rows(psnr=[30.0, 31.0], ssim=[0.9, 0.8]).intervals()
    assert np.isnan(got["area"]).all()
    assert np.isnan(got["axes"]["fsim"]).all()
    assert np.isfinite(got["axes"]["ssim"]).all()


def test_profiles_by_lot_wafer_die_and_tile_are_those_of_their_tiles() -> None:
    whole = dies()
    lots = whole.by("lot", resamples=50)
    assert list(lots) == ["A", "B"]
    assert [lots[k]["tiles"] for k in lots] == [30, 30]
    assert lots["A"]["axes"]["ssim"][0] == pytest.approx(whole.ssim[:30].mean())
    assert list(whole.by("wafer", resamples=50)) == ["A/1", "B/1"]
    assert len(whole.by("die", resamples=50)) == 20
    one = whole.by("tile", resamples=50)["t000003"]
    assert one["axes"]["fsim"][0] == pytest.approx((whole.fsim[3] - 0.5) / 0.5)
    with pytest.raises(ValueError, match="level is 'field'; accepted: 'tile', 'die', 'wafer', 'lot'"):
        whole.by("field")


def test_compare_says_what_was_gained_and_what_was_paid() -> None:
    before = dies(label="released")
    found = semnr.compare(
        before,
        dies(seed=1, psnr=1.0, ssim=-0.02, transfer=-0.1, label="blurry"),
        dies(seed=2, transfer=0.02, label="same"),
    )
    assert found.gained("blurry") == ["psnr"]
    assert found.paid("blurry") == ["ssim", "transfer"]
    assert found.paid("same") == []
    assert found.gained("same") == ["transfer"]  # 0.98 to 1.00: nearer to 1
    psnr = found.candidates["blurry"][0]
    assert psnr.low < 1.0 < psnr.high
    assert psnr.change == pytest.approx(1.0, abs=0.05)
    assert psnr.p < 0.001
    text = str(found)
    assert "blurry against released: gained psnr; paid ssim, transfer" in text
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_sign_flip_test_counts_every_flip_of_few_clusters() -> None:
    from semnr.profiles.statistics import sign_flip

    values = np.array([1.0, 2.0, 3.0])
    assert sign_flip(values, np.arange(3)) == pytest.approx(2 / 8)
    assert sign_flip(np.array([1.0, -1.0]), np.arange(2)) == 1.0
    assert sign_flip(np.repeat(values, 2), np.repeat(np.arange(3), 2)) == pytest.approx(2 / 8)  # three dies, not six
    assert np.isnan(sign_flip(np.array([np.nan]), np.arange(1)))


def test_chance_is_called_a_difference_about_as_often_as_it_says() -> None:
    from semnr.profiles.statistics import holm, sign_flip

    rng = np.random.default_rng(5)
    p = np.array([sign_flip(rng.standard_normal(12), np.arange(12)) for _ in range(400)])
    assert 0.02 < (p <= 0.05).mean() < 0.09
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, np.nan, 0.03])), [0.03, 0.06, np.nan, 0.06])


def test_what_does_not_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="no candidate"):
        semnr.compare(dies())
    with pytest.raises(TypeError, match="candidate 1 is int"):
        semnr.compare(dies(), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tiles: 3 only in before"):
        semnr.compare(dies(63), dies(60))
    with pytest.raises(ValueError, match="columns has 'beauty'"):
        semnr.compare(dies(), dies(), columns=("beauty",))
