"""`semnr demo`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..base.text import listed, number, table
from ..runs.readings import words
from . import PASS
from .text import print_json, say

if TYPE_CHECKING:
    from ..demo import Demo
    from ..scoring import Run

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
    parser.add_argument(
        "--network",
        default="semnr-small",
        metavar="NAME",
        help="semnr-small (default), or semnr-base: 4 times the time",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    from ..demo import RELEASED, run_demo

    silent = args.quiet or args.json
    made = run_demo(
        args.out,
        dies=args.dies,
        tile=args.tile,
        seed=args.seed,
        network=args.network,
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
    say(f"means over {counts['ok']} tiles; {_of_dists(next(iter(made.runs.values())))}\n")
    say(_told(made, RELEASED[0]))
    return PASS


def _of_dists(run: Run) -> str:
    """On how many tiles DISTS ran, or how to have it."""
    if "dists" not in run.summary:
        return "DISTS needs `semnr weights fetch vgg16`, once"
    return f"DISTS with the published weights, on {run.summary['dists']['n']} of them"


def _told(made: Demo, released: str) -> str:
    """What the demo shows, in three sentences."""
    means = {name: run.summary for name, run in made.runs.items()}
    better = [
        n for n in made.verdicts if all(means[n][m]["mean"] > means[released][m]["mean"] for m in ("psnr", "ssim"))
    ]
    refused = [
        f"{name} ({', '.join(words(signal.name) for signal in made.verdicts[name].fired)})"
        for name in better
        if not made.verdicts[name].passed
    ]
    lost = [
        f"{name} lost {fate['lost']} of {fate['defects']} implanted defects, of which the scan marked {fate['located']}"
        for name, fate in made.fates.items()
        if fate["lost"]
    ]
    return "\n".join([
        f"By PSNR and SSIM {listed(better)} beat {released}; the guardrails refuse {listed(refused)}.",
        f"{'; '.join(lost)}; the others lost none." if lost else "No denoiser lost a defect.",
        f"Everything is in {made.folder}/: open {made.report} in a browser.",
    ])  # fmt: skip
