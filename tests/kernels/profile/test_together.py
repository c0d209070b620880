"""The short ways: one plain image scored at once, three metrics from one read. Judges: the ops one by one."""

from __future__ import annotations

import math

import pytest
import torch

import backends
import semnr
from semnr_kernels import cuda_support, native_support, pixel, registry
from semnr_kernels.cnr import cnr, cnr_map
from semnr_kernels.cnr import reference as cnr_reference
from semnr_kernels.profile import together
from semnr_kernels.ssim import ssim

pytestmark = pytest.mark.skipif(
    native_support.probe() is not None, reason=f"no native module: {native_support.probe()}"
)

SCALE = {torch.uint8: 255.0, torch.uint16: 60000.0, torch.float32: 1.0, torch.float64: 1.0}


@pytest.fixture(params=["native", "cuda-emulated"])
def backend(request: pytest.FixtureRequest) -> str:
    """The name to call: "auto" takes the C++ kernels."""
    backends.require("ssim", request.param)
    if request.param == "native":
        return "auto"
    if not hasattr(cuda_support.module(True), "profile_scores"):
        pytest.skip("the emulated module was built without profile")
    return request.param


def case(dtype: torch.dtype, *shape: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(shape, generator=generator)
    x = (y + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1)
    scale = SCALE[dtype]
    return (x * scale).to(dtype), (y * scale).to(dtype), y > 0.6, y < 0.4


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (3, 1, 141, 301), (1, 1, 11, 523)], ids=str)
@pytest.mark.parametrize("dtype", list(SCALE), ids=str)
def test_three_metrics_from_one_read_are_the_metrics_one_by_one(
    backend: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    x, y, signal, background = case(dtype, *shape)
    found = together(x, y, signal, background, data_range=SCALE[dtype], backend=backend)
    if backend != "auto" and dtype == torch.float64:  # scored one metric at a time there
        assert found is None
        return
    assert found is not None
    assert torch.allclose(found.mse, pixel.mse(x, y, reduction="none"), rtol=1e-12, atol=0)
    assert torch.allclose(found.mae, pixel.mae(x, y, reduction="none"), rtol=1e-12, atol=0)
    assert torch.equal(found.ssim, ssim(x, y, data_range=SCALE[dtype], reduction="none", backend=backend))
    moments = cnr_reference.of_regions(x, signal, background)
    for got, wanted in zip((found.signal, found.background), moments, strict=True):
        for name, a, b in zip(got._fields, got, wanted, strict=True):
            assert torch.allclose(a, b[:, 0], rtol=1e-11, atol=0), name


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (3, 1, 141, 301), (2, 1, 160, 640)], ids=str)
@pytest.mark.parametrize("dtype", list(SCALE), ids=str)
def test_the_noisy_image_is_read_with_the_others(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, y, signal, background = case(dtype, *shape)
    noisy = case(dtype, *shape)[0].roll(1, dims=-1)
    signal[..., 32:64, :32] = False  # a cell without one of the regions
    found = together(x, y, signal, background, noisy=noisy, data_range=SCALE[dtype])
    plain = together(x, y, signal, background, data_range=SCALE[dtype])
    assert found is not None
    assert plain is not None
    assert found.noisy is not None
    assert plain.noisy is None
    assert torch.equal(found.ssim, plain.ssim)
    assert torch.equal(found.mse, plain.mse)
    for got, wanted in zip((*found.signal, *found.background), (*plain.signal, *plain.background), strict=True):
        assert torch.allclose(got, wanted, rtol=1e-12, atol=0)
    assert torch.allclose(found.noisy.mse, pixel.mse(noisy, y, reduction="none"), rtol=1e-12, atol=0)
    told = {"signal": signal, "background": background, "kind": "fixed_noise", "noise": noisy, "details": True}
    told |= {"data_range": SCALE[dtype], "backend": "reference"}
    whole = cnr(x, y, reduction="none", **told)
    windows = cnr_map(x, y, window=64, stride=32, min_pixels=64, **told)
    pairs = ((found.noisy.ratio, found.noisy.ratio_worst), (found.noisy.retention, found.noisy.retention_worst))
    for (all_of_it, lowest), of in zip(
        pairs, (lambda v: v.value, lambda v: v.components["contrast_retention"]), strict=True
    ):
        assert torch.allclose(all_of_it, of(whole).reshape(-1), rtol=1e-10, atol=0)
        each = of(windows).reshape(len(x), -1)
        assert torch.allclose(lowest, each.nan_to_num(torch.inf).amin(1), rtol=1e-10, atol=0)


def test_windows_with_too_few_pixels_of_a_region_do_not_count() -> None:
    x, y, signal, background = case(torch.float32, 1, 1, 96, 128)
    noisy = x.roll(1, dims=-1)
    signal[..., :64, :] = False
    signal[..., 10, 3:8] = True  # 5 pixels in the window of the corner
    background &= ~signal
    contrast = {"signal": signal, "background": background, "kind": "fixed_noise", "noise": noisy}
    for least in (5, 6):
        found = together(x, y, signal, background, noisy=noisy, data_range=1.0, min_pixels=least)
        assert found is not None
        assert found.noisy is not None
        each = cnr_map(x, window=64, stride=32, min_pixels=least, data_range=1.0, backend="reference", **contrast)
        assert torch.isnan(each).sum() == (3 if least == 6 else 2)  # of the three windows at the top
        assert found.noisy.ratio_worst.item() == pytest.approx(each[~torch.isnan(each)].min().item(), rel=1e-10)
    none = together(x, y, signal, background, noisy=noisy, data_range=1.0, min_pixels=5000)
    assert none is not None
    assert none.noisy is not None
    assert torch.isnan(none.noisy.ratio_worst).all()
    assert torch.isnan(none.noisy.retention_worst).all()


@pytest.mark.parametrize("dtype", list(SCALE), ids=str)
def test_a_noisy_image_without_noise_or_a_reference_without_contrast_is_no_number(dtype: torch.dtype) -> None:
    x, y, signal, background = case(dtype, 1, 1, 96, 128)
    still = torch.where(signal, 7 * torch.ones_like(x), 3 * torch.ones_like(x))
    found = together(x, still, signal, background, noisy=still, data_range=SCALE[dtype])
    assert found is not None
    assert found.noisy is not None
    assert found.noisy.ratio.item() == math.inf
    assert found.noisy.ratio_worst.item() == math.inf
    flat = together(x, torch.ones_like(y), signal, background, noisy=x, data_range=SCALE[dtype])
    assert flat is not None
    assert flat.noisy is not None
    assert torch.isnan(torch.stack([flat.noisy.retention, flat.noisy.retention_worst])).all()
    assert torch.isfinite(flat.noisy.ratio_worst).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_a_profile_with_its_noisy_image_is_the_same_from_one_read(dtype: torch.dtype) -> None:
    x, y, signal, background = case(dtype, 2, 1, 150, 200)
    noisy = x.roll(1, dims=-1)
    options = {"data_range": SCALE[dtype], "metrics": ("psnr", "ssim", "cnr"), "masks": (signal, background)}
    fast = semnr.profile(x, y, noise=noisy, **options)
    slow = semnr.profile(x, y, noise=noisy, backend="reference", **options)
    assert fast.flags == slow.flags
    assert set(fast.columns) == set(slow.columns)
    assert {"psnr_noisy", "cnr_fixed_noise_worst", "contrast_retention"} <= set(fast.columns)
    for name in slow.columns:
        assert fast.column(name) == pytest.approx(slow.column(name), rel=1e-6), name
    assert fast.psnr_noisy == pytest.approx(semnr.psnr(noisy, y, data_range=SCALE[dtype], reduction="none").numpy())


def test_a_constant_region_has_no_variance_and_a_pedestal_leaves_no_trace(backend: str) -> None:
    x, y, signal, background = case(torch.float32, 1, 1, 200, 300)
    x, y = x * 20 + 40000, y * 20 + 40000
    x[signal] = 0.3
    found = together(x, y, signal, background, data_range=65535.0, backend=backend)
    assert found is not None
    assert found.signal.variance.item() == 0
    exact = x[background].double().var(correction=0).item()
    assert found.background.variance.item() == pytest.approx(exact, rel=1e-9)


def test_pixels_outside_the_regions_never_reach_their_moments(backend: str) -> None:
    x, y, signal, background = case(torch.float32, 1, 1, 64, 64)
    wanted = together(x, y, signal, background, data_range=1e6, backend=backend)
    spoiled = torch.where(signal | background, x, 1e6)
    found = together(spoiled, y, signal, background, data_range=1e6, backend=backend)
    assert found is not None
    assert wanted is not None
    assert all(torch.equal(a, b) for a, b in zip(found.signal, wanted.signal, strict=True))


def test_what_no_row_of_numbers_tells_is_left_to_the_ops(backend: str) -> None:
    x, y, signal, background = case(torch.float32, 1, 1, 64, 64)
    bad = x.clone()
    bad[..., 3, 3] = math.nan
    nothing = torch.zeros_like(signal)
    options = {"data_range": 1.0, "backend": backend}
    assert together(bad, y, signal, background, **options) is None
    assert together(x, bad, signal, background, **options) is None
    assert together(x, y, nothing, background, **options) is None
    assert together(x, y, signal, signal, **options) is None
    assert together(x[..., :10], y[..., :10], signal[..., :10], background[..., :10], **options) is None
    assert together(x.clone().requires_grad_(), y, signal, background, **options) is None


def test_what_cannot_be_scored_together_is_left_to_the_ops() -> None:
    x, y, signal, background = case(torch.float32, 1, 1, 64, 64)
    assert together(x, y, signal, background, data_range=1.0, backend="reference") is None
    assert together(x.half(), y.half(), signal, background, data_range=1.0) is None
    assert together(x.mT, y.mT, signal, background, data_range=1.0) is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_a_profile_is_the_same_from_one_read_and_from_the_reference(backend: str, dtype: torch.dtype) -> None:
    x, y, signal, background = case(dtype, 2, 1, 80, 90)
    options = {"data_range": SCALE[dtype], "metrics": ("psnr", "ssim", "cnr"), "masks": (signal, background)}
    with registry.recording() as used:
        fast = semnr.profile(x, y, backend=backend, **options)
    assert {used[op] for op in ("pixel", "ssim", "cnr")} == {"native" if backend == "auto" else backend}
    slow = semnr.profile(x, y, backend="reference", **options)
    assert fast.settings == slow.settings
    assert fast.flags == slow.flags
    assert list(fast.columns) == list(slow.columns)
    for name in slow.columns:
        assert fast.column(name) == pytest.approx(slow.column(name), abs=1e-6), name


@pytest.mark.parametrize("shape", [(2, 1, 80, 90), (1, 1, 11, 523), (2, 3, 40, 50)], ids=str)
@pytest.mark.parametrize("dtype", [*SCALE, torch.float16], ids=str)
def test_a_profile_knows_its_reference_by_mean_and_spread_whichever_way_it_is_scored(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    scale = SCALE.get(dtype, 1.0)
    y = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 0.1 * scale + (0.9 * scale)
    y = y.to(dtype)
    x, low = y.flip(-1).contiguous(), y.double() < 0.93 * scale
    regions = low.all(1, keepdim=True), (~low).all(1, keepdim=True)
    for metrics in (("psnr", "ssim", "cnr"), ("psnr",)):
        p = semnr.profile(x, y, data_range=scale, metrics=metrics, masks=regions)
        flat = y.double().flatten(1)
        assert p.column("reference_mean") == pytest.approx(flat.mean(1).numpy(), rel=1e-13)
        assert p.column("reference_std") == pytest.approx(flat.std(1, correction=0).numpy(), rel=1e-11)
    other = semnr.profile(x, (y.double() * 0.999).to(dtype), data_range=scale, metrics=("psnr", "ssim", "cnr"))
    with pytest.raises(ValueError, match="reference: its mean or σ differs on"):
        semnr.guard(other, p)


@pytest.mark.parametrize("dtype", list(SCALE), ids=str)
@pytest.mark.parametrize("shape", [(40, 50), (1, 40, 50), (1, 1, 40, 50), (1, 3, 40, 50), (2, 1, 40, 50)], ids=str)
def test_the_usual_call_gives_what_the_general_one_gives(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, y, _, _ = case(dtype, *shape)
    for metric in (semnr.mse, semnr.mae, semnr.psnr, semnr.ssim):
        usual = metric(x, y, data_range=SCALE[dtype])
        general = metric(x, y, data_range=SCALE[dtype], nan="propagate")
        assert usual.dtype == general.dtype
        assert usual.shape == general.shape
        assert usual.item() == pytest.approx(general.item(), rel=1e-14), metric


def test_the_usual_call_heeds_a_backend_named_around_it() -> None:
    x, y, _, _ = case(torch.float32, 1, 1, 32, 32)
    with semnr.use_backend("reference"), registry.recording() as used:
        semnr.psnr(x, y, data_range=1.0)
        semnr.ssim(x, y, data_range=1.0)
    assert used == {"pixel": "reference", "ssim": "reference"}
