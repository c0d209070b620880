"""Similarity of Scharr gradients, forward and backward, beside the reference and beside piq's operations in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from peers import images, measure

from semnr_kernels.gradient import gradient_similarity


def by_torch(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """As piq computes the term: one convolution an image, in the images' dtype (not safe at flat areas)."""
    across = torch.tensor([[-3.0, 0.0, 3.0], [-10.0, 0.0, 10.0], [-3.0, 0.0, 3.0]], dtype=x.dtype) / 16
    filters = torch.stack((across, across.T))[:, None]
    a, b = (F.conv2d(v, filters, padding=1).square().sum(dim=1, keepdim=True).sqrt() for v in (x, y))
    return (weight * (2 * a * b + 160) / (a**2 + b**2 + 160)).sum()


def term(side: int, dtype: torch.dtype, backward: bool) -> dict:
    x, y, _ = images(side)
    x, y = (255 * v.to(dtype) for v in (x, y))
    weight = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    x.requires_grad_(backward)

    def run(total: Callable[[], torch.Tensor]) -> torch.Tensor:
        found = total()
        if not backward:
            return found.detach()
        (g,) = torch.autograd.grad(found, x)
        return g

    def own(backend: str) -> torch.Tensor:
        found = gradient_similarity(x, y, weight=weight, want_map=False, backend=backend)
        return found.total.sum()  # type: ignore[union-attr]

    calls: dict[str, Callable[[], object]] = {
        "semnr": lambda: run(lambda: own("native")),
        "torch, as piq": lambda: run(lambda: by_torch(x, y, weight)),
    }
    if side <= 1024:
        calls["reference, float64"] = lambda: run(lambda: own("reference"))
    wanted = run(lambda: own("reference"))
    bound = 1e-5 if dtype == torch.float32 else 1e-11
    assert (calls["semnr"]() - wanted).abs().max() <= bound * wanted.abs().max()  # type: ignore[operator]
    what = "forward and backward to x" if backward else "forward"
    return {"work": f"gradient term, {what}, {str(dtype)[6:]}, {side}²", "pixels": side * side, **calls}


CASES = {
    f"{'both' if backward else 'forward'}-{str(dtype)[6:]}-{side}": (term, side, dtype, backward)
    for side in (512, 2048)
    for dtype in (torch.float32, torch.float64)
    for backward in (False, True)
}


@pytest.mark.parametrize("case", CASES)
def test_gradient(case: str, benchmark) -> None:  # type: ignore[no-untyped-def]
    measure(CASES[case], benchmark)


if __name__ == "__main__":
    from table import write

    write("gradient", CASES)
