"""`semnr guard`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._text import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", metavar="BEFORE", help="scored run of the released or baseline denoiser")
    parser.add_argument("after", metavar="AFTER", help="scored run of the candidate, on the same tiles and reference")
    parser.add_argument("--rules", metavar="FILE", help="rules (TOML); default: the built-in ones")
    parser.add_argument("--allow-unknown", action="append", default=[], metavar="RULE", help="waive a rule's evidence")
    parser.add_argument("--out", metavar="FILE", help="also write the verdict as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    from .._files import write_json
    from ..guarding import DEFAULT_RULES, guard, load_rules
    from ..scoring import Run

    before, after = (Run.open(folder).profile() for folder in (args.before, args.after))
    rules = load_rules(args.rules) if args.rules else DEFAULT_RULES
    verdict = guard(before, after, rules=rules, allow_unknown=tuple(args.allow_unknown))
    if args.out:
        write_json(Path(args.out), verdict.to_dict())
    if args.json:
        print_json(verdict.to_dict())
    else:
        print(verdict)
    return verdict.exit_code
