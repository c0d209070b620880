"""`semnr anomaly`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import PASS
from .score import problem_lines
from .text import add_output_options, add_settings, print_json, say
from .train import changed

METHODS = ("recall", "f1", "cost", "normals")


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _fit(actions.add_parser("fit", help="fit a model to normal tiles"))
    _calibrate(actions.add_parser("calibrate", help="choose the threshold of a model"))
    _score(actions.add_parser("score", help="score a stream of tiles and flag those above the threshold"))
    moved = actions.add_parser("threshold", help="show a model's threshold, or move it")
    moved.add_argument("model", metavar="MODEL")
    moved.add_argument("--set", type=float, metavar="T", dest="value", help="the new threshold; no model is changed")
    add_output_options(moved)
    export = actions.add_parser("export", help="write an autoencoder as ONNX, its threshold outside the graph")
    export.add_argument("model", metavar="MODEL")
    export.add_argument("--out", metavar="FILE", required=True, help="model.onnx")
    add_output_options(export)


def _fit(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", metavar="NORMAL", help="normal tiles: Zarr, tiled TIFF, folder, plan.csv or .npy")
    sub.add_argument("--out", metavar="DIR", required=True, help="folder of the model")
    sub.add_argument("--kind", choices=("autoencoder", "padim", "patchcore"), default="autoencoder")
    sub.add_argument("--data-range", type=float, metavar="R", help="width of the intensity scale (4095 for 12 bit)")
    sub.add_argument("--recipe", default="small", help="of the autoencoder: small (default), toy, or a .toml file")
    add_settings(sub, "TABLE.ENTRY=VALUE", help="of the recipe: training.steps=3000 data.patch=64")
    sub.add_argument("--backbone", default="efficientnet-lite0", help="efficientnet-lite0 (default), vgg16, alexnet")
    sub.add_argument("--weights", metavar="FILE", help="of the backbone; default: where they are installed")
    sub.add_argument("--denoiser", default="semnr-small", metavar="NAME", help="before the backbone; none: no denoiser")
    sub.add_argument("--dims", type=int, default=80, metavar="N", help="channels of the backbone; default 80")
    sub.add_argument("--coreset", type=int, default=1000, metavar="N", help="vectors that patchcore keeps; 1000")
    sub.add_argument("--statistic", default="scan", metavar="S", help="scan (default), mse, mae, ssim, fsim, ...")
    sub.add_argument("--scan-axis", choices=("x", "y"), default="x", help="along which the beam scans; default x")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--resume", action="store_true", help="go on with the training in --out")
    add_output_options(sub)


def _calibrate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="folder that `semnr anomaly fit` wrote")
    sub.add_argument("normal", metavar="NORMAL", help="normal tiles that the model was not fitted on")
    sub.add_argument("--anomalous", metavar="SRC", help="tiles that must be flagged")
    sub.add_argument("--label-column", metavar="NAME", help="instead: a column of the tiles that tells, 1 or 0")
    told = "default recall where there are anomalous tiles, else normals"
    sub.add_argument("--method", choices=METHODS, help=told)
    sub.add_argument("--recall", type=float, default=0.95, metavar="R", help="with recall: at least; default 0.95")
    sub.add_argument("--cost-missed", type=float, default=10.0, metavar="C", help="with cost; default 10")
    sub.add_argument("--cost-false", type=float, default=1.0, metavar="C", help="with cost; default 1")
    sub.add_argument("--false-alarms", type=float, default=0.01, metavar="P", help="with normals; default 0.01")
    sub.add_argument("--confidence", type=float, default=0.95, metavar="P", help="of intervals; default 0.95")
    sub.add_argument("--data-range", type=float, metavar="R", help="as for fit")
    add_output_options(sub)


def _score(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="folder that `semnr anomaly fit` wrote")
    sub.add_argument("source", metavar="SOURCE", help="Zarr, tiled TIFF, folder, plan.csv, KLARF or .npy of tiles")
    sub.add_argument("--out", metavar="DIR", required=True, help="folder of the run")
    sub.add_argument("--threshold", type=float, metavar="T", help="default: the one beside the model")
    sub.add_argument("--data-range", type=float, metavar="R", help="another one than the model's is refused")
    sub.add_argument("--label", help="name of the run in tables and reports")
    sub.add_argument("--maps", action="store_true", help="also write the map of each tile's score to maps.zarr")
    sub.add_argument("--klarf", choices=("1.2", "1.8"), help="also write the flagged tiles to flagged.klarf")
    sub.add_argument("--report", metavar="FILE", help="also write a report")
    sub.add_argument("--wafer", metavar="FILE", help="layout of the wafer (TOML: pitch_um, center_um, ...)")
    sub.add_argument("--resume", action="store_true", help="continue the run in --out, also with another threshold")
    sub.add_argument("--workers", type=int, default=2, metavar="N", help="threads that read tiles; default 2")
    sub.add_argument("--memory-budget", default="2GiB", metavar="SIZE", help="bounds the tiles held; default 2GiB")
    sub.add_argument("--root", metavar="DIR", help="folder that a plan's paths may lie in")
    add_output_options(sub)


def run(args: argparse.Namespace) -> int:
    from .. import anomaly, report, wafers

    if args.action == "score":
        return score(args, anomaly, report, wafers)
    actions = {"fit": fit, "calibrate": calibrate, "threshold": threshold, "export": export}
    return actions[args.action](args, anomaly)


def _teller(args: argparse.Namespace) -> Any:
    return (lambda line: None) if args.json else (lambda line: say(line, flush=True))


def fit(args: argparse.Namespace, anomaly: Any) -> int:
    model = anomaly.fit(
        args.source, args.out, kind=args.kind, data_range=args.data_range, recipe=args.recipe,
        changes=changed(args.set), backbone=args.backbone, weights=args.weights,
        denoiser=None if args.denoiser == "none" else args.denoiser, dims=args.dims, coreset=args.coreset,
        score=args.statistic, scan_axis=-1 if args.scan_axis == "x" else -2, seed=args.seed, resume=args.resume,
        quiet=args.quiet or args.json, say=_teller(args),
    )  # fmt: skip
    facts = {name: value for name, value in model.facts.items() if name not in ("fitted_on", "error_of_training_tiles")}
    if args.json:
        print_json({**facts, "out": str(model.path)})
    else:
        tiles = facts["tiles"]
        say(f"{model.kind} fitted on {tiles['used']} tiles of range {model.data_range:g}, score {model.score_name}")
        say(f"model: {model.path} (SHA-256 {facts['sha256']})")
    return PASS


def calibrate(args: argparse.Namespace, anomaly: Any) -> int:
    found = anomaly.calibrate(
        args.model, args.normal, args.anomalous, label=args.label_column, method=args.method, recall=args.recall,
        cost_missed=args.cost_missed, cost_false=args.cost_false, false_alarms=args.false_alarms,
        confidence=args.confidence, data_range=args.data_range, quiet=args.quiet or args.json, say=_teller(args),
    )  # fmt: skip
    if args.json:
        print_json(found.to_dict())
        return PASS
    say(f"threshold: {found.threshold.value:.6g} ({found.threshold.method}); {Path(args.model) / 'threshold.json'}")
    if found.anomalous.size:
        say(f"AUROC {found.auroc:.4f}, average precision {found.average_precision:.4f}")
    for line in problem_lines((p.status, p.tile, p.reason) for p in found.problems):
        say(line)
    return PASS


def score(args: argparse.Namespace, anomaly: Any, report: Any, wafers: Any) -> int:
    done = anomaly.score(
        args.model, args.source, args.out, threshold=args.threshold, data_range=args.data_range, label=args.label,
        maps=args.maps, wafer=None if args.wafer is None else wafers.read_wafer(args.wafer), resume=args.resume,
        workers=args.workers, memory_budget=args.memory_budget, root=args.root, quiet=args.quiet or args.json,
    )  # fmt: skip
    if args.klarf is not None:
        done.write_klarf(done.path / "flagged.klarf", version=args.klarf)
    if args.report is not None:
        report(done, args.report)
    verdict = done.verdict
    assert verdict is not None
    if args.json:
        print_json({**done.info, "verdict": verdict.to_dict()})
        return done.exit_code
    signal, counts = verdict["anomaly"], done.counts
    say(f"{done.label}: {counts['ok']} of {counts['tiles']} tiles scored in {done.info['seconds']:.1f} s")
    say("\n".join(verdict.path + verdict.notes))
    for region in signal.regions[:10]:
        say(f"  {region['tile']}: {region['anomaly_score']:.4g}")
    if len(signal.regions) > 10:
        say(f"  and {len(signal.regions) - 10} more")
    for line in problem_lines((p["status"], p["tile"], p["reason"] or "") for p in done.problems)[:10]:
        say(line)
    for remark in done.remarks:
        say(f"  note: {remark}")
    return done.exit_code


def threshold(args: argparse.Namespace, anomaly: Any) -> int:
    model = anomaly.load(args.model)
    limit = model.threshold
    if args.value is not None:
        limit = (limit or anomaly.Threshold(0.0, score=model.score_name)).moved(args.value)
        model.keep(limit)
    if args.json:
        print_json(None if limit is None else limit.to_dict())
    elif limit is None:
        say("no threshold yet: `semnr anomaly calibrate` chooses one, --set gives one")
    else:
        say(f"threshold {limit.value:.6g} of the score {model.score_name}: {limit.statement}")
    return PASS


def export(args: argparse.Namespace, anomaly: Any) -> int:
    path = anomaly.export_onnx(args.model, args.out)
    if args.json:
        print_json({"out": str(path)})
    else:
        say(f"written to {path}: the threshold is not in the graph")
    return PASS
