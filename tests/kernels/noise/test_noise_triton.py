"""The noise law's Triton kernels under the interpreter, on small tiles: `TRITON_INTERPRET=1`, see .ci/triton."""

from __future__ import annotations

import evidence_tiles
import numpy as np
import pytest
import test_noise_op
import torch

import backends
from semnr_kernels import batched, noise_law
from semnr_kernels.noise import fit, on_device

INTERPRET = "triton-interpret"


@pytest.fixture(autouse=True)
def interpreter() -> str:
    return backends.require("noise", INTERPRET)


@pytest.mark.parametrize("kind", ["float", "clipped", "white"])
def test_triton_gives_the_definition(kind: str) -> None:
    x = evidence_tiles.case(kind, 56, 64).x
    ends = test_noise_op.ends_of(x)
    test_noise_op.assert_like(*(fit([[x[0, 0]]], [ends], backend)[0] for backend in (INTERPRET, "reference")))


def test_triton_takes_windows_of_a_batch_and_the_bits_do_not_depend_on_it() -> None:
    from semnr_kernels.noise import triton_kernel

    images = torch.cat([evidence_tiles.case(kind, 48, 60).x[0] for kind in ("lines", "metal")])
    windows = [images[:, :30, 6:50], images[:, 20:, ::2]]
    ends = triton_kernel.ends(windows, 255.0)
    whole = triton_kernel.laws(windows, *ends)
    alone = triton_kernel.laws([v[1:].clone() for v in windows], *(v[1:] for v in ends))  # windows of their own
    for name, one, other in zip(whole._fields, alone, whole, strict=True):
        assert torch.equal(one[0].nan_to_num(), other[1].nan_to_num()), name
    found = on_device.told(batched.on_host(whole._asdict()))
    exact = fit([[v[i] for v in windows] for i in range(2)], [noise_law.Ends(0, 255, 0)] * 2, "reference")
    for got, want in zip(found, exact, strict=True):
        test_noise_op.assert_like(got, want)


@pytest.mark.parametrize("data_range", [None, 255.0, 4095.0])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
def test_triton_finds_ends_and_step_as_torch_does(dtype: torch.dtype, data_range: float | None) -> None:
    from semnr_kernels.noise import triton_kernel

    draw = np.random.default_rng(3)
    images = torch.from_numpy(np.clip(draw.normal(60, 30, (2, 40, 50)), 9, 130).round() * 3 % 256).to(dtype)
    windows = [images[:, :, :20], images[:, 5:]]
    for got, want in zip(
        (*triton_kernel.ends(windows, data_range), triton_kernel.steps(windows)),
        (*on_device.ends(windows, data_range), on_device.steps(windows)),
        strict=True,
    ):
        assert torch.equal(got, want)


def test_triton_whitens_as_torch_does() -> None:
    from semnr_kernels.noise import triton_kernel

    lags = torch.tensor([[0.5, 0.2, 0.1, 0.0], [1.0, 1.0, 1.0, 1.0], [-0.3, 0.9, -0.8, 0.1], [0.0] * 4])
    products = torch.stack([lags, torch.ones_like(lags)], 2).double()
    products[3] = 0
    torch.testing.assert_close(triton_kernel.whitening(products), on_device.whitening(products), rtol=1e-12, atol=0)


def test_triton_finds_quantiles_where_a_sample_misleads() -> None:
    """Values that no sampled chunk holds, equal ones, and signs."""
    from semnr_kernels import triton_support
    from semnr_kernels.noise import triton_stages

    pixels = 2000
    levels = torch.zeros(3, pixels)
    levels[0, 8:128] = torch.linspace(-9, -1, 120)
    levels[2] = torch.randn(pixels, generator=torch.Generator().manual_seed(1))
    state = torch.zeros(3, triton_stages.STATE, dtype=torch.float64)
    near, spare = torch.zeros(3, dtype=torch.int32), torch.empty(2, 3, pixels, dtype=torch.int32)
    shares = torch.tensor([0.03, 0.9], dtype=torch.float64)
    triton_support.launch(
        triton_stages.quantiles, (2, 3), state, near, near, shares, levels, torch.zeros_like(levels), spare, pixels,
        KIND=0, PLACE=0, BLOCK=256,
    )  # fmt: skip
    np.testing.assert_allclose(state[:, :2], np.quantile(levels.double(), shares, axis=1).T, rtol=1e-15)


def test_a_batch_of_evidence_reads_tritons_noise_as_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    from semnr.trust import at_once
    from semnr_kernels.noise import triton_kernel

    images = evidence_tiles.case("lines", 48, 60)
    inputs = {"noisy": images.x, "denoised": images.d}
    asked = at_once.Asked(True, False, -1, ((1.0, 4.0),), None, None, "error", False)
    found, usual = [], at_once._kernels
    for noise in (on_device, triton_kernel):
        monkeypatch.setattr(
            at_once, "_kernels", lambda op, images, noise=noise: noise if op == "noise" else usual(op, images)
        )
        rows, layout, _ = at_once._computed(inputs, asked)
        found.append({k: v for k, v in batched.unpacked(rows, layout).items() if not k.startswith("noise spacing")})
    assert found[0].keys() == found[1].keys()
    for name, want in found[0].items():
        if name.removeprefix("noise ") not in ("levels", "variances"):  # of bins that do not count, anything
            np.testing.assert_allclose(found[1][name], want, rtol=1e-4, atol=1e-6, err_msg=name)
