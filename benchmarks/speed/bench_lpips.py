"""LPIPS beside lpips 0.1.4 and beside DISTS, in turn in one process, after a check of the values.

`python benchmarks/speed/bench_lpips.py [--images 16] [--side 256] [--threads N]` prints the medians and writes
results/lpips.json; CPU time where --cpu says so, for a machine that others use too. The rows "direct convolutions" are
ours with oneDNN alone: what Winograd's filtering gains. Needs the published weights (`semnr weights fetch vgg16 alexnet
lpips`) and lpips 0.1.4.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import table
import torch

from semnr import synth
from semnr_kernels import dists, lpips, pretrained
from semnr_kernels.convolution_cpu import Convolution
from semnr_kernels.lpips.network import TRUNKS

AGREES = 1e-6


def pairs(images: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    sites = [synth.tile("lines", side, seed=i) for i in range(images)]
    x = np.stack([s.noisy(dtype="uint8") for s in sites])[:, None] / np.float32(255)
    y = np.stack([s.reference("uint8") for s in sites])[:, None] / np.float32(255)
    return torch.from_numpy(x), torch.from_numpy(y)


def peer() -> Any:
    """lpips 0.1.4 with the published AlexNet."""
    warnings.simplefilter("ignore")
    model = importlib.import_module("lpips").LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = pretrained.load(None, TRUNKS["alex"][0], "LPIPS").state
    with torch.no_grad():
        for name, value in model.net.named_parameters():
            value.copy_(state[name.partition(".")[2]])
    return model


def direct(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same with every convolution by oneDNN, none by Winograd's filtering."""

    def call() -> Any:
        with mock.patch.object(Convolution, "_pays", return_value=False):
            return run()

    return call


def alex(images: int, side: int) -> dict[str, Callable[[], Any]]:
    x, y = pairs(images, side)
    colours = [v.expand(-1, 3, -1, -1).contiguous() for v in (x, y)]
    model, options = peer(), {"data_range": 1.0, "reduction": "none"}
    kept = lpips.features(y, data_range=1.0)

    def theirs() -> torch.Tensor:
        with torch.no_grad():
            return model(*colours, normalize=True).reshape(-1)

    runs: dict[str, Callable[[], Any]] = {
        "lpips 0.1.4, AlexNet": theirs,
        "LPIPS-Alex": lambda: lpips.lpips(x, y, **options),
        "LPIPS-Alex, three channels": lambda: lpips.lpips(*colours, **options),
        "LPIPS-Alex, kept reference": lambda: lpips.against(x, kept, reduction="none"),
    }
    return runs | {"LPIPS-Alex, direct convolutions": direct(runs["LPIPS-Alex"])}


def vgg(images: int, side: int) -> dict[str, Callable[[], Any]]:
    x, y = pairs(images, side)
    options = {"data_range": 1.0, "reduction": "none"}
    runs: dict[str, Callable[[], Any]] = {
        "DISTS": lambda: dists.dists(x, y, **options),
        "LPIPS-VGG": lambda: lpips.lpips(x, y, net="vgg", **options),
        "DISTS and LPIPS-VGG together": lambda: lpips.with_dists(x, y, data_range=1.0),
    }
    narrow = {"DISTS, bfloat16": lambda: dists.dists(x, y, dtype=torch.bfloat16, **options)}
    named = runs | narrow
    return named | {f"{name}, direct convolutions": direct(named[name]) for name in ("DISTS", "DISTS, bfloat16")}


def in_turn(runs: dict[str, Callable[[], Any]], turns: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each, one call after the other in every turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            begun = clock()
            run()
            seconds[name].append(clock() - begun)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--vgg-images", type=int, metavar="N", help="of the rows of VGG16; default as --images")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="CPU time instead of the clock's")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu else time.perf_counter
    rows, middle = [], {}
    for make, images in ((alex, args.images), (vgg, args.vgg_images or args.images)):
        for run in make(1, args.side).values():  # packs and transforms the weights
            run()
        runs = make(images, args.side)
        if make is alex:
            theirs, ours = (runs[name]() for name in ("lpips 0.1.4, AlexNet", "LPIPS-Alex"))
            worst = float((ours - theirs).abs().max())
            if worst > AGREES:
                raise SystemExit(f"LPIPS-Alex is {worst:.1e} from lpips 0.1.4: nothing is timed")
        seconds = in_turn(runs, args.turns, clock)
        rows.append({"work": f"{images} x {args.side}", "pixels": images * args.side**2, "seconds": seconds})
        for name, values in seconds.items():
            middle[name] = statistics.median(values)
            print(f"{images} x {args.side}, {name}: {middle[name]:.3f} s", flush=True)
    pairs_of = {
        "lpips 0.1.4 over LPIPS-Alex": ("lpips 0.1.4, AlexNet", "LPIPS-Alex"),
        "lpips 0.1.4 over LPIPS-Alex, three channels": ("lpips 0.1.4, AlexNet", "LPIPS-Alex, three channels"),
        "together over DISTS": ("DISTS and LPIPS-VGG together", "DISTS"),
        "DISTS over DISTS in bfloat16": ("DISTS", "DISTS, bfloat16"),
        "direct convolutions over Winograd's, LPIPS-Alex": ("LPIPS-Alex, direct convolutions", "LPIPS-Alex"),
        "direct convolutions over Winograd's, DISTS": ("DISTS, direct convolutions", "DISTS"),
    }
    ratios = {name: middle[one] / middle[other] for name, (one, other) in pairs_of.items()}
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}")
    clocked = "CPU time" if args.cpu else "wall"
    tree = {"clock": clocked, "largest difference from lpips 0.1.4": worst, "ratios": ratios, "rows": rows}
    print(f"raw rows: {table.keep('lpips', __file__, tree, sys.argv[1:])}")


if __name__ == "__main__":
    main()
