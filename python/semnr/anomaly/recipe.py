"""The recipe of an autoencoder: a TOML file, checked before anything starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..training.config import Optimiser, read_tables, table_of
from .network import Layout

RECIPES = Path(__file__).with_name("recipes")
TABLES = ("model", "data", "training", "validation")


@dataclass(frozen=True)
class Data:
    """Patches of the normal tiles, and the faults planted in them.

    `input`: "denoised", what the network sees is the tile after the denoiser of `target`; "tile": as it was recorded,
    with noise that is drawn anew for each patch.
    `target`: the denoiser that makes the target of a tile (a model of `semnr.denoise`), or "tile": the tile itself with
    its noise. `copies`: with "denoised", how many copies of each tile get faults before they pass through the denoiser,
    which takes a part of a fault away; 0: faults are planted after it alone. `faults`: share of the patches that get
    faults; `fault_weight`: how much more a pixel counts that they change. `split`: a column of the tiles whose values
    must not be on both sides of the split ("lot_id", "wafer_id", ...), "auto" takes the first that has two values.
    """

    patch: int = 96
    batch: int = 8
    held_out: float = 0.15
    split: str = "auto"
    input: str = "denoised"
    target: str = "semnr-small"
    copies: int = 4
    faults: float = 0.8
    fault_weight: float = 20.0
    turn: bool = False  # patches are mirrored too; scan lines stay rows


@dataclass(frozen=True, kw_only=True)
class Training(Optimiser):
    steps: int = 1500
    learning_rate: float = 2e-3
    warm_up: int = 50
    average: float = 0.99


@dataclass(frozen=True)
class Validation:
    """Every so many steps the error of `tiles` held-out and training tiles is compared; the weights of the least
    held-out error are kept, and `patience` validations without a better one end the run."""

    every: int = 250
    tiles: int = 16
    patience: int = 4


@dataclass(frozen=True)
class Recipe:
    name: str
    model: Layout
    data: Data
    training: Training
    validation: Validation

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_recipe(recipe: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name ("small", "toy"), by path or as plain data, with single entries changed.

    Raises
    ------
    ValueError, FileNotFoundError
        Names the entry, what it was, what is accepted.
    """
    tables, name = read_tables(recipe, changes, TABLES, RECIPES)
    made = Recipe(
        name=name,
        model=Layout.of(tables.get("model", {})),
        data=table_of(Data, "data", tables),
        training=table_of(Training, "training", tables),
        validation=table_of(Validation, "validation", tables),
    )
    _check(made)
    return made


def _check(recipe: Recipe) -> None:
    data, align = recipe.data, recipe.model.align
    for name, value, low in (
        ("data.patch", data.patch, 4 * align),
        ("data.batch", data.batch, 1),
        ("data.copies", data.copies, 0),
        ("training.steps", recipe.training.steps, 1),
        ("validation.every", recipe.validation.every, 1),
        ("validation.tiles", recipe.validation.tiles, 1),
        ("validation.patience", recipe.validation.patience, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{name} is {value!r}; accepted: an integer of at least {low}")
    if data.patch % align:
        raise ValueError(f"data.patch is {data.patch}; accepted with this model: a multiple of {align}")
    for name, part in (("data.held_out", data.held_out), ("data.faults", data.faults)):
        if isinstance(part, bool) or not isinstance(part, int | float) or not 0 <= part <= 1:
            raise ValueError(f"{name} is {part!r}; accepted: 0 to 1")
    if isinstance(data.fault_weight, bool) or not isinstance(data.fault_weight, int | float) or data.fault_weight < 0:
        raise ValueError(f"data.fault_weight is {data.fault_weight!r}; accepted: a number of at least 0")
    if data.input not in ("denoised", "tile") or (data.input == "denoised" and data.target == "tile"):
        raise ValueError(
            f"data.input is {data.input!r} with data.target {data.target!r}; accepted: 'tile', or 'denoised' with the "
            "name of a denoiser"
        )
    if not 0 < data.held_out < 1:
        raise ValueError(f"data.held_out is {data.held_out!r}; accepted: between 0 and 1")
