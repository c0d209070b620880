"""SSIM on CPU beside its peers.

`pytest benchmarks/speed/bench_ssim.py`, or `python benchmarks/speed/bench_ssim.py` for the table.
Every case is checked against the float64 reference before it is timed.
"""

from __future__ import annotations

import pytest
import torch
from peers import images, measure, peer

import semnr
from semnr_kernels.ssim import ssim

SIDES = (512, 1024, 2048, 4096)


def forward(side: int, dtype: torch.dtype, precision: str = "float32") -> dict:
    x, y, scale = images(side, dtype)
    if side <= 1024:
        error = abs(
            ssim(x, y, data_range=scale, precision=precision) - ssim(x, y, data_range=scale, backend="reference")
        )
        assert error <= 1e-7, f"wrong by {error}"
    calls = {"semnr": lambda: ssim(x, y, data_range=scale, precision=precision)}
    if fa := peer("frame_analytics"):
        calls["frame_analytics"] = lambda: fa.ssim(x, y, data_range=scale)
    return {"work": f"ssim {str(dtype)[6:]} {precision} {side}", "pixels": side * side, **calls}


def uniform(side: int) -> dict:
    x, y, _ = images(side, torch.uint8)
    settings = {"window": "uniform", "window_size": 7}
    if side <= 1024:
        assert abs(ssim(x, y, **settings) - ssim(x, y, backend="reference", **settings)) <= 1e-7
    calls = {"semnr": lambda: ssim(x, y, **settings)}
    if fast := peer("fast_ssim"):
        a, b = x[0, 0].numpy(), y[0, 0].numpy()
        calls["fast_ssim"] = lambda: fast.ssim(a, b, data_range=255)
    return {"work": f"ssim uint8 uniform 7x7 {side}", "pixels": side * side, **calls}


def backward(side: int) -> dict:
    x, y, _ = images(side)
    x.requires_grad_()

    def run(function) -> torch.Tensor:  # type: ignore[no-untyped-def]
        x.grad = None
        function(x, y, data_range=1.0).mean().backward()
        return x.grad

    if side <= 1024:
        wanted = run(lambda a, b, data_range: ssim(a, b, data_range=data_range, backend="reference"))
        assert (run(ssim) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    calls = {"semnr": lambda: run(ssim)}
    if fa := peer("frame_analytics"):
        calls["frame_analytics"] = lambda: run(fa.ssim)
    if piq := peer("piq"):
        calls["piq"] = lambda: run(lambda a, b, data_range: piq.ssim(a, b, data_range=data_range, downsample=False))
    return {"work": f"ssim forward + backward {side}", "pixels": side * side, **calls}


def overhead(gradient: bool) -> dict:
    x, y, _ = images(64)
    x.requires_grad_(gradient)
    calls = {"semnr": lambda: semnr.ssim(x, y, data_range=1.0)}
    if fa := peer("frame_analytics"):
        calls["frame_analytics"] = lambda: fa.ssim(x, y, data_range=1.0)
    return {"work": f"ssim call 64{' with grad' if gradient else ''}", "pixels": 64 * 64, **calls}


CASES = {
    **{f"float32-{n}": (forward, n, torch.float32) for n in SIDES},
    **{f"uint8-{n}": (forward, n, torch.uint8) for n in SIDES},
    **{f"float64-{n}": (forward, n, torch.float32, "float64") for n in (1024, 2048)},
    **{f"uniform-{n}": (uniform, n) for n in SIDES},
    **{f"backward-{n}": (backward, n) for n in (512, 2048)},
    "call-64": (overhead, False),
    "call-64-grad": (overhead, True),
}


@pytest.mark.parametrize("case", CASES)
def test_ssim(case: str, benchmark) -> None:  # type: ignore[no-untyped-def]
    measure(CASES[case], benchmark)


if __name__ == "__main__":
    from table import write

    write("ssim", CASES)
