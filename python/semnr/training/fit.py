"""One training run of a denoiser: the files that it writes, and the model card at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..base.files import write_json
from ..base.outputs import apart
from ..denoising.weights import load
from ..tiles.extent import extent_of
from . import card as cards
from .config import Recipe
from .loop import RECIPE, room, train
from .module import Chooser, Denoising
from .result import Trained


def fit(recipe: Recipe, out: Path, *, source: Any, resume: bool, quiet: bool) -> Trained:
    """See `semnr.training.train_denoiser`."""
    room(out, resume)
    if source is not None:
        apart("out", out, extent_of(source))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RECIPE, recipe.to_dict())
    module, chooser = Denoising(recipe, source), Chooser(recipe, out, quiet)
    trainer = train(module, chooser, out, resume=resume, quiet=quiet)
    return _finish(recipe, out, trainer, module, chooser)


def _finish(recipe: Recipe, out: Path, trainer: Any, module: Denoising, chooser: Chooser) -> Trained:
    step, minutes = int(trainer.global_step), module.clock.seconds / 60
    network = module.averaged()
    digest = chooser.save(network, "last", step)
    best = out / "best.safetensors"
    rows = tuple(chooser.rows)
    chosen = [row for row in rows if row["chosen"]]
    kept = best if chosen and best.is_file() else None
    if kept is not None:
        loaded = load(kept)
        network, digest = loaded.network, loaded.sha256
    cards.curves(rows, out / "curves.svg")
    card = cards.write(
        out / "card.md", recipe, network, chooser, digest=digest, step=step, minutes=minutes, passed=kept is not None
    )
    return Trained(
        str(out), None if kept is None else str(kept), str(out / "last.safetensors"), digest, str(card), step,
        round(minutes, 3), chosen[-1] if chosen else None, rows,
    )  # fmt: skip
