"""scikit-image's own behaviours, called once there and once on semnr.compat.skimage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import against
from semnr.compat import skimage as ours

against.installed("skimage", "0.2")
import skimage.metrics as theirs  # noqa: E402


def pair(*shape: int, dtype: Any = np.float64, scale: float = 255.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(sum(shape))
    x = random.random(shape) * scale
    y = np.clip(x + 0.1 * scale * random.standard_normal(shape), 0, scale)
    return x.astype(dtype), y.astype(dtype)


@pytest.mark.parametrize("shape", [(32, 40), (7, 7), (12, 13, 14), (60,)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_sample_covariance": False, "K1": 0.02, "K2": 0.1},
        {"full": True},
        {"gradient": True},
        {"full": True, "gradient": True, "win_size": 5},
        {"gaussian_weights": True, "sigma": 0.8},
        {"gaussian_weights": True, "sigma": 0.8, "use_sample_covariance": False, "full": True},
        {"gaussian_weights": True, "sigma": 1.0, "win_size": 5},
    ],
)
def test_structural_similarity(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    against.same(
        theirs.structural_similarity, ours.structural_similarity, *pair(*shape), data_range=255, atol=1e-9, **options
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float16, np.float32, np.float64, bool])
def test_every_dtype(dtype: Any) -> None:
    x, y = pair(20, 24, dtype=dtype, scale=1.0 if dtype is bool else 200.0)
    for data_range in (None, 255):
        against.same(theirs.structural_similarity, ours.structural_similarity, x, y, data_range=data_range, atol=2e-5)
    if dtype is not bool:  # whose differences NumPy refuses
        for name in ("mean_squared_error", "peak_signal_noise_ratio", "normalized_root_mse"):
            against.same(getattr(theirs, name), getattr(ours, name), x, y, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("options", [{}, {"full": True}, {"gradient": True, "full": True}])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels_on_any_axis(axis: int, options: dict[str, Any], dtype: Any) -> None:
    shape = [16, 17]
    shape.insert(axis % 3, 3)
    against.same(
        theirs.structural_similarity,
        ours.structural_similarity,
        *pair(*shape, dtype=dtype),
        channel_axis=axis,
        data_range=255,
        atol=1e-4,
        **options,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"win_size": 8},
        {"win_size": 41},
        {"K1": -0.1},
        {"K2": -0.1},
        {"sigma": -1.0},
        {"data_range": None},
    ],
)
def test_bad_options_raise_what_scikit_image_raises(options: dict[str, Any]) -> None:
    error = against.same(
        theirs.structural_similarity, ours.structural_similarity, *pair(32, 32), **{"data_range": 255, **options}
    )
    assert isinstance(error, ValueError)


def test_unlike_shapes_and_complex_images() -> None:
    x, y = pair(32, 32)
    for name in ("structural_similarity", "mean_squared_error", "peak_signal_noise_ratio", "normalized_root_mse"):
        assert isinstance(against.same(getattr(theirs, name), getattr(ours, name), x, y[:, :30]), ValueError)
    assert isinstance(
        against.same(theirs.structural_similarity, ours.structural_similarity, x + 0j, y + 0j, data_range=1), ValueError
    )


def test_nan_gives_nan_and_views_are_read_as_they_lie() -> None:
    x, y = pair(32, 32)
    x[3, 3] = np.nan
    against.same(theirs.structural_similarity, ours.structural_similarity, x, y, data_range=255)
    x, y = pair(64, 64)
    against.same(theirs.structural_similarity, ours.structural_similarity, x[::-1, ::2], y[::-1, ::2], data_range=255)


@pytest.mark.parametrize("rule", ["euclidean", "Euclidean", "min-max", "mean", "none"])
def test_normalized_root_mse(rule: str) -> None:
    against.same(theirs.normalized_root_mse, ours.normalized_root_mse, *pair(20, 20), normalization=rule)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 3)])
def test_psnr_takes_the_range_of_the_dtype(low: float, high: float) -> None:
    x, y = (v * (high - low) / 255 + low for v in pair(20, 20))
    against.same(theirs.peak_signal_noise_ratio, ours.peak_signal_noise_ratio, x, y)
    against.same(theirs.peak_signal_noise_ratio, ours.peak_signal_noise_ratio, x, y, data_range=high - low)
    against.same(theirs.peak_signal_noise_ratio, ours.peak_signal_noise_ratio, y, y, data_range=1)


def test_normalized_mutual_information() -> None:
    x, y = pair(20, 20)
    against.same(theirs.normalized_mutual_information, ours.normalized_mutual_information, x, y)
    against.same(theirs.normalized_mutual_information, ours.normalized_mutual_information, x, y[:10], bins=20)
    against.same(theirs.normalized_mutual_information, ours.normalized_mutual_information, x, y[0])


def test_warnings_are_those_of_scikit_image() -> None:
    x, y = pair(20, 20, dtype=np.uint16)
    with pytest.warns(UserWarning, match="data_range is 65535"):
        ours.structural_similarity(x, y)
    with pytest.warns(UserWarning, match="dtypes differ"):
        ours.structural_similarity(x.astype(np.uint8), y)
