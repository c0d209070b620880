"""The recipe of a classifier's training: a TOML file, checked before anything starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..training.config import Optimiser, read_tables, table_of
from ..training.noise import Family

RECIPES = Path(__file__).with_name("recipes")
TABLES = ("model", "data", "augment", "noise", "training", "validation")


@dataclass(frozen=True)
class Model:
    """`weights`: "auto" takes what is at hand, "none" starts from nothing, else the path of a file. `kept_statistics`:
    batch normalisation keeps the means and variances of those weights, as a few hundred steps cannot find better ones.
    """

    backbone: str = "resnet50"
    weights: str = "auto"
    kept_statistics: bool = False


@dataclass(frozen=True)
class Data:
    """`sides` and `epochs`: the stages of progressive resizing, in px and in passes over the training images.

    `balance`: an image of a class with n images counts n^-balance, on average 1: 0 leaves the classes as they are, 1
    makes them equal. `specimen`: a mark in the names of files, "_" say: images of a class whose names agree up to the
    last one show one specimen and stay on one side of the split. `kept`: the short side of the images in memory over
    the largest of `sides`.
    """

    sides: tuple[int, ...] = (64, 128, 224)
    epochs: tuple[int, ...] = (8, 8, 4)
    batch: int = 32
    validation: float = 0.15
    test: float = 0.15
    balance: float = 0.5
    crop: str | None = "auto"
    kept: float = 1.15
    smoothing: float = 0.05  # of the labels
    duplicates: bool = True  # look for near-duplicates, so that the split keeps them together
    specimen: str = ""


@dataclass(frozen=True)
class Augment:
    """What is changed on an image each time it is seen: shares of the images, or the greatest change."""

    flip: bool = True
    quarter_turns: bool = True
    rotate: float = 15.0  # degrees, either way
    crop: float = 0.6  # the smallest part of the area that is seen
    warp: float = 0.08  # of the side, by which the corners move
    contrast: float = 0.3
    invert: float = 0.0
    noise: float = 0.5
    charging: float = 0.3


@dataclass(frozen=True)
class Validation:
    """A model is chosen by macro-F1 of the validation images, of equals the one with the lower loss.

    `every`: passes over the training images between two judgements; `accept`: the accuracy that those predictions must
    have on which the classifier does not abstain.
    """

    every: int = 1
    patience: int = 12
    accept: float = 0.98


@dataclass(frozen=True, kw_only=True)
class Training(Optimiser):
    """`head_first`: passes over the training images, each time changed anew, from whose features (of the pretrained
    weights as they are) the last layer is solved before anything else is trained; 0 begins with a random one."""

    head_first: int = 0
    learning_rate: float = 3e-4
    warm_up: int = 100
    weight_decay: float = 0.02
    average: float = 0.99


@dataclass(frozen=True)
class ClassifierRecipe:
    name: str
    model: Model
    data: Data
    augment: Augment
    noise: Family
    training: Training
    validation: Validation

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_recipe(recipe: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> ClassifierRecipe:
    """A recipe by name ("standard", "lite", "small", "compact"), by path or as plain data, with single entries changed.

    Raises
    ------
    ValueError, FileNotFoundError
        Names the entry, what it was, what is accepted.
    """
    tables, name = read_tables(recipe, changes, TABLES, RECIPES)
    made = ClassifierRecipe(
        name=name,
        model=table_of(Model, "model", tables),
        data=table_of(Data, "data", tables),
        augment=table_of(Augment, "augment", tables),
        noise=Family.of({"sigma": (0.01, 0.08), **tables.get("noise", {})}),
        training=table_of(Training, "training", tables),
        validation=table_of(Validation, "validation", tables),
    )
    _check(made)
    return made


def _check(recipe: ClassifierRecipe) -> None:
    data, augment = recipe.data, recipe.augment
    for name, values, least in (("data.sides", data.sides, 16), ("data.epochs", data.epochs, 1)):
        if not isinstance(values, tuple) or not values or not all(_whole(v, least) for v in values):
            raise ValueError(f"{name} is {values!r}; accepted: a list of integers of at least {least}")
    if len(data.sides) != len(data.epochs):
        raise ValueError(
            f"data.epochs is {list(data.epochs)} for data.sides {list(data.sides)}; accepted: one for each of them"
        )
    for name, number in (
        ("data.batch", data.batch), ("validation.every", recipe.validation.every),
        ("validation.patience", recipe.validation.patience),
    ):  # fmt: skip
        if not _whole(number, 1):
            raise ValueError(f"{name} is {number!r}; accepted: an integer of at least 1")
    if not _whole(recipe.training.head_first, 0):
        raise ValueError(f"training.head_first is {recipe.training.head_first!r}; accepted: an integer of at least 0")
    shares: dict[str, tuple[Any, float, float]] = {
        "data.validation": (data.validation, 0.01, 0.5),
        "data.test": (data.test, 0.01, 0.5),
        "data.balance": (data.balance, 0, 1),
        "data.kept": (data.kept, 1, 2),
        "data.smoothing": (data.smoothing, 0, 0.5),
        "augment.rotate": (augment.rotate, 0, 180),
        "augment.crop": (augment.crop, 0.1, 1),
        "augment.warp": (augment.warp, 0, 0.3),
        "augment.contrast": (augment.contrast, 0, 0.9),
        "augment.invert": (augment.invert, 0, 1),
        "augment.noise": (augment.noise, 0, 1),
        "augment.charging": (augment.charging, 0, 1),
        "validation.accept": (recipe.validation.accept, 0.5, 1),
    }
    for name, (value, low, high) in shares.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{name} is {value!r}; accepted: {low:g} to {high:g}")
    if data.crop not in ("auto", "none", None):
        raise ValueError(f"data.crop is {data.crop!r}; accepted: 'auto' or 'none'")


def _whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low
