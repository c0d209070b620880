"""`semnr classify`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import PASS
from .text import add_output_options, add_settings, print_json, say
from .train import changed


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    train = actions.add_parser("train", help="learn the classes of a folder that holds a folder a class")
    train.add_argument("folder", metavar="FOLDER", help="a folder a class; images in PNG, TIFF, JPEG or BMP")
    train.add_argument("--out", metavar="DIR", required=True, help="folder for model, card, report, split, checkpoint")
    train.add_argument(
        "--recipe", default="standard", help="standard (ResNet-50; default), lite, small, compact, or a .toml file"
    )
    train.add_argument("--backbone", help="compact, efficientnet-lite0, a name of torchvision, or timm/NAME")
    train.add_argument("--weights", metavar="FILE", help="to start from; or auto (what is at hand), or none")
    add_settings(train, "TABLE.ENTRY=VALUE", help="data.balance=1.0 augment.rotate=90")
    train.add_argument("--minutes", type=float, help="stop, and anneal, within this time")
    train.add_argument("--seed", type=int)
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    evaluate = actions.add_parser("evaluate", help="judge a model on labelled images that it has not seen")
    evaluate.add_argument("model", metavar="MODEL", help="the folder of its training, or its .safetensors file")
    evaluate.add_argument("folder", metavar="FOLDER", help="a folder a class")
    evaluate.add_argument("--out", metavar="FILE", help="the report, as HTML")
    evaluate.add_argument("--seen", action="store_true", help="count images of training and validation too")
    predict = actions.add_parser("predict", help="say what each tile of a stream shows, or that it is unknown")
    predict.add_argument("model", metavar="MODEL", help="the folder of its training, or its .safetensors file")
    predict.add_argument("source", metavar="SOURCE", help="Zarr, tiled TIFF, folder, plan.csv or .npy of tiles")
    predict.add_argument("--out", metavar="DIR", required=True, help="folder of the run: one row a tile")
    predict.add_argument("--threshold", type=float, metavar="P", help="confidence below which a tile is unknown")
    predict.add_argument("--root", metavar="DIR", help="folder that a plan's paths may lie in")
    synth = actions.add_parser("synth", help="write a synthetic set of the ten categories, to try the others on")
    synth.add_argument("--out", metavar="DIR", required=True, help="a new folder")
    synth.add_argument("--specimens", type=int, default=20, metavar="N", help="of each category; default %(default)s")
    synth.add_argument("--side", type=int, default=96, metavar="PX", help="of an image; default %(default)s")
    synth.add_argument("--seed", type=int, default=0, help="default %(default)s")
    synth.add_argument("--bar", action="store_true", help="with a data bar on two thirds of the images")
    for action in (train, evaluate, predict):
        action.add_argument("--workers", type=int, default=2, metavar="N", help="threads that read; default 2")
    for action in (train, evaluate, predict, synth):
        add_output_options(action)


def run(args: argparse.Namespace) -> int:
    from .. import classify

    return int(_ACTIONS[args.action](classify, args))


def _train(classify: Any, args: argparse.Namespace) -> int:
    changes = changed(args.set)
    for name in ("minutes", "seed"):
        if getattr(args, name) is not None:
            changes[f"training.{name}"] = getattr(args, name)
    for name in ("backbone", "weights"):
        if getattr(args, name) is not None:
            changes[f"model.{name}"] = getattr(args, name)
    done = classify.train(
        args.folder, args.out, recipe=args.recipe, changes=changes, resume=args.resume, workers=args.workers,
        quiet=args.quiet or args.json,
    )  # fmt: skip
    if args.json:
        named = {name: getattr(done, name) for name in done.__dataclass_fields__ if name != "evaluation"}
        print_json({**named, "evaluation": done.evaluation.to_dict()})
        return PASS
    split = done.split
    said = ", ".join(f"{part} {sum(counts.values())}" for part, counts in split["parts"].items())
    say(
        f"{done.steps} steps in {done.minutes:.1f} minutes on {split['images']} images ({said}; near-duplicates "
        "together)"
    )
    for line in _notes(split):
        say(f"note: {line}")
    say(f"test images: {done.evaluation}")
    say(f"model: {done.weights} (SHA-256 {done.sha256})\ncard: {done.card}\nreport: {done.report}")
    return PASS


def _notes(split: Any) -> list[str]:
    lines = []
    if split["unreadable"]:
        lines.append(f"{split['unreadable']} image(s) could not be read and are left out")
    if split["groups_in_two_classes"]:
        lines.append(f"near-duplicates in two classes: {', '.join(split['groups_in_two_classes'][0])}")
    if split["imbalance"] >= 3:
        lines.append(f"the largest class has {split['imbalance']:g} times the images of the smallest")
    return lines


def _evaluate(classify: Any, args: argparse.Namespace) -> int:
    done = classify.evaluate(
        args.model, args.folder, seen=args.seen, workers=args.workers, quiet=args.quiet or args.json
    )  # fmt: skip
    if args.out:
        done.write(args.out)
    if args.json:
        print_json(done.to_dict())
    else:
        say(done)
        if args.out:
            say(f"written to {args.out}")
    return done.exit_code


def _predict(classify: Any, args: argparse.Namespace) -> int:
    done = classify.predict(
        args.model, args.source, args.out, threshold=args.threshold, root=args.root, quiet=args.quiet or args.json
    )
    if args.json:
        print_json({
            "out": str(done.run.path), "tiles": done.tiles, "lost": done.lost, "threshold": done.threshold,
            "categories": done.counts,
        })  # fmt: skip
    else:
        say(f"{done.tiles} tiles, {done.lost} of them unreadable; unknown below a confidence of {done.threshold:.3f}")
        for name, count in done.counts.items():
            say(f"  {count:6d}  {name}")
        say(f"written to {done.run.path}")
    return done.exit_code


def _synth(classify: Any, args: argparse.Namespace) -> int:
    count = classify.write_textures(args.out, specimens=args.specimens, side=args.side, seed=args.seed, bar=args.bar)
    if args.json:
        print_json({"out": str(Path(args.out)), "images": count})
    else:
        say(f"{count} images of ten classes written to {args.out}")
    return PASS


_ACTIONS = {"train": _train, "evaluate": _evaluate, "predict": _predict, "synth": _synth}
