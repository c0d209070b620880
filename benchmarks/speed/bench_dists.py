"""DISTS against the time of its network alone and against piq.

`python benchmarks/speed/bench_dists.py`, or through pytest.
`python benchmarks/speed/bench_dists.py large [SIDE] [DTYPE]`: one pair of SIDE x SIDE pixels, its time and peak
memory.

The yardstick is the VGG16 of torchvision, layer for layer, on the 32 images of 16 pairs, in whichever of both memory
layouts and of three batch sizes is fastest in the same run. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import cache
from unittest import mock

import pytest
import table
import torch
from peers import median, peer
from torch import nn

import semnr
from semnr_kernels import dists
from semnr_kernels.dists.weights import STAGES, random_weights, read_alpha_beta

PAIRS, SIDE = 16, 256
BATCHES = (2, 8, 32)
LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
Calls = dict[str, Callable[[], object]]


def images(count: int = PAIRS, side: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    """Candidates and references, grey, float32 on 0-1."""
    generator = torch.Generator().manual_seed(side)
    y = torch.rand((count, 1, side, side), generator=generator)
    y = nn.functional.avg_pool2d(y, 5, 1, 2) * 3 - 1
    return (y + 0.05 * torch.randn(y.shape, generator=generator)).clamp(0, 1), y.clamp(0, 1)


@cache
def vgg16(dtype: torch.dtype, layout: str) -> nn.Sequential:
    """torchvision's `vgg16().features` up to relu5_3."""
    layers: list[nn.Module] = []
    for number, stage in enumerate(STAGES):
        layers += [nn.MaxPool2d(2)] if number else []
        for index, cin, cout in stage:
            convolution = nn.Conv2d(cin, cout, 3, padding=1)
            state = random_weights().state
            convolution.load_state_dict({kind: state[f"{index}.{kind}"] for kind in ("weight", "bias")})
            layers += [convolution, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers).to(dtype).to(memory_format=LAYOUTS[layout]).requires_grad_(False)


def forward(dtype: torch.dtype, layout: str, batch: int) -> Callable[[], None]:
    """The network alone on both images of every pair."""
    both = torch.cat(images()).expand(-1, 3, -1, -1).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    net = vgg16(dtype, layout)

    def call() -> None:
        with torch.inference_mode():
            for some in both.split(batch):
                net(some)

    return call


def ours(dtype: torch.dtype, kept: bool = False) -> Callable[[], torch.Tensor]:
    x, y = images()
    options = {"data_range": 1.0, "weights": "random", "dtype": dtype}
    if not kept:
        return lambda: semnr.dists(x, y, reduction="none", **options)
    held = dists.features(y, **options)
    return lambda: dists.against(x, held, reduction="none")


def theirs() -> Callable[[], torch.Tensor] | None:
    """piq.DISTS with the same weights, at the same size: it resizes nothing at 256 pixels."""
    if (piq := peer("piq")) is None:
        return None
    alpha, beta = (v.reshape(1, -1, 1, 1) for v in read_alpha_beta())
    layers = list(vgg16(torch.float32, "contiguous"))
    layers.append(nn.MaxPool2d(2))
    with (
        mock.patch("piq.perceptual.vgg16", return_value=mock.Mock(features=nn.Sequential(*layers))),
        mock.patch("torch.hub.load_state_dict_from_url", return_value={"alpha": alpha, "beta": beta}),
    ):
        model = piq.DISTS(reduction="none")
    x, y = (v.expand(-1, 3, -1, -1) for v in images())

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return model(x, y)

    return call


def figures() -> Calls:
    """What the bars are about."""
    return {
        "semnr float32": ours(torch.float32),
        "semnr float32, kept reference": ours(torch.float32, kept=True),
        "semnr bfloat16": ours(torch.bfloat16),
        "semnr bfloat16, kept reference": ours(torch.bfloat16, kept=True),
        "semnr float16": ours(torch.float16),
        **{f"VGG16 float32 channels-last, {n} at once": forward(torch.float32, "channels-last", n) for n in BATCHES},
    }


def others() -> Calls:
    """What is slower, and what is not a bar: fewer rounds."""
    calls: Calls = {
        f"VGG16 float32 contiguous, {n} at once": forward(torch.float32, "contiguous", n) for n in BATCHES[:2]
    }
    calls |= {
        f"VGG16 bfloat16 channels-last, {n} at once": forward(torch.bfloat16, "channels-last", n) for n in BATCHES
    }
    if (call := theirs()) is not None:
        calls["piq float32"] = call
    return calls


def in_turn(calls: Calls, rounds: int) -> dict[str, list[float]]:
    """Seconds of each, one call after the other in every round; the weights were packed by an earlier call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def accuracy() -> dict[str, float]:
    """Largest differences over the 16 pairs."""
    x, y = images()
    exact = dists.dists(
        x.double()[:2], y.double()[:2], data_range=1.0, weights="random", reduction="none", backend="reference"
    )
    float32 = ours(torch.float32)()
    found = {"float32 against the float64 definition, 2 pairs": (float32[:2] - exact).abs().max().item()}
    found["kept reference against both at once"] = (ours(torch.float32, kept=True)() - float32).abs().max().item()
    for dtype in (torch.bfloat16, torch.float16):
        found[f"{dtype} against float32"] = (ours(dtype)() - float32).abs().max().item()
    if (call := theirs()) is not None:
        found["float32 against piq"] = (call() - float32).abs().max().item()
    return found


def large(side: int, dtype: torch.dtype) -> dict[str, object]:
    """One pair in memory bounded by the default budget."""
    x, y = (torch.empty((1, 1, side, side), dtype=torch.uint8) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for row in range(0, side, 256):  # no float copy of an image
        part = torch.randint(0, 200, (256, side), generator=generator, dtype=torch.uint8)
        y[0, 0, row : row + 256] = part[: side - row]
        x[0, 0, row : row + 256] = (part + torch.randint(0, 30, (256, side), generator=generator, dtype=torch.uint8))[
            : side - row
        ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    value = semnr.dists(x, y, weights="random", dtype=dtype)
    seconds = time.perf_counter() - start
    return {
        "side": side,
        "dtype": str(dtype).removeprefix("torch."),
        "seconds": seconds,
        "megapixels a second": side * side / seconds / 1e6,
        "peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "GiB before, images and libraries included": before,
        "value": value.item(),
        "threads": torch.get_num_threads(),
        "load": table.machine()["load"],
    }


@pytest.mark.parametrize("name", ["semnr float32", "semnr float32, kept reference", "semnr bfloat16"])
def test_dists(name: str, benchmark) -> None:  # type: ignore[no-untyped-def]
    benchmark.pedantic(figures()[name], rounds=2)


def run(rounds: int) -> None:
    errors = accuracy()
    assert errors["float32 against the float64 definition, 2 pairs"] <= 1e-6
    assert errors["torch.bfloat16 against float32"] <= 2e-3
    assert errors.get("float32 against piq", 0) <= 1e-6
    times = in_turn(figures(), rounds) | in_turn(others(), max(1, rounds // 3))
    medians = {name: median(seconds) for name, seconds in times.items()}
    fastest = min((name for name in medians if name.startswith("VGG16 float32")), key=lambda name: medians[name])
    print(json.dumps(table.machine()))
    print(f"| 16 pairs of 256 x 256 | seconds | of {fastest} |\n|---|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.3f} | {seconds / medians[fastest]:.3f} |")
    half = medians["semnr bfloat16"] / medians["semnr float32"]
    print(f"bfloat16 takes {half:.3f} of float32")
    for name, error in errors.items():
        print(f"{name}: {error:.1e}")
    path = table.RESULTS / "dists.json"
    kept = table.records.read_tree(path).get("large", []) if path.is_file() else []
    rows = [{"work": f"dists {PAIRS} x {SIDE}", "pixels": PAIRS * SIDE**2, "seconds": times}]
    print(f"raw rows: {table.keep('dists', __file__, {'rows': rows, 'errors': errors, 'large': kept})}")


def run_large(side: int, dtype: str) -> None:
    found = large(side, getattr(torch, dtype))
    print(json.dumps(found, indent=1))
    path = table.RESULTS / "dists.json"
    held = table.records.read_tree(path) if path.is_file() else {}
    same = [row for row in held.get("large", []) if (row["side"], row["dtype"]) != (side, dtype)]
    table.keep("dists", __file__, held | {"large": [*same, found]})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_large(int(sys.argv[2]) if len(sys.argv) > 2 else 8192, sys.argv[3] if len(sys.argv) > 3 else "float32")
    else:
        run(int(os.environ.get("SEMNR_ROUNDS", "5")))
