"""Bad input: a clear error that names the argument, what it was, and what is accepted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import semnr

IMAGE = np.zeros((64, 64), dtype=np.float32)
METRICS = [semnr.psnr, semnr.ssim, semnr.fsim]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)
class TestEveryMetric:
    @pytest.mark.parametrize("shape", [(32,), (1, 1, 1, 64, 64)])
    def test_a_wrong_rank_is_named(self, metric, shape) -> None:
        bad = np.zeros(shape, dtype=np.float32)
        with pytest.raises(ValueError, match=r"x has shape .*accepted: \(H, W\), \(C, H, W\) or \(N, C, H, W\)"):
            metric(bad, bad, data_range=1.0)

    def test_mismatched_shapes_are_both_named(self, metric) -> None:
        with pytest.raises(ValueError, match=r"x has shape \(64, 64\) and y \(64, 63\); accepted: the same shape"):
            metric(IMAGE, IMAGE[:, :63], data_range=1.0)

    def test_mismatched_dtypes_are_both_named(self, metric) -> None:
        with pytest.raises(TypeError, match=r"x has dtype float32 and y float64"):
            metric(IMAGE, IMAGE.astype(np.float64), data_range=1.0)

    def test_an_empty_batch_is_refused(self, metric) -> None:
        empty = np.zeros((0, 1, 64, 64), dtype=np.float32)
        with pytest.raises(ValueError, match="x is empty"):
            metric(empty, empty, data_range=1.0)

    @pytest.mark.parametrize("dtype", [np.complex64, np.bool_, np.int32])
    def test_a_dtype_that_holds_no_image_is_refused(self, metric, dtype) -> None:
        bad = np.zeros((64, 64), dtype=dtype)
        with pytest.raises(TypeError, match=r"x has dtype .*accepted: uint8, uint16"):
            metric(bad, bad, data_range=1.0)

    def test_something_that_is_no_array_is_refused(self, metric) -> None:
        with pytest.raises(TypeError, match=r"x is list; accepted"):
            metric([[0.0]], [[0.0]], data_range=1.0)

    def test_data_range_is_required_for_floats(self, metric) -> None:
        with pytest.raises(ValueError, match="data_range is missing; it is required for float32 images"):
            metric(IMAGE, IMAGE)

    @pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
    def test_data_range_must_be_positive_and_finite(self, metric, value) -> None:
        with pytest.raises(ValueError, match=r"data_range is .*accepted: a finite number above 0"):
            metric(IMAGE, IMAGE, data_range=value)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_non_finite_pixels_are_counted_by_image(self, metric, bad) -> None:
        y = IMAGE.copy()
        y[4, 5] = bad
        with pytest.raises(ValueError, match="y has 1 non-finite pixels"):
            metric(IMAGE, y, data_range=1.0)

    def test_tensor_and_array_do_not_mix(self, metric) -> None:
        with pytest.raises(TypeError, match="x is Tensor and y ndarray"):
            metric(torch.zeros(64, 64), IMAGE, data_range=1.0)

    def test_overshoot_is_kept_clipped_or_refused_as_asked(self, metric) -> None:
        rng = np.random.default_rng(0)
        y = rng.random((64, 64))
        x = y.copy()
        x[0, 0] = 1 + 1e-6
        assert np.isfinite(metric(x, y, data_range=1.0))
        with pytest.raises(ValueError, match=r"x has 1 values outside \[0, 1\]"):
            metric(x, y, data_range=1.0, overshoot="error")
        clipped = metric(x, y, data_range=1.0, overshoot="clip", details=True)
        assert clipped.clipped_fraction == pytest.approx(1 / (2 * 64 * 64))

    @pytest.mark.parametrize("name", ["nan", "overshoot", "reduction"])
    def test_an_unknown_choice_lists_the_accepted_ones(self, metric, name) -> None:
        with pytest.raises(ValueError, match=rf"{name} is 'maybe'; accepted: "):
            metric(IMAGE, IMAGE, data_range=1.0, **{name: "maybe"})


def test_numpy_in_gives_numpy_out_and_tensors_give_tensors() -> None:
    x = np.random.default_rng(0).random((2, 1, 40, 40))
    assert isinstance(semnr.ssim(x, x, data_range=1.0), np.floating)
    assert isinstance(semnr.ssim(x, x, data_range=1.0, reduction="none"), np.ndarray)
    assert isinstance(semnr.ssim(torch.from_numpy(x), torch.from_numpy(x), data_range=1.0), torch.Tensor)


def test_views_that_torch_cannot_hold_are_scored_all_the_same() -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    y = 255 - x
    plain = semnr.ssim(x, y)
    assert semnr.ssim(x[::-1], y[::-1]) == pytest.approx(plain, abs=1e-7)  # float32 sums in another order
    x.setflags(write=False)
    assert semnr.ssim(x, y) == plain


def test_integer_data_range_defaults_to_the_dtype_and_can_say_10_bits() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 1024, (2, 40, 40)).astype(np.uint16)
    ten_bits = semnr.psnr(x, y, data_range=1023)
    assert semnr.psnr(x, y) - ten_bits == pytest.approx(20 * np.log10(65535 / 1023), abs=1e-9)
    assert semnr.psnr(x, y, data_range=1023, details=True).data_range == 1023


def test_a_mask_of_the_wrong_shape_or_dtype_is_named() -> None:
    with pytest.raises(ValueError, match=r"mask has shape \(63, 64\); accepted: \(64, 64\)"):
        semnr.ssim(IMAGE, IMAGE, data_range=1.0, mask=np.ones((63, 64), dtype=bool))
    with pytest.raises(TypeError, match="mask has dtype float32; accepted: bool"):
        semnr.ssim(IMAGE, IMAGE, data_range=1.0, mask=IMAGE)


def test_help_shows_every_argument_by_name() -> None:
    import inspect

    names = set(inspect.signature(semnr.ssim).parameters)
    assert {"data_range", "window", "window_size", "sigma", "k1", "k2", "downsample", "convention", "mask"} <= names
    assert {"reduction", "return_map", "components", "nan", "overshoot", "precision", "backend"} <= names
