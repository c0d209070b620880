"""`semnr stress`."""

from __future__ import annotations

import argparse
import sys

from .text import add_output_options, print_json, say


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", metavar="SOURCE", help="what `semnr score` reads; default: synthetic lines, holes, metal"
    )
    parser.add_argument("--out", metavar="DIR", help="also write stress.json, stress.html and stress.svg")
    parser.add_argument("--tiles", type=int, default=12, metavar="N", help="bounds the time; default %(default)s")
    parser.add_argument("--side", type=int, default=256, metavar="PX", help="tiles are cut to it; default %(default)s")
    parser.add_argument("--faults", metavar="F", help="comma separated; default all")
    parser.add_argument("--metrics", default="psnr,ssim,fsim,cnr", help="comma separated; default %(default)s")
    parser.add_argument("--dists-weights", metavar="W", help="with dists: a file, or `random` (uncalibrated)")
    parser.add_argument("--rules", metavar="FILE", help="rules (TOML) whose signals are tried; default: the built-in")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--root", metavar="DIR", help="folder that a plan's paths may lie in")
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    from ..guarding import DEFAULT_RULES, load_rules
    from ..stress import stress_test

    def tell(line: str) -> None:
        print(f"stress: {line}", file=sys.stderr, flush=True)

    stress = stress_test(
        args.source,
        tiles=args.tiles,
        side=args.side,
        faults=None if args.faults is None else [f.strip() for f in args.faults.split(",") if f.strip()],
        metrics=[m.strip() for m in args.metrics.split(",") if m.strip()],
        dists_weights=args.dists_weights,
        rules=load_rules(args.rules) if args.rules else DEFAULT_RULES,
        seed=args.seed,
        root=args.root,
        say=(lambda line: None) if args.quiet or args.json else tell,
    )
    paths = stress.save(args.out) if args.out else []
    if args.json:
        print_json(stress.to_dict())
    else:
        say(stress)
        for path in paths:
            say(f"written to {path}")
    return 0
