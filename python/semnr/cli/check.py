"""`semnr check`."""

from __future__ import annotations

import argparse

from .text import add_category, add_framing, add_output_options, add_registration, add_verbose, add_waivers, print_json
from .verdicts import show


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("noisy", metavar="NOISY", help="what the denoiser was given: an image, a folder, a stack, ...")
    parser.add_argument("denoised", metavar="DENOISED", nargs="?", help="what it made of it, under the same names")
    more = parser.add_argument_group("more images, for a verdict that can pass")
    more.add_argument("--second-frame", metavar="SRC", help="another noisy frame of each site")
    more.add_argument("--third-frame", metavar="SRC", help="and another one")
    more.add_argument("--reference", metavar="SRC", help="clean images, where there are some")
    images = parser.add_argument_group("what the images are")
    images.add_argument("--match", metavar="A=B", action="append", help="which names belong together, see semnr score")
    add_framing(images)
    add_registration(images)
    images.add_argument("--data-range", type=float, metavar="R", help="width of the intensity scale (4095 for 12 bit)")
    images.add_argument("--scan-axis", choices=("x", "y"), default="x", help="along which the beam scans; default x")
    images.add_argument("--root", metavar="DIR", help="folder that a plan's paths may lie in")
    images.add_argument("--label", help="name of the candidate in the report")
    rules = parser.add_argument_group("how it is judged")
    rules.add_argument("--strict", action="store_true", help="exit code 3 where a rule had no evidence")
    add_waivers(rules)
    rules.add_argument("--rules", metavar="FILE", help="rules (TOML); default: the built-in ones")
    add_category(rules)
    results = parser.add_argument_group("results")
    results.add_argument("--out", metavar="DIR", default="semnr-check", help="default semnr-check, replaced each time")
    results.add_argument("--no-report", action="store_true", help="no report.html")
    results.add_argument("--workers", type=int, default=2, metavar="N", help="threads that read tiles; default 2")
    add_output_options(results)
    add_verbose(results)


def run(args: argparse.Namespace) -> int:
    from ..checking import REPORT, check

    verdict = check(
        args.noisy,
        args.denoised,
        reference=args.reference,
        second_frame=args.second_frame,
        third_frame=args.third_frame,
        match=args.match,
        crop=args.crop,
        mask=args.mask,
        out=args.out,
        data_range=args.data_range,
        scan_axis=-1 if args.scan_axis == "x" else -2,
        label=args.label,
        rules=args.rules,
        category=args.category,
        waive=args.waive,
        strict=args.strict,
        register=args.register,
        report=not args.no_report,
        root=args.root,
        workers=args.workers,
        quiet=args.quiet or args.json,
    )
    place = None if verdict.run is None else verdict.run.path
    if args.json:
        print_json({**verdict.to_dict(), "out": place and str(place)})
        return verdict.exit_code
    show(verdict, verbose=args.verbose, look_at=None if place is None or args.no_report else place / REPORT)
    return verdict.exit_code
