"""|x − y|, (x − y)² and the extremes from SSIM's own read: backends against the definition, forward and backward."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import backends
from semnr_kernels import cuda_support, ssim
from semnr_kernels.ssim import Settings

APART = Settings(data_range=1.0, want_apart=True)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.uint16)
# aligned and not; wider than a strip; a last row and column of blocks of every kind; less than two windows
SHAPES = ((1, 1, 128, 64), (2, 3, 37, 45), (1, 1, 40, 290), (1, 2, 11, 13))


def fused() -> list[str]:
    return [b for b in backends.params("ssim") if b.startswith(("cuda", "triton", "native"))]


def pair(shape: tuple[int, ...], dtype: torch.dtype, step: int = 1) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Images of which a few pixels are equal, every `step`-th column of wider ones; and their range."""
    generator = torch.Generator().manual_seed(sum(shape))
    wide = (*shape[:-1], shape[-1] * step)
    x = torch.rand(wide, generator=generator)
    y = (x + 0.1 * torch.randn(wide, generator=generator)).clamp(0, 1)
    y[..., 3, ::4] = x[..., 3, ::4]
    scale = float(torch.iinfo(dtype).max) if not dtype.is_floating_point else 1.0
    x, y = (v.mul(scale).round() if scale > 1 else v for v in (x, y))
    return x.to(dtype)[..., ::step], y.to(dtype)[..., ::step], scale


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", fused())
def test_what_is_measured_is_that_of_the_definition_and_no_bit_of_ssim_changes(
    backend: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    if backend == "triton-interpret" and shape == SHAPES[1] and dtype != torch.float32:
        pytest.skip("the interpreter pays by the plane")
    x, y, scale = pair(shape, dtype)
    asked = replace(APART, data_range=scale)
    found = ssim.rows(x, y, asked, backend=backend)
    alone = ssim.rows(x, y, replace(asked, want_apart=False), backend=backend)
    wanted = ssim.rows(x, y, asked, backend="reference")
    assert torch.equal(found.score, alone.score)
    assert torch.equal(found.contrast_structure, alone.contrast_structure)
    torch.testing.assert_close(found.absolute, wanted.absolute, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.squared, wanted.squared, rtol=1e-6, atol=0)
    assert found.extent is not None
    assert wanted.extent is not None
    assert found.extent.tolist() == wanted.extent.tolist()


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("backend", fused())
def test_the_gradient_is_that_of_both_terms_and_0_where_pixels_are_equal(
    backend: str, dtype: torch.dtype, shape: tuple[int, ...], step: int
) -> None:
    if backend == "triton-interpret" and (step == 2 or dtype != torch.float32 or shape[0] == 2):
        pytest.skip("the interpreter pays by the plane")
    x, y, _ = pair(shape, dtype, step)
    weights = 1 + torch.arange(2 * shape[0] * shape[1], dtype=torch.float64).view(2, *shape[:2])

    def gradients(by: str) -> tuple[torch.Tensor, ...]:
        leaves = [v.clone().requires_grad_() for v in (x, y)]
        rows = ssim.rows(*leaves, APART, backend=by)
        assert rows.squared is not None
        assert not rows.squared.requires_grad
        (weights[0] * rows.absolute - weights[1] * rows.score).sum().backward()
        return tuple(leaf.grad for leaf in leaves)  # type: ignore[misc]

    for found, wanted in zip(gradients(backend), gradients("reference"), strict=True):
        room = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-5) * wanted.abs().max().double()
        assert (found.double() - wanted.double()).abs().max() <= room


@pytest.mark.parametrize("backend", fused())
def test_equal_pixels_have_no_slope_of_their_own_whatever_the_images_means(backend: str) -> None:
    """The kernels work about each image's mean: equal pixels must still be seen as equal."""
    x = torch.full((1, 1, 32, 40), 0.3)
    y = x.clone()
    y[..., ::2, :] = 0.9000001
    leaf = x.clone().requires_grad_()
    ssim.rows(leaf, y, APART, backend=backend).absolute.sum().backward()  # type: ignore[union-attr]
    assert leaf.grad is not None
    assert torch.equal(leaf.grad[..., 1::2, :], torch.zeros(1, 1, 16, 40))
    assert torch.equal(leaf.grad[..., ::2, :], torch.full((1, 1, 16, 40), -1 / (32 * 40)))


@pytest.mark.parametrize(
    ("options", "kernel"),
    [
        ({}, "ssim_apart_forward"),
        ({"window_size": 7}, "ssim_forward"),
        ({"border": "reflect"}, "ssim_forward"),
        ({"precision": "float64"}, "ssim_general"),
    ],
)
def test_cuda_fuses_whole_windows_of_11_and_leaves_the_rest_to_torch(options: dict[str, object], kernel: str) -> None:
    backends.require("ssim", "cuda-emulated")
    x, y, _ = pair((1, 1, 40, 48), torch.float32)
    asked = replace(APART, **options)  # type: ignore[arg-type]
    with cuda_support.recording() as found:
        rows = ssim.rows(x, y, asked, backend="cuda-emulated")
    assert kernel in {name.split("<")[0] for one in found for name in one.counters}
    torch.testing.assert_close(rows.absolute, ssim.rows(x, y, asked, backend="reference").absolute, rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", fused())
def test_a_pixel_that_is_no_number_is_no_extreme_and_spoils_its_own_image(backend: str) -> None:
    x, y, _ = pair((2, 1, 24, 32), torch.float32)
    x[0, 0, 5, 6] = float("nan")
    rows = ssim.rows(x, y, APART, backend=backend)
    assert rows.absolute is not None
    assert rows.extent is not None
    assert torch.isnan(rows.absolute).flatten().tolist() == [True, False]
    known = torch.cat((x, y))
    known = known[~torch.isnan(known)]
    assert rows.extent.tolist() == [known.min().item(), known.max().item()]
