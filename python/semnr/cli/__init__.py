"""The `semnr` command. Each subcommand is a module; none imports torch before it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from .. import __version__

# exit codes, as documented
PASS, USAGE, INCOMPLETE = 0, 2, 3  # 1, a guardrail failed, is the verdict's own

COMMANDS = {
    "demo": "make a small wafer, denoise it in four ways, score, guard and report",
    "score": "score a stream of tiles against its reference",
    "denoise": "denoise a stream of tiles",
    "train": "train a denoiser on the generator or on your own tiles",
    "guard": "hold a candidate's scores against those of the released denoiser",
    "stress": "harm images in known ways and see which metric and signal notices",
    "report": "a report of scored runs: HTML, Markdown, JSON or one picture",
    "synth": "write a synthetic SEM wafer with known truth",
    "weights": "list, fetch and verify the network weights of DISTS",
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
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((a for a in argv if not a.startswith("-")), None)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:  # only the subcommand in use is imported
            module = importlib.import_module(f"semnr.cli.{name}")
            module.configure(sub)
            sub.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("semnr: stopped; what was written is kept, --resume continues", file=sys.stderr)
        return INCOMPLETE
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PASS
    except OSError as error:
        print(f"semnr: {error}", file=sys.stderr)
        return USAGE
    except Exception as error:
        from semnr_kernels._errors import SemnrError

        if isinstance(error, ValueError | TypeError | SemnrError | ImportError):
            print(f"semnr: {error}", file=sys.stderr)
            return USAGE
        raise


if __name__ == "__main__":
    sys.exit(main())
