"""`semnr bench`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..base.text import number, table
from . import PASS
from .score import names
from .text import add_output_options, print_json, say

if TYPE_CHECKING:
    from ..benchmark import Bench, Timing

_OPS_HELP = "comma separated; default psnr,ssim,ms_ssim,fsim,cnr,profile,noise,evidence,residual; also dists and lpips"


def configure(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is timed")
    what.add_argument("--ops", metavar="M", help=_OPS_HELP)
    what.add_argument("--sides", default="512", metavar="PX", help="sides of the images, comma separated; default 512")
    what.add_argument("--dtypes", default="uint8", metavar="D", help="uint8, uint16, float32; default uint8")
    what.add_argument("--no-peers", action="store_true", help="semnr alone, without the other libraries")
    how = parser.add_argument_group("how")
    how.add_argument("--seconds", type=float, default=20.0, metavar="S", help="about how long it takes; default 20")
    add_output_options(how)


def run(args: argparse.Namespace) -> int:
    from ..benchmark import bench

    def tell(line: str) -> None:
        print(f"bench: {line}", file=sys.stderr, flush=True)

    measured = bench(
        names(args.ops) if args.ops else None,
        sides=[_side(text) for text in names(args.sides)],
        dtypes=names(args.dtypes),
        seconds=args.seconds,
        peers=not args.no_peers,
        say=(lambda line: None) if args.quiet or args.json else tell,
    )
    if args.json:
        print_json({**vars(measured), "timings": [vars(timing) for timing in measured.timings]})
    else:
        say(describe(measured))
    return PASS


def describe(measured: Bench) -> str:
    """The machine and a table: a row a library, with how many times the time of semnr it takes."""
    where = measured.machine
    lines = [
        f"{where['processor']}, {where['cores']} cores, {where['threads']} threads, Python {where['python']}, torch "
        f"{where['torch']}",
        "median of calls taken in turn in one process; `times` is the time over that of semnr",
        "",
        table(("metric", "image", "library", "ms", "times", "calls", "note"), list(_rows(measured.timings))),
    ]
    if measured.absent:
        lines += ["", f"not installed, and so not timed: {', '.join(measured.absent)}"]
    return "\n".join([*lines, f"{measured.seconds:.0f} s in all"])


def _rows(timings: Iterable[Timing]) -> Iterable[tuple[object, ...]]:
    ours = math.nan
    for timing in timings:
        own = timing.library == "semnr"
        ours = timing.milliseconds if own else ours
        image = f"{timing.side} x {timing.side} {timing.dtype}"
        times = "" if own else number(timing.milliseconds / ours, 2)
        library = f"{timing.library} {timing.version}"
        yield timing.op, image, library, number(timing.milliseconds, 3), times, timing.calls, timing.note


def _side(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"--sides is {text!r}; accepted: whole numbers of pixels, such as 512,1024")
    return int(text)
