"""`semnr weights list|fetch|verify`."""

from __future__ import annotations

import argparse

from . import PASS, USAGE
from .text import print_json, say


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the weights that semnr knows and where they are")
    fetching = actions.add_parser("fetch", help="download weights, or take them from a file, into torch's cache")
    fetching.add_argument("name", help="such as vgg16")
    fetching.add_argument("--path", metavar="FILE", help="a file that you brought, for machines offline")
    verifying = actions.add_parser("verify", help="checksum, names and shapes")
    verifying.add_argument("name", help="a name, or a file")
    for sub in (listing, fetching, verifying):
        sub.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    from .. import weights

    if args.action == "list":
        found = weights.list_weights()
        if args.json:
            print_json(found)
        else:
            for known in found:
                say(f"{known['name']}: {'present' if known['present'] else 'ABSENT'}")
                say("\n".join(f"    {k}: {known[k]}" for k in ("purpose", "license", "url", "sha256", "path")))
        return PASS
    result = weights.fetch(args.name, path=args.path) if args.action == "fetch" else weights.verify(args.name)
    if args.json:
        print_json(result)
    else:
        say("\n".join(f"{k}: {v}" for k, v in result.items()))
    return PASS if result["ok"] else USAGE
