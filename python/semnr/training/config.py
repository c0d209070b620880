"""The recipe of a training run: a TOML file, checked before anything starts."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.jsonable import from_plain
from ..denoising.network import Layout
from .noise import Family
from .scenes import KINDS, ROUGHNESS, SHARES

if TYPE_CHECKING:
    from ..denoising.network import Layout
    from .noise import Family

RECIPES = Path(__file__).with_name("recipes")
TABLES = ("model", "noise", "scenes", "data", "training", "validation", "loss")
MODES = ("synthetic", "supervised", "noise2noise", "blind_spot")
#: terms that make sense against each kind of target; a noisy target has the noise's own SSIM
TERMS = {
    "synthetic": (
        "charbonnier", "mse", "ssim", "fsim", "fsim_half", "dists", "lpips", "gradient", "texture", "transfer",
        "sharpening", "grain", "defects",
    ),
    "supervised": (
        "charbonnier", "mse", "ssim", "fsim", "fsim_half", "dists", "lpips", "gradient", "texture", "transfer",
        "sharpening", "grain",
    ),
    "noise2noise": ("mse", "texture"),
    "blind_spot": ("mse",),
}  # fmt: skip
#: px that the loss must see for it
SMALLEST = {"ssim": 11, "fsim": 48, "fsim_half": 96, "dists": 32, "lpips": 32}


@dataclass(frozen=True)
class Scenes:
    """Clean scenes of the generator: how many are kept, their side in px, the share of each kind, how rough edges
    of wafer patterns may be (LER sigma, nm, at 0.6 to 2.6 nm a pixel), whether patches get small defects; of the
    patches without any structure, the share that may get some, and the share in whose noise rare clusters are."""

    count: int = 600
    side: int = 320
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    roughness: float = ROUGHNESS
    charging: bool = True
    specks: bool = True
    specks_on_blank: float = 1.0  # below 1: what stands alone on nothing is more often noise
    clusters: float = 0.0  # see `semnr.training.clusters`


@dataclass(frozen=True)
class Data:
    """`mode`: "synthetic" needs no file; the others read `source` (anything that `semnr.open_tiles` takes):
    "supervised" its roles noisy and reference, "noise2noise" noisy and noisy_2, "blind_spot" noisy or image alone.
    """

    mode: str = "synthetic"
    source: str | None = None
    patch: int = 128
    batch: int = 16
    margin: int = 8  # px at the border of a patch that the loss leaves out
    data_range: float | None = None
    held_out: float = 0.1  # share of the source's tiles kept for validation
    strip: int = 4  # blind spot: px to both sides on the line that are hidden with it
    hidden: float = 0.01  # blind spot: share of pixels that are predicted


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """How the weights of any training are found."""

    minutes: float | None = None  # stop (and anneal) by the clock where it comes first
    optimiser: str = "adamw"  # "muon": fewer steps to the same loss where the weights are convolutions
    learning_rate: float = 1e-3
    warm_up: int = 500
    weight_decay: float = 1e-4
    clip: float = 1.0
    average: float = 0.999  # decay of the moving average of the weights, which is what is kept
    precision: str = "auto"  # "32", "bf16", "auto": bf16 where the processor or the GPU multiplies it
    devices: Any = "auto"
    accelerator: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "32", "bf16"):
            raise ValueError(f"training.precision is {self.precision!r}; accepted: 'auto', '32', 'bf16'")
        if self.optimiser not in ("adamw", "muon"):
            raise ValueError(f"training.optimiser is {self.optimiser!r}; accepted: 'adamw', 'muon'")


@dataclass(frozen=True, kw_only=True)
class Steps(Optimiser):
    steps: int = 30000
    start: str | None = None  # weights to go on from: a shipped name or a .safetensors file of the same layout
    part: str = "all"  # "texture": the part that gives texture back alone, the rest stays as it is


@dataclass(frozen=True)
class Validation:
    """Held-out tiles, every so many steps. A model is chosen by profile area among those whose mean evidence
    transfer is within `transfer`, on which no guardrail fires against `baseline` (a classical model, or "noisy" for
    none), and whose area exceeds the baseline's."""

    every: int = 1000
    tiles: int = 24
    side: int = 256
    patience: int = 8  # validations without a better model before the run stops
    transfer: tuple[float, float] = (0.97, 1.03)
    sigma: tuple[float, float] | None = None  # noise of these tiles; None: that of the training
    baseline: str = "nlm"
    dists: bool = True  # where its weights are installed


@dataclass(frozen=True)
class Recipe:
    name: str
    model: Layout
    noise: Family
    scenes: Scenes
    data: Data
    training: Steps
    validation: Validation
    loss: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_recipe(recipe: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name ("small", "toy"), by path or as plain data, with single entries changed.

    changes : mapping such as {"training.steps": 500, "loss.texture": 0.5}

    Raises
    ------
    ValueError, FileNotFoundError
        Names the entry, what it was, what is accepted.
    """
    tables, name = read_tables(recipe, changes, TABLES, RECIPES)
    made = Recipe(
        name=name,
        model=Layout.of(tables.get("model", {})),
        noise=Family.of(tables.get("noise", {})),
        scenes=table_of(Scenes, "scenes", tables),
        data=table_of(Data, "data", tables),
        training=table_of(Steps, "training", tables),
        validation=table_of(Validation, "validation", tables),
        loss=dict(tables.get("loss", {"charbonnier": 1.0} if "data" not in tables else {})),
    )
    _check(made)
    return made


def read_tables(
    recipe: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None, accepted: Sequence[str], folder: Path
) -> tuple[dict[str, dict[str, Any]], str]:
    """The tables of a recipe, with single entries changed, and its name; `folder` has the recipes that go by name."""
    if isinstance(recipe, Mapping):
        tables, name = {k: dict(v) for k, v in recipe.items()}, "recipe"
    else:
        tables, name = _read(recipe, folder), Path(recipe).stem
    for key, value in (changes or {}).items():
        table, _, entry = key.partition(".")
        if not entry:
            raise ValueError(f"change {key!r} is no entry; accepted: TABLE.ENTRY, such as training.steps")
        tables.setdefault(table, {})[entry] = value
    for table in tables:
        if table not in accepted:
            raise ValueError(f"recipe has table {table!r}; accepted: {', '.join(accepted)}")
    return tables, name


def _read(recipe: str | Path, folder: Path) -> dict[str, dict[str, Any]]:
    """The tables of a recipe; what it has not are those of the one that it names as its `base`."""
    path = Path(recipe)
    if path.suffix != ".toml":
        path = folder / f"{recipe}.toml"
    if not path.is_file():
        known = ", ".join(sorted(repr(p.stem) for p in folder.glob("*.toml")))
        raise FileNotFoundError(f"recipe {str(recipe)!r} does not exist; accepted: {known}, or a .toml file")
    own = tomllib.loads(path.read_text())
    tables: dict[str, dict[str, Any]] = _read(own.pop("base"), folder) if "base" in own else {}
    for table, entries in own.items():
        tables[table] = {**tables.get(table, {}), **entries} if isinstance(entries, dict) else entries
    return tables


def table_of(kind: Any, table: str, tables: Mapping[str, Mapping[str, Any]]) -> Any:
    """The dataclass of one table."""
    return from_plain(kind, table, tables.get(table, {}), lists=("devices",))  # Lightning takes a list of devices


def _check(recipe: Recipe) -> None:
    data, steps, align = recipe.data, recipe.training, recipe.model.align
    if data.mode not in MODES:
        raise ValueError(f"data.mode is {data.mode!r}; accepted: {', '.join(map(repr, MODES))}")
    if data.mode != "synthetic" and not data.source:
        raise ValueError(f"data.source is {data.source!r} for mode {data.mode!r}; accepted: a source of tiles")
    for name, value, low in (
        ("data.batch", data.batch, 1),
        ("data.patch", data.patch, 4 * align),
        ("training.steps", steps.steps, 1),
        ("validation.tiles", recipe.validation.tiles, 1),
        ("validation.every", recipe.validation.every, 1),
        ("scenes.count", recipe.scenes.count, 1),
        ("validation.side", recipe.validation.side, 64),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{name} is {value!r}; accepted: an integer of at least {low}")
    for name, value in (("data.patch", data.patch), ("validation.side", recipe.validation.side)):
        if value % align:
            raise ValueError(f"{name} is {value}; accepted with this model: a multiple of {align}")
    if not 0 <= data.margin < data.patch // 4:
        raise ValueError(f"data.margin is {data.margin}; accepted: 0 to below a quarter of data.patch ({data.patch})")
    if recipe.scenes.side < data.patch:
        raise ValueError(f"scenes.side is {recipe.scenes.side}; accepted: at least data.patch ({data.patch})")
    rough = recipe.scenes.roughness
    if isinstance(rough, bool) or not isinstance(rough, int | float) or not 0 <= rough <= 20:
        raise ValueError(f"scenes.roughness is {rough!r}; accepted: 0 to 20 nm")
    for name in ("specks_on_blank", "clusters"):
        share = getattr(recipe.scenes, name)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError(f"scenes.{name} is {share!r}; accepted: 0 to 1")
    for kind in recipe.scenes.shares:
        if kind not in KINDS:
            raise ValueError(f"scenes.shares has {kind!r}; accepted: {', '.join(KINDS)}")
    for term, weight in recipe.loss.items():
        if term not in TERMS[data.mode]:
            raise ValueError(
                f"loss has {term!r}, which says nothing in mode {data.mode!r}; accepted: {', '.join(TERMS[data.mode])}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < 1e6:
            raise ValueError(f"loss.{term} is {weight!r}; accepted: a number of at least 0")
        least = SMALLEST.get(term, 0) + 2 * data.margin
        if weight and data.patch < least:
            raise ValueError(f"data.patch is {data.patch}; accepted with loss.{term}: at least {least}")
    if not any(recipe.loss.values()):
        raise ValueError(f"loss is {dict(recipe.loss)}; accepted: at least one weight above 0")
    ready = recipe.loss.get("grain") and steps.start  # a part needs the rest to be trained
    if steps.part != "all" and not (steps.part == "texture" and ready):
        raise ValueError(
            f"training.part is {steps.part!r}; accepted: 'all', or 'texture' with loss.grain and training.start"
        )
