"""Estimates from noisy frames: unbiased, with honest errors, suspicious of frames that are not what they should be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

import semnr
from semnr.scoring import score
from semnr.synth import Detector, tile
from semnr.synth.detector import quantise
from semnr.tiles import TileKey, create_tiles

RNG = np.random.default_rng
DETECTOR = Detector(dose=80.0)


def blur(stack: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(stack, (0, 0, sigma, sigma))


def frames(count: int, side: int, number: int, seed: int = 0, sigmas: tuple[float, ...] = (20.0,) * 3):
    """Clean tiles (count, 1, side, side) in grey levels and `number` frames with plain Gaussian noise."""
    rng = RNG(seed)
    clean = np.stack([255 * tile("lines", side, seed=k).clean for k in range(count)])[:, None]
    return clean, [clean + s * rng.standard_normal(clean.shape) for s in sigmas[:number]]


def recorded(side: int, number: int, seed: int = 0, pattern: str = "lines"):
    """One synthetic SEM tile and 8-bit recordings of it."""
    clean = tile(pattern, side, seed=seed).clean
    return 255 * clean, [quantise(DETECTOR.apply(clean, RNG((seed, k))), "uint8") for k in range(number)]


def test_umse_is_the_mean_product_of_two_frames_errors() -> None:
    """By hand, without the control variate: doses that differ switch it off."""
    _, (x, a, b) = frames(3, 96, 3, sigmas=(20.0, 20.0, 60.0))
    d = blur(x, 1.5)
    found = semnr.without_reference(x, d, a, b, data_range=255.0)
    np.testing.assert_allclose(found.umse, ((a - d) * (b - d)).mean((1, 2, 3)), rtol=1e-9)
    two = semnr.without_reference(x, d, a, data_range=255.0)
    np.testing.assert_allclose(two.umse, ((a - d) ** 2 - (a - x) ** 2 / 2).mean((1, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(two.noise_sigma, np.sqrt(((x - a) ** 2 / 2).mean((1, 2, 3))), rtol=1e-9)
    assert found.frames == 3 > two.frames


@pytest.mark.parametrize("number", [2, 3])
def test_estimates_are_unbiased_and_their_standard_errors_are_right(number: int) -> None:
    clean, (x, *others) = frames(60, 96, number, seed=1)
    d = blur(x, 1.2)
    found = semnr.without_reference(x, d, *others, data_range=255.0)
    true = ((d - clean) ** 2).mean((1, 2, 3))
    z = (found.umse - true) / found.umse_se
    assert abs(z.mean()) < 3.5 / math.sqrt(60)
    assert 0.75 < z.std() < 1.3
    assert abs((found.umse / true).mean() - 1) < 0.02
    np.testing.assert_allclose(found.noise_sigma, 20, rtol=0.04)
    psnr = 10 * np.log10(255**2 / true)
    assert abs((found.upsnr - psnr).mean()) < 0.1  # the mean of a logarithm leans: 4.3 (SE/MSE)² = 0.04 dB
    noisy = 10 * np.log10(255**2 / ((x - clean) ** 2).mean((1, 2, 3)))
    assert abs((found.upsnr_noisy - noisy).mean()) < 0.05


def test_a_third_frame_and_equal_doses_narrow_the_estimate() -> None:
    _, (x, a, b) = frames(20, 96, 3, seed=2)
    _, uneven = frames(20, 96, 3, seed=2, sigmas=(20.0, 20.0, 40.0))
    d = blur(x, 1.5)
    two = semnr.without_reference(x, d, a, data_range=255.0).umse_se.mean()
    three = semnr.without_reference(x, d, a, b, data_range=255.0).umse_se.mean()
    assert three / two == pytest.approx(0.75 / math.sqrt(2), rel=0.15)
    assert semnr.without_reference(*(uneven[0], d, *uneven[1:]), data_range=255.0).umse_se.mean() > 1.5 * three


def test_psnr_of_a_recorded_tile_comes_out_within_two_tenths_of_a_decibel() -> None:
    errors = []
    for seed, pattern in enumerate(("lines", "holes", "vias", "metal")):
        clean, (x, a, b) = recorded(512, 3, seed, pattern)
        d = semnr.denoise(x.astype(np.float32), model="gaussian", workers=1)
        found = semnr.without_reference(*(v.astype(np.float32) for v in (x, d, a, b)), data_range=255.0)
        errors.append(found.upsnr[0] - 10 * math.log10(255**2 / ((d - clean) ** 2).mean()))
        assert found.upsnr_se[0] < 0.15
        assert found.usable[0], found.problems[0]
    assert np.abs(errors).max() <= 0.2


def test_where_the_error_is_below_the_noise_of_the_estimate_only_a_bound_is_given() -> None:
    clean, (x, a, b) = frames(8, 64, 3, seed=3)
    found = semnr.without_reference(x, clean, a, b, data_range=255.0)  # a perfect denoiser
    unknown = np.isnan(found.upsnr)
    assert unknown.mean() >= 0.5
    assert np.isfinite(found.upsnr_low).all()
    assert (found.upsnr_low > 33).all()
    assert (np.abs(found.umse) < 4 * found.umse_se).all()


def test_structure_and_contrast_are_those_against_the_clean_image() -> None:
    clean, (x, a, b) = recorded(256, 3, 5)
    x, a, b = (v.astype(np.float64)[None, None] for v in (x, a, b))
    d = blur(x, 2.0)
    found = semnr.without_reference(x, d, a, b, data_range=255.0)
    flat = [v - ndimage.gaussian_filter(v, 8) for v in (d[0, 0], clean)]
    true = np.corrcoef(*(v.ravel() for v in flat))[0, 1]
    assert abs(found.structure[0] - true) < 4 * found.structure_se[0] + 0.003
    assert found.structure[0] < 0.97
    masks = semnr.otsu_masks(torch.from_numpy(d))
    signal, background = (np.asarray(v)[0, 0] for v in (masks.signal, masks.background))

    def delta(v: np.ndarray) -> float:
        return float(v[signal].mean() - v[background].mean())

    assert found.contrast_retention[0] == pytest.approx(delta(d[0, 0]) / delta(clean), abs=0.01)
    noise = math.sqrt(((x[0, 0] - clean)[signal | background] ** 2).mean())
    assert found.cnr_fixed_noise[0] == pytest.approx(abs(delta(d[0, 0])) / noise, rel=0.03)


def test_what_cannot_be_estimated_is_listed_with_its_reason() -> None:
    _, (x, a, b) = frames(1, 64, 3)
    three, two = (semnr.without_reference(x, x, *others, data_range=255.0) for others in ((a, b), (a,)))
    assert set(three.unknown) == {"ssim", "fsim", "dists"}
    assert "structure" in two.unknown
    assert np.isnan(two.structure).all()
    assert "psnr" in two.estimated
    assert "structure" not in two.estimated
    assert "ssim: unknown" in str(three)
    with pytest.raises(ValueError, match="second_frame is None"):
        semnr.without_reference(x, x, None, data_range=255.0)


# --- frames that are not what they should be -------------------------------------------------------------------


def checked(x: np.ndarray, d: np.ndarray, *others: np.ndarray):
    return semnr.without_reference(*(v.astype(np.float32) for v in (x, d, *others)), data_range=255.0)


@pytest.mark.parametrize("pattern", ["lines", "holes", "metal"])
def test_good_frames_raise_no_suspicion(pattern: str) -> None:
    for seed in range(3):
        _, (x, a, b) = recorded(256, 3, seed, pattern)
        d = semnr.denoise(x, model="nlm", workers=1)
        assert checked(x, d, a, b).problems == ("",)
        assert checked(x, d, a).problems == ("",)


def test_a_frame_that_is_shifted_by_part_of_a_pixel_is_noticed() -> None:
    clean, (x, a, _) = recorded(256, 3, 1, "holes")
    rng = RNG(4)
    moved = DETECTOR.apply(np.clip(ndimage.shift(clean / 255, (0.4, -0.3), order=3, mode="nearest"), 0, 1), rng)
    b = quantise(moved, "uint8")
    d = ndimage.gaussian_filter(x.astype(np.float64), 1.2)
    found = checked(x, d, a, b)
    assert "third_frame is shifted" in found.problems[0]
    assert not found.usable[0]
    assert found.checks["shift_y"][0] == pytest.approx(0.4, abs=0.12)
    assert found.checks["shift_x"][0] == pytest.approx(-0.3, abs=0.12)
    assert math.isnan(found.columns()["psnr_estimated"][0])


def test_a_running_average_is_not_an_independent_frame() -> None:
    _, (x, a, b) = recorded(256, 3, 2)
    d = ndimage.gaussian_filter(x.astype(np.float64), 1.2)
    for others in ((0.5 * x + 0.5 * a, b), (x,)):
        found = checked(x, d, *others)
        assert "not independent" in found.problems[0]
        assert found.checks["dependence"][0] > 0.5


def test_a_frame_of_another_gain_is_noticed_and_an_offset_in_a_corner_is_not_called_one() -> None:
    _, (x, a, b) = recorded(256, 3, 3)
    d = ndimage.gaussian_filter(x.astype(np.float64), 1.2)
    assert "times the contrast" in checked(x, d, a * 0.9 + 10, b).problems[0]
    assert checked(x, d, a, b * 0.9 + 10).checks["gain"][0] == pytest.approx(0.9, abs=0.02)


def test_masked_and_non_finite_pixels_take_no_part() -> None:
    _, (x, a, b) = frames(2, 96, 3, seed=6)
    d = blur(x, 1.2)
    mask = np.ones((96, 96), bool)
    mask[20:40, 30:60] = False
    spoilt = a.copy()
    spoilt[:, :, 20:40, 30:60] = np.nan
    want = semnr.without_reference(x, d, a, b, mask=mask, data_range=255.0)
    found = semnr.without_reference(x, d, spoilt, b, nan="omit", data_range=255.0)
    np.testing.assert_allclose(found.umse, want.umse, rtol=1e-9)
    with pytest.raises(ValueError, match="second_frame has 1200 non-finite"):
        semnr.without_reference(x, d, spoilt, b, data_range=255.0)


def test_integers_tensors_and_batches_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = [np.stack(v)[:, None] for v in zip(*(recorded(96, 3, s)[1] for s in range(3)), strict=True)]
    x, a, b = stacks
    d = ndimage.gaussian_filter(x, (0, 0, 1.2, 1.2))
    whole = semnr.without_reference(x, d, a, b)
    tensors = semnr.without_reference(*(torch.from_numpy(v) for v in (x, d, a, b)))
    monkeypatch.setattr("semnr.trust.two_frames._CHUNK_PIXELS", 1)
    parts = semnr.without_reference(x, d, a, b)
    for other in (tensors, parts):
        np.testing.assert_allclose(other.umse, whole.umse, rtol=1e-9)
        np.testing.assert_allclose(other.structure, whole.structure, rtol=1e-9)
    assert whole.settings["data_range"] == 255
    assert whole.to_dict()["frames"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_range": None}, "data_range is missing"),
        ({"nan": "propagate"}, "nan is 'propagate'"),
        ({"third_frame": np.zeros((64, 60))}, "third_frame has shape"),
        ({"second_frame": "b.png"}, "second_frame is str"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    x = np.zeros((64, 64))
    given = {"noisy": x, "denoised": x, "second_frame": x, "data_range": 1.0, **change}
    with pytest.raises((TypeError, ValueError), match=message):
        semnr.without_reference(**given)


# --- runs ------------------------------------------------------------------------------------------------------


def stack(path, roles, count: int = 3, side: int = 128):  # type: ignore[no-untyped-def]
    """A tile stack of recordings and a blurred image; truth is the PSNR of that image."""
    truth = []
    with create_tiles(path, roles=roles, pixel_nm=1.0) as writer:
        for k in range(count):
            clean, (x, a, b) = recorded(side, 3, k, "holes")
            image = ndimage.gaussian_filter(x.astype(np.float64), 1.2).round().astype(np.uint8)
            truth.append(10 * math.log10(255**2 / ((image - clean) ** 2).mean()))
            pixels = {"image": image, "noisy": x, "noisy_2": a, "noisy_3": b, "reference": clean.round()}
            for role in roles:
                writer.write(TileKey(f"t{k:06d}", k), pixels[role].astype(np.uint8), role)
    return path, np.array(truth)


@pytest.mark.parametrize("roles", [("noisy", "noisy_2"), ("noisy", "noisy_2", "noisy_3")])
def test_a_source_of_noisy_frames_alone_is_scored(tmp_path, roles) -> None:
    source, truth = stack(tmp_path / "in.zarr", ("image", *roles))
    run = score(source, out=tmp_path / "out", maps=("evidence",))
    assert run.exit_code == 0
    rows = run.table().to_pylist()
    assert "psnr" not in rows[0]
    assert {row["frames"] for row in rows} == {float(len(roles))}
    for row, true in zip(rows, truth, strict=True):
        assert abs(row["psnr_estimated"] - true) < 4 * row["psnr_estimated_se"]
        assert row["transfer"] == pytest.approx(0.85, abs=0.12)
        assert row["mse_drop"] > 0
        assert row["residual_variance"] > 0
        assert row["frames_problem"] is None
    assert run.summary["psnr_estimated"]["n"] == len(truth)
    assert run.info["settings"]["reference"] is None
    assert len(run.profile()) == len(truth)
    import zarr

    assert zarr.open_group(str(run.path / "maps.zarr"))["evidence"].shape == (3, 128, 128)


def test_one_noisy_frame_without_a_reference_is_judged_by_what_it_can_tell(tmp_path) -> None:
    source, _ = stack(tmp_path / "in.zarr", ("image", "noisy"), count=1)
    run = score(source, out=tmp_path / "out")
    assert run.counts == {"tiles": 1, "ok": 1}
    assert {"residual_variance", "removed_z", "shift_y_px"} <= set(run.table().column_names)
    assert not {"psnr", "psnr_estimated", "transfer"} & set(run.table().column_names)
    assert run.verdict.outcome != "passed"


def test_a_third_frame_without_a_second_is_refused(tmp_path) -> None:
    source, _ = stack(tmp_path / "in.zarr", ("image", "noisy"), count=1)
    with pytest.raises(ValueError, match="noisy_3 is given without noisy_2"):
        score(source, noisy_3=source, out=tmp_path / "out")


def test_frames_of_other_sources_are_paired_by_id_and_missing_ones_listed(tmp_path) -> None:
    source, _ = stack(tmp_path / "in.zarr", ("image", "noisy"), count=3)
    second, _ = stack(tmp_path / "second.zarr", ("noisy_2",), count=2)
    run = score(source, noisy_2=second, out=tmp_path / "out")
    assert run.counts == {"tiles": 3, "ok": 2, "missing": 1}
    assert "has no tile t000002" in run.problems[0]["reason"]
    with pytest.raises(ValueError, match="maps has 'ssim' without a reference"):
        score(source, noisy_2=second, out=tmp_path / "other", maps=("ssim",))


def test_frames_that_cannot_be_used_leave_their_reason_and_no_estimate(tmp_path) -> None:
    source, _ = stack(tmp_path / "in.zarr", ("image", "noisy"), count=1)
    with create_tiles(tmp_path / "same.zarr", roles=("noisy_2",)) as writer:  # the first frame, once more
        writer.write(TileKey("t000000", 0), recorded(128, 1, 0, "holes")[1][0], "noisy_2")
    run = score(source, noisy_2=tmp_path / "same.zarr", out=tmp_path / "out")
    row = run.table().to_pylist()[0]
    assert row["psnr_estimated"] is None
    assert "not independent" in row["frames_problem"]
    assert row["frames_usable"] == 0


def test_residual_tests_and_changes_are_columns_of_a_run_and_can_be_left_out(tmp_path) -> None:
    source, _ = stack(tmp_path / "in.zarr", ("image", "noisy", "reference"), count=2)
    full = score(source, out=tmp_path / "a", metrics=("psnr",)).table().to_pylist()[0]
    bare = score(source, out=tmp_path / "b", metrics=("psnr",), tests=False).table().to_pylist()[0]
    for name in ("residual_variance", "removed_z", "invented_count", "evidence_boxes", "gain_change", "shift_x_px"):
        assert name in full
        assert name not in bare
    assert bare["transfer"] == full["transfer"]
    measured = score(source, out=tmp_path / "c", metrics=("psnr",), metrology="holes").table().to_pylist()[0]
    assert "cd_change_px" in measured
    assert "cd_change_px" not in full
    with pytest.raises(ValueError, match="metrology is 'dots'"):
        score(source, out=tmp_path / "d", metrology="dots")


def test_tiles_too_small_for_the_tests_are_scored_without_them(tmp_path) -> None:
    source, _ = stack(tmp_path / "in.zarr", ("image", "noisy", "reference"), count=1, side=24)
    row = score(source, out=tmp_path / "out", metrics=("psnr",)).table().to_pylist()[0]
    assert row["status"] == "ok"
    assert row["residual_variance"] is None
