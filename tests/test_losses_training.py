"""The losses in a training loop: either argument, AMP, layouts, transforms, half precision, second gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cases
import semnr
import semnr_kernels as kernels
from semnr import losses

MAKE: dict[str, tuple[Any, int]] = {
    "charbonnier": (lambda **k: losses.CharbonnierLoss(1.0, **k), 16),
    "ssim": (lambda **k: losses.SSIMLoss(1.0, **k), 32),
    "l1_ssim": (lambda **k: losses.L1SSIMLoss(1.0, **k), 32),
    "ms_ssim": (lambda **k: losses.MSSSIMLoss(1.0, window_size=3, **k), 48),
    "fsim": (lambda **k: losses.FSIMLoss(1.0, **k), 48),
    "dists": (lambda **k: losses.DISTSLoss(1.0, weights="random", **k), 32),
    "lpips": (lambda **k: losses.LPIPSLoss(1.0, weights="random", **k), 32),
    "cnr_retention": (lambda **k: losses.CNRRetentionLoss(**k), 32),
    "profile": (lambda **k: losses.ProfileLoss({"l1_ssim": 1.0, "cnr_retention": 0.2}, 1.0, **k), 32),
}
QUICK = ("charbonnier", "ssim", "l1_ssim", "ms_ssim", "cnr_retention", "profile")


def pair(side: int, count: int = 2, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    made = [cases.noisy_pair(side, side, sigma=0.1, seed=seed) for seed in range(count)]
    x, y = (torch.stack([torch.from_numpy(m[i]) for m in made])[:, None].float() for i in (0, 1))
    return (0.8 * x + 0.1).repeat(1, channels, 1, 1), y.repeat(1, channels, 1, 1)


def gradient(loss: Any, x: torch.Tensor, y: torch.Tensor, to: int) -> torch.Tensor:
    images = [x.detach().clone(), y.detach().clone()]
    images[to].requires_grad_()
    loss(*images).backward()
    found = images[to].grad
    assert found is not None
    return found


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("to", [0, 1], ids=["candidate", "reference"])
def test_the_gradient_flows_to_either_argument(name: str, to: int) -> None:
    make, side = MAKE[name]
    x, y = pair(side)
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    images = [x.double(), y.double()]
    slope = (gradient(make(), *images, to) * along).sum().item()
    step = 1e-6
    ends = []
    for sign in (-1, 1):
        moved = list(images)
        moved[to] = images[to] + sign * step * along
        ends.append(make()(*moved).item())
    # FSIM's noise threshold is a median: its gradient follows the pixel that is the median, and jumps with it
    rel = {"fsim": 0.2, "dists": 0.01}.get(name, 2e-3)
    assert slope == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=rel, abs=1e-7)


@pytest.mark.parametrize("name", MAKE)
def test_channels_last_is_the_same_images(name: str) -> None:
    make, side = MAKE[name]
    x, y = pair(side, channels=3)
    last = [v.to(memory_format=torch.channels_last) for v in (x, y)]
    assert not last[0].is_contiguous()
    torch.testing.assert_close(make()(*last), make()(x, y), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradient(make(), *last, 0), gradient(make(), x, y, 0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_is_float32_and_the_scaled_gradient_is_finite(name: str, dtype: torch.dtype) -> None:
    make, side = MAKE[name]
    x, y = pair(side)
    net = torch.nn.Conv2d(1, 1, 3, padding=1)
    with torch.autocast("cpu", dtype=dtype):
        out = net(x)
        assert out.dtype == dtype
        loss = make()(out, y)
    assert loss.dtype == torch.float32
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    scaler.scale(loss).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    wanted = make()(out.detach().float(), y)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["noisy", "flat", "identical", "black against white"])
def test_half_precision_gives_no_nan(name: str, dtype: torch.dtype, case: str) -> None:
    make, side = MAKE[name]
    x, y = pair(side)
    flat = torch.full_like(x, 0.25)
    x, y = {
        "noisy": (x, y),
        "flat": (flat, flat),
        "identical": (y, y),
        "black against white": (torch.zeros_like(x), torch.ones_like(x)),
    }[case]
    x = x.to(dtype).requires_grad_()
    loss = make()(x, y.to(dtype))
    loss.backward()
    assert loss.isfinite()
    assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", QUICK)
def test_torch_func_agrees_with_backward(name: str) -> None:
    make, side = MAKE[name]
    x, y = (v.double() for v in pair(side))
    loss, along = make(), torch.ones_like(x) * 0.5
    found = torch.func.grad(loss)(x, y)
    torch.testing.assert_close(found, gradient(loss, x, y, 0), rtol=1e-5, atol=1e-10)
    value, tangent = torch.func.jvp(lambda a: loss(a, y), (x,), (along,))
    torch.testing.assert_close(value, loss(x, y), rtol=1e-5, atol=1e-10)
    torch.testing.assert_close(tangent, (found * along).sum(), rtol=1e-5, atol=1e-10)
    rows = torch.func.vmap(lambda a, b: loss(a, b))(x, y)
    torch.testing.assert_close(rows, torch.stack([loss(a, b) for a, b in zip(x, y, strict=True)]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", QUICK)
def test_a_second_gradient_is_right_in_eager_mode(name: str) -> None:
    make, side = MAKE[name]
    x, y = (v.double() for v in pair(side, count=1))
    x.requires_grad_()
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    (first,) = torch.autograd.grad(make()(x, y), x, create_graph=True)
    if not first.requires_grad:  # of a loss that is linear in the pixels it is zero
        assert name == "cnr_retention"
        return
    (second,) = torch.autograd.grad((first * along).sum(), x)
    step = 1e-5
    ends = [gradient(make(), x + sign * step * along, y, 0) for sign in (-1, 1)]
    wanted = (ends[1] - ends[0]) / (2 * step)
    assert (second - wanted).abs().max() <= 1e-3 * wanted.abs().max() + 1e-9


def test_a_second_gradient_inside_a_compiled_graph_says_where_to_take_it() -> None:
    x, y = pair(24)
    x.requires_grad_()
    compiled = torch.compile(losses.L1SSIMLoss(1.0), backend="eager", fullgraph=True)
    (first,) = torch.autograd.grad(compiled(x, y), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"no second derivative inside torch\.compile; accepted: to take it"):
        first.sum().backward()


# --- L1 + SSIM ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 3, 140, 300), (1, 1, 11, 11), (1, 1, 40, 37)])
@pytest.mark.parametrize("border", ["valid", "reflect"])
def test_l1_ssim_is_its_two_terms_forward_and_backward(dtype: torch.dtype, shape: tuple[int, ...], border: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(shape, generator=generator).to(dtype)
    y = (x.float() + 0.1 * torch.randn(shape, generator=generator)).to(dtype)
    y[..., 3, 4] = x[..., 3, 4]  # where the gradient of |x - y| is 0

    def apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        score = kernels.ssim.ssim(a, b, data_range=1.0, border=border, backend="reference")
        return 0.7 * (a.double() - b.double()).abs().mean() + 0.3 * (1 - score)

    def fused(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return kernels.ssim.l1_ssim(a, b, data_range=1.0, ssim_weight=0.3, border=border)

    assert fused(x, y).item() == pytest.approx(apart(x, y).item(), abs=1e-6)
    for to in (0, 1):
        wanted, found = (gradient(f, x, y, to).double() for f in (apart, fused))
        room = {torch.float16: 1e-2, torch.bfloat16: 2e-2}.get(dtype, 1e-4) * wanted.abs().max()
        assert (found - wanted).abs().max() <= room + (1.3e-7 if dtype == torch.float16 else 0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_l1_ssim_where_float32_is_too_narrow_counts_each_pixel_once(dtype: torch.dtype) -> None:
    x, y = torch.full((1, 1, 300, 600), 200.0), torch.full((1, 1, 300, 600), 3.0)
    x[..., ::7] = 40.0
    x, y = x.to(dtype), y.to(dtype)
    found = kernels.ssim.l1_ssim(x, y, data_range=1.0)
    wanted = kernels.ssim.l1_ssim(x, y, data_range=1.0, backend="reference")
    assert found.item() == pytest.approx(wanted.item(), rel=1e-7)


def test_l1_ssim_with_a_mask_leaves_its_pixels_out_of_both_terms() -> None:
    x, y = pair(40)
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[:, :25] = True
    spoiled = torch.where(mask, x, 9.0)
    loss = losses.L1SSIMLoss(1.0, reduction="none")
    torch.testing.assert_close(loss(spoiled, y, mask=mask), loss(x, y, mask=mask))
    term = losses.L1SSIMLoss(1.0, ssim_weight=0.0)(x, y, mask=mask).item()
    assert term == pytest.approx((x - y)[..., :25].abs().mean().item(), rel=1e-5)


@pytest.mark.parametrize("isa", ["native-baseline", "native-avx2", "native-avx512", "reference"])
def test_every_instruction_set_measures_the_same_extremes(isa: str) -> None:
    if isa not in kernels.backends() and isa != "reference":
        pytest.skip(f"this machine has no {isa}")
    generator = torch.Generator().manual_seed(2)
    for dtype, shape in (
        (torch.float32, (2, 2, 33, 270)),
        (torch.uint8, (1, 1, 140, 19)),
        (torch.float64, (1, 1, 20, 40)),
    ):
        x, y = (torch.rand(shape, generator=generator).mul(200).to(dtype) for _ in range(2))
        x[..., -1, -1], y[..., 0, 0] = 250, 0
        settings = kernels.ssim.Settings(data_range=255.0, want_apart=True)
        rows = kernels.ssim.rows(x, y, settings, backend=isa)
        assert rows.extent is not None
        assert rows.extent.tolist() == [0.0, 250.0]
        wanted = (x.double() - y.double()).abs().mean(dim=(2, 3))
        torch.testing.assert_close(rows.absolute, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_weight_outside_0_to_1_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"ssim_weight is .* accepted: a number from 0 to 1"):
        losses.L1SSIMLoss(1.0, ssim_weight=weight)(*pair(16))


# --- CNR retention ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 1.0, 1.25])
def test_contrast_kept_by_hand(share: float) -> None:
    _, y = pair(32, count=1)
    middle = y.mean()
    loss = losses.CNRRetentionLoss()(middle + share * (y - middle), y)
    assert loss.item() == pytest.approx(abs(1 - share), abs=1e-5)


def test_without_contrast_in_the_reference_there_is_nothing_to_keep() -> None:
    x, y = pair(32)
    y[1] = 0.5
    x.requires_grad_()
    rows = losses.CNRRetentionLoss(reduction="none")(x, y)
    rows.sum().backward()
    assert rows[1] == 0
    assert not x.grad[1].any()  # type: ignore[index]
    assert x.grad[0].any()  # type: ignore[index]


def test_descent_on_contrast_brings_it_back() -> None:
    _, y = pair(32, count=1)
    x = (0.6 * y).requires_grad_()
    loss, optimiser = losses.CNRRetentionLoss(), torch.optim.SGD([x], lr=0.5)
    before = loss(x, y).item()
    for _ in range(20):
        optimiser.zero_grad()
        loss(x, y).backward()
        optimiser.step()
    assert loss(x, y).item() < before


# --- arrays of other libraries -------------------------------------------------------------------------------------


class OnlyDLPack:
    """An array that another library would bring."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class OnlyArray:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array


@pytest.mark.parametrize("kind", [OnlyDLPack, OnlyArray])
def test_arrays_of_other_libraries_are_scored_without_a_copy(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (v[0, 0].numpy() for v in pair(32))
    read = []
    plain = semnr.metrics._call.__globals__["kernels"].ssim.ssim

    def spy(a: torch.Tensor, b: torch.Tensor, **options: Any) -> Any:
        read.extend((a.data_ptr(), b.data_ptr()))
        return plain(a, b, **options)

    monkeypatch.setattr(kernels.ssim, "ssim", spy)
    value = semnr.ssim(kind(x), kind(y), data_range=1.0)
    assert read == [x.ctypes.data, y.ctypes.data]
    assert float(value) == float(plain(torch.from_numpy(x), torch.from_numpy(y), data_range=1.0))
    assert isinstance(value, torch.Tensor if kind is OnlyDLPack else np.floating)
    loss = losses.L1SSIMLoss(1.0)
    assert loss(kind(x), kind(y)).item() == pytest.approx(loss(torch.from_numpy(x), torch.from_numpy(y)).item())


def test_a_read_only_dlpack_array_is_scored_too() -> None:
    x, y = (v[0, 0].numpy() for v in pair(32))
    x.flags.writeable = False
    assert float(semnr.ssim(OnlyArray(x), OnlyArray(y), data_range=1.0)) < 1
