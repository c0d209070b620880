"""The training as Lightning runs it: one step, the moving average, the schedule, and the choice of the model."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from ..denoising import weights
from ..denoising.network import SemDenoiser
from ..noise.family import figures
from . import judge as judging
from .config import Recipe, Steps
from .data import Batches, FromTiles
from .loss import TrainingLoss

_ASKED = 0.1  # of the loss with texture asked for: the optimiser does not care, the common limit of the gradient does


class Averaged(lightning.LightningModule):
    """What every training here shares: a network and its moving average, which is what is judged and kept, the schedule
    of the learning rate, and a clock that a resumed run goes on with.

    A training of its own defines `training_step` and `batches_from`, and calls `take` with its network.
    """

    network: torch.nn.Module
    average: AveragedModel
    betas: tuple[float, float] = (0.9, 0.99)  # of AdamW

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        torch.manual_seed(steps.seed)
        self.steps, self.clock = steps, Clock(steps.minutes)

    def take(self, network: torch.nn.Module) -> None:
        """The network that is trained; what of it asks for no gradient stays as it is."""
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(self.steps.average))
        self.average.requires_grad_(False)

    def batches_from(self, step: int) -> Any:
        """The batches from a step on, an iterable dataset; the step is known by now, also of a resumed run."""
        raise NotImplementedError

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

    def configure_optimizers(self) -> Any:
        steps = self.steps
        optimiser = torch.optim.AdamW(
            self.network.parameters(), steps.learning_rate, weight_decay=steps.weight_decay, betas=self.betas
        )

        def share(step: int) -> float:
            done = max(step / steps.steps, self.clock.share)
            return min(1.0, (step + 1) / max(1, steps.warm_up)) * (
                0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
            )

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches_from(self.trainer.global_step), batch_size=None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"] = self.clock.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.clock.before = float(checkpoint.get("seconds", 0.0))


class Denoising(Averaged):
    """The denoiser's network and the loss."""

    def __init__(self, recipe: Recipe, source: Any = None) -> None:
        super().__init__(recipe.training)
        self.recipe, self.source = recipe, source
        network = SemDenoiser(recipe.model)
        if (start := recipe.training.start) is not None:
            begun = weights.load(start).network
            if begun.layout != recipe.model:
                raise ValueError(
                    f"training.start is {start!r}, of layout {begun.layout}; accepted: weights of {recipe.model}"
                )
            network.load_state_dict(begun.state_dict())
        self.textured = bool(recipe.loss.get("grain"))
        self.whole = recipe.training.part == "all"
        if not self.whole:
            network.grain = SemDenoiser(recipe.model).grain  # from nothing
        network.network.requires_grad_(self.whole)
        network.grain.requires_grad_(self.textured)
        self.take(network)
        self.loss = TrainingLoss(recipe.loss, recipe.data.margin, recipe.data.mode == "noise2noise")
        self.batches: Batches | None = None

    @property
    def denoiser(self) -> SemDenoiser:
        assert isinstance(self.network, SemDenoiser)
        return self.network

    def training_step(self, batch: Mapping[str, Tensor], index: int) -> Tensor:
        few = max(1, len(batch["noisy"]) // 4) if self.whole else len(batch["noisy"])
        if self.textured:
            plain, textured = self.denoiser.both(batch["noisy"], batch["law"], few)
        else:
            plain = self.denoiser.plain(batch["noisy"], batch["law"])
        total, terms = plain.new_zeros(()), {}
        with torch.autocast(plain.device.type, enabled=False):
            if self.whole:
                total, terms = self.loss(plain, batch)
            if self.textured:
                asked, more = self.loss(textured, {name: v[:few] for name, v in batch.items()}, asked=True)
                total = total + _ASKED * asked
                terms |= {f"asked_{name}": value for name, value in more.items()}
        self.log("loss", total, prog_bar=True)
        self.log_dict({f"loss_{name}": value for name, value in terms.items()})
        return total

    def averaged(self) -> SemDenoiser:
        network = self.average.module
        assert isinstance(network, SemDenoiser)
        return network.eval()

    def batches_from(self, step: int) -> Batches:
        self.batches = Batches(self.recipe, step, self.trainer.global_rank, self.source)
        return self.batches


def agreed(trainer: Any, stop: bool) -> bool:
    """The first process decides for all."""
    return stop if trainer.world_size == 1 else bool(trainer.strategy.broadcast(stop))


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


class Chooser(lightning.Callback):
    """Judges the moving average every so many steps, keeps the best allowed model, stops when none gets better.

    `best.safetensors` is the best among the eligible; `last.safetensors` is written at the end in any case. Each
    judgement is a line of `judged.jsonl`.
    """

    def __init__(self, recipe: Recipe, out: Path, quiet: bool = True) -> None:
        self.recipe, self.out, self.quiet = recipe, out, quiet
        self.rows: list[dict[str, Any]] = []
        self.held_out: judging.HeldOut | None = None
        self.best: float | None = None
        self.waited = 0
        self.baseline: judging.Judged | None = None
        self.dists = recipe.validation.dists and judging.dists_there()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": json.dumps(self.rows), "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.best, self.waited = json.loads(state["rows"]), state["best"], state["waited"]

    def on_train_start(self, trainer: Any, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        recipe = self.recipe
        if recipe.data.mode == "synthetic":
            self.held_out = judging.synthetic(recipe)
        else:
            tiles: FromTiles = module.batches.make
            limit, align = recipe.validation.tiles, recipe.model.align
            self.held_out = judging.from_tiles(tiles.held_out, recipe.data.mode, align, limit)
        if self.held_out.against == "reference":
            name = self.recipe.validation.baseline
            denoised = self.held_out.noisy if name == "noisy" else judging.classical(self.held_out, name)
            self.baseline = self._judged(denoised, None, name)

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        step = trainer.global_step
        every = self.recipe.validation.every
        if trainer.is_global_zero and (step % every == 0 or step >= self.recipe.training.steps or trainer.should_stop):
            self.judge(trainer, module, step)
        if step % every == 0 and agreed(trainer, self.waited >= self.recipe.validation.patience):
            trainer.should_stop = True

    def judge(self, trainer: Any, module: Any, step: int) -> None:
        assert self.held_out is not None
        network = module.averaged()
        loss = float(trainer.callback_metrics.get("loss", math.nan))
        if self.held_out.against == "none":  # a single frame has no evidence: the newest model is kept
            judged = judging.Judged(-loss, True, (), {}, None)
        else:
            asked = judging.run(network, self.held_out, 1.0) if self.recipe.loss.get("grain") else None
            judged = self._judged(judging.run(network, self.held_out), self.baseline, f"step {step}", asked)
        better = judged.eligible and (self.best is None or judged.score > self.best or self.held_out.against == "none")
        row = {
            "step": step, "minutes": round(module.clock.seconds / 60, 3), "loss": loss, "score": judged.score,
            "eligible": judged.eligible, "fired": list(judged.fired), "chosen": better, **judged.figures,
        }  # fmt: skip
        self.rows.append(row)
        with (self.out / "judged.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if not self.quiet:
            print(_line(row), file=sys.stderr, flush=True)
        trainer.logger.log_metrics({k: v for k, v in row.items() if isinstance(v, float)}, step)
        if better:
            self.best, self.waited = judged.score, 0
            self.save(network, "best", step)
        elif self.best is not None:
            self.waited += 1

    def save(self, network: SemDenoiser, name: str, step: int) -> str:
        recipe = self.recipe.to_dict()
        for table, entry in (("data", "source"), ("training", "start")):  # weights travel: where files lay does not
            if recipe[table][entry] is not None:
                recipe[table][entry] = Path(recipe[table][entry]).name
        about = {"name": self.recipe.name, "recipe": recipe, "step": step}
        return weights.save(network, self.out / f"{name}.safetensors", family=self._family(), about=about)

    def _family(self) -> dict[str, tuple[float, float]]:
        if not hasattr(self, "_ranges"):
            if self.recipe.data.mode == "synthetic":
                self._ranges = judging.family(self.recipe)
            else:
                held = self.held_out
                rows = [figures(n, [x[0].numpy()]) for n, x in zip(held.noises, held.noisy, strict=True)]  # type: ignore[union-attr]
                self._ranges = judging.ranges(rows)
        return self._ranges

    def _judged(
        self, denoised: Tensor, baseline: judging.Judged | None, label: str, asked: Tensor | None = None
    ) -> judging.Judged:
        limits = self.recipe.validation.transfer
        assert self.held_out is not None
        return judging.judge(
            denoised, self.held_out, baseline=baseline, transfer=limits, dists=self.dists, label=label, asked=asked
        )


def _line(row: Mapping[str, Any]) -> str:
    """A judgement for people."""
    shown = [f"{k} {row[k]:.4g}" for k in ("loss", "psnr", "ssim", "fsim", "area", "transfer", "mse_drop") if k in row]
    why = "chosen" if row["chosen"] else f"fired: {', '.join(row['fired'])}" if row["fired"] else ""
    why = why or ("not better" if row["eligible"] else "evidence transfer outside the limits, or below the baseline")
    return f"train: step {row['step']}, {row['minutes']:.1f} min, {', '.join(shown)}: {why}"
