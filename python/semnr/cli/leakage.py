"""`semnr leakage`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..base.files import write_json
from ..base.outputs import has_keys, replaceable
from .text import add_output_options, print_json, say


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", nargs="+", metavar="FOLDER",
        help="the parts of a split (train, validation, test), each a folder or another source of images; or one "
        "folder: its folders of these names are the parts, else it has none",
    )  # fmt: skip
    parser.add_argument("--no-crop", action="store_true", help="leave data bars in")
    parser.add_argument("--least", type=float, metavar="R", help="correlation from which on two images are one")
    parser.add_argument("--out", metavar="FILE", help="write all of it as JSON, the group of each image among it")
    parser.add_argument("--report", metavar="FILE", help="write a page with pictures of the pairs, as HTML")
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    from ..leakage import LEAST, near_duplicates, parts_of, write_report

    if args.out:
        replaceable("out", args.out, "what semnr leakage found", has_keys("written_by", "clusters", "groups"))
    made = near_duplicates(
        parts_of(args.sources), crop=None if args.no_crop else "auto",
        least=LEAST if args.least is None else args.least, quiet=args.quiet or args.json,
    )  # fmt: skip
    if args.out:
        write_json(Path(args.out), made.to_dict())
    if args.report:
        write_report(made, args.report)
    if args.json:
        print_json(made.to_dict())
    else:
        say(made)
        for path in filter(None, (args.out, args.report)):
            say(f"written to {path}")
    return made.exit_code
