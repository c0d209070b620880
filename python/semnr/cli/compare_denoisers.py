"""`semnr compare-denoisers`."""

from __future__ import annotations

import argparse
import sys

from .end import INCOMPLETE, PASS
from .text import add_output_options, print_json, say


def configure(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is compared")
    what.add_argument("--pairs", metavar="DIR", help="folder of the real pairs; without it synthetic fields alone")
    what.add_argument("--denoisers", metavar="D", help="comma separated; default all, or none beside a submission")
    what.add_argument(
        "--submission", metavar="NAME=DIR", action="append", default=[],
        help="score a folder of outputs, named like the inputs; may be given again",
    )  # fmt: skip
    what.add_argument("--inputs", metavar="DIR", help="write the images that a denoiser gets, and end")
    what.add_argument("--careamics", metavar="PYTHON", help="interpreter with CAREamics: Noise2Void, Noise2Noise")
    what.add_argument("--split", choices=("table", "development"), default="table", help="default %(default)s")
    what.add_argument("--groups", type=int, metavar="N", help="the first N groups of pairs, in the seeded order")
    how = parser.add_argument_group("how")
    how.add_argument("--out", metavar="DIR", default="semnr-denoisers", help="default %(default)s; a run there goes on")
    how.add_argument("--minutes", type=float, metavar="M", help="begin no field after that time; the next run goes on")
    how.add_argument("--workers", type=int, metavar="N", help="processes, one thread each; default: one a core")
    how.add_argument(
        "--keep", action="store_true", help="also write each output as a 16-bit PNG, as a submission has it"
    )
    add_output_options(how)


def run(args: argparse.Namespace) -> int:
    from ..contest import compare_denoisers, write_inputs

    def tell(line: str) -> None:
        print(f"compare-denoisers: {line}", file=sys.stderr, flush=True)

    if args.inputs:
        count = write_inputs(args.inputs, pairs=args.pairs, groups=args.groups)
        say(
            f"{count} images written to {args.inputs}; outputs under the same names are scored by --submission NAME=DIR"
        )
        return PASS
    found = compare_denoisers(
        args.out,
        pairs=args.pairs,
        denoisers=None if args.denoisers is None else [d.strip() for d in args.denoisers.split(",") if d.strip()],
        submissions=dict(map(_pair, args.submission)),
        careamics=args.careamics,
        split=args.split,
        groups=args.groups,
        minutes=args.minutes,
        workers=args.workers,
        keep=args.keep,
        say=(lambda line: None) if args.quiet or args.json else tell,
    )
    if args.json:
        print_json(found.to_dict())
    else:
        say(found)
        for name, reason in found.skipped.items():
            say(f"\nnot run: {name}: {reason}")
        for name, lines in found.problems.items():
            say(f"\n{name}:\n  " + "\n  ".join(lines))
        if found.left:
            say(f"\n{found.left} of a denoiser and a field are left; the same command goes on")
        say(f"\nwritten to {found.out}")
    return INCOMPLETE if found.problems or found.left else PASS


def _pair(text: str) -> tuple[str, str]:
    name, separator, folder = text.partition("=")
    if not separator or not name or not folder:
        raise ValueError(f"--submission is {text!r}; accepted: NAME=DIR")
    return name, folder
