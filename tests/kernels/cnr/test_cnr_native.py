"""The moments in C++ and CUDA against the definition: instruction sets, layouts, windows without pixels or a number."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

import backends
import tolerances
from semnr_kernels import native_support, registry
from semnr_kernels.cnr import cnr, cuda, native, reference
from semnr_kernels.cnr.reference import Settings as Grid
from semnr_kernels.errors import BackendUnavailable
from semnr_kernels.registry import Call

pytestmark = pytest.mark.skipif(
    native_support.probe() is not None, reason=f"no native module: {native_support.probe()}"
)

DTYPES = tuple(native_support.DTYPE_CODES)
Kernel = Callable[..., tuple[reference.Moments, ...]]
GRIDS = [  # shape, window, stride
    ((70, 91), (16, 16), (8, 8)),
    ((70, 91), (13, 7), (5, 3)),
    ((70, 91), (5, 6), (9, 11)),  # windows apart
    ((70, 91), (70, 91), (1, 1)),
    ((40, 150), (3, 4), (1, 1)),
    ((150, 530), (140, 520), (3, 4)),  # a stride's cells of several lengths, wider than a block of columns
    ((1, 37), (1, 5), (1, 2)),
    ((37, 1), (5, 1), (2, 1)),
]


@pytest.fixture(params=native_support.INSTRUCTION_SETS)
def isa(request: pytest.FixtureRequest) -> str:
    if (reason := native_support.probe(request.param)) is not None:
        pytest.skip(reason)
    return request.param


INTERPRETED = [b for b in backends.params("cnr") if b == "triton-interpret"]


@pytest.fixture(params=[*native_support.INSTRUCTION_SETS, "cuda-emulated", *INTERPRETED])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    if request.param == "triton-interpret":
        backends.require("cnr", request.param)
        return registry._implementations["cnr_map"][request.param].run
    if request.param == "cuda-emulated":
        backends.require("cnr", request.param)
        return functools.partial(cuda.of_regions, emulated=True)
    if (reason := native_support.probe(request.param)) is not None:
        pytest.skip(reason)
    return functools.partial(native.of_regions, isa=request.param)


def image(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    values = 40 + 200 * np.random.default_rng(seed).random(shape)
    if dtype in (torch.uint8, torch.uint16):
        return torch.from_numpy((values * (1 if dtype == torch.uint8 else 270)).astype(str(dtype)[6:]))
    return torch.from_numpy(values).to(dtype)


def region(shape: tuple[int, ...], seed: int = 1, share: float = 0.5) -> torch.Tensor:
    found = torch.from_numpy(np.random.default_rng(seed).random(shape) < share)
    found[..., : shape[-2] // 2, : shape[-1] // 2] = False  # windows without a pixel
    return found


def by_windows(
    x: torch.Tensor, roi: torch.Tensor, window: tuple[int, int], stride: tuple[int, int], kernel: Kernel
) -> reference.Moments:
    return kernel(x, roi, settings=Grid(window, stride))[0]


def assert_same(got: reference.Moments, wanted: reference.Moments) -> None:
    for name, a, b in zip(got._fields, got, wanted, strict=True):
        assert a.shape == b.shape
        # variances of 0 to 65535² around means of the same scale: relative, with room for sums that cancel
        torch.testing.assert_close(a, b, rtol=tolerances.PEER_FLOAT64, atol=1e-11, equal_nan=True, msg=name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_windows_are_the_references(kernel: Kernel, grid: tuple, dtype: torch.dtype) -> None:
    shape, window, stride = grid
    x, roi = image((2, 2, *shape), dtype), region((2, 1, *shape))
    got = by_windows(x, roi, window, stride, kernel)
    assert_same(got, reference.window_moments(x, roi, window, stride))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_whole_image_is_the_references(kernel: Kernel, dtype: torch.dtype) -> None:
    x, roi = image((3, 2, 133, 601), dtype), region((3, 1, 133, 601))
    assert_same(kernel(x, roi)[0], reference.moments(x, roi))


def test_two_regions_from_one_read_are_each_region_alone(kernel: Kernel) -> None:
    x, roi = image((2, 1, 90, 77), torch.float32), region((2, 1, 90, 77))
    both = kernel(x, roi, ~roi, settings=Grid((20, 30), (7, 10)))
    for found, one in zip(both, (roi, ~roi), strict=True):
        for a, b in zip(found, by_windows(x, one, (20, 30), (7, 10), kernel), strict=True):
            assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_a_region_may_differ_by_channel(kernel: Kernel) -> None:
    x, roi = image((2, 3, 40, 50), torch.float32), region((2, 3, 40, 50))
    assert_same(kernel(x, roi)[0], reference.moments(x, roi))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_constant_region_has_no_variance_at_all_and_empty_windows_are_undefined(
    kernel: Kernel, dtype: torch.dtype
) -> None:
    x = torch.full((1, 1, 60, 60), 1 / 3 if dtype.is_floating_point else 201, dtype=dtype)
    x[..., 30:, :] = 0.7 if dtype.is_floating_point else 3
    roi = region((1, 1, 60, 60))
    roi[..., 30:, :] = False
    found = by_windows(x, roi, (14, 14), (5, 5), kernel)
    empty = found.pixels == 0
    assert empty.any()
    assert torch.isnan(found.mean[empty]).all()
    assert torch.isnan(found.variance[empty]).all()
    assert (found.variance[~empty] == 0).all()
    assert (found.mean[~empty] - x[0, 0, 0, 0].double()).abs().max() < 1e-15 * 201


def test_a_pedestal_costs_no_digit_in_any_window(kernel: Kernel) -> None:
    rng = np.random.default_rng(0)
    low = torch.from_numpy(rng.normal(0, 20, (1, 1, 96, 96)).round())
    roi = region((1, 1, 96, 96), share=0.9)
    wanted = reference.window_moments(low, roi, (24, 24), (7, 7)).variance
    for pedestal in (40_000.0, 2.0**30):
        got = by_windows(low + pedestal, roi, (24, 24), (7, 7), kernel).variance
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0, equal_nan=True)
    counts = (low + 40_000).to(torch.uint16)
    got = by_windows(counts, roi, (24, 24), (7, 7), kernel).variance
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "bad", [[math.nan], [math.inf], [-math.inf], [math.inf, -math.inf], [math.inf, math.nan]], ids=str
)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of Triton's interpreter
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_non_finite_pixels_do_what_they_do_in_the_reference(
    kernel: Kernel, dtype: torch.dtype, bad: list[float]
) -> None:
    x, roi = image((1, 1, 48, 48), dtype), region((1, 1, 48, 48))
    for k, value in enumerate(bad):
        x[0, 0, 30 + 3 * k, 20:24] = value
        roi[0, 0, 30 + 3 * k, 20:24] = True
    x[0, 0, 2, 2] = math.nan  # outside the region
    x[0, 0, 40:, 40:] = bad[0]  # windows of nothing else
    roi[0, 0, 40:, 40:] = True
    got = by_windows(x, roi, (8, 8), (4, 4), kernel)
    assert_same(got, reference.window_moments(x, roi, (8, 8), (4, 4)))
    assert torch.isfinite(got.mean).any()
    assert_same(kernel(x, roi)[0], reference.moments(x, roi))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layout_does_not_change_a_bit(kernel: Kernel, dtype: torch.dtype) -> None:
    x, roi = image((2, 2, 50, 64), dtype), region((2, 1, 50, 64))
    straight = by_windows(x, roi, (9, 9), (4, 4), kernel)
    wide = torch.stack([x, x], dim=-1).flatten(-2)[..., ::2]
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    last = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    rois = roi.transpose(2, 3).contiguous().transpose(2, 3)
    for view in (wide, turned, last):
        assert not view.is_contiguous()
        for r in (roi, rois):
            for a, b in zip(by_windows(view, r, (9, 9), (4, 4), kernel), straight, strict=True):
                assert torch.equal(a.nan_to_num(), b.nan_to_num())
    expanded = by_windows(x[:1].expand(4, 2, 50, 64), roi[:1], (9, 9), (4, 4), kernel)
    assert torch.equal(expanded.pixels[3], straight.pixels[0])


def test_negative_strides_are_read_backwards(isa: str) -> None:
    x, roi = image((1, 1, 31, 44), torch.float32), region((1, 1, 31, 44))
    out = torch.empty((1, 3, 1, 1, 1, 1), dtype=torch.float64)

    def backwards(v: torch.Tensor) -> tuple[int, ...]:
        n, c, h, w = v.stride()
        return v[..., -1, -1].data_ptr(), n, c, -h, -w

    native_support.module(isa).cnr_moments(
        backwards(x),
        native_support.DTYPE_CODES[x.dtype],
        x.shape,
        [backwards(roi)],
        (20, 20),
        (31, 44),
        1,
        out.data_ptr(),
    )
    flipped = reference.window_moments(x.flip(2, 3), roi.flip(2, 3), (20, 20), (31, 44))
    torch.testing.assert_close(out[0, :, 0, 0, 0, 0], torch.stack([v.flatten()[0] for v in flipped]))


@pytest.mark.parametrize(
    ("window", "stride"), [((16, 16), (8, 8)), ((200, 300), (1, 3)), ((300, 310), (1, 1))], ids=str
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_results_do_not_depend_on_the_number_of_threads(
    isa: str, dtype: torch.dtype, window: tuple[int, int], stride: tuple[int, int]
) -> None:
    x, roi = image((2, 1, 300, 310), dtype), region((2, 1, 300, 310))
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)  # conftest.py sets it back
        found.append(torch.stack(native.of_regions(x, roi, settings=Grid(window, stride), isa=isa)[0]).nan_to_num())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_map_computed_in_bands_of_rows_is_the_map_in_one(kernel: Kernel) -> None:
    """Beyond 8 MiB of sums the rows are taken in bands: the windows at the seams must not notice."""
    x, roi = image((1, 1, 420, 1200), torch.uint8), region((1, 1, 420, 1200))
    whole = by_windows(x, roi, (6, 6), (1, 1), kernel)  # 12 MB of sums
    part = by_windows(x[..., 250:, :], roi[..., 250:, :], (6, 6), (1, 1), kernel)
    assert_same(reference.Moments(*(v[:, :, 250:] for v in whole)), part)


def test_a_view_of_more_pixels_than_32_bits_count_is_summed_exactly() -> None:
    row = torch.randint(0, 256, (1, 1, 1, 65_600), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x, roi = row.expand(1, 1, 65_600, 65_600), torch.ones((1, 1, 1, 1), dtype=torch.bool)
    torch.set_num_threads(2)
    found = native.of_regions(x, roi)[0]
    assert found.pixels.item() == 65_600**2 > 2**32
    assert found.mean.item() == pytest.approx(row.double().mean().item(), rel=1e-13)
    assert found.variance.item() == pytest.approx(row.double().var(correction=0).item(), rel=1e-12)


@hypothesis.settings(
    max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.data())
def test_any_shape_dtype_window_stride_layout_and_region(kernel: Kernel, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    n, c, h, w = (data.draw(st.integers(1, most)) for most in (2, 2, 40, 40))
    window = data.draw(st.integers(1, h)), data.draw(st.integers(1, w))
    stride = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 50))
    x = image((n, c, h, 2 * w), dtype, data.draw(st.integers(0, 99)))[..., data.draw(st.sampled_from((0, 1))) :: 2]
    roi = region((n, 1, h, w), data.draw(st.integers(0, 99)), data.draw(st.sampled_from((0.0, 0.02, 0.5, 1.0))))
    if dtype.is_floating_point and data.draw(st.booleans()):
        x[data.draw(st.integers(0, n - 1)), 0, data.draw(st.integers(0, h - 1))] = data.draw(
            st.sampled_from((math.nan, math.inf, -math.inf))
        )
    got = by_windows(x, roi, window, stride, kernel)
    assert_same(got, reference.window_moments(x, roi, window, stride))


def test_whoever_wants_a_gradient_gets_the_references() -> None:
    x, y = image((1, 1, 24, 24), torch.float64), image((1, 1, 24, 24), torch.float64, seed=5)
    roi = region((1, 1, 24, 24))
    wants = y.requires_grad_()
    result = cnr(x, wants, signal=roi, background=~roi, details=True)
    result.components["contrast_retention"].sum().backward()
    assert wants.grad.abs().max() > 0
    with pytest.raises(BackendUnavailable, match="has no gradient"):
        cnr(x, wants, signal=roi, background=~roi, backend="native")


def test_an_image_that_wants_a_gradient_is_left_to_the_reference() -> None:
    x = image((1, 1, 8, 8), torch.float32).requires_grad_()
    assert native.supports(Call.of("cnr", x)) == "has no gradient"
    assert native.supports(Call.of("cnr", x.detach())) is None


@pytest.mark.parametrize("backend", [b for b in registry.implementations("histogram") if b != "reference"])
@pytest.mark.parametrize("bins", [2, 7, 256])
def test_the_otsu_histogram_is_the_one_that_a_search_finds(backend: str, bins: int) -> None:
    backends.require("histogram", backend)
    rng = np.random.default_rng(bins)
    values = torch.from_numpy(np.concatenate([rng.normal(40_000, 20, 300_001), rng.normal(40_090, 7, 1000)]))
    edges = torch.linspace(float(values.min()), float(values.max()), bins + 1, dtype=torch.float64)
    values = torch.cat([values, edges])  # every edge itself, where a rounded guess goes astray
    table = registry._implementations["histogram"]
    counts = table[backend].run(values, edges)
    assert counts.tolist() == table["reference"].run(values, edges).tolist()
    assert int(counts.sum()) == values.numel()
