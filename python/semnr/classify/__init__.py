"""The classifier of SEM images: what an image shows, with a confidence, or that it cannot say.

`CATEGORIES` holds the ten categories of Modarres et al. 2017 as the folders of the published set name them; any other
set of classes in folders does as well. `PUBLISHED` holds what others measured on them, which nothing here did.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.outputs import local
from ..base.random_streams import number, whole
from ..tiles import open_tiles
from .categories import CATEGORIES, PUBLISHED, PublishedRow
from .config import load_recipe
from .evaluation import Evaluation, Mistake, judged
from .images import read_labelled
from .model import Classifier, Prediction, load_classifier
from .prediction import Predicted, classified
from .split_file import SPLIT, read_split
from .textures import specimen, write_textures

if TYPE_CHECKING:
    from .fit import TrainedClassifier

__all__ = [
    "CATEGORIES",
    "PUBLISHED",
    "Classifier",
    "Evaluation",
    "Mistake",
    "Predicted",
    "Prediction",
    "PublishedRow",
    "evaluate",
    "load_classifier",
    "predict",
    "specimen",
    "train",
    "write_textures",
]


def train(
    folder: str | Path,
    out: str | Path = "classifier",
    *,
    recipe: str | Path | Mapping[str, Any] = "standard",
    changes: Mapping[str, Any] | None = None,
    resume: bool = False,
    workers: int = 2,
    quiet: bool = True,
) -> TrainedClassifier:
    """Train a classifier on a folder that holds a folder a class, and judge it on images that it has not seen.

    Data bars are cut, near-duplicates are found and kept on one side of the split, the loss counts rare classes more,
    and images grow from stage to stage. The model is chosen by macro-F1 of the validation images, its confidence is
    calibrated on them, and the test images are looked at once, at the end.

    Parameters
    ----------
    folder : path
        A folder a class; images in PNG, TIFF, JPEG or BMP, also in folders below.
    out : path
        Folder for best.safetensors, last.safetensors, card.md, report.html, evaluation.json, split.csv, curves.svg,
        judged.jsonl, recipe.json, the log, and the checkpoint that `resume` goes on from.
    recipe : str, path or mapping
        "standard" (ResNet-50), "lite" (EfficientNet-Lite0), "small" (the same for images of 96 px, in minutes),
        "compact" (a small network from nothing), a .toml file, or its content; see `semnr.classify.config`.
    changes : mapping, optional
        Single entries that differ, such as {"model.weights": "resnet50.pth", "training.minutes": 30}.
    resume : bool
        Go on from the last checkpoint in `out`; without one, start.
    workers : int
        Threads that read images.
    quiet : bool
        No progress.

    Returns
    -------
    TrainedClassifier

    Raises
    ------
    ImportError
        Lightning or torchvision is not installed (`pip install 'semnr[classify]'`).
    FileNotFoundError, FileExistsError
        No such folder or recipe; `out` holds a run, and `resume` is False.
    ValueError
        An entry of the recipe; one class only, a class with too few images, images that are all identical.
    WeightsUnavailable
        The backbone has no weights at hand (says which ways there are), or its file is none.

    Examples
    --------
    >>> done = semnr.classify.train(  # doctest: +SKIP
    ...     "sem", "run", recipe="lite", changes={"training.minutes": 60}
    ... )
    """
    try:
        import lightning  # noqa: F401
    except ImportError as error:
        raise ImportError("training needs Lightning: pip install 'semnr[classify]'") from error
    from .fit import fit  # needs that extra

    made = load_recipe(recipe, changes)
    threads = whole("workers", workers, 1)
    return fit(made, local("folder", folder), local("out", out), resume=resume, quiet=quiet, workers=threads)


def evaluate(
    model: str | Path | Classifier,
    folder: str | Path,
    *,
    seen: bool = False,
    workers: int = 2,
    quiet: bool = True,
) -> Evaluation:
    """Judge a classifier on labelled images.

    Images that its training or choice has seen are left out, by the SHA-256 of their files in split.csv beside the
    model. (Near-duplicates of them are not: `semnr.leakage.near_duplicates` finds those.)

    Parameters
    ----------
    model : path or Classifier
        A trained model, or the folder of its training.
    folder : path
        A folder a class, with names of the model's classes.
    seen : bool
        Count the images of training and validation too.
    workers : int
        Threads that read images.
    quiet : bool
        No progress.

    Returns
    -------
    Evaluation

    Raises
    ------
    FileNotFoundError, ValueError
        No such folder, a class that the model does not have, no image that is left.
    WeightsUnavailable
        See `load_classifier`.

    Examples
    --------
    >>> print(semnr.classify.evaluate("run", "sem"))  # doctest: +SKIP
    3190 images: accuracy 0.9524 (0.9444 to 0.9595), macro-F1 0.9391 (0.9286 to 0.9486), ECE 0.0132
    """
    classifier = model if isinstance(model, Classifier) else load_classifier(model)
    images = read_labelled(
        folder, side=classifier.kept_side, crop=classifier.crop, workers=whole("workers", workers, 1), quiet=quiet,
        classes=classifier.classes,
    )  # fmt: skip
    known: Mapping[str, tuple[str, int]] = {}
    if not seen and not isinstance(model, Classifier):
        place = Path(os.fspath(model))
        known = read_split((place if place.is_dir() else place.parent) / SPLIT)
    chosen = [k for k, digest in enumerate(images.sha256) if known.get(digest, ("test", 0))[0] == "test"]
    after = max((group for _, group in known.values()), default=-1) + 1
    groups = [known[images.sha256[k]][1] if images.sha256[k] in known else after + k for k in chosen]
    return judged(classifier, images, chosen, groups, left_out=len(images.names) - len(chosen))


def predict(
    model: str | Path | Classifier,
    source: Any,
    out: str | Path,
    *,
    threshold: float | None = None,
    root: str | Path | None = None,
    quiet: bool = True,
) -> Predicted:
    """Say what each tile of a stream shows, and abstain where that is not sure.

    Parameters
    ----------
    model : path or Classifier
        A trained model, or the folder of its training.
    source : anything that `semnr.open_tiles` takes
        The tiles; one of them is in memory at a time, and a batch of reduced ones.
    out : path
        Folder of the run, new or empty: a row a tile with `category` ("unknown" where it abstains),
        `category_confidence` and `category_likeliest`; `semnr.report` shows them on the wafer.
    threshold : float, optional
        Confidence, 0 to 1, below which it abstains. None: the model's own, chosen on its validation images.
    root : path, optional
        Folder that the paths of a plan may lie in, besides the plan's own.
    quiet : bool
        No progress.

    Returns
    -------
    Predicted

    Raises
    ------
    FileExistsError, ValueError
        `out` holds something, or another `threshold`.
    WeightsUnavailable
        See `load_classifier`.

    Examples
    --------
    >>> done = semnr.classify.predict("run", "lot.zarr", "classes")  # doctest: +SKIP
    >>> done.run.table(["tile", "category"]).num_rows  # doctest: +SKIP
    120
    """
    if threshold is not None:
        number("threshold", threshold, 0, 1)
    classifier = model if isinstance(model, Classifier) else load_classifier(model)
    return classified(
        classifier, open_tiles(source, root=root), local("out", out), threshold=threshold, quiet=quiet
    )  # fmt: skip
