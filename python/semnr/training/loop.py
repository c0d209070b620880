"""The loop that every training of this package runs in: the clock, the moving average, the choice, the trainer.

A training brings its own step (`Averaged.training_step`), its batches, and its own judgement (`Choosing.judged`).
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .config import Optimiser
from .muon import Muon

CHECKPOINT, RECIPE, JUDGED, LOG = "last.ckpt", "recipe.json", "judged.jsonl", "log"


class Clock:
    """Seconds of training, over all parts of a resumed run."""

    def __init__(self, minutes: float | None) -> None:
        self.limit, self.before, self.started = None if minutes is None else 60.0 * minutes, 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    @property
    def share(self) -> float:
        return 0.0 if self.limit is None else min(1.0, self.seconds / self.limit)

    @property
    def over(self) -> bool:
        return self.limit is not None and self.seconds >= self.limit


def agreed(trainer: Any, stop: bool) -> bool:
    """The first process decides for all."""
    return stop if trainer.world_size == 1 else bool(trainer.strategy.broadcast(stop))


class Averaged(lightning.LightningModule):
    """A network that is trained, and its moving average, which is what is judged and kept.

    Parameters
    ----------
    network : torch.nn.Module
        The network, ready to be trained.
    settings : Optimiser
        How its weights are found.
    steps : int
        How many steps the run makes at most; the learning rate falls to a hundredth by then.
    """

    def __init__(self, network: torch.nn.Module, settings: Optimiser, steps: int) -> None:
        super().__init__()
        self.network, self.settings, self.steps = network, settings, steps
        self.network.to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(settings.average))
        self.average.requires_grad_(False)
        self.clock = Clock(settings.minutes)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        # here, not at the end of the batch: callbacks, which judge and save, come before that
        # a decay of 0.999 from the first step on would keep the start for thousands of steps
        if int(self.average.n_averaged) < 10:
            self.average.module.load_state_dict(self.network.state_dict())
            self.average.n_averaged.fill_(int(self.average.n_averaged) + 1)
        else:
            self.average.update_parameters(self.network)

    def on_train_batch_start(self, *_: Any) -> None:
        # all processes stop at one step; asking each other costs little beside eight steps
        if self.clock.limit is not None and self.trainer.global_step % 8 == 0 and agreed(self.trainer, self.clock.over):
            self.trainer.should_stop = True

    def averaged(self) -> Any:
        """The moving average, ready to be used."""
        return self.average.module.eval()

    def configure_optimizers(self) -> Any:
        settings = self.settings
        kind = Muon if settings.optimiser == "muon" else torch.optim.AdamW
        optimiser = kind(
            self.network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99)
        )

        def share(step: int) -> float:
            done = max(step / self.steps, self.clock.share)
            return min(1.0, (step + 1) / max(1, settings.warm_up)) * (
                0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
            )

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"] = self.clock.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.clock.before = float(checkpoint.get("seconds", 0.0))


class Choosing(lightning.Callback):
    """Judges the moving average every so many steps, keeps the best, and stops when none gets better.

    Each judgement is a line of `judged.jsonl`; a subclass says what a model is worth (`judged`) and how it is kept.
    """

    def __init__(self, out: Path, *, every: int, steps: int, patience: int, quiet: bool = True) -> None:
        self.out, self.every, self.steps, self.patience, self.quiet = out, every, steps, patience, quiet
        self.rows: list[dict[str, Any]] = []
        self.best: float | None = None
        self.waited = 0

    def judged(self, module: Any, step: int, loss: float) -> tuple[dict[str, Any], bool]:
        """What the moving average is worth: a row with "score" and "eligible" at least, and whether it is kept
        whatever its score."""
        raise NotImplementedError

    def save(self, network: Any, name: str, step: int) -> str | None:
        """Keep a model under a name; returns the checksum of its file, or None where the checkpoint keeps it."""
        raise NotImplementedError

    def line(self, row: Mapping[str, Any]) -> str:
        """A judgement for people."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {"rows": json.dumps(self.rows), "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.best, self.waited = json.loads(state["rows"]), state["best"], state["waited"]

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if trainer.is_global_zero and (step % self.every == 0 or step >= self.steps or trainer.should_stop):
            self.judge(trainer, module, step)
        if step % self.every == 0 and agreed(trainer, self.waited >= self.patience):
            trainer.should_stop = True

    def judge(self, trainer: Any, module: Any, step: int) -> None:
        loss = float(trainer.callback_metrics.get("loss", math.nan))
        figures, always = self.judged(module, step, loss)
        better = figures["eligible"] and (self.best is None or figures["score"] > self.best or always)
        head = {"step": step, "minutes": round(module.clock.seconds / 60, 3), "loss": loss}
        row = {**head, "score": figures["score"], "eligible": figures["eligible"], "chosen": better, **figures}
        self.rows.append(row)
        with (self.out / JUDGED).open("a") as file:
            file.write(json.dumps(row) + "\n")
        if not self.quiet:
            print(self.line(row), file=sys.stderr, flush=True)
        trainer.logger.log_metrics({k: v for k, v in row.items() if isinstance(v, float)}, step)
        if better:
            self.best, self.waited = row["score"], 0
            self.save(module.averaged(), "best", step)
        elif self.best is not None:
            self.waited += 1


def train(module: Averaged, chooser: Choosing, out: Path, *, resume: bool, quiet: bool) -> Any:
    """Run a training to its end, or on from its last checkpoint; returns Lightning's trainer."""
    settings, checkpoint = module.settings, out / CHECKPOINT
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    trainer = lightning.Trainer(
        max_steps=module.steps,
        max_epochs=-1,
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=precision(settings.precision, settings.accelerator),
        gradient_clip_val=settings.clip,
        callbacks=[
            chooser,
            ModelCheckpoint(
                out, filename="last", every_n_train_steps=min(chooser.every, module.steps), save_top_k=1,
                enable_version_counter=False, save_on_train_epoch_end=False,
            ),
        ],
        logger=CSVLogger(out, name=LOG, version=""),
        log_every_n_steps=min(50, module.steps),
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
    shutil.rmtree(out / LOG / "checkpoints", ignore_errors=True)
    return trainer


def room(out: Path, resume: bool) -> None:
    """A folder that is new or empty, or holds the run that is resumed.

    Raises
    ------
    FileExistsError
        It holds a training run, and `resume` is False; or it holds something else.
    """
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if JUDGED in names and RECIPE in names:
        if not resume:
            raise FileExistsError(f"{out} holds a training run; accepted: another folder, or resume to go on with it")
    elif others := [name for name in names if name not in (RECIPE, LOG)]:
        raise FileExistsError(f"{out} holds {others[0]} and no training run; accepted: a new or empty folder")
    elif RECIPE in names and not _is_recipe(out / RECIPE):
        raise FileExistsError(f"{out} holds a {RECIPE} of something else; accepted: a new or empty folder")


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
