"""`semnr demo`."""

from __future__ import annotations

import argparse

from ..base.text import number, table
from . import PASS
from .text import print_json, say

COLUMNS = (
    ("PSNR dB", "psnr", 2),
    ("SSIM", "ssim", 4),
    ("FSIM", "fsim", 4),
    ("DISTS", "dists", 4),
    ("CNR fixed", "cnr_fixed_noise", 2),
    ("contrast kept", "contrast_retention", 3),
    ("transfer T", "transfer", 3),
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="semnr-demo", metavar="DIR", help="an older demo there is replaced")
    parser.add_argument("--dies", type=int, default=11, metavar="N", help="default 11, two tiles each")
    parser.add_argument("--tile", type=int, default=512, metavar="PX", help="side of a tile; default 512")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    from ..demo import NO_DISTS, RELEASED, run_demo

    silent = args.quiet or args.json
    made = run_demo(
        args.out,
        dies=args.dies,
        tile=args.tile,
        seed=args.seed,
        quiet=silent,
        say=(lambda line: None) if silent else (lambda line: say(line, flush=True)),
    )
    if args.json:
        print_json(
            {
                "folder": str(made.folder),
                "report": str(made.report),
                "summary": {name: run.summary for name, run in made.runs.items()},
                "verdicts": {name: v.to_dict() for name, v in made.verdicts.items()},
                "seconds": made.seconds,
                "metric_seconds": made.metric_seconds,
                "defects": made.fates,
            }
        )
        return PASS
    rows = []
    for name, scored in made.runs.items():
        means = [number(scored.summary.get(key, {}).get("mean"), digits) for _, key, digits in COLUMNS]
        verdict = "released" if name == RELEASED[0] else "pass" if made.verdicts[name].passed else "FAIL"
        rows.append((name, *means, verdict))
    say("\n" + table(("denoiser", *(title for title, *_ in COLUMNS), "verdict"), rows))
    counts = next(iter(made.runs.values())).counts
    scored = next(iter(made.runs.values())).summary.get("dists")
    texture = NO_DISTS if scored is None else f"DISTS over {scored['n']} of them"
    say(f"means over {counts['ok']} tiles; {texture}")
    header = ("denoiser", "defects", "kept", "weakened", "lost", "lost and located")
    fates = [(n, *(f[k] for k in ("defects", "kept", "weakened", "lost", "located"))) for n, f in made.fates.items()]
    say("\n" + table(header, fates))
    for name, verdict in made.verdicts.items():
        say(f"\n{name} against {RELEASED[0]}\n{verdict}")
    times = [
        (name.upper(), f"{1e3 * seconds:.1f}", f"{1 / seconds:.1f}", f"{args.tile**2 / 1e6 / seconds:.1f}")
        for name, seconds in made.metric_seconds.items()
    ]
    say("\n" + table(("metric", "ms a tile", "tiles/s", "MP/s"), times))
    say(f"each metric on its own, {args.tile} x {args.tile} px, all cores")
    say("\nTime: " + ", ".join(f"{step} {seconds:.1f} s" for step, seconds in made.seconds.items()))
    say(f"Everything is in {made.folder}/; open {made.report} in a browser")
    return PASS
