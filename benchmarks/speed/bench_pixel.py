"""PSNR on CPU beside its peer."""

from __future__ import annotations

import pytest
import torch
from peers import images, measure, peer

from semnr_kernels.pixel import psnr


def forward(side: int, dtype: torch.dtype) -> dict:
    x, y, scale = images(side, dtype)
    assert abs(psnr(x, y, data_range=scale) - psnr(x, y, data_range=scale, backend="reference")) <= 1e-9
    calls = {"semnr": lambda: psnr(x, y, data_range=scale)}
    if fa := peer("frame_analytics"):
        calls["frame_analytics"] = lambda: fa.psnr(x, y, data_range=scale)
    if dtype == torch.float32:  # what the machine reads: two images, two operations a pair of pixels
        calls["torch.dot"] = lambda: torch.dot(x.view(-1), y.view(-1))
    return {"work": f"psnr {str(dtype)[6:]} {side}", "pixels": side * side, **calls}


CASES = {
    f"{str(dtype)[6:]}-{side}": (forward, side, dtype)
    for dtype in (torch.float32, torch.uint8)
    for side in (512, 1024, 2048, 4096)
}


@pytest.mark.parametrize("case", CASES)
def test_psnr(case: str, benchmark) -> None:  # type: ignore[no-untyped-def]
    measure(CASES[case], benchmark)


if __name__ == "__main__":
    from table import write

    write("pixel", CASES)
