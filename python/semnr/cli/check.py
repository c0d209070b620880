"""`semnr check`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..base.text import in_line
from .text import add_framing, add_output_options, add_registration, add_waivers, print_json, say

if TYPE_CHECKING:
    from ..runs.verdict import Verdict


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("noisy", metavar="NOISY", help="what the denoiser was given: an image, a folder, a stack, ...")
    parser.add_argument("denoised", metavar="DENOISED", nargs="?", help="what it made of it, under the same names")
    parser.add_argument("--reference", metavar="SRC", help="clean images, where there are some")
    parser.add_argument("--second-frame", metavar="SRC", help="another noisy frame of each site")
    parser.add_argument("--third-frame", metavar="SRC", help="and another one")
    parser.add_argument("--match", metavar="A=B", action="append", help="which names belong together, see semnr score")
    add_framing(parser)
    parser.add_argument("--out", metavar="DIR", default="semnr-check", help="default semnr-check, replaced each time")
    parser.add_argument("--strict", action="store_true", help="exit code 3 where a rule had no evidence")
    add_registration(parser)
    add_waivers(parser)
    parser.add_argument("--rules", metavar="FILE", help="rules (TOML); default: the built-in ones")
    parser.add_argument("--data-range", type=float, metavar="R", help="width of the intensity scale (4095 for 12 bit)")
    parser.add_argument("--scan-axis", choices=("x", "y"), default="x", help="along which the beam scans; default x")
    parser.add_argument("--label", help="name of the candidate in the report")
    parser.add_argument("--root", metavar="DIR", help="folder that a plan's paths may lie in")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="threads that read tiles; default 2")
    parser.add_argument("--no-report", action="store_true", help="no report.html")
    add_output_options(parser)


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
    say(describe(verdict))
    if place is not None:
        say(f"rows and verdict: {place}" if args.no_report else f"look at {place / REPORT}")
    return verdict.exit_code


def describe(verdict: Verdict) -> str:
    """The verdict in a few lines: what fired, with its number; what had no evidence, and what to bring."""
    against = f" against {in_line(verdict.before)}" if verdict.before else ""
    lines = [f"{verdict.outcome.upper()}: {in_line(verdict.after or 'candidate')}{against}, {verdict.tiles} tiles"]
    taken = dict(line.split(": ", 1) for line in verdict.path if ": " in line)
    for signal in verdict.fired:
        worst = ", ".join(in_line(region["tile"]) for region in signal.regions[:3])
        lines.append(f"  fired: {_words(signal.name)}: {taken.get(signal.name, '').rsplit(' -> ', 1)[0]}")
        lines.append(f"    {signal.advice}" + (f" Worst: {worst}." if worst else ""))
    for signal in verdict.lacking:
        if not signal.needs:
            lines.append(f"  not judged: {_words(signal.name)}: {in_line(signal.evidence.get('reason', ''))}")
    for need in verdict.bring:
        rules = ", ".join(_words(signal.name) for signal in verdict.lacking if signal.needs == need)
        lines.append(f"  not judged: {rules}; bring {need}")
    lines += [f"  note: {in_line(note)}" for note in verdict.notes]
    if verdict.waived:
        lines.append(f"  waived by name: {', '.join(map(_words, verdict.waived))}")
    for state in ("measured", "estimated", "unknown"):
        if names := [_words(name) for name, known in verdict.axes.items() if known == state]:
            lines.append(f"  {state}: {', '.join(names)}")
    return "\n".join(lines)


def _words(name: Any) -> str:
    return str(name).replace("_", " ")
