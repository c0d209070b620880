"""What one denoised frame is worth: against the truth of synthetic frames, with row noise and unequal doses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import semnr
from semnr import Profile
from semnr.synth import tile


def site(seed: int, count: int = 3, side: int = 128, **noise: float) -> tuple[np.ndarray, list[np.ndarray]]:
    made = tile("holes", side, seed=seed)
    frames = [made.noisy(dose=60, frame=k, **noise).astype(np.float32) for k in range(count)]
    return np.clip(made.clean, 0, 1), frames


def worth(clean: np.ndarray, x: np.ndarray, d: np.ndarray) -> float:
    return float(np.mean((x - clean) ** 2) / np.mean((d - clean) ** 2))


def test_the_mean_of_four_frames_is_worth_four() -> None:
    clean, frames = site(1, 7, row_noise=0.02)
    mean = np.mean(frames[:4], axis=0)
    truth = worth(clean, frames[0], mean)
    for third in (None, frames[6]):
        found = semnr.dose_equivalence(frames[0], mean, frames[5], third)
        assert found.low < truth < found.high
        assert found.frames == pytest.approx(4, rel=0.25)


def test_intervals_cover_the_truth_over_seeds_and_the_estimate_is_not_biased() -> None:
    ratios, covered = [], []
    for seed in range(16):
        clean, (x, a, b) = site(seed, row_noise=0.02)
        d = gaussian_filter(x, 1.0)
        truth = worth(clean, x, d)
        for third in (None, b):
            found = semnr.dose_equivalence(x, d, a, third)
            covered.append(found.low <= truth <= found.high)
            ratios.append(found.frames / truth)
    assert np.mean(covered) >= 0.8  # of 95 % intervals, 32 of them
    assert np.mean(ratios) == pytest.approx(1, abs=0.06)
    assert np.std(ratios) > 0


def test_a_second_frame_of_another_dose_is_reckoned_with() -> None:
    made = tile("lines", 192, seed=3)
    x, a = (made.noisy(dose=dose, frame=k, read_noise=0.0) for k, dose in enumerate((40, 400)))
    d = gaussian_filter(x, 1.0)
    truth = worth(np.clip(made.clean, 0, 1), x, d)
    right, wrong = (semnr.dose_equivalence(*map(np.float32, (x, d, a)), second_dose=k) for k in (10.0, 1.0))
    assert right.low < truth < right.high
    assert not wrong.low < truth < wrong.high


def test_fields_are_resampled_where_there_are_enough_else_strips() -> None:
    sites = [site(seed, 2, 48)[1] for seed in range(8)]
    x, a = (np.stack(v)[:, None] for v in zip(*sites, strict=True))
    d = np.stack([gaussian_filter(v, 0.8) for v in x[:, 0]])[:, None]
    assert semnr.dose_equivalence(x, d, a).resampled == "fields"
    two = semnr.dose_equivalence(x, d, a, fields=[i // 4 for i in range(8)])
    assert (two.resampled, two.units) == ("strips of lines", 48)
    assert len(two.tile) == 8
    masked = semnr.dose_equivalence(x, d, a, mask=np.arange(48)[:, None].repeat(48, 1) < 24)
    assert masked.frames != two.frames


def test_an_error_that_is_not_told_from_nothing_has_no_upper_end() -> None:
    clean, (x, a) = site(4, 2)
    found = semnr.dose_equivalence(x, clean.astype(np.float32), a)
    assert found.high == np.inf
    assert "at least" in str(found)
    assert found.to_dict()["high"] == "inf"


def test_what_is_refused() -> None:
    _, (x, a) = site(5, 2, 48)
    for more, text in (
        ({"second_dose": 0}, "second_dose is 0"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"fields": ["a", "b"]}, "fields has 2 names for 1 tiles"),
        ({"scan_axis": 3}, "scan_axis is 3"),
    ):
        with pytest.raises(ValueError, match=text):
            semnr.dose_equivalence(x, x, a, **more)
    with pytest.raises(ValueError, match="second_frame is None"):
        semnr.dose_equivalence(x, x, None)


def test_the_verdict_says_what_a_frame_is_worth_from_rows() -> None:
    rng = np.random.default_rng(6)
    rows = {"mse": rng.uniform(9, 11, 12), "psnr_noisy": 10 * np.log10(255**2 / np.full(12, 60.0))}
    rows["psnr"] = 10 * np.log10(255**2 / rows["mse"])
    verdict = semnr.guard(None, Profile(tuple("abcdefghijkl"), rows, 255.0))
    assert verdict.worth["frames"] == pytest.approx(60 / rows["mse"].mean())
    assert verdict.worth["low"] < verdict.worth["frames"] < verdict.worth["high"]
    assert "one denoised frame is worth 6." in str(verdict)
    assert semnr.Verdict.from_dict(verdict.to_dict()).worth["said"] == verdict.worth["said"]
    few = {"mse_estimated": [10.0], "mse_estimated_se": [1.0], "psnr_noisy_estimated": [rows["psnr_noisy"][0]]}
    found = semnr.DoseEquivalence.of(Profile(("a",), {**few, "frames": [2.0]}, 255.0))
    assert found is not None
    assert (found.basis, found.units) == ("two frames", 0)
    assert (found.low, found.high) == (pytest.approx(60 / 11.96, rel=1e-3), pytest.approx(60 / 8.04, rel=1e-3))
    assert semnr.DoseEquivalence.of(Profile(("a",), {"ssim": [0.9]}, 255.0)) is None
