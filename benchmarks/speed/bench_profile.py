"""PSNR + SSIM + CNR together on CPU beside SSIM alone, and the whole `semnr.profile`. Regions are given."""

from __future__ import annotations

import pytest
import torch
from peers import images, measure

import semnr
from semnr_kernels.cnr import cnr
from semnr_kernels.pixel import psnr
from semnr_kernels.profile import together
from semnr_kernels.ssim import ssim

METRICS = ("psnr", "ssim", "cnr")


def three(side: int, dtype: torch.dtype) -> dict:
    x, y, scale = images(side, dtype)
    signal, background = y > 0.6 * scale, y < 0.4 * scale
    found = together(x, y, signal, background, data_range=scale)
    assert found is not None
    assert abs(10 * torch.log10(scale**2 / found.mse[0]) - psnr(x, y, data_range=scale)) <= 1e-9
    assert found.ssim[0] == ssim(x, y, data_range=scale)
    return {
        "work": f"psnr + ssim + cnr {str(dtype)[6:]} {side}",
        "pixels": side * side,
        "semnr": lambda: together(x, y, signal, background, data_range=scale),
        "ssim alone": lambda: ssim(x, y, data_range=scale),
        "three calls": lambda: (
            psnr(x, y, data_range=scale),
            ssim(x, y, data_range=scale),
            cnr(x, signal=signal, background=background, data_range=scale),
        ),
        "semnr.profile": lambda: semnr.profile(x, y, data_range=scale, metrics=METRICS, masks=(signal, background)),
    }


CASES = {
    f"{str(dtype)[6:]}-{side}": (three, side, dtype)
    for dtype in (torch.float32, torch.uint8)
    for side in (1024, 2048, 4096)
}


@pytest.mark.parametrize("case", CASES)
def test_profile(case: str, benchmark) -> None:  # type: ignore[no-untyped-def]
    measure(CASES[case], benchmark)


if __name__ == "__main__":
    from table import write

    write("profile", CASES)
