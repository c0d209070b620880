"""Host time of a call on a device with its launches left out: what Python, torch and the bindings' arguments cost.

`python benchmarks/static/host_time.py` needs no GPU. Tensors lie in host memory and take the way of a CUDA tensor (the
backend "cuda-emulated"); in place of the compiled module stands one whose launches do nothing. Allocations are those of
torch's CPU allocator. What a CUDA call adds is not in the figures: setting the device, the stream's handle, the
launches themselves (about 3 µs each) and the wait for the score under nan="error".
"""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from semnr_kernels import cuda_support, registry

BARS = {"ssim": 15.0, "SSIMLoss step": 80.0}  # µs, of the usual call: float32, nan="error"


class _Passes:
    """Launches that do nothing, but for the scores that the caller reads back."""

    def __init__(self, *_: Any) -> None: ...
    def forward(self, *addresses: int) -> None:
        ctypes.memset(addresses[4], 0, 16)  # a mean of 0, and pixels that are all alike

    def backward(self, *_: Any) -> None: ...


class _Module:
    SsimPlain = _Passes

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@contextlib.contextmanager
def stubbed() -> Iterator[None]:
    """Inside the `with` block launches do nothing."""
    module = _Module()

    @contextlib.contextmanager
    def launching(*_: Any, **__: Any) -> Iterator[tuple[Any, int]]:
        yield module, 0

    def probed(_: str) -> None:  # as quick as the answer that is kept; a Mock takes 3 µs
        return None

    with (
        mock.patch.object(cuda_support, "launching", launching),
        mock.patch.object(cuda_support, "module", return_value=module),
        mock.patch.object(registry, "_probe", probed),
    ):
        yield


def calls() -> dict[str, Callable[[], Any]]:
    """The calls that are timed, by name."""
    import semnr

    y = torch.rand((4, 1, 64, 64))
    x, leaf = y * 0.9, (y * 0.9).requires_grad_()
    byte = (255 * y).to(torch.uint8)
    options = {"data_range": 1.0, "backend": "cuda-emulated"}
    loss = semnr.losses.SSIMLoss(**options)

    def step() -> None:
        leaf.grad = None
        loss(leaf, y).backward()

    return {
        "ssim": lambda: semnr.ssim(x, y, **options),
        'ssim, nan="propagate"': lambda: semnr.ssim(x, y, nan="propagate", **options),
        "ssim, uint8": lambda: semnr.ssim(byte, byte, backend="cuda-emulated"),
        "ssim, by image": lambda: semnr.ssim(x, y, reduction="none", **options),
        "SSIMLoss step": step,
    }


def measured(call: Callable[[], Any], seconds: float = 0.6) -> float:
    """µs a call: the least median of five turns."""
    for _ in range(50):
        call()
    medians = []
    for _ in range(5):
        found, end = [], time.perf_counter() + seconds / 5
        while time.perf_counter() < end:
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
        medians.append(statistics.median(found))
    return 1e6 * min(medians)


def main() -> int:
    torch.set_num_threads(1)
    with stubbed():
        for name, call in calls().items():
            bar = f"  (bar {BARS[name]:g})" if name in BARS else ""
            print(f"{name:28s}{measured(call):8.1f} µs{bar}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
