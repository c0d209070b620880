"""The denoiser's training as Lightning runs it: one step, its batches, and the choice of the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..denoising import weights
from ..denoising.network import SemDenoiser
from ..noise.family import figures
from . import judge as judging
from . import widen
from .config import Recipe
from .data import Batches, FromTiles
from .loop import Averaged, Choosing
from .loss import TrainingLoss

_ASKED = 0.1  # of the loss with texture asked for: the optimiser does not care, the common limit of the gradient does


class Denoising(Averaged):
    """The network, its moving average (which is what is judged and kept), and the loss."""

    network: SemDenoiser

    def __init__(self, recipe: Recipe, source: Any = None) -> None:
        torch.manual_seed(recipe.training.seed)
        network = SemDenoiser(recipe.model)
        if (start := recipe.training.start) is not None:
            begun = weights.load(start).network
            if not widen.fits(begun.layout, recipe.model):
                raise ValueError(
                    f"training.start is {start!r}, of layout {begun.layout}; accepted: weights of {recipe.model}, or "
                    "of one that differs by smaller widths alone"
                )
            widen.begin(network, begun)
        textured, whole = bool(recipe.loss.get("grain")), recipe.training.part == "all"
        if not whole:
            network.grain = SemDenoiser(recipe.model).grain  # from nothing
        network.network.requires_grad_(whole)
        network.grain.requires_grad_(textured)
        super().__init__(network, recipe.training, recipe.training.steps)
        self.recipe, self.source, self.textured, self.whole = recipe, source, textured, whole
        self.loss = TrainingLoss(recipe.loss, recipe.data.margin, recipe.data.mode == "noise2noise")
        self.batches: Batches | None = None

    def training_step(self, batch: Mapping[str, Tensor], index: int) -> Tensor:
        few = max(1, len(batch["noisy"]) // 4) if self.whole else len(batch["noisy"])
        if self.textured:
            plain, textured = self.network.both(batch["noisy"], batch["law"], few)
        else:
            plain = self.network.plain(batch["noisy"], batch["law"])
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

    def train_dataloader(self) -> DataLoader[Any]:
        # the step is known by now, also of a resumed run
        self.batches = Batches(self.recipe, self.trainer.global_step, self.trainer.global_rank, self.source)
        return DataLoader(self.batches, batch_size=None)


class Chooser(Choosing):
    """Judges the moving average every so many steps, keeps the best allowed model, stops when none gets better.

    `best.safetensors` is the best among the eligible; `last.safetensors` is written at the end in any case. Each
    judgement is a line of `judged.jsonl`.
    """

    def __init__(self, recipe: Recipe, out: Path, quiet: bool = True) -> None:
        wanted = recipe.validation
        super().__init__(
            out, every=wanted.every, steps=recipe.training.steps, patience=wanted.patience, quiet=quiet
        )  # fmt: skip
        self.recipe = recipe
        self.held_out: judging.HeldOut | None = None
        self.baseline: judging.Judged | None = None
        self.dists = wanted.dists and judging.dists_there()

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

    def judged(self, module: Any, step: int, loss: float) -> tuple[dict[str, Any], bool]:
        assert self.held_out is not None
        network, alone = module.averaged(), self.held_out.against == "none"
        if alone:  # a single frame has no evidence: the newest model is kept
            judged = judging.Judged(-loss, True, (), {}, None)
        else:
            asked = judging.run(network, self.held_out, 1.0) if self.recipe.loss.get("grain") else None
            judged = self._judged(judging.run(network, self.held_out), self.baseline, f"step {step}", asked)
        row = {"score": judged.score, "eligible": judged.eligible, "fired": list(judged.fired), **judged.figures}
        return row, alone

    def line(self, row: Mapping[str, Any]) -> str:
        shown = ("loss", "psnr", "ssim", "fsim", "area", "transfer", "mse_drop")
        figures = ", ".join(f"{k} {row[k]:.4g}" for k in shown if k in row)
        why = "chosen" if row["chosen"] else f"fired: {', '.join(row['fired'])}" if row["fired"] else ""
        outside = "evidence transfer outside the limits, or below the baseline"
        why = why or ("not better" if row["eligible"] else outside)
        return f"train: step {row['step']}, {row['minutes']:.1f} min, {figures}: {why}"

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
