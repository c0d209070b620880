"""Otsu masks step by step: the definition's to the last bit on every backend, at any layout, radius and width."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import backends
from semnr_kernels import native_support, registry
from semnr_kernels.cnr import otsu_masks, reference
from semnr_kernels.cnr.masks import gaussian_taps

pytestmark = pytest.mark.skipif(
    native_support.probe() is not None, reason=f"no native module: {native_support.probe()}"
)

DTYPES = tuple(native_support.DTYPE_CODES)


NATIVE = [f"native-{isa}" for isa in native_support.INSTRUCTION_SETS]


@pytest.fixture(params=[*NATIVE, *(b for b in backends.params("cnr") if b == "triton-interpret")])
def backend(request: pytest.FixtureRequest) -> str:
    return backends.require("otsu_smooth", request.param)


@pytest.fixture
def smoothed(backend: str) -> Callable[..., reference.Smoothed]:
    return registry._implementations["otsu_smooth"][backend].run


@pytest.fixture(params=NATIVE)
def native_backend(request: pytest.FixtureRequest) -> str:
    return backends.require("guard_band", request.param)


def image(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    values = 40 + 200 * np.random.default_rng(seed).random(shape)
    if dtype in (torch.uint8, torch.uint16):
        return torch.from_numpy((values * (1 if dtype == torch.uint8 else 270)).astype(str(dtype)[6:]))
    return torch.from_numpy(values).to(dtype)


def region(shape: tuple[int, ...], share: float) -> torch.Tensor:
    found = torch.from_numpy(np.random.default_rng(1).random(shape) < share)
    found[..., : shape[-2] // 2, : shape[-1] // 2] = False
    return found


@pytest.mark.parametrize("sigma", [0.0, 1.0, 3.3])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_smoothing_is_the_definition_to_the_last_bit(
    smoothed: Callable[..., reference.Smoothed], dtype: torch.dtype, masked: bool, sigma: float
) -> None:
    """Two masks part where one value rounds across the threshold, so no bit may differ."""
    for shape in ((2, 2, 37, 61), (1, 1, 3, 150), (1, 3, 150, 3), (1, 1, 1, 1)):
        x = image(shape, dtype)
        valid = region((shape[0], 1, *shape[2:]), share=0.8) if masked else None
        wanted, got = (f(x, valid, gaussian_taps(sigma)) for f in (reference.smoothed, smoothed))
        for name, a, b in zip(wanted._fields, got, wanted, strict=True):
            assert (a is None) == (b is None), name
            assert a is None or torch.equal(a, b), name


def test_a_filter_wider_than_the_image_is_the_definitions(native_backend: str) -> None:
    for shape in ((1, 1, 37, 61), (1, 1, 3, 150), (1, 1, 150, 3)):
        x, valid = image(shape, torch.float32), region(shape, share=0.8)
        for mask in (None, valid):
            native = registry._implementations["otsu_smooth"][native_backend].run
            wanted, got = (f(x, mask, gaussian_taps(40.0)).values for f in (reference.smoothed, native))
            assert torch.equal(got, wanted)


def test_smoothing_reads_any_layout_and_does_not_depend_on_threads(
    smoothed: Callable[..., reference.Smoothed],
) -> None:
    x, valid = image((2, 2, 150, 64), torch.float32), region((2, 1, 150, 64), share=0.8)
    wanted = smoothed(x, valid, gaussian_taps(2.0)).values
    turned, wide = x.mT.contiguous().mT, torch.stack([x, x], dim=-1).flatten(-2)[..., ::2]
    for threads, view, mask in ((2, turned, valid), (5, wide, valid.mT.contiguous().mT)):
        torch.set_num_threads(threads)
        assert torch.equal(smoothed(view, mask, gaussian_taps(2.0)).values, wanted)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_pixels_that_are_no_number_are_counted_and_left_out(
    smoothed: Callable[..., reference.Smoothed], bad: float
) -> None:
    x, valid = image((3, 2, 20, 30), torch.float32), region((3, 1, 20, 30), share=0.9)
    x[1, 0, 12, 3:20] = bad
    x[2] = bad
    for mask in (None, valid):
        wanted, got = (f(x, mask, gaussian_taps(1.0)) for f in (reference.smoothed, smoothed))
        assert got.bad.tolist() == wanted.bad.tolist()
        assert got.bad[0] == 0 < got.bad[1] < got.bad[2]
        for a, b in zip(got, wanted, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("radius", [0, 1, 2, 7, 31, 64, 1000])
def test_the_guard_band_is_a_square_dilation_at_any_radius(native_backend: str, radius: int) -> None:
    guard_band = registry._implementations["guard_band"][native_backend].run
    rng = np.random.default_rng(radius)
    for shape in ((2, 1, 70, 300), (1, 1, 1, 5), (1, 1, 90, 1)):
        drawn = torch.from_numpy(rng.random(shape))
        bright, dark = drawn < 0.01, drawn > 0.98
        wanted, got = (f(bright, dark, radius) for f in (reference.guard_band, guard_band))
        for a, b in zip(got, wanted, strict=True):
            assert torch.equal(a, b)
    if radius == 2:
        from scipy.ndimage import binary_dilation

        near = binary_dilation(dark[0, 0].numpy(), np.ones((5, 5)))
        assert torch.equal(got.signal[0, 0], bright[0, 0] & ~torch.from_numpy(near))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_otsu_masks_are_the_definitions_pixel_for_pixel(backend: str, dtype: torch.dtype) -> None:
    lines = 0.5 + 0.3 * torch.sign(torch.sin(torch.arange(150) / 7.0)).expand(3, 1, 130, 150)
    noisy = lines + 0.1 * torch.randn(lines.shape, generator=torch.Generator().manual_seed(0))
    noisy[1] = 0.5
    x = (noisy.clamp(0, 1) * (1 if dtype.is_floating_point else 250)).to(dtype)
    valid = region((3, 1, 130, 150), share=0.9)
    for mask in (None, valid):
        found = []
        for name in ("reference", backend):
            with registry.use_backend(name):
                found.append(otsu_masks(x, mask=mask, smoothing=1.5, guard=3))
        assert torch.equal(found[1].signal, found[0].signal)
        assert torch.equal(found[1].background, found[0].background)
        assert torch.equal(found[1].threshold.nan_to_num(), found[0].threshold.nan_to_num())
        torch.testing.assert_close(found[1].separation, found[0].separation, rtol=1e-9, atol=0, equal_nan=True)
        assert found[1].flags == found[0].flags == ("", "undefined: one population", "")
