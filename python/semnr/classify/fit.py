"""One training run of a classifier: the images, the split, the loop, and the files that it leaves."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import backbones
from ..base.files import write_json
from ..base.outputs import apart
from ..leakage import Leakage, compare
from ..leakage.splits import grouped_split, joined
from ..training import card
from ..training.loop import RECIPE, room, train
from .config import ClassifierRecipe
from .evaluation import Evaluation, judged
from .images import LabelledImages, class_folders, is_empty, read_labelled
from .model import load_classifier
from .module import Chooser, Classifying, Plan, class_weights
from .split_file import SPLIT, split_text, write_split

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class TrainedClassifier:
    """What the training of a classifier left.

    Attributes
    ----------
    out : str
        The folder of the run.
    weights : str
        The chosen model.
    sha256 : str
        Of its file.
    card : str
        The model card.
    report : str
        The HTML report on the test images.
    steps : int
        How many steps were made.
    minutes : float
        How long they took.
    evaluation : Evaluation
        On the test images, which neither training nor choice has seen.
    split : mapping
        Images of each part, groups of near-duplicates, and what else is to be known of it.
    rows : tuple of mapping
        The judgements on the validation images.

    Examples
    --------
    >>> done = semnr.classify.train("sem", "run", recipe="standard")  # doctest: +SKIP
    >>> done.evaluation.figures["macro_f1"]  # doctest: +SKIP
    0.95
    """

    out: str
    weights: str
    sha256: str
    card: str
    report: str
    steps: int
    minutes: float
    evaluation: Evaluation
    split: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]


def fit(
    recipe: ClassifierRecipe, folder: Path, out: Path, *, resume: bool, quiet: bool, workers: int
) -> TrainedClassifier:
    """See `semnr.classify.train`."""
    room(out, resume)
    folders = class_folders(folder)
    if len(folders) < 2:
        raise ValueError(
            f"folder is {folder}, which has one class only ({folders[0].name!r}); accepted: at least two folders"
        )
    apart("out", out, [(str(folder), True)])
    data = recipe.data
    start = backbones.find_weights(recipe.model.backbone, recipe.model.weights)  # before an hour of reading
    backbones.build(recipe.model.backbone, 2)
    side = round(data.kept * max(data.sides))
    crop = None if data.crop == "none" else data.crop
    images = read_labelled(folder, side=side, crop=crop, workers=workers, quiet=quiet)
    _check(images)
    leakage = _groups(images, data.duplicates, data.specimen, quiet)
    labels = [images.classes[k] for k in images.labels]
    shares = {"train": 1 - data.validation - data.test, "validation": data.validation, "test": data.test}
    parts = np.array(grouped_split(labels, leakage.groups, shares=shares, seed=recipe.training.seed))
    places = {part: np.flatnonzero(parts == part) for part in PARTS}
    out.mkdir(parents=True, exist_ok=True)
    write_split(out / SPLIT, split_text(images, leakage.groups, parts.tolist()), resume)
    write_json(out / RECIPE, recipe.to_dict())
    told = described(images, leakage, places, data.balance)
    plan = Plan.of(recipe, len(places["train"]))
    module = Classifying(
        recipe, [images.pixels[i] for i in places["train"]], images.labels[places["train"]], len(images.classes), start
    )
    about = {"name": recipe.name, "start": start.name, "stages": plan.stages(), "split": told}
    chooser = Chooser(recipe, out, plan, images, places["validation"].tolist(), about, quiet)
    trainer = train(module, chooser, out, resume=resume, quiet=quiet)
    step, minutes = int(trainer.global_step), module.clock.seconds / 60
    chooser.save(module.averaged(), "last", step)
    best = out / "best.safetensors"
    if not best.is_file():  # stopped by the clock before the last stage: what there is, at the side it had
        shutil.copyfile(out / "last.safetensors", best)
    classifier = load_classifier(best)
    test = places["test"]
    evaluation = judged(classifier, images, test.tolist(), [leakage.groups[i] for i in test])
    write_json(out / "evaluation.json", evaluation.to_dict())
    page = evaluation.write(out / "report.html")
    rows = tuple(chooser.rows)
    card.curves(rows, out / "curves.svg", ("macro_f1", "accuracy", "validation_loss", "loss"))
    written = _card(out / "card.md", recipe, classifier.sha256, evaluation, told, plan, start, step, minutes)
    return TrainedClassifier(
        str(out), str(best), classifier.sha256, str(written), str(page), step, round(minutes, 3), evaluation, told, rows
    )


def _check(images: LabelledImages) -> None:
    """What no training can come of."""
    if len({image.tobytes() for image in images.pixels}) == 1:
        raise ValueError(
            f"folder is {images.folder}, whose {len(images.names)} images are all identical; accepted: images that "
            "differ"
        )
    for k, name in enumerate(images.classes):
        own = [image for image, label in zip(images.pixels, images.labels, strict=True) if label == k]
        if len(own) < len(PARTS):
            raise ValueError(
                f"class {name!r} has {len(own)} image(s); accepted: at least {len(PARTS)}, one for each of "
                f"{', '.join(PARTS)}"
            )
        if all(map(is_empty, own)):
            raise ValueError(f"class {name!r} has only images of one grey level; accepted: images that show something")


def _groups(images: LabelledImages, search: bool, specimen: str, quiet: bool) -> Leakage:
    """Which images stay together: near-duplicates, and those that their names say to be of one specimen."""
    splits = [""] * len(images.names)
    if search:
        found = compare(images.names, splits, images.thumbnails, problems=images.problems, quiet=quiet)
    else:
        found = Leakage(images.names, tuple(splits), tuple(range(len(images.names))), (), images.problems)
    if not specimen:
        return found
    pairs = [(pair.first, pair.second) for pair in found.pairs]
    first: dict[str, int] = {}
    for k, name in enumerate(images.names):
        whose = name.rpartition(specimen)[0] or name
        pairs.append((first.setdefault(whose, k), k))
    return replace(found, groups=tuple(joined(len(images.names), pairs).tolist()))


def described(
    images: LabelledImages, leakage: Leakage, places: Mapping[str, Sequence[int] | np.ndarray], balance: float
) -> dict[str, Any]:
    """What is to be known of a set and its split, as plain data."""
    counts = images.counts()
    weights = class_weights(images.labels, len(images.classes), balance)
    clusters = leakage.clusters
    mixed = [held for held in clusters.values() if len({int(images.labels[k]) for k in held}) > 1]
    return {
        "images": len(images.names),
        "unreadable": len(images.problems),
        "data_bars_cut": images.bars,
        "classes": counts,
        "imbalance": round(max(counts.values()) / max(1, min(counts.values())), 3),
        "class_weights": {name: round(float(w), 4) for name, w in zip(images.classes, weights, strict=True)},
        "parts": {part: images.counts([int(k) for k in held]) for part, held in places.items()},
        "near_duplicate_groups": len(clusters),
        "near_duplicate_images": sum(map(len, clusters.values())),
        "groups_in_two_classes": [[images.names[k] for k in held] for held in mixed[:20]],
    }


def _card(
    path: Path, recipe: ClassifierRecipe, digest: str, evaluation: Evaluation, told: Mapping[str, Any], plan: Plan,
    start: backbones.Start, step: int, minutes: float,
) -> Path:  # fmt: skip
    figures = evaluation.figures
    low, high = figures["macro_f1_interval"]
    ways = {"near-duplicates": recipe.data.duplicates, "names": bool(recipe.data.specimen)}
    by = " and ".join(name for name, used in ways.items() if used)
    stages = "; ".join(f"{s['side']} px for {s['epochs']} passes" for s in plan.stages())
    lines = [
        f"# Model card: classifier {recipe.name}",
        "",
        f"- Weights: SHA-256 `{digest}`",
        f"- Backbone: {recipe.model.backbone}; started from {start.name}",
        f"- Classes: {', '.join(told['classes'])}",
        f"- Training: {step} steps of {recipe.data.batch} images, {minutes:.1f} minutes, seed {recipe.training.seed}; "
        f"stages: {stages}",
        f"- Machine: {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        f"- Images: {told['images']}, {told['data_bars_cut']} with a data bar that was cut, {told['unreadable']} "
        "unreadable",
        f"- Split: grouped by {by or 'nothing'} ({told['near_duplicate_groups']} groups with "
        f"{told['near_duplicate_images']} images) and stratified",
        f"- Imbalance: the largest class has {told['imbalance']:g} × the images of the smallest; an image counts "
        f"n^-{recipe.data.balance:g} in the loss",
        "",
        "## Test images",
        "",
        f"Accuracy {figures['accuracy']:.4f}, macro-F1 {figures['macro_f1']:.4f} (95 % interval {low:.4f} to "
        f"{high:.4f}), ECE {figures['ece']:.4f} at temperature {figures['temperature']:.3f}.",
        f"It decides on {figures['decided']:.1%} of them (confidence of at least {figures['threshold']:.3f}), with an "
        f"accuracy of {figures['accuracy_decided']:.4f}.",
        "",
        "| class | images | precision | recall | F1 | unknown |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {row['images']} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} | "
            f"{row['unknown']} |"
            for name, row in figures["classes"].items()
        ),
        "",
        "## Limits",
        "",
        "- It knows these classes alone; an image of something else is at best `unknown`.",
        "- Confidence is calibrated on images of this set: another microscope or sample may need its own validation.",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
