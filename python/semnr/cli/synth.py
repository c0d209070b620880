"""`semnr synth`."""

from __future__ import annotations

import argparse

from . import PASS
from .text import add_output_options, print_json, say


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="PATH", required=True, help="wafer.zarr, or a folder for TIFF and plan.csv")
    parser.add_argument("--dies", type=int, metavar="N", help="default: all that fit")
    parser.add_argument("--sites", type=int, default=1, metavar="N", help="tiles a die; default 1")
    parser.add_argument("--tile", type=int, default=512, metavar="PX", help="side of a tile; default 512")
    parser.add_argument("--pattern", default="lines", help="comma separated, taken in turn; default %(default)s")
    parser.add_argument("--pixel-nm", type=float, default=1.0, metavar="NM", help="default 1")
    parser.add_argument("--defect-rate", type=float, default=0.0, metavar="P", help="probability that a tile has one")
    parser.add_argument("--dtype", choices=("uint8", "uint16"), default="uint8")
    parser.add_argument("--data-range", type=float, metavar="R", help="4095 for 12 bit in uint16")
    parser.add_argument("--dose", type=float, metavar="E", help="electrons a pixel and frame")
    parser.add_argument("--frames", type=int, metavar="N", help="frames averaged")
    parser.add_argument("--second-frame", action="store_true", help="also an independent recording of each site")
    parser.add_argument("--seed", type=int, default=0)
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    from ..base.progress import Progress
    from ..synth import SyntheticWafer, write_wafer

    wafer = SyntheticWafer(
        args.dies,
        args.sites,
        args.tile,
        pattern=[p.strip() for p in args.pattern.split(",")],
        pixel_nm=args.pixel_nm,
        defect_rate=args.defect_rate,
        dtype=args.dtype,
        data_range=args.data_range,
        dose=args.dose,
        frames=args.frames,
        second_frame=args.second_frame,
        seed=args.seed,
    )
    with Progress("synth", len(wafer), quiet=args.quiet or args.json) as progress:
        write_wafer(args.out, wafer, progress=lambda done, total: progress.advance(1, args.tile**2))
    if args.json:
        print_json({"out": str(args.out), "tiles": len(wafer)})
    else:
        say(f"{len(wafer)} tiles of {args.tile} x {args.tile} px written to {args.out}")
    return PASS
