"""The float32 windows of SSIM's kernels: rounding their taps leaves no bias in a variance, and none in a score."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch

import backends
import tolerances
from semnr_kernels.ssim import cuda, float32_window, ssim, window_taps

SIZES = [1, 3, 5, 7, 9, 11, 13, 25, 47, 65]
SIGMAS = [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.3, 7.0, 20.0]
WINDOWS = {f"{s} gaussian {sigma}": window_taps("gaussian", s, sigma) for s in SIZES for sigma in SIGMAS}
WINDOWS |= {f"{s} uniform": window_taps("uniform", s, 1.5) for s in SIZES}
FAST = {k: t for k, t in WINDOWS.items() if len(t) in cuda._FAST and t[0] >= cuda._FIRST_WEIGHT}
ULP = 2.0**-24  # half the step of float32 below 1


@pytest.fixture(params=backends.params("ssim"))
def backend(request: pytest.FixtureRequest) -> str:
    return backends.require("ssim", request.param)


def assert_are_float32_and_symmetric(taps: Sequence[float]) -> None:
    assert all(float(np.float32(t)) == t for t in taps)
    assert tuple(taps) == tuple(reversed(taps))


@pytest.mark.parametrize("taps", WINDOWS.values(), ids=WINDOWS)
def test_a_normalised_window_adds_up_to_one_in_float32(taps: tuple[float, ...]) -> None:
    chosen = float32_window.normalised(taps)
    assert_are_float32_and_symmetric(chosen)
    assert sum(map(Fraction, chosen)) == 1
    assert max(abs(a - b) for a, b in zip(chosen, taps, strict=True)) <= ULP


@pytest.mark.parametrize("taps", FAST.values(), ids=FAST)
def test_a_window_over_its_first_tap_and_its_weight_make_one_to_1e_8(taps: tuple[float, ...]) -> None:
    chosen, weight = float32_window.over_first(taps)
    assert_are_float32_and_symmetric(chosen)
    assert chosen[0] == 1
    assert float(np.float32(weight)) == weight
    assert abs(sum(map(Fraction, chosen)) ** 2 * Fraction(weight) - 1) <= 1e-8
    assert max(abs(a * taps[0] - b) for a, b in zip(chosen, taps, strict=True)) <= 2 * ULP


def noisy_lines(low: float, high: float, sigma: float, height: int, width: int) -> list[torch.Tensor]:
    """Two levels, where the squared means are large beside the variances, under independent noise."""
    generator = torch.Generator().manual_seed(0)
    clean = low + (high - low) * (torch.arange(width) % 16 < 8).double()
    noise = sigma * torch.randn((2, 1, 1, height, width), generator=generator, dtype=torch.float64)
    return list((clean + noise).clamp(0, 1))


@pytest.mark.parametrize(
    "options",
    [{}, {"window_size": 7}, {"window_size": 9}, {"window": "uniform", "window_size": 7}],
    ids=["default", "gaussian 7", "gaussian 9", "uniform 7"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_a_score_of_lines_has_no_bias(backend: str, dtype: torch.dtype, options: dict) -> None:
    x, y = noisy_lines(0.3, 0.7, 0.06, 64, 96)
    top = 255.0 if dtype == torch.uint8 else 1.0
    x, y = ((v * top).round().to(dtype) if dtype == torch.uint8 else v.to(dtype) for v in (x, y))
    exact = ssim(x, y, data_range=top, precision="float64", backend="reference", **options)
    assert abs(ssim(x, y, data_range=top, backend=backend, **options) - exact).item() <= tolerances.SSIM_MEAN


@pytest.mark.parametrize("size", [7, 11])
def test_a_gradient_of_lines_has_no_bias(backend: str, size: int) -> None:
    """Projected on the exact gradient: what is left of it is what rounding does everywhere alike."""
    found = []
    for name, dtype in (("reference", torch.float64), (backend, torch.float32)):
        x, y = (v.to(dtype) for v in noisy_lines(0.2, 0.8, 0.08, 40, 48))
        x.requires_grad_()
        ssim(x, y, data_range=1.0, window_size=size, backend=name).backward()
        found.append(x.grad.double())
    exact, got = found
    assert abs((got * exact).sum() / (exact * exact).sum() - 1) <= tolerances.SSIM_GRADIENT_BIAS
