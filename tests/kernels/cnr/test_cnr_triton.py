"""Moments in Triton: what the suites of the ops do not ask. Under the interpreter: see test_triton.py."""

from __future__ import annotations

import pytest
import torch

import backends
from semnr_kernels.cnr import otsu_masks, reference
from semnr_kernels.cnr.reference import WHOLE, Bins, Settings
from semnr_kernels.registry import Call, use_backend

INTERPRET = "triton-interpret"


@pytest.fixture
def interpreter() -> str:
    return backends.require("cnr", INTERPRET)


def case(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = (200 * torch.rand(shape, generator=generator)).to(dtype)
    return x, torch.rand((shape[0], 1, *shape[2:]), generator=generator) > 0.4


def test_a_batch_taken_in_parts_is_the_batch(interpreter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from semnr_kernels.cnr import triton_kernel

    x, roi = case((5, 2, 20, 30))
    for grid in (WHOLE, Settings((6, 7), (2, 3))):
        whole = triton_kernel.of_regions(x, roi, ~roi, settings=grid)
        with monkeypatch.context() as patch:
            patch.setattr(triton_kernel, "_TABLE", 2 * 2 * 2 * 200)
            parts = triton_kernel.of_regions(x, roi, ~roi, settings=grid)
        for a, b in zip(whole, parts, strict=True):
            for one, other in zip(a, b, strict=True):
                assert torch.equal(one.nan_to_num(), other.nan_to_num())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.bfloat16, torch.float32], ids=str)
def test_the_blocks_of_a_device_give_the_moments_too(
    interpreter: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suites run few large blocks; here several programs share a plane, and lanes take several pixels."""
    from semnr_kernels import triton_support
    from semnr_kernels.cnr import triton_kernel

    monkeypatch.setattr(triton_support, "block", lambda on_device, interpreting: on_device)
    x, roi = case((1, 1, 40, 131), dtype)
    for grid in (WHOLE, Settings((16, 90), (8, 13))):
        got, wanted = (f(x, roi, ~roi, settings=grid) for f in (triton_kernel.of_regions, reference.of_regions))
        for one, other in zip(got, wanted, strict=True):
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-11, atol=0)


def test_the_masks_of_a_devices_blocks_are_those_of_the_definition(
    interpreter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semnr_kernels import triton_support

    monkeypatch.setattr(triton_support, "block", lambda on_device, interpreting: on_device)
    x = case((2, 1, 30, 70))[0]
    x[..., 20:50] += 500
    with use_backend(interpreter):
        found = otsu_masks(x)
    wanted = otsu_masks(x)
    assert torch.equal(found.signal, wanted.signal)
    assert torch.equal(found.background, wanted.background)
    assert found.threshold.tolist() == wanted.threshold.tolist()


def test_more_regions_than_one_read_takes(interpreter: str) -> None:
    from semnr_kernels.cnr import triton_kernel

    x, roi = case((1, 1, 30, 40))
    regions = (roi, ~roi, torch.ones_like(roi).expand(1, 1, 30, 40))
    for got, wanted in zip(triton_kernel.of_regions(x, *regions), reference.of_regions(x, *regions), strict=True):
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


@pytest.mark.parametrize("window", [33, 40, 70])
def test_windows_of_many_cells_are_merged_from_runs(interpreter: str, window: int) -> None:
    """Beyond 32 cells by runs of 32: with and without a remainder of single cells."""
    from semnr_kernels.cnr import triton_kernel

    x, roi = case((1, 1, 3, 90))
    grid = Settings((2, window), (1, 1))
    got, wanted = (f(x, roi, settings=grid)[0] for f in (triton_kernel.of_regions, reference.of_regions))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_the_largest_16_bit_values_do_not_overflow(interpreter: str) -> None:
    from semnr_kernels.cnr import triton_kernel

    x = torch.full((1, 1, 300, 300), 65535, dtype=torch.uint16)
    x[..., 150:, :] = 0
    found = triton_kernel.of_regions(x, torch.ones((1, 1, 300, 300), dtype=torch.bool))[0]
    assert (found.pixels.item(), found.mean.item(), found.variance.item()) == (90_000, 32767.5, 32767.5**2)


def test_what_is_not_counted_here_is_said_and_left_to_another(interpreter: str) -> None:
    from semnr_kernels.cnr import triton_kernel

    whole = Call("cnr", "cuda", torch.uint8, (1, 1, 2**16, 2**15), False)
    assert triton_kernel.supports(whole) == "takes images below 2**31 pixels a channel"
    grid = Settings((64, 64), (1, 1))
    large = Call("cnr_map", "cuda", torch.uint8, (1, 1, 2**15, 2**15 - 1), False, grid)
    assert triton_kernel.supports(large) is None
    assert "fewer than 2**31 cells" in str(
        triton_kernel.supports(Call("cnr_map", "cuda", torch.uint8, (1, 1, 2**15, 2**16 - 1), False, grid))
    )
    counts = Call("histogram", "cuda", torch.float64, (4096,), False, Bins(2049))
    assert triton_kernel.supports_histogram(counts) == "counts at most 2048 bins"
    x = case((1, 1, 40, 40))[0]
    x[..., :20] += 1000
    with use_backend(interpreter):
        found = otsu_masks(x, bins=3000)
    assert torch.equal(found.signal, otsu_masks(x, bins=3000).signal)
    assert found.signal.any()
