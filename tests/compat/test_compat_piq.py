"""piq's own behaviours, called once on piq and once on semnr.compat.piq."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import against
from semnr.compat import piq as ours

theirs = against.installed("piq", "0.8.0")


def pair(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.rand(shape, generator=generator)
    y = (x + 0.2 * torch.rand(shape, generator=generator)).clamp(0, 1)
    return (x * scale).to(dtype), (y * scale).to(dtype)


@pytest.mark.parametrize("shape", [(3, 3, 64, 64), (2, 1, 48, 57), (1, 4, 400, 390), (1, 1, 11, 11)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"downsample": False},
        {"reduction": "none", "full": True},
        {"reduction": "sum", "k1": 0.02, "k2": 0.4},
        {"kernel_size": 7, "kernel_sigma": 0.8, "full": True},
    ],
)
def test_ssim(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    against.same(theirs.ssim, ours.ssim, *pair(*shape), **options)


@pytest.mark.parametrize("function", ["ssim", "multi_scale_ssim", "psnr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64])
@pytest.mark.parametrize("scale", [1, 255, 1.0])
def test_the_dtype_of_the_images_is_that_of_the_result(function: str, dtype: torch.dtype, scale: float) -> None:
    x, y = pair(2, 3, 176, 170, scale=scale, dtype=dtype)
    against.same(getattr(theirs, function), getattr(ours, function), x, y, data_range=scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype_and_is_no_nan(dtype: torch.dtype) -> None:
    x, y = pair(2, 1, 176, 176, dtype=dtype)
    for function in (ours.ssim, ours.multi_scale_ssim, ours.psnr):
        value = function(x, y)
        assert value.dtype == dtype
        assert value.isfinite()
        assert value.item() == pytest.approx(function(x.float(), y.float()).item(), rel=1e-2)


@pytest.mark.parametrize("shape", [(2, 3, 161, 161), (1, 1, 200, 185), (2, 1, 160, 300)])
@pytest.mark.parametrize("options", [{}, {"scale_weights": torch.tensor([1.0, 2.0, 3.0]), "reduction": "none"}])
def test_multi_scale_ssim(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    against.same(theirs.multi_scale_ssim, ours.multi_scale_ssim, *pair(*shape), **options)


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (1, 3, 96, 80), (1, 3, 400, 400)])
@pytest.mark.parametrize("options", [{}, {"chromatic": False}, {"reduction": "none", "scales": 3, "k": 1.0}])
def test_fsim_scores_small_images_too(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    against.same(theirs.fsim, ours.fsim, *pair(*shape), atol=1e-5, **options)


def test_fsim_of_grey_images() -> None:
    x, y = pair(2, 1, 40, 40)
    against.same(theirs.fsim, ours.fsim, x, y, chromatic=False, atol=1e-5)
    against.same(theirs.fsim, ours.fsim, x, y)  # chromatic needs three channels


@pytest.mark.parametrize("shape", [(3, 3, 32, 32), (2, 1, 16, 16), (2, 1, 16, 16, 2)])
@pytest.mark.parametrize("options", [{}, {"convert_to_greyscale": True, "reduction": "none"}, {"data_range": 2}])
def test_psnr(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    against.same(theirs.psnr, ours.psnr, *pair(*shape), **options)


@pytest.mark.parametrize("function", ["ssim", "multi_scale_ssim", "psnr"])
@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (x, y[:1]),
        lambda x, y: (x[0], y[0]),
        lambda x, y: (x * 2, y),
        lambda x, y: (x, y - 0.5),
        lambda x, y: (x.index_fill(3, torch.tensor([5]), torch.nan), y),
        lambda x, y: (x.index_fill(3, torch.tensor([5]), torch.inf), y),
        lambda x, y: (x.numpy(), y.numpy()),
        lambda x, y: (x.double(), y),
    ],
    ids=["shapes", "3-D", "above", "below", "nan", "inf", "arrays", "dtypes"],
)
def test_bad_images_raise_what_piq_raises(function: str, change: Any) -> None:
    x, y = change(*pair(2, 3, 170, 170))
    if function == "psnr" and x.dtype != y.dtype:
        return  # which piq takes
    against.same(getattr(theirs, function), getattr(ours, function), x, y)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        ("ssim", {"kernel_size": 10}),
        ("ssim", {"reduction": "average"}),
        ("ssim", {"kernel_size": 41}),
        ("multi_scale_ssim", {"kernel_size": 4}),
        ("multi_scale_ssim", {"reduction": "average"}),
        ("multi_scale_ssim", {"scale_weights": torch.rand(2, 2)}),
        ("multi_scale_ssim", {}),
        ("psnr", {"reduction": "average"}),
        ("fsim", {"reduction": "average"}),
    ],
)
def test_bad_options_raise_what_piq_raises(function: str, options: dict[str, Any]) -> None:
    against.same(getattr(theirs, function), getattr(ours, function), *pair(2, 3, 40, 40), **options)


LOSSES = {
    "SSIMLoss": ({}, {"downsample": False, "data_range": 1.0, "kernel_size": 7}),
    "MultiScaleSSIMLoss": ({}, {"scale_weights": torch.tensor([1.0, 1.0]), "reduction": "sum"}),
    "FSIMLoss": ({}, {"chromatic": False}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients_to_both_images(name: str) -> None:
    for options in LOSSES[name]:
        x, y = pair(2, 3, 166, 161)
        peer, own = getattr(theirs, name)(**options), getattr(ours, name)(**options)
        against.same(peer, own, x, y, atol=1e-5)
        assert {k: v.shape for k, v in peer.state_dict().items()} == {k: v.shape for k, v in own.state_dict().items()}
        against.same_gradients(peer, own, x.double(), y.double(), rtol=1e-3)


def test_losses_are_made_with_the_same_errors() -> None:
    for name in ("SSIMLoss", "MultiScaleSSIMLoss"):
        against.same(getattr(theirs, name), getattr(ours, name), kernel_size=4)


def test_identical_images_score_exactly_one() -> None:
    x, _ = pair(2, 3, 176, 176)
    for function in (ours.ssim, ours.multi_scale_ssim):
        assert function(x, x).item() == 1.0


def test_complex_images_are_a_stated_limit() -> None:
    with pytest.raises(NotImplementedError, match=r"docs/compat\.md"):
        ours.ssim(torch.rand(1, 1, 32, 32, 2), torch.rand(1, 1, 32, 32, 2))


def test_the_range_is_looked_at_in_the_pass_that_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair(1, 1, 64, 64)
    monkeypatch.setattr(torch, "aminmax", lambda *a, **k: pytest.fail("a pass of its own"))
    assert ours.ssim(x, y).item() < 1


@pytest.mark.parametrize("at", [(0, 0), (63, 63), (0, 63), (31, 40)])
def test_one_pixel_out_of_range_is_found_wherever_it_is(at: tuple[int, int]) -> None:
    x, y = pair(1, 1, 64, 64)
    x[..., at[0], at[1]] = 1.001
    with pytest.raises(AssertionError, match=r"x has values from .* accepted: from 0 to data_range 1"):
        ours.ssim(x, y)
    with pytest.raises(AssertionError, match="y has values"):
        ours.ssim(y, -x)
