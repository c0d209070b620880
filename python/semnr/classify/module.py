"""The classifier's training as Lightning runs it: batches, one step, and the choice of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from .. import backbones
from ..base.random_streams import stream
from ..training.loop import Averaged, Choosing
from . import measures
from .augment import augmented
from .config import ClassifierRecipe
from .images import LabelledImages
from .model import Network, run, save_classifier

Batch = dict[str, Tensor]
_ORDER, _BATCHES = 94, 95  # purposes of the seed
_HEAD = 1_000_000  # the rank whose batches the last layer is solved on: no process has it
_PENALTY = 1e-3  # of the squared weights of that layer, features of variance 1
_TIE = 1e-3  # what the loss of the validation images counts beside their macro-F1


@dataclass(frozen=True)
class Plan:
    """Which side the images have at a step, and how many steps there are."""

    sides: tuple[int, ...]
    ends: tuple[int, ...]  # the step at which each stage ends
    each: int  # steps of one pass over the images

    @classmethod
    def of(cls, recipe: ClassifierRecipe, images: int) -> Plan:
        each = max(1, -(-images // recipe.data.batch))
        return cls(recipe.data.sides, tuple(np.cumsum([n * each for n in recipe.data.epochs]).tolist()), each)

    @property
    def steps(self) -> int:
        return self.ends[-1]

    def side(self, step: int) -> int:
        return next((s for s, end in zip(self.sides, self.ends, strict=True) if step < end), self.sides[-1])

    def stages(self) -> list[dict[str, int]]:
        """For a card: side, steps and passes of each stage."""
        lengths = [b - a for a, b in pairwise((0, *self.ends))]
        rows = zip(self.sides, lengths, strict=True)
        return [{"side": s, "steps": n, "epochs": n // self.each} for s, n in rows]


class Batches(IterableDataset[Batch]):
    """Endless; batch `step` of a seed is always the same one, so that a resumed run goes on where it stopped."""

    def __init__(
        self, recipe: ClassifierRecipe, images: Sequence[np.ndarray], labels: np.ndarray, plan: Plan, start: int,
        rank: int,
    ) -> None:  # fmt: skip
        self.recipe, self.images, self.labels, self.plan, self.start, self.rank = (
            recipe, images, labels, plan, start, rank,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Batch]:
        data, seed, step = self.recipe.data, self.recipe.training.seed, self.start
        while True:
            epoch, k = divmod(step, self.plan.each)
            order = stream(seed, _ORDER, self.rank, epoch).permutation(len(self.images))
            chosen = np.resize(order, self.plan.each * data.batch)[k * data.batch : (k + 1) * data.batch]
            rng = stream(seed, _BATCHES, self.rank, step)
            x = augmented(
                [self.images[i] for i in chosen], self.plan.side(step), self.recipe.augment, self.recipe.noise, rng
            )
            yield {"image": x, "label": torch.from_numpy(self.labels[chosen].astype(np.int64))}
            step += 1


def class_weights(labels: np.ndarray, classes: int, balance: float) -> np.ndarray:
    """What an image of each class counts: n^-balance of its number of images, on average over the images 1."""
    counts = np.maximum(np.bincount(labels, minlength=classes), 1).astype(float)
    weights = counts**-balance
    return weights * counts.sum() / (weights * counts).sum()


def regression(x: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(classes, features) and (classes,): multinomial logistic regression of features, an image counting as its class.

    The features are scaled to a variance of 1 for the penalty, and the result is scaled back.
    """
    mean, spread = x.mean(dim=0), x.std(dim=0) + 1e-3
    z = (x - mean) / spread
    solved = torch.zeros(z.shape[1] + 1, len(weights), device=x.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([solved], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        each = functional.cross_entropy(z @ solved[:-1] + solved[-1], labels, weight=weights, reduction="none")
        value = each.mean() + _PENALTY * solved[:-1].square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    found = solved.detach()
    weight = found[:-1] / spread[:, None]
    return weight.T, found[-1] - mean @ weight


class Classifying(Averaged):
    """The network, its moving average (which is what is judged and kept), and the loss."""

    weights: Tensor

    def __init__(
        self, recipe: ClassifierRecipe, images: Sequence[np.ndarray], labels: np.ndarray, classes: int,
        start: backbones.Start,
    ) -> None:  # fmt: skip
        torch.manual_seed(recipe.training.seed)
        network = Network(recipe.model.backbone, classes)
        left = backbones.start(network.backbone, recipe.model.backbone, start)
        plan = Plan.of(recipe, len(images))
        super().__init__(network, recipe.training, plan.steps)
        self.recipe, self.images, self.labels, self.plan = recipe, images, labels, plan
        weights = class_weights(labels, classes, recipe.data.balance)
        self.register_buffer("weights", torch.from_numpy(weights).float(), persistent=False)
        self.head = left[-1].rpartition(".")[0] if left else None  # of a network that starts from nothing there is none

    def on_train_start(self) -> None:
        """Solve the last layer first, where the recipe says so and the run is no resumed one."""
        head = None if self.head is None else self.network.get_submodule(f"backbone.{self.head}")
        if self.recipe.training.head_first and self.trainer.global_step == 0 and isinstance(head, torch.nn.Linear):
            self._solve(head)

    def _solve(self, head: torch.nn.Linear) -> None:
        """Multinomial regression on the features that the last layer is given."""
        first, given = Plan((self.plan.sides[0],), (self.steps,), self.plan.each), []
        batches = iter(Batches(self.recipe, self.images, self.labels, first, 0, _HEAD))
        hook = head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].float()))
        labels = []
        self.network.eval()
        with torch.no_grad():
            for _ in range(self.recipe.training.head_first * self.plan.each):
                batch = next(batches)
                self.network(batch["image"].to(self.device, memory_format=torch.channels_last))
                labels.append(batch["label"].to(self.device))
        hook.remove()
        self.train()
        weight, bias = regression(torch.cat(given), torch.cat(labels), self.weights)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)

    def train(self, mode: bool = True) -> Classifying:
        """Batch normalisation stays as it is in a prediction, where the recipe keeps its statistics."""
        super().train(mode)
        if self.recipe.model.kept_statistics:
            for part in self.network.modules():
                if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                    part.eval()
        return self

    def training_step(self, batch: Batch, index: int) -> Tensor:
        x = batch["image"].to(memory_format=torch.channels_last)
        torch.manual_seed(self.settings.seed * 1_000_003 + self.trainer.global_step)  # dropout, also of a resumed run
        # the weights do not lower the loss of a batch of common classes: the mean is over the images
        each = functional.cross_entropy(
            self.network(x), batch["label"], weight=self.weights, reduction="none",
            label_smoothing=self.recipe.data.smoothing,
        )  # fmt: skip
        loss = each.mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def train_dataloader(self) -> DataLoader[Any]:
        start, rank = self.trainer.global_step, self.trainer.global_rank
        made = Batches(self.recipe, self.images, self.labels, self.plan, start, rank)
        return DataLoader(made, batch_size=None)


class Chooser(Choosing):
    """Judges the moving average on the validation images: macro-F1, of equals the lower loss."""

    def __init__(
        self, recipe: ClassifierRecipe, out: Path, plan: Plan, images: LabelledImages, held_out: Sequence[int],
        about: Mapping[str, Any], quiet: bool,
    ) -> None:  # fmt: skip
        every = recipe.validation.every * plan.each
        super().__init__(out, every=every, steps=plan.steps, patience=recipe.validation.patience, quiet=quiet)
        self.recipe, self.plan, self.classes, self.about = recipe, plan, images.classes, dict(about)
        self.pixels = [images.pixels[i] for i in held_out]
        self.labels = images.labels[list(held_out)]

    def judged(self, module: Any, step: int, loss: float) -> tuple[dict[str, Any], bool]:
        logits = self.logits(module.averaged(), step)
        f1 = measures.macro_f1(measures.confusion(self.labels, logits.argmax(axis=1), len(self.classes)))
        held = measures.log_loss(logits, self.labels)
        accuracy = float((logits.argmax(axis=1) == self.labels).mean())
        row = {"macro_f1": f1, "accuracy": accuracy, "validation_loss": held, "side": self.side(step)}
        # a stage ends with the last side only: models of smaller images do not compete with those of the last one
        return {"score": f1 - _TIE * min(held, 100.0), "eligible": self.side(step) == self.plan.sides[-1], **row}, False

    def side(self, step: int) -> int:
        """What the images had at the step that has just been made."""
        return self.plan.side(step - 1)

    def logits(self, network: torch.nn.Module, step: int) -> np.ndarray:
        """Of the validation images."""
        return run(network, self.pixels, self.side(step), 64, len(self.classes))

    def line(self, row: Mapping[str, Any]) -> str:
        shown = ", ".join(f"{k} {row[k]:.4g}" for k in ("side", "loss", "validation_loss", "accuracy", "macro_f1"))
        return f"train: step {row['step']}, {row['minutes']:.1f} min, {shown}{': chosen' if row['chosen'] else ''}"

    def save(self, network: torch.nn.Module, name: str, step: int) -> str:
        """With the temperature and the threshold of the validation images."""
        logits = self.logits(network, step)
        temperature = measures.fit_temperature(logits, self.labels)
        raised = np.exp(logits / temperature - (logits / temperature).max(axis=1, keepdims=True))
        confidence = (raised / raised.sum(axis=1, keepdims=True)).max(axis=1)
        correct = (logits.argmax(axis=1) == self.labels).astype(float)
        threshold, reached = measures.choose_threshold(confidence, correct, self.recipe.validation.accept)
        recipe = self.recipe.to_dict()
        if recipe["model"]["weights"] not in ("auto", "none"):  # weights travel: where files lay does not
            recipe["model"]["weights"] = Path(recipe["model"]["weights"]).name
        about = {**self.about, "recipe": recipe, "step": step, "accept_reached": reached}
        return save_classifier(
            network, self.out / f"{name}.safetensors", backbone=self.recipe.model.backbone, classes=self.classes,
            side=self.side(step), temperature=temperature, threshold=threshold, about=about,
        )  # fmt: skip
