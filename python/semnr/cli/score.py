"""`semnr score`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.text import in_line, number, table
from .text import (
    add_framing,
    add_output_options,
    add_registration,
    add_settings,
    add_waivers,
    parameters,
    print_json,
    say,
)

if TYPE_CHECKING:
    from ..tiles import TileSource

DIGITS = {"psnr": 2, "psnr_estimated": 2, "mse_estimated": 2, "psnr_noisy": 2, "mse": 2, "mae": 3}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="Zarr, tiled TIFF, folder, plan.csv or .npy of tiles")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the run")
    others = parser.add_argument_group("what the tiles are held against")
    others.add_argument("--reference", metavar="SRC", help="reference tiles, paired by id; default: the source's own")
    others.add_argument("--noisy", metavar="SRC", help="noisy input, for evidence transfer and fixed-noise CNR")
    others.add_argument("--noisy-2", metavar="SRC", help="second noisy frame of each site, where there is no reference")
    others.add_argument("--noisy-3", metavar="SRC", help="third noisy frame of each site")
    others.add_argument(
        "--match",
        metavar="A=B",
        action="append",
        help="which names belong together, '{name}_noisy={name}_dn'; default: the same, or what is found in them",
    )
    add_registration(others)
    images = parser.add_argument_group("what the images are")
    add_framing(images)
    images.add_argument("--data-range", type=float, metavar="R", help="width of the intensity scale (1023 for 10 bit)")
    images.add_argument("--nan", choices=("error", "propagate", "omit"), default="error", help="non-finite pixels")
    images.add_argument("--scan-axis", choices=("x", "y"), default="x", help="along which the beam scans; default x")
    images.add_argument("--wafer", metavar="FILE", help="layout of the wafer (TOML: pitch_um, center_um, ...)")
    images.add_argument("--root", metavar="DIR", help="folder that a plan's paths may lie in")
    images.add_argument("--denoise", metavar="MODEL", help="denoise each tile as it is read; see `semnr denoise`")
    add_settings(images, "NAME=VALUE", help="with --denoise: sigma=1.5")
    measured = parser.add_argument_group("what is measured")
    measured.add_argument(
        "--metrics",
        metavar="M",
        help="comma separated; default psnr,ssim,fsim,dists,cnr, DISTS only where its weights are in the cache; "
        "also lpips",
    )
    measured.add_argument("--fsim-downsample", default="auto", metavar="F", help="one factor for the run; default auto")
    measured.add_argument("--dists-weights", metavar="W", help="a file, or `random` (uncalibrated); default: the cache")
    measured.add_argument("--dists-every", type=int, default=1, metavar="N", help="DISTS on every N-th tile")
    measured.add_argument("--no-tests", action="store_true", help="no residual tests and changes (with a noisy input)")
    measured.add_argument("--metrology", choices=("lines", "holes"), help="also measure CD and roughness of each tile")
    judged = parser.add_argument_group("how it is judged")
    judged.add_argument("--rules", metavar="FILE", help="guard rules (TOML) to hold the run against")
    add_waivers(judged)
    judged.add_argument("--alarms", metavar="FILE", help="alarm rules (TOML) on the stream, see alarms.jsonl")
    filling = parser.add_argument_group("a folder that fills while it is scored")
    filling.add_argument("--watch", type=float, metavar="SECONDS", help="end after SECONDS without a change")
    filling.add_argument(
        "--settle", type=float, metavar="SECONDS", help="with --watch: a file without a change so long is whole; 1"
    )
    filling.add_argument(
        "--roles", metavar="R", help="with --watch: folders that will come, the scored one first: denoised,reference"
    )
    work = parser.add_argument_group("how it runs")
    work.add_argument("--resume", action="store_true", help="continue the run in --out")
    work.add_argument("--workers", type=int, default=2, metavar="N", help="threads that read tiles; default 2")
    work.add_argument("--memory-budget", default="2GiB", metavar="SIZE", help="bounds the tiles held; default 2GiB")
    work.add_argument("--scheduler", metavar="ADDR", help="local:N processes here, or tcp://host:8786 of dask")
    work.add_argument(
        "--device",
        default="cpu",
        help="cpu (default), cuda, cuda:N, auto, or several: cuda:0,cuda:1; never ran on a GPU",
    )
    work.add_argument("--backend", default="auto", help="default auto; see `semnr doctor`")
    work.add_argument("--follow", action="store_true", help="print throughput and latency by stage while it runs")
    results = parser.add_argument_group("results")
    results.add_argument("--label", help="name of the candidate in tables and reports")
    results.add_argument("--maps", default="", metavar="M", help="ssim, cnr, evidence, image: also write maps.zarr")
    results.add_argument("--klarf", choices=("1.2", "1.8"), help="also write the flagged tiles to flagged.klarf")
    add_output_options(results)


def run(args: argparse.Namespace) -> int:
    from ..scoring import score
    from ..wafers import read_wafer

    source = args.source
    if args.watch is not None:
        source = _watched(args)
    elif args.settle is not None or args.roles is not None:
        raise ValueError(f"{'--settle' if args.settle is not None else '--roles'} is given without --watch SECONDS")
    if args.denoise is not None:
        from ..denoising import denoised

        source = denoised(
            source, model=args.denoise, data_range=args.data_range, root=args.root, **parameters(args.set)
        )
    elif args.set:
        raise ValueError("--set is given without --denoise MODEL; accepted: both")
    scored = score(
        source,
        reference=args.reference,
        noisy=args.noisy,
        noisy_2=args.noisy_2,
        noisy_3=args.noisy_3,
        match=args.match,
        crop=args.crop,
        mask=args.mask,
        out=args.out,
        metrics=None if args.metrics is None else names(args.metrics),
        data_range=args.data_range,
        label=args.label,
        fsim_downsample=int(args.fsim_downsample) if args.fsim_downsample.isdigit() else args.fsim_downsample,
        dists_weights=args.dists_weights,
        dists_every=args.dists_every,
        nan=args.nan,
        tests=not args.no_tests,
        metrology=args.metrology,
        scan_axis=-1 if args.scan_axis == "x" else -2,
        rules=args.rules,
        allow_unknown=args.waive,
        register=args.register,
        alarms=args.alarms,
        maps=names(args.maps),
        wafer=None if args.wafer is None else read_wafer(args.wafer),
        scheduler=args.scheduler,
        follow=args.follow,
        resume=args.resume,
        workers=args.workers,
        memory_budget=args.memory_budget,
        root=args.root,
        device=args.device,
        backend=args.backend,
        quiet=args.quiet or args.json,
    )
    if args.klarf is not None:
        scored.write_klarf(scored.path / "flagged.klarf", version=args.klarf)
    verdict = scored.verdict
    if args.json:
        print_json({**scored.info, "verdict": None if verdict is None else verdict.to_dict()})
    else:
        say(describe(scored))
        if verdict is not None:
            say(verdict)
    return scored.exit_code


def _watched(args: argparse.Namespace) -> TileSource:
    from ..tiles import watch_folder

    for role in ("reference", "noisy", "noisy_2", "noisy_3"):
        if (place := getattr(args, role)) is not None and Path(place).resolve() == (Path(args.source) / role).resolve():
            setattr(args, role, None)  # the folder's own, which fills too
    roles = tuple(names(args.roles or ""))
    given = [role for role in ("reference", "noisy", "noisy_2") if getattr(args, role) is not None]
    settle = {} if args.settle is None else {"settle": args.settle}
    return watch_folder(args.source, roles=roles, given=given, idle=args.watch, **settle)


def names(text: str) -> list[str]:
    """ "a, b" as ["a", "b"]."""
    return [name.strip() for name in text.split(",") if name.strip()]


def problem_lines(problems: Iterable[tuple[str, str, str]]) -> list[str]:
    """(status, tile, reason) as lines; tiles with one trouble in common, but for their names, are one line."""
    alike: dict[tuple[str, str], list[str]] = {}
    for status, tile, reason in problems:
        alike.setdefault((status, re.sub(rf"(?<!\w){re.escape(tile)}(?!\w)", "\0", reason)), []).append(tile)
    lines = []
    for (status, reason), tiles in alike.items():
        if len(tiles) <= 2:
            lines += [f"  {status}: {in_line(tile)}: {in_line(reason.replace(chr(0), tile))}" for tile in tiles]
        else:
            shown = f"{', '.join(map(in_line, tiles[:2]))}, ..."
            lines.append(f"  {status}: {len(tiles)} tiles ({shown}): {in_line(reason.replace(chr(0), tiles[0]))}")
    return lines


def describe(scored) -> str:  # type: ignore[no-untyped-def]
    """The run as a few lines of text."""
    summary, counts = scored.summary, scored.counts
    rows = []
    for name, values in summary.items():
        if isinstance(values, dict):
            d = DIGITS.get(name, 4)
            rows.append((name, *(number(values[k], d) for k in ("mean", "median", "p05", "p95")), values["n"]))
    lines = [f"{scored.label}: {counts['ok']} of {counts['tiles']} tiles scored in {scored.info['seconds']:.1f} s"]
    if rows:
        lines.append(table(("metric", "mean", "median", "5 %", "95 %", "tiles"), rows))
    if (pooled := summary.get("psnr_of_mean_mse")) is not None:
        lines.append(f"PSNR of the mean MSE: {pooled:.2f} dB (the row `psnr` is a mean of dB values)")
    if summary.get("infinite_psnr"):
        lines.append(f"{summary['infinite_psnr']} tiles identical to their reference: infinite PSNR, counted apart")
    dists = scored.info["settings"].get("dists") or {}
    if "dists" in summary and dists.get("calibrated") is False:
        lines.append("DISTS is uncalibrated (random weights): compare nothing with published values")
    if "dists" in summary and dists.get("sample"):
        lines.append(f"DISTS on a sample of {dists['sample']} tiles")
    told = problem_lines((p["status"], p["tile"], p["reason"] or "") for p in scored.problems)
    lines += told[:10]
    if len(told) > 10:
        lines.append(f"  and {len(told) - 10} more, see {scored.path / 'run.json'}")
    lines += [f"  note: {in_line(remark)}" for remark in scored.remarks]
    lines += [f"  not judged: {what}" for what in scored.info.get("unjudged", [])]
    lines.append(f"written to {scored.path}")
    return "\n".join(lines)
