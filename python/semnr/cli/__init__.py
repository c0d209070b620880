"""The `semnr` command. Each subcommand is a module; none imports torch before it runs."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from .. import __version__
from .end import INCOMPLETE, PASS, USAGE, ended

__all__ = ["COMMANDS", "INCOMPLETE", "PASS", "USAGE", "main"]

COMMANDS = {
    "check": "judge denoised images by the noisy ones they were made from; no clean image is needed",
    "demo": "make a small wafer, denoise it in four ways, score, guard and report",
    "score": "score a stream of tiles against its reference",
    "denoise": "denoise a stream of tiles",
    "train": "train a denoiser on the generator or on your own tiles",
    "classify": "say what SEM images show, by a classifier of your own classes, or that it is unknown",
    "leakage": "find near-duplicates in a set of images, and across the parts of a split",
    "anomaly": "fit a model to normal tiles, choose its threshold, flag the tiles that differ",
    "guard": "hold a candidate's scores against those of the released denoiser",
    "stress": "harm images in known ways and see which metric and signal notices",
    "compare-denoisers": "a table of what denoisers cost, keep and invent; or score a folder of outputs into it",
    "report": "a report of scored runs: HTML, Markdown, JSON or one picture",
    "synth": "write a synthetic SEM wafer with known truth",
    "weights": "list, fetch and verify the network weights of DISTS and LPIPS",
    "bench": "time each metric on this machine, beside the other libraries that are installed",
    "doctor": "what this machine can run, and what is missing",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="semnr",
        description="Metrics that say whether a denoised SEM image can still be trusted.",
        epilog="exit codes: 0 pass, 1 guardrail failed, 2 usage or input error, 3 incomplete or evidence missing",
    )
    parser.add_argument("--version", action="version", version=f"semnr {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from (or SEMNR_DEBUG=1)")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((a for a in argv if not a.startswith("-")), None)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:  # only the subcommand in use is imported
            module = importlib.import_module(f"semnr.cli.{name.replace('-', '_')}")
            module.configure(sub)
            sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
            sub.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    quiet = getattr(args, "quiet", False) or getattr(args, "json", False)
    return ended(lambda: args.run(args), debug=args.debug, quiet=quiet)


if __name__ == "__main__":
    sys.exit(main())
