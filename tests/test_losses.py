"""The losses: one minus the metric, usable for training and finite wherever a denoiser may end up."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import cases
import semnr_kernels as kernels
from semnr.losses import CharbonnierLoss, DISTSLoss, FSIMLoss, L1SSIMLoss, LPIPSLoss, MSSSIMLoss, ProfileLoss, SSIMLoss

# name -> how to make it, the side of a small image that it takes
MAKE: dict[str, tuple[Any, int]] = {
    "charbonnier": (lambda **k: CharbonnierLoss(1.0, **k), 16),
    "ssim": (lambda **k: SSIMLoss(1.0, **k), 24),
    "l1_ssim": (lambda **k: L1SSIMLoss(1.0, **k), 24),
    "ms_ssim": (lambda **k: MSSSIMLoss(1.0, **k), 164),
    "fsim": (lambda **k: FSIMLoss(1.0, **k), 56),
    "dists": (lambda **k: DISTSLoss(1.0, weights="random", **k), 32),
    "profile": (lambda **k: ProfileLoss({"charbonnier": 1.0, "ssim": 0.5, "fsim": 0.5}, 1.0, **k), 56),
}
NAMES = tuple(MAKE)


def pair(side: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    candidate, clean = cases.noisy_pair(side, side, sigma=0.1, seed=seed)
    return (torch.from_numpy(v)[None, None].to(dtype) for v in (candidate, clean))  # type: ignore[return-value]


def batch(side: int, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [pair(side, seed) for seed in range(count)]
    return tuple(torch.cat(parts) for parts in zip(*(tuple(p) for p in pairs), strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["ssim", "ms_ssim", "fsim"])
def test_a_loss_is_one_minus_its_metric(name: str) -> None:
    make, side = MAKE[name]
    metric = {"ssim": kernels.ssim.ssim, "ms_ssim": kernels.ssim.ms_ssim, "fsim": kernels.fsim.fsim}[name]
    x, y = batch(side)
    rows = metric(x, y, data_range=1.0, reduction="none")
    torch.testing.assert_close(make(reduction="none")(x, y), (1 - rows).float(), rtol=0, atol=0)
    assert make()(x, y).item() == pytest.approx(1 - rows.mean().item(), abs=1e-7)
    assert make(reduction="sum")(x, y).item() == pytest.approx(2 - rows.sum().item(), abs=1e-6)


def test_the_dists_loss_is_the_distance_itself() -> None:
    make, side = MAKE["dists"]
    x, y = batch(side)
    distance = kernels.dists.dists(x, y, data_range=1.0, weights="random")
    assert make()(x, y).item() == pytest.approx(distance.item(), rel=1e-6)
    assert make()(y, y).item() == pytest.approx(0, abs=1e-6)


def test_the_charbonnier_loss_is_its_formula() -> None:
    x, y = torch.full((3, 5), 3.0), torch.zeros((3, 5))
    assert CharbonnierLoss(1.0, epsilon=4.0)(x, y).item() == 5.0
    assert CharbonnierLoss(3.0, epsilon=0.75)(x, y).item() == 1.25
    assert CharbonnierLoss(1.0, epsilon=1e-3)(y, y).item() == pytest.approx(1e-3)
    mask = torch.zeros((3, 5), dtype=torch.bool)
    mask[0] = True
    y[0] = 3.0
    assert CharbonnierLoss(1.0, epsilon=0.5)(x, y, mask=mask).item() == 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_loss_has_the_dtype_of_the_candidate(name: str, dtype: torch.dtype) -> None:
    make, side = MAKE[name]
    x, y = pair(side, dtype=dtype)
    x.requires_grad_()
    loss = make()(x, y)
    assert loss.dtype == dtype
    assert loss.shape == ()
    loss.backward()
    assert x.grad.dtype == dtype  # type: ignore[union-attr]
    assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]
    assert (x.grad != 0).any()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["flat", "identical", "half flat", "flat against lines", "lines against flat"])
def test_the_gradient_is_finite_where_there_is_nothing_to_see(name: str, case: str) -> None:
    make, side = MAKE[name]
    noisy, clean = pair(side)
    flat, half = torch.full_like(clean, 0.5), clean.clone()
    half[..., : side // 2] = 0.5
    x, y = {
        "flat": (flat, flat),
        "identical": (clean, clean),
        "half flat": (half, half),
        "flat against lines": (flat, clean),
        "lines against flat": (noisy, flat),
    }[case]
    x = x.clone().requires_grad_()
    loss = make()(x, y)
    assert math.isfinite(loss.item())
    loss.backward()
    assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_few_steps_of_descent_reduce_the_loss(name: str) -> None:
    make, side = MAKE[name]
    x, y = pair(side)
    x.requires_grad_()
    loss, optimiser = make(), torch.optim.SGD([x], lr=1.0)
    values = []
    for _ in range(4):
        optimiser.zero_grad()
        value = loss(x, y)
        value.backward()
        # a step of fixed length along the gradient: the losses have gradients of very different sizes
        x.grad *= 0.2 / x.grad.norm()  # type: ignore[operator]
        optimiser.step()
        values.append(value.item())
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


@pytest.mark.parametrize("name", ["charbonnier", "ssim"])
def test_gradcheck(name: str) -> None:
    make = MAKE[name][0]
    x, y = pair(12, dtype=torch.float64)
    assert torch.autograd.gradcheck(make(), (x.requires_grad_(), y))


def test_gradcheck_of_a_profile_along_random_directions() -> None:
    x, y = pair(50, dtype=torch.float64)
    make = MAKE["profile"][0]
    assert torch.autograd.gradcheck(make(), (x.requires_grad_(), y), fast_mode=True, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_copies_pickles_and_has_nothing_to_save(name: str) -> None:
    make, side = MAKE[name]
    loss = make()
    x, y = pair(side)
    before = loss(x, y)
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []
    buffer = io.BytesIO()
    torch.save(loss, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(loss),
        pickle.loads(pickle.dumps(loss)),
        torch.load(buffer, weights_only=False),
    ):
        other.load_state_dict(loss.state_dict())
        assert torch.equal(other(x, y), before)
    assert loss.to(torch.float16).train()(x, y) == before  # nothing to convert, nothing that depends on the mode


@pytest.mark.parametrize("name", NAMES)
def test_masked_pixels_have_no_gradient(name: str) -> None:
    make, side = MAKE[name]
    x, y = pair(side)
    mask = torch.ones((side, side), dtype=torch.bool)
    mask[:6, :6] = False
    x[0, 0, 0, 0] = math.nan
    x.requires_grad_()
    make()(x, y, mask=mask).backward()
    assert (x.grad[0, 0][~mask] == 0).all()  # type: ignore[index]
    assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]


class TestProfileLoss:
    def test_it_is_the_weighted_sum_of_its_terms(self) -> None:
        x, y = batch(56)
        loss = ProfileLoss({"charbonnier": 2.0, "ssim": 0.5, "fsim": 0.25}, 1.0, reduction="none")
        terms = loss.terms(x, y)
        assert list(terms) == ["charbonnier", "ssim", "fsim"]
        expected = 2 * terms["charbonnier"] + 0.5 * terms["ssim"] + 0.25 * terms["fsim"]
        torch.testing.assert_close(loss(x, y), expected)
        assert torch.equal(terms["ssim"], SSIMLoss(1.0, reduction="none")(x, y))

    def test_a_term_of_no_weight_is_not_computed(self) -> None:
        x, y = batch(16)  # too small for FSIM
        loss = ProfileLoss({"charbonnier": 1.0, "fsim": 0.0}, 1.0)
        assert loss(x, y).item() == CharbonnierLoss(1.0)(x, y).item()

    def test_options_reach_their_term(self) -> None:
        x, y = batch(24)
        loss = ProfileLoss({"ssim": 1.0}, 1.0, options={"ssim": {"sigma": 2.5, "window": "uniform"}})
        assert loss(x, y).item() == SSIMLoss(1.0, sigma=2.5, window="uniform")(x, y).item()

    @pytest.mark.parametrize(
        ("weights", "error", "says"),
        [
            (
                {"psnr": 1.0},
                ValueError,
                "'psnr'; accepted: 'charbonnier', 'ssim', 'l1_ssim', 'cnr_retention'",
            ),
            ({}, ValueError, "at least one weight above 0"),
            ({"ssim": 0.0}, ValueError, "at least one weight above 0"),
            ({"ssim": -1.0}, ValueError, r"weights\['ssim'\] is -1.0"),
            ({"ssim": math.inf}, ValueError, "finite"),
            ({"ssim": "much"}, TypeError, "str"),
            ({"ssim": True}, TypeError, "bool"),
            (["ssim"], TypeError, "weights is list"),
        ],
    )
    def test_weights_are_checked(self, weights: Any, error: type[Exception], says: str) -> None:
        with pytest.raises(error, match=says):
            ProfileLoss(weights, 1.0)

    def test_options_of_an_absent_term_are_refused(self) -> None:
        with pytest.raises(ValueError, match="options are given for fsim"):
            ProfileLoss({"ssim": 1.0}, 1.0, options={"fsim": {}})


@pytest.mark.parametrize("loss", [SSIMLoss, MSSSIMLoss, FSIMLoss, DISTSLoss, CharbonnierLoss])
def test_the_settings_are_checked_when_the_loss_is_made(loss: Any) -> None:
    with pytest.raises(ValueError, match="data_range is 0"):
        loss(0)
    with pytest.raises(ValueError, match="reduction is 'median'"):
        loss(1.0, reduction="median")
    with pytest.raises(TypeError, match="bandwidth"):
        loss(1.0, bandwidth=3)


@pytest.mark.parametrize(
    ("loss", "side", "options"),
    [
        (SSIMLoss, 32, {}),
        (MSSSIMLoss, 176, {}),
        (FSIMLoss, 64, {}),
        (DISTSLoss, 32, {"weights": "random"}),
        (LPIPSLoss, 32, {"weights": "random"}),
        (CharbonnierLoss, 32, {}),
    ],
)
def test_a_loss_takes_what_its_metric_takes(loss: Any, side: int, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 256, (2, 1, side, side)).astype(np.uint8) for _ in range(2))
    mask = np.ones((side, side), bool)
    mask[: side // 4] = False
    tensors = [torch.from_numpy(value) for value in (x, y)]
    wanted = loss(255, **options)(*tensors, mask=torch.from_numpy(mask))
    assert loss(**options)(*tensors, mask=torch.from_numpy(mask)) == wanted  # the range of the dtype
    assert loss(**options)(x, y, mask=mask) == wanted  # arrays
    assert loss(**options)(x.astype(np.uint16), y.astype(np.uint16)) != loss(255, **options)(x, y)
    for shape in ((side, side), (1, side, side), (1, 1, side, side)):
        one = loss(**options)(x[0].reshape(shape), y[0].reshape(shape))
        assert one.ndim == 0
        assert one == loss(**options)(x[:1], y[:1])
    with pytest.raises(ValueError, match="data_range is missing"):
        loss(**options)(*(tensor.float() for tensor in tensors))
    with pytest.raises(ValueError, match="as a stack of 5 images"):
        loss(255, **options)(*[torch.zeros(5, side, side)] * 2)


def test_the_names_hang_on_the_package() -> None:
    import semnr

    assert semnr.losses.SSIMLoss is SSIMLoss
    assert "data_range=1.0" in repr(SSIMLoss(1.0))


def test_bad_images_are_refused_by_name() -> None:
    x, y = pair(24)
    with pytest.raises(ValueError, match="the same shape"):
        SSIMLoss(1.0)(x, y[..., 1:])
    for loss in (SSIMLoss(1.0), CharbonnierLoss(1.0)):
        with pytest.raises(ValueError, match="x has 1 non-finite"):
            loss(torch.where(torch.arange(24) + torch.arange(24)[:, None] == 0, math.nan, x), y)
