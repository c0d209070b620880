"""`semnr report`."""

from __future__ import annotations

import argparse

from . import PASS


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that `semnr score` wrote, one a candidate")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="default %(default)s")
    parser.add_argument("--verdict", metavar="FILE", help="JSON that `semnr guard --out` wrote")
    parser.add_argument("--title", help="heading of the report")
    parser.add_argument("--worst", type=int, default=6, metavar="N", help="worst tiles to show; default 6")


def run(args: argparse.Namespace) -> int:
    from ..reporting import report

    first, *others = args.runs
    path = report(first, out=args.out, compare=others, verdict=args.verdict, title=args.title, worst=args.worst)
    print(f"written to {path}")
    return PASS
