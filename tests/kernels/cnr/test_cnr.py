"""CNR: one formula a name, regions built once on the reference, and never a number where there is none."""

from __future__ import annotations

import importlib.util
import math
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

import backends
import cases
import tolerances
from semnr_kernels import cnr as ops
from semnr_kernels import use_backend
from semnr_kernels.cnr import Sigma, cnr, cnr_map, otsu_masks, worst_windows

KINDS = ("two_roi", "sum_var", "background")


@pytest.fixture(params=backends.params("cnr"))
def backend(request: pytest.FixtureRequest):
    """Every call of the test runs on it, whether it names it or not."""
    name = backends.require("cnr", request.param)
    with use_backend(name):
        yield name


on_every_backend = pytest.mark.usefixtures("backend")


def halves(height: int = 4, width: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """The left half as signal, the right half as background."""
    left = torch.zeros((height, width), dtype=torch.bool)
    left[:, : width // 2] = True
    return left, ~left


def hand_computed() -> torch.Tensor:
    """Signal 6 and 10 (mean 8, variance 4), background 1 and 3 (mean 2, variance 1)."""
    return torch.tensor([[6.0, 10.0, 1.0, 3.0]] * 4)


def noisy_lines(seed: int = 0, size: int = 96, sigma: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    candidate, clean = cases.noisy_pair(size, size, sigma=sigma, seed=seed)
    return torch.from_numpy(candidate), torch.from_numpy(clean)


def by_numpy(x: np.ndarray, signal: np.ndarray, background: np.ndarray, kind: str, sigma: float = math.nan) -> float:
    s, b = x[signal].astype(np.float64), x[background].astype(np.float64)
    if not len(s) or not len(b):
        return math.nan
    difference = s.mean() - b.mean()
    noise = {
        "two_roi": np.sqrt((s.var() + b.var()) / 2),
        "sum_var": np.sqrt(s.var() + b.var()),
        "background": b.std(),
        "fixed_noise": sigma,
    }[kind]
    return float((difference if kind == "background" else abs(difference)) / noise)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("two_roi", 6 / math.sqrt(2.5)), ("sum_var", 6 / math.sqrt(5)), ("background", 6.0), ("fixed_noise", 3.0)],
)
def test_each_kind_is_its_hand_computed_formula(backend: str, kind: str, expected: float) -> None:
    signal, background = halves()
    noise = 2.0 if kind == "fixed_noise" else None
    value = cnr(hand_computed(), signal=signal, background=background, kind=kind, noise=noise, backend=backend)
    assert value.dtype == torch.float64
    assert value.shape == ()
    assert value.item() == pytest.approx(expected, rel=1e-15)


def test_only_the_background_kind_is_signed(backend: str) -> None:
    background, signal = halves()
    x = hand_computed()
    value = {kind: cnr(x, signal=signal, background=background, kind=kind, backend=backend).item() for kind in KINDS}
    assert value["background"] == -3.0  # (2 − 8) / √4
    assert value["two_roi"] > 0
    assert value["sum_var"] > 0


def test_background_is_snr9_of_nist_detection_limits(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("detection_limits") is None:
        pytest.skip("detection-limits is not installed")
    # its SNR function is NumPy alone, but its package imports OpenCV and scikit-learn at the top
    for absent in ("cv2", "sklearn"):
        if importlib.util.find_spec(absent) is None:
            monkeypatch.setitem(sys.modules, absent, MagicMock())
            monkeypatch.setitem(sys.modules, f"{absent}.metrics", MagicMock())
    metrics = importlib.import_module("detection_limits.metrics")
    x, y = noisy_lines()
    signal = y > 0.5
    theirs = metrics.calculate_all_snr_with_mask(x.numpy(), signal.numpy().astype(np.uint8), noise=1.0)[8]
    ours = cnr(x, signal=signal, background=~signal, kind="background", backend=backend)
    assert ours.item() == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_agrees_with_numpy_in_float64(backend: str, dtype: torch.dtype, kind: str) -> None:
    x, y = noisy_lines()
    scale = 1.0 if dtype.is_floating_point else torch.iinfo(dtype).max
    x = (x * scale).to(dtype)
    signal, background = (y > 0.6), (y < 0.4)
    expected = by_numpy(x.double().numpy(), signal.numpy(), background.numpy(), kind)
    value = cnr(x, signal=signal, background=background, kind=kind, backend=backend)
    assert value.item() == pytest.approx(expected, rel=tolerances.PEER_FLOAT64)


def test_a_16_bit_pedestal_costs_no_digit(backend: str) -> None:
    rng = np.random.default_rng(0)
    low = rng.normal(0, 20, (128, 128)).round()
    low[:, :64] += 50
    signal, background = halves(128, 128)
    expected = by_numpy(low, signal.numpy(), background.numpy(), "two_roi")
    image = torch.from_numpy((40_000 + low).astype(np.uint16))
    for x in (image, image.float(), image.double()):
        value = cnr(x, signal=signal, background=background, backend=backend)
        assert value.item() == pytest.approx(expected, rel=1e-13)
    far = torch.from_numpy(low) + 2.0**20
    assert cnr(far, signal=signal, background=background, backend=backend).item() == pytest.approx(expected, rel=1e-9)


def test_a_batch_is_its_images_and_channels_are_averaged(backend: str) -> None:
    signal, background = halves(96, 96)
    images = torch.stack([torch.stack([noisy_lines(seed=2 * n + c)[0] for c in range(2)]) for n in range(3)])
    rows = cnr(images, signal=signal, background=background, backend=backend)
    assert rows.shape == (3,)
    for n in range(3):
        single = [cnr(images[n, c], signal=signal, background=background, backend=backend).item() for c in range(2)]
        assert rows[n].item() == pytest.approx(sum(single) / 2, rel=1e-14)
    options = {"signal": signal, "background": background, "backend": backend}
    assert cnr(images, reduction="mean", **options).item() == pytest.approx(rows.mean().item())
    assert cnr(images, reduction="sum", **options).item() == pytest.approx(rows.sum().item())


@on_every_backend
def test_memory_layout_and_mask_layout_do_not_change_the_result() -> None:
    x, y = noisy_lines()
    signal, background = y > 0.6, y < 0.4
    straight = cnr(x, signal=signal, background=background)
    turned = cnr(x.T.contiguous().T, signal=signal[None], background=background[None, None])
    assert straight.item() == turned.item()


@on_every_backend
class TestNoise:
    """The ways to say `noise=` for kind="fixed_noise"."""

    def value(self, noise: object, x: torch.Tensor | None = None) -> float:
        signal, background = halves()
        x = hand_computed() if x is None else x
        return cnr(x, signal=signal, background=background, kind="fixed_noise", noise=noise).item()  # type: ignore[arg-type]

    def test_a_number_and_a_tensor_of_one_number_are_sigma(self) -> None:
        assert self.value(3) == self.value(3.0) == self.value(torch.tensor(3.0)) == 2.0

    def test_one_sigma_an_image(self) -> None:
        x = hand_computed().expand(3, 1, 4, 4)
        signal, background = halves()
        noise = torch.tensor([1.0, 2.0, 3.0])
        rows = cnr(x, signal=signal, background=background, kind="fixed_noise", noise=noise)
        assert rows.tolist() == [6.0, 3.0, 2.0]

    def test_a_noisy_image_gives_its_pooled_sigma_in_the_regions(self) -> None:
        candidate = torch.tensor([[8.0, 8.0, 2.0, 2.0]] * 4)  # denoised: its own CNR is infinite
        assert self.value(hand_computed(), candidate) == pytest.approx(6 / math.sqrt(2.5))

    def test_a_map_of_sigma_is_pooled_as_variances(self) -> None:
        sigma = torch.tensor([[1.0, 3.0, 2.0, 4.0]] * 4)
        assert self.value(Sigma(sigma)) == pytest.approx(6 / math.sqrt((5 + 10) / 2))
        assert self.value(Sigma(sigma.numpy())) == self.value(Sigma(sigma))

    def test_a_map_and_an_image_of_the_same_numbers_are_not_confused(self) -> None:
        numbers = torch.tensor([[1.0, 3.0, 2.0, 4.0]] * 4)
        assert self.value(numbers) == pytest.approx(6 / math.sqrt((1 + 1) / 2))
        assert self.value(numbers) != pytest.approx(self.value(Sigma(numbers)))

    def test_without_noise_it_is_undefined_and_says_so(self) -> None:
        signal, background = halves()
        result = cnr(hand_computed(), signal=signal, background=background, kind="fixed_noise", details=True)
        assert math.isnan(result.value.item())
        assert result.flags == ("undefined: kind='fixed_noise' without noise=",)

    def test_sigma_is_never_taken_from_the_reference(self) -> None:
        signal, background = halves()
        x, y = hand_computed(), hand_computed() * 2
        result = cnr(x, y, signal=signal, background=background, kind="fixed_noise", details=True)
        assert math.isnan(result.value.item())
        assert result.components["contrast_retention"].item() == 0.5

    @pytest.mark.parametrize(
        ("noise", "error", "says"),
        [
            (-1.0, ValueError, "σ = -1.0"),
            (math.nan, ValueError, "finite"),
            (True, TypeError, "bool"),
            ("auto", TypeError, "str"),
            (torch.ones(4, 3), ValueError, r"\(4, 3\)"),
            (torch.ones(4, 4, dtype=torch.float64), TypeError, "float64"),
            (Sigma(torch.ones(3, 3)), ValueError, r"Sigma\(map\)"),
            (Sigma(-torch.ones(4, 4)), ValueError, "negative"),
            (torch.tensor(-1.0), ValueError, "negative"),
        ],
    )
    def test_anything_else_is_refused(self, noise: object, error: type[Exception], says: str) -> None:
        with pytest.raises(error, match=says):
            self.value(noise)

    def test_noise_for_a_kind_that_does_not_read_it_is_refused(self) -> None:
        signal, background = halves()
        with pytest.raises(ValueError, match="kind='two_roi' does not read it"):
            cnr(hand_computed(), signal=signal, background=background, noise=1.0)


@on_every_backend
def test_over_smoothing_raises_the_ratio_over_its_own_sigma_but_not_the_fixed_noise_one() -> None:
    x, y = noisy_lines(sigma=0.15)
    smooth = torch.from_numpy(importlib.import_module("scipy.ndimage").gaussian_filter(x.numpy(), 3.0))
    own = [cnr(v, y).item() for v in (x, smooth)]
    fixed = [cnr(v, y, kind="fixed_noise", noise=x, details=True) for v in (x, smooth)]
    assert own[1] > 1.5 * own[0]
    assert fixed[1].value < 0.9 * fixed[0].value
    assert fixed[1].components["contrast_retention"] < 0.9


@on_every_backend
class TestNothingToMeasure:
    """No number is made up: inf or NaN, with a flag."""

    @pytest.mark.parametrize("level", [0.1, 1 / 3, 40_000.7])
    @pytest.mark.parametrize("kind", KINDS)
    def test_zero_noise_is_infinite_at_any_level(self, level: float, kind: str) -> None:
        signal, background = halves(31, 30)
        # float64 levels, whose sums round: a plain mean would leave a variance of 1e-33 and a ratio of 1e16
        x = torch.full((31, 30), level, dtype=torch.float64)
        x[signal] += 0.3
        result = cnr(x, signal=signal, background=background, kind=kind, details=True)
        assert result.value.item() == math.inf
        assert result.flags == ("infinite: no noise",)

    def test_zero_background_noise_keeps_the_sign(self) -> None:
        background, signal = halves()
        x = torch.where(background, 1.0, 0.5)
        assert cnr(x, signal=signal, background=background, kind="background").item() == -math.inf

    def test_neither_contrast_nor_noise_is_undefined(self) -> None:
        signal, background = halves()
        result = cnr(torch.full((4, 4), 0.3), signal=signal, background=background, details=True)
        assert math.isnan(result.value.item())
        assert result.flags == ("undefined: neither contrast nor noise",)

    def test_an_empty_region_is_undefined_and_named_by_image(self) -> None:
        signal, background = (m.expand(3, 1, 4, 4).clone() for m in halves())
        signal[1] = False
        result = cnr(hand_computed().expand(3, 1, 4, 4), signal=signal, background=background, details=True)
        assert torch.isnan(result.value).tolist() == [False, True, False]
        assert result.flags == ("undefined: one population (image 1)",)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    def test_a_flat_image_has_no_second_population(self, dtype: torch.dtype) -> None:
        result = cnr(torch.full((64, 64), 7, dtype=dtype), details=True)
        assert math.isnan(result.value.item())
        assert result.flags == ("undefined: one population",)

    def test_a_reference_without_contrast_has_no_retention(self) -> None:
        signal, background = halves()
        y = torch.ones(4, 4)
        result = cnr(hand_computed(), y, signal=signal, background=background, details=True)
        assert math.isnan(result.components["contrast_retention"].item())
        assert "contrast_retention undefined: the reference has no contrast" in result.flags
        assert math.isfinite(result.value.item())


@on_every_backend
class TestOtsuMasks:
    def test_the_threshold_is_that_of_scikit_image(self) -> None:
        from skimage.filters import threshold_otsu

        for seed in range(4):
            x, _ = noisy_lines(seed=seed)
            masks = otsu_masks(x, smoothing=0, guard=0, min_separation=0)
            expected = threshold_otsu(x.numpy(), nbins=256)
            assert masks.threshold.item() == pytest.approx(expected, abs=1e-12)
            assert torch.equal(masks.signal, x > expected)
            assert torch.equal(masks.background, x <= expected)

    def test_smoothing_is_a_renormalised_gaussian(self) -> None:
        from scipy.ndimage import gaussian_filter

        from semnr_kernels.cnr.masks import _step, gaussian_taps

        x, _ = noisy_lines()
        valid = torch.ones_like(x, dtype=torch.bool)
        valid[20:30, 40:70] = False
        w = valid.double().numpy()
        expected = gaussian_filter(x.numpy() * w, 1.7, mode="constant") / gaussian_filter(w, 1.7, mode="constant")
        smooth = _step("otsu_smooth", x[None, None])
        found = smooth(x[None, None], valid[None, None], gaussian_taps(1.7))
        ours = found.values[0, 0] + found.pivot
        torch.testing.assert_close(ours[valid], torch.from_numpy(expected)[valid], rtol=0, atol=1e-12)
        inside = found.values[0, 0][valid]
        assert (found.low.item(), found.high.item()) == (inside.min().item(), inside.max().item())

    def test_the_guard_band_keeps_its_distance(self) -> None:
        x = torch.zeros(64, 64)
        x[:, 32:] = 1
        masks = otsu_masks(x, smoothing=0, guard=3)
        assert torch.nonzero(masks.background.any(0)).flatten().tolist() == list(range(29))
        assert torch.nonzero(masks.signal.any(0)).flatten().tolist() == list(range(35, 64))
        assert math.isinf(masks.separation.item())
        assert masks.flags == ("",)

    @pytest.mark.parametrize("name", ["white noise", "correlated noise", "ramp", "vignette", "flat"])
    def test_one_population_is_not_split(self, name: str) -> None:
        from scipy.ndimage import gaussian_filter

        rng = np.random.default_rng(3)
        rows, columns = np.mgrid[:128, :128] / 128
        image = {
            "white noise": rng.standard_normal((128, 128)),
            "correlated noise": gaussian_filter(rng.standard_normal((128, 128)), 3),
            "ramp": columns,
            "vignette": -((rows - 0.5) ** 2) - (columns - 0.5) ** 2,
            "flat": np.full((128, 128), 0.3),
        }[name]
        masks = otsu_masks(torch.from_numpy(image))
        assert masks.flags == ("undefined: one population",)
        assert not masks.signal.any()
        assert not masks.background.any()

    @pytest.mark.parametrize("side", [8, 16, 48])
    def test_a_small_second_population_is_found(self, side: int) -> None:
        rng = np.random.default_rng(0)
        x = 0.02 * rng.standard_normal((128, 128))
        x[40 : 40 + side, 50 : 50 + side] += 1
        masks = otsu_masks(torch.from_numpy(x))
        assert masks.flags == ("",)
        inside = torch.zeros(128, 128, dtype=torch.bool)
        inside[40 : 40 + side, 50 : 50 + side] = True
        assert masks.signal.any()
        assert not (masks.signal & ~inside).any()
        assert not (masks.background & inside).any()

    def test_a_feature_narrower_than_the_guard_bands_keeps_no_pixel(self) -> None:
        x = torch.zeros(64, 64)
        x[:, 30:34] = 1
        assert otsu_masks(x, smoothing=0, guard=2).flags == ("undefined: one population",)
        assert otsu_masks(x, smoothing=0, guard=1).flags == ("",)

    def test_a_pedestal_and_a_scale_do_not_move_the_regions(self) -> None:
        x, _ = noisy_lines()
        at_home, away = otsu_masks(x), otsu_masks(x * 400 + 40_000)
        assert torch.equal(at_home.signal, away.signal)
        assert away.threshold.item() == pytest.approx(at_home.threshold.item() * 400 + 40_000, abs=1e-6)

    def test_invalid_pixels_enter_nothing(self) -> None:
        x, _ = noisy_lines()
        valid = torch.ones_like(x, dtype=torch.bool)
        valid[:24] = False
        poisoned = torch.where(valid, x, 1e6)
        masks = otsu_masks(poisoned, mask=valid)
        cropped = otsu_masks(x[24:])
        assert torch.equal(masks.signal[24:], cropped.signal)
        assert not masks.signal[:24].any()
        assert masks.threshold.item() == pytest.approx(cropped.threshold.item(), abs=1e-12)

    def test_each_image_of_a_batch_has_its_own(self) -> None:
        x = torch.stack([noisy_lines(seed=0)[0], torch.zeros(96, 96, dtype=torch.float64), noisy_lines(seed=2)[0] * 3])
        masks = otsu_masks(x[:, None])
        assert masks.signal.shape == (3, 1, 96, 96)
        assert masks.flags == ("", "undefined: one population", "")
        assert torch.equal(masks.signal[2, 0], otsu_masks(x[2]).signal)

    def test_they_are_built_on_the_reference_and_reused_for_each_candidate(self) -> None:
        x, y = noisy_lines()
        masks = otsu_masks(y)
        for candidate in (x, 1 - x, torch.zeros_like(x) + y.mean() + 0.01 * x):
            built = cnr(candidate, y, details=True)
            given = cnr(candidate, signal=masks.signal, background=masks.background)
            assert built.value.item() == given.item()
            assert torch.equal(built.components["signal"][0, 0], masks.signal)
            assert built.settings["masks"] == "otsu(y)"
        assert cnr(x, details=True).settings["masks"] == "otsu(x)"

    def test_pixels_that_the_candidate_lost_do_not_move_them(self) -> None:
        x, y = noisy_lines()
        lost = x.clone()
        lost[:40] = math.nan
        whole, part = cnr(x, y, details=True), cnr(lost, y, nan="omit", details=True)
        assert part.components["threshold"].item() == whole.components["threshold"].item()
        assert torch.equal(part.components["signal"][0, 0, 40:], whole.components["signal"][0, 0, 40:])
        assert not part.components["signal"][0, 0, :40].any()

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"smoothing": -1.0}, "smoothing"),
            ({"smoothing": math.inf}, "smoothing"),
            ({"guard": -1}, "guard"),
            ({"guard": 1.5}, "guard"),
            ({"bins": 1}, "bins"),
            ({"min_separation": -1.0}, "min_separation"),
            ({"nan": "skip"}, "nan"),
        ],
    )
    def test_bad_options_are_named(self, options: dict[str, object], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            otsu_masks(torch.rand(16, 16), **options)  # type: ignore[arg-type]


def test_real_sem_images_split_where_two_populations_are_seen() -> None:
    for _, noisy, clean, _ in cases.real_pairs():
        result = cnr(torch.tensor(noisy), torch.tensor(clean), details=True)
        assert result.flags == ()
        assert 1 < result.value.item() < 20
        assert 0.8 < result.components["contrast_retention"].item() < 1.2


@on_every_backend
class TestBadPixels:
    def test_a_nan_is_refused_and_the_image_named(self) -> None:
        x, y = noisy_lines()
        bad = y.clone()
        bad[3, 4] = math.nan
        signal, background = halves(96, 96)
        with pytest.raises(ValueError, match="x has 1 non-finite"):
            cnr(bad, signal=signal, background=background)
        with pytest.raises(ValueError, match="y has 1 non-finite"):
            cnr(x, bad)
        with pytest.raises(ValueError, match="x has 1 non-finite"):
            cnr(bad)
        with pytest.raises(ValueError, match="noise has 1 non-finite"):
            cnr(x, y, kind="fixed_noise", noise=bad, signal=signal, background=background)

    def test_propagate_gives_nan_for_that_image_alone(self) -> None:
        x, y = (torch.stack([v, v])[:, None] for v in noisy_lines())
        x[1, 0] = math.nan
        assert torch.isnan(cnr(x, y, nan="propagate")).tolist() == [False, True]
        y[1, 0, 5, 5] = math.inf
        result = cnr(y, y, nan="propagate", details=True)
        assert torch.isnan(result.value).tolist() == [False, True]
        assert "undefined: non-finite pixels where the masks are built (image 1)" in result.flags

    def test_omit_is_exact(self) -> None:
        x, y = noisy_lines()
        signal, background = y > 0.6, y < 0.4
        hurt = x.clone()
        hurt[10:20] = math.nan
        keep = torch.ones_like(signal)
        keep[10:20] = False
        value = cnr(hurt, signal=signal, background=background, nan="omit")
        masked = cnr(x, signal=signal, background=background, mask=keep)
        expected = by_numpy(x.numpy(), (signal & keep).numpy(), (background & keep).numpy(), "two_roi")
        assert value.item() == masked.item() == pytest.approx(expected, rel=1e-12)
        noisy = cnr(y, signal=signal, background=background, kind="fixed_noise", noise=hurt, nan="omit")
        assert math.isfinite(noisy.item())
        built, expected = otsu_masks(hurt, nan="omit"), otsu_masks(x, mask=keep)
        assert torch.equal(built.signal, expected.signal)
        assert built.flags == ("",)

    def test_regions_must_come_together_and_be_disjoint(self) -> None:
        signal, background = halves()
        with pytest.raises(ValueError, match="background is missing"):
            cnr(hand_computed(), signal=signal)
        with pytest.raises(ValueError, match="signal is missing"):
            cnr(hand_computed(), background=background)
        with pytest.raises(ValueError, match="share 8 pixels"):
            cnr(hand_computed(), signal=signal, background=signal)
        with pytest.raises(ValueError, match="signal has shape"):
            cnr(hand_computed(), signal=signal[:3], background=background)
        with pytest.raises(TypeError, match="signal has dtype float32"):
            cnr(hand_computed(), signal=signal.float(), background=background)

    @pytest.mark.parametrize("kind", ["gncr", "cnr", None])
    def test_an_unknown_kind_lists_the_known_ones(self, kind: str) -> None:
        with pytest.raises(ValueError, match="'two_roi', 'sum_var', 'background', 'fixed_noise', 'gcnr', 'rose'"):
            cnr(hand_computed(), kind=kind)
        with pytest.raises(ValueError, match="'two_roi', 'sum_var', 'background', 'fixed_noise'"):
            cnr_map(hand_computed(), kind=kind, window=2)

    def test_other_arguments_are_checked_as_everywhere(self) -> None:
        with pytest.raises(TypeError, match="x is list"):
            cnr([1, 2])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="reduction is 'median'"):
            cnr(hand_computed(), reduction="median")
        with pytest.raises(ValueError, match="data_range is -1"):
            cnr(hand_computed(), data_range=-1.0)
        with pytest.raises(ValueError, match="the same shape"):
            cnr(hand_computed(), torch.ones(3, 3))
        with pytest.raises(TypeError, match="complex64"):
            cnr(torch.ones(4, 4, dtype=torch.complex64))


def test_the_result_says_how_it_was_made() -> None:
    x, y = noisy_lines()
    result = cnr(x, y, details=True, data_range=1.0)
    assert result.data_range == 1.0
    assert result.settings["kind"] == "two_roi"
    assert result.settings["guard"] == 2
    assert 0.3 < result.coverage.item() < 1
    c = result.components
    assert abs(c["contrast"] / c["sigma"]).item() == pytest.approx(result.value.item())
    assert (c["signal_mean"] - c["background_mean"]).item() == pytest.approx(c["contrast"].item())
    assert c["signal_pixels"].item() == c["signal"].sum().item()
    assert math.isnan(cnr(x, y, details=True).data_range)
    assert cnr((x * 255).to(torch.uint8), details=True).data_range == 255


@on_every_backend
class TestMap:
    @pytest.mark.parametrize("kind", ops.KINDS)
    @pytest.mark.parametrize(("window", "stride"), [(16, 8), (13, 5), ((24, 10), (7, 11)), (20, 33)])
    def test_it_is_a_loop_over_windows(self, kind: str, window: object, stride: object) -> None:
        x, y = noisy_lines(size=64)
        noisy = noisy_lines(seed=9, size=64)[0]
        signal, background = (y > 0.6), (y < 0.4)
        signal[:30, :30] = False  # some windows lack a population
        noise = noisy if kind == "fixed_noise" else None
        ours = cnr_map(
            x,
            signal=signal,
            background=background,
            kind=kind,
            noise=noise,
            window=window,
            stride=stride,  # type: ignore[arg-type]
        )
        (h, w), (down, right) = ((v, v) if isinstance(v, int) else v for v in (window, stride))  # type: ignore[misc]
        rows, columns = (64 - h) // down + 1, (64 - w) // right + 1
        expected = np.empty((rows, columns))
        for r in range(rows):
            for c in range(columns):
                at = np.s_[r * down : r * down + h, c * right : c * right + w]
                s, b = signal.numpy()[at], background.numpy()[at]
                sigma = math.nan
                if kind == "fixed_noise" and s.any() and b.any():
                    sigma = math.sqrt((noisy.numpy()[at][s].var() + noisy.numpy()[at][b].var()) / 2)
                expected[r, c] = by_numpy(x.numpy()[at], s, b, kind, sigma)
        assert ours.shape == (rows, columns)
        assert np.isnan(expected).any()
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-11)

    def test_one_window_of_the_whole_image_is_the_image(self) -> None:
        x, y = noisy_lines()
        noise = Sigma(torch.rand(96, 96) + 1)
        for kind, options in (("two_roi", {}), ("fixed_noise", {"noise": noise}), ("fixed_noise", {"noise": 0.3})):
            whole = cnr(x, y, kind=kind, details=True, **options)  # type: ignore[arg-type]
            one = cnr_map(x, y, window=96, stride=5, kind=kind, details=True, **options)  # type: ignore[arg-type]
            assert one.value.shape == (1, 1)
            assert one.value.item() == pytest.approx(whole.value.item(), rel=1e-12)
            retention = whole.components["contrast_retention"].item()
            assert one.components["contrast_retention"].item() == pytest.approx(retention, rel=1e-12)

    def test_contrast_retention_finds_the_window_that_lost_its_feature(self) -> None:
        y = torch.zeros(128, 128, dtype=torch.float64)
        for top in range(8, 128, 32):
            for left in range(8, 128, 32):
                y[top : top + 12, left : left + 12] = 1.0
        x = y.clone()
        x[64:96, 32:64] = 0.1 * y[64:96, 32:64]
        rng = torch.Generator().manual_seed(0)
        noisy = y + 0.1 * torch.randn(y.shape, generator=rng, dtype=torch.float64)
        result = cnr_map(x, y, window=32, stride=32, kind="fixed_noise", noise=noisy, details=True)
        kept = result.components["contrast_retention"]
        assert kept.shape == (4, 4)
        assert kept[2, 1].item() == pytest.approx(0.1)
        assert torch.isclose(kept, torch.ones_like(kept)).sum() == 15
        worst = result.components["worst"][0]
        assert (worst.image, worst.top, worst.left, worst.bottom, worst.right) == (0, 64, 32, 96, 64)
        assert worst.value == result.value[2, 1].item()
        lowest = worst_windows(kept, window=32, stride=32, count=1)
        assert (lowest[0].row, lowest[0].column) == (2, 1)

    def test_an_inverted_feature_is_the_worst_retention(self) -> None:
        kept = torch.tensor([[0.9, -0.9, math.nan], [math.inf, 0.1, 0.5]])
        listed = worst_windows(kept, window=4, stride=2, count=10)
        assert [round(w.value, 3) for w in listed] == [-0.9, 0.1, 0.5, 0.9]
        assert (listed[0].top, listed[0].left, listed[1].top, listed[1].left) == (0, 2, 2, 2)
        oblong = worst_windows(kept[None], window=(4, 6), stride=(3, 5), count=2)[1]
        assert (oblong.top, oblong.left, oblong.bottom, oblong.right) == (3, 5, 7, 11)

    def test_windows_without_a_population_are_undefined_and_counted(self) -> None:
        signal, background = halves(64, 64)
        x, _ = noisy_lines(size=64)
        result = cnr_map(x, signal=signal, background=background, window=16, stride=16, details=True)
        assert torch.isnan(result.value).all()
        assert result.flags == ("undefined in 16 of 16 windows: fewer than 1 pixels of a region",)
        assert result.components["worst"] == ()

    def test_windows_with_too_few_pixels_can_be_left_out(self) -> None:
        signal, background = halves(64, 64)
        x, _ = noisy_lines(size=64)
        # columns 27 to 42: five columns of signal, 80 pixels
        options = {"signal": signal, "background": background, "window": 16, "stride": 27}
        assert torch.isfinite(cnr_map(x, **options)[:, 1]).all()  # type: ignore[arg-type]
        assert torch.isfinite(cnr_map(x, min_pixels=80, **options)[:, 1]).all()  # type: ignore[arg-type]
        assert torch.isnan(cnr_map(x, min_pixels=81, **options)).all()  # type: ignore[arg-type]

    def test_a_batch_of_maps_and_the_uncovered_remainder(self) -> None:
        x, y = (v.expand(2, 1, 96, 96) for v in noisy_lines())
        result = cnr_map(x, y, window=64, stride=20, details=True, worst=3)
        assert result.value.shape == (2, 2, 2)
        assert result.value.dtype == torch.float64
        assert torch.equal(result.value[0], result.value[1])
        assert "the last 12 rows and 12 columns lie in no window" in result.flags
        assert len(result.components["worst"]) == 3

    def test_a_16_bit_pedestal_costs_no_digit(self) -> None:
        x, y = noisy_lines()
        low = (x * 200).round()
        signal, background = y > 0.6, y < 0.4
        options = {"signal": signal, "background": background, "window": 32, "stride": 16}
        raised = (low + 40_000).to(torch.uint16)
        torch.testing.assert_close(cnr_map(raised, **options), cnr_map(low, **options), rtol=1e-13, atol=0)  # type: ignore[arg-type]

    def test_noise_free_windows_are_infinite_and_flagged(self) -> None:
        signal, background = halves(32, 32)
        x = torch.where(signal, 0.9, 0.1)
        result = cnr_map(x, signal=signal, background=background, window=32, stride=1, details=True)
        assert result.value.item() == math.inf
        assert result.flags == ("infinite: no noise",)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"window": 97}, "window is 97×97 and the image 96×96"),
            ({"window": (4, 97)}, "window is 4×97"),
            ({"window": 0}, "window is 0"),
            ({"stride": 0}, "stride is 0"),
            ({"window": 8.0}, "window is 8.0"),
            ({"min_pixels": 0}, "min_pixels is 0"),
            ({"worst": 0}, "worst is 0"),
        ],
    )
    def test_bad_options_are_named(self, options: dict[str, object], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            cnr_map(noisy_lines()[0], **options)  # type: ignore[arg-type]


class TestGradients:
    @pytest.mark.parametrize("kind", ops.KINDS)
    def test_gradcheck_with_fixed_regions(self, kind: str) -> None:
        x = noisy_lines(size=8)[0].requires_grad_()
        signal, background = halves(8, 8)
        noise = 0.3 if kind == "fixed_noise" else None

        def value(v: torch.Tensor) -> torch.Tensor:
            return cnr(v, signal=signal, background=background, kind=kind, noise=noise)  # type: ignore[return-value]

        assert torch.autograd.gradcheck(value, (x,))

        def windows(v: torch.Tensor) -> torch.Tensor:
            return cnr_map(v, signal=signal, background=background, kind=kind, noise=noise, window=6, stride=2)  # type: ignore[return-value]

        assert torch.autograd.gradcheck(windows, (x,))

    def test_masked_nans_have_no_gradient(self) -> None:
        x = noisy_lines(size=16)[0]
        x[0, 0] = math.nan
        x.requires_grad_()
        signal, background = halves(16, 16)
        cnr(x, signal=signal, background=background, nan="omit").backward()
        assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]
        assert x.grad[0, 0] == 0  # type: ignore[index]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_images_without_a_number_do_not_spoil_the_gradient_of_the_others(self, dtype: torch.dtype) -> None:
        good = noisy_lines(size=16)[0]
        signal, background = halves(16, 16)
        flat, two_level = torch.full_like(good, 0.5), torch.where(signal, 0.9, 0.1).double()
        x = torch.stack([good, flat, two_level])[:, None].to(dtype).requires_grad_()
        rows = cnr(x, signal=signal, background=background)
        assert torch.isfinite(rows).tolist() == [True, False, False]
        torch.nan_to_num(rows, posinf=0.0).sum().backward()
        assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]
        assert x.grad.dtype == dtype  # type: ignore[union-attr]
        assert (x.grad[0] != 0).any()  # type: ignore[index]
        assert (x.grad[1:] == 0).all()  # type: ignore[index]
