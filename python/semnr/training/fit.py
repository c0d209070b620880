"""One training run: the trainer, the files it leaves, the card at its end."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from ..base.files import write_json
from ..base.outputs import apart
from ..denoising.weights import load
from ..tiles.extent import extent_of
from . import card as cards
from .config import Recipe, Steps
from .module import Averaged, Chooser, Denoising
from .result import Trained

_CHECKPOINT, _RECIPE = "last.ckpt", "recipe.json"


def fit(recipe: Recipe, out: Path, *, source: Any, resume: bool, quiet: bool) -> Trained:
    """See `semnr.training.train_denoiser`."""
    room(out, resume)
    if source is not None:
        apart("out", out, extent_of(source))
    begin(out, recipe.to_dict())
    module, chooser = Denoising(recipe, source), Chooser(recipe, out, quiet)
    trainer = run(module, chooser, out, recipe.training, recipe.validation.every, resume=resume, quiet=quiet)
    return _finish(recipe, out, trainer, module, chooser)


def begin(out: Path, recipe: Mapping[str, Any]) -> None:
    """The folder of a run, and what it was asked for."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / _RECIPE, recipe)


def run(
    module: Averaged, judge: lightning.Callback, out: Path, steps: Steps, every: int, *, resume: bool, quiet: bool
) -> lightning.Trainer:
    """Train `module` for so many steps, with a checkpoint every `every` of them that `resume` goes on from.

    judge: the callback that validates the moving average; it writes judged.jsonl and keeps the best weights.
    """
    checkpoint = out / _CHECKPOINT
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    trainer = lightning.Trainer(
        max_steps=steps.steps,
        max_epochs=-1,
        accelerator=steps.accelerator,
        devices=steps.devices,
        precision=precision(steps.precision, steps.accelerator),
        gradient_clip_val=steps.clip,
        callbacks=[
            judge,
            ModelCheckpoint(
                out, filename="last", every_n_train_steps=min(every, steps.steps), save_top_k=1,
                enable_version_counter=False, save_on_train_epoch_end=False,
            ),
        ],
        logger=CSVLogger(out, name="log", version=""),
        log_every_n_steps=min(50, steps.steps),
        enable_progress_bar=not quiet and sys.stderr.isatty(),
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        # batches are made in the main process on purpose: two processors have their hands full with the network
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own, of a newer torch
        go_on = resume and checkpoint.is_file()
        # the checkpoint is our own: tensors, the optimiser's state and plain data
        trainer.fit(module, ckpt_path=str(checkpoint) if go_on else None, weights_only=True if go_on else None)
    if not trainer.is_global_zero:
        raise SystemExit(0)  # a process that Lightning started for another device: the first one reports
    shutil.rmtree(out / "log" / "checkpoints", ignore_errors=True)
    return trainer


def room(out: Path, resume: bool) -> None:
    """A folder that is new or empty, or holds the run that is resumed."""
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if "judged.jsonl" in names and _RECIPE in names:
        if not resume:
            raise FileExistsError(f"{out} holds a training run; accepted: another folder, or resume to go on with it")
    elif others := [name for name in names if name not in (_RECIPE, "log")]:
        raise FileExistsError(f"{out} holds {others[0]} and no training run; accepted: a new or empty folder")
    elif _RECIPE in names and not _is_recipe(out / _RECIPE):
        raise FileExistsError(f"{out} holds a {_RECIPE} of something else; accepted: a new or empty folder")


def _is_recipe(path: Path) -> bool:
    """Whether a run that did not come to its first judgement left it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"training", "validation"} <= document.keys()


def precision(asked: str, accelerator: str) -> Any:
    """Lightning's name of it; bf16 where it is multiplied in hardware."""
    if asked != "auto":
        return {"32": "32-true", "bf16": "bf16-mixed"}[asked]
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "bf16-mixed" if "amx_bf16" in flags or "avx512_bf16" in flags else "32-true"


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
