"""pytorch-msssim's own behaviours, called once there and once on semnr.compat.pytorch_msssim."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import against
from semnr.compat import pytorch_msssim as ours

theirs = against.installed("pytorch_msssim", "1.0")


def pair(*shape: int, scale: float = 255.0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.rand(shape, generator=generator) * scale
    return x.to(dtype), (x + 0.1 * scale * torch.randn(shape, generator=generator)).to(dtype)


@pytest.mark.parametrize(
    "shape", [(2, 3, 64, 64), (1, 1, 40, 57), (2, 2, 16, 20, 24), (1, 1, 1, 32, 32), (2, 1, 5, 32, 32)]
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size_average": False, "K": (0.02, 0.4)},
        {"win_size": 7, "win_sigma": 0.9, "nonnegative_ssim": True, "data_range": 300},
    ],
)
def test_ssim_of_images_and_volumes(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    against.same(theirs.ssim, ours.ssim, *pair(*shape), atol=1e-5, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    x, y = pair(2, 1, 176, 171, dtype=dtype)
    for name in ("ssim", "ms_ssim"):
        against.same(getattr(theirs, name), getattr(ours, name), x, y, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 161, 175), (1, 1, 20, 166, 161)])
@pytest.mark.parametrize(
    "options", [{}, {"size_average": False, "weights": [0.2, 0.3, 0.5]}, {"win_size": 5, "win_sigma": 1.0}]
)
def test_ms_ssim(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    against.same(theirs.ms_ssim, ours.ms_ssim, *pair(*shape), atol=2e-5, **options)


def test_a_window_of_the_callers() -> None:
    x, y = pair(2, 3, 48, 40)
    window = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1]).repeat(3, 1, 1, 1)
    against.same(theirs.ssim, ours.ssim, x, y, win=window, atol=1e-5)
    against.same(theirs.ssim, ours.ssim, x, y, win=window[..., :4])


@pytest.mark.parametrize(
    ("x", "y", "options"),
    [
        (torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 31), {}),
        (torch.rand(1, 32, 32), torch.rand(1, 32, 32), {}),
        (torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32), {"win_size": 10}),
        (torch.rand(1, 1, 32, 32).double(), torch.rand(1, 1, 32, 32), {}),
    ],
)
def test_bad_input_raises_what_the_peer_raises(x: Any, y: Any, options: dict[str, Any]) -> None:
    for name in ("ssim", "ms_ssim"):
        error = against.same(getattr(theirs, name), getattr(ours, name), x, y, **options)
        assert isinstance(error, Exception)


def test_integers_are_refused_where_the_peer_rounds_its_window_to_nothing() -> None:
    x = torch.ones(1, 1, 32, 32, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="accepted: one floating dtype"):
        ours.ssim(x, x)


def test_small_images_have_no_five_scales() -> None:
    error = against.same(theirs.ms_ssim, ours.ms_ssim, *pair(1, 1, 160, 200))
    assert isinstance(error, AssertionError)


@pytest.mark.parametrize("name", ["SSIM", "MS_SSIM"])
@pytest.mark.parametrize("spatial", [2, 3])
def test_modules_and_their_gradients(name: str, spatial: int) -> None:
    x, y = pair(1, 2, *((18,) if spatial == 3 else ()), 165, 162, scale=1.0, dtype=torch.float64)
    options = {"data_range": 1.0, "channel": 2, "spatial_dims": spatial}
    peer, own = getattr(theirs, name)(**options), getattr(ours, name)(**options)
    against.same(peer, own, x, y, atol=1e-5)
    if spatial == 2:
        against.same_gradients(peer, own, x, y)
    against.same(peer, own, x[:, :1], y[:, :1])  # not the channels that it was made for


def test_a_side_shorter_than_the_window_is_not_filtered_and_says_so() -> None:
    x, y = pair(1, 1, 8, 40)
    with pytest.warns(UserWarning, match="axis 2 of shape"):
        ours.ssim(x, y)
