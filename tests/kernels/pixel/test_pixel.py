"""MSE, MAE, PSNR: exact for integers, honest about identical, masked and bad images, on every backend."""

from __future__ import annotations

import math

import numpy as np
import piq
import pytest
import torch

import backends
import tolerances
from semnr_kernels import pixel, registry


@pytest.fixture(params=backends.params("pixel"))
def backend(request: pytest.FixtureRequest) -> str:
    return backends.require("pixel", request.param)


def supported(backend: str, x: torch.Tensor, **options: object) -> None:
    backends.run_or_skip_unsupported("pixel", backend, registry.Call.of("pixel", x, **options))


def integers(dtype: torch.dtype, shape: tuple[int, ...] = (3, 1, 61, 47), seed: int = 0) -> torch.Tensor:
    top = torch.iinfo(dtype).max
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, top + 1, shape).astype(str(dtype).removeprefix("torch.")))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_integer_errors_are_exact(backend: str, dtype: torch.dtype) -> None:
    x, y = integers(dtype), integers(dtype, seed=1)
    difference = x.numpy().astype(object) - y.numpy().astype(object)  # Python integers: no overflow to agree on
    square = [int((d * d).sum()) / d.size for d in difference]
    absolute = [int(abs(d).sum()) / d.size for d in difference]
    assert pixel.mse(x, y, reduction="none", backend=backend).tolist() == square
    assert pixel.mae(x, y, reduction="none", backend=backend).tolist() == absolute


def test_the_largest_16_bit_difference_does_not_overflow(backend: str) -> None:
    x = torch.full((1, 1, 300, 300), 65535, dtype=torch.uint16)
    assert pixel.mse(x, torch.zeros_like(x), backend=backend).item() == 65535.0**2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_errors_are_accumulated_in_float64(backend: str, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand((2, 2, 53, 67), generator=rng).to(dtype)
    y = torch.rand((2, 2, 53, 67), generator=rng).to(dtype)
    supported(backend, x)
    expected = ((x.double() - y.double()) ** 2).mean(dim=(1, 2, 3))
    torch.testing.assert_close(
        pixel.mse(x, y, reduction="none", backend=backend), expected, rtol=tolerances.MSE_FLOAT_RELATIVE, atol=0
    )


def test_psnr_agrees_with_piq(backend: str) -> None:
    x, y = integers(torch.uint8), integers(torch.uint8, seed=1)
    ours = pixel.psnr(x, y, reduction="none", backend=backend)
    theirs = piq.psnr(x.double(), y.double(), data_range=255, reduction="none")
    # piq adds 1e-8 to the MSE of the 0-1 scale
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_psnr_of_a_known_error_is_the_hand_computed_value(backend: str) -> None:
    y = torch.zeros((8, 8), dtype=torch.uint8)
    assert pixel.psnr(y + 5, y, backend=backend).item() == pytest.approx(20 * math.log10(255 / 5), abs=1e-12)


def test_identical_images_have_infinite_psnr_counted_apart(backend: str) -> None:
    x = integers(torch.uint8)
    y = x.clone()
    y[0] = 255 - y[0]
    result = pixel.psnr(x, y, reduction="none", details=True, backend=backend)
    assert torch.isinf(result.value).tolist() == [False, True, True]
    assert result.flags == ("2 identical images: infinite PSNR",)
    assert math.isfinite(pixel.psnr(x, y, reduction="mean_mse", backend=backend).item())


def test_mean_mse_psnr_is_not_the_mean_of_decibels(backend: str) -> None:
    y = torch.zeros((2, 1, 8, 8), dtype=torch.uint8)
    x = y.clone()
    x[0], x[1] = 1, 100
    expected = 10 * math.log10(255**2 / ((1 + 10000) / 2))
    assert pixel.psnr(x, y, reduction="mean_mse", backend=backend).item() == pytest.approx(expected, abs=1e-12)
    assert pixel.psnr(x, y, reduction="mean", backend=backend).item() > expected + 10


def test_masked_pixels_do_not_count(backend: str) -> None:
    x, y = integers(torch.uint8), integers(torch.uint8, seed=1)
    supported(backend, x, masked=True)
    mask = torch.zeros((61, 47), dtype=torch.bool)
    mask[10:20, 5:30] = True
    inside = pixel.mse(x[..., 10:20, 5:30], y[..., 10:20, 5:30], reduction="none", backend="reference")
    assert pixel.mse(x, y, mask=mask, reduction="none", backend=backend).tolist() == inside.tolist()


def test_an_all_masked_image_is_undefined_not_perfect() -> None:
    x = integers(torch.uint8)
    mask = torch.zeros((3, 1, 61, 47), dtype=torch.bool)
    mask[1:] = True
    assert torch.isnan(pixel.mse(x, x, mask=mask, reduction="none")).tolist() == [True, False, False]


@pytest.mark.parametrize("layout", ["transposed", "strided", "flipped"])
def test_memory_layout_does_not_change_the_result(backend: str, layout: str) -> None:
    x, y = integers(torch.uint8, (2, 1, 64, 64)), integers(torch.uint8, (2, 1, 64, 64), seed=1)
    views = {
        "transposed": lambda t: t.transpose(2, 3),
        "strided": lambda t: t[..., ::2, 1::3],
        "flipped": lambda t: t.flip(3),
    }
    a, b = views[layout](x), views[layout](y)
    assert (
        pixel.mse(a, b, backend=backend).item() == pixel.mse(a.contiguous(), b.contiguous(), backend="reference").item()
    )


def test_the_gradient_of_mse_is_exact() -> None:
    x = torch.rand((1, 1, 5, 6), dtype=torch.float64, requires_grad=True)
    y = torch.rand((1, 1, 5, 6), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: pixel.mse(a, b), (x, y))


def test_auto_takes_a_backend_with_a_gradient_when_one_is_needed() -> None:
    x = torch.rand((1, 1, 8, 8), requires_grad=True)
    pixel.mse(x, torch.zeros_like(x)).backward()
    torch.testing.assert_close(x.grad, 2 * x.detach() / 64)


def test_a_nan_pixel_is_an_error_a_nan_row_or_left_out_as_asked(backend: str) -> None:
    x = torch.rand((2, 1, 16, 16))
    y = torch.rand((2, 1, 16, 16))
    x[0, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"x has 1 non-finite pixels"):
        pixel.mse(x, y, backend=backend)
    rows = pixel.mse(x, y, nan="propagate", reduction="none", backend=backend)
    assert torch.isnan(rows).tolist() == [True, False]
    kept = pixel.mse(x, y, nan="omit", reduction="none", backend="reference")
    difference = (x.double() - y.double())[0].flatten()
    assert kept[0].item() == pytest.approx((difference[~difference.isnan()] ** 2).mean().item(), rel=1e-12)
