"""Similarity of Scharr gradients: FSIM's own term on every backend, with its gradient, safe at flat areas."""

from __future__ import annotations

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

import backends
import cases
from semnr_kernels import _native, _registry
from semnr_kernels.fsim import fsim
from semnr_kernels.gradient import gradient_similarity, native, reference

DTYPES = (torch.float32, torch.float64)
# Rounding of magnitudes up to 255 · 1.5, through ∂S/∂a ≤ 1.2 / √T: 4e-6 in float32 at T = 160; grows as 1/√T.
MAP = {torch.float32: 4e-6, torch.float64: 1e-12}
GRADIENT = {torch.float32: 1e-5, torch.float64: 1e-11}  # of the largest reference gradient
SHAPES = [(1, 1, 1, 1), (1, 1, 1, 9), (2, 1, 7, 1), (2, 2, 65, 70), (1, 1, 130, 515)]


@pytest.fixture(params=backends.params("gradient"))
def backend(request: pytest.FixtureRequest) -> str:
    return backends.require("gradient", request.param)


def pair(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Textured, with a flat part in each image and one that both share."""
    rng = np.random.default_rng(seed)
    y = 255 * rng.random(shape)
    x = y + rng.normal(0, 20, shape)
    x[..., : shape[2] // 2, :] = 7
    y[..., : shape[3] // 2] = 9
    return torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype)


def weights(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(9).random(shape)).to(dtype)


def gradients(backend: str, x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> list[torch.Tensor]:
    """Of a weighted map to x and y, then of the weighted totals to x, y and the weight."""
    leaves = [v.clone().requires_grad_() for v in (x, y, w)]
    found = gradient_similarity(leaves[0], leaves[1], weight=leaves[2], backend=backend)
    each = 1 + torch.arange(found.total.numel(), dtype=torch.float64).reshape(found.total.shape)
    by_map = torch.autograd.grad((found.map.double() * w.flip(-1)).sum(), leaves[:2], retain_graph=True)
    return [*by_map, *torch.autograd.grad((found.total * each).sum(), leaves)]


def test_the_map_is_the_formula_with_scipys_correlation(backend: str) -> None:
    x, y = pair((1, 1, 40, 50))
    across = np.array([[-3.0, 0, 3], [-10, 0, 10], [-3, 0, 3]]) / 16
    a, b = (np.hypot(*(correlate(v[0, 0].numpy(), k, mode="constant") for k in (across, across.T))) for v in (x, y))
    expected = (2 * a * b + 160) / (a**2 + b**2 + 160)
    found = gradient_similarity(x, y, backend=backend)
    np.testing.assert_allclose(found.map[0, 0].numpy(), expected, rtol=0, atol=1e-12)
    assert found.total is None


def test_it_is_the_term_of_fsim() -> None:
    x, y = (torch.from_numpy(255 * v) for v in cases.noisy_pair())
    inside = fsim(x, y, data_range=255.0, details=True, precision="float64").components["gradient"]
    alone = gradient_similarity(x[None, None], y[None, None], backend="reference").map
    torch.testing.assert_close(alone[0, 0], inside)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_map_total_and_gradients_are_the_references(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, y = pair(shape, dtype)
    w = weights(shape, dtype)
    wanted = gradient_similarity(x, y, weight=w, backend="reference")
    found = gradient_similarity(x, y, weight=w, backend=backend)
    assert (found.map.double() - wanted.map).abs().max() <= MAP[dtype]
    assert found.total.dtype == torch.float64
    torch.testing.assert_close(found.total, wanted.total, rtol=MAP[dtype], atol=0)
    only = gradient_similarity(x, y, weight=w, want_map=False, backend=backend)
    assert only.map is None
    assert torch.equal(only.total, found.total)
    for g, r in zip(gradients(backend, x, y, w), gradients("reference", x, y, w), strict=True):
        assert g.dtype == dtype
        assert (g.double() - r.double()).abs().max() <= GRADIENT[dtype] * r.abs().max()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_flat_half_flat_and_identical_images_have_finite_gradients_and_zero_where_they_are_flat(
    backend: str, dtype: torch.dtype
) -> None:
    x, y = pair((1, 1, 40, 40), dtype)
    flat = torch.full_like(x, 0.3)
    w = torch.ones_like(x)
    for a, b in ((flat, flat), (x, flat), (flat, y), (x, y)):
        assert all(torch.isfinite(g).all() for g in gradients(backend, a, b, w))
    for g in gradients(backend, x, x, w)[:2]:
        assert g.abs().max() <= 1e-15
    assert (gradient_similarity(x, x, backend=backend).map == 1).all()
    inside = gradients(backend, x, y, w)[0][0, 0, 2:17, 2:17]  # flat there in both
    assert (inside == 0).all()


def test_gradcheck_of_map_and_total(backend: str) -> None:
    x, y = (255 * torch.from_numpy(np.random.default_rng(k).random((1, 2, 5, 6))) for k in (0, 1))
    w = weights((1, 2, 5, 6), torch.float64)
    leaves = tuple(v.requires_grad_() for v in (x, y, w))

    def both(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = gradient_similarity(a, b, weight=c, backend=backend)
        return found.map, found.total

    assert torch.autograd.gradcheck(both, leaves, atol=1e-6)
    assert torch.autograd.gradgradcheck(both, leaves, atol=1e-6)


@pytest.mark.skipif(_native.probe() is not None, reason=f"no native module: {_native.probe()}")
class TestNative:
    @pytest.fixture(params=_registry.FORCED)
    def forced(self, request: pytest.FixtureRequest) -> str:
        return backends.require("gradient", request.param)

    def test_layout_and_threads_do_not_change_a_bit(self, forced: str) -> None:
        x, y = pair((2, 2, 150, 600), torch.float32)
        w = weights(x.shape, torch.float32)
        wanted = [*gradient_similarity(x, y, weight=w, backend=forced), *gradients(forced, x, y, w)]
        turned = [v.transpose(2, 3).contiguous().transpose(2, 3) for v in (x, y, w)]
        spread = [torch.stack([v, v], dim=-1).flatten(-2)[..., ::2] for v in (x, y, w)]
        for threads, images in ((2, (x, y, w)), (5, (x, y, w)), (1, turned), (2, spread)):
            torch.set_num_threads(threads)
            a, b, c = images
            found = [*gradient_similarity(a, b, weight=c, backend=forced), *gradients(forced, a, b, c)]
            assert all(torch.equal(p, q) for p, q in zip(found, wanted, strict=True))

    def test_only_the_gradients_that_are_wanted_are_made(self, forced: str) -> None:
        x, y = pair((1, 1, 20, 20), torch.float32)
        w = weights(x.shape, torch.float32)
        every = gradients(forced, x, y, w)
        y.requires_grad_()
        gradient_similarity(x, y, weight=w, want_map=False, backend=forced).total.sum().backward()
        assert torch.equal(y.grad, every[3])
        assert x.grad is None

    def test_other_dtypes_are_left_to_the_reference(self) -> None:
        x, y = pair((1, 1, 20, 20), torch.float16)
        assert native.supports(_registry.Call.of("gradient", x, y)) == "has no float16 loop"
        assert gradient_similarity(x, y).map.dtype == torch.float64

    @hypothesis.settings(
        max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
    )
    @hypothesis.given(st.data())
    def test_any_shape_constant_and_layout(self, forced: str, data: st.DataObject) -> None:
        dtype = data.draw(st.sampled_from(DTYPES))
        shape = tuple(data.draw(st.integers(1, most)) for most in (2, 2, 70, 70))
        wide = (*shape[:3], 2 * shape[3])
        x, y = (v[..., ::2] for v in pair(wide, dtype, data.draw(st.integers(0, 99))))
        w = weights(wide, dtype)[..., ::2]
        constant = data.draw(st.sampled_from((160.0, 1.0, 1e4)))
        isa = forced.removeprefix("native-")
        found = native.similarity(x, y, w, constant=constant, want_map=True, isa=isa)
        wanted = reference.similarity(x, y, w, constant=constant, want_map=True)
        bound = MAP[dtype] * max(1.0, math.sqrt(160 / constant))
        assert (found.map.double() - wanted.map).abs().max() <= bound
        torch.testing.assert_close(found.total, wanted.total, rtol=bound, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"t2": 0.0}, ValueError, "t2 is 0"),
        ({"t2": math.nan}, ValueError, "t2 is nan"),
        ({"want_map": False}, ValueError, "want_map is False without weight"),
        ({"y": torch.zeros(1, 1, 8, 9)}, ValueError, "y has shape"),
        ({"y": torch.zeros(1, 1, 8, 8, dtype=torch.float64)}, TypeError, "y float64"),
        ({"x": torch.zeros(8, 8)}, ValueError, r"x has shape \(8, 8\)"),
        ({"x": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}, TypeError, "x has dtype uint8"),
        ({"weight": torch.zeros(1, 1, 4, 4)}, ValueError, "weight has shape"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], error: type[Exception], says: str) -> None:
    arguments = {"x": torch.zeros(1, 1, 8, 8), "y": torch.zeros(1, 1, 8, 8)} | change
    with pytest.raises(error, match=says):
        gradient_similarity(arguments.pop("x"), arguments.pop("y"), **arguments)  # type: ignore[arg-type]
