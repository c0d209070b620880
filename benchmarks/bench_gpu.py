"""The GPU kernels in time, where there is a GPU. `python benchmarks/bench_gpu.py`, or through pytest.

Inputs are larger than the second-level cache; each row says what share of the measured copy bandwidth it reaches.
Without a GPU it says "skipped: no GPU" and prints what ahead-of-time compilation found: no time is made up.
"""

from __future__ import annotations

import json

import pytest
import torch
from aot_table import RESULTS, show
from peers import peer

from semnr_kernels import pixel
from semnr_kernels.ssim import ssim

SHAPES = ((4, 1, 4096, 4096), (16, 1, 512, 512))
DTYPES = (torch.uint8, torch.float32)


def rows() -> list[dict]:
    from triton.testing import do_bench

    probe = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    copy = 2 * probe.numel() / do_bench(lambda: probe.clone())  # bytes a millisecond
    found = []
    for shape in SHAPES:
        for dtype in DTYPES:
            x, y = (torch.rand(shape, device="cuda", generator=_seed(s)) for s in (0, 1))
            if dtype == torch.uint8:
                x, y = ((v * 255).round().to(dtype) for v in (x, y))
            scale = 255.0 if dtype == torch.uint8 else 1.0
            for name, call in (("pixel", pixel.mse), ("ssim", ssim)):

                def ours(call=call, x=x, y=y, scale=scale):  # type: ignore[no-untyped-def]
                    return call(x, y, data_range=scale, nan="propagate", backend="triton")

                wide = call(x[:1], y[:1], data_range=scale, backend="reference")
                error = abs(call(x[:1], y[:1], data_range=scale, backend="triton") - wide).item()
                assert error <= 1e-7 * max(1.0, wide.abs().item()), f"{name} is wrong by {error}"
                found.append(_row(f"semnr {name}", ours, x, copy))
            if fa := peer("frame_analytics"):
                found.append(_row("frame_analytics ssim", lambda fa=fa, x=x, y=y: fa.ssim(x, y), x, copy))
    return found


def _row(name: str, call: object, x: torch.Tensor, copy: float) -> dict:
    from triton.testing import do_bench

    milliseconds = do_bench(call)
    read = 2 * x.numel() * x.itemsize
    return {
        "work": f"{name} {str(x.dtype)[6:]} {'x'.join(map(str, x.shape))}",
        "ms": milliseconds,
        "picoseconds a pixel": 1e9 * milliseconds / x.numel(),
        "share of copy bandwidth": read / milliseconds / copy,
        "device": torch.cuda.get_device_name(),
    }


def _seed(seed: int) -> torch.Generator:
    return torch.Generator("cuda").manual_seed(seed)


def report() -> str:
    if torch.cuda.is_available():
        return json.dumps(rows(), indent=1)
    return "skipped: no GPU\n" + show(json.loads(RESULTS.read_text()))


def test_gpu_kernels() -> None:
    print(report())
    if not torch.cuda.is_available():
        pytest.skip("skipped: no GPU")


if __name__ == "__main__":
    print(report())
