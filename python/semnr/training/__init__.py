"""Training of the denoisers: `semnr train denoiser`. Needs the extra `[train]` (Lightning)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.outputs import local
from ..tiles import TileSource, open_tiles
from .config import RECIPES, TERMS, load_recipe
from .result import Trained
from .soup import average

__all__ = ["Trained", "average", "train_denoiser"]


def train_denoiser(
    source: Any = None,
    out: str | Path = "denoiser",
    *,
    recipe: str | Path | Mapping[str, Any] = "small",
    changes: Mapping[str, Any] | None = None,
    resume: bool = False,
    quiet: bool = True,
) -> Trained:
    """Train a denoiser, choose the model by profile area under the guardrails, and write its model card.

    Parameters
    ----------
    source : anything that `semnr.open_tiles` takes, optional
        Tiles for the modes that learn from them; they are held in memory. Roles noisy and reference: "supervised".
        Roles noisy and noisy_2 (two registered frames of a site): "noise2noise". Role noisy or image alone:
        "blind_spot". Without a source the generator of the recipe is used.
    out : path
        Folder for best.safetensors, last.safetensors, card.md, curves.svg, judged.jsonl, recipe.json, the log and the
        checkpoint that `resume` goes on from.
    recipe : str, path or mapping
        "small", "toy", a .toml file, or its content; see `semnr.training.config`.
    changes : mapping, optional
        Single entries that differ, such as {"training.minutes": 30, "loss.texture": 0.6}.
    resume : bool
        Go on from the last checkpoint in `out`; without one, start.
    quiet : bool
        No progress bar.

    Returns
    -------
    Trained

    Raises
    ------
    ImportError
        Lightning is not installed (`pip install 'semnr[train]'`).
    TypeError, ValueError
        Names the entry of the recipe, what it was and what is accepted.
    FileExistsError
        `out` holds a run, and `resume` is False.

    Examples
    --------
    >>> from semnr.training import train_denoiser
    >>> done = train_denoiser(  # doctest: +SKIP
    ...     "lot.zarr", "mine", changes={"training.minutes": 30}
    ... )
    """
    try:
        import lightning  # noqa: F401
    except ImportError as error:
        raise ImportError("training needs Lightning: pip install 'semnr[train]'") from error
    from .fit import fit  # needs that extra

    changes = dict(changes or {})
    if source is not None:
        opened = _opened(source)
        changes.setdefault("data.source", str(getattr(opened, "name", source)))
        if "data.mode" not in changes:
            changes["data.mode"] = _mode(opened.roles)
            recipe_loss = load_recipe(recipe).loss
            if changes["data.mode"] != "synthetic" and not any(k.startswith("loss.") for k in changes):
                recipe = _without_terms(recipe, changes["data.mode"], recipe_loss)
        source = opened
    made = load_recipe(recipe, changes)
    return fit(made, local("out", out), source=source, resume=resume, quiet=quiet)


def _opened(source: Any) -> Any:
    return source if isinstance(source, TileSource) else open_tiles(source)


def _mode(roles: tuple[str, ...]) -> str:
    if "reference" in roles:
        return "supervised"
    return "noise2noise" if "noisy_2" in roles else "blind_spot"


def _without_terms(recipe: Any, mode: str, loss: Mapping[str, float]) -> Mapping[str, Any]:
    """The recipe with the terms that this kind of target allows; noisy targets take the mean, not the median."""
    import tomllib

    if not isinstance(recipe, Mapping):
        path = Path(recipe)
        recipe = tomllib.loads((path if path.suffix == ".toml" else RECIPES / f"{recipe}.toml").read_text())
    kept = {name: weight for name, weight in loss.items() if name in TERMS[mode]}
    if mode in ("noise2noise", "blind_spot"):
        kept = {**kept, "mse": 1.0}
    return {**recipe, "loss": kept}
