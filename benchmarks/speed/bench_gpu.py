"""The GPU kernels in time, where there is a GPU. `python benchmarks/speed/bench_gpu.py`, or through pytest.

Inputs are larger than the second-level cache; each row says what share of the measured copy bandwidth it reaches.
Without a GPU it says "skipped: no GPU" and prints what was counted: on the emulation (counted_table.py) and in the
compiled kernels (aot_table.py). No time is made up.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "static"))

import aot_table
import counted_table
from peers import peer

from semnr_kernels import pixel, registry
from semnr_kernels.ssim import ssim

SHAPES = ((4, 1, 4096, 4096), (16, 1, 512, 512))
DTYPES = (torch.uint8, torch.float32)
BACKENDS = ("cuda", "triton")


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
            for (name, call), backend in itertools.product((("pixel", pixel.mse), ("ssim", ssim)), BACKENDS):
                if (state := registry.backends()[backend]) != "available":
                    found.append({"work": f"semnr {name} on {backend}", "skipped": state})
                    continue

                def ours(call=call, x=x, y=y, scale=scale, backend=backend):  # type: ignore[no-untyped-def]
                    return call(x, y, data_range=scale, nan="propagate", backend=backend)

                wide = call(x[:1], y[:1], data_range=scale, backend="reference")
                error = abs(call(x[:1], y[:1], data_range=scale, backend=backend) - wide).item()
                assert error <= 1e-7 * max(1.0, wide.abs().item()), f"{name} on {backend} is wrong by {error}"
                found.append(_row(f"semnr {name} on {backend}", ours, x, copy))
            if fa := peer("frame_analytics"):
                found.append(_row("frame_analytics ssim", lambda fa=fa, x=x, y=y: fa.ssim(x, y), x, copy))
    return found


def _row(name: str, call: object, x: torch.Tensor, copy: float) -> dict:
    from triton.testing import do_bench

    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    call()  # type: ignore[operator]
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - held
    milliseconds = do_bench(call)
    read = 2 * x.numel() * x.itemsize
    return {
        "work": f"{name} {str(x.dtype)[6:]} {'x'.join(map(str, x.shape))}",
        "ms": milliseconds,
        "device_ms": _replayed(call),
        "peak": peak / read,
        "picoseconds a pixel": 1e9 * milliseconds / x.numel(),
        "share of copy bandwidth": read / milliseconds / copy,
        "device": torch.cuda.get_device_name(),
    }


def _replayed(call: object, times: int = 5) -> float | None:
    """Milliseconds of a call without the host: replayed from a CUDA graph; None where it cannot be captured."""
    from triton.testing import do_bench

    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    try:
        with torch.cuda.stream(side):
            call()  # type: ignore[operator]
        with torch.cuda.graph(graph):
            for _ in range(times):
                call()  # type: ignore[operator]
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return do_bench(graph.replay) / times  # type: ignore[no-any-return]


def _seed(seed: int) -> torch.Generator:
    return torch.Generator("cuda").manual_seed(seed)


def report() -> str:
    if torch.cuda.is_available():
        return json.dumps(rows(), indent=1)
    tables = [t.show(t.stored()) for t in (counted_table, aot_table)]
    return "\n\n".join(["skipped: no GPU", *tables])


def test_gpu_kernels() -> None:
    print(report())
    if not torch.cuda.is_available():
        pytest.skip("skipped: no GPU")


if __name__ == "__main__":
    told = report()
    print(told)
    if sys.argv[1:2] == ["--out"] and torch.cuda.is_available():
        Path(sys.argv[2]).write_text(told)
