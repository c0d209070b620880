"""The other libraries, each behind one function that returns None where it is not installed (and says so)."""

from __future__ import annotations

import importlib
import importlib.metadata
import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

PACKAGES = {
    "frame_analytics": "frame-analytics",
    "fast_ssim": "fast-ssim",
    "piq": "piq",
    "skimage": "scikit-image",
    "lpips": "lpips",
}


@cache
def peer(module: str) -> Any | None:
    """The imported module, or None after printing that it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        print(f"{PACKAGES[module]}: not installed")
        return None


def version(module: str) -> str:
    try:
        return importlib.metadata.version(PACKAGES[module])
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def alternate(
    calls: dict[str, Callable[[], object]], *, seconds: float = 2.0, most: int = 200
) -> dict[str, list[float]]:
    """Seconds of each call, taken in turn in one process, so that the machine's mood hits all alike.

    A turn is calls for ten milliseconds, then two that count: OpenMP's threads, torch's and the peers', go on spinning
    on their cores for some milliseconds after a call, which the next library would pay for.
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while len(next(iter(times.values()))) < 6 or (time.perf_counter() < end and len(next(iter(times.values()))) < most):
        for name, call in calls.items():
            settle = time.perf_counter() + 0.01
            call()
            while time.perf_counter() < settle:
                call()
            for _ in range(2):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    return times


def measure(case: tuple, benchmark: Any) -> None:
    """Our call under pytest-benchmark, beside it the medians of all calls in turn. case: (make, *arguments)."""
    make, *arguments = case
    calls = make(*arguments)
    work, _ = calls.pop("work"), calls.pop("pixels")
    peers = {name: median(times) for name, times in alternate(calls, seconds=1.0).items()}
    benchmark.extra_info |= {"work": work, "alternating_medians": peers, "threads": torch.get_num_threads()}
    benchmark(calls["semnr"])


def median(times: list[float]) -> float:
    return statistics.median(times)


def images(side: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A noisy and a clean image, (1, 1, side, side), and their data range."""
    generator = torch.Generator().manual_seed(side)
    y = torch.rand((1, 1, side, side), generator=generator)
    x = (y + 0.05 * torch.randn(y.shape, generator=generator)).clamp(0, 1)
    if dtype == torch.uint8:
        return (x * 255).to(dtype), (y * 255).to(dtype), 255.0
    return x.to(dtype), y.to(dtype), 1.0
