"""Largest errors of the CPU's kernels against the float64 definition, by instruction set. Nothing is timed.

`python benchmarks/quality/bench_accuracy.py` writes results/accuracy.json (half a minute); the images are those of
SSIM's suite, and of `semnr.synth` for the other ops. An instruction set that this machine lacks is left out, and said.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "kernels" / "ssim"))
import records
import table
from test_ssim import HARD, two_level

import semnr
from semnr_kernels import native_support
from semnr_kernels.cnr import cnr
from semnr_kernels.fsim import fsim
from semnr_kernels.pixel import psnr
from semnr_kernels.ssim import ssim

BACKENDS = tuple(f"native-{isa}" for isa in native_support.INSTRUCTION_SETS if native_support.probe(isa) is None)


def ssim_errors(backend: str) -> dict[str, float]:
    """Of the score, the map and the gradient: worst of the hard images, and of two-level lines."""
    found = {"score": 0.0, "map": 0.0, "gradient": 0.0}
    for make in HARD.values():
        found = {name: max(found[name], value) for name, value in _ssim(backend, *make()).items()}
    return found | {f"lines {name}": value for name, value in _ssim(backend, *two_level()).items()}


def _ssim(backend: str, x: torch.Tensor, y: torch.Tensor, scale: float) -> dict[str, float]:
    x, y = x.float(), y.float()
    wanted, wanted_map = ssim(x, y, data_range=scale, return_map=True, precision="float64", backend="reference")
    got, got_map = ssim(x, y, data_range=scale, return_map=True, backend=backend)
    slope, true_slope = (
        _gradient(x, y, scale, backend=backend),
        _gradient(x.double(), y.double(), scale, backend="reference"),
    )
    largest = true_slope.abs().max().item()
    return {
        "score": abs(got.item() - wanted.item()),
        "map": (got_map.double() - wanted_map).abs().max().item(),
        "gradient": (slope.double() - true_slope).abs().max().item() / largest if largest else 0.0,
    }


def _gradient(x: torch.Tensor, y: torch.Tensor, scale: float, **options: Any) -> torch.Tensor:
    x = x.clone().requires_grad_()
    ssim(x, y, data_range=scale, **options).backward()
    assert x.grad is not None
    return x.grad


def others(backend: str) -> dict[str, float]:
    """Of each other score: the worst over four patterns of 8-bit tiles, and of their float32 copies."""
    calls: dict[str, Callable[..., torch.Tensor]] = {"PSNR, dB": psnr, "FSIM": fsim, "CNR": cnr}
    found = dict.fromkeys(calls, 0.0)
    for pattern in ("lines", "holes", "vias", "metal"):
        tile = semnr.synth.tile(pattern, 192, seed=5)
        pair = [
            torch.from_numpy(np.asarray(v))[None, None] for v in (tile.noisy(dtype="uint8"), tile.reference("uint8"))
        ]
        for images in (pair, [v.float() for v in pair]):
            for name, call in calls.items():
                wanted = call(*(v.double() for v in images), data_range=255.0, backend="reference")
                got = call(*images, data_range=255.0, backend=backend)
                found[name] = max(found[name], abs(got.item() - wanted.item()))
    return found


def main() -> None:
    if left := sorted({f"native-{isa}" for isa in native_support.INSTRUCTION_SETS} - set(BACKENDS)):
        print(f"not on this machine: {', '.join(left)}")
    tree: dict[str, Any] = {"ssim": {backend: ssim_errors(backend) for backend in reversed(BACKENDS)}, "others": {}}
    for backend in BACKENDS:
        for name, value in others(backend).items():
            tree["others"].setdefault(name, {})[backend] = value
    told = table.machine()
    machine = {name: told[name] for name in ("cpu", "cores", "threads", "instruction_set")}
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    records.write(records.RESULTS / "accuracy.json", records.record(__file__, tree, machine=machine, versions=versions))
    print(tree)


if __name__ == "__main__":
    main()
