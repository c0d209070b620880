"""`semnr train`."""

from __future__ import annotations

import argparse
from typing import Any

from .text import add_output_options, add_settings, print_json, say, settings


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("denoiser",), help="what to train")
    parser.add_argument(
        "source", metavar="SOURCE", nargs="?",
        help="tiles to learn from: with references, with second frames, or single; none: the synthetic generator",
    )  # fmt: skip
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for weights, card, curves, checkpoint")
    parser.add_argument("--recipe", default="small", help="small (default), toy, or a .toml file")
    add_settings(parser, "TABLE.ENTRY=VALUE", help="loss.texture=0.6 data.batch=8")
    parser.add_argument("--minutes", type=float, help="stop, and anneal, within this time")
    parser.add_argument("--steps", type=int, help="stop, and anneal, within so many steps")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--devices", help="how many GPUs (or CPU processes); default all GPUs, or one process")
    parser.add_argument("--precision", choices=("auto", "32", "bf16"))
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    from ..training import train_denoiser

    changes = changed(args.set)
    for name in ("minutes", "steps", "seed", "precision"):
        if getattr(args, name) is not None:
            changes[f"training.{name}"] = getattr(args, name)
    if args.devices is not None:
        changes["training.devices"] = int(args.devices) if args.devices.isdigit() else args.devices
    done = train_denoiser(
        args.source, args.out, recipe=args.recipe, changes=changes, resume=args.resume, quiet=args.quiet or args.json
    )
    if args.json:
        print_json({name: getattr(done, name) for name in done.__dataclass_fields__})
    else:
        say(describe(done))
    return done.exit_code


def describe(done: Any) -> str:
    lines = [f"{done.steps} steps in {done.minutes:.1f} minutes"]
    if done.best:
        figures = {k: v for k, v in done.best.items() if k in ("psnr", "ssim", "fsim", "area", "transfer", "mse_drop")}
        shown = ", ".join(f"{k} {v:.4g}" for k, v in figures.items())
        lines.append(f"kept the model of step {done.best['step']}" + (f": {shown}" if shown else ""))
        lines.append(f"weights: {done.weights} (SHA-256 {done.sha256})")
    else:
        lines.append("no candidate passed the guardrails (evidence transfer, rules); the last weights are not for use:")
        lines.append(f"  {done.last}")
    return "\n".join([*lines, f"card: {done.card}"])


def changed(pairs: list[str]) -> dict[str, Any]:
    """["loss.texture=0.6"] as {"loss.texture": 0.6}; values are TOML, or else plain text."""
    import tomllib

    changes: dict[str, Any] = {}
    for name, text in settings(pairs, "TABLE.ENTRY=VALUE"):
        try:
            changes[name] = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            changes[name] = text
    return changes
