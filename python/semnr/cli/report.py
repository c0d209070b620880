"""`semnr report`."""

from __future__ import annotations

import argparse

from . import PASS
from .text import say


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that `semnr score` wrote, one a candidate")
    parser.add_argument("--out", metavar="FILE", help="default report.html, or report with the ending of --format")
    parser.add_argument(
        "--format",
        choices=("html", "md", "json", "png"),
        help="html: all of it, in one file; md: a summary for a merge request; json: for machines; png: one picture. "
        "Default: by the name of --out",
    )
    parser.add_argument(
        "--verdict", metavar="FILE", action="append", help="JSON that `semnr guard --out` wrote; may be given again"
    )
    parser.add_argument("--title", help="heading of the report")
    parser.add_argument("--worst", type=int, default=6, metavar="N", help="tiles shown with pictures; default 6")
    parser.add_argument(
        "--thumbnails", type=int, default=144, metavar="N", help="tiles with a thumbnail on the wafer map; default 144"
    )


def run(args: argparse.Namespace) -> int:
    from ..reporting import report

    first, *others = args.runs
    path = report(
        first,
        out=args.out or f"report.{args.format or 'html'}",
        compare=others,
        verdict=args.verdict,
        title=args.title,
        worst=args.worst,
        thumbnails=args.thumbnails,
        format=args.format,
    )
    say(f"written to {path}")
    return PASS
