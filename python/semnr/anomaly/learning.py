"""The autoencoder's training on `semnr.training`'s loop: its batches, its loss, and the judge of the held-out error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from ..base.random_streams import stream
from ..noise import NoiseModel
from ..training.loop import Averaged, Choosing
from ..training.scenes import specks
from .autoencoder import denoised
from .network import Autoencoder
from .normals import Tiles
from .recipe import Recipe

Batch = dict[str, Tensor]
_BATCHES, _JUDGED = 81, 82  # of the seed
_PARTS = ("seen", "target", "sigma", "weight")
_PASTED = (4, 20)  # px: sides of pieces of other tiles that are planted
_VISIBLE = 0.5  # of the noise: a pixel that a planted fault changes by more counts more in the loss
_LEAST_ERROR = 0.01  # of the held-out error that a better model must gain


class Patches(IterableDataset[Batch]):
    """Endless; batch `step` of a seed is always the same one, so that a resumed run goes on where it stopped."""

    def __init__(
        self, recipe: Recipe, targets: list[np.ndarray], noise: NoiseModel, top: float, scan_axis: int, start: int
    ) -> None:
        self.recipe, self.targets, self.noise, self.top, self.start = recipe, targets, noise, top, start
        self.scan_axis = scan_axis
        side = recipe.data.patch
        frequency = np.fft.rfftfreq(side)
        self.shape = np.sqrt(noise.spectrum(frequency)).astype(np.float32)  # of the noise along a line, at variance 1

    def __iter__(self) -> Iterator[Batch]:
        step = self.start
        while True:
            yield self.batch(stream(self.recipe.training.seed, _BATCHES, step))
            step += 1

    def batch(self, rng: np.random.Generator) -> Batch:
        data = self.recipe.data
        target = np.stack([self._patch(rng) for _ in range(data.batch)])
        sigma = self.noise.sigma(target).astype(np.float32)
        seen = self._with_faults(target, sigma, rng)
        faulty = np.abs(seen - target) > _VISIBLE * sigma
        if data.input == "tile" and data.target != "tile":
            seen = np.clip(seen, 0, self.top)
            white = rng.standard_normal(seen.shape, dtype=np.float32)
            lines = np.fft.irfft(np.fft.rfft(white) * self.shape, n=data.patch).astype(np.float32)
            lines = lines if self.scan_axis == -1 else lines.transpose(0, 2, 1)
            seen = seen + lines * self.noise.sigma(seen).astype(np.float32)
        seen = np.clip(seen, 0, self.top)
        weight = np.where(faulty, np.float32(1 + data.fault_weight), np.float32(1))
        arrays = {"seen": seen, "target": target, "sigma": sigma, "weight": weight}
        return {name: torch.from_numpy(value)[:, None] for name, value in arrays.items()}

    def _patch(self, rng: np.random.Generator) -> np.ndarray:
        side, image = self.recipe.data.patch, self.targets[int(rng.integers(len(self.targets)))]
        top, left = (int(rng.integers(0, n - side + 1)) for n in image.shape)
        patch = image[top : top + side, left : left + side]
        if self.recipe.data.turn:
            patch = patch[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
        return patch

    def _with_faults(self, target: np.ndarray, sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Bumps of 2 to 9 px and pieces of other places, in a share of the patches; the others stay as they are."""
        n, side = target.shape[0], target.shape[-1]
        chosen = np.asarray(rng.random(n) < self.recipe.data.faults)
        change, _ = specks(n, side, np.sqrt(np.mean(sigma**2, axis=(1, 2))), rng)
        seen = target + change * chosen[:, None, None]
        for at in np.flatnonzero(chosen & (rng.random(n) < 0.5)):
            height, width = (int(v) for v in rng.integers(*_PASTED, 2))
            other = self._patch(rng)
            rows, columns, y, x = (int(rng.integers(0, side - extent)) for extent in (height, width, height, width))
            seen[at, y : y + height, x : x + width] = other[rows : rows + height, columns : columns + width]
        return seen.astype(np.float32)


class Reconstruction(Averaged):
    """The autoencoder and its loss, in units of the noise."""

    def __init__(
        self, recipe: Recipe, targets: list[np.ndarray], noise: NoiseModel, top: float, scan_axis: int = -1
    ) -> None:
        torch.manual_seed(recipe.training.seed)
        levels = np.concatenate([image.ravel() for image in targets])
        network = Autoencoder(recipe.model, float(levels.mean()), max(float(levels.std()), 1e-6 * top))
        super().__init__(network, recipe.training, recipe.training.steps)
        self.recipe, self.targets, self.noise, self.top, self.scan_axis = recipe, targets, noise, top, scan_axis

    def training_step(self, batch: Batch, index: int) -> Tensor:
        wrong = (self.network(batch["seen"]) - batch["target"]) / batch["sigma"]
        each = functional.smooth_l1_loss(wrong, torch.zeros_like(wrong), reduction="none")
        loss = (each * batch["weight"]).sum() / batch["weight"].sum()
        self.log("loss", loss, prog_bar=True)
        return loss

    def train_dataloader(self) -> DataLoader[Any]:
        # the step is known by now, also of a resumed run
        made = Patches(self.recipe, self.targets, self.noise, self.top, self.scan_axis, self.trainer.global_step)
        return DataLoader(made, batch_size=None)


class HeldOut(Choosing):
    """Compares the error of held-out tiles with that of training tiles, and keeps the weights of the least error.

    An error is that of a patch with planted faults: the mean square of reconstruction less target, in units of the
    noise and weighted as in the loss. 0 where the model takes every fault away and nothing else. The score is the
    held-out error with a minus; a model that does not gain enough on the best one is not eligible.
    """

    def __init__(self, recipe: Recipe, out: Path, batches: dict[str, list[Batch]], quiet: bool = True) -> None:
        wanted = recipe.validation
        super().__init__(out, every=wanted.every, steps=recipe.training.steps, patience=wanted.patience, quiet=quiet)
        self.batches = batches
        self.weights: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.weights = dict(state["weights"])

    def judged(self, module: Any, step: int, loss: float) -> tuple[dict[str, Any], bool]:
        network = module.averaged()
        errors = {f"{name}_error": float(self.errors(network, name).mean()) for name in self.batches}
        score = -errors["held_out_error"]
        gains = self.best is None or score > self.best * (1 - _LEAST_ERROR)
        return {"score": score, "eligible": gains, **errors}, False

    def save(self, network: Autoencoder, name: str, step: int) -> None:
        self.weights = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}

    def line(self, row: Mapping[str, Any]) -> str:
        told = f"held-out error {row['held_out_error']:.4g}, training error {row['training_error']:.4g}"
        return f"anomaly: step {row['step']}, {row['minutes']:.1f} min, {told}{': chosen' if row['chosen'] else ''}"

    def errors(self, network: Autoencoder, name: str) -> np.ndarray:
        """One error a patch."""
        rows = []
        with torch.inference_mode():
            for batch in self.batches[name]:
                seen, target, sigma, weight = (batch[k].to(network.centre.device) for k in _PARTS)
                wrong = ((network(seen) - target) / sigma).square() * weight
                rows.append(wrong.sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)))
        return torch.cat(rows).double().cpu().numpy()


def targets_of(tiles: Tiles, recipe: Recipe, noise: NoiseModel, scan_axis: int = -1) -> list[np.ndarray]:
    """What the network is to give back of each tile: the tile denoised, or the tile itself."""
    model = recipe.data.target
    if model == "tile":
        return tiles.images
    return [denoised(image, model, noise, tiles.data_range, scan_axis) for image in tiles.images]


def fixed(recipe: Recipe, targets: list[np.ndarray], noise: NoiseModel, top: float, scan_axis: int) -> list[Batch]:
    """The batches that every judgement is made on: as many patches as `validation.tiles`, always the same ones."""
    patches = Patches(recipe, targets, noise, top, scan_axis, 0)
    count = -(-recipe.validation.tiles // recipe.data.batch)
    return [patches.batch(stream(recipe.training.seed, _JUDGED, k)) for k in range(count)]
