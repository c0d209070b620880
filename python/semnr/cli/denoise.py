"""`semnr denoise`."""

from __future__ import annotations

import argparse
from typing import Any

from .score import describe as describe_scores
from .score import problem_lines
from .text import add_framing, add_output_options, add_settings, parameters, print_json, say

_MODELS = "gaussian, median, nlm (default), wavelet, tv, bm3d, semnr-small, semnr-base, or FILE.safetensors"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="Zarr, tiled TIFF, folder, plan.csv or .npy of tiles")
    model = parser.add_argument_group("the denoiser")
    model.add_argument("--model", default="nlm", help=_MODELS)
    add_settings(model, "NAME=VALUE", help="the model's parameters: sigma=1.5")
    model.add_argument("--vst", choices=("auto", "on", "off"), default="auto", help="variance stabilisation")
    model.add_argument("--noise", choices=("run", "image"), default="run", help="one noise law a run, or one a tile")
    images = parser.add_argument_group("what the images are")
    images.add_argument("--data-range", type=float, metavar="R", help="width of the intensity scale (1023 for 10 bit)")
    add_framing(images, "; the rest stays as it was")
    images.add_argument("--frames", action="store_true", help="noisy, noisy_2, ... are frames of one site: fuse them")
    images.add_argument("--tile", type=int, default=512, metavar="PX", help="tiles that a mosaic is cut into")
    images.add_argument("--root", metavar="DIR", help="folder that a plan's paths may lie in")
    scores = parser.add_argument_group("scores in the same pass")
    scores.add_argument("--score", action="store_true", help="score the tiles as they are denoised; see `semnr score`")
    scores.add_argument("--metrics", metavar="M,M", help="with --score: default psnr,ssim,fsim,dists,cnr")
    scores.add_argument("--rules", metavar="FILE", help="with --score: guard rules; exit code 1 where one fires")
    results = parser.add_argument_group("results")
    results.add_argument(
        "--out",
        metavar="PATH",
        required=True,
        help="clean.tif (one file, with all tags), clean.zarr, or a folder for TIFF and plan.csv",
    )
    results.add_argument("--overwrite", action="store_true", help="replace what an earlier run left at --out")
    results.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same settings")
    results.add_argument("--workers", type=int, metavar="N", help="threads; default the processors")
    add_output_options(results)


def run(args: argparse.Namespace) -> int:
    from ..pipeline import denoise

    scoring = {"rules": args.rules, "metrics": args.metrics and args.metrics.split(",")}
    scoring = {name: value for name, value in scoring.items() if value}
    if scoring and not args.score:
        raise ValueError(f"--{next(iter(scoring))} is given without --score; accepted: both")
    done = denoise(
        args.source,
        args.out,
        model=args.model,
        data_range=args.data_range,
        vst="auto" if args.vst == "auto" else args.vst == "on",
        tile=args.tile,
        workers=args.workers,
        overwrite=args.overwrite,
        resume=args.resume,
        noise=args.noise,
        frames=args.frames,
        crop=args.crop,
        mask=args.mask,
        score=scoring or args.score,
        root=args.root,
        quiet=args.quiet or args.json,
        **parameters(args.set),
    )
    if args.json:
        print_json(done.to_dict())
    else:
        say(describe(done))
    return int(done.exit_code)


def describe(done: Any) -> str:
    """The run as a few lines of text."""
    counts = done.counts
    settings = ", ".join(f"{name}={value}" for name, value in done.params.items() if value is not None)
    lines = [f"{done.model}({settings}): {counts.get('ok', 0)} of {counts['tiles']} tiles in {done.seconds:.1f} s"]
    if done.noise is not None:
        lags = ", ".join(f"{lag:.2f}" for lag in done.noise.correlation)
        lines.append(
            f"noise: variance {done.noise.gain:.4g} · level {done.noise.offset:+.4g}"
            + (f", correlation along the line {lags}" if lags else "")
        )
    if not done.exact_tiling:
        lines.append("this model is not local: tiles of a mosaic may differ from the whole image at their seams")
    lines += [f"note: {remark}" for remark in done.remarks]
    told = problem_lines((p.status, p.tile, p.reason) for p in done.problems)
    lines += told[:10]
    if len(told) > 10:
        lines.append(f"  and {len(told) - 10} more")
    if done.kept:
        lines.append(f"{done.kept} tiles were there already")
    lines.append(f"written to {done.out}")
    if done.run is not None:
        lines += [describe_scores(done.run), *([] if done.run.verdict is None else [str(done.run.verdict)])]
    return "\n".join(lines)
