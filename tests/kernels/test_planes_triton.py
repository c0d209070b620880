"""Levelled images by Triton's kernels under the interpreter: `TRITON_INTERPRET=1`, see .ci/triton."""

from __future__ import annotations

import pytest
import torch

import backends
from semnr_kernels.planes import Levelled


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32, torch.float64], ids=str)
def test_triton_levels_images_as_torch_does(dtype: torch.dtype) -> None:
    backends.require("noise", "triton-interpret")
    from semnr_kernels import planes_triton

    generator = torch.Generator().manual_seed(1)
    images = (100 + 50 * torch.rand((3, 1, 33, 60), generator=generator)).to(dtype)[..., ::2]
    if dtype.is_floating_point:
        images[1, 0, 3, 4], images[2, 0, 5] = torch.nan, torch.inf
    got = planes_triton.of(images)
    exact = Levelled.of(images.float() if dtype == torch.float16 else images)
    torch.testing.assert_close(got.level, exact.level, rtol=1e-7, atol=0)
    torch.testing.assert_close(got.data, exact.data, rtol=0, atol=0 if not dtype.is_floating_point else 1e-5)
    assert (got.finite is None) == (exact.finite is None)
    if exact.finite is not None:
        assert torch.equal(got.finite, exact.finite)
